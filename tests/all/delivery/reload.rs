//! The configuration is read again while records flow: what stays the same is not touched, and no record is
//! lost or delivered twice.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use prost::Message;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::oracle::{self, Sent};
use crate::harness::backend::{Backend, Manner};
use crate::harness::lasting::{Lasting, Row};
use crate::harness::numbered::{Numbered, request};
use crate::harness::sender::{Manners, Sender, Then, send};
use crate::harness::{free_port, seconds, wait_for};

const SOON: &str = "signals: [logs], retry_delay: 50ms, retry_max_delay: 200ms";

const MANNERS: Manners =
    Manners { records: 5, bytes: 200, interval: Duration::from_millis(20), then: Then::SendsAgain };

fn senders(agent: &Lasting) -> Vec<Sender> {
    (1..=3).map(|source| Sender::start(source, &agent.url(), MANNERS)).collect()
}

async fn stop(senders: Vec<Sender>) -> Vec<Arc<Sent>> {
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.stop(seconds(20)).await);
    }
    sent
}

/// Waits until so many more records have come.
async fn more(backend: &Backend, records: usize) {
    let before = backend.count();
    wait_for("more records", seconds(20), async || (backend.count() >= before + records).then_some(())).await;
}

/// Sends SIGHUP and waits until the process has said what it did.
async fn hang_up(agent: &Lasting, words: &str) -> String {
    let before = agent.process().stderr().len();
    agent.process().signal(Signal::SIGHUP);
    wait_for(words, seconds(20), async || {
        let said = agent.process().stderr()[before..].to_owned();
        said.contains(words).then_some(said)
    })
    .await
}

/// That everything acknowledged arrived once at these backends together.
fn assert_once(backends: &[&Backend], sent: &[Arc<Sent>]) -> u64 {
    let arrivals: Vec<Numbered> = backends.iter().flat_map(|backend| backend.arrivals()).collect();
    let sent: Vec<&Sent> = sent.iter().map(|sent| &**sent).collect();
    let found = oracle::check("the backends", &arrivals, &sent);
    assert_eq!(found.repeats, 0, "delivered twice");
    found.distinct
}

/// A connection that is kept.
struct Kept(TcpStream);

impl Kept {
    async fn send(&mut self, sent: &Sent) {
        let records = sent.next(10);
        let body = request(&records, 100).encode_to_vec();
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nhost: weir\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.into_bytes(), body].concat()).await.expect("the connection is there");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = self.0.read_u8().await.expect("the connection is there");
            answer.push(byte);
        }
        let answer = String::from_utf8(answer).expect("text");
        // An empty body follows.
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 0"), "{answer}");
        sent.acknowledge(&records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_change_runs_on_with_its_connections_and_counters() {
    let (one, two) = (Backend::start(), Backend::start());
    let mut agent = Lasting::new();
    agent.configure("", &one.exporter("otlp/one", SOON));
    agent.start().await;
    let sent = Sent::over_the_network(1);
    let mut kept = Kept(TcpStream::connect(("127.0.0.1", agent.port())).await.expect("it listens"));
    kept.send(&sent).await;
    agent.configure("", &format!("{}{}", one.exporter("otlp/one", SOON), two.exporter("otlp/two", SOON)));
    let said = agent.says(&["reload"]);
    assert_eq!(said, "configuration read again: 2 unchanged, started otlp/two\n");
    kept.send(&sent).await;
    let again = agent.says(&["reload"]);
    assert_eq!(again, "configuration read again: 3 unchanged\n");
    kept.send(&sent).await;
    assert_eq!(agent.drained("otlp/one", seconds(10)).await, Row::all_delivered(30));
    assert_eq!(agent.drained("otlp/two", seconds(10)).await, Row::all_delivered(20));
    assert_eq!((one.count(), two.count()), (30, 20));
    let log = agent.process().stderr();
    assert_eq!(log.matches("configuration read again").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exporters_come_move_and_go_while_records_flow() {
    let (first, moved, added) = (Backend::start(), Backend::start(), Backend::start());
    for backend in [&first, &moved, &added] {
        backend.set(Manner { delay: Duration::from_millis(10), ..Manner::default() });
    }
    let mut agent = Lasting::new();
    agent.configure("", &first.exporter("otlp", SOON));
    agent.start().await;
    let senders = senders(&agent);
    more(&first, 200).await;
    agent.configure("", &format!("{}{}", first.exporter("otlp", SOON), added.exporter("otlp/added", SOON)));
    hang_up(&agent, "started otlp/added").await;
    more(&added, 200).await;
    for round in 0..6 {
        let (to, options) = if round % 2 == 0 { (&moved, "batch_size: 100,") } else { (&first, "batch_size: 7,") };
        let moving = to.exporter("otlp", &format!("{options} {SOON}"));
        agent.configure("", &format!("{moving}{}", added.exporter("otlp/added", SOON)));
        let said = agent.says(&["reload"]);
        assert_eq!(said, "configuration read again: 2 unchanged, restarted otlp\n");
        more(to, 100).await;
    }
    agent.configure("", &first.exporter("otlp", SOON));
    hang_up(&agent, "stopped otlp/added").await;
    more(&first, 200).await;
    let sent = stop(senders).await;
    let row = agent.drained("otlp", seconds(20)).await;
    assert_eq!(row, Row::all_delivered(assert_once(&[&first, &moved], &sent)));

    // The one in between has what was accepted while it was there, once.
    let row = agent.drained("otlp/added", seconds(20)).await;
    let arrivals = added.arrivals();
    oracle::repeats("otlp/added", &arrivals, &[]);
    assert_eq!(row, Row::all_delivered(arrivals.len() as u64));
    println!(
        "{} + {} at the exporter that moved, {} at the one in between",
        first.count(),
        moved.count(),
        added.count()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_exporter_that_is_removed_is_delivered_or_kept_as_configured() {
    let (mut drained, mut kept, other) = (Backend::away(), Backend::away(), Backend::start());
    let mut agent = Lasting::new();
    let rest = other.exporter("otlp/other", SOON);
    let removable = format!(
        "{}{}",
        drained.exporter("otlp/drained", SOON),
        kept.exporter("otlp/kept", &format!("{SOON}, when_removed: keep")),
    );
    agent.configure("", &format!("{rest}{removable}"));
    agent.start().await;
    let sent = vec![Arc::new(Sent::over_the_network(1))];
    send(&agent.url(), &sent[0], 30).await;
    agent.configure("", &rest);
    let said = agent.says(&["reload"]);
    assert_eq!(said, "configuration read again: 2 unchanged, stopped otlp/drained, otlp/kept\n");
    let before = sent[0].count();
    drained.come_back();
    kept.come_back();
    wait_for("the drained one delivers", seconds(20), async || (drained.count() as u64 == before).then_some(())).await;
    assert_once(&[&drained], &sent);
    assert_eq!(kept.count(), 0, "it is not configured");
    let status = agent.json(&["queue", "status", "--json"]);
    let queues = status["queues"].as_array().expect("queues");
    let waiting = queues.iter().find(|queue| queue["exporter"] == "otlp/kept").expect("it is shown");
    assert_eq!((&waiting["kind"], &waiting["records"]), (&"disk".into(), &before.into()), "{status}");

    agent.configure("", &format!("{rest}{removable}"));
    agent.says(&["reload"]);
    wait_for("the kept ones are delivered", seconds(20), async || (kept.count() as u64 == before).then_some(())).await;
    assert_once(&[&kept], &sent);
    send(&agent.url(), &sent[0], 5).await;
    for (name, backend) in [("otlp/drained", &drained), ("otlp/kept", &kept), ("otlp/other", &other)] {
        assert_eq!(agent.drained(name, seconds(20)).await, Row::all_delivered(350), "{name}");
        assert_eq!(assert_once(&[backend], &sent), 350, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_changes_nothing_and_is_explained() {
    let backend = Backend::start();
    let mut agent = Lasting::new();
    agent.configure("", &backend.exporter("otlp", SOON));
    agent.start().await;
    let senders = senders(&agent);
    more(&backend, 50).await;
    agent.configure("", &format!("{}  otlp/new: {{endpoint: 5, batch_sise: 3}}\n", backend.exporter("otlp", SOON)));
    let said = agent.fails(&["reload"]);
    assert!(said.contains("weir.yaml:") && said.contains("otlp/new") && said.contains("batch_size"), "{said}");
    more(&backend, 50).await;
    let heard = hang_up(&agent, "what runs goes on as it is").await;
    assert!(heard.contains("weir.yaml:") && heard.contains("batch_size"), "{heard}");
    // A port that somebody else has: nothing of the new file applies, not even what would work.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let receiver = format!("  otlp_receiver/second: {{http: \"127.0.0.1:{port}\", grpc: null}}\n");
    let unused = Backend::start();
    let blocks = [backend.exporter("otlp", SOON), receiver, unused.exporter("otlp/new", SOON)].concat();
    agent.configure("", &blocks);
    let said = agent.fails(&["reload"]);
    assert!(said.contains(&port.to_string()) && said.contains("otlp_receiver/second"), "{said}");
    more(&backend, 50).await;
    let sent = stop(senders).await;
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(assert_once(&[&backend], &sent)));
    assert_eq!(unused.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_moves_to_another_port_and_nothing_is_lost() {
    let backend = Backend::start();
    let mut agent = Lasting::new();
    agent.configure("", &backend.exporter("otlp", SOON));
    agent.start().await;
    let before = senders(&agent);
    more(&backend, 50).await;
    let (old, new) = (agent.port(), free_port());
    agent.set_port(new);
    agent.configure("", &backend.exporter("otlp", SOON));
    let said = agent.says(&["reload"]);
    assert_eq!(said, "configuration read again: 1 unchanged, restarted otlp_receiver\n");
    let after = Sender::start(4, &agent.url(), MANNERS);
    more(&backend, 50).await;
    wait_for("the old port is closed", seconds(10), async || TcpStream::connect(("127.0.0.1", old)).await.err()).await;
    // Back again, so that those who know only the old one can send again what was not answered.
    agent.set_port(old);
    agent.configure("", &backend.exporter("otlp", SOON));
    agent.says(&["reload"]);
    let mut sent = stop(before).await;
    agent.set_port(new);
    agent.configure("", &backend.exporter("otlp", SOON));
    agent.says(&["reload"]);
    sent.extend(stop(vec![after]).await);
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(assert_once(&[&backend], &sent)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_in_the_middle_of_an_outage_lose_nothing() {
    let (away, moved) = (Backend::away(), Backend::start());
    let mut agent = Lasting::new();
    agent.configure("", &away.exporter("otlp", SOON));
    agent.start().await;
    let senders = senders(&agent);
    for batch_size in [100, 30, 1000] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        agent.configure("", &away.exporter("otlp", &format!("{SOON}, batch_size: {batch_size}")));
        assert!(agent.says(&["reload"]).contains("restarted otlp"));
    }
    assert!(agent.row("otlp_receiver", "otlp").waiting > 100);
    agent.configure("", &moved.exporter("otlp", &format!("{SOON}, max_in_flight: 1")));
    assert!(agent.says(&["reload"]).contains("restarted otlp"));
    more(&moved, 300).await;
    let sent = stop(senders).await;
    assert_eq!(agent.drained("otlp", seconds(20)).await, Row::all_delivered(assert_once(&[&moved], &sent)));
    oracle::check_order("otlp", &moved.arrivals());
    assert_eq!(away.count(), 0);
}

/// Asks for a reload as other programs do, over the socket of the agent.
async fn reload_by_api(agent: &Lasting) -> Json {
    let client = weir_net::Client::unix(&agent.data().join("control.sock")).expect("a plain client");
    let request = http::Request::post("http://weir/api/v1/reload").body(Vec::new()).expect("a good address");
    let answer = client.send(request, 1 << 20).await.expect("an answer");
    assert!(answer.status.is_success(), "{}", answer.excerpt());
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_wait_for_the_next_start_are_named_until_then() {
    let backend = Backend::start();
    let exporter = backend.exporter("otlp", SOON);
    let mut agent = Lasting::new();
    agent.configure("", &exporter);
    agent.start().await;
    agent.configure("limits: {disk: 5GiB}", &exporter);
    let one = "configuration read again: 2 unchanged\n\
               limits.disk has changed and is used after the next start; restart Weir to use it\n";
    assert_eq!(agent.says(&["reload"]), one);
    let changes = reload_by_api(&agent).await;
    assert_eq!(changes["pending_restart"], json!(["limits.disk"]), "{changes}");
    assert_eq!((&changes["unchanged"], &changes["restarted"]), (&json!(2), &json!([])), "{changes}");
    let some = "limits: {disk: 5GiB, dead_letters: 1MiB}\ndelivery: {sync: each}";
    agent.configure(some, &exporter);
    let log = hang_up(&agent, "after the next start").await;
    let waiting = "delivery.sync, limits.disk, limits.dead_letters have changed and are used after the next start";
    assert!(log.contains(waiting), "{log}");
    agent.configure("", &exporter);
    assert_eq!(agent.says(&["reload"]), "configuration read again: 2 unchanged\n", "all as it was at the start");
    agent.stop().await;
    agent.configure(some, &exporter);
    agent.start().await;
    assert_eq!(agent.says(&["reload"]), "configuration read again: 2 unchanged\n", "in use");
}
