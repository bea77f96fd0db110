//! A peer that is killed while records wait: what it had acknowledged must come after its restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::otlp::{started, whole_batches};
use super::peers::{Contender, OTLP, Place};
use super::settle;
use crate::load;
use crate::process::listens;
use crate::sink::{Behaviour, Sink};

/// Records that are sent while the backend refuses all.
const RECORDS: u64 = 100_000;
/// How long a peer may take them before it is killed. One that answers only after delivery takes none.
const TAKING: Duration = Duration::from_secs(20);

/// Kills every peer once. Gives the table and the same as JSON.
pub fn run() -> (String, Vec<Value>) {
    let mut table = format!(
        "\n## (d) Killed with records in the queue (OTLP in, OTLP out)\n\n\
         The backend answers 503 while {} records are sent; then the peer is killed (SIGKILL), started again on what it left, and the backend \
         is back. Senders send again what was not acknowledged: lost are acknowledged records that never came. This shows what a crash of \
         the process costs, not what a crash of the machine does.\n\n\
         | peer | configuration | sync mode | lost | duplicated | damaged | acknowledged before | requests in doubt | seconds from the restart to the last record |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        whole_batches(RECORDS)
    );
    let mut rows = Vec::new();
    for contender in OTLP {
        eprintln!("kill: {}", contender.name());
        let head = format!("| {} | {} | {} |", contender.program, contender.configuration, contender.sync_mode());
        match round(contender) {
            Ok(killed) => {
                table += &format!(
                    "{head} {} | {} | {} | {:.0} % | {} | {:.1} |\n",
                    killed.lost,
                    killed.duplicated,
                    killed.damaged,
                    100.0 * killed.taken as f64 / killed.sent as f64,
                    killed.in_doubt,
                    killed.recovery_s
                );
                rows.push(json!({
                    "peer": contender.program, "version": contender.version(), "configuration": contender.configuration,
                    "sync": contender.sync_mode(), "sent": killed.sent, "acknowledged_before": killed.taken,
                    "lost": killed.lost, "duplicated": killed.duplicated, "damaged": killed.damaged,
                    "requests_in_doubt": killed.in_doubt, "recovery_s": killed.recovery_s,
                }));
            }
            Err(why) => {
                table += &format!("{head} **{why}** | | | | | |\n");
                rows.push(json!({
                    "peer": contender.program, "configuration": contender.configuration, "not_measured": why,
                }));
            }
        }
    }
    (table, rows)
}

struct Killed {
    sent: u64,
    taken: u64,
    lost: u64,
    duplicated: u64,
    damaged: u64,
    in_doubt: u64,
    recovery_s: f64,
}

fn round(contender: &Contender) -> Result<Killed, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, first) = started(contender, &place, &sink, 20_000)?;
    let records = whole_batches(RECORDS);
    let (seen, doubled, _) = sink.counts();
    sink.set(Behaviour::Unavailable);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (counter, listen) = (acknowledged.clone(), place.listen);
    let sender = std::thread::spawn(move || load::send_paced(listen, records, first, None, &counter));
    let begun = Instant::now();
    while acknowledged.load(Ordering::Relaxed) < records && begun.elapsed() < TAKING {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Dropping it kills it: no time to write anything more.
    drop(peer);
    let taken = acknowledged.load(Ordering::Relaxed);
    sink.set(Behaviour::Takes);
    let Some(program) = contender.find() else { return Err("SKIPPED: not installed".into()) };
    let restarted = Instant::now();
    let peer = contender.start(&program, &place, sink.port);
    if !listens(place.listen, || peer.runs()) {
        return Err(format!("FAILED: it does not start again: {}", contender.last_words()));
    }
    let sent = sender.join().map_err(|_| format!("FAILED: it refuses records: {}", contender.last_words()))?;
    settle(&sink, &peer, seen + sent.acknowledged);
    let oracle = sink.oracle.lock().expect("no thread panics while counting");
    let last = oracle.last_new.unwrap_or(restarted);
    Ok(Killed {
        sent: sent.acknowledged,
        taken,
        lost: oracle.missing(first..first + records),
        duplicated: oracle.duplicates - doubled,
        damaged: oracle.damaged,
        in_doubt: sent.in_doubt,
        recovery_s: last.saturating_duration_since(restarted).as_secs_f64(),
    })
}
