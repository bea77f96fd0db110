//! OTLP in, OTLP out: records per CPU second of each peer, after what was lost and doubled.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::load::{self, BATCH, BODY, CONNECTIONS};
use crate::process::{Peer, conditions, folder, free_port, peer, wait_for_port, weir, write};
use crate::sink::Sink;

/// One way of relaying, ready to be started.
struct Contender {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

/// Runs all contenders, one after the other, three times; the median is printed.
pub fn run(records: u64) {
    println!("{}", conditions());
    println!(
        "OTLP/HTTP protobuf logs, {BATCH} records a request, {CONNECTIONS} connections, bodies of {BODY} bytes, 3 attributes, no compression, memory queues; {records} records a run, median of 3"
    );
    println!("| peer | lost | doubled | records per CPU s | CPU s | wall s | peak MiB |");
    println!("|---|---|---|---|---|---|---|");
    for name in [
        "relay",
        "weir",
        "weir, acknowledged when queued",
        "weir, decoded",
        "collector",
        "collector, one attribute set",
    ] {
        let mut rounds: Vec<(f64, String)> = (0..3).filter_map(|_| round(name, records)).collect();
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, row)) = rounds.get(rounds.len() / 2) {
            println!("{row}");
        }
    }
}

fn contender(name: &'static str, port: u16, sink: u16) -> Option<Contender> {
    let file = |text: String| write(&format!("{}.yaml", name.replace([' ', ','], "-")), &text).display().to_string();
    let (program, arguments) = match name {
        "relay" => (std::env::current_exe().ok()?, vec!["relay".into(), port.to_string(), sink.to_string()]),
        "weir" => (weir(), weir_arguments(file(weir_config(port, sink, "delivery: {queue: memory}\n")))),
        "weir, acknowledged when queued" => {
            (weir(), weir_arguments(file(weir_config(port, sink, "delivery: {acknowledge: queued, queue: memory}\n"))))
        }
        "weir, decoded" => {
            let route =
                "routes:\n  - {from: [otlp_receiver], set: {bench: decoded}, to: [otlp]}\ndelivery: {queue: memory}\n";
            (weir(), weir_arguments(file(weir_config(port, sink, route))))
        }
        "collector" => {
            (peer("otelcol", "collector/otelcol")?, collector_arguments(file(collector_config(port, sink, false))))
        }
        _ => (peer("otelcol", "collector/otelcol")?, collector_arguments(file(collector_config(port, sink, true)))),
    };
    Some(Contender { name, program, arguments })
}

fn weir_arguments(file: String) -> Vec<String> {
    vec!["agent".into(), "--config".into(), file]
}

fn collector_arguments(file: String) -> Vec<String> {
    vec!["--config".into(), file]
}

fn weir_config(port: u16, sink: u16, more: &str) -> String {
    format!(
        "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
         otlp_receiver: {{http: \"127.0.0.1:{port}\", grpc: \"127.0.0.1:{}\"}}\n  \
         otlp: {{endpoint: \"http://127.0.0.1:{sink}\", compression: none}}\n{more}",
        free_port()
    )
}

fn collector_config(port: u16, sink: u16, transform: bool) -> String {
    let processors = if transform {
        "processors: {transform: {log_statements: [{context: resource, statements: ['set(attributes[\"bench\"], \"decoded\")']}]}}\n"
    } else {
        ""
    };
    let used = if transform { "processors: [transform], " } else { "" };
    format!(
        "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{port}\"}}}}}}}}\n{processors}\
         exporters: {{otlphttp: {{endpoint: \"http://127.0.0.1:{sink}\", compression: none}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}\n  \
         pipelines: {{logs: {{receivers: [otlp], {used}exporters: [otlphttp]}}}}\n"
    )
}

/// One run: the row of the table and what it is sorted by.
fn round(name: &'static str, records: u64) -> Option<(f64, String)> {
    let sink = Sink::start();
    let port = free_port();
    let Contender { name, program, arguments } = contender(name, port, sink.port)?;
    let log = folder().join(format!("{}.log", name.replace([' ', ','], "-")));
    let peer = Peer::start(&program, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &log);
    wait_for_port(port);
    // Connections, allocators and garbage collectors warm up outside of what is measured.
    let warm = load::send(port, records / 20, 10 * records);
    settle(&sink, warm.acknowledged);
    let (before, (seen, doubled, _)) = (peer.usage(), sink.counts());
    let sent = load::send(port, records, 0);
    settle(&sink, seen + sent.acknowledged);
    let after = peer.usage();
    let (now_seen, now_doubled, _) = sink.counts();
    let arrived = now_seen - seen;
    let cpu = after.cpu_s - before.cpu_s;
    let rate = sent.acknowledged as f64 / cpu.max(0.01);
    let row = format!(
        "| {name} | {} | {} | {:.0} | {cpu:.2} | {:.2} | {:.0} |",
        sent.acknowledged.saturating_sub(arrived),
        now_doubled - doubled,
        rate,
        sent.elapsed.as_secs_f64(),
        after.peak_mib
    );
    Some((rate, row))
}

/// Waits until everything that was acknowledged has arrived, or nothing has come for 3 s.
fn settle(sink: &Sink, expected: u64) {
    let mut quiet = Instant::now();
    let mut last = sink.counts();
    while sink.counts().0 < expected && quiet.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(10));
        let now = sink.counts();
        if now != last {
            (last, quiet) = (now, Instant::now());
        }
    }
}
