//! Agents that watch this machine every 10 s: memory and CPU, side by side at the same time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::{Peer, Usage, conditions, folder, free_port, peer, wait_for_port, weir, write};
use crate::sink::Sink;

const INTERVAL: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(25);

/// Watches for `seconds` after a warm-up.
pub fn run(seconds: u64) {
    println!("{}", conditions());
    println!(
        "host metrics every {} s, one exporter, {seconds} s after {} s of warm-up, all at the same time",
        INTERVAL.as_secs(),
        WARM_UP.as_secs()
    );
    let sink = Sink::start();
    let mut peers: Vec<(&str, Peer)> = Vec::new();
    let start = |program: &std::path::Path, arguments: &[&str], name: &str| {
        Peer::start(program, arguments, &folder().join(format!("{name}.log")))
    };
    let config = write(
        "weir-idle.yaml",
        &format!(
            "agent: {{interval: 10s, data: {:?}}}\nintegrations:\n  prometheus: {{endpoint: \"http://127.0.0.1:{}/api/v1/write\", protocol: v1}}\n",
            folder().join("weir-data"),
            sink.port
        ),
    );
    peers.push(("weir", start(&weir(), &["agent", "--config", &config.display().to_string()], "weir-idle")));
    let mut exporter_port = None;
    if let Some(program) = peer("prometheus-node-exporter", "none") {
        let port = free_port();
        peers.push((
            "node_exporter, scraped",
            start(&program, &[&format!("--web.listen-address=127.0.0.1:{port}")], "node-exporter"),
        ));
        wait_for_port(port);
        exporter_port = Some(port);
    }
    if let Some(program) = peer("otelcol", "collector/otelcol") {
        let scrapers =
            "{cpu: {}, memory: {}, load: {}, disk: {}, filesystem: {}, network: {}, paging: {}, processes: {}}";
        let config = write(
            "collector-idle.yaml",
            &format!(
                "receivers: {{hostmetrics: {{collection_interval: 10s, scrapers: {scrapers}}}}}\n\
                 exporters: {{otlphttp: {{endpoint: \"http://127.0.0.1:{}\", compression: none}}}}\n\
                 service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines: {{metrics: {{receivers: [hostmetrics], exporters: [otlphttp]}}}}\n",
                sink.port
            ),
        );
        peers.push((
            "collector, hostmetrics",
            start(&program, &["--config", &config.display().to_string()], "collector-idle"),
        ));
    }
    wait(WARM_UP, exporter_port);
    let before: Vec<Usage> = peers.iter().map(|(_, peer)| peer.usage()).collect();
    wait(Duration::from_secs(seconds), exporter_port);
    println!("| agent | CPU s | % of a core | RSS MiB | peak MiB |");
    println!("|---|---|---|---|---|");
    for ((name, peer), before) in peers.iter().zip(before) {
        let now = peer.usage();
        let cpu = now.cpu_s - before.cpu_s;
        println!(
            "| {name} | {cpu:.2} | {:.3} | {:.1} | {:.1} |",
            100.0 * cpu / seconds as f64,
            now.rss_mib,
            now.peak_mib
        );
    }
    println!("requests that arrived at the sink: {}", sink.counts().2);
}

/// Waits, scraping node_exporter at the interval, as Prometheus would.
fn wait(time: Duration, exporter: Option<u16>) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if let Some(port) = exporter {
            scrape(port);
        }
        std::thread::sleep(INTERVAL.min(time.saturating_sub(begun.elapsed())));
    }
}

fn scrape(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("node_exporter listens");
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("node_exporter takes a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("node_exporter answers");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "node_exporter does not answer 200");
}
