//! What is remembered from delivery to delivery: counters for their rates, and the last values of a chart.

use std::collections::{HashMap, VecDeque};

/// Series that are remembered; with more of them all are forgotten once, and rates pause for one delivery.
const REMEMBERED_SERIES: usize = 20_000;

/// The last point of every counter.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<String, (u64, f64)>);

impl Rates {
    /// How much a counter grew per second since its last point. `None` for the first point, after a
    /// reset, and where no time passed.
    pub(super) fn per_second(&mut self, key: String, time_unix_nano: u64, value: f64) -> Option<f64> {
        if self.0.len() >= REMEMBERED_SERIES && !self.0.contains_key(&key) {
            self.0.clear();
        }
        let (before, last) = self.0.insert(key, (time_unix_nano, value))?;
        let nanoseconds = time_unix_nano.checked_sub(before).filter(|passed| *passed > 0)?;
        let seconds = std::time::Duration::from_nanos(nanoseconds).as_secs_f64();
        (value >= last).then(|| (value - last) / seconds)
    }
}

/// Machines whose last values are remembered; with more of them all are forgotten once.
const REMEMBERED_MACHINES: usize = 1000;

/// The last values of every machine.
#[derive(Debug, Default)]
pub(super) struct History(HashMap<String, VecDeque<f64>>);

impl History {
    /// The last `most` values of a machine, this one included, the oldest first.
    pub(super) fn with(&mut self, machine: &str, value: Option<f64>, most: usize) -> Vec<f64> {
        if self.0.len() >= REMEMBERED_MACHINES && !self.0.contains_key(machine) {
            self.0.clear();
        }
        let values = self.0.entry(machine.to_owned()).or_default();
        values.extend(value);
        while values.len() > most {
            values.pop_front();
        }
        values.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_points_and_survives_a_reset() {
        let mut rates = Rates::default();
        let mut at = |seconds: u64, value| rates.per_second("a".into(), seconds * 1_000_000_000, value);
        assert_eq!(at(10, 100.0), None);
        assert_eq!(at(20, 150.0), Some(5.0));
        assert_eq!(at(20, 150.0), None, "no time passed");
        assert_eq!(at(30, 3.0), None, "the counter began anew");
        assert_eq!(at(40, 13.0), Some(1.0));
    }

    #[test]
    fn the_number_of_remembered_series_is_bounded() {
        let mut rates = Rates::default();
        for at in 0..REMEMBERED_SERIES * 2 + 5 {
            rates.per_second(at.to_string(), 1, 0.0);
        }
        assert!(rates.0.len() <= REMEMBERED_SERIES);
    }

    #[test]
    fn a_chart_has_the_last_values_of_its_own_machine() {
        let mut history = History::default();
        assert_eq!(history.with("a", None, 2), Vec::<f64>::new());
        history.with("a", Some(0.1), 2);
        history.with("a", Some(0.2), 2);
        assert_eq!(history.with("a", Some(0.3), 2), [0.2, 0.3]);
        assert_eq!(history.with("b", Some(0.9), 2), [0.9]);
        for machine in 0..REMEMBERED_MACHINES * 2 + 5 {
            history.with(&machine.to_string(), Some(0.0), 2);
        }
        assert!(history.0.len() <= REMEMBERED_MACHINES);
    }
}
