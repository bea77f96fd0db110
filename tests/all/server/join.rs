//! A second machine joins with the printed command, is cut off, comes back, and nothing of the time
//! in between is lost. Tokens that are no good say why.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value as Json, json};

use crate::harness::capture::Capture;
use crate::harness::peers::{Peer, peer};
use crate::harness::process::{Process, Stream};
use crate::harness::server::{Options, Server};
use crate::harness::weir::{command, said};
use crate::harness::{free_port, seconds, wait_for};

mod second_machine;

use second_machine::SecondMachine;

/// How long joining may take, from pressing Enter to the first data on the server's disk.
const JOINED: Duration = seconds(15);

/// How long the cable is out, unless `WEIR_TEST_CUT_SECONDS` says so, with an agent that polls every
/// second; and with `WEIR_TEST_LONG=1`, with an agent as it is after it joined, which polls every 10 s.
const CUT: Duration = seconds(20);
const LONG_CUT: Duration = seconds(120);

/// How long until a row is `up` again: after a long outage the agent waits for a part of a minute
/// between two attempts.
const BACK: Duration = seconds(75);

/// Where `weir join` leaves what it needs, as root.
const CONFIG: &str = "/etc/weir/weir.yaml";

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The rest of a line of the server's introduction, after its title.
fn printed(server: &Server, title: &str) -> String {
    let text = server.stderr();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(title));
    line.unwrap_or_else(|| panic!("no line `{title}` in\n{text}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_machine_joins_with_the_printed_command_and_survives_a_cut_cable() {
    if peer(Peer::SecondMachine).is_none() {
        return;
    }
    let here_before = files_of_this_machine();
    let machine = SecondMachine::start("second-machine").await;
    let mut server = Server::launch(Options {
        command: "up",
        host: machine.address_here.clone(),
        // The other tests' servers want the usual ports of OTLP too.
        config: Some("integrations:\n  otlp_receiver: {enabled: false}\n".to_owned()),
        ..Options::default()
    });
    server.ready().await;
    let line = wait_for("the printed command", seconds(5), async || {
        server.stderr().contains("add a machine").then(|| printed(&server, "add a machine"))
    })
    .await;
    assert!(line.starts_with("curl -fsSL http://") && line.ends_with("| sh"), "{line}");

    let joined = join(&machine, &server, &line).await;
    let row = appears(&server, &machine).await;
    assert_eq!(row["kind"], "weir", "{row}");
    let own = server.get("/api/v1/status").await["host_name"].clone();
    assert!(server.host(own.as_str().expect("a name")).await.is_some(), "the server's own machine has no row");
    let detail = server.get(&format!("/api/v1/hosts/{}", machine.name)).await;
    assert!(detail["agent"]["version"].is_string() && detail["disconnected"] == json!([]), "{detail}");

    let long = std::env::var("WEIR_TEST_LONG").is_ok_and(|value| value == "1");
    let (agent, cut, interval) = if long {
        (joined, LONG_CUT, seconds(10))
    } else {
        (poll_every_second(&machine, joined).await, CUT, seconds(1))
    };
    let cut = match std::env::var("WEIR_TEST_CUT_SECONDS") {
        Ok(chosen) => seconds(chosen.parse().expect("WEIR_TEST_CUT_SECONDS: whole seconds")),
        Err(_) => cut,
    };
    is_cut_off_and_comes_back(&server, &machine, cut, interval).await;
    drop(agent);
    assert_eq!(files_of_this_machine(), here_before, "joining changed the machine of the tests");
}

/// Files that joining as root would leave on this machine if the second one were not a machine of its own.
fn files_of_this_machine() -> Vec<(&'static str, Option<std::time::SystemTime>)> {
    let places = [CONFIG, "/etc/weir/weir.key", "/usr/local/bin/weir", "/etc/systemd/system/weir.service"];
    let changed = |place| std::fs::metadata(place).and_then(|file| file.modified()).ok();
    places.into_iter().map(|place| (place, changed(place))).collect()
}

/// Types the printed command.
async fn join(machine: &SecondMachine, server: &Server, line: &str) -> Process {
    let mut process = Process::start("the joining machine", &mut machine.command(line));
    let took = wait_for("`first data stored`", JOINED, async || {
        assert!(process.ended().is_none(), "joining ended: {}", process.stderr());
        process.when(Stream::Out, "first data stored")
    })
    .await;
    println!("joined {took:?} after Enter:");
    wait_for("the last line", seconds(5), async || process.when(Stream::Out, "weir agent --config")).await;
    let out = process.text(Stream::Out);
    for (stream, text) in [("out", &out), ("err", &process.stderr())] {
        text.lines().for_each(|line| println!("    {stream} {line}"));
    }
    let url = server.url();
    let steps = [
        format!("answers at {url}"),
        format!("registered as {}", machine.name),
        "key stored in /etc/weir/weir.key".to_owned(),
        format!("configuration in {CONFIG}"),
        "first data stored".to_owned(),
        format!("open {url}/"),
        format!("weir agent --config {CONFIG}"),
    ];
    let mut rest = out.as_str();
    for step in steps {
        let (_, after) = rest.split_once(&step).unwrap_or_else(|| panic!("no `{step}`, or not in its place:\n{out}"));
        rest = after;
    }
    let page = out.lines().find_map(|line| line.trim().strip_prefix("open ")?.strip_prefix(&url)).expect("a page");
    assert!(page.ends_with(&machine.name), "{page}");
    let page = server.ask(Method::GET, page, "", &Json::Null).await;
    assert!(page.status.is_success() && page.body.starts_with(b"<!"), "{}", page.excerpt());
    assert!(!out.contains('✗') && !process.stderr().contains("WARN"), "{out}{}", process.stderr());
    assert_eq!(machine.output("stat -c %a /etc/weir/weir.key").trim(), "600", "the key's file is open to others");
    process
}

async fn appears(server: &Server, machine: &SecondMachine) -> Json {
    wait_for("its row, with values", seconds(5), async || {
        let row = server.host(&machine.name).await?;
        (row["status"] == "up" && row["memory"].is_number()).then_some(row)
    })
    .await
}

/// Ends what joined, and starts it again as it said, polling every second.
async fn poll_every_second(machine: &SecondMachine, mut joined: Process) -> Process {
    machine.interrupt("weir");
    let (status, took) = joined.end(seconds(10)).await;
    println!("ended {took:?} after Ctrl-C");
    assert!(status.success(), "{status}: {}", joined.stderr());
    machine.output(&format!("sed -i '1i agent: {{interval: 1s, heartbeat_interval: 5s}}' {CONFIG}"));
    Process::start("the agent", &mut machine.command(&format!("exec weir agent --config {CONFIG}")))
}

/// What the table says while the cable is out and after it is back.
async fn is_cut_off_and_comes_back(server: &Server, machine: &SecondMachine, cut: Duration, interval: Duration) {
    let status =
        async || server.host(&machine.name).await.map(|row| row["status"].as_str().unwrap_or("none").to_owned());
    wait_for("the interval is learnt", interval * 5 + seconds(10), async || {
        let row = server.host(&machine.name).await?;
        let learnt = row["interval_seconds"].as_f64()?;
        (row["status"] == "up" && learnt <= interval.as_secs_f64() * 1.5).then_some(())
    })
    .await;
    // So that the last minute before the cut is one of this interval.
    tokio::time::sleep(interval * 3).await;

    machine.cut();
    let (begun, from_ms) = (Instant::now(), now_ms());
    let mut seen: Vec<(String, Duration)> = Vec::new();
    while begun.elapsed() < cut {
        let now = status().await.expect("a row does not vanish");
        if seen.last().is_none_or(|(last, _)| *last != now) {
            seen.push((now, begun.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("cut off for {cut:?}: {seen:?}");
    let words: Vec<&str> = seen.iter().map(|(word, _)| word.as_str()).collect();
    let late_after = interval.mul_f64(2.5);
    let down_after = (interval * 5).max(seconds(15));
    let slack = interval + seconds(2);
    let due = |word: &str, after: Duration| {
        let at = seen.iter().find(|(seen, _)| seen == word).map(|(_, at)| *at);
        match at {
            Some(at) => assert!(at + slack > after && at < after + slack, "`{word}` after {at:?}, not {after:?}"),
            None => assert!(cut < after + slack, "never `{word}` in {cut:?}"),
        }
    };
    assert_eq!(words.first(), Some(&"up"));
    due("late", late_after);
    due("down", down_after);
    let open = server.get(&format!("/api/v1/hosts/{}", machine.name)).await["disconnected"].clone();
    assert!(open.as_array().is_some_and(|gaps| gaps.len() == 1 && gaps[0]["to_ms"].is_null()), "{open}");

    // Or the last check of this test would show nothing.
    let missing = missing_steps(server, &machine.name, from_ms, now_ms(), step_ms(interval)).await;
    let are_missing = missing.iter().filter(|missing| **missing).count();
    assert!(are_missing + 3 >= missing.len(), "values of the time without a cable are there already: {missing:?}");

    machine.mend();
    let (mended, to_ms) = (Instant::now(), now_ms());
    wait_for("the row is `up` again", BACK, async || status().await.filter(|word| word == "up")).await;
    println!("up again {:?} after the cable was back", mended.elapsed());
    let back_ms = now_ms();

    let gap = wait_for("the gap is noted", seconds(5), async || {
        let gaps = server.get(&format!("/api/v1/hosts/{}", machine.name)).await["disconnected"].clone();
        gaps.as_array()?.iter().find(|gap| gap["to_ms"].is_i64()).cloned()
    })
    .await;
    let (gap_from, gap_to) = (gap["from_ms"].as_i64().expect("a time"), gap["to_ms"].as_i64().expect("a time"));
    let slack_ms = i64::try_from(slack.as_millis()).expect("short");
    assert!((gap_from - from_ms).abs() <= slack_ms, "the gap begins at {gap_from}, the cut did at {from_ms}");
    assert!(to_ms <= gap_to && gap_to <= back_ms, "the gap ends at {gap_to}, not between {to_ms} and {back_ms}");

    let missing = wait_for("what was measured meanwhile arrives", seconds(30), async || {
        let missing = missing_steps(server, &machine.name, from_ms, to_ms, step_ms(interval)).await;
        missing.iter().all(|missing| !missing).then_some(missing)
    })
    .await;
    println!(
        "{:?} after the cable was back, all {} steps of the time without it have values",
        mended.elapsed(),
        missing.len()
    );
}

/// Polls are not exactly one interval apart: in two intervals there is one for sure.
fn step_ms(interval: Duration) -> i64 {
    i64::try_from((interval * 2).as_millis()).expect("short")
}

/// Which steps of a time have no value; the first and the last one are left out.
async fn missing_steps(server: &Server, host: &str, from_ms: i64, to_ms: i64, step_ms: i64) -> Vec<bool> {
    let query = json!({"from_ms": from_ms, "to_ms": to_ms, "step_ms": step_ms, "queries": [{
        "id": "memory", "metric": "system.memory.utilization", "aggregate": "max", "rate": false, "by": [],
        "match": {"host.name": host, "system.memory.state": "used"},
    }]});
    let answer = server.post("/api/v1/query", &query).await;
    let values = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    let steps = answer["times_ms"].as_array().expect("times").len();
    assert!(steps > 2, "only {steps} steps");
    (1..steps - 1).map(|step| values.get(step).is_none_or(Json::is_null)).collect()
}

/// A token that is no good: what is wrong with it, and the words that say so.
async fn bad_tokens(server: &Server) -> Vec<(&'static str, String, &'static str)> {
    let text = |made: &Json| made["token"].as_str().expect("a token").to_owned();
    let used_up = text(&server.new_token(1, 3600).await);
    let body = json!({"token": used_up, "hostname": "somebody-else"});
    let enrolled = server.ask(Method::POST, "/api/v1/agents/enroll", "", &body).await;
    assert!(enrolled.status.is_success(), "{}", enrolled.excerpt());
    let expired = text(&server.new_token(1, 1).await);
    let revoked = server.new_token(1, 3600).await;
    let id = revoked["id"].as_str().expect("an id");
    assert!(server.delete(&format!("/api/v1/tokens/{id}")).await.is_success());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    vec![
        ("wrong", "0000-0000-0000-0000".to_owned(), "know"),
        ("used up", used_up, "used"),
        ("expired", expired, "expired"),
        ("revoked", text(&revoked), "revoked"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_no_good_say_why_in_the_script_and_in_the_program() {
    if peer(Peer::Curl).is_none() {
        return;
    }
    let server = Server::start(Options::default()).await;
    let mut told = BTreeSet::new();
    for (what, token, words) in bad_tokens(&server).await {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let by_script = by_script(&server, &token, folder.path());
        let config = folder.path().join("weir.yaml");
        let by_program =
            command().args(["join", &server.url(), &token, "--no-service", "--config"]).arg(&config).output();
        for (who, output) in [("the script", by_script), ("weir join", by_program.expect("weir runs"))] {
            let text = said(&output);
            println!("{what} token, {who}: {}", text.trim());
            assert!(!output.status.success(), "a {what} token is a success for {who}");
            assert!(text.contains(words), "{who} does not say `{words}` for a {what} token: {text}");
            assert!(text.contains("weir tokens create"), "what next? {text}");
            assert!(!text.contains("panicked"), "{text}");
            // The program also says what worked before; what failed is its last line.
            told.insert((who, text.lines().last().unwrap_or_default().to_owned()));
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("readable").collect();
        assert!(left.is_empty(), "a {what} token left {left:?}");
    }
    assert_eq!(told.len(), 8, "two kinds of bad tokens are told the same: {told:#?}");
}

/// What a machine types that was given this token; nothing of it may end outside of the folder.
fn by_script(server: &Server, token: &str, folder: &Path) -> Output {
    let line = format!("curl -fsSL {}/join/{token} | sh", server.url());
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env("HOME", folder).env("WEIR_INSTALL_FOLDER", folder);
    shell.env("WEIR_CONFIG", folder.join("weir.yaml")).output().expect("sh runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_a_server_that_is_none_says_what_is_there() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let other = Capture::start().await;
    for (url, words) in [(nobody, "refuses the connection"), (other.url(), "not as a Weir server")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("weir.yaml");
        let mut join = command();
        join.args(["join", &url, "0000-0000-0000-0000", "--no-service", "--config"]).arg(config);
        let mut process = Process::start("weir join", &mut join);
        let (status, _) = process.end(seconds(20)).await;
        let text = process.stderr();
        println!("{}", text.trim());
        assert!(!status.success() && text.contains(&url["http://".len()..]) && text.contains(words), "{text}");
        assert_eq!(text.trim().lines().count(), 1, "{text}");
    }
}
