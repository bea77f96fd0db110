//! The commands that say where records are, on a running agent and on the folder of a stopped one.

use std::path::PathBuf;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use serde_json::Value as Json;

use super::oracle::{self, Sent};
use crate::harness::backend::{Backend, Manner};
use crate::harness::lasting::{Lasting, Row};
use crate::harness::numbered::{Numbered, numbered};
use crate::harness::sender::send;
use crate::harness::weir::said;
use crate::harness::{seconds, wait_for};

const SOON: &str = "signals: [logs], retry_delay: 50ms, retry_max_delay: 200ms";

/// What lines of OTLP/JSON hold, read by opentelemetry-proto.
fn records_of(lines: &str) -> Vec<Numbered> {
    let read = |line: &str| -> ExportLogsServiceRequest {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    lines.lines().map(read).flat_map(|request| numbered(&request)).collect()
}

/// Starts an agent whose backend is away, and sends it 300 records.
async fn with_300_waiting(head: &str) -> (Lasting, Backend, Sent) {
    let backend = Backend::away();
    let mut agent = Lasting::new();
    agent.configure(head, &backend.exporter("otlp", SOON));
    agent.start().await;
    let sent = Sent::over_the_network(1);
    send(&agent.url(), &sent, 30).await;
    (agent, backend, sent)
}

/// The files of the exporter's queue.
fn segments(agent: &Lasting) -> Vec<PathBuf> {
    let folder = agent.data().join("queues/otlp");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "queue"))
        .collect()
}

fn assert_waiting(agent: &Lasting, of: &str) {
    let table = agent.says(&["ledger"]);
    assert!(table.contains("otlp_receiver  otlp") && table.contains("300"), "{of}: {table}");
    assert!(table.contains("every record is accounted for"), "{of}: {table}");
    let row = agent.row("otlp_receiver", "otlp");
    assert_eq!(row, Row { accepted: 300, waiting: 300, ..Row::default() }, "{of}");
    let status = agent.json(&["queue", "status", "--json"]);
    let queue = &status["queues"][0];
    assert_eq!((&queue["exporter"], &queue["kind"]), (&"otlp".into(), &"disk".into()), "{of}: {status}");
    assert!(queue["oldest_age_seconds"].as_f64().is_some_and(|age| (0.0..120.0).contains(&age)), "{of}: {status}");
    let table = agent.says(&["queue", "status"]);
    assert!(table.contains("otlp") && table.contains("disk"), "{of}: {table}");
    let verified = agent.says(&["queue", "verify"]);
    assert!(verified.contains("300 records wait, 0 damaged places"), "{of}: {verified}");
    let exported = records_of(&agent.says(&["queue", "export"]));
    let numbers: Vec<u64> = exported.iter().map(|record| record.number).collect();
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>(), "{of}");
    assert_eq!(agent.says(&["queue", "export", "--exporter", "another"]), "", "{of}");
    assert!(agent.says(&["dead-letters", "list"]).contains("there are no dead letters"), "{of}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ledger_and_queue_say_the_same_of_a_running_and_of_a_stopped_agent() {
    let (mut agent, mut backend, sent) = with_300_waiting("").await;
    assert_waiting(&agent, "running");
    let closing = agent.stop().await;
    assert!(closing.contains("300"), "what waits is said: {closing}");
    assert_waiting(&agent, "stopped");
    assert!(agent.says(&["queue", "status"]).contains("no Weir runs on this folder"));
    let said = agent.fails(&["reload"]);
    assert!(said.contains("no Weir runs on") && said.contains("start it"), "{said}");
    backend.come_back();
    agent.start().await;
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(300));
    assert_eq!(oracle::check("otlp", &backend.arrivals(), &[&sent]).repeats, 0);
    agent.stop().await;
    assert_eq!(agent.row("otlp_receiver", "otlp"), Row::all_delivered(300));
    assert!(agent.says(&["queue", "verify"]).contains(" 0 records wait, 0 damaged places"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_folder_is_told_so_and_harms_nothing() {
    let (mut agent, mut backend, _) = with_300_waiting("").await;
    let said = agent.start_in_vain().await;
    let data = agent.data().display().to_string();
    assert!(said.contains(&data), "{said}");
    assert!(said.contains("another") || said.contains("already"), "{said}");
    assert!(said.contains(&agent.process().pid().to_string()) || said.contains("--data"), "what to do next: {said}");
    assert!(agent.is_running());
    assert_waiting(&agent, "beside another");
    backend.come_back();
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found_counted_and_passed_over() {
    let (mut agent, mut backend, sent) = with_300_waiting("").await;
    agent.stop().await;
    // In the newest file such an entry may as well be a write that was never finished.
    agent.start().await;
    send(&agent.url(), &sent, 5).await;
    agent.kill().await;
    let damaged = segments(&agent).into_iter().find_map(|path| {
        let mut bytes = std::fs::read(&path).expect("readable");
        let at = bytes.windows(8).position(|window| window == b"s1 n155 ")?;
        bytes[at + 4] ^= 0x10;
        std::fs::write(&path, bytes).expect("writable");
        Some(path)
    });
    let damaged = damaged.expect("record 155 is on the disk");
    let said = agent.fails(&["queue", "verify"]);
    let name = damaged.file_name().expect("a name").to_str().expect("a plain name");
    assert!(said.contains("1 damaged places") && said.contains(name) && said.contains("10 records"), "{said}");
    let output = agent.run(&["queue", "export"]);
    assert!(!output.status.success() && self::said(&output).contains("10 records cannot be read"), "{output:?}");
    assert_eq!(records_of(&String::from_utf8(output.stdout).expect("text")).len(), 340);

    backend.come_back();
    agent.start().await;
    let row = agent.drained("otlp", seconds(20)).await;
    assert_eq!(row, Row { accepted: 350, delivered: 340, dropped: 10, ..Row::default() });
    let ledger = agent.ledger();
    assert_eq!(ledger[0]["dropped"]["unreadable"], 10, "{ledger:?}");
    let mut numbers: Vec<u64> = backend.arrivals().iter().map(|arrival| arrival.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=150).chain(161..=350).collect::<Vec<_>>());
    let log = agent.process().stderr();
    assert!(
        log.lines().any(|line| line.contains("ERROR") && line.contains(name) && line.contains("records=10")),
        "{log}"
    );
    agent.stop().await;
    assert_eq!(agent.row("otlp_receiver", "otlp"), row, "also after the next stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_queue_shows_nothing_and_is_read_with_its_key_alone() {
    let keys = tempfile::tempdir().expect("a temporary folder");
    let (key, wrong) = (keys.path().join("key"), keys.path().join("wrong"));
    std::fs::write(&key, std::array::from_fn::<u8, 32, _>(|at| (at * 7 + 3) as u8)).expect("writable");
    std::fs::write(&wrong, [5; 32]).expect("writable");
    let head = |key: &PathBuf| format!("delivery: {{key_file: \"{}\"}}", key.display());
    let (mut agent, mut backend, sent) = with_300_waiting(&head(&key)).await;
    agent.kill().await;
    let bytes: Vec<u8> = segments(&agent).iter().flat_map(|path| std::fs::read(path).expect("readable")).collect();
    assert!(bytes.len() > 300 * 200, "{} bytes", bytes.len());
    assert!(!bytes.windows(4).any(|window| window == b"s1 n"), "plain text on the disk");
    assert!(agent.says(&["queue", "verify"]).contains("300 records wait, 0 damaged places"), "that needs no key");
    let path = |path: &PathBuf| path.to_str().expect("a plain name").to_owned();
    assert!(agent.fails(&["queue", "export"]).contains("--key-file"));
    assert!(agent.fails(&["queue", "export", "--key-file", &path(&wrong)]).contains("300 records cannot be read"));
    assert_eq!(records_of(&agent.says(&["queue", "export", "--key-file", &path(&key)])).len(), 300);

    agent.configure(&head(&wrong), &backend.exporter("otlp", SOON));
    let said = agent.start_in_vain().await;
    assert!(said.contains("encrypted with another key") && said.contains("otlp"), "{said}");
    agent.configure(&head(&key), &backend.exporter("otlp", SOON));
    backend.come_back();
    agent.start().await;
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(300));
    oracle::check("otlp", &backend.arrivals(), &[&sent]);
}

/// The dead letters as they are listed.
fn letters(agent: &Lasting) -> Vec<Json> {
    agent.json(&["dead-letters", "list", "--json"])["dead_letters"].as_array().expect("a list").clone()
}

fn assert_letters(agent: &Lasting, of: &str) -> Vec<String> {
    let letters = letters(agent);
    let records: u64 = letters.iter().map(|letter| letter["records"].as_u64().expect("a number")).sum();
    assert_eq!(records, 30, "{of}: {letters:?}");
    let table = agent.says(&["dead-letters", "list"]);
    let mut numbers = Vec::new();
    for letter in &letters {
        let id = letter["id"].as_str().expect("an id");
        assert!(table.contains(id), "{of}: {table}");
        assert_eq!(
            (&letter["exporter"], &letter["source"]),
            (&"otlp".into(), &"otlp_receiver".into()),
            "{of}: {letter}"
        );
        assert_eq!((&letter["signal"], &letter["status"]), (&"logs".into(), &400.into()), "{of}: {letter}");
        assert_eq!(letter["answer"], "a field of a record has the wrong type", "{of}");
        let shown = agent.json(&["dead-letters", "show", id]);
        let payload: ExportLogsServiceRequest = serde_json::from_value(shown["payload"].clone()).expect("OTLP/JSON");
        assert_eq!(shown["id"], id, "{of}");
        numbers.extend(numbered(&payload).iter().map(|record| (record.source, record.number)));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=30).map(|number| (2, number)).collect::<Vec<_>>(), "{of}");
    let exported = records_of(&agent.says(&["dead-letters", "export", "--all"]));
    assert_eq!(exported.len(), 30, "{of}");
    assert_eq!(agent.says(&["dead-letters", "list", "--exporter", "another"]), "there are no dead letters\n", "{of}");
    let of_them = ["dead-letters", "list", "--json", "--source", "otlp_receiver", "--signal", "logs"];
    let found = agent.json(&of_them);
    assert_eq!(found["total"], letters.len(), "{of}: {found}");
    for none in [["--source", "logs"], ["--signal", "metrics"]] {
        let list = [&["dead-letters", "list"][..], &none].concat();
        assert_eq!(agent.says(&list), "there are no dead letters\n", "{of}");
        let export = [&["dead-letters", "export", "--exporter", "otlp"][..], &none].concat();
        assert_eq!(agent.says(&export), "", "{of}");
        let drop = [&["dead-letters", "drop"][..], &none].concat();
        assert_eq!(agent.says(&drop), "0 dropped\n", "{of}");
    }
    let first = agent.says(&["dead-letters", "list", "--limit", "1", "--signal", "logs"]);
    let more = format!("1 of {}; older ones: weir dead-letters list --signal logs --before ", letters.len());
    assert!(letters.len() == 1 || first.contains(&more), "{of}: {first}");
    let wrong = agent.fails(&["dead-letters", "drop", "--signal", "spans"]);
    assert!(wrong.contains("signal: expected `metrics`, `logs` or `traces`"), "{of}: {wrong}");
    let unknown = agent.fails(&["dead-letters", "show", "nothing-like-it"]);
    assert!(unknown.contains("nothing-like-it"), "{of}: {unknown}");
    letters.iter().map(|letter| letter["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_shown_exported_dropped_and_replayed() {
    let backend = Backend::start();
    backend.set(Manner { refuses: Some(2), ..Manner::default() });
    let mut agent = Lasting::new();
    agent.configure("", &backend.exporter("otlp", SOON));
    agent.start().await;
    let (good, bad) = (Sent::over_the_network(1), Sent::over_the_network(2));
    for _ in 0..3 {
        send(&agent.url(), &good, 3).await;
        send(&agent.url(), &bad, 1).await;
    }
    let settled = Row { accepted: 120, delivered: 90, dead_lettered: 30, ..Row::default() };
    assert_eq!(agent.drained("otlp", seconds(20)).await, settled);
    oracle::check("otlp", &backend.arrivals(), &[&good]);
    assert_letters(&agent, "running");
    agent.stop().await;
    assert_eq!(agent.row("otlp_receiver", "otlp"), settled);
    let ids = assert_letters(&agent, "stopped");
    let said = agent.fails(&["dead-letters", "replay", "--all"]);
    assert!(said.contains("no Weir runs on"), "{said}");
    agent.start().await;
    assert_eq!(assert_letters(&agent, "started again"), ids);

    // Refused once more.
    let output = agent.run(&["dead-letters", "replay", &ids[0]]);
    println!("{}", self::said(&output));
    wait_for("it is there again", seconds(20), async || {
        let row = agent.row("dead_letters", "otlp");
        (row.accepted > 0 && row.waiting == 0).then_some(())
    })
    .await;
    let records: u64 = letters(&agent).iter().map(|letter| letter["records"].as_u64().expect("a number")).sum();
    assert_eq!(records, 30, "what is refused again stays a dead letter");
    assert_eq!(backend.count(), 90);

    // Taken at last, except for one that is dropped.
    let newest = letters(&agent)[0].clone();
    let (id, of) = (newest["id"].as_str().expect("an id"), newest["records"].as_u64().expect("a number"));
    assert_eq!(agent.says(&["dead-letters", "drop", id]), "1 dropped\n");
    assert!(agent.fails(&["dead-letters", "show", id]).contains(id));
    backend.set(Manner::default());
    assert_eq!(agent.says(&["dead-letters", "replay", "--signal", "traces"]), "0 handed on again\n");
    agent.says(&["dead-letters", "replay", "--source", "otlp_receiver", "--signal", "logs"]);
    wait_for("the rest arrives", seconds(20), async || (backend.count() as u64 == 120 - of).then_some(())).await;
    let left = letters(&agent);
    assert!(left.is_empty(), "{left:?}");
    agent.ledger();
    agent.stop().await;
    assert!(letters(&agent).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_all_its_queues_in_memory_is_reached_too_and_what_to_do_is_said_where_none_runs() {
    let backend = Backend::away();
    let mut agent = Lasting::new();
    let in_memory = "delivery: {queue: memory, acknowledge: queued}";
    agent.configure(in_memory, &backend.exporter("otlp", SOON));
    let nobody = |agent: &Lasting| {
        let data = agent.data().display().to_string();
        for command in [&["ledger"][..], &["reload"], &["queue", "status"], &["dead-letters", "list"]] {
            let said = agent.fails(command);
            for part in ["no Weir runs with the data folder", &data, "--config", "--data", "/weir", "kill -HUP"] {
                assert!(said.contains(part), "{command:?}, {part}: {said}");
            }
        }
    };
    nobody(&agent);
    agent.start().await;
    let sent = Sent::over_the_network(1);
    send(&agent.url(), &sent, 30).await;
    assert!(std::fs::metadata(agent.data()).is_err(), "it keeps nothing on the disk");
    assert_eq!(agent.row("otlp_receiver", "otlp"), Row { accepted: 300, waiting: 300, ..Row::default() });
    let status = agent.json(&["queue", "status", "--json"]);
    assert_eq!(status["queues"][0]["kind"], "memory", "{status}");
    assert_eq!(agent.says(&["dead-letters", "list"]), "there are no dead letters\n");
    agent.configure(in_memory, &backend.exporter("otlp", &format!("{SOON}, batch_size: 7")));
    assert_eq!(agent.says(&["reload"]), "configuration read again: 1 unchanged, restarted otlp\n");
    agent.stop().await;
    nobody(&agent);
}
