//! Exponential histograms as Prometheus' native histograms.

use weir_model::metrics::{Buckets, ExponentialPoint};

/// The finest resolution that Prometheus knows; finer histograms are merged into it.
const FINEST_SCHEMA: i32 = 8;
/// The coarsest one; coarser histograms cannot be sent.
const COARSEST_SCHEMA: i32 = -4;
/// What Prometheus takes for the width of the zero bucket where nobody said one.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;
/// Runs of empty buckets up to this length cost less as buckets than as a new span.
const LONGEST_INNER_GAP: i64 = 2;

/// A native histogram with whole counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NativeHistogram {
    pub count: u64,
    pub sum: f64,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: u64,
    pub negative: Side,
    pub positive: Side,
}

/// Buckets of one sign.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Side {
    /// Gap to the span before (the first: to index 0), and length.
    pub spans: Vec<(i64, u64)>,
    /// Difference of each count to the one before.
    pub deltas: Vec<i64>,
}

/// The native form of a point.
///
/// # Errors
/// Why Prometheus has none.
pub(super) fn native(point: &ExponentialPoint) -> Result<NativeHistogram, &'static str> {
    let Some(sum) = point.distribution.sum else {
        return Err("an exponential histogram without a sum has no form in Prometheus");
    };
    if point.scale < COARSEST_SCHEMA {
        return Err("an exponential histogram with a scale below -4 has no form in Prometheus");
    }
    let schema = point.scale.min(FINEST_SCHEMA);
    // Each step down merges two buckets into one.
    let steps = u32::try_from(point.scale - schema).unwrap_or(0);
    let side = |buckets: &Option<Buckets>| buckets.as_ref().map(|own| merged(own, steps)).unwrap_or_default();
    let zero_threshold = if point.zero_threshold > 0.0 { point.zero_threshold } else { DEFAULT_ZERO_THRESHOLD };
    Ok(NativeHistogram {
        count: point.distribution.count,
        sum,
        schema,
        zero_threshold,
        zero_count: point.zero_count,
        negative: side(&point.negative),
        positive: side(&point.positive),
    })
}

/// Buckets of half the resolution `steps` times, as spans and deltas. OpenTelemetry's bucket `i` is
/// `(base^i, base^(i+1)]`, Prometheus' bucket `i` is `(base^(i-1), base^i]`.
fn merged(buckets: &Buckets, steps: u32) -> Side {
    let mut side = Side::default();
    let mut last: Option<(i64, i64)> = None;
    let mut at = 0;
    while at < buckets.counts.len() {
        let place = |at: usize| (i64::from(buckets.offset) + at as i64) >> steps.min(63);
        let own = place(at);
        let mut count = 0_u64;
        while at < buckets.counts.len() && place(at) == own {
            count = count.saturating_add(buckets.counts.get(at).copied().unwrap_or(0));
            at += 1;
        }
        if count > 0 {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            side.push(own + 1, count, &mut last);
        }
    }
    side
}

impl Side {
    /// Adds the bucket with this index; `last` is the index and count before it.
    fn push(&mut self, index: i64, count: i64, last: &mut Option<(i64, i64)>) {
        let gap = last.map_or(index, |(before, _)| index - before - 1);
        match (self.spans.last_mut(), *last) {
            (Some(span), Some((before, count_before))) if gap <= LONGEST_INNER_GAP => {
                let mut previous = count_before;
                for _ in before + 1..index {
                    self.deltas.push(-previous);
                    previous = 0;
                    span.1 += 1;
                }
                span.1 += 1;
                self.deltas.push(count - previous);
            }
            (_, before) => {
                self.spans.push((gap, 1));
                self.deltas.push(count - before.map_or(0, |(_, count)| count));
            }
        }
        *last = Some((index, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::metrics::Distribution;

    fn point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialPoint {
        ExponentialPoint {
            distribution: Distribution { count: counts.iter().sum(), sum: Some(1.0), ..Distribution::default() },
            scale,
            positive: Some(Buckets { offset, counts: counts.to_vec() }),
            ..ExponentialPoint::default()
        }
    }

    /// Index and count of every bucket that is not empty.
    fn unfold(side: &Side) -> Vec<(i64, i64)> {
        let (mut index, mut count, mut deltas, mut all) = (0, 0, side.deltas.iter(), Vec::new());
        for (gap, length) in &side.spans {
            index += gap;
            for _ in 0..*length {
                count += deltas.next().expect("a delta per bucket");
                if count != 0 {
                    all.push((index, count));
                }
                index += 1;
            }
        }
        assert!(deltas.next().is_none());
        all
    }

    #[test]
    fn indices_move_up_by_one_and_long_gaps_start_a_new_span() {
        let native = native(&point(3, -2, &[4, 0, 1, 0, 0, 0, 2, 2])).unwrap();
        assert_eq!(native.schema, 3);
        assert_eq!(unfold(&native.positive), [(-1, 4), (1, 1), (5, 2), (6, 2)]);
        assert_eq!(native.positive.spans, [(-1, 3), (3, 2)]);
        assert_eq!(native.zero_threshold, 1e-128);
    }

    #[test]
    fn resolutions_beyond_prometheus_are_merged_and_too_coarse_ones_refused() {
        let merged = native(&point(10, -3, &[1, 2, 3, 4, 5])).unwrap();
        // Indices -3..=1 in quarters: -1, -1, -1, 0, 0.
        assert_eq!((merged.schema, unfold(&merged.positive)), (8, vec![(0, 6), (1, 9)]));
        assert!(native(&point(-5, 0, &[1])).is_err());
        let mut without_sum = point(0, 0, &[1]);
        without_sum.distribution.sum = None;
        assert!(native(&without_sum).is_err());
    }
}
