//! What a point counts: a number or a histogram, subtracted and added.

use weir_model::metrics::{ExponentialPoint, HistogramPoint, Number};

use super::exponential;

/// The amount of the last point of a series. Histograms are boxed: most series are numbers.
#[derive(Debug)]
pub(super) enum Last {
    Number(Number),
    Histogram(Box<HistogramPoint>),
    Exponential(Box<ExponentialPoint>),
    /// The series ended; only the time is remembered.
    Ended,
}

/// How a cumulative amount relates to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It grew, or stayed.
    Grew,
    /// It fell: the counting started again.
    Restarted,
    /// The two cannot be compared (other bounds).
    Unrelated,
}

/// An amount that can be subtracted and added.
pub(super) trait Amount: Clone {
    /// Turns `self`, the amount at the last point, into what was added up to `now`. It stays as it
    /// is unless the answer is [`Step::Grew`].
    fn difference_to(&mut self, now: &Self) -> Step;

    /// Adds a delta; `false`, and unchanged, where the two do not fit.
    fn accumulate(&mut self, delta: &Self) -> bool;

    fn remember(self) -> Last;

    fn recall(last: &mut Last) -> Option<&mut Self>;
}

impl Amount for Number {
    fn difference_to(&mut self, now: &Self) -> Step {
        let difference = match (*now, *self) {
            (Number::Int(now), Number::Int(before)) if now < before => return Step::Restarted,
            (Number::Int(now), Number::Int(before)) => now.checked_sub(before).map(Number::Int),
            _ => None,
        };
        let (Some(after), Some(before)) = (now.as_f64(), self.as_f64()) else { return Step::Unrelated };
        if after < before {
            return Step::Restarted;
        }
        // An integer that does not fit goes on as a double.
        *self = difference.unwrap_or(Number::Double(after - before));
        Step::Grew
    }

    fn accumulate(&mut self, delta: &Self) -> bool {
        let sum = match (*self, *delta) {
            (Number::Int(total), Number::Int(delta)) => total.checked_add(delta).map(Number::Int),
            _ => None,
        };
        let (Some(total), Some(delta)) = (self.as_f64(), delta.as_f64()) else { return false };
        *self = sum.unwrap_or(Number::Double(total + delta));
        true
    }

    fn remember(self) -> Last {
        Last::Number(self)
    }

    fn recall(last: &mut Last) -> Option<&mut Self> {
        match last {
            Last::Number(number) => Some(number),
            _ => None,
        }
    }
}

impl Amount for HistogramPoint {
    fn difference_to(&mut self, now: &Self) -> Step {
        if now.distribution.count < self.distribution.count {
            return Step::Restarted;
        }
        if !same_buckets(self, now) {
            return Step::Unrelated;
        }
        if now.bucket_counts.iter().zip(&self.bucket_counts).any(|(now, before)| now < before) {
            return Step::Restarted;
        }
        for (before, now) in self.bucket_counts.iter_mut().zip(&now.bucket_counts) {
            *before = now - *before;
        }
        self.distribution.count = now.distribution.count - self.distribution.count;
        self.distribution.sum = difference(now.distribution.sum, self.distribution.sum);
        Step::Grew
    }

    fn accumulate(&mut self, delta: &Self) -> bool {
        if !same_buckets(self, delta) {
            return false;
        }
        for (total, delta) in self.bucket_counts.iter_mut().zip(&delta.bucket_counts) {
            *total = total.saturating_add(*delta);
        }
        add_distribution(&mut self.distribution, &delta.distribution);
        true
    }

    fn remember(self) -> Last {
        Last::Histogram(Box::new(self))
    }

    fn recall(last: &mut Last) -> Option<&mut Self> {
        match last {
            Last::Histogram(point) => Some(point),
            _ => None,
        }
    }
}

fn same_buckets(a: &HistogramPoint, b: &HistogramPoint) -> bool {
    a.bucket_counts.len() == b.bucket_counts.len() && a.explicit_bounds == b.explicit_bounds
}

/// A sum is known only where both are.
pub(super) fn difference(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    Some(now? - before?)
}

/// Adds count, sum, min and max. What one of the two does not know is not known of both.
pub(super) fn add_distribution(
    total: &mut weir_model::metrics::Distribution,
    delta: &weir_model::metrics::Distribution,
) {
    // An interval without values has no smallest and no largest one.
    let extreme = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(pick(a, b)),
        (a, None) if delta.count == 0 => a,
        (None, b) if total.count == 0 => b,
        _ => None,
    };
    let (min, max) = (extreme(total.min, delta.min, f64::min), extreme(total.max, delta.max, f64::max));
    (total.min, total.max) = (min, max);
    total.sum = total.sum.zip(delta.sum).map(|(a, b)| a + b);
    total.count = total.count.saturating_add(delta.count);
}

impl Amount for ExponentialPoint {
    fn difference_to(&mut self, now: &Self) -> Step {
        if now.distribution.count < self.distribution.count || now.zero_count < self.zero_count {
            return Step::Restarted;
        }
        if now.zero_threshold != self.zero_threshold {
            return Step::Unrelated;
        }
        let scale = now.scale.min(self.scale);
        let at = |buckets, from| exponential::downscale(buckets, from, scale);
        let positive = exponential::subtract(at(&now.positive, now.scale), at(&self.positive, self.scale));
        let negative = exponential::subtract(at(&now.negative, now.scale), at(&self.negative, self.scale));
        let (Some(positive), Some(negative)) = (positive, negative) else { return Step::Restarted };
        self.scale = scale;
        self.positive = positive;
        self.negative = negative;
        self.zero_count = now.zero_count - self.zero_count;
        self.distribution.count = now.distribution.count - self.distribution.count;
        self.distribution.sum = difference(now.distribution.sum, self.distribution.sum);
        Step::Grew
    }

    fn accumulate(&mut self, delta: &Self) -> bool {
        if delta.zero_threshold != self.zero_threshold {
            return false;
        }
        let Some(scale) = exponential::fitting_scale(self, delta) else { return false };
        let at = |buckets, from| exponential::downscale(buckets, from, scale);
        let positive = exponential::add(at(&self.positive, self.scale), at(&delta.positive, delta.scale));
        let negative = exponential::add(at(&self.negative, self.scale), at(&delta.negative, delta.scale));
        self.scale = scale;
        self.positive = positive;
        self.negative = negative;
        self.zero_count = self.zero_count.saturating_add(delta.zero_count);
        add_distribution(&mut self.distribution, &delta.distribution);
        true
    }

    fn remember(self) -> Last {
        Last::Exponential(Box::new(self))
    }

    fn recall(last: &mut Last) -> Option<&mut Self> {
        match last {
            Last::Exponential(point) => Some(point),
            _ => None,
        }
    }
}
