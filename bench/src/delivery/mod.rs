//! Durable delivery, side by side: Weir, the OpenTelemetry Collector, Fluent Bit and Vector, each with
//! its queue on disk and on a core of its own, the same input for all. Loss is counted first.
//!
//! - [`tail`], [`otlp`], [`stall`], [`killed`]: the cases
//! - [`isolation`]: what a dead exporter costs a healthy one beside it, Weir against itself
//! - [`profile`]: where Weir's CPU time goes
//! - [`peers`]: who is compared, with which configuration (`bench/peers/`), and what it uses
//! - [`oracle`]: what arrived

pub mod isolation;
mod killed;
pub mod oracle;
mod otlp;
mod peers;
pub mod profile;
mod stall;
mod tail;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::{BATCH, BODY, CONNECTIONS};
use crate::process::{Peer, conditions, core_busy_s, disk_of, folder, usage_of};
use crate::sink::Sink;
use peers::{Contender, PEER_CORE, Place, Watch, peak, weir_without_disk};

/// Runs of every peer in (a) and (b); the median counts, losses of all are added up.
const ROUNDS: usize = 3;
/// How long nothing may arrive before the rest counts as lost: longer than every peer's longest delay
/// between two attempts (10 s) and its timeout (10 s) together.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long duplicates are waited for after the last record.
const GRACE: Duration = Duration::from_millis(500);

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    sent: u64,
    lost: u64,
    duplicated: u64,
    damaged: u64,
    in_doubt: u64,
    /// Different records that arrived in the run that the rates are about.
    delivered: u64,
    wall_s: f64,
    cpu_s: f64,
    peak_mib: f64,
    anonymous_mib: f64,
    disk_mib: f64,
    written_mib: f64,
    requests: u64,
    /// How long the peer's core was busy, for whomever: with what the kernel's threads wrote for it.
    core_busy_s: f64,
    /// Part of the time in which load and sink were busy on their core: near 1 they limit the rate.
    harness_busy: f64,
}

impl Measured {
    fn per_cpu_s(&self) -> f64 {
        self.delivered as f64 / self.cpu_s.max(0.01)
    }

    fn per_request(&self) -> f64 {
        self.delivered as f64 / self.requests.max(1) as f64
    }

    fn per_s(&self) -> f64 {
        self.delivered as f64 / self.wall_s.max(0.001)
    }
}

/// Measures a peer from the first of these records to the last. `send` gives the requests in doubt.
fn measure(
    peer: &Peer,
    place: &Place,
    sink: &Sink,
    ids: Range<u64>,
    send: impl FnOnce() -> u64,
) -> Result<Measured, String> {
    let harness = || usage_of(std::process::id()).cpu_s - peer.usage().cpu_s;
    let watch = Watch::begin(peer, &place.data);
    let (seen, doubled, requests) = sink.counts();
    let (before, busy, core, begun) = (peer.usage(), harness(), core_busy_s(PEER_CORE), Instant::now());
    let in_doubt = send();
    settle(sink, peer, seen + (ids.end - ids.start));
    let oracle = sink.oracle.lock().expect("no thread panics while counting");
    let wall_s = oracle.last_new.map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
    let (after, busy, core) = (peer.usage(), harness() - busy, core_busy_s(PEER_CORE) - core);
    let samples = watch.end();
    if !peer.runs() {
        return Err("FAILED: it ended during the run".into());
    }
    let (sent, lost) = (ids.end - ids.start, oracle.missing(ids));
    Ok(Measured {
        sent,
        lost,
        delivered: sent - lost,
        duplicated: oracle.duplicates - doubled,
        damaged: oracle.damaged,
        in_doubt,
        wall_s,
        cpu_s: after.cpu_s - before.cpu_s,
        peak_mib: after.peak_mib,
        anonymous_mib: peak(&samples, |sample| sample.anonymous_mib),
        disk_mib: peak(&samples, |sample| sample.disk_mib),
        written_mib: after.written_mib - before.written_mib,
        requests: oracle.requests - requests,
        core_busy_s: core,
        harness_busy: (busy / wall_s.max(0.001)).min(1.0),
    })
}

/// Waits until so many different records have arrived and duplicates had their chance, or nothing
/// new has come for [`PATIENCE`], or the peer has ended.
fn settle(sink: &Sink, peer: &Peer, expected: u64) {
    let mut quiet = Instant::now();
    let mut last = sink.counts();
    while sink.counts().0 < expected && quiet.elapsed() < PATIENCE && peer.runs() {
        std::thread::sleep(Duration::from_millis(10));
        let now = sink.counts();
        if now != last {
            (last, quiet) = (now, Instant::now());
        }
    }
    std::thread::sleep(GRACE);
}

/// What all runs of one contender showed.
struct Row {
    contender: Contender,
    outcome: Result<Measured, String>,
}

type Round = fn(&Contender, u64) -> Result<Measured, String>;

/// Every contender once, then all again, so that a busy minute of the machine meets all of them.
fn compare(contenders: &[Contender], records: u64, round: Round) -> Vec<Row> {
    let mut runs: Vec<Vec<Result<Measured, String>>> = contenders.iter().map(|_| Vec::new()).collect();
    for number in 1..=ROUNDS {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            // What failed once is not tried again.
            if runs.last().is_none_or(Result::is_ok) {
                eprintln!("round {number}: {}", contender.name());
                runs.push(round(contender, records));
            }
        }
    }
    contenders
        .iter()
        .zip(runs)
        .map(|(contender, runs)| Row { contender: *contender, outcome: combined(runs) })
        .collect()
}

/// The median by records per CPU second, with the losses of all runs and the largest memory and disk.
fn combined(runs: Vec<Result<Measured, String>>) -> Result<Measured, String> {
    let mut runs = runs.into_iter().collect::<Result<Vec<Measured>, String>>()?;
    runs.sort_by(|a, b| a.per_cpu_s().total_cmp(&b.per_cpu_s()));
    let largest = |of: fn(&Measured) -> f64| runs.iter().map(of).fold(0.0, f64::max);
    let sum = |of: fn(&Measured) -> u64| runs.iter().map(of).sum();
    let mut median = runs.get(runs.len() / 2).cloned().ok_or("no run was made")?;
    median.peak_mib = largest(|run| run.peak_mib);
    median.anonymous_mib = largest(|run| run.anonymous_mib);
    median.disk_mib = largest(|run| run.disk_mib);
    (median.sent, median.lost) = (sum(|run| run.sent), sum(|run| run.lost));
    (median.duplicated, median.damaged) = (sum(|run| run.duplicated), sum(|run| run.damaged));
    median.in_doubt = sum(|run| run.in_doubt);
    Ok(median)
}

fn table(rows: &[Row]) -> String {
    let mut text = "| peer | configuration | sync mode | lost | duplicated | damaged | records per CPU s | records/s | records a request | CPU s | peak RSS MiB | of it no file's | peak disk MiB | written MiB | load and sink busy |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for Row { contender, outcome } in rows {
        let head = format!(
            "| {} | {}, {} | {} |",
            contender.program,
            contender.configuration,
            contender.format,
            contender.sync_mode()
        );
        text += &match outcome {
            Ok(m) => format!(
                "{head} {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} % |\n",
                m.lost,
                m.duplicated,
                m.damaged,
                m.per_cpu_s(),
                m.per_s(),
                m.per_request(),
                m.cpu_s,
                m.peak_mib,
                m.anonymous_mib,
                m.disk_mib,
                m.written_mib,
                100.0 * m.harness_busy
            ),
            Err(why) => format!("{head} **{why}** | | | | | | | | | | | |\n"),
        };
    }
    text
}

/// Weir against each peer that delivers the same format as durably, and the goals.
fn goals(rows: &[Row]) -> String {
    if weir_without_disk() {
        return "Goals are not judged: Weir ran without its queue on disk.\n".into();
    }
    let mut text = String::new();
    for Row { contender: own, outcome } in rows.iter().filter(|row| row.contender.program == "weir") {
        let Ok(weir) = outcome else { continue };
        let same = rows.iter().filter(|row| {
            row.contender.program != "weir" && !row.contender.forgets && row.contender.format == own.format
        });
        let measured: Vec<(&str, &Measured)> =
            same.filter_map(|row| row.outcome.as_ref().ok().map(|m| (row.contender.program, m))).collect();
        for (peer, other) in &measured {
            let ratio = weir.per_cpu_s() / other.per_cpu_s();
            let goal = match *peer {
                "otelcol" => Some(5.0),
                "fluent-bit" => Some(3.0),
                _ => None,
            };
            let verdict = goal.map_or(String::new(), |goal| format!(", goal {goal:.0}x: {}", met(ratio >= goal)));
            text += &format!("- {}: {ratio:.1}x the records per CPU second of {peer}{verdict}\n", own.name());
        }
        let smallest = measured.iter().map(|(_, other)| other.peak_mib).fold(f64::INFINITY, f64::min);
        if smallest.is_finite() {
            let part = weir.peak_mib / smallest;
            text +=
                &format!("- {}: {part:.2} of the smallest peer's memory, goal 0.5: {}\n", own.name(), met(part <= 0.5));
        }
    }
    text
}

fn met(is: bool) -> &'static str {
    if is { "met" } else { "MISSED" }
}

fn rows_json(rows: &[Row]) -> Vec<Value> {
    let one = |Row { contender, outcome }: &Row| {
        let mut row = json!({
            "peer": contender.program, "configuration": contender.configuration, "format": contender.format,
            "sync": contender.sync_mode(), "version": contender.version(),
        });
        let more = match outcome {
            Ok(m) => json!({
                "sent": m.sent, "lost": m.lost, "duplicated": m.duplicated, "damaged": m.damaged,
                "requests_in_doubt": m.in_doubt, "records_per_cpu_s": m.per_cpu_s(), "records_per_s": m.per_s(),
                "wall_s": m.wall_s, "cpu_s": m.cpu_s, "peak_rss_mib": m.peak_mib, "peak_anonymous_mib": m.anonymous_mib,
                "peak_disk_mib": m.disk_mib, "written_mib": m.written_mib, "requests_at_sink": m.requests,
                "harness_busy": m.harness_busy, "peer_core_busy_s": m.core_busy_s,
            }),
            Err(why) => json!({"not_measured": why}),
        };
        if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
            row.extend(more.clone());
        }
        row
    };
    rows.iter().map(one).collect()
}

/// Runs the cases, or `only` one of them, and writes `bench/results/delivery.md` and `.json` if it was
/// all of them, with every queue on disk.
pub fn run(records: u64, stall_seconds: u64, only: Option<&str>) {
    let conditions = format!("{} · {}", conditions(), disk_of(&folder()));
    peers::pin_harness();
    let wanted = |case: &str| only.is_none_or(|only| only == case);
    let mut text = format!(
        "# Durable delivery\n\n{conditions}\n\nEvery peer alone on one core, load and sink on the other; configurations in `bench/peers/`; \
         queue on disk of at most 1 GiB, no compression, up to 8192 records a request. Every record carries an id; lost, duplicated and \
         damaged ones are counted over all {ROUNDS} runs, memory and disk are their largest, the rest is the median run. CPU is user and system \
         of the process and its children.\n\nVersions: {}\n",
        versions()
    );
    let mut result = json!({"conditions": conditions, "records": records, "rounds": ROUNDS});
    if wanted("tail") {
        let rows = compare(peers::TAIL, records, tail::round);
        text += &format!("\n## (a) {records} lines of {} bytes from a file to HTTP\n\n", tail::LINE);
        text += &format!("{}\n{}", table(&rows), goals(&rows));
        result["tail"] = rows_json(&rows).into();
    }
    if wanted("otlp") {
        let rows = compare(peers::OTLP, records, otlp::round);
        text += &format!(
            "\n## (b) OTLP/HTTP to OTLP/HTTP: {} records, {BATCH} a request on {CONNECTIONS} connections, bodies of {BODY} bytes, 3 attributes\n\n",
            otlp::whole_batches(records)
        );
        text += &format!("{}\n{}", table(&rows), goals(&rows));
        result["otlp"] = rows_json(&rows).into();
    }
    if wanted("stall") {
        let (table, rows) = stall::run(stall_seconds);
        text += &table;
        result["stall"] = rows.into();
    }
    if wanted("killed") {
        let (table, rows) = killed::run();
        text += &table;
        result["killed"] = rows.into();
    }
    print!("{text}");
    if only.is_none() && !weir_without_disk() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        std::fs::write(results.join("delivery.md"), text).expect("bench/results is writable");
        let json = serde_json::to_string_pretty(&result).expect("texts and numbers") + "\n";
        std::fs::write(results.join("delivery.json"), json).expect("bench/results is writable");
    }
}

fn versions() -> String {
    let mut programs: Vec<&Contender> = Vec::new();
    for contender in peers::TAIL {
        if !programs.iter().any(|known| known.program == contender.program) {
            programs.push(contender);
        }
    }
    programs.iter().map(|one| format!("{}: {}", one.program, one.version())).collect::<Vec<_>>().join(" · ")
}
