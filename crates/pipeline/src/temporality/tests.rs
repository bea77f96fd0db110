use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use weir_model::metrics::*;
use weir_model::{Attribute, Attributes, Common, Resource, Scope, Text, Value};

use super::*;

const CUMULATIVE_COUNTER: Data = Data::Sum { temporality: Temporality::Cumulative, monotonic: true };
const DELTA_COUNTER: Data = Data::Sum { temporality: Temporality::Delta, monotonic: true };
const SECOND: u64 = 1_000_000_000;
/// When the converters of these tests were made, unix nanoseconds.
const MADE: u64 = 1_000 * SECOND;

fn converter(target: Temporality, max_series: usize) -> Converter {
    let streams = Streams::new(max_series, KEEP_FOR, MADE, Instant::now());
    Converter { target, plans: Plans::default(), streams }
}

/// A table with one metric of this kind, and one series per name of a pod.
fn table(data: Data, pods: &[&str]) -> SeriesTable {
    let mut common = Common::default();
    let attributes = common.add_texts([("host.name", "a")]);
    common.resources.push(Resource { attributes, ..Resource::default() });
    common.scopes.push(Scope { present: true, ..Scope::default() });
    let name = common.arena.add(b"requests");
    let (description, unit, metadata) = (Text::EMPTY, Text::EMPTY, Attributes::EMPTY);
    let metrics = vec![Metric { scope: 0, name, description, unit, data, metadata }];
    let series =
        pods.iter().map(|pod| Series { metric: 0, attributes: common.add_texts([("pod", *pod), ("zone", "z")]) });
    let series = series.collect();
    SeriesTable { common, metrics, series }
}

fn point(series: u32, start: u64, time: u64, value: impl Into<Number>) -> NumberPoint {
    let (start_time_unix_nano, time_unix_nano) = (start, time);
    NumberPoint { series, start_time_unix_nano, time_unix_nano, value: value.into(), flags: 0 }
}

fn batch(table: &Arc<SeriesTable>, points: &[NumberPoint]) -> Metrics {
    let mut metrics = Metrics { table: table.clone(), ..Metrics::default() };
    points.iter().for_each(|point| metrics.numbers.push(*point));
    metrics
}

/// Converts points of one counter, each in a batch of its own, to (start, time, value).
fn run(converter: &mut Converter, table: &Arc<SeriesTable>, points: &[NumberPoint]) -> Vec<(u64, u64, Number)> {
    let mut out = Vec::new();
    for point in points {
        let converted = converter.convert(batch(table, &[*point])).metrics;
        out.extend(converted.numbers.iter().map(|p| (p.start_time_unix_nano, p.time_unix_nano, p.value)));
    }
    out
}

fn int(value: i64) -> Number {
    Number::Int(value)
}

#[test]
fn the_first_cumulative_point_has_no_delta_and_the_next_ones_start_at_the_one_before() {
    let mut to_delta = converter(Temporality::Delta, 10);
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let first = to_delta.convert(batch(&table, &[point(0, 5, 100, 7_i64)]));
    assert_eq!((first.dropped, first.first_points, first.out_of_order), (1, 1, 0));
    assert!(first.metrics.is_empty());
    let later = run(&mut to_delta, &table, &[point(0, 5, 110, 9_i64), point(0, 5, 120, 9_i64)]);
    assert_eq!(later, [(100, 110, int(2)), (110, 120, int(0))]);
}

#[test]
fn a_first_point_that_started_after_the_converter_is_a_delta_since_its_start() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    assert_eq!(run(&mut to_delta, &table, &[point(0, MADE, MADE + 9, 7_i64)]), [(MADE, MADE + 9, int(7))]);
    let mut to_delta = converter(Temporality::Delta, 10);
    assert_eq!(run(&mut to_delta, &table, &[point(0, MADE - 1, MADE + 9, 7_i64)]), []);
    assert_eq!(run(&mut to_delta, &table, &[point(0, MADE - 1, MADE + 19, 8_i64)]), [(MADE + 9, MADE + 19, int(1))]);
}

#[test]
fn a_restart_gives_the_new_amount_whether_the_start_or_the_value_shows_it() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [
        point(0, 50, 100, 7_i64),
        // The start moved behind the last point: more than before, and yet all of it is new.
        point(0, 105, 110, 9_i64),
        // The value fell: it started again, nobody knows when.
        point(0, 0, 120, 4_i64),
    ];
    assert_eq!(run(&mut to_delta, &table, &points), [(105, 110, int(9)), (110, 120, int(4))]);
}

#[test]
fn a_start_that_only_jitters_is_no_restart() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [point(0, 50, 100, 7000_i64), point(0, 51, 110, 7001_i64), point(0, 49, 120, 7003_i64)];
    assert_eq!(run(&mut to_delta, &table, &points), [(100, 110, int(1)), (110, 120, int(2))]);
}

#[test]
fn points_that_are_not_newer_are_dropped_in_both_directions() {
    for (target, data) in [(Temporality::Delta, CUMULATIVE_COUNTER), (Temporality::Cumulative, DELTA_COUNTER)] {
        let table = Arc::new(table(data, &["a"]));
        let mut converter = converter(target, 10);
        run(&mut converter, &table, &[point(0, 50, 100, 7_i64), point(0, 50, 110, 8_i64)]);
        for time in [110, 105] {
            let again = converter.convert(batch(&table, &[point(0, 50, time, 8_i64)]));
            assert_eq!((again.dropped, again.out_of_order, again.metrics.len()), (1, 1, 0));
        }
    }
}

#[test]
fn deltas_add_up_from_their_first_start_across_gaps() {
    let table = Arc::new(table(DELTA_COUNTER, &["a"]));
    let mut to_cumulative = converter(Temporality::Cumulative, 10);
    let points = [point(0, 90, 100, 7_i64), point(0, 100, 110, 2_i64), point(0, 500, 510, 1_i64)];
    assert_eq!(run(&mut to_cumulative, &table, &points), [(90, 100, int(7)), (90, 110, int(9)), (90, 510, int(10))]);
}

#[test]
fn integers_that_do_not_fit_go_on_as_doubles() {
    let table_of = |data| Arc::new(table(data, &["a"]));
    let mut to_cumulative = converter(Temporality::Cumulative, 10);
    let points = [point(0, 0, 1, i64::MAX), point(0, 1, 2, i64::MAX)];
    let sums = run(&mut to_cumulative, &table_of(DELTA_COUNTER), &points);
    assert_eq!(sums.last().unwrap().2, Number::Double(2.0 * i64::MAX as f64));
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [point(0, 0, 1, i64::MIN), point(0, 0, 2, i64::MAX)];
    let deltas = run(&mut to_delta, &table_of(CUMULATIVE_COUNTER), &points);
    assert_eq!(deltas.last().unwrap().2, Number::Double(i64::MAX as f64 - i64::MIN as f64));
}

#[test]
fn a_point_without_value_passes_and_ends_its_series() {
    let ends = [
        NumberPoint { flags: NO_RECORDED_VALUE, ..point(0, 50, 110, 0_i64) },
        NumberPoint { value: Number::None, ..point(0, 50, 110, 0_i64) },
        point(0, 50, 110, f64::NAN),
    ];
    for end in ends {
        let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
        let mut to_delta = converter(Temporality::Delta, 10);
        run(&mut to_delta, &table, &[point(0, 50, 100, 7_i64)]);
        let passed = to_delta.convert(batch(&table, &[end]));
        assert_eq!((passed.dropped, passed.metrics.len()), (0, 1));
        assert_eq!(passed.metrics.numbers.start_time_unix_nano, [50]);
        // It comes back with its old start: what was sent before must not be sent again.
        let back = [point(0, 50, 120, 9_i64), point(0, 50, 130, 10_i64)];
        assert_eq!(run(&mut to_delta, &table, &back), [(120, 130, int(1))]);
    }
}

#[test]
fn a_series_that_starts_after_its_end_is_a_delta_since_its_start() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    run(&mut to_delta, &table, &[point(0, 50, 100, 7_i64), point(0, 50, 110, f64::NAN)]);
    assert_eq!(run(&mut to_delta, &table, &[point(0, 110, 120, 3_i64)]), [(110, 120, int(3))]);
}

#[test]
fn only_sums_and_histograms_of_the_other_temporality_need_anything() {
    let up_down = |temporality| Data::Sum { temporality, monotonic: false };
    let cases = [
        (Data::Gauge, false, false),
        (Data::Summary, false, false),
        (CUMULATIVE_COUNTER, true, false),
        (DELTA_COUNTER, false, true),
        (up_down(Temporality::Cumulative), false, false),
        (up_down(Temporality::Delta), false, true),
        (up_down(Temporality::Unspecified), false, false),
        (Data::Histogram(Temporality::Cumulative), true, false),
        (Data::Histogram(Temporality::Delta), false, true),
        (Data::ExponentialHistogram(Temporality::Cumulative), true, false),
        (Data::ExponentialHistogram(Temporality::Delta), false, true),
    ];
    for (data, for_delta, for_cumulative) in cases {
        let metrics = batch(&Arc::new(table(data, &["a"])), &[point(0, 0, 1, 1_i64)]);
        let needs = |target| converter(target, 1).needs(&metrics);
        assert_eq!(needs(Temporality::Delta), for_delta, "{data:?} for a delta backend");
        assert_eq!(needs(Temporality::Cumulative), for_cumulative, "{data:?} for a cumulative backend");
        assert!(!needs(Temporality::Unspecified));
    }
}

#[test]
fn what_needs_nothing_passes_with_its_table_untouched() {
    let table = Arc::new(table(Data::Sum { temporality: Temporality::Cumulative, monotonic: false }, &["a"]));
    let passed = converter(Temporality::Delta, 1).convert(batch(&table, &[point(0, 1, 2, 3_i64)]));
    assert!(Arc::ptr_eq(&table, &passed.metrics.table));
    assert_eq!(passed.metrics.numbers.get(0), Some(point(0, 1, 2, 3_i64)));
}

#[test]
fn polls_that_share_a_table_share_the_converted_one() {
    let mut shared = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    let first = to_delta.convert(batch(&shared, &[point(0, 0, 1, 1_i64)]));
    let second = to_delta.convert(batch(&shared, &[point(0, 0, 2, 4_i64)]));
    assert!(Arc::ptr_eq(&first.metrics.table, &second.metrics.table));
    assert_eq!(second.metrics.table.metrics[0].data, DELTA_COUNTER);
    assert_eq!(shared.metrics[0].data, CUMULATIVE_COUNTER, "the owner's table stays as it is");

    // The owner adds a series: the table is another one then, and the old series go on.
    let changed = Arc::make_mut(&mut shared);
    let attributes = changed.common.add_texts([("pod", "b")]);
    changed.series.push(Series { metric: 0, attributes });
    let third = to_delta.convert(batch(&shared, &[point(0, 0, 3, 9_i64), point(1, 0, 3, 1_i64)]));
    assert_eq!(third.metrics.numbers.value, [int(5)]);
    assert_eq!(third.metrics.table.series.len(), 2);
    assert_eq!(third.metrics.table.metrics[0].data, DELTA_COUNTER);
}

#[test]
fn a_table_of_its_own_is_converted_in_place_and_not_remembered() {
    let mut to_delta = converter(Temporality::Delta, 10);
    let metrics = batch(&Arc::new(table(CUMULATIVE_COUNTER, &["a"])), &[point(0, 0, 1, 1_i64)]);
    let address = Arc::as_ptr(&metrics.table);
    let converted = to_delta.convert(metrics);
    assert!(std::ptr::eq(address, Arc::as_ptr(&converted.metrics.table)));
    assert_eq!(converted.metrics.table.metrics[0].data, DELTA_COUNTER);
}

#[test]
fn a_series_is_the_same_in_every_table_whatever_the_order_of_its_attributes() {
    let mut to_delta = converter(Temporality::Delta, 10);
    run(&mut to_delta, &Arc::new(table(CUMULATIVE_COUNTER, &["a"])), &[point(0, 0, 1, 1_i64)]);
    let mut other = table(CUMULATIVE_COUNTER, &["x"]);
    other.series[0].attributes = other.common.add_texts([("zone", "z"), ("pod", "a")]);
    assert_eq!(run(&mut to_delta, &Arc::new(other), &[point(0, 0, 2, 4_i64)]), [(1, 2, int(3))]);
}

#[test]
fn series_that_differ_in_any_part_of_their_identity_are_kept_apart() {
    fn text(table: &mut SeriesTable, text: &str) -> Text {
        table.common.arena.add(text.as_bytes())
    }
    let changes: [fn(&mut SeriesTable); 9] = [
        |t| t.common.resources[0].attributes = t.common.add_texts([("host.name", "b")]),
        |t| t.common.scopes[0].name = text(t, "scope"),
        |t| t.common.scopes[0].version = text(t, "2"),
        |t| t.metrics[0].name = text(t, "errors"),
        |t| t.metrics[0].unit = text(t, "By"),
        |t| t.series[0].attributes = Attributes::EMPTY,
        |t| t.series[0].attributes = t.common.add_texts([("pod", "b"), ("zone", "z")]),
        // The same letters, divided otherwise.
        |t| t.series[0].attributes = t.common.add_texts([("poda", ""), ("zone", "z")]),
        |t| {
            let start = t.common.attributes.len();
            let (pod, zone) = (text(t, "pod"), text(t, "zone"));
            let (a, z) = (Value::Bytes(text(t, "a")), Value::String(text(t, "z")));
            t.common.attributes.push(Attribute { key: pod, value: a });
            t.common.attributes.push(Attribute { key: zone, value: z });
            t.series[0].attributes = t.common.attributes_since(start);
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut to_delta = converter(Temporality::Delta, 10);
        run(&mut to_delta, &Arc::new(table(CUMULATIVE_COUNTER, &["a"])), &[point(0, 0, 1, 1_i64)]);
        let mut other = table(CUMULATIVE_COUNTER, &["a"]);
        change(&mut other);
        let result = run(&mut to_delta, &Arc::new(other), &[point(0, 0, 2, 4_i64)]);
        assert!(result.is_empty(), "change {at} must make another series");
    }
}

#[test]
fn beyond_the_limit_the_oldest_series_is_forgotten_and_counted() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a", "b", "c"]));
    let mut to_delta = converter(Temporality::Delta, 2);
    run(&mut to_delta, &table, &[point(0, 0, 1, 1_i64), point(1, 0, 1, 1_i64), point(0, 0, 2, 1_i64)]);
    let third = to_delta.convert(batch(&table, &[point(2, 0, 3, 1_i64)]));
    assert_eq!(third.evicted_series, 1);
    assert_eq!(to_delta.streams.len(), 2);
    assert_eq!(run(&mut to_delta, &table, &[point(0, 0, 4, 6_i64)]), [(2, 4, int(5))], "b was older than a");
    assert_eq!(to_delta.convert(batch(&table, &[point(1, 0, 4, 6_i64)])).first_points, 1);
}

#[test]
fn a_forgotten_series_never_sends_again_what_it_sent() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a", "b"]));
    let mut to_delta = converter(Temporality::Delta, 1);
    let first = [point(0, MADE, MADE + 10, 7_i64), point(1, MADE, MADE + 10, 7_i64)];
    assert_eq!(run(&mut to_delta, &table, &first).len(), 2);
    assert_eq!(run(&mut to_delta, &table, &[point(0, MADE, MADE + 20, 9_i64)]), [], "7 of 9 are there already");
}

#[test]
fn series_without_points_are_forgotten_after_a_while() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a", "b"]));
    let mut to_delta = converter(Temporality::Delta, 10).keep_for(Duration::from_secs(600));
    let start = Instant::now();
    to_delta.convert_at(batch(&table, &[point(0, 0, 1, 1_i64), point(1, 0, 1, 1_i64)]), start);
    to_delta.convert_at(batch(&table, &[point(0, 0, 2, 1_i64)]), start + Duration::from_secs(400));
    assert_eq!(to_delta.streams.len(), 2);
    to_delta.convert_at(batch(&table, &[point(0, 0, 3, 1_i64)]), start + Duration::from_secs(700));
    assert_eq!(to_delta.streams.len(), 1);
}

#[test]
fn exemplars_follow_their_points_when_others_are_dropped() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a", "b"]));
    let mut to_delta = converter(Temporality::Delta, 10);
    run(&mut to_delta, &table, &[point(1, 0, 1, 1_i64)]);
    let mut metrics = batch(&table, &[point(0, 0, 2, 1_i64), point(1, 0, 2, 4_i64)]);
    for at in 0..2_u32 {
        metrics.exemplars.push(Exemplar {
            point: PointRef::Number(at),
            filtered_attributes: Attributes::EMPTY,
            time_unix_nano: u64::from(at),
            value: int(1),
            span_id: Text::EMPTY,
            trace_id: Text::EMPTY,
        });
    }
    let converted = to_delta.convert(metrics).metrics;
    assert_eq!(converted.numbers.value, [int(3)]);
    let left: Vec<_> = converted.exemplars.iter().map(|e| (e.point, e.time_unix_nano)).collect();
    assert_eq!(left, [(PointRef::Number(0), 1)]);
}

fn histogram(time: u64, bounds: &[f64], counts: &[u64], sum: Option<f64>) -> HistogramPoint {
    let count = counts.iter().sum();
    let (min, max) = (Some(0.5), Some(time as f64));
    HistogramPoint {
        distribution: Distribution { time_unix_nano: time, count, sum, min, max, ..Distribution::default() },
        explicit_bounds: bounds.to_vec(),
        bucket_counts: counts.to_vec(),
    }
}

fn run_histograms(converter: &mut Converter, data: Data, points: &[HistogramPoint]) -> Vec<HistogramPoint> {
    let table = Arc::new(table(data, &["a"]));
    let one = |point: &HistogramPoint| Metrics {
        table: table.clone(),
        histograms: vec![point.clone()],
        ..Metrics::default()
    };
    points.iter().flat_map(|point| converter.convert(one(point)).metrics.histograms).collect()
}

#[test]
fn cumulative_histograms_become_deltas_by_bucket_without_extremes() {
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [
        histogram(1, &[1.0, 2.0], &[1, 2, 3], Some(10.0)),
        histogram(2, &[1.0, 2.0], &[1, 5, 4], Some(16.5)),
        histogram(3, &[1.0, 2.0], &[2, 5, 4], None),
        // One bucket fell although the count grew: it started again.
        histogram(4, &[1.0, 2.0], &[9, 5, 1], Some(3.0)),
    ];
    let deltas = run_histograms(&mut to_delta, Data::Histogram(Temporality::Cumulative), &points);
    let plain: Vec<_> = deltas
        .iter()
        .map(|h| {
            (h.distribution.start_time_unix_nano, h.distribution.count, h.distribution.sum, h.bucket_counts.clone())
        })
        .collect();
    assert_eq!(
        plain,
        [(1, 4, Some(6.5), vec![0, 3, 1]), (2, 1, None, vec![1, 0, 0]), (3, 15, Some(3.0), vec![9, 5, 1])]
    );
    assert!(deltas.iter().all(|h| h.distribution.min.is_none() && h.distribution.max.is_none()));
    assert!(deltas.iter().zip(2..).all(|(h, time)| h.distribution.time_unix_nano == time));
}

#[test]
fn a_cumulative_histogram_with_new_bounds_has_no_delta_unless_it_started_again() {
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [
        histogram(1, &[1.0], &[4, 4], Some(1.0)),
        histogram(2, &[5.0], &[5, 5], Some(1.0)),
        histogram(3, &[5.0], &[5, 6], Some(1.0)),
        histogram(4, &[1.0], &[1, 2], Some(1.0)),
    ];
    let deltas = run_histograms(&mut to_delta, Data::Histogram(Temporality::Cumulative), &points);
    let counts: Vec<_> = deltas.iter().map(|h| h.bucket_counts.clone()).collect();
    assert_eq!(counts, [vec![0, 1], vec![1, 2]]);
}

#[test]
fn delta_histograms_add_up_and_start_again_with_new_bounds() {
    let mut to_cumulative = converter(Temporality::Cumulative, 10);
    let points = [
        histogram(1, &[1.0], &[1, 2], Some(3.0)),
        histogram(2, &[1.0], &[4, 0], Some(1.0)),
        histogram(3, &[9.0], &[1, 1], Some(2.0)),
    ];
    let sums = run_histograms(&mut to_cumulative, Data::Histogram(Temporality::Delta), &points);
    assert_eq!(sums[1].bucket_counts, [5, 2]);
    let total = sums[1].distribution;
    assert_eq!((total.count, total.sum, total.min, total.max), (7, Some(4.0), Some(0.5), Some(2.0)));
    assert_eq!((sums[2].bucket_counts.as_slice(), sums[2].distribution.start_time_unix_nano), (&[1, 1][..], 2));
}

fn exponential(time: u64, scale: i32, offset: i32, counts: &[u64]) -> ExponentialPoint {
    let count = counts.iter().sum();
    ExponentialPoint {
        distribution: Distribution { time_unix_nano: time, count, sum: Some(count as f64), ..Distribution::default() },
        scale,
        positive: Some(Buckets { offset, counts: counts.to_vec() }),
        ..ExponentialPoint::default()
    }
}

fn run_exponential(converter: &mut Converter, data: Data, points: &[ExponentialPoint]) -> Vec<ExponentialPoint> {
    let table = Arc::new(table(data, &["a"]));
    let one = |point: &ExponentialPoint| Metrics {
        table: table.clone(),
        exponential: vec![point.clone()],
        ..Metrics::default()
    };
    points.iter().flat_map(|point| converter.convert(one(point)).metrics.exponential).collect()
}

#[test]
fn exponential_histograms_subtract_at_the_coarser_scale() {
    let mut to_delta = converter(Temporality::Delta, 10);
    let points = [
        exponential(1, 3, 4, &[1, 2, 3, 4]),
        // Indices 4 to 7 at scale 3 are 2 and 3 at scale 2.
        exponential(2, 2, 2, &[4, 7, 1]),
        exponential(3, 2, 2, &[4, 8, 1]),
        exponential(4, 2, 2, &[1]),
    ];
    let deltas = run_exponential(&mut to_delta, Data::ExponentialHistogram(Temporality::Cumulative), &points);
    let plain: Vec<_> =
        deltas.iter().map(|e| (e.scale, e.distribution.count, e.positive.clone().unwrap().counts)).collect();
    assert_eq!(plain, [(2, 2, vec![1, 0, 1]), (2, 1, vec![0, 1, 0]), (2, 1, vec![1])]);
}

#[test]
fn exponential_deltas_add_up_at_a_scale_that_stays_small() {
    let mut to_cumulative = converter(Temporality::Cumulative, 10);
    let points = [exponential(1, 20, -1_000_000_000, &[1]), exponential(2, 20, 1_000_000_000, &[2])];
    let sums = run_exponential(&mut to_cumulative, Data::ExponentialHistogram(Temporality::Delta), &points);
    let buckets = sums[1].positive.as_ref().unwrap();
    assert!(buckets.counts.len() <= 320, "{} buckets", buckets.counts.len());
    assert_eq!((buckets.counts.iter().sum::<u64>(), sums[1].distribution.count), (3, 3));
}

#[test]
fn points_of_series_that_the_table_lacks_pass() {
    let table = Arc::new(table(CUMULATIVE_COUNTER, &["a"]));
    let converted = converter(Temporality::Delta, 10).convert(batch(&table, &[point(9, 0, 1, 1_i64)]));
    assert_eq!((converted.dropped, converted.metrics.len()), (0, 1));
}

/// What a converter to deltas does with counters, written down a second time without any of its
/// means: texts as keys, nothing forgotten.
#[derive(Default)]
struct Model(HashMap<String, (u64, Option<i64>)>);

impl Model {
    fn delta(&mut self, pod: &str, start: u64, time: u64, value: Option<i64>) -> Option<(u64, Option<i64>)> {
        let known = self.0.get(pod).copied();
        if known.is_some_and(|(last, _)| time <= last) {
            return None;
        }
        let Some(new) = value else {
            if known.is_some() {
                self.0.insert(pod.to_owned(), (time, None));
            }
            return Some((start, None));
        };
        self.0.insert(pod.to_owned(), (time, Some(new)));
        match known {
            None if start >= MADE => Some((start, Some(new))),
            None => None,
            Some((last, _)) if start >= last && start > 0 => Some((start, Some(new))),
            Some((_, None)) => None,
            Some((last, Some(old))) if new >= old => Some((last, Some(new - old))),
            Some((last, Some(_))) => Some((last, Some(new))),
        }
    }
}

proptest! {
    /// Increments of three counters, 0 to 3 points of each per poll, with restarts in between.
    #[test]
    fn cumulative_to_delta_to_cumulative_gives_back_every_increment(
        polls in proptest::collection::vec(proptest::collection::vec((0_u32..3, 0_i64..1000, prop::bool::weighted(0.1)), 0..6), 1..30),
        doubles in any::<bool>(),
    ) {
        let table = Arc::new(table(CUMULATIVE_COUNTER, &["a", "b", "c"]));
        let (mut to_delta, mut to_cumulative) = (converter(Temporality::Delta, 10), converter(Temporality::Cumulative, 10));
        let (mut time, mut counters) = (MADE, [0_i64; 3]);
        let (mut expected, mut seen) = ([0_i64; 3], [0_f64; 3]);
        for poll in polls {
            let mut points = Vec::new();
            for (series, increment, restarts) in poll {
                time += 1;
                let at = series as usize;
                counters[at] = if restarts { increment } else { counters[at] + increment };
                expected[at] += increment;
                // All start when the converter does, so that no first point is lost.
                let value = if doubles { Number::Double(counters[at] as f64) } else { int(counters[at]) };
                let fell = restarts && counters[at] > 0;
                points.push(point(series, if fell { time } else { MADE }, time, value));
            }
            let deltas = to_delta.convert(batch(&table, &points));
            prop_assert_eq!(deltas.dropped, 0);
            let sums = to_cumulative.convert(deltas.metrics);
            prop_assert_eq!(sums.metrics.len(), points.len());
            prop_assert_eq!(sums.metrics.table.metrics[0].data, CUMULATIVE_COUNTER);
            for sum in sums.metrics.numbers.iter() {
                prop_assert!(matches!(sum.value, Number::Int(_)) != doubles, "the type of the values stays");
                seen[sum.series as usize] = sum.value.as_f64().unwrap();
            }
            for at in 0..3 {
                prop_assert_eq!(seen[at], expected[at] as f64);
            }
        }
    }

    #[test]
    fn any_sequence_of_points_converts_as_the_model_says(
        points in proptest::collection::vec(
            (0_u32..4, 0_u64..60, 0_u64..60, proptest::option::weighted(0.9, 0_i64..50), any::<bool>()), 0..200),
        size in 1_usize..20,
    ) {
        let pods = ["a", "b", "c", "d"];
        let shared = Arc::new(table(CUMULATIVE_COUNTER, &pods));
        let mut to_delta = converter(Temporality::Delta, 10);
        let mut model = Model::default();
        let mut clock = MADE - 30;
        for chunk in points.chunks(size) {
            let (mut batch, mut expected) = (batch(&shared, &[]), Vec::new());
            for &(series, start, behind, value, moves) in chunk {
                clock += u64::from(moves) * 3;
                let time = clock - behind / 10;
                let start = if start % 3 == 0 { 0 } else { time - start };
                let flags = if value.is_none() { NO_RECORDED_VALUE } else { 0 };
                batch.numbers.push(NumberPoint { flags, ..point(series, start, time, value.unwrap_or(0)) });
                if let Some((start, value)) = model.delta(pods[series as usize], start, time, value) {
                    expected.push(point(series, start, time, value.unwrap_or(0)));
                }
            }
            let offered = batch.len() as u64;
            let converted = to_delta.convert(batch);
            let got: Vec<_> = converted.metrics.numbers.iter().map(|p| NumberPoint { flags: 0, ..p }).collect();
            prop_assert_eq!(converted.dropped, offered - got.len() as u64);
            prop_assert_eq!(got, expected);
        }
    }
}
