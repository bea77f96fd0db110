//! CPU time from `/proc/stat` (proc_stat(5)), and how many CPUs there are.

use std::collections::HashSet;

use weir_model::MetricDescription;
use weir_model::build::Kind::{Counter, Gauge, UpDownCounter};
use weir_pipeline::Fault;

use super::area::{Area, Counters, Devices, Points, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, read_once, text, words};

pub(super) const TIME: MetricDescription<'static> =
    metric("system.cpu.time", "s", Counter, "Time that each logical CPU spent in each mode.");
pub(super) const UTILIZATION: MetricDescription<'static> = metric(
    "system.cpu.utilization",
    "1",
    Gauge,
    "Fraction of the time of all CPUs since the last poll that was spent in each mode.",
);
pub(super) const LOGICAL_COUNT: MetricDescription<'static> =
    metric("system.cpu.logical.count", "{cpu}", UpDownCounter, "Logical CPUs that are online.");
pub(super) const PHYSICAL_COUNT: MetricDescription<'static> =
    metric("system.cpu.physical.count", "{cpu}", UpDownCounter, "Physical CPU cores that are online.");

/// The modes of [`Ticks`], in its order.
const MODES: [&str; 7] = ["user", "system", "nice", "idle", "iowait", "interrupt", "steal"];

/// Clock ticks in each of [`MODES`].
type Ticks = [u64; 7];

/// The kernel lets idle and iowait fall back a little (idle time of a CPU is estimated); up to this
/// many ticks the higher value is kept, as node_exporter does with 3 s.
const HELD_TICKS: u64 = 300;

/// Below this many ticks of all CPUs together a fraction says nothing.
const FEWEST_TICKS: u64 = 10;

/// CPU time and counts.
pub(super) struct Cpu {
    root: Root,
    stat: KernelFile,
    ticks_per_second: f64,
    whole: Option<Ticks>,
    cores: Devices<Core>,
    logical: u64,
    physical: Option<u64>,
}

/// One logical CPU.
struct Core {
    last: Ticks,
    counters: Counters<7>,
}

impl Cpu {
    pub(super) fn new(root: &Root) -> Cpu {
        Cpu {
            root: root.clone(),
            stat: KernelFile::new(root.join("proc/stat")),
            ticks_per_second: ticks_per_second(),
            whole: None,
            cores: Devices::new(),
            logical: 0,
            physical: None,
        }
    }

    fn record_utilization(&mut self, points: &mut Points<'_>, now: Ticks) {
        let Some(last) = self.whole else {
            self.whole = Some(now);
            return;
        };
        let now = held(&last, now);
        match spent(&last, &now) {
            Spent::TooLittle => return,
            Spent::Reset => {}
            Spent::Fractions(fractions) => {
                for (mode, fraction) in MODES.iter().zip(fractions) {
                    points.now(&UTILIZATION, &[("cpu.mode", mode)], fraction);
                }
            }
        }
        self.whole = Some(now);
    }
}

impl Area for Cpu {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        match online(self.stat.read(buffer)?) {
            0 => Err(self.stat.strange("it has no line `cpu0`")),
            1 => Ok("1 CPU".to_owned()),
            count => Ok(format!("{count} CPUs")),
        }
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let stat = self.stat.read(poll.buffer)?;
        let mut logical = 0;
        let mut whole = None;
        for line in lines(stat) {
            if let Some(core) = core_number(line) {
                logical += 1;
                let Some(ticks) = ticks_of(line) else { continue };
                let core_name = text(core);
                let core = self.cores.meet(&core_name, || Core { last: ticks, counters: Counters::new() });
                core.record(&mut poll.points, &core_name, ticks, self.ticks_per_second);
            } else if line.starts_with(b"cpu ") {
                whole = ticks_of(line);
            } else if let Some(created) = line.strip_prefix(b"processes ") {
                poll.processes_created = number(created);
            }
        }
        self.cores.end_poll();
        let whole = whole.ok_or_else(|| self.stat.strange("it has no line `cpu` with numbers"))?;
        self.record_utilization(&mut poll.points, whole);
        if logical != self.logical {
            self.logical = logical;
            self.physical = physical_cores(&self.root, poll.buffer);
        }
        poll.points.now(&LOGICAL_COUNT, &[], logical);
        if let Some(physical) = self.physical {
            poll.points.now(&PHYSICAL_COUNT, &[], physical);
        }
        Ok(())
    }
}

impl Core {
    fn record(&mut self, points: &mut Points<'_>, name: &str, ticks: Ticks, ticks_per_second: f64) {
        let ticks = held(&self.last, ticks);
        let start = self.counters.update(ticks, points.now_unix_nano());
        self.last = ticks;
        for (mode, ticks) in MODES.iter().zip(ticks) {
            let seconds = ticks as f64 / ticks_per_second;
            points.counter_since(&TIME, &[("cpu.mode", mode), ("cpu.logical_number", name)], seconds, start);
        }
    }
}

/// Clock ticks per second of `/proc`: `USER_HZ`, 100 on every architecture that Linux still supports.
pub(crate) fn ticks_per_second() -> f64 {
    use nix::unistd::{SysconfVar, sysconf};
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

/// How many CPUs a `/proc/stat` has lines of: those that are online.
pub(crate) fn online(stat: &[u8]) -> usize {
    lines(stat).filter_map(core_number).count()
}

/// The number in `cpu12 ...`.
fn core_number(line: &[u8]) -> Option<&[u8]> {
    let name = words(line).next()?.strip_prefix(b"cpu")?;
    number(name).map(|_| name)
}

/// The ticks of a `cpu` line. Guest time is already inside user and nice, so it is taken out of
/// them: guests are no mode of OpenTelemetry, and without this they would count twice.
fn ticks_of(line: &[u8]) -> Option<Ticks> {
    let mut fields = [0_u64; 10];
    let mut count = 0;
    for (field, word) in fields.iter_mut().zip(words(line).skip(1)) {
        *field = number(word)?;
        count += 1;
    }
    let [user, nice, system, idle, iowait, interrupt, soft_interrupt, steal, guest, guest_nice] = fields;
    (count >= 4).then(|| {
        [
            user.saturating_sub(guest),
            system,
            nice.saturating_sub(guest_nice),
            idle,
            iowait,
            interrupt.saturating_add(soft_interrupt),
            steal,
        ]
    })
}

/// The ticks of now, where idle and iowait that fell back a little keep their last value.
fn held(last: &Ticks, now: Ticks) -> Ticks {
    let mut ticks = now;
    for (mode, (last, ticks)) in MODES.iter().zip(last.iter().zip(&mut ticks)) {
        if matches!(*mode, "idle" | "iowait") && *ticks < *last && *last - *ticks < HELD_TICKS {
            *ticks = *last;
        }
    }
    ticks
}

/// How the time between two polls was spent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spent {
    /// Too little time passed to tell.
    TooLittle,
    /// The counters began anew.
    Reset,
    /// The fraction of time in each mode.
    Fractions([f64; 7]),
}

fn spent(last: &Ticks, now: &Ticks) -> Spent {
    let mut deltas = [0; 7];
    for (delta, (now, last)) in deltas.iter_mut().zip(now.iter().zip(last)) {
        let Some(grown) = now.checked_sub(*last) else { return Spent::Reset };
        *delta = grown;
    }
    let sum: u64 = deltas.iter().sum();
    if sum < FEWEST_TICKS {
        return Spent::TooLittle;
    }
    Spent::Fractions(deltas.map(|delta| delta as f64 / sum as f64))
}

/// Cores that are online: CPUs that share a core have the same list of siblings. `None` where the
/// kernel does not tell.
fn physical_cores(root: &Root, buffer: &mut Vec<u8>) -> Option<u64> {
    let mut cores = HashSet::new();
    for entry in std::fs::read_dir(root.join("sys/devices/system/cpu")).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_cpu = name.to_str().and_then(|name| name.strip_prefix("cpu")).is_some_and(|n| n.parse::<u32>().is_ok());
        if !is_cpu {
            continue;
        }
        let topology = entry.path().join("topology");
        // `thread_siblings_list` is the name before Linux 5.0; CPUs that are offline have neither.
        for file in ["core_cpus_list", "thread_siblings_list"] {
            if let Ok(list) = read_once(&topology.join(file), buffer) {
                cores.insert(list.to_vec());
                break;
            }
        }
    }
    u64::try_from(cores.len()).ok().filter(|&count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_time_is_taken_out_of_the_time_that_already_contains_it() {
        let ticks = ticks_of(b"cpu0 100 50 30 400 5 1 2 3 40 20").unwrap();
        assert_eq!(ticks, [60, 30, 30, 400, 5, 3, 3]);
        assert_eq!(ticks_of(b"cpu0 1 2 3 4"), Some([1, 3, 2, 4, 0, 0, 0]), "kernels before 2.6 have four fields");
        assert_eq!(ticks_of(b"cpu0 1 2 3"), None);
        assert_eq!(ticks_of(b"cpu0 1 2 3 4 -5"), None);
        assert_eq!(ticks_of(b"cpu0 10 0 0 0 0 0 0 0 40 0").unwrap()[0], 0, "never below zero");
    }

    #[test]
    fn fractions_sum_to_one_and_iowait_that_falls_back_is_no_reset() {
        let last = [100, 100, 100, 1000, 50, 10, 10];
        let now = held(&last, [150, 110, 100, 1040, 40, 10, 10]);
        assert_eq!(spent(&last, &now), Spent::Fractions([0.5, 0.1, 0.0, 0.4, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn a_reset_begins_anew_and_too_little_time_waits() {
        let last = [100, 100, 100, 1000, 50, 10, 10];
        assert_eq!(spent(&last, &[1; 7]), Spent::Reset);
        assert_eq!(spent(&last, &held(&last, [100, 100, 100, 1, 50, 10, 10])), Spent::Reset);
        assert_eq!(spent(&last, &[101, 100, 100, 1001, 50, 10, 10]), Spent::TooLittle);
    }
}
