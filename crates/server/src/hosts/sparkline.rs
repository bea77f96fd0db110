//! The last hour of one value, a mean per minute.

/// Minutes that are kept.
const MINUTES: usize = 60;

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;

/// A ring of one mean per minute.
#[derive(Clone, Debug)]
pub struct Sparkline {
    sums: [f32; MINUTES],
    counts: [u16; MINUTES],
    /// Number of the newest minute since 1970; its slot is the number modulo [`MINUTES`].
    newest: Option<i64>,
}

impl Default for Sparkline {
    fn default() -> Self {
        Self { sums: [0.0; MINUTES], counts: [0; MINUTES], newest: None }
    }
}

/// The slot of a minute.
fn slot(minute: i64) -> usize {
    usize::try_from(minute.rem_euclid(60)).unwrap_or_default()
}

impl Sparkline {
    /// Adds a value; what is more than an hour older than the newest is ignored.
    pub fn add(&mut self, time_ms: i64, value: f64) {
        let minute = time_ms.div_euclid(MINUTE_MS);
        let newest = self.newest.unwrap_or(minute);
        if minute <= newest - 60 {
            return;
        }
        for passed in (newest + 1).max(minute - 59)..=minute {
            self.clear(passed);
        }
        self.newest = Some(newest.max(minute));
        let at = slot(minute);
        if let (Some(sum), Some(count)) = (self.sums.get_mut(at), self.counts.get_mut(at)) {
            // A fraction for a drawing of 60 pixels: single precision is plenty.
            *sum += value as f32;
            *count = count.saturating_add(1);
        }
    }

    fn clear(&mut self, minute: i64) {
        let at = slot(minute);
        if let (Some(sum), Some(count)) = (self.sums.get_mut(at), self.counts.get_mut(at)) {
            (*sum, *count) = (0.0, 0);
        }
    }

    /// The means of the hour that ends with the minute of `now_ms`, oldest first, and the start of
    /// that minute, unix milliseconds.
    pub fn hour(&self, now_ms: i64) -> (Vec<Option<f32>>, i64) {
        let last = now_ms.div_euclid(MINUTE_MS);
        let mean = |minute: i64| {
            let newest = self.newest?;
            if minute > newest || minute <= newest - 60 {
                return None;
            }
            let (sum, count) = (*self.sums.get(slot(minute))?, *self.counts.get(slot(minute))?);
            // Three decimals: what is drawn in 20 pixels needs no more, and answers stay small.
            (count > 0).then(|| (sum / f32::from(count) * 1000.0).round() / 1000.0)
        };
        ((last - 59..=last).map(mean).collect(), last * MINUTE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_the_mean_of_its_values_and_an_empty_one_is_none() {
        let mut line = Sparkline::default();
        line.add(0, 0.2);
        line.add(30_000, 0.4);
        line.add(120_000, 1.0);
        let (hour, end) = line.hour(150_000);
        assert_eq!(end, 120_000);
        assert_eq!(hour.len(), 60);
        assert_eq!(hour[57..], [Some(0.3), None, Some(1.0)]);
        assert!(hour[..57].iter().all(Option::is_none));
    }

    #[test]
    fn an_hour_later_nothing_of_it_is_left() {
        let mut line = Sparkline::default();
        line.add(0, 1.0);
        assert_eq!(line.hour(59 * 60_000).0[0], Some(1.0));
        assert!(line.hour(60 * 60_000).0.iter().all(Option::is_none));
        line.add(60 * 60_000, 0.5);
        assert_eq!(line.hour(60 * 60_000).0.iter().flatten().count(), 1, "the slot is not added to");
    }

    #[test]
    fn older_values_fill_their_own_minute() {
        let mut line = Sparkline::default();
        line.add(600_000, 1.0);
        line.add(60_000, 0.5);
        let (hour, _) = line.hour(600_000);
        assert_eq!((hour[59], hour[50]), (Some(1.0), Some(0.5)));
    }

    #[test]
    fn a_jump_over_many_hours_costs_one_turn_of_the_ring() {
        let mut line = Sparkline::default();
        line.add(0, 1.0);
        line.add(i64::MAX / 2, 0.5);
        assert_eq!(line.hour(i64::MAX / 2).0.iter().flatten().count(), 1);
    }
}
