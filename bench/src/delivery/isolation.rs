//! Isolation: what an exporter whose backend is dead costs a healthy one beside it.
//!
//! One agent, OTLP in, one healthy OTLP exporter with its queue on disk: alone, and beside a second
//! exporter that gets the same records. The second one's queue is on disk too, so it costs a write even
//! if its backend takes everything. How much of the difference is the death is seen against a second
//! exporter that is healthy.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::otlp::{started, whole_batches};
use super::peers::{ALONE, BESIDE, Contender, Place, pin_harness};
use super::{Measured, PATIENCE, measure, met, settle};
use crate::load::{self, BATCH, BODY, CONNECTIONS};
use crate::process::{Peer, conditions, disk_of, folder};
use crate::sink::{Behaviour, Sink};

/// Records per second where the agent has time left.
const RATE: u64 = 100_000;
/// Most rounds of that: they differ little.
const PACED_ROUNDS: u64 = 3;

/// What a dead exporter may cost the others.
const GOAL: f64 = 0.05;

/// The backend of the second exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// There is no second exporter.
    None,
    /// Nothing listens.
    Refuses,
    /// It listens and behaves so.
    Listens(Behaviour),
}

/// A case: its letter, what the second exporter is, and its backend.
type Case = (char, &'static str, Second);

const CASES: [Case; 5] = [
    ('a', "none: the healthy one alone", Second::None),
    ('b', "refuses connections", Second::Refuses),
    ('c', "accepts and never answers", Second::Listens(Behaviour::Silent)),
    ('d', "answers 503 at once", Second::Listens(Behaviour::Unavailable)),
    ('e', "healthy", Second::Listens(Behaviour::Takes)),
];

/// One run of one case.
struct Run {
    healthy: Measured,
    /// Records that never came to the second backend, though it is well since the measurement ended.
    other_lost: u64,
    other_duplicated: u64,
}

/// All runs of a case, or why there are none.
type Runs = Result<Vec<Run>, String>;

/// Runs all cases once, then all again, and writes `bench/results/isolation.md`.
pub fn run(records: u64, rounds: u64) {
    let head = format!("{} · {}", conditions(), disk_of(&folder()));
    pin_harness();
    let (records, rounds) = (whole_batches(records), rounds.max(1));
    let mut text = format!(
        "# Isolation: what a dead exporter costs a healthy one\n\n{head}\n\n\
         One agent on one core, load and sinks on the other. OTLP/HTTP in, {records} records in requests of {BATCH} on {CONNECTIONS} \
         connections, bodies of {BODY} bytes; a request is answered when every queue has it on disk (`queue_sync: group`). Measured is the \
         healthy exporter at its backend. The second one gets the same records; its backend is dead from the start to the end of the \
         measurement, then it is well, and must get all. {rounds} rounds, in each all cases after each other. Lost, duplicated and damaged are \
         sums of all rounds; rates are medians, against (a) and against (e) the median of the ratios within a round (least to most of them); \
         memory is the largest. Configurations: `bench/peers/weir/otlp.yaml` and `otlp-beside.yaml`.\n"
    );
    text += "\n## As fast as it takes them: the agent's core is full\n\n";
    text += &report(&rounds_of(records, rounds, None));
    let _ = write!(text, "\n## {RATE} records/s: the agent has time left\n\n");
    text += &report(&rounds_of(records, rounds.min(PACED_ROUNDS), Some(RATE)));
    print!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/isolation.md");
    std::fs::write(file, text).expect("bench/results is writable");
}

/// All cases once, then all again.
fn rounds_of(records: u64, rounds: u64, rate: Option<u64>) -> Vec<Runs> {
    let mut all: Vec<Runs> = CASES.iter().map(|_| Ok(Vec::new())).collect();
    for number in 1..=rounds {
        for (case, runs) in CASES.iter().zip(&mut all) {
            // What failed once is not tried again.
            let Ok(done) = runs else { continue };
            eprintln!("round {number}: ({}) {}", case.0, case.1);
            match round(case.2, records, rate) {
                Ok(run) => done.push(run),
                Err(why) => *runs = Err(why),
            }
        }
    }
    all
}

fn round(second: Second, records: u64, rate: Option<u64>) -> Result<Run, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (contender, other) = match second {
        Second::None => (&ALONE, None),
        Second::Refuses => (&BESIDE, None),
        Second::Listens(behaviour) => (&BESIDE, Some(Sink::at(place.other, behaviour))),
    };
    let (peer, first) = started(contender, &place, &sink, (records / 10).max(20_000))?;
    let ids = first..first + records;
    let send = || load::send_paced(place.listen, records, first, rate, &Arc::default()).in_doubt;
    let healthy = measure(&peer, &place, &sink, ids.clone(), send)?;
    if second == Second::None {
        return Ok(Run { healthy, other_lost: 0, other_duplicated: 0 });
    }
    // A dead backend comes back: what waits for it must come, or it was not isolation but loss.
    let other = other.unwrap_or_else(|| Sink::at(place.other, Behaviour::Takes));
    let (other_lost, other_duplicated) = recovered(&peer, contender, &other, 0..ids.end)?;
    Ok(Run { healthy, other_lost, other_duplicated })
}

/// How many of these records never come to a backend that is well from now on, and how many come twice.
fn recovered(peer: &Peer, contender: &Contender, other: &Sink, ids: Range<u64>) -> Result<(u64, u64), String> {
    other.set(Behaviour::Takes);
    settle(other, peer, ids.end - ids.start);
    if !peer.runs() {
        return Err(format!("FAILED: it ended when the second backend was back: {}", contender.last_words()));
    }
    let oracle = other.oracle.lock().expect("no thread panics while counting");
    Ok((oracle.missing(ids) + oracle.damaged, oracle.duplicates))
}

fn report(all: &[Runs]) -> String {
    let mut text = "| second exporter | lost | duplicated | damaged | lost at the second | duplicated there | records/s | against (a) | against (e) | \
         records per CPU s | against (a) | against (e) | peak RSS MiB | written MiB | load and sinks busy |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let of = |letter: char| {
        let at = CASES.iter().position(|case| case.0 == letter)?;
        all.get(at)?.as_ref().ok().map(Vec::as_slice)
    };
    for ((letter, second, _), runs) in CASES.iter().zip(all) {
        let _ = match runs {
            Ok(runs) => writeln!(text, "| ({letter}) {second} | {} |", cells(runs, of('a'), of('e'))),
            Err(why) => {
                writeln!(text, "| ({letter}) {second} | **{}** | | | | | | | | | | | | | |", why.replace('|', "/"))
            }
        };
    }
    text += "\n";
    for (letter, second, kind) in CASES {
        let (Some(runs), Some(alone), Some(healthy)) = (of(letter), of('a'), of('e')) else { continue };
        if !matches!(kind, Second::None | Second::Listens(Behaviour::Takes)) {
            let cost = |than| 1.0 - median(ratios(runs, than, Measured::per_s));
            let _ = writeln!(
                text,
                "- ({letter}) {second}: the healthy exporter loses {:.1} % of its throughput alone, goal less than {:.0} %: {}; \
                 against a second one that is healthy it loses {:.1} %: {}",
                100.0 * cost(alone),
                100.0 * GOAL,
                met(cost(alone) < GOAL),
                100.0 * cost(healthy),
                met(cost(healthy) < GOAL),
            );
        }
    }
    text += "\nRecords per second of every round:\n\n";
    for ((letter, ..), runs) in CASES.iter().zip(all) {
        let rates = runs.iter().flatten().map(|run| format!("{:.0}", run.healthy.per_s()));
        let _ = writeln!(text, "- ({letter}) {}", rates.collect::<Vec<_>>().join(", "));
    }
    text
}

/// The figures of a case in a row of the table.
fn cells(runs: &[Run], alone: Option<&[Run]>, healthy: Option<&[Run]>) -> String {
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    let middle = |of: fn(&Measured) -> f64| median(runs.iter().map(|run| of(&run.healthy)).collect());
    let largest = |of: fn(&Measured) -> f64| runs.iter().map(|run| of(&run.healthy)).fold(0.0, f64::max);
    let against = |than: Option<&[Run]>, of: fn(&Measured) -> f64| {
        than.map_or("?".to_owned(), |than| {
            let ratios = ratios(runs, than, of);
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            format!("{:.3} ({least:.2} to {most:.2})", median(ratios))
        })
    };
    let lost = sum(|run| run.healthy.lost);
    let waited = if lost > 0 { format!(" after {} s without news", PATIENCE.as_secs()) } else { String::new() };
    [
        format!("{lost}{waited}"),
        sum(|run| run.healthy.duplicated).to_string(),
        sum(|run| run.healthy.damaged).to_string(),
        sum(|run| run.other_lost).to_string(),
        sum(|run| run.other_duplicated).to_string(),
        format!("{:.0}", middle(Measured::per_s)),
        against(alone, Measured::per_s),
        against(healthy, Measured::per_s),
        format!("{:.0}", middle(Measured::per_cpu_s)),
        against(alone, Measured::per_cpu_s),
        against(healthy, Measured::per_cpu_s),
        format!("{:.0}", largest(|run| run.peak_mib)),
        format!("{:.0}", middle(|run| run.written_mib)),
        format!("{:.0} %", 100.0 * middle(|run| run.harness_busy)),
    ]
    .join(" | ")
}

/// Round by round, so that a busy minute of the machine meets both.
fn ratios(runs: &[Run], than: &[Run], of: fn(&Measured) -> f64) -> Vec<f64> {
    runs.iter().zip(than).map(|(run, than)| of(&run.healthy) / of(&than.healthy)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
