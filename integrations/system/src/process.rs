//! The processes of this machine that use most CPU or memory, and those that are named.
//!
//! Reads `/proc/PID/*`. Needs no rights for processes of its own user; disk I/O and open files of
//! other users' need `CAP_SYS_PTRACE`. Names and attributes are those of OpenTelemetry's semantic
//! conventions 1.44 (`process.*`; model/process/metrics.yaml).

mod files;

use std::collections::{HashMap, HashSet};
use std::io;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::build::metric;
use weir_model::metrics::{Number, NumberPoint};
use weir_model::{MetricDescription, Signal};
use weir_pipeline::role::Watching;
use weir_pipeline::{About, Collect, Context, Fault, Kind, MetricKind, MetricsBuilder};

use self::files::{Folders, Stat, Status};
use crate::host::cpu::{online, ticks_per_second};
use crate::host::overall::boot_unix_nano;
use crate::kernel_files::{KernelFile, Root, decimal, read_once, text, unreadable, words};
use crate::name_filter::Pattern;

/// Which processes are reported.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many processes with most CPU time, and how many with most memory. Default: `10`.
    pub top: usize,
    /// Programs that are always reported, by the name of their file or command; `*` stands for any
    /// characters. `process.matched.count` tells how many of each run.
    pub names: Vec<String>,
    /// Most processes in one poll, whatever the patterns match. Default: `100`.
    pub limit: usize,
    /// Whether `process.command_line` is added. Command lines often hold passwords and keys, and
    /// would be sent to every backend. Default: `false`.
    pub command_line: bool,
    /// Where the root of the watched machine is mounted. Default: `/`.
    pub root_path: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { top: 10, names: Vec::new(), limit: 100, command_line: false, root_path: "/".to_owned() }
    }
}

use MetricKind::{Counter, Gauge, UpDownCounter};

const CPU_TIME: MetricDescription<'static> =
    metric("process.cpu.time", "s", Counter, "CPU time of the process by mode.");
const CPU_UTILIZATION: MetricDescription<'static> = metric(
    "process.cpu.utilization",
    "1",
    Gauge,
    "Fraction of all CPUs that the process used since the last poll, by mode.",
);
const MEMORY_USAGE: MetricDescription<'static> =
    metric("process.memory.usage", "By", UpDownCounter, "Physical memory of the process (RSS).");
const MEMORY_VIRTUAL: MetricDescription<'static> =
    metric("process.memory.virtual", "By", UpDownCounter, "Address space of the process.");
const DISK_IO: MetricDescription<'static> =
    metric("process.disk.io", "By", Counter, "Bytes that the process read from and wrote to storage.");
const THREAD_COUNT: MetricDescription<'static> =
    metric("process.thread.count", "{thread}", UpDownCounter, "Threads of the process.");
const FILE_DESCRIPTOR_COUNT: MetricDescription<'static> = metric(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    UpDownCounter,
    "Files that the process has open.",
);
const CONTEXT_SWITCHES: MetricDescription<'static> = metric(
    "process.context_switches",
    "{context_switch}",
    Counter,
    "Context switches of the process' first thread, by whether it gave up the CPU itself.",
);
const PAGING_FAULTS: MetricDescription<'static> =
    metric("process.paging.faults", "{fault}", Counter, "Page faults; major ones had to read from a disk.");
const UPTIME: MetricDescription<'static> = metric("process.uptime", "s", Gauge, "Time since the process started.");
const MATCHED_COUNT: MetricDescription<'static> = metric(
    "process.matched.count",
    "{process}",
    UpDownCounter,
    "Running processes that fit a pattern of `names`; 0 if there is none (Weir's own metric).",
);

const METRICS: &[MetricDescription<'static>] = &[
    CPU_TIME,
    CPU_UTILIZATION,
    MEMORY_USAGE,
    MEMORY_VIRTUAL,
    DISK_IO,
    THREAD_COUNT,
    FILE_DESCRIPTOR_COUNT,
    CONTEXT_SWITCHES,
    PAGING_FAULTS,
    UPTIME,
    MATCHED_COUNT,
];

const ABOUT: About = About {
    name: "process",
    summary: "CPU, memory, disk I/O and open files of the busiest and of named processes",
    details: "\
Reports the `top` processes by CPU time since the last poll (in the first poll: since they started), the `top` by
memory, and all whose program or command fits a pattern of `names`. Each process is a resource of its own with
`process.pid`, `process.executable.name` and `process.owner`.

`process.matched.count` with the attribute `process.matched.pattern` is there for every pattern, also when nothing
fits: an alert on `process.matched.count == 0` says that nginx does not run.

`process.cpu.utilization` appears when a process is met the second time; 1 means all CPUs of the machine.

**Rights:** disk I/O and open files of other users' processes need `CAP_SYS_PTRACE` (with systemd:
`AmbientCapabilities=CAP_SYS_PTRACE`). Without it those two are absent, and the name of the program is the command's
name, which the kernel cuts to 15 characters.

**Command lines** are off, because they often hold passwords and keys that every backend would get to see.

Limits: every process makes new series, so keep `top` small where programs start often; `limit` bounds one poll. All
processes are read to find the busiest: about 10 microseconds each. Processes that start and end between two polls are
not seen. Context switches are those of the first thread.",
    sample: "\
process:
  top: 5
  names: [nginx, postgres*]
",
    metrics: METRICS,
    signals: &[Signal::Metrics],
};

/// The process collector.
pub const KIND: Kind = Kind::collect::<Processes>(ABOUT);

/// After so many processes other tasks get their turn: about half a millisecond.
const PROCESSES_PER_TURN: usize = 64;

/// Utilization over a shorter time says nothing: CPU time is counted in steps of 10 ms.
const SHORTEST_SECONDS: f64 = 0.1;

/// What is known about a process from earlier polls. A process is its number and its start: the
/// number alone is used again.
#[derive(Debug)]
struct Known {
    start_ticks: u64,
    user_ticks: u64,
    system_ticks: u64,
    command: Vec<u8>,
    program: Option<String>,
    owner: Option<(u64, String)>,
    command_line: Option<String>,
    poll: u64,
}

/// A process in this poll.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    pid: u32,
    stat: Stat,
    /// Ticks since the last poll by mode; `None` if it is met for the first time.
    recent: Option<(u64, u64)>,
    /// The ticks that rank it.
    rank_ticks: u64,
    /// Whether a pattern of `names` fits.
    named: bool,
}

/// The machine at the time of a poll.
#[derive(Clone, Copy, Debug)]
struct Machine {
    boot_unix_nano: Option<u64>,
    uptime_seconds: f64,
    /// Since the last poll; `None` in the first.
    elapsed_seconds: Option<f64>,
    cpus: usize,
}

/// Watches processes.
pub struct Processes {
    config: Config,
    root: Root,
    folders: Folders,
    patterns: Vec<Pattern>,
    uptime: KernelFile,
    stat: KernelFile,
    known: HashMap<u32, Known>,
    poll: u64,
    last_uptime_seconds: Option<f64>,
    boot_unix_nano: Option<u64>,
    buffer: Vec<u8>,
    ticks_per_second: f64,
    page_bytes: u64,
}

impl Processes {
    /// Boot time, uptime and CPUs.
    fn machine(&mut self) -> Result<Machine, Fault> {
        let stat = self.stat.read(&mut self.buffer)?;
        let cpus = online(stat).max(1);
        // Kept from the first poll: it moves when the clock is corrected.
        self.boot_unix_nano = self.boot_unix_nano.or_else(|| boot_unix_nano(stat));
        let uptime = words(self.uptime.read(&mut self.buffer)?).next().and_then(decimal);
        let uptime_seconds = uptime.ok_or_else(|| self.uptime.strange("it does not begin with a number"))?;
        let elapsed_seconds = self.last_uptime_seconds.map(|last| uptime_seconds - last);
        self.last_uptime_seconds = Some(uptime_seconds);
        Ok(Machine { boot_unix_nano: self.boot_unix_nano, uptime_seconds, elapsed_seconds, cpus })
    }

    /// Reads one process, and counts it for the patterns that fit. `None` if it is gone.
    fn meet(&mut self, pid: u32, counts: &mut [u64]) -> Option<Candidate> {
        let (command, stat) = Stat::parse(self.folders.read(pid, "stat", &mut self.buffer)?)?;
        let same = self.known.get(&pid).filter(|known| known.start_ticks == stat.start_ticks);
        let recent = same.map(|known| {
            (stat.user_ticks.saturating_sub(known.user_ticks), stat.system_ticks.saturating_sub(known.system_ticks))
        });
        // After exec it is another program, though it is the same process.
        if same.is_none_or(|known| known.command != command) {
            let known = Known {
                start_ticks: stat.start_ticks,
                user_ticks: 0,
                system_ticks: 0,
                command: command.to_vec(),
                program: self.folders.program(pid),
                owner: None,
                command_line: None,
                poll: 0,
            };
            self.known.insert(pid, known);
        }
        let known = self.known.get_mut(&pid)?;
        (known.user_ticks, known.system_ticks) = (stat.user_ticks, stat.system_ticks);
        known.poll = self.poll;
        let mut named = false;
        let command = text(&known.command);
        for (pattern, count) in self.patterns.iter().zip(counts) {
            if pattern.matches(&command) || known.program.as_deref().is_some_and(|program| pattern.matches(program)) {
                *count += 1;
                named = true;
            }
        }
        let rank_ticks = recent.map_or(stat.cpu_ticks(), |(user, system)| user.saturating_add(system));
        Some(Candidate { pid, stat, recent, rank_ticks, named })
    }

    /// The processes to report, in this order: most CPU time, most memory, named.
    fn choose(&self, candidates: &mut [Candidate]) -> Vec<Candidate> {
        let mut chosen = Vec::new();
        let mut pids = HashSet::new();
        let mut take = |candidate: &Candidate| {
            if chosen.len() < self.config.limit && pids.insert(candidate.pid) {
                chosen.push(*candidate);
            }
        };
        candidates.sort_unstable_by_key(|c| (std::cmp::Reverse(c.stat.resident_pages), c.pid));
        let by_memory = candidates.iter().take(self.config.top).copied().collect::<Vec<_>>();
        // A stable sort: processes with equal CPU time stay in the order of their memory.
        candidates.sort_by_key(|c| std::cmp::Reverse(c.rank_ticks));
        candidates.iter().take(self.config.top).filter(|c| c.rank_ticks > 0).for_each(&mut take);
        by_memory.iter().filter(|c| c.stat.resident_pages > 0).for_each(&mut take);
        candidates.iter().filter(|c| c.named).for_each(&mut take);
        chosen
    }

    /// Records a process. What vanished or is not allowed meanwhile is absent.
    fn report(&mut self, candidate: &Candidate, machine: &Machine, out: &mut MetricsBuilder) {
        let pid = candidate.pid;
        let status = self.folders.read(pid, "status", &mut self.buffer).map(Status::parse).unwrap_or_default();
        let owner = status.user_id.map(|id| (id, self.owner(pid, id)));
        let command_line = self.command_line(pid);
        let io = self.folders.read(pid, "io", &mut self.buffer).and_then(files::storage_bytes);
        let open_files = self.folders.open_files(pid);
        let Some(known) = self.known.get_mut(&pid) else { return };
        known.owner = owner;
        known.command_line = command_line;

        let (pid, command) = (pid.to_string(), text(&known.command));
        let name = known.program.as_deref().unwrap_or(&command);
        let mut resource = vec![("process.pid", pid.as_str()), ("process.executable.name", name)];
        if let Some((_, owner)) = &known.owner {
            resource.push(("process.owner", owner));
        }
        if let Some(line) = &known.command_line {
            resource.push(("process.command_line", line));
        }
        out.set_resource(&resource);
        let mut report = Report::new(candidate, machine, self.ticks_per_second, out);
        report.cpu(candidate, machine);
        report.stat(&candidate.stat, self.page_bytes);
        report.rest(&status, io, open_files);
    }

    /// The name of the user that a process belongs to; the number where it has no name.
    fn owner(&mut self, pid: u32, user_id: u64) -> String {
        if let Some((known_id, name)) = self.known.get(&pid).and_then(|known| known.owner.as_ref())
            && *known_id == user_id
        {
            return name.clone();
        }
        let passwd = read_once(&self.root.join("etc/passwd"), &mut self.buffer);
        passwd.ok().and_then(|text| files::user_name(text, user_id)).unwrap_or_else(|| user_id.to_string())
    }

    fn command_line(&mut self, pid: u32) -> Option<String> {
        if !self.config.command_line {
            return None;
        }
        let known = self.known.get(&pid).and_then(|known| known.command_line.clone());
        known.or_else(|| self.folders.command_line(pid, &mut self.buffer))
    }
}

/// Records the metrics of one process.
struct Report<'a> {
    out: &'a mut MetricsBuilder,
    start_unix_nano: u64,
    uptime_seconds: f64,
    ticks_per_second: f64,
}

impl<'a> Report<'a> {
    fn new(candidate: &Candidate, machine: &Machine, ticks_per_second: f64, out: &'a mut MetricsBuilder) -> Self {
        let start_seconds = candidate.stat.start_ticks as f64 / ticks_per_second;
        let after_boot = std::time::Duration::try_from_secs_f64(start_seconds).unwrap_or_default().as_nanos();
        let start = machine.boot_unix_nano.map(|boot| boot.saturating_add(after_boot.try_into().unwrap_or_default()));
        // A clock that was set back may be behind the start, which would be invalid.
        let start_unix_nano = start.filter(|&start| start <= out.now_unix_nano()).unwrap_or_default();
        Report {
            out,
            start_unix_nano,
            uptime_seconds: (machine.uptime_seconds - start_seconds).max(0.0),
            ticks_per_second,
        }
    }

    fn counter(&mut self, metric: &MetricDescription<'_>, labels: &[(&str, &str)], value: impl Into<Number>) {
        let point = NumberPoint {
            start_time_unix_nano: self.start_unix_nano,
            time_unix_nano: self.out.now_unix_nano(),
            value: value.into(),
            ..NumberPoint::default()
        };
        self.out.record_point(metric, labels, point);
    }

    fn cpu(&mut self, candidate: &Candidate, machine: &Machine) {
        for (mode, ticks) in [("user", candidate.stat.user_ticks), ("system", candidate.stat.system_ticks)] {
            self.counter(&CPU_TIME, &[("cpu.mode", mode)], ticks as f64 / self.ticks_per_second);
        }
        let elapsed = machine.elapsed_seconds.filter(|&seconds| seconds >= SHORTEST_SECONDS);
        let (Some((user, system)), Some(elapsed)) = (candidate.recent, elapsed) else { return };
        for (mode, ticks) in [("user", user), ("system", system)] {
            let fraction = ticks as f64 / self.ticks_per_second / elapsed / machine.cpus as f64;
            self.out.record(&CPU_UTILIZATION, &[("cpu.mode", mode)], fraction);
        }
    }

    fn stat(&mut self, stat: &Stat, page_bytes: u64) {
        self.out.record(&MEMORY_USAGE, &[], stat.resident_pages.saturating_mul(page_bytes));
        self.out.record(&MEMORY_VIRTUAL, &[], stat.virtual_bytes);
        self.out.record(&THREAD_COUNT, &[], stat.threads);
        self.out.record(&UPTIME, &[], self.uptime_seconds);
        self.counter(&PAGING_FAULTS, &[("system.paging.fault.type", "minor")], stat.minor_faults);
        self.counter(&PAGING_FAULTS, &[("system.paging.fault.type", "major")], stat.major_faults);
    }

    fn rest(&mut self, status: &Status, io: Option<(u64, u64)>, open_files: Option<u64>) {
        let switches = [("voluntary", status.voluntary_switches), ("involuntary", status.involuntary_switches)];
        for (kind, count) in switches {
            if let Some(count) = count {
                self.counter(&CONTEXT_SWITCHES, &[("process.context_switch.type", kind)], count);
            }
        }
        if let Some((read, written)) = io {
            self.counter(&DISK_IO, &[("disk.io.direction", "read")], read);
            self.counter(&DISK_IO, &[("disk.io.direction", "write")], written);
        }
        if let Some(count) = open_files {
            self.out.record(&FILE_DESCRIPTOR_COUNT, &[], count);
        }
    }
}

impl Collect for Processes {
    type Config = Config;

    fn new(config: Config, _context: &Context) -> Result<Self, Fault> {
        if !config.root_path.starts_with('/') {
            let message = format!("`root_path` must begin with `/`, not `{}`", config.root_path);
            return Err(Fault::configuration(message));
        }
        if config.limit == 0 || (config.top == 0 && config.names.is_empty()) {
            let message = "no process would be reported: set `limit` and one of `top` and `names`";
            return Err(Fault::configuration(message));
        }
        let root = Root::new(&config.root_path);
        let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        Ok(Processes {
            folders: Folders::new(&root),
            patterns: config.names.iter().map(|name| Pattern::new(name)).collect(),
            uptime: KernelFile::new(root.join("proc/uptime")),
            stat: KernelFile::new(root.join("proc/stat")),
            known: HashMap::new(),
            poll: 0,
            last_uptime_seconds: None,
            boot_unix_nano: None,
            buffer: Vec::new(),
            ticks_per_second: ticks_per_second(),
            page_bytes: page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096),
            root,
            config,
        })
    }

    fn watching(&mut self) -> Watching {
        let mut watching = Watching::default();
        match self.folders.pids() {
            Ok(pids) => watching.watched.push(format!("{} processes", pids.len())),
            Err(error) => {
                let reason = unreadable(self.folders.path(), &error).message;
                watching.not_watched.push(("processes".to_owned(), reason));
                return watching;
            }
        }
        // The first process is always there and never ours, unless we are alone in a container.
        let mut refused = |file: &str, what: &str, reason: &str, kind: io::ErrorKind| {
            let path = self.folders.path().join("1").join(file);
            if read_once(&path, &mut self.buffer).is_err_and(|error| error.kind() == kind) {
                watching.not_watched.push((what.to_owned(), reason.to_owned()));
            }
        };
        refused("stat", "processes of other users", "/proc hides them (mount option hidepid)", io::ErrorKind::NotFound);
        refused(
            "io",
            "disk I/O and file descriptors of other users' processes",
            "needs CAP_SYS_PTRACE",
            io::ErrorKind::PermissionDenied,
        );
        watching
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let pids = self.folders.pids().map_err(|error| unreadable(self.folders.path(), &error))?;
        let machine = self.machine()?;
        self.poll = self.poll.wrapping_add(1);
        let mut counts = vec![0; self.patterns.len()];
        let mut candidates = Vec::with_capacity(pids.len());
        for some in pids.chunks(PROCESSES_PER_TURN) {
            candidates.extend(some.iter().filter_map(|&pid| self.meet(pid, &mut counts)));
            tokio::task::yield_now().await;
        }
        let poll = self.poll;
        self.known.retain(|_, known| known.poll == poll);
        for (pattern, count) in self.patterns.iter().zip(counts) {
            out.record(&MATCHED_COUNT, &[("process.matched.pattern", pattern.as_str())], count);
        }
        for candidate in self.choose(&mut candidates) {
            self.report(&candidate, &machine, out);
        }
        out.set_resource(&[]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
