//! A backend that stalls: what a peer uses while nothing can be delivered, and whether everything
//! comes when the backend is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::otlp::{started, whole_batches};
use super::peers::{Contender, Place, STALL, Sample, Watch, peak};
use super::{PATIENCE, settle};
use crate::load;
use crate::sink::{Behaviour, Sink};

/// Records per second that keep coming during the stall.
pub const RATE: u64 = 20_000;

/// Runs every peer into both kinds of stall. Gives the table and the same as JSON.
pub fn run(seconds: u64) -> (String, Vec<Value>) {
    let mut table = format!(
        "\n## (c) A backend that stalls for {seconds} s while {RATE} records/s keep coming (OTLP in, OTLP out)\n\n\
         `silent`: requests are read and never answered. `503`: every request is refused. Then the backend is back. \
         Taken: acknowledged to the sender before the backend was back. Recovery: from then until the last record arrived.\n\n\
         | peer | stall | sync mode | lost | duplicated | damaged | taken | CPU s in the stall | peak RSS MiB | of it no file's | peak disk MiB | recovery s | CPU s of it |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    let mut rows = Vec::new();
    for contender in STALL {
        for (name, behaviour) in [("silent", Behaviour::Silent), ("503", Behaviour::Unavailable)] {
            eprintln!("stall {name}: {}", contender.name());
            match round(contender, behaviour, seconds) {
                Ok(stalled) => {
                    table += &stalled.row(contender, name);
                    rows.push(stalled.json(contender, name));
                }
                Err(why) => {
                    table += &format!("| {} | {name} | | **{why}** | | | | | | | | | |\n", contender.program);
                    rows.push(json!({"peer": contender.program, "stall": name, "not_measured": why}));
                }
            }
        }
    }
    (table, rows)
}

struct Stalled {
    sent: u64,
    lost: u64,
    duplicated: u64,
    damaged: u64,
    in_doubt: u64,
    taken: u64,
    stall_cpu_s: f64,
    peak_mib: f64,
    recovery_s: f64,
    recovery_cpu_s: f64,
    samples: Vec<Sample>,
}

fn round(contender: &Contender, behaviour: Behaviour, seconds: u64) -> Result<Stalled, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, first) = started(contender, &place, &sink, 20_000)?;
    let records = whole_batches(RATE * seconds);
    let (seen, doubled, _) = sink.counts();
    let watch = Watch::begin(&peer, &place.data);
    sink.set(behaviour);
    let (before, begun) = (peer.usage(), Instant::now());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (counter, listen) = (acknowledged.clone(), place.listen);
    let sender = std::thread::spawn(move || load::send_paced(listen, records, first, Some(RATE), &counter));
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
    let (stalled, taken) = (peer.usage(), acknowledged.load(Ordering::Relaxed));
    let resumed = Instant::now();
    sink.set(Behaviour::Takes);
    let sent = sender.join().map_err(|_| format!("FAILED: it refuses records: {}", contender.last_words()))?;
    settle(&sink, &peer, seen + sent.acknowledged);
    let after = peer.usage();
    let samples = watch.end();
    let oracle = sink.oracle.lock().expect("no thread panics while counting");
    let last = oracle.last_new.unwrap_or(resumed);
    Ok(Stalled {
        sent: sent.acknowledged,
        lost: oracle.missing(first..first + records),
        duplicated: oracle.duplicates - doubled,
        damaged: oracle.damaged,
        in_doubt: sent.in_doubt,
        taken,
        stall_cpu_s: stalled.cpu_s - before.cpu_s,
        peak_mib: after.peak_mib,
        recovery_s: last.saturating_duration_since(resumed).as_secs_f64(),
        recovery_cpu_s: after.cpu_s - stalled.cpu_s,
        samples,
    })
}

impl Stalled {
    fn row(&self, contender: &Contender, stall: &str) -> String {
        let waited =
            if self.lost > 0 { format!(" after {} s without news", PATIENCE.as_secs()) } else { String::new() };
        format!(
            "| {} | {stall} | {} | {}{waited} | {} | {} | {:.0} % | {:.2} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |\n",
            contender.program,
            contender.sync_mode(),
            self.lost,
            self.duplicated,
            self.damaged,
            100.0 * self.taken as f64 / self.sent as f64,
            self.stall_cpu_s,
            self.peak_mib,
            peak(&self.samples, |sample| sample.anonymous_mib),
            peak(&self.samples, |sample| sample.disk_mib),
            self.recovery_s,
            self.recovery_cpu_s,
        )
    }

    fn json(&self, contender: &Contender, stall: &str) -> Value {
        // One sample a second draws the curve.
        let curve: Vec<Value> = (self.samples.iter().step_by(10))
            .map(|s| json!([round_to(s.at_s), round_to(s.rss_mib), round_to(s.anonymous_mib), round_to(s.disk_mib)]))
            .collect();
        json!({
            "peer": contender.program, "version": contender.version(), "configuration": contender.configuration,
            "sync": contender.sync_mode(), "stall": stall, "sent": self.sent, "lost": self.lost,
            "duplicated": self.duplicated, "damaged": self.damaged, "requests_in_doubt": self.in_doubt,
            "taken_during_stall": self.taken, "stall_cpu_s": self.stall_cpu_s, "peak_rss_mib": self.peak_mib,
            "recovery_s": self.recovery_s, "recovery_cpu_s": self.recovery_cpu_s,
            "curve_s_rss_anonymous_disk_mib": curve,
        })
    }
}

fn round_to(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
