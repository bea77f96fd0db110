//! What a person sees first and last: values at once, one clear line when it cannot start, and a
//! prompt end.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::capture::Capture;
use crate::harness::process::{Process, Stream};
use crate::harness::weir::{Agent, ConfigFile, command, run, said};
use crate::harness::{free_port, seconds, wait_for};

/// Longest time between the start and the first values that a newcomer sees. The promise is 2 s for
/// a release build on an idle machine; this may be neither.
const FIRST_VALUES: Duration = seconds(5);

/// Longest time between Ctrl-C and the end.
const END: Duration = seconds(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_configuration_this_machine_is_shown_at_once() {
    let mut process = Process::start("weir", command().arg("agent"));
    let shown = wait_for("values in the terminal", FIRST_VALUES, async || {
        // A heading may come first: values have digits.
        let first = process.when(Stream::Out, "emory");
        first.filter(|_| process.text(Stream::Out).chars().any(|c| c.is_ascii_digit()))
    })
    .await;
    println!("first values after {shown:?}");
    let introduction = process.stderr();
    for promise in ["watching", "not watching", "weir.yaml", "Ctrl-C"] {
        assert!(introduction.contains(promise), "the introduction does not say `{promise}`:\n{introduction}");
    }
    process.signal(Signal::SIGINT);
    let (status, took) = process.end(END).await;
    println!("ended {took:?} after Ctrl-C");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_polls_delivers_and_ends_with_success() {
    let capture = Capture::start().await;
    let config = ConfigFile::new(&format!("integrations:\n  host:\n{}", capture.exporter("otlp")));
    let mut process = Process::start("weir", command().args(["agent", "--once", "--config", config.path()]));
    let (status, took) = process.end(seconds(20)).await;
    assert!(status.success(), "{status}: {}", process.stderr());
    println!("polled, delivered and ended in {took:?}");
    assert!(capture.points().iter().any(|point| point.name == "system.memory.limit"), "no memory among what arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_says_what_was_not_delivered_and_fails() {
    let port = free_port();
    let config = ConfigFile::new(&format!(
        "integrations:\n  host:\n  otlp: {{endpoint: \"http://127.0.0.1:{port}\", retry_max_age: 1s}}\n"
    ));
    let mut process = Process::start("weir", command().args(["agent", "--once", "--config", config.path()]));
    let (status, _) = process.end(seconds(20)).await;
    assert!(!status.success());
    assert!(process.stderr().contains(&port.to_string()), "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_delivers_what_is_held() {
    let capture = Capture::start().await;
    let mut agent = Agent::start(
        "weir",
        &format!(
            "integrations:\n  host:\n  otlp: {{endpoint: \"{}\", compression: none, flush_interval: 1h}}\n",
            capture.url()
        ),
    );
    wait_for("the agent runs", seconds(10), async || agent.process.stderr().contains("Ctrl-C").then_some(())).await;
    tokio::time::sleep(seconds(2)).await;
    agent.process.signal(Signal::SIGTERM);
    let (status, took) = agent.process.end(END).await;
    println!("ended {took:?} after SIGTERM");
    assert!(status.success(), "{status}");
    assert!(capture.points().iter().any(|point| point.name == "system.memory.limit"), "what waited was not delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_in_time_although_nothing_listens_at_the_backend() {
    ends_in_time(free_port()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_in_time_although_the_backend_never_answers() {
    // The kernel takes connections for a listener that nobody asks.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    ends_in_time(listener.local_addr().expect("an address").port()).await;
}

/// What waits on the disk is not lost, what waits in memory is; both are said.
async fn ends_in_time(port: u16) {
    for (queue, lost, words) in [("disk", false, "wait on the disk"), ("memory", true, "stopped")] {
        let otlp = format!("{{endpoint: \"http://127.0.0.1:{port}\", queue: {queue}}}");
        let mut agent = Agent::start("weir", &format!("integrations:\n  host:\n  otlp: {otlp}\n"));
        let runs = async || agent.process.stderr().contains("Ctrl-C").then_some(());
        wait_for("the agent runs", seconds(10), runs).await;
        tokio::time::sleep(seconds(2)).await;
        agent.process.signal(Signal::SIGINT);
        let (status, took) = agent.process.end(END).await;
        println!("with its queue in {queue} it ended {took:?} after Ctrl-C");
        assert_eq!(status.success(), !lost, "{queue}: {status}");
        let last = agent.process.stderr();
        assert!(last.contains("not delivered") && last.contains(words), "{queue}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_one_line_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut agent =
        Agent::start("weir", &format!("integrations:\n  otlp_receiver: {{grpc: null, http: \"{address}\"}}\n"));
    let (status, _) = agent.process.end(seconds(10)).await;
    assert!(!status.success());
    let stderr = agent.process.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("taken")).collect();
    let [line] = lines.as_slice() else { panic!("not one line says that {address} is taken:\n{stderr}") };
    assert!(line.contains("otlp_receiver") && line.contains(&address) && line.contains("choose another"), "{line}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_configuration_that_is_not_there_is_one_line() {
    let output = run(&["agent", "--config", "/nonexistent/weir.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/nonexistent/weir.yaml") && said.contains("No such file"), "{said}");
}

#[test]
fn a_configuration_that_is_wrong_starts_nothing() {
    let config = ConfigFile::new("integrations:\n  hots:\n");
    let output = run(&["agent", "--config", config.path()]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(said.contains("weir.yaml:2:3") && said.contains("did you mean `host`"), "{said}");
}

#[test]
fn every_command_of_the_reference_answers() {
    let list = said(&run(&["integrations", "list"]));
    for name in [
        "host",
        "process",
        "probe",
        "exec",
        "otlp_receiver",
        "prometheus_scrape",
        "otlp",
        "prometheus",
        "webhook",
        "console",
    ] {
        assert!(
            list.lines().any(|line| line.split_whitespace().next() == Some(name)),
            "{name} is not in the list:\n{list}"
        );
        let page = run(&["integrations", "show", name]);
        assert!(page.status.success() && said(&page).contains("integrations:"), "{}", said(&page));
    }
    let schema = run(&["config", "schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert!(schema["properties"]["integrations"].is_object(), "{schema}");
    let explained = run(&["config", "explain"]);
    assert!(explained.status.success() && said(&explained).contains("interval"), "{}", said(&explained));
    assert!(said(&run(&["version"])).starts_with("weir "));
    assert!(said(&run(&["completions", "bash"])).contains("complete"));
    let unknown = run(&["integrations", "show", "promethues"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("did you mean `prometheus`"), "{}", said(&unknown));
}
