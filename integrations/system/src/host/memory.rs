//! Memory from `/proc/meminfo`, swap from there and `/proc/vmstat` (proc_meminfo(5), proc_vmstat(5)).

use weir_model::MetricDescription;
use weir_model::build::Kind::{Counter, Gauge, UpDownCounter};
use weir_pipeline::Fault;

use super::area::{Area, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, words};

pub(super) const USAGE: MetricDescription<'static> = metric(
    "system.memory.usage",
    "By",
    UpDownCounter,
    "Memory by state. `used` is what is not available to programs (MemTotal - MemAvailable); the other states overlap with it.",
);
pub(super) const LIMIT: MetricDescription<'static> =
    metric("system.memory.limit", "By", UpDownCounter, "Memory that the kernel can use (MemTotal).");
pub(super) const UTILIZATION: MetricDescription<'static> =
    metric("system.memory.utilization", "1", Gauge, "Fraction of the memory in each state.");
pub(super) const AVAILABLE: MetricDescription<'static> = metric(
    "system.memory.linux.available",
    "By",
    UpDownCounter,
    "Memory that programs can still get without swapping, as the kernel estimates it.",
);
pub(super) const SHARED: MetricDescription<'static> =
    metric("system.memory.linux.shared", "By", UpDownCounter, "Shared memory, mostly files in tmpfs.");
pub(super) const SLAB_USAGE: MetricDescription<'static> = metric(
    "system.memory.linux.slab.usage",
    "By",
    UpDownCounter,
    "Memory of the kernel's own objects, by whether it can be reclaimed.",
);
pub(super) const PAGING_USAGE: MetricDescription<'static> =
    metric("system.paging.usage", "By", UpDownCounter, "Swap space by state.");
pub(super) const PAGING_UTILIZATION: MetricDescription<'static> =
    metric("system.paging.utilization", "1", Gauge, "Fraction of the swap space in each state.");
pub(super) const PAGING_FAULTS: MetricDescription<'static> =
    metric("system.paging.faults", "{fault}", Counter, "Page faults; major ones had to read from a disk.");
pub(super) const PAGING_OPERATIONS: MetricDescription<'static> =
    metric("system.paging.operations", "{operation}", Counter, "Pages that were swapped in and out.");

/// What is read from `/proc/meminfo`, in bytes; `None` where the kernel has no such line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meminfo {
    total: Option<u64>,
    free: Option<u64>,
    available: Option<u64>,
    buffers: Option<u64>,
    cached: Option<u64>,
    shared: Option<u64>,
    reclaimable: Option<u64>,
    unreclaimable: Option<u64>,
    swap_total: Option<u64>,
    swap_free: Option<u64>,
}

impl Meminfo {
    fn parse(text: &[u8]) -> Meminfo {
        let mut info = Meminfo::default();
        for line in lines(text) {
            let mut words = words(line);
            let field = match words.next() {
                Some(b"MemTotal:") => &mut info.total,
                Some(b"MemFree:") => &mut info.free,
                Some(b"MemAvailable:") => &mut info.available,
                Some(b"Buffers:") => &mut info.buffers,
                Some(b"Cached:") => &mut info.cached,
                Some(b"Shmem:") => &mut info.shared,
                Some(b"SReclaimable:") => &mut info.reclaimable,
                Some(b"SUnreclaim:") => &mut info.unreclaimable,
                Some(b"SwapTotal:") => &mut info.swap_total,
                Some(b"SwapFree:") => &mut info.swap_free,
                _ => continue,
            };
            // The kernel writes "kB" and means 1024 bytes.
            *field = words.next().and_then(number).and_then(|kibibytes| kibibytes.checked_mul(1024));
        }
        info
    }

    /// Memory that is not available to programs. Kernels before 3.14 have no estimate of what is.
    fn used(&self) -> Option<u64> {
        let total = self.total?;
        match self.available {
            Some(available) => Some(total.saturating_sub(available)),
            None => Some(total.saturating_sub(self.free?.saturating_add(self.buffers?).saturating_add(self.cached()?))),
        }
    }

    /// File cache as `free` shows it: with reclaimable kernel objects, without shared memory, which
    /// cannot be dropped.
    fn cached(&self) -> Option<u64> {
        let reclaimable = self.reclaimable.unwrap_or_default();
        Some(self.cached?.saturating_add(reclaimable).saturating_sub(self.shared.unwrap_or_default()))
    }
}

/// Memory by state.
pub(super) struct Memory {
    meminfo: KernelFile,
}

impl Memory {
    pub(super) fn new(root: &Root) -> Memory {
        Memory { meminfo: KernelFile::new(root.join("proc/meminfo")) }
    }
}

impl Area for Memory {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        let info = Meminfo::parse(self.meminfo.read(buffer)?);
        let total = info.total.ok_or_else(|| self.meminfo.strange("it has no MemTotal"))?;
        Ok(format!("{} of memory", gibibytes(total)))
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let info = Meminfo::parse(self.meminfo.read(poll.buffer)?);
        let total = info.total.filter(|&total| total > 0).ok_or_else(|| self.meminfo.strange("it has no MemTotal"))?;
        poll.points.now(&LIMIT, &[], total);
        let states = [("used", info.used()), ("free", info.free), ("buffers", info.buffers), ("cached", info.cached())];
        for (state, bytes) in states {
            if let Some(bytes) = bytes {
                let labels = [("system.memory.state", state)];
                poll.points.now(&USAGE, &labels, bytes);
                poll.points.now(&UTILIZATION, &labels, bytes as f64 / total as f64);
            }
        }
        for (metric, bytes) in [(&AVAILABLE, info.available), (&SHARED, info.shared)] {
            if let Some(bytes) = bytes {
                poll.points.now(metric, &[], bytes);
            }
        }
        for (state, bytes) in [("reclaimable", info.reclaimable), ("unreclaimable", info.unreclaimable)] {
            if let Some(bytes) = bytes {
                poll.points.now(&SLAB_USAGE, &[("system.memory.linux.slab.state", state)], bytes);
            }
        }
        Ok(())
    }
}

/// Swap space and page faults.
pub(super) struct Paging {
    meminfo: KernelFile,
    vmstat: KernelFile,
}

impl Paging {
    pub(super) fn new(root: &Root) -> Paging {
        Paging {
            meminfo: KernelFile::new(root.join("proc/meminfo")),
            vmstat: KernelFile::new(root.join("proc/vmstat")),
        }
    }
}

impl Area for Paging {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.vmstat.read(buffer)?;
        let info = Meminfo::parse(self.meminfo.read(buffer)?);
        Ok(match info.swap_total {
            Some(total) if total > 0 => format!("page faults and {} of swap", gibibytes(total)),
            _ => "page faults (no swap is configured)".to_owned(),
        })
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let info = Meminfo::parse(self.meminfo.read(poll.buffer)?);
        if let (Some(total), Some(free)) = (info.swap_total.filter(|&total| total > 0), info.swap_free) {
            for (state, bytes) in [("used", total.saturating_sub(free)), ("free", free)] {
                let labels = [("system.paging.state", state)];
                poll.points.now(&PAGING_USAGE, &labels, bytes);
                poll.points.now(&PAGING_UTILIZATION, &labels, bytes as f64 / total as f64);
            }
        }
        let (mut faults, mut major_faults) = (None, None);
        for line in lines(self.vmstat.read(poll.buffer)?).filter(|line| line.starts_with(b"p")) {
            let mut words = words(line);
            match (words.next(), words.next().and_then(number)) {
                (Some(b"pgfault"), count) => faults = count,
                (Some(b"pgmajfault"), count) => major_faults = count,
                (Some(b"pswpin"), Some(pages)) => {
                    poll.points.counter(&PAGING_OPERATIONS, &[("system.paging.direction", "in")], pages);
                }
                (Some(b"pswpout"), Some(pages)) => {
                    poll.points.counter(&PAGING_OPERATIONS, &[("system.paging.direction", "out")], pages);
                }
                _ => {}
            }
        }
        if let (Some(all), Some(major)) = (faults, major_faults) {
            for (kind, count) in [("major", major), ("minor", all.saturating_sub(major))] {
                poll.points.counter(&PAGING_FAULTS, &[("system.paging.fault.type", kind)], count);
            }
        }
        Ok(())
    }
}

/// Bytes as people write them.
fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_is_what_is_not_available() {
        let info = Meminfo::parse(b"MemTotal:  1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\n");
        assert_eq!(info.used(), Some(400 * 1024));
        assert_eq!(info.cached(), None, "a line that is not there is no zero");
    }

    #[test]
    fn kernels_without_an_estimate_of_available_memory_still_tell_what_is_used() {
        let info = Meminfo::parse(
            b"MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 300 kB\nSReclaimable: 20 kB\nShmem: 70 kB\n",
        );
        assert_eq!(info.cached(), Some(250 * 1024));
        assert_eq!(info.used(), Some(600 * 1024));
    }
}
