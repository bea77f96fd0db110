//! What is asked about one host: facts, processes, probes. Read from the store when asked.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use weir_store::{MatchOp, Matcher, NAME, ReadError, Select, SeriesData, SeriesSource};

use super::counter::increase;
use super::role::label;

/// Processes and facts are looked for in the last five minutes.
const RECENT_MS: i64 = 300_000;

/// Probes are looked for in the last hour: they may be rare.
const PROBES_MS: i64 = 3_600_000;

/// Samples of one poll lie at most this far apart.
const ONE_POLL_MS: i64 = 2_000;

/// Something that is known about a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fact {
    /// Name of the resource attribute.
    #[schema(example = "os.description")]
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A process as of the last poll.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name of the program.
    pub name: String,
    /// Its user.
    pub user: Option<String>,
    /// CPUs in use: 1 is one core.
    pub cpu: Option<f64>,
    /// Physical memory, bytes.
    pub memory_bytes: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
}

/// The busiest processes of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Processes {
    /// When they were looked at, unix milliseconds; `null` if nothing reports processes.
    pub at_ms: Option<i64>,
    /// The processes, the one with most CPU first.
    pub processes: Vec<Process>,
}

/// A target that the host's agent probes, as of the last time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Probe {
    /// Name of the target.
    #[schema(example = "https://example.com/health")]
    pub target: String,
    /// `http`, `tcp`, `tls`, `dns` or `icmp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it answered as expected.
    pub success: bool,
    /// How long the probe took, milliseconds.
    pub duration_ms: Option<f64>,
    /// HTTP status of the answer.
    pub status_code: Option<u16>,
    /// Why it failed: `dns`, `refused`, `timeout`, ...
    pub error: Option<String>,
    /// When it was asked, unix milliseconds.
    pub at_ms: i64,
}

fn of_host(host: &str, metrics: &str, from_ms: i64, to_ms: i64) -> Select {
    let matchers = vec![Matcher::equal("host.name", host), Matcher::new(NAME, MatchOp::Matches, metrics)];
    Select { matchers, start_ms: from_ms, end_ms: to_ms }
}

/// Beginnings of the names of attributes that describe a host.
const FACTS: [&str; 6] = ["host.", "os.", "cloud.", "container.", "k8s.", "deployment."];

/// What the resource of the host's newest data says about it.
///
/// # Errors
/// If the store cannot be read.
pub fn facts(source: &dyn SeriesSource, host: &str, last_seen_ms: i64) -> Result<Vec<Fact>, ReadError> {
    let select = of_host(host, r"system\..*", last_seen_ms.saturating_sub(RECENT_MS), i64::MAX);
    let newest = source.last(&select)?.into_iter().max_by_key(|(_, time_ms, _)| *time_ms);
    let Some((series, _, _)) = newest else { return Ok(Vec::new()) };
    let about = |name: &str| name != "host.name" && FACTS.iter().any(|beginning| name.starts_with(beginning));
    let facts = series.labels.iter().filter(|(name, _)| about(name));
    Ok(facts.map(|(name, value)| Fact { name: name.to_owned(), value: value.to_owned() }).collect())
}

/// The last sample of a series, and how fast it grew up to it.
fn newest(data: &SeriesData) -> Option<(i64, f64, Option<f64>)> {
    let (mut before, mut last) = (None, None);
    for sample in data.samples.iter() {
        (before, last) = (last, Some(sample));
    }
    let (time_ms, value) = last.filter(|(_, value)| value.is_finite())?;
    let rate = before.filter(|(_, value): &(i64, f64)| value.is_finite()).map(|(before_ms, before)| {
        // Both are within minutes, far below 2^53 ms.
        increase(before, value) / ((time_ms - before_ms) as f64 / 1000.0)
    });
    Some((time_ms, value, rate))
}

/// What the series of one process say.
#[derive(Default)]
struct Found {
    process: Process,
    at_ms: i64,
    /// Fraction of all CPUs.
    utilization: Option<f64>,
    /// CPU seconds per second.
    time_rate: Option<f64>,
}

/// The processes of the last poll. `cpu_count` turns fractions of all CPUs into cores.
///
/// # Errors
/// If the store cannot be read.
pub fn processes(
    source: &dyn SeriesSource,
    host: &str,
    cpu_count: Option<f64>,
    now_ms: i64,
) -> Result<Processes, ReadError> {
    let metrics = r"process\.(cpu\.utilization|cpu\.time|memory\.usage|thread\.count|threads)";
    let select = of_host(host, metrics, now_ms.saturating_sub(RECENT_MS), now_ms);
    let mut found: BTreeMap<(u32, String), Found> = BTreeMap::new();
    for data in source.select(&select)? {
        let labels = &data.series.labels;
        let Some(pid) = labels.get("process.pid").and_then(|pid| pid.parse().ok()) else { continue };
        let Some((at_ms, value, rate)) = newest(&data) else { continue };
        let name = labels.get("process.executable.name").or_else(|| labels.get("process.command"));
        let name = name.unwrap_or_default().to_owned();
        let of = found.entry((pid, name.clone())).or_default();
        of.process.pid = pid;
        of.process.name = name;
        of.process.user = labels.get("process.owner").map(str::to_owned);
        of.at_ms = of.at_ms.max(at_ms);
        let waits = label(&|name| labels.get(name), "process.cpu.mode") == Some("wait");
        let sum = |sum: &mut Option<f64>, value: f64| *sum = Some(sum.unwrap_or(0.0) + value);
        match labels.name() {
            "process.cpu.utilization" if !waits => sum(&mut of.utilization, value),
            "process.cpu.time" if !waits => rate.into_iter().for_each(|rate| sum(&mut of.time_rate, rate)),
            "process.memory.usage" => of.process.memory_bytes = Some(value),
            "process.thread.count" | "process.threads" => of.process.threads = Some(value),
            _ => {}
        }
    }
    let at_ms = found.values().map(|found| found.at_ms).max();
    let last_poll = found.into_values().filter(|found| Some(found.at_ms) >= at_ms.map(|at_ms| at_ms - ONE_POLL_MS));
    let mut processes: Vec<Process> = last_poll
        .map(|found| {
            let cores = found.utilization.zip(cpu_count).map(|(fraction, count)| fraction * count);
            Process { cpu: cores.or(found.time_rate), ..found.process }
        })
        .collect();
    let weight = |process: &Process| (process.cpu.unwrap_or(0.0), process.memory_bytes.unwrap_or(0.0));
    processes.sort_by(|one, other| {
        let ((cpu, memory), (other_cpu, other_memory)) = (weight(one), weight(other));
        other_cpu.total_cmp(&cpu).then(other_memory.total_cmp(&memory)).then(one.pid.cmp(&other.pid))
    });
    Ok(Processes { at_ms, processes })
}

/// The targets that the host's agent probed within the last hour, by name.
///
/// # Errors
/// If the store cannot be read.
pub fn probes(source: &dyn SeriesSource, host: &str, now_ms: i64) -> Result<Vec<Probe>, ReadError> {
    let metrics = "probe_success|probe_duration_seconds|probe_http_status_code|probe_error";
    let select = of_host(host, metrics, now_ms.saturating_sub(PROBES_MS), now_ms);
    let mut rest = Vec::new();
    let mut found: BTreeMap<(String, String), Probe> = BTreeMap::new();
    for (series, at_ms, value) in source.last(&select)? {
        let text = |name: &str| series.labels.get(name).unwrap_or_default().to_owned();
        let key = (text("probe.name"), text("probe.type"));
        if series.labels.name() != "probe_success" {
            rest.push((key, series, at_ms, value));
            continue;
        }
        let (target, kind) = key.clone();
        let probe = Probe { target, kind, success: value == 1.0, at_ms, ..Probe::default() };
        // A target whose address changed is two series: the newer one counts.
        if value.is_finite() && found.get(&key).is_none_or(|known| known.at_ms < at_ms) {
            found.insert(key, probe);
        }
    }
    for (key, series, at_ms, value) in rest {
        // What is older belongs to an earlier probe.
        let Some(probe) = found.get_mut(&key).filter(|probe| probe.at_ms == at_ms && value.is_finite()) else {
            continue;
        };
        match series.labels.name() {
            "probe_duration_seconds" => probe.duration_ms = Some(value * 1000.0),
            // A status has three digits; anything else is none.
            "probe_http_status_code" if (100.0..1000.0).contains(&value) => probe.status_code = Some(value as u16),
            "probe_error" if value == 1.0 => probe.error = series.labels.get("error.type").map(str::to_owned),
            _ => {}
        }
    }
    Ok(found.into_values().collect())
}
