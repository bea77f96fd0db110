//! Temporality conversion: cumulative points to deltas, and deltas to cumulative points.
//!
//! Some backends add up what they get (they want deltas), others subtract (they want cumulative
//! points). A [`Converter`] stands in front of an exporter and remembers the last point of every
//! series; what a point becomes follows the OpenTelemetry data model ("Sums", "Resets and gaps",
//! "Stream manipulations").
//!
//! Cumulative to delta:
//! - The first point of a series has no delta and is dropped, never passed on raw. It is a true
//!   delta only if its start time is known, and after everything that this converter may have
//!   seen of the series.
//! - A series started again where its start time is not before its last point, or where a value
//!   or count fell: the delta is the new amount. A start time that moved by less (many sources
//!   compute it as "now minus uptime") is no restart.
//! - Non-monotonic cumulative sums pass as they are: exporters of delta backends send them as gauges.
//! - `min` and `max` of a histogram are those since its start, so they are left out.
//!
//! Delta to cumulative:
//! - The start is that of the first delta. A gap does not start a new series, because SDKs send no
//!   delta for an interval without measurements.
//! - A histogram that changes its bounds starts a new series.
//!
//! Both: a point that is not newer than the last one of its series is dropped. A point without
//! value (the "no recorded value" flag, or a sum that is not finite) passes and ends its series.
//! Gauges, summaries, and points of unspecified temporality pass as they are.

mod amount;
mod exponential;
mod plan;
mod streams;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_model::metrics::{
    Data, Distribution, ExponentialPoint, HistogramPoint, Metrics, NO_RECORDED_VALUE, Number, Numbers, Temporality,
};

use amount::Amount;
use plan::{Keys, Plans};
use streams::{Fate, Moment, Streams};

/// How long a series is remembered without a point unless [`Converter::keep_for`] says otherwise.
const KEEP_FOR: Duration = Duration::from_secs(3600);

/// Converts sums and histograms to one temporality. One per exporter; it must see the points of a
/// series in their order.
#[derive(Debug)]
pub struct Converter {
    target: Temporality,
    plans: Plans,
    streams: Streams,
}

/// What came out of [`Converter::convert`].
#[derive(Clone, Debug)]
pub struct Converted {
    /// The points that are left.
    pub metrics: Metrics,
    /// Points that yield nothing: `first_points + out_of_order`.
    pub dropped: u64,
    /// Cumulative points that have no delta, because nothing before them is known.
    pub first_points: u64,
    /// Points that are not newer than the last one of their series.
    pub out_of_order: u64,
    /// Series that were forgotten because there are more than `max_series`. Too small a limit
    /// loses a delta for each.
    pub evicted_series: u64,
}

impl Converter {
    /// A converter to `target` that remembers at most `max_series` series (about 100 bytes each, plus the
    /// buckets of histograms). With [`Temporality::Unspecified`] everything passes as it is.
    pub fn new(target: Temporality, max_series: usize) -> Self {
        // A clock before 1970 reads as 0: then every known start time is one that was seen.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_unix_nano = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let streams = Streams::new(max_series, KEEP_FOR, now_unix_nano, Instant::now());
        Self { target, plans: Plans::default(), streams }
    }

    /// How long a series is remembered after its last point arrived: longer than the longest
    /// interval of any source, else its deltas are lost. Default: 1 h.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.streams.keep_for(time);
        self
    }

    /// Whether there is anything to convert. Cheap: it looks at metrics, not at points.
    pub fn needs(&self, metrics: &Metrics) -> bool {
        metrics.table.metrics.iter().any(|metric| converted(metric.data, self.target).is_some())
    }

    /// Converts what [`Converter::needs`] it; the rest passes as it is. The series table is
    /// converted once for all polls that share it, and not copied where nothing needs it.
    pub fn convert(&mut self, metrics: Metrics) -> Converted {
        self.convert_at(metrics, Instant::now())
    }

    fn convert_at(&mut self, mut metrics: Metrics, now: Instant) -> Converted {
        let mut counts = Counts::default();
        if self.needs(&metrics) {
            self.streams.begin(now);
            let keys = self.plans.apply(&mut metrics.table, self.target);
            let mut pass =
                Pass { target: self.target, keys: &keys, streams: &mut self.streams, dropped: Vec::new(), counts };
            pass.numbers(&mut metrics.numbers);
            pass.histograms(&mut metrics.histograms);
            pass.exponential(&mut metrics.exponential);
            let dropped = pass.dropped;
            counts = pass.counts;
            if counts.first_points + counts.out_of_order > 0 {
                // Summaries come last and are never dropped.
                metrics = metrics.select(|at| !dropped.get(at).copied().unwrap_or(false));
            }
        }
        Converted {
            metrics,
            dropped: counts.first_points + counts.out_of_order,
            first_points: counts.first_points,
            out_of_order: counts.out_of_order,
            evicted_series: self.streams.take_evicted(),
        }
    }
}

/// What a kind becomes on the way to `target`; `None` where it passes as it is.
fn converted(data: Data, target: Temporality) -> Option<Data> {
    let other = match target {
        Temporality::Delta => Temporality::Cumulative,
        Temporality::Cumulative => Temporality::Delta,
        Temporality::Unspecified => return None,
    };
    match data {
        Data::Sum { temporality, monotonic } if temporality == other => {
            (monotonic || target == Temporality::Cumulative).then_some(Data::Sum { temporality: target, monotonic })
        }
        Data::Histogram(temporality) if temporality == other => Some(Data::Histogram(target)),
        Data::ExponentialHistogram(temporality) if temporality == other => Some(Data::ExponentialHistogram(target)),
        _ => None,
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    first_points: u64,
    out_of_order: u64,
}

/// One walk over the points of a batch.
struct Pass<'a> {
    target: Temporality,
    keys: &'a Keys,
    streams: &'a mut Streams,
    /// Per point in the order in which [`Metrics`] counts them: whether it yields nothing.
    dropped: Vec<bool>,
    counts: Counts,
}

impl Pass<'_> {
    fn numbers(&mut self, numbers: &mut Numbers) {
        let times = numbers.start_time_unix_nano.iter_mut().zip(&numbers.time_unix_nano);
        let values = numbers.value.iter_mut().zip(&numbers.flags);
        for ((&series, (start, &time)), (value, &flags)) in numbers.series.iter().zip(times).zip(values) {
            let ends = match *value {
                Number::None => true,
                Number::Int(_) => false,
                Number::Double(value) => !value.is_finite(),
            };
            self.point(series, Moment { start: *start, time }, ends || flags & NO_RECORDED_VALUE != 0, start, value);
        }
    }

    fn histograms(&mut self, points: &mut [HistogramPoint]) {
        for point in points {
            self.distribution(point, |point| &mut point.distribution);
        }
    }

    fn exponential(&mut self, points: &mut [ExponentialPoint]) {
        for point in points {
            self.distribution(point, |point| &mut point.distribution);
        }
    }

    fn distribution<A: Amount>(&mut self, point: &mut A, own: impl Fn(&mut A) -> &mut Distribution) {
        let Distribution { series, start_time_unix_nano, time_unix_nano, flags, .. } = *own(point);
        let moment = Moment { start: start_time_unix_nano, time: time_unix_nano };
        let mut start = start_time_unix_nano;
        let converts = self.point(series, moment, flags & NO_RECORDED_VALUE != 0, &mut start, point);
        // What comes back may be the remembered point, with the places of an earlier batch.
        let distribution = own(point);
        distribution.series = series;
        distribution.flags = flags;
        distribution.time_unix_nano = time_unix_nano;
        distribution.start_time_unix_nano = start;
        if converts && self.target == Temporality::Delta {
            distribution.min = None;
            distribution.max = None;
        }
    }

    /// Converts one point in place and notes whether it yields nothing. Answers whether its series
    /// is one that is converted.
    fn point<A: Amount>(&mut self, series: u32, at: Moment, ends: bool, start: &mut u64, amount: &mut A) -> bool {
        let Some(key) = self.keys.of(series) else {
            self.dropped.push(false);
            return false;
        };
        let fate = match self.target {
            _ if ends => self.streams.end(key, at),
            Temporality::Delta => self.streams.delta(key, at, amount),
            _ => self.streams.cumulative(key, at, amount),
        };
        match fate {
            Fate::Keep { start: new } => *start = new,
            Fate::First => self.counts.first_points += 1,
            Fate::OutOfOrder => self.counts.out_of_order += 1,
        }
        self.dropped.push(!matches!(fate, Fate::Keep { .. }));
        true
    }
}

#[cfg(test)]
mod tests;
