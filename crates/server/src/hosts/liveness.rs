//! When a host's data came, how often it comes, and what that says about the host.

use super::row::Status;

/// Longest time from `last seen` at which a host with an unknown interval still counts as on time,
/// as if it sent every minute: the slowest default of the clients that Weir knows.
const UNKNOWN_INTERVAL_MS: i64 = 60_000;

/// A host is not down before this, however short its interval is.
const LATE_AT_LEAST_MS: i64 = 15_000;

/// Data that was measured at most this long ago says that the host reports now. Older data is
/// back-filled: it says nothing about the present.
const LIVE_WITHIN_MS: i64 = 300_000;

/// How many distances between samples the interval is the median of.
const DISTANCES: usize = 5;

/// The usual distance between samples: the median of the last few, so that neither a missed poll
/// nor an outage changes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    last_ms: Option<i64>,
    distances_ms: [i64; DISTANCES],
    known: usize,
    next: usize,
}

impl Interval {
    /// Takes note of a sample; those that are not newer than the newest are ignored.
    pub fn saw(&mut self, time_ms: i64) {
        let Some(last) = self.last_ms.replace(time_ms) else { return };
        if time_ms <= last {
            self.last_ms = Some(last);
            return;
        }
        if let Some(slot) = self.distances_ms.get_mut(self.next) {
            *slot = time_ms.saturating_sub(last);
        }
        self.next = (self.next + 1) % DISTANCES;
        self.known = (self.known + 1).min(DISTANCES);
    }

    /// The interval, milliseconds; `None` before there are two distances.
    pub fn get(&self) -> Option<i64> {
        let mut known = self.distances_ms;
        let known = known.get_mut(..self.known)?;
        known.sort_unstable();
        // The lower one of two middles: an outage among few distances must not count.
        (known.len() >= 2).then(|| known.get((known.len() - 1) / 2).copied()).flatten()
    }
}

/// A time without data, unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last data before it came.
    pub from_ms: i64,
    /// When data came again.
    pub to_ms: i64,
}

/// When a host's data came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Liveness {
    /// When live data arrived last.
    arrived_ms: Option<i64>,
    /// Since when it arrives without a gap.
    up_since_ms: Option<i64>,
    /// The newest sample, live or not.
    newest_ms: Option<i64>,
    /// What the agent says about its interval.
    announced_interval_ms: Option<i64>,
    learnt: Interval,
    /// The usual distance between arrivals: longer than the interval where a sender sends many polls at once.
    arrivals: Interval,
}

impl Liveness {
    /// Takes note of data whose newest sample is of `time_ms` and arrived at `now_ms`. `reference`
    /// says that it is of the series that the interval is learnt from. Answers the gap that ended.
    pub fn saw(&mut self, time_ms: i64, now_ms: i64, reference: bool) -> Option<Gap> {
        let time_ms = time_ms.min(now_ms);
        if reference {
            self.learnt.saw(time_ms);
        }
        self.newest_ms = self.newest_ms.max(Some(time_ms));
        if time_ms < now_ms.saturating_sub(LIVE_WITHIN_MS) {
            return None;
        }
        let before = self.arrived_ms;
        let gap = before.filter(|last| now_ms.saturating_sub(*last) > self.late_after_ms());
        self.arrived_ms = before.max(Some(now_ms));
        self.arrivals.saw(now_ms);
        if before.is_none() || gap.is_some() {
            self.up_since_ms = Some(now_ms);
        }
        gap.map(|from_ms| Gap { from_ms, to_ms: now_ms })
    }

    /// Forgets the learnt interval, because another series becomes the reference.
    pub fn learn_anew(&mut self) {
        self.learnt = Interval::default();
    }

    /// What the agent says about its interval, milliseconds. What its data shows counts more.
    pub fn announce(&mut self, interval_ms: Option<i64>) {
        self.announced_interval_ms = interval_ms.filter(|&ms| ms > 0);
    }

    /// When data came last: the arrival of live data, else the time of the newest old sample.
    pub fn last_seen_ms(&self) -> Option<i64> {
        self.arrived_ms.or(self.newest_ms)
    }

    /// The time of the newest sample.
    pub fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// The interval, learnt or announced, milliseconds.
    pub fn interval_ms(&self) -> Option<i64> {
        self.learnt.get().or(self.announced_interval_ms)
    }

    /// The time within which data is expected: the interval, or what lies between arrivals. Until that
    /// is known, what the agent says, else a minute: one arrival may have brought many polls. What the
    /// agent says is the least: when it joins or starts anew, its first polls follow each other closely.
    fn expected_ms(&self) -> i64 {
        let between = self.arrivals.get().or(self.announced_interval_ms).unwrap_or(UNKNOWN_INTERVAL_MS);
        let expected = self.interval_ms().map_or(between, |interval| interval.max(between));
        expected.max(self.announced_interval_ms.unwrap_or_default())
    }

    /// Older than this is late: 2.5 intervals.
    fn late_after_ms(&self) -> i64 {
        self.expected_ms().saturating_mul(5) / 2
    }

    /// Older than this is down: 5 intervals, at least 15 s.
    fn down_after_ms(&self) -> i64 {
        self.expected_ms().saturating_mul(5).max(LATE_AT_LEAST_MS)
    }

    /// The status, and since when it is.
    pub fn status(&self, now_ms: i64) -> (Status, Option<i64>) {
        let Some(seen) = self.last_seen_ms() else { return (Status::Unknown, None) };
        let age = now_ms.saturating_sub(seen);
        if age <= self.late_after_ms() {
            (Status::Up, self.up_since_ms.or(Some(seen)))
        } else if age <= self.down_after_ms() {
            (Status::Late, Some(seen.saturating_add(self.late_after_ms())))
        } else {
            (Status::Down, Some(seen.saturating_add(self.down_after_ms())))
        }
    }

    /// When the status changes next if no data comes, unix milliseconds.
    pub fn changes_at_ms(&self, now_ms: i64) -> Option<i64> {
        let seen = self.last_seen_ms()?;
        let (late, down) = (self.late_after_ms(), self.down_after_ms());
        match self.status(now_ms).0 {
            Status::Up => Some(seen.saturating_add(late).saturating_add(1)),
            Status::Late => Some(seen.saturating_add(down).saturating_add(1)),
            Status::Down | Status::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that sent every 10 s up to `last_ms`.
    fn every_ten_seconds(last_ms: i64) -> Liveness {
        let mut host = Liveness::default();
        for at in (0..6).rev() {
            let time = last_ms - at * 10_000;
            assert_eq!(host.saw(time, time, true), None);
        }
        host
    }

    #[test]
    fn a_host_changes_status_exactly_after_two_and_a_half_and_five_intervals() {
        let host = every_ten_seconds(1_000_000);
        assert_eq!(host.interval_ms(), Some(10_000));
        assert_eq!(host.status(1_025_000), (Status::Up, Some(950_000)));
        assert_eq!(host.changes_at_ms(1_025_000), Some(1_025_001));
        assert_eq!(host.status(1_025_001), (Status::Late, Some(1_025_000)));
        assert_eq!(host.status(1_050_000), (Status::Late, Some(1_025_000)));
        assert_eq!(host.changes_at_ms(1_030_000), Some(1_050_001));
        assert_eq!(host.status(1_050_001), (Status::Down, Some(1_050_000)));
        assert_eq!(host.changes_at_ms(1_050_001), None);
    }

    #[test]
    fn a_host_with_a_short_interval_is_not_down_before_15_seconds() {
        let mut host = Liveness::default();
        for time in [0, 1_000, 2_000, 3_000] {
            host.saw(time, time, true);
        }
        assert_eq!(host.status(5_500).0, Status::Up);
        assert_eq!(host.status(5_501).0, Status::Late);
        assert_eq!(host.status(18_000).0, Status::Late);
        assert_eq!(host.status(18_001).0, Status::Down);
    }

    #[test]
    fn a_host_that_sends_many_polls_at_once_is_up_between_them() {
        let mut host = Liveness::default();
        for minute in 1..=5 {
            let now = minute * 60_000;
            for back in (0..6).rev() {
                assert_eq!(host.saw(now - back * 10_000, now, true), None, "sending rarely is no gap");
            }
        }
        assert_eq!(host.interval_ms(), Some(10_000));
        assert_eq!(host.status(450_000).0, Status::Up);
        assert_eq!(host.status(450_001).0, Status::Late);
    }

    #[test]
    fn a_host_without_data_is_unknown() {
        assert_eq!(Liveness::default().status(1), (Status::Unknown, None));
    }

    #[test]
    fn the_interval_is_the_usual_one_although_polls_were_missed() {
        let mut interval = Interval::default();
        for time in [0, 15_000, 30_100, 600_000, 615_000, 630_000] {
            interval.saw(time);
        }
        assert_eq!(interval.get(), Some(15_000));
        interval.saw(1_000);
        assert_eq!(interval.get(), Some(15_000), "an old sample says nothing about the interval");
    }

    #[test]
    fn an_agent_whose_first_polls_follow_each_other_closely_has_no_gap_after_them() {
        let mut host = Liveness::default();
        host.announce(Some(10_000));
        // It joins, polls once more at its end, and starts anew as a service, which polls twice.
        for time in [0, 100, 500, 1_500, 11_500, 21_500] {
            assert_eq!(host.saw(time, time, true), None, "at {time}");
            assert_eq!(host.status(time + 10_000).0, Status::Up, "after {time}");
        }
    }

    #[test]
    fn the_announced_interval_counts_until_data_shows_another() {
        let mut host = Liveness::default();
        host.announce(Some(30_000));
        host.saw(0, 0, true);
        assert_eq!(host.interval_ms(), Some(30_000));
        host.saw(5_000, 5_000, true);
        host.saw(10_000, 10_000, true);
        assert_eq!(host.interval_ms(), Some(5_000));
    }

    #[test]
    fn a_gap_is_told_once_and_begins_a_new_up_time() {
        let mut host = every_ten_seconds(1_000_000);
        let gap = Gap { from_ms: 1_000_000, to_ms: 1_100_000 };
        assert_eq!(host.saw(1_100_000, 1_100_000, true), Some(gap));
        assert_eq!(host.saw(1_110_000, 1_110_000, true), None);
        assert_eq!(host.status(1_110_000), (Status::Up, Some(1_100_000)));
    }

    #[test]
    fn data_exactly_two_and_a_half_intervals_later_is_no_gap() {
        let mut host = every_ten_seconds(1_000_000);
        assert_eq!(host.saw(1_025_000, 1_025_000, true), None);
    }

    #[test]
    fn a_buffered_hour_that_arrives_after_an_outage_neither_hides_the_gap_nor_counts_as_live() {
        let mut host = every_ten_seconds(1_000_000);
        let now = 4_600_000;
        assert_eq!(host.saw(1_010_000, now, true), None);
        assert_eq!(host.status(now).0, Status::Down);
        assert_eq!(host.saw(now - 1, now, true), Some(Gap { from_ms: 1_000_000, to_ms: now }));
        assert_eq!(host.status(now), (Status::Up, Some(now)));
    }

    #[test]
    fn imported_history_makes_no_host_up() {
        let mut host = Liveness::default();
        host.saw(1_000, 10_000_000, true);
        assert_eq!(host.last_seen_ms(), Some(1_000));
        assert_eq!(host.status(10_000_000).0, Status::Down);
    }

    #[test]
    fn a_host_whose_clock_is_ahead_is_not_up_for_longer() {
        let mut host = Liveness::default();
        host.saw(9_999_999, 1_000, true);
        assert_eq!(host.last_seen_ms(), Some(1_000));
    }
}
