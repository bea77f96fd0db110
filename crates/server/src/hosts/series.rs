//! From samples to the lines of a chart: one value per step, with the band between the smallest and
//! the largest that it stands for, and gaps where there was nothing.

use super::counter::increase;

/// Most steps of a line.
pub const MOST_STEPS: usize = 3000;

/// The steps of a chart: each covers its start up to the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    first_ms: i64,
    step_ms: i64,
    count: usize,
}

impl Steps {
    /// The steps that cover a time. They start at multiples of the step since 1970, so that a chart
    /// that moves along keeps its values. `None` if the time is empty, the step below 1, or if there
    /// are more than [`MOST_STEPS`].
    pub fn new(from_ms: i64, to_ms: i64, step_ms: i64) -> Option<Steps> {
        if step_ms < 1 || from_ms >= to_ms {
            return None;
        }
        let first_ms = from_ms.div_euclid(step_ms).checked_mul(step_ms)?;
        let span_ms = to_ms.checked_sub(first_ms)?;
        let count = span_ms.checked_add(step_ms - 1)?.checked_div(step_ms)?;
        let count = usize::try_from(count).ok().filter(|&count| count <= MOST_STEPS)?;
        Some(Steps { first_ms, step_ms, count })
    }

    /// How many.
    pub fn len(self) -> usize {
        self.count
    }

    /// Whether there are none; [`Steps::new`] makes no such.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The starts, unix milliseconds.
    pub fn times_ms(self) -> Vec<i64> {
        (0..self.count).map(|at| self.time_ms(at)).collect()
    }

    /// The time from which samples are needed: rates need the sample before the first step, too.
    pub fn needs_from_ms(self, rate: bool) -> i64 {
        let before = if rate { self.step_ms.max(RATE_LOOKS_BACK_MS) } else { 0 };
        self.first_ms.saturating_sub(before)
    }

    /// The time up to which samples are needed, exclusive.
    pub fn needs_to_ms(self) -> i64 {
        self.time_ms(self.count)
    }

    fn time_ms(self, at: usize) -> i64 {
        // At most MOST_STEPS.
        self.first_ms.saturating_add(self.step_ms.saturating_mul(i64::try_from(at).unwrap_or(i64::MAX)))
    }

    fn at(self, time_ms: i64) -> Option<usize> {
        let at = time_ms.checked_sub(self.first_ms)?.div_euclid(self.step_ms);
        usize::try_from(at).ok().filter(|&at| at < self.count)
    }
}

/// How far before the first step the sample is searched that the first rate starts from: five
/// minutes, as Prometheus looks back.
const RATE_LOOKS_BACK_MS: i64 = 300_000;

/// One value of a line: the mean over the step, and between what it lay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Mean of the samples.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// What is added up within one step.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    sum: f64,
    weight: f64,
    min: f64,
    max: f64,
}

impl Bucket {
    const EMPTY: Bucket = Bucket { sum: 0.0, weight: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn band(self) -> Option<Band> {
        (self.weight > 0.0).then(|| Band { mean: self.sum / self.weight, min: self.min, max: self.max })
    }
}

/// The line of one series: a [`Band`] per step, `None` where it has no sample.
///
/// Samples are sorted by time. NaN ends the series (OpenTelemetry and Prometheus mark it so) until
/// the next number. With `rate` the series is a counter, and the line is what it grew by per second.
///
/// A step without a sample that lies between two samples at their usual distance is no gap: it
/// repeats the earlier one. So polls that jitter, or are rarer than the steps, draw no false gaps.
pub fn line(steps: Steps, rate: bool, samples: &[(i64, f64)]) -> Vec<Option<Band>> {
    let mut buckets = vec![Bucket::EMPTY; steps.count];
    let mut before: Option<(i64, f64)> = None;
    for &(time_ms, value) in samples {
        let last = before.replace((time_ms, value));
        if !value.is_finite() {
            before = None;
            continue;
        }
        let (value, weight) = match (rate, last) {
            (false, _) => (value, 1.0),
            (true, Some((last_ms, last))) if time_ms > last_ms => {
                // Distances of samples are far below 2^53 ms.
                let seconds = (time_ms - last_ms) as f64 / 1000.0;
                (increase(last, value) / seconds, seconds)
            }
            (true, _) => continue,
        };
        if let Some(bucket) = steps.at(time_ms).and_then(|at| buckets.get_mut(at)) {
            bucket.add(value, weight);
        }
    }
    let mut line: Vec<Option<Band>> = buckets.into_iter().map(Bucket::band).collect();
    if let Some(usual_ms) = usual_distance_ms(samples) {
        bridge(steps, samples, usual_ms.saturating_mul(3) / 2, &mut line);
    }
    line
}

/// The median of the distances between samples, the lower one of two; `None` below two distances.
fn usual_distance_ms(samples: &[(i64, f64)]) -> Option<i64> {
    let pairs = samples.iter().zip(samples.iter().skip(1));
    let mut distances: Vec<i64> = pairs.map(|(one, next)| next.0.saturating_sub(one.0)).collect();
    if distances.len() < 2 {
        return None;
    }
    let middle = (distances.len() - 1) / 2;
    Some(*distances.select_nth_unstable(middle).1)
}

/// Fills steps between samples that are at most `longest_ms` apart, and after the last one.
fn bridge(steps: Steps, samples: &[(i64, f64)], longest_ms: i64, line: &mut [Option<Band>]) {
    let ends = samples.iter().skip(1).map(|sample| Some(sample.0)).chain([None]);
    for (&(time_ms, value), next_ms) in samples.iter().zip(ends) {
        let until_ms = match next_ms {
            Some(next_ms) if next_ms.saturating_sub(time_ms) > longest_ms => continue,
            Some(next_ms) => next_ms,
            None => time_ms.saturating_add(longest_ms),
        };
        // What comes before the first step says what the line starts with.
        let at = steps.at(time_ms.max(steps.first_ms)).filter(|_| value.is_finite() && until_ms > steps.first_ms);
        let Some(at) = at else { continue };
        let Some(held) = line.get(at).copied().flatten() else { continue };
        let held = Band { min: held.mean, max: held.mean, ..held };
        let empty = (at + 1..steps.count).take_while(|&later| steps.time_ms(later) < until_ms);
        for later in empty {
            if let Some(place) = line.get_mut(later).filter(|place| place.is_none()) {
                *place = Some(held);
            }
        }
    }
}

/// How the lines of several series become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// Their mean.
    #[default]
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Aggregate {
    /// The aggregate by its word in queries.
    pub fn of_name(name: &str) -> Option<Aggregate> {
        Some(match name {
            "sum" => Aggregate::Sum,
            "avg" => Aggregate::Mean,
            "max" => Aggregate::Max,
            "min" => Aggregate::Min,
            _ => return None,
        })
    }

    fn fold(self, one: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum | Aggregate::Mean => one + other,
            Aggregate::Max => one.max(other),
            Aggregate::Min => one.min(other),
        }
    }
}

/// Several lines that become one; the band's ends are aggregated as its mean is.
#[derive(Clone, Debug)]
pub struct Combined {
    aggregate: Aggregate,
    values: Vec<Option<(Band, f64)>>,
}

impl Combined {
    /// No line yet.
    pub fn new(aggregate: Aggregate, steps: Steps) -> Combined {
        Combined { aggregate, values: vec![None; steps.count] }
    }

    /// Adds the line of a series. Where a series has a gap, the others alone count.
    pub fn add(&mut self, line: &[Option<Band>]) {
        let fold = |one, other| self.aggregate.fold(one, other);
        for (place, band) in self.values.iter_mut().zip(line) {
            let Some(band) = band else { continue };
            *place = Some(match place.take() {
                None => (*band, 1.0),
                Some((sum, count)) => {
                    let mean = fold(sum.mean, band.mean);
                    (Band { mean, min: fold(sum.min, band.min), max: fold(sum.max, band.max) }, count + 1.0)
                }
            });
        }
    }

    /// The line.
    pub fn line(self) -> impl Iterator<Item = Option<Band>> {
        let mean = self.aggregate == Aggregate::Mean;
        self.values.into_iter().map(move |value| {
            let (band, count) = value?;
            let divisor = if mean { count } else { 1.0 };
            Some(Band { mean: band.mean / divisor, min: band.min / divisor, max: band.max / divisor })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(from_ms: i64, to_ms: i64, step_ms: i64) -> Steps {
        Steps::new(from_ms, to_ms, step_ms).unwrap()
    }

    fn means(line: &[Option<Band>]) -> Vec<Option<f64>> {
        line.iter().map(|band| band.map(|band| band.mean)).collect()
    }

    #[test]
    fn steps_start_at_multiples_of_the_step_and_cover_the_whole_time() {
        assert_eq!(steps(12_345, 40_000, 10_000).times_ms(), [10_000, 20_000, 30_000]);
        assert_eq!(steps(12_345, 40_001, 10_000).times_ms(), [10_000, 20_000, 30_000, 40_000]);
        assert_eq!(steps(-5, 5, 10).times_ms(), [-10, 0]);
        assert_eq!(steps(0, 3_000_000, 1000).len(), 3000);
        for (from, to, step) in [(0, 3_000_001, 1000), (5, 5, 1), (6, 5, 1), (0, 5, 0), (0, 5, -1)] {
            assert_eq!(Steps::new(from, to, step), None, "{from} {to} {step}");
        }
        for (from, to, step) in [(i64::MIN, i64::MAX, 1), (i64::MIN, 0, i64::MAX), (i64::MIN, i64::MAX, i64::MAX)] {
            assert_eq!(Steps::new(from, to, step).filter(|steps| steps.len() > 4), None, "no overflow");
        }
    }

    #[test]
    fn a_step_is_the_mean_of_its_samples_with_their_band() {
        let line = line(steps(0, 60_000, 30_000), false, &[(0, 1.0), (10_000, 2.0), (20_000, 6.0), (30_000, 4.0)]);
        assert_eq!(line[0], Some(Band { mean: 3.0, min: 1.0, max: 6.0 }));
        assert_eq!(line[1].map(|band| band.mean), Some(4.0));
    }

    #[test]
    fn missed_polls_are_a_gap() {
        let samples = [(0, 1.0), (10_000, 1.0), (20_000, 1.0), (50_000, 2.0), (60_000, 2.0)];
        let line = line(steps(0, 70_000, 10_000), false, &samples);
        assert_eq!(means(&line), [Some(1.0), Some(1.0), Some(1.0), None, None, Some(2.0), Some(2.0)]);
    }

    #[test]
    fn a_single_sample_is_one_point_and_no_line() {
        assert_eq!(means(&line(steps(0, 40_000, 10_000), false, &[(15_000, 7.0)])), [None, Some(7.0), None, None]);
    }

    #[test]
    fn polls_that_jitter_over_the_bounds_of_steps_draw_no_false_gap() {
        // Every 10 s, but the third comes a little late, so that [20, 30) s has none.
        let samples = [(0, 1.0), (10_000, 2.0), (30_001, 3.0), (39_000, 4.0), (49_000, 5.0), (20_000, 0.0)];
        let mut samples = samples[..5].to_vec();
        samples[2].0 = 20_000 + 4_999;
        let finer = line(steps(0, 50_000, 5_000), false, &samples);
        assert_eq!(means(&finer)[2..5], [Some(2.0), Some(2.0), Some(3.0)]);
        assert!(finer.iter().all(Option::is_some), "{finer:?}");
    }

    #[test]
    fn polls_rarer_than_steps_hold_their_value_and_do_so_after_the_last_for_one_and_a_half_intervals() {
        let samples = [(0, 1.0), (60_000, 2.0), (120_000, 3.0)];
        let line = line(steps(0, 300_000, 30_000), false, &samples);
        let wanted = [Some(1.0), Some(1.0), Some(2.0), Some(2.0), Some(3.0), Some(3.0), Some(3.0), None, None, None];
        assert_eq!(means(&line), wanted);
    }

    #[test]
    fn a_staleness_marker_ends_the_line_at_once() {
        let samples = [(0, 1.0), (10_000, 1.0), (20_000, 1.0), (30_000, f64::NAN)];
        let line = line(steps(0, 60_000, 10_000), false, &samples);
        assert_eq!(means(&line), [Some(1.0), Some(1.0), Some(1.0), None, None, None]);
    }

    #[test]
    fn rates_are_per_second_and_survive_resets() {
        let samples = [(-10_000, 900.0), (0, 1000.0), (10_000, 1200.0), (20_000, 50.0), (30_000, 150.0)];
        let line = line(steps(0, 40_000, 10_000), true, &samples);
        assert_eq!(means(&line), [Some(10.0), Some(20.0), Some(5.0), Some(10.0)]);
    }

    #[test]
    fn a_rate_does_not_reach_over_a_staleness_marker() {
        let samples = [(0, 0.0), (10_000, 100.0), (20_000, f64::NAN), (30_000, 300.0), (40_000, 400.0)];
        let line = line(steps(0, 50_000, 10_000), true, &samples);
        assert_eq!(means(&line), [None, Some(10.0), None, None, Some(10.0)]);
    }

    #[test]
    fn a_rate_over_several_samples_is_what_was_counted_by_the_time_it_took() {
        let samples = [(0, 0.0), (10_000, 100.0), (20_000, 400.0), (30_000, 400.0)];
        let line = line(steps(1, 40_000, 40_000), true, &samples);
        assert_eq!(line[0], Some(Band { mean: 400.0 / 30.0, min: 0.0, max: 30.0 }));
    }

    #[test]
    fn several_series_become_one_line() {
        let band = |mean: f64| Some(Band { mean, min: mean - 1.0, max: mean + 2.0 });
        let both = [[band(1.0), None, None], [band(3.0), band(5.0), None]];
        for (aggregate, first, second) in [
            (Aggregate::Sum, (4.0, 2.0, 8.0), 5.0),
            (Aggregate::Mean, (2.0, 1.0, 4.0), 5.0),
            (Aggregate::Max, (3.0, 2.0, 5.0), 5.0),
            (Aggregate::Min, (1.0, 0.0, 3.0), 5.0),
        ] {
            let mut combined = Combined::new(aggregate, steps(0, 3, 1));
            both.iter().for_each(|line| combined.add(line));
            let line: Vec<_> = combined.line().collect();
            let (mean, min, max) = first;
            assert_eq!(line[0], Some(Band { mean, min, max }), "{aggregate:?}");
            assert_eq!(line[1].map(|band| band.mean), Some(second));
            assert_eq!(line[2], None);
        }
    }
}
