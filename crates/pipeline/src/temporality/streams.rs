//! What is remembered of every series: its last point, bounded in number and age.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::amount::{Amount, Last, Step};

/// How often stale series are looked for.
const SWEEP_EVERY_SECONDS: u64 = 60;

/// The times of a point, unix nanoseconds; a start of 0 is unknown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub start: u64,
    pub time: u64,
}

/// What becomes of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on with this start time.
    Keep { start: u64 },
    /// Nothing before it is known, so it has no delta.
    First,
    /// It is not newer than the last point of its series.
    OutOfOrder,
}

/// One series.
#[derive(Debug)]
struct Stream {
    /// Start of the cumulative points that are made from deltas.
    start: u64,
    /// Time of the last point.
    time: u64,
    /// Grows with every point of any series: the smallest is the oldest.
    order: u64,
    /// Seconds from the making of the converter to the arrival of the last point.
    seen_seconds: u64,
    last: Last,
}

/// All series of one converter.
#[derive(Debug)]
pub(super) struct Streams {
    map: HashMap<u128, Stream, RandomState>,
    max_series: usize,
    keep_for_seconds: u64,
    /// No series that is not remembered was seen later than this, unix nanoseconds: a new series
    /// that started after it holds nothing that went on already.
    horizon: u64,
    made: Instant,
    now_seconds: u64,
    next_sweep_seconds: u64,
    order: u64,
    evicted: u64,
}

impl Streams {
    pub fn new(max_series: usize, keep_for: Duration, now_unix_nano: u64, now: Instant) -> Self {
        Self {
            map: HashMap::default(),
            max_series: max_series.max(1),
            keep_for_seconds: keep_for.as_secs(),
            horizon: now_unix_nano.max(1),
            made: now,
            now_seconds: 0,
            next_sweep_seconds: SWEEP_EVERY_SECONDS,
            order: 0,
            evicted: 0,
        }
    }

    pub fn keep_for(&mut self, time: Duration) {
        self.keep_for_seconds = time.as_secs();
    }

    /// Series that were forgotten for the limit since this was asked last.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Points arrive now. Forgets the series that have had none for long.
    ///
    /// Age is measured by arrival, not by the times of the points: a source whose clock is behind,
    /// or that sends what it could not send before, must not lose its series.
    pub fn begin(&mut self, now: Instant) {
        self.now_seconds = now.saturating_duration_since(self.made).as_secs();
        if self.now_seconds < self.next_sweep_seconds {
            return;
        }
        self.next_sweep_seconds = self.now_seconds + SWEEP_EVERY_SECONDS;
        let (now, keep) = (self.now_seconds, self.keep_for_seconds);
        self.forget(|stream| now.saturating_sub(stream.seen_seconds) > keep);
    }

    /// A point without value passes and ends its series.
    pub fn end(&mut self, key: u128, at: Moment) -> Fate {
        if let Some(stream) = self.map.get_mut(&key) {
            if at.time <= stream.time {
                return Fate::OutOfOrder;
            }
            // The end is remembered for a while: what comes after it may have started before it.
            stream.time = at.time;
            stream.last = Last::Ended;
        }
        Fate::Keep { start: at.start }
    }

    /// Turns a cumulative amount into what was added since the last point of its series.
    pub fn delta<A: Amount>(&mut self, key: u128, at: Moment, amount: &mut A) -> Fate {
        let (order, seen_seconds) = (self.next_order(), self.now_seconds);
        let Some(stream) = self.map.get_mut(&key) else {
            let whole = at.start >= self.horizon;
            self.insert(
                key,
                Stream { start: at.start, time: at.time, order, seen_seconds, last: amount.clone().remember() },
            );
            return if whole { Fate::Keep { start: at.start } } else { Fate::First };
        };
        if at.time <= stream.time {
            return Fate::OutOfOrder;
        }
        let previous = std::mem::replace(&mut stream.time, at.time);
        (stream.order, stream.seen_seconds) = (order, seen_seconds);
        // A start time that is not before the last point: a new series under the old name.
        let fresh = at.start != 0 && at.start >= previous;
        let step = match A::recall(&mut stream.last) {
            Some(before) if !fresh => before.difference_to(amount),
            _ => Step::Unrelated,
        };
        match step {
            Step::Grew => {
                if let Some(before) = A::recall(&mut stream.last) {
                    std::mem::swap(before, amount);
                }
                Fate::Keep { start: previous }
            }
            Step::Restarted => {
                stream.last = amount.clone().remember();
                Fate::Keep { start: previous }
            }
            Step::Unrelated => {
                stream.last = amount.clone().remember();
                if fresh { Fate::Keep { start: at.start } } else { Fate::First }
            }
        }
    }

    /// Turns a delta into all that was added since the first point of its series.
    pub fn cumulative<A: Amount>(&mut self, key: u128, at: Moment, amount: &mut A) -> Fate {
        let (order, seen_seconds) = (self.next_order(), self.now_seconds);
        let Some(stream) = self.map.get_mut(&key) else {
            self.insert(
                key,
                Stream { start: at.start, time: at.time, order, seen_seconds, last: amount.clone().remember() },
            );
            return Fate::Keep { start: at.start };
        };
        if at.time <= stream.time {
            return Fate::OutOfOrder;
        }
        let previous = std::mem::replace(&mut stream.time, at.time);
        (stream.order, stream.seen_seconds) = (order, seen_seconds);
        let total = A::recall(&mut stream.last).and_then(|total| total.accumulate(amount).then_some(total));
        if let Some(total) = total {
            *amount = total.clone();
        } else {
            // A new series begins; it must not overlap the old one.
            stream.start = at.start.max(previous);
            stream.last = amount.clone().remember();
        }
        Fate::Keep { start: stream.start }
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn insert(&mut self, key: u128, stream: Stream) {
        if self.map.len() >= self.max_series {
            self.evict();
        }
        self.map.insert(key, stream);
    }

    /// Makes room: the oldest eighth goes at once, so that the search costs little per series.
    fn evict(&mut self) {
        let mut orders: Vec<u64> = self.map.values().map(|stream| stream.order).collect();
        let last = (self.max_series / 8).min(orders.len().saturating_sub(1));
        let (_, &mut newest, _) = orders.select_nth_unstable(last);
        let before = self.map.len();
        // Orders are unique, so at least one goes: the one at `last`, and those before it.
        self.forget(|stream| stream.order <= newest);
        self.evicted += (before - self.map.len()) as u64;
    }

    fn forget(&mut self, which: impl Fn(&Stream) -> bool) {
        let horizon = &mut self.horizon;
        self.map.retain(|_, stream| {
            let forgotten = which(stream);
            if forgotten {
                *horizon = (*horizon).max(stream.time);
            }
            !forgotten
        });
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.map.len()
    }
}
