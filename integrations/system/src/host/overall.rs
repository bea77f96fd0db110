//! Small files about the whole machine: load, uptime, processes.

use weir_model::MetricDescription;
use weir_model::build::Kind::{Counter, Gauge, UpDownCounter};
use weir_pipeline::Fault;

use super::area::{Area, Poll, metric};
use crate::kernel_files::{KernelFile, Root, decimal, lines, number, unreadable, words};

// Semantic conventions name load averages only in prose; these are the names and the unit that the
// OpenTelemetry Collector's `hostmetrics` receiver sends (scraper `load`).
pub(super) const LOAD_1M: MetricDescription<'static> =
    metric("system.cpu.load_average.1m", "{thread}", Gauge, "Load average over 1 minute.");
pub(super) const LOAD_5M: MetricDescription<'static> =
    metric("system.cpu.load_average.5m", "{thread}", Gauge, "Load average over 5 minutes.");
pub(super) const LOAD_15M: MetricDescription<'static> =
    metric("system.cpu.load_average.15m", "{thread}", Gauge, "Load average over 15 minutes.");
pub(super) const UPTIME: MetricDescription<'static> =
    metric("system.uptime", "s", Gauge, "Time since the machine started.");
pub(super) const PROCESS_COUNT: MetricDescription<'static> =
    metric("system.process.count", "{process}", UpDownCounter, "Processes, whatever their state.");
pub(super) const PROCESS_CREATED: MetricDescription<'static> = metric(
    "system.process.created",
    "{process}",
    Counter,
    "Processes and threads created since the machine started, as the kernel counts forks.",
);

/// Load averages (proc_loadavg(5)).
pub(super) struct Load(KernelFile);

impl Load {
    pub(super) fn new(root: &Root) -> Load {
        Load(KernelFile::new(root.join("proc/loadavg")))
    }
}

impl Area for Load {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.0.read(buffer).map(|_| "load".to_owned())
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let mut values = words(self.0.read(poll.buffer)?).map_while(decimal);
        for metric in [&LOAD_1M, &LOAD_5M, &LOAD_15M] {
            let Some(value) = values.next() else {
                return Err(self.0.strange("it does not begin with three numbers"));
            };
            poll.points.now(metric, &[], value);
        }
        Ok(())
    }
}

/// Time since boot (proc_uptime(5)).
pub(super) struct Uptime(KernelFile);

impl Uptime {
    pub(super) fn new(root: &Root) -> Uptime {
        Uptime(KernelFile::new(root.join("proc/uptime")))
    }
}

impl Area for Uptime {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.0.read(buffer).map(|_| "uptime".to_owned())
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let seconds = words(self.0.read(poll.buffer)?).next().and_then(decimal);
        let seconds = seconds.ok_or_else(|| self.0.strange("it does not begin with a number"))?;
        poll.points.now(&UPTIME, &[], seconds);
        Ok(())
    }
}

/// How many processes there are and were.
pub(super) struct Processes {
    root: Root,
    stat: KernelFile,
}

impl Processes {
    pub(super) fn new(root: &Root) -> Processes {
        Processes { root: root.clone(), stat: KernelFile::new(root.join("proc/stat")) }
    }

    /// Processes are the folders of `/proc` whose name is a number.
    fn count(&self) -> Result<u64, Fault> {
        let path = self.root.join("proc");
        let entries = std::fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
        let mut count = 0;
        for entry in entries {
            let name = entry.map_err(|error| unreadable(&path, &error))?.file_name();
            count += u64::from(number(name.as_encoded_bytes()).is_some());
        }
        Ok(count)
    }
}

impl Area for Processes {
    fn watch(&mut self, _buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.count().map(|_| "number of processes".to_owned())
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        poll.points.now(&PROCESS_COUNT, &[], self.count()?);
        // The CPU area has usually read the file already: it is one of the slower ones.
        let created = match poll.processes_created {
            Some(created) => Some(created),
            None => lines(self.stat.read(poll.buffer)?).find_map(|line| number(line.strip_prefix(b"processes ")?)),
        };
        if let Some(created) = created {
            poll.points.counter(&PROCESS_CREATED, &[], created);
        }
        Ok(())
    }
}

/// When the machine started, unix nanoseconds, from the line `btime` of `/proc/stat`.
pub(crate) fn boot_unix_nano(stat: &[u8]) -> Option<u64> {
    let seconds = lines(stat).find_map(|line| number(line.strip_prefix(b"btime ")?))?;
    seconds.checked_mul(1_000_000_000)
}
