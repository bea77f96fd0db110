//! Disk operations from `/proc/diskstats` (kernel: Documentation/admin-guide/iostats.rst).

use weir_model::MetricDescription;
use weir_model::build::Kind::Counter;
use weir_pipeline::Fault;

use super::area::{Area, Counters, Devices, Points, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, text, words};
use crate::name_filter::NameFilter;

pub(super) const IO: MetricDescription<'static> =
    metric("system.disk.io", "By", Counter, "Bytes that a disk read and wrote.");
pub(super) const OPERATIONS: MetricDescription<'static> =
    metric("system.disk.operations", "{operation}", Counter, "Operations that a disk completed.");
pub(super) const IO_TIME: MetricDescription<'static> =
    metric("system.disk.io_time", "s", Counter, "Time during which a disk had anything to do.");
pub(super) const OPERATION_TIME: MetricDescription<'static> = metric(
    "system.disk.operation_time",
    "s",
    Counter,
    "Sum of the times that operations took; operations at the same time all count.",
);
pub(super) const MERGED: MetricDescription<'static> =
    metric("system.disk.merged", "{operation}", Counter, "Operations that were merged with a neighbour.");

/// Devices that are no disks of their own.
pub(super) const NOT_DISKS: [&str; 5] = ["loop*", "ram*", "zram*", "fd*", "sr*"];

/// The kernel counts in sectors of this size, whatever the disk's own is.
const SECTOR_BYTES: u64 = 512;

/// One line of `/proc/diskstats`, its first eleven fields without the ninth ("in flight", no counter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    reads: u64,
    reads_merged: u64,
    sectors_read: u64,
    reading_milliseconds: u64,
    writes: u64,
    writes_merged: u64,
    sectors_written: u64,
    writing_milliseconds: u64,
    busy_milliseconds: u64,
}

/// The name of a device, and its numbers.
fn parse(line: &[u8]) -> Option<(&[u8], Line)> {
    let mut words = words(line).skip(2);
    let name = words.next()?;
    let mut fields = [0; 10];
    for field in &mut fields {
        *field = number(words.next()?)?;
    }
    let [reads, reads_merged, sectors_read, reading, writes, writes_merged, sectors_written, writing, _, busy] = fields;
    let line = Line {
        reads,
        reads_merged,
        sectors_read,
        reading_milliseconds: reading,
        writes,
        writes_merged,
        sectors_written,
        writing_milliseconds: writing,
        busy_milliseconds: busy,
    };
    Some((name, line))
}

/// A counter of milliseconds, which the kernel prints with 32 bits: it wraps after 49.7 days of work.
#[derive(Clone, Copy, Debug, Default)]
struct Wrapping {
    last: u64,
    carried: u64,
}

impl Wrapping {
    /// The whole value. A fall by more than half of the range is a wrap; a smaller one is the
    /// kernel's inaccuracy, and the higher value is kept.
    fn whole(&mut self, value: u64) -> u64 {
        const RANGE: u64 = 1 << 32;
        if self.last.saturating_sub(value) > RANGE / 2 && self.last < RANGE {
            self.carried = self.carried.saturating_add(RANGE);
            self.last = value;
        }
        self.last = self.last.max(value);
        self.carried.saturating_add(self.last)
    }
}

/// What is known about a device.
struct Disk {
    watched: bool,
    counters: Counters<6>,
    reading: Wrapping,
    writing: Wrapping,
    busy: Wrapping,
    start_unix_nano: u64,
}

impl Disk {
    fn new(watched: bool) -> Disk {
        let time = Wrapping::default();
        Disk { watched, counters: Counters::new(), reading: time, writing: time, busy: time, start_unix_nano: 0 }
    }

    fn record(&mut self, points: &mut Points<'_>, name: &str, line: &Line) {
        let counted =
            [line.reads, line.reads_merged, line.sectors_read, line.writes, line.writes_merged, line.sectors_written];
        let start = self.counters.update(counted, points.now_unix_nano());
        if start != self.start_unix_nano {
            // Another device of the same name: its times begin anew too.
            let counters = self.counters;
            *self = Disk { counters, start_unix_nano: start, ..Disk::new(true) };
        }
        let directions = [
            ("read", line.sectors_read, line.reads, line.reads_merged, self.reading.whole(line.reading_milliseconds)),
            (
                "write",
                line.sectors_written,
                line.writes,
                line.writes_merged,
                self.writing.whole(line.writing_milliseconds),
            ),
        ];
        for (direction, sectors, operations, merged, milliseconds) in directions {
            let labels = [("system.device", name), ("disk.io.direction", direction)];
            points.counter_since(&IO, &labels, sectors.saturating_mul(SECTOR_BYTES), start);
            points.counter_since(&OPERATIONS, &labels, operations, start);
            points.counter_since(&OPERATION_TIME, &labels, milliseconds as f64 / 1000.0, start);
            points.counter_since(&MERGED, &labels, merged, start);
        }
        let busy = self.busy.whole(line.busy_milliseconds);
        points.counter_since(&IO_TIME, &[("system.device", name)], busy as f64 / 1000.0, start);
    }
}

/// All disks.
pub(super) struct Disks {
    root: Root,
    diskstats: KernelFile,
    filter: NameFilter,
    disks: Devices<Disk>,
}

impl Disks {
    pub(super) fn new(root: &Root, filter: NameFilter) -> Disks {
        Disks {
            root: root.clone(),
            diskstats: KernelFile::new(root.join("proc/diskstats")),
            filter,
            disks: Devices::new(),
        }
    }

    /// Whole disks have a folder in `/sys/block`, partitions only one below their disk's.
    fn is_watched(root: &Root, filter: &NameFilter, name: &str) -> bool {
        let folder = root.join("sys/block").join(name.replace('/', "!"));
        filter.allows(name) && std::fs::metadata(folder).is_ok()
    }
}

impl Area for Disks {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        let folder = self.root.join("sys/block");
        std::fs::read_dir(&folder).map_err(|error| crate::kernel_files::unreadable(&folder, &error))?;
        let names = lines(self.diskstats.read(buffer)?).filter_map(|line| Some(text(parse(line)?.0)));
        let disks: Vec<_> = names.filter(|name| Self::is_watched(&self.root, &self.filter, name)).collect();
        match disks.as_slice() {
            [] => Err(self.diskstats.strange("no disk that is not excluded")),
            [disk] => Ok(format!("1 disk ({disk})")),
            disks => Ok(format!("{} disks", disks.len())),
        }
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        for (name, line) in lines(self.diskstats.read(poll.buffer)?).filter_map(parse) {
            let name = text(name);
            let (root, filter) = (&self.root, &self.filter);
            let disk = self.disks.meet(&name, || Disk::new(Self::is_watched(root, filter, &name)));
            if disk.watched {
                disk.record(&mut poll.points, &name, &line);
            }
        }
        self.disks.end_poll();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_old_and_new_kernels_are_read() {
        let (name, line) = parse(b" 8 0 sda 1 2 3 4 5 6 7 8 9 10 11").unwrap();
        assert_eq!((name, line.busy_milliseconds, line.writing_milliseconds), (&b"sda"[..], 10, 8));
        let new = b" 254 0 vda 135709 18754 7126970 78423 51298 233659 31508688 86531 0 24108 168140 20522 39 10522944 3099 1893 85";
        let (_, line) = parse(new).unwrap();
        assert_eq!((line.sectors_written, line.busy_milliseconds), (31_508_688, 24_108));
        assert_eq!(parse(b" 8 1 sda1 1 2 3 4"), None, "partitions of kernels before 2.6.25 have four fields");
    }

    #[test]
    fn a_time_that_wraps_at_32_bit_goes_on_growing() {
        let mut time = Wrapping::default();
        assert_eq!(time.whole(4_294_967_000), 4_294_967_000);
        assert_eq!(time.whole(500), 4_294_967_796);
        assert_eq!(time.whole(600), 4_294_967_896);
        assert_eq!(time.whole(590), 4_294_967_896, "a small fall is held");
    }
}
