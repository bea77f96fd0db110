//! Targets that hang, lie or flood: everything else keeps its schedule, memory stays bounded, the
//! culprit is named, and Ctrl-C still ends the program.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::capture::Capture;
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::weir::{ConfigFile, command};
use crate::harness::{seconds, wait_for};

/// How long the agents below are watched, polling once a second.
const WATCHED: Duration = seconds(12);

/// Longest time between two polls of one collector: a poll that was due may be late by one more on
/// a busy machine.
const LONGEST_GAP: Duration = Duration::from_millis(2500);

/// Memory that the program may have used at its peak, 1 GiB having been thrown at it.
const MOST_MEMORY_KIBIBYTES: u64 = 128 * 1024;

/// A server that takes every connection and never answers.
async fn hung_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

/// A server that answers every request with 1 GiB of well-formed samples; counts what it got rid of.
async fn flooding_server() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n";
                if connection.read(&mut request).await.is_err() || connection.write_all(head.as_bytes()).await.is_err()
                {
                    return;
                }
                for block in 0..(1 << 30) / (1 << 16) {
                    let samples: String = (0..1024)
                        .map(|at| {
                            format!("flood{{block=\"{block:05}\",sample=\"{at:05}\",padding=\"0123456789\"}} 1\n")
                        })
                        .collect();
                    if connection.write_all(samples.as_bytes()).await.is_err() {
                        return;
                    }
                    count.fetch_add(samples.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    (address, sent)
}

/// That a collector was polled all the time: distinct times of this metric in what arrived.
fn assert_schedule(capture: &Capture, metric: &str, attribute: (&str, &str), since: SystemTime) {
    let mut times: Vec<SystemTime> = capture
        .points()
        .into_iter()
        .filter(|point| point.name == metric && (attribute.0.is_empty() || point.attribute(attribute.0) == attribute.1))
        .filter(|point| point.time >= since)
        .map(|point| point.time)
        .collect();
    times.sort_unstable();
    times.dedup();
    let gaps = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).expect("sorted"));
    let longest = gaps.max().unwrap_or(WATCHED);
    println!("{metric} {}: {} polls in {WATCHED:?}, at most {longest:?} apart", attribute.1, times.len());
    assert!(longest <= LONGEST_GAP, "{metric} {attribute:?}: {longest:?} between two polls");
    assert!(times.len() >= 9, "{metric} {attribute:?}: only {} polls in {WATCHED:?}", times.len());
}

/// That the agent's own metrics call an integration unhealthy, and that its log says why.
fn assert_named(capture: &Capture, process: &Process, integration: &str, words: &str) {
    let health = capture
        .points()
        .into_iter()
        .rfind(|point| point.name == "weir.integration.healthy" && point.attribute("weir.integration") == integration);
    assert_eq!(health.map(|point| point.value), Some(0.0), "health of {integration}");
    let log = process.stderr();
    let named = log.lines().any(|line| line.contains(integration) && line.contains(words));
    assert!(named, "no line names {integration} with `{words}`:\n{log}");
}

async fn assert_ends(mut process: Process) {
    process.signal(Signal::SIGINT);
    let (_, took) = process.end(seconds(5)).await;
    println!("ended {took:?} after Ctrl-C");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_and_flooding_targets_delay_nobody_else() {
    let capture = Capture::start().await;
    let (hung, (flooding, flood)) = (hung_server().await, flooding_server().await);
    let marker = format!("hung-for-{}", hung.port());
    let config = ConfigFile::new(&format!(
        r#"
agent: {{interval: 1s}}
integrations:
  host: {{disable: [filesystem]}}
  exec/works: {{commands: [{{name: works, command: "echo 42"}}]}}
  exec/hung: {{commands: [{{name: hung, command: "trap '' TERM; while true; do sleep 1; done # {marker}", shell: true}}]}}
  exec/endless: {{commands: [{{name: endless, command: "yes 123456789"}}]}}
  probe/hung: {{targets: [{{name: hung, http: "http://{hung}/"}}]}}
  probe/flooding: {{targets: [{{name: flooding, http: "http://{flooding}/"}}]}}
  prometheus_scrape/hung: {{targets: ["http://{hung}/metrics"]}}
  prometheus_scrape/flooding: {{targets: ["http://{flooding}/metrics"]}}
{}"#,
        capture.exporter("otlp")
    ));
    let process = Process::start("weir", command().args(["agent", "--config", config.path()]));
    capture.wait_for_metric("system.uptime", seconds(20)).await;
    let since = SystemTime::now();
    tokio::time::sleep(WATCHED).await;

    assert_schedule(&capture, "system.uptime", ("", ""), since);
    assert_schedule(&capture, "exec.success", ("exec.command", "works"), since);
    assert_schedule(&capture, "weir.integration.healthy", ("weir.integration", "host"), since);
    assert_named(&capture, &process, "exec/hung", "hung");
    assert_named(&capture, &process, "exec/endless", "endless");
    assert_named(&capture, &process, "probe/hung", &hung.port().to_string());
    assert_named(&capture, &process, "prometheus_scrape/hung", &hung.port().to_string());
    assert_named(&capture, &process, "prometheus_scrape/flooding", &flooding.port().to_string());
    let hung_programs = running(&marker);
    assert!(hung_programs.len() < 8, "programs that should have been stopped run on: {hung_programs:?}");
    let peak = process.status_number("VmHWM");
    println!("peak memory {peak} KiB, flooded with {} MiB", flood.load(Ordering::Relaxed) >> 20);
    assert!(peak < MOST_MEMORY_KIBIBYTES, "{peak} KiB");
    assert_ends(process).await;
    wait_for("the hung programs end with the agent", seconds(5), async || running(&marker).is_empty().then_some(()))
        .await;
}

/// Ids of the processes whose command line has this text.
fn running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux").map(|entry| entry.expect("readable").path());
    let found = processes.filter(|process| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    });
    found.map(|process| process.display().to_string()).collect()
}

/// Starts a command that sees a FUSE mount that nobody ever answers, in a mount namespace of its
/// own, so that no other process hangs in it. The mount comes alive again (with errors) when the
/// returned file is closed.
fn start_with_hung_mount(place: &Path, mut command: Command) -> (Process, File) {
    let place = place.to_owned();
    let started = std::thread::spawn(move || {
        // Of this thread alone, and of what it starts.
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("the namespace is ours");
        let fuse = File::options().read(true).write(true).open("/dev/fuse").expect("FUSE is there");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
        mount(Some("hung"), &place, Some("fuse"), MsFlags::MS_NOSUID, Some(options.as_str())).expect("root may");
        (Process::start("weir", &mut command), fuse)
    });
    started.join().expect("the thread does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_mount_is_named_and_delays_nothing() {
    if peer(Peer::Fuse).is_none() {
        return;
    }
    let capture = Capture::start().await;
    let config = ConfigFile::new(&format!(
        "agent: {{interval: 1s}}\nintegrations:\n  host: {{}}\n  exec: {{commands: [{{name: works, command: \"echo 42\"}}]}}\n{}",
        capture.exporter("otlp")
    ));
    let place: PathBuf = config.folder().join("hung");
    std::fs::create_dir(&place).expect("writable");
    let mut agent = command();
    agent.args(["agent", "--config", config.path()]);
    let (process, _fuse) = start_with_hung_mount(&place, agent);
    capture.wait_for_metric("system.uptime", seconds(20)).await;
    let since = SystemTime::now();
    tokio::time::sleep(WATCHED).await;

    let place = place.to_str().expect("a plain name");
    assert_schedule(&capture, "system.uptime", ("", ""), since);
    assert_schedule(&capture, "system.cpu.load_average.1m", ("", ""), since);
    assert_schedule(&capture, "system.filesystem.limit", ("system.filesystem.mountpoint", "/"), since);
    assert_schedule(&capture, "exec.success", ("exec.command", "works"), since);
    assert_schedule(&capture, "system.filesystem.hung", ("system.filesystem.mountpoint", place), since);
    assert_named(&capture, &process, "host", place);
    let threads = process.status_number("Threads");
    assert!(threads < 20, "{threads} threads: one hangs in the mount, not one for every poll");
    assert_ends(process).await;
}
