//! What the areas of the host collector share: the poll that they record into, and the counters
//! of devices that come, go and reset.

use std::collections::HashMap;

pub(super) use weir_model::build::metric;
use weir_model::build::{Label, MetricDescription};
use weir_model::metrics::{Number, NumberPoint};
use weir_pipeline::{Fault, MetricsBuilder};

/// A part of the machine that can be watched and can fail on its own.
pub(super) trait Area: Send {
    /// Looks what there is to watch, in a few words. The fault says why there is nothing.
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault>;

    /// Records everything; what was recorded before a fault stays.
    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault>;
}

/// One poll.
pub(super) struct Poll<'a> {
    /// Where points go.
    pub(super) points: Points<'a>,
    /// The buffer that files are read into, one after the other.
    pub(super) buffer: &'a mut Vec<u8>,
    /// Processes created since boot, left here by the area that reads `/proc/stat` anyway.
    pub(super) processes_created: Option<u64>,
}

/// Where points go.
pub(super) struct Points<'a> {
    out: &'a mut MetricsBuilder,
    boot_unix_nano: u64,
}

impl<'a> Points<'a> {
    /// Points whose counters started at boot; 0 = unknown.
    pub(super) fn new(out: &'a mut MetricsBuilder, boot_unix_nano: u64) -> Points<'a> {
        // A clock that was set back may be behind the boot time: a start after the point is invalid.
        let known = boot_unix_nano <= out.now_unix_nano();
        Points { out, boot_unix_nano: if known { boot_unix_nano } else { 0 } }
    }

    /// The time of the poll, unix nanoseconds.
    pub(super) fn now_unix_nano(&self) -> u64 {
        self.out.now_unix_nano()
    }

    /// Records a value of now (gauges and up-down counters).
    pub(super) fn now(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>], value: impl Into<Number>) {
        self.out.record(metric, labels, value);
    }

    /// Records a counter that started at boot.
    pub(super) fn counter(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>], value: impl Into<Number>) {
        self.counter_since(metric, labels, value, 0);
    }

    /// Records a counter that started at this time, unix nanoseconds; 0 = at boot.
    pub(super) fn counter_since(
        &mut self,
        metric: &MetricDescription<'_>,
        labels: &[Label<'_>],
        value: impl Into<Number>,
        start_unix_nano: u64,
    ) {
        let start_time_unix_nano = match start_unix_nano {
            0 => self.boot_unix_nano,
            start => start,
        };
        let point = NumberPoint {
            start_time_unix_nano,
            time_unix_nano: self.out.now_unix_nano(),
            value: value.into(),
            ..NumberPoint::default()
        };
        self.out.record_point(metric, labels, point);
    }
}

/// What is known about devices by name; those that a poll does not meet are forgotten.
#[derive(Debug)]
pub(super) struct Devices<T> {
    known: HashMap<String, (T, u64)>,
    poll: u64,
    met: usize,
}

impl<T> Devices<T> {
    /// No devices.
    pub(super) fn new() -> Self {
        Devices { known: HashMap::new(), poll: 0, met: 0 }
    }

    /// The device of this name, which was met in this poll.
    pub(super) fn meet(&mut self, name: &str, make: impl FnOnce() -> T) -> &mut T {
        // A new device is not met yet: its number is that of the poll before.
        let before = self.poll.wrapping_sub(1);
        let (device, met) = self.known.entry(name.to_owned()).or_insert_with(|| (make(), before));
        if *met != self.poll {
            *met = self.poll;
            self.met += 1;
        }
        device
    }

    /// Ends a poll: devices that it did not meet are gone.
    pub(super) fn end_poll(&mut self) {
        if self.met != self.known.len() {
            let poll = self.poll;
            self.known.retain(|_, (_, met)| *met == poll);
        }
        self.poll = self.poll.wrapping_add(1);
        self.met = 0;
    }
}

/// The counters of one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters<const N: usize> {
    last: [u64; N],
    last_unix_nano: u64,
    start_unix_nano: u64,
}

impl<const N: usize> Counters<N> {
    /// Counters that are not read yet.
    pub(super) fn new() -> Self {
        Counters { last: [0; N], last_unix_nano: 0, start_unix_nano: 0 }
    }

    /// Takes the values of this poll. Answers since when they count: 0 = since boot, or the time of
    /// the last poll before one of them went down, because then all of them began anew.
    pub(super) fn update(&mut self, values: [u64; N], now_unix_nano: u64) -> u64 {
        let reset = self.last.iter().zip(&values).any(|(last, value)| value < last);
        if reset {
            self.start_unix_nano = self.last_unix_nano;
        }
        self.last = values;
        self.last_unix_nano = now_unix_nano;
        self.start_unix_nano
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_a_poll_did_not_meet_are_forgotten() {
        let mut devices = Devices::new();
        *devices.meet("a", || 0) += 1;
        devices.meet("b", || 0);
        devices.end_poll();
        assert_eq!(*devices.meet("a", || 0), 1);
        devices.end_poll();
        assert_eq!(devices.known.len(), 1);
        *devices.meet("a", || 0) += 1;
        assert_eq!(*devices.meet("a", || 0), 2);
    }

    #[test]
    fn a_counter_that_goes_down_counts_since_the_poll_before() {
        let mut counters = Counters::new();
        assert_eq!(counters.update([5, 5], 100), 0);
        assert_eq!(counters.update([6, 5], 200), 0);
        assert_eq!(counters.update([6, 1], 300), 200);
        assert_eq!(counters.update([7, 2], 400), 200);
    }
}
