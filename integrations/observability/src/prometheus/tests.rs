//! Tests with independent readers: `prost` messages from the numbers in Prometheus' schema files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex as StdMutex};

use prost::Message;
use weir_model::build::{Kind as MetricKind, MetricDescription, MetricsBuilder, SampledMeasurement};
use weir_model::metrics::{
    Buckets, Data, Distribution, ExponentialPoint, HistogramPoint, Metric, Metrics, NO_RECORDED_VALUE, Number,
    NumberPoint, Series, SeriesTable, SummaryPoint,
};
use weir_model::{Payload, Resource, Scope};
use weir_net::HttpOptions;
use weir_pipeline::role::{DynExport, OverHttp};
use weir_pipeline::{FaultKind, Refused};

use super::judge::check;
use super::*;

mod live;

/// prometheus/prometheus `prompb/types.proto`, `prompb/remote.proto`.
mod v1 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<MetricMetadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<super::NativeMessage>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(string, tag = "2")]
        pub metric_family_name: String,
        #[prost(string, tag = "4")]
        pub help: String,
        #[prost(string, tag = "5")]
        pub unit: String,
    }
}

/// prometheus/prometheus `prompb/io/prometheus/write/v2/types.proto`, 2.0-rc.4.
mod v2 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<super::NativeMessage>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
        #[prost(int64, tag = "3")]
        pub start_timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
}

/// `Histogram` of both files; `start_timestamp` is only in the second.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NativeMessage {
    #[prost(uint64, optional, tag = "1")]
    pub count_int: Option<u64>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub zero_count_int: Option<u64>,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

const MS: u64 = 1_000_000;
const NOW_MS: i64 = 1_700_000_000_000;
const NOW: u64 = 1_700_000_000_000 * MS;
const REQUESTS: MetricDescription<'static> =
    MetricDescription { name: "http.requests", unit: "{request}", kind: MetricKind::Counter, help: "Requests." };
const HEAT: MetricDescription<'static> =
    MetricDescription { name: "heat", unit: "Cel", kind: MetricKind::Gauge, help: "" };

fn context() -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: "prometheus".into(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

fn exporter(configure: impl FnOnce(&mut Config)) -> Prometheus {
    let mut config = Config::default();
    configure(&mut config);
    Prometheus::new(config, &context()).unwrap()
}

fn builder() -> MetricsBuilder {
    let mut out = MetricsBuilder::new("host", vec![("host.name".into(), "web-1".into())]);
    out.begin(NOW, NOW - 60_000 * MS);
    out
}

fn delivery(metrics: impl IntoIterator<Item = Metrics>) -> Delivery {
    let payloads = metrics.into_iter().map(|m| Payload::from_records(Records::Metrics(m))).collect();
    Delivery { signal: Signal::Metrics, payloads, id: 7 }
}

fn body(request: &Request<Bytes>) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(request.body()).unwrap()
}

fn sent_v1(exporter: &Prometheus, delivery: &Delivery) -> v1::WriteRequest {
    v1::WriteRequest::decode(body(&exporter.encode(delivery).unwrap()).as_slice()).unwrap()
}

fn sent_v2(exporter: &Prometheus, delivery: &Delivery) -> v2::Request {
    v2::Request::decode(body(&exporter.encode(delivery).unwrap()).as_slice()).unwrap()
}

/// Labels as `name{a="b"}` with the time and bits of every sample.
type Flat = BTreeMap<String, Vec<(i64, u64)>>;

fn text_of(labels: &[(String, String)]) -> String {
    assert!(labels.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted and unique: {labels:?}");
    assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels:?}");
    let name = labels.iter().find(|(name, _)| name == "__name__").map(|(_, value)| value.as_str()).unwrap_or_default();
    let rest: Vec<String> =
        labels.iter().filter(|(name, _)| name != "__name__").map(|(name, value)| format!("{name}={value:?}")).collect();
    if rest.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", rest.join(",")) }
}

fn flat_v1(request: &v1::WriteRequest) -> Flat {
    let mut flat = Flat::new();
    for series in &request.timeseries {
        let labels: Vec<_> = series.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect();
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        assert!(flat.insert(text_of(&labels), samples).is_none(), "one time series per label set");
    }
    flat
}

fn flat_v2(request: &v2::Request) -> Flat {
    assert_eq!(request.symbols.first().map(String::as_str), Some(""));
    let unique: BTreeSet<&String> = request.symbols.iter().collect();
    assert_eq!(unique.len(), request.symbols.len(), "symbols are unique");
    let mut flat = Flat::new();
    for series in &request.timeseries {
        let text = |at: u32| request.symbols[at as usize].clone();
        let labels: Vec<_> = series.labels_refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        assert!(flat.insert(text_of(&labels), samples).is_none(), "one time series per label set");
    }
    flat
}

fn values(flat: &Flat) -> BTreeMap<&str, f64> {
    flat.iter().map(|(series, samples)| (series.as_str(), f64::from_bits(samples[0].1))).collect()
}

/// A point of every kind.
fn every_kind() -> Metrics {
    every_kind_into(builder())
}

fn every_kind_into(mut out: MetricsBuilder) -> Metrics {
    out.record(&REQUESTS, &[("http.method", "GET"), ("code", "200")], 12_u64);
    out.record_exemplar(SampledMeasurement {
        labels: &[("user", "a")],
        value: Number::Double(0.25),
        trace_id: &[0xab; 16],
        span_id: &[1; 8],
        ..SampledMeasurement::default()
    });
    out.record(&HEAT, &[], -1.5);
    let mut histogram =
        HistogramPoint { explicit_bounds: vec![0.5, 1.0], bucket_counts: vec![2, 0, 3], ..HistogramPoint::default() };
    histogram.distribution = Distribution { count: 5, sum: Some(9.5), ..Distribution::default() };
    histogram.distribution.start_time_unix_nano = out.now_unix_nano() - 1000 * MS;
    let latency = MetricDescription { name: "latency", unit: "s", kind: MetricKind::Histogram, help: "How long." };
    out.record_histogram(&latency, &[("le", "own")], histogram);
    out.record_exemplar(SampledMeasurement { value: Number::Double(0.7), ..SampledMeasurement::default() });
    let size = MetricDescription { name: "size", unit: "By", kind: MetricKind::Summary, help: "" };
    out.record_summary(
        &size,
        &[],
        SummaryPoint { count: 2, sum: 3.0, quantiles: vec![(0.5, 1.0), (0.99, f64::NAN)], ..SummaryPoint::default() },
    );
    out.finish()
}

#[test]
fn every_kind_of_point_is_written_as_an_independent_reader_of_1_0_expects() {
    let exporter = exporter(|config| {
        config.protocol = Protocol::V1;
        config.external_labels = BTreeMap::from([("env".into(), "prod".into()), ("code".into(), "never".into())]);
    });
    let request = exporter.encode(&delivery([every_kind()])).unwrap();
    assert_eq!(request.uri().to_string(), "http://localhost:9090/api/v1/write");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    assert_eq!(request.headers()["content-encoding"], "snappy");
    assert_eq!(request.headers()["x-prometheus-remote-write-version"], "0.1.0");
    let message = v1::WriteRequest::decode(body(&request).as_slice()).unwrap();
    let flat = flat_v1(&message);
    let own = "env=\"prod\",instance=\"web-1\",job=\"host\"";
    let with = |name: &str| format!("{name}{{code=\"never\",{own}}}");
    let expected = BTreeMap::from([
        (with("heat_celsius"), -1.5),
        (
            "http_requests_total{code=\"200\",env=\"prod\",http_method=\"GET\",instance=\"web-1\",job=\"host\"}".to_owned(),
            12.0,
        ),
        (
            "latency_seconds_bucket{code=\"never\",env=\"prod\",exported_le=\"own\",instance=\"web-1\",job=\"host\",le=\"+Inf\"}".to_owned(),
            5.0,
        ),
        (
            "latency_seconds_bucket{code=\"never\",env=\"prod\",exported_le=\"own\",instance=\"web-1\",job=\"host\",le=\"0.5\"}".to_owned(),
            2.0,
        ),
        (
            "latency_seconds_bucket{code=\"never\",env=\"prod\",exported_le=\"own\",instance=\"web-1\",job=\"host\",le=\"1\"}".to_owned(),
            2.0,
        ),
        (
            "latency_seconds_count{code=\"never\",env=\"prod\",exported_le=\"own\",instance=\"web-1\",job=\"host\"}".to_owned(),
            5.0,
        ),
        (
            "latency_seconds_sum{code=\"never\",env=\"prod\",exported_le=\"own\",instance=\"web-1\",job=\"host\"}".to_owned(),
            9.5,
        ),
        (format!("size_bytes{{code=\"never\",{own},quantile=\"0.5\"}}"), 1.0),
        (with("size_bytes_count"), 2.0),
        (with("size_bytes_sum"), 3.0),
        (
            "target_info{code=\"never\",env=\"prod\",host_name=\"web-1\",instance=\"web-1\",job=\"host\"}".to_owned(),
            1.0,
        ),
    ]);
    let nan = format!("size_bytes{{code=\"never\",{own},quantile=\"0.99\"}}");
    assert_eq!(flat[&nan], [(NOW_MS, 0x7ff8_0000_0000_0001)], "a NaN that is a value is never a staleness marker");
    let others: BTreeMap<String, f64> =
        values(&flat).into_iter().filter(|(series, _)| *series != nan).map(|(s, v)| (s.to_owned(), v)).collect();
    assert_eq!(others, expected);
    assert!(flat.values().flatten().all(|(time, _)| *time == NOW_MS));

    let named = |name: &str| {
        message.timeseries.iter().find(|s| s.labels.iter().any(|l| l.name == "__name__" && l.value == name)).unwrap()
    };
    let [exemplar] = named("http_requests_total").exemplars.as_slice() else { panic!("one exemplar") };
    let labels: Vec<_> = exemplar.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
    assert_eq!(labels, [("span_id", "0101010101010101"), ("trace_id", &"ab".repeat(16)), ("user", "a")]);
    assert_eq!((exemplar.value, exemplar.timestamp), (0.25, NOW_MS));
    let of_bucket: Vec<&str> = message
        .timeseries
        .iter()
        .filter(|s| s.exemplars.iter().any(|e| e.value == 0.7))
        .flat_map(|s| s.labels.iter().filter(|l| l.name == "le").map(|l| l.value.as_str()))
        .collect();
    assert_eq!(of_bucket, ["1"], "an exemplar stands at the bucket that its value falls into");
    let about = message.metadata.iter().find(|m| m.metric_family_name == "latency_seconds").unwrap();
    assert_eq!((about.kind, about.help.as_str(), about.unit.as_str()), (3, "How long.", "seconds"));
}

#[test]
fn version_2_0_says_the_same_as_1_0_and_start_times_and_metadata_besides() {
    let records = delivery([every_kind()]);
    let first = sent_v1(&exporter(|config| config.protocol = Protocol::V1), &records);
    let exporter = exporter(|config| config.protocol = Protocol::V2);
    let request = exporter.encode(&records).unwrap();
    assert_eq!(request.headers()["content-type"], "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    assert_eq!(request.headers()["x-prometheus-remote-write-version"], "2.0.0");
    let second = v2::Request::decode(body(&request).as_slice()).unwrap();
    assert_eq!(flat_v1(&first), flat_v2(&second));
    let exemplars = |count: usize| assert_eq!(count, 2);
    exemplars(first.timeseries.iter().map(|s| s.exemplars.len()).sum());
    exemplars(second.timeseries.iter().map(|s| s.exemplars.len()).sum());

    let text = |at: u32| second.symbols[at as usize].as_str();
    let of = |name: &str| second.timeseries.iter().find(|s| s.labels_refs.iter().any(|at| text(*at) == name)).unwrap();
    let counter = of("http_requests_total");
    assert_eq!(counter.samples[0].start_timestamp, NOW_MS - 60_000);
    let metadata = counter.metadata.as_ref().unwrap();
    assert_eq!((metadata.kind, text(metadata.help_ref), text(metadata.unit_ref)), (1, "Requests.", ""));
    assert_eq!(of("latency_seconds_sum").samples[0].start_timestamp, NOW_MS - 1000);
    assert_eq!(of("latency_seconds_sum").metadata.as_ref().unwrap().kind, 3);
    assert_eq!(of("heat_celsius").samples[0].start_timestamp, 0, "a gauge has no start");
    assert_eq!(of("size_bytes_count").metadata.as_ref().unwrap().kind, 5);
}

#[test]
fn what_was_scraped_comes_out_as_it_stood_in_the_text() {
    for text in [
        include_str!("../../../../crates/model/tests/fixtures/node_exporter.txt"),
        include_str!("../../../../crates/model/tests/fixtures/prometheus.txt"),
    ] {
        let mut out = MetricsBuilder::new("prometheus_scrape", Vec::new());
        out.begin(NOW, 0);
        out.set_resource(&[("service.name", "node"), ("service.instance.id", "localhost:9100")]);
        weir_model::exposition::parse_text(text.as_bytes(), &mut out).unwrap();
        let records = delivery([out.finish()]);
        for protocol in [Protocol::V1, Protocol::V2] {
            let exporter = exporter(|config| config.protocol = protocol);
            let flat = match protocol {
                Protocol::V1 => flat_v1(&sent_v1(&exporter, &records)),
                _ => flat_v2(&sent_v2(&exporter, &records)),
            };
            let sent: BTreeMap<String, f64> = values(&flat)
                .into_iter()
                .map(|(series, value)| {
                    let series = series.replace("instance=\"localhost:9100\",job=\"node\"", "");
                    (series.replace("{,", "{").replace(",,", ",").replace(",}", "}").replace("{}", ""), value)
                })
                .collect();
            let exposed: Vec<(&str, f64)> = text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .map(|line| line.rsplit_once(' ').map(|(series, value)| (series, value.parse().unwrap())).unwrap())
                .collect();
            assert_eq!(sent.len(), exposed.len());
            for (series, value) in exposed {
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let mut labels: Vec<&str> =
                    labels.trim_end_matches('}').split("\",").filter(|l| !l.is_empty()).collect();
                labels.sort_unstable();
                let labels: Vec<String> = labels.iter().map(|l| format!("{}\"", l.trim_end_matches('"'))).collect();
                let series =
                    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) };
                let found = sent.get(&series).copied().unwrap_or_else(|| panic!("{series} was not sent"));
                assert!(found == value || (found.is_nan() && value.is_nan()), "{series}: {found} for {value}");
            }
        }
    }
}

#[test]
fn points_of_one_series_from_several_polls_are_one_time_series_in_the_order_of_time() {
    let mut out = builder();
    let polls: Vec<Metrics> = [3_u64, 1, 2]
        .iter()
        .map(|poll| {
            out.begin(NOW + poll * 1000 * MS, NOW);
            out.record(&REQUESTS, &[("a", "1")], *poll);
            out.finish()
        })
        .collect();
    let message = sent_v1(&exporter(|config| config.protocol = Protocol::V1), &delivery(polls));
    let own = flat_v1(&message).into_iter().find(|(series, _)| series.starts_with("http_requests_total")).unwrap();
    let expected: Vec<(i64, u64)> =
        (1..4_u8).map(|at| (NOW_MS + i64::from(at) * 1000, f64::from(at).to_bits())).collect();
    assert_eq!(own.1, expected);
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect();
    Answer { status: status.try_into().unwrap(), headers, body: body.to_owned().into() }
}

fn written(samples: u64) -> Vec<(&'static str, String)> {
    vec![("x-prometheus-remote-write-samples-written", samples.to_string())]
}

fn answer_written(status: u16, samples: u64) -> Answer {
    let headers = written(samples);
    answer(status, &headers.iter().map(|(k, v)| (*k, v.as_str())).collect::<Vec<_>>(), "out of order")
}

#[test]
fn of_two_values_at_one_time_the_first_is_sent_and_the_other_named_as_refused() {
    let mut out = builder();
    out.record(&HEAT, &[("a", "1")], 1.0);
    out.record(&HEAT, &[("a", "1")], 1.0);
    out.record(&HEAT, &[("a", "1"), ("empty", "")], 2.0);
    let exporter = exporter(|config| config.protocol = Protocol::V1);
    let records = delivery([out.finish()]);
    let flat = flat_v1(&sent_v1(&exporter, &records));
    assert_eq!(values(&flat)["heat_celsius{a=\"1\",instance=\"web-1\",job=\"host\"}"], 1.0);
    match exporter.judge(&records, &answer(204, &[], "")) {
        Outcome::Partly { refused: Refused::Records(at), why } => {
            assert_eq!(at, [2], "the same value again is no conflict");
            assert!(why.contains("same time"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

/// Metrics of one series that no builder makes.
fn raw(data: Data, attributes: &[(&str, &str)]) -> Metrics {
    let mut table = SeriesTable::default();
    let common = &mut table.common;
    common.resources.push(Resource::default());
    common.scopes.push(Scope::default());
    let attributes = common.add_texts(attributes.iter().copied());
    let name = common.arena.add(b"x");
    table.metrics.push(Metric {
        scope: 0,
        name,
        description: Default::default(),
        unit: Default::default(),
        data,
        metadata: Default::default(),
    });
    table.series.push(Series { metric: 0, attributes });
    Metrics { table: Arc::new(table), ..Metrics::default() }
}

fn number(value: Number, flags: u32) -> NumberPoint {
    NumberPoint { value, flags, time_unix_nano: NOW, ..NumberPoint::default() }
}

#[test]
fn keys_that_become_one_name_join_their_values_in_the_order_of_the_keys() {
    let mut metrics = raw(Data::Gauge, &[("a_b", "3"), ("a.b", "1"), ("a-b", "0"), ("c", "")]);
    metrics.numbers.push(number(Number::Int(1), 0));
    let message = sent_v1(&exporter(|config| config.protocol = Protocol::V1), &delivery([metrics]));
    assert_eq!(flat_v1(&message).into_keys().collect::<Vec<_>>(), ["x{a_b=\"0;1;3\"}"]);
}

#[test]
fn a_point_without_a_value_becomes_the_staleness_marker() {
    let mut metrics = raw(Data::Gauge, &[]);
    metrics.numbers.push(number(Number::None, NO_RECORDED_VALUE));
    let message = sent_v2(&exporter(|config| config.protocol = Protocol::V2), &delivery([metrics]));
    assert_eq!(flat_v2(&message)["x"], [(NOW_MS, 0x7ff0_0000_0000_0002)]);
    let mut ended = raw(Data::Histogram(Temporality::Cumulative), &[]);
    ended.histograms.push(HistogramPoint {
        distribution: Distribution {
            time_unix_nano: NOW,
            flags: NO_RECORDED_VALUE,
            sum: Some(0.0),
            ..Distribution::default()
        },
        explicit_bounds: vec![1.0],
        bucket_counts: vec![0, 0],
    });
    let flat = flat_v1(&sent_v1(&exporter(|config| config.protocol = Protocol::V1), &delivery([ended])));
    assert_eq!(flat.len(), 4, "both buckets, sum and count: {flat:?}");
    assert!(flat.values().all(|samples| samples == &[(NOW_MS, 0x7ff0_0000_0000_0002)]));
}

#[test]
fn exponential_histograms_become_native_ones_in_both_versions() {
    let mut metrics = raw(Data::ExponentialHistogram(Temporality::Cumulative), &[("a", "b")]);
    let distribution = Distribution {
        count: 9,
        sum: Some(4.0),
        time_unix_nano: NOW,
        start_time_unix_nano: NOW - 5 * MS,
        ..Distribution::default()
    };
    metrics.exponential.push(ExponentialPoint {
        distribution,
        scale: 2,
        zero_count: 1,
        zero_threshold: 0.0,
        positive: Some(Buckets { offset: 1, counts: vec![3, 1] }),
        negative: Some(Buckets { offset: -4, counts: vec![4] }),
    });
    let expected = NativeMessage {
        count_int: Some(9),
        sum: 4.0,
        schema: 2,
        zero_threshold: 1e-128,
        zero_count_int: Some(1),
        negative_spans: vec![Span { offset: -3, length: 1 }],
        negative_deltas: vec![4],
        positive_spans: vec![Span { offset: 2, length: 2 }],
        positive_deltas: vec![3, -2],
        timestamp: NOW_MS,
        start_timestamp: 0,
    };
    let records = delivery([metrics]);
    let first = sent_v1(&exporter(|config| config.protocol = Protocol::V1), &records);
    assert_eq!(first.timeseries[0].histograms, std::slice::from_ref(&expected));
    assert!(first.timeseries[0].samples.is_empty());
    let second = sent_v2(&exporter(|config| config.protocol = Protocol::V2), &records);
    assert_eq!(second.timeseries[0].histograms, [NativeMessage { start_timestamp: NOW_MS - 5, ..expected }]);
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_position_and_reason() {
    let mut metrics = raw(Data::Gauge, &[]);
    metrics.numbers.push(number(Number::None, 0));
    metrics.numbers.push(number(Number::Int(1), 0));
    metrics.numbers.push(NumberPoint { time_unix_nano: 0, ..number(Number::Int(1), 0) });
    let exporter = exporter(|config| config.protocol = Protocol::V1);
    let records = delivery([metrics]);
    exporter.encode(&records).unwrap();
    match exporter.judge(&records, &answer(204, &[], "")) {
        Outcome::Partly { refused: Refused::Records(at), why } => {
            assert_eq!(at, [0, 2]);
            assert!(why.contains("no value"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let mut delta = raw(Data::Sum { temporality: Temporality::Delta, monotonic: true }, &[]);
    delta.numbers.push(number(Number::Int(1), 0));
    match exporter.encode(&delivery([delta])) {
        Err(Outcome::Never { why }) => assert!(why.contains("deltas"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(exporter.encode(&delivery([])).unwrap_err(), Outcome::Accepted);
}

#[test]
fn target_info_is_sent_once_a_minute_and_never_goes_back_in_time() {
    let exporter = exporter(|config| {
        config.protocol = Protocol::V1;
        config.resource_attributes = vec!["deployment.environment.name".into()];
    });
    let mut out = MetricsBuilder::new(
        "app",
        [
            ("service.namespace", "shop"),
            ("service.name", "cart"),
            ("service.instance.id", "i1"),
            ("deployment.environment.name", "prod"),
            ("os.type", "linux"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec(),
    );
    let own = "deployment_environment_name=\"prod\",instance=\"i1\",job=\"shop/cart\"";
    let info = format!("target_info{{{own},os_type=\"linux\"}}");
    let mut send = |seconds: u64, accepted: bool| {
        out.begin(NOW + seconds * 1000 * MS, NOW);
        out.record(&HEAT, &[], 1.0);
        let records = delivery([out.finish()]);
        let flat = flat_v1(&sent_v1(&exporter, &records));
        assert!(flat.contains_key(&format!("heat_celsius{{{own}}}")), "{flat:?}");
        exporter.judge(&records, &answer(if accepted { 204 } else { 503 }, &[], ""));
        flat.contains_key(&info)
    };
    assert!(send(100, false), "the first request tells who it is");
    assert!(send(100, true), "and again, since it was not taken");
    assert!(!send(110, true));
    assert!(!send(90, true), "an older payload must not send the series back");
    assert!(send(160, true));
}

#[test]
fn every_answer_has_one_meaning() {
    let outcome = |protocol, status: u16, headers: &[(&str, &str)], records: usize| {
        let exporter = exporter(|config| config.protocol = protocol);
        let mut metrics = raw(Data::Gauge, &[]);
        for at in 0..records {
            metrics.numbers.push(NumberPoint { time_unix_nano: NOW + at as u64 * MS, ..number(Number::Int(1), 0) });
        }
        let records = delivery([metrics]);
        exporter.encode(&records).unwrap();
        exporter.judge(&records, &answer(status, headers, "because"))
    };
    let two =
        [("x-prometheus-remote-write-samples-written", "2"), ("x-prometheus-remote-write-exemplars-written", "0")];
    let one = [("x-prometheus-remote-write-samples-written", "1")];
    let none = [("x-prometheus-remote-write-samples-written", "0")];
    let (v1, v2, auto) = (Protocol::V1, Protocol::V2, Protocol::Auto);

    assert_eq!(outcome(v1, 200, &[], 2), Outcome::Accepted);
    assert_eq!(outcome(v2, 204, &two, 2), Outcome::Accepted);
    assert_eq!(outcome(auto, 204, &two, 2), Outcome::Accepted);
    let Outcome::Partly { refused: Refused::Count(1), why } = outcome(v2, 204, &one, 2) else { panic!() };
    assert!(why.contains("left out 1 of 2"), "{why}");
    let zero = Some(Duration::ZERO);
    for status in [204, 400, 415] {
        let outcome = outcome(auto, status, &[], 2);
        assert!(matches!(outcome, Outcome::Later { after, .. } if after == zero), "{status}: {outcome:?}");
    }
    for (protocol, status, headers) in [
        (v2, 204, &[][..]),
        (v2, 415, &[][..]),
        (v1, 415, &[][..]),
        (v1, 404, &[][..]),
        (v1, 301, &[][..]),
        (v1, 500, &[][..]),
        (v2, 503, &none[..]),
        (v1, 200, &[("content-type", "text/html; charset=utf-8")][..]),
    ] {
        let outcome = outcome(protocol, status, headers, 2);
        assert!(matches!(outcome, Outcome::Later { after: None, .. }), "{protocol:?} {status}: {outcome:?}");
    }
    let Outcome::Later { why, .. } = outcome(v1, 404, &[], 1) else { panic!() };
    assert!(why.contains("/api/v1/write") && why.contains("--web.enable-remote-write-receiver"), "{why}");
    let limited = outcome(v1, 429, &[("retry-after", "7")], 2);
    assert!(matches!(limited, Outcome::Later { after, .. } if after == Some(Duration::from_secs(7))), "{limited:?}");
    for (protocol, headers) in [(v1, &[][..]), (v2, &one[..]), (v2, &[][..])] {
        assert!(matches!(outcome(protocol, 400, headers, 2), Outcome::Split { .. }), "{protocol:?} {headers:?}");
        assert!(matches!(outcome(protocol, 400, &headers[..0], 1), Outcome::Never { .. }));
    }
    assert!(matches!(outcome(v2, 400, &none, 2), Outcome::Never { .. }), "nothing of it was right");
    assert_eq!(outcome(v2, 400, &two, 2), Outcome::Accepted, "only exemplars were refused");
    assert!(matches!(outcome(v1, 413, &[], 2), Outcome::Split { .. }));
    for status in [401, 403] {
        assert!(matches!(outcome(v1, status, &[], 2), Outcome::Unauthorized { .. }));
    }
}

#[test]
fn a_receiver_that_has_proved_2_0_is_not_taken_for_an_old_one_because_of_a_400() {
    let exporter = exporter(|_| {});
    let mut metrics = raw(Data::Gauge, &[]);
    metrics.numbers.push(number(Number::Int(1), 0));
    let records = delivery([metrics]);
    exporter.encode(&records).unwrap();
    assert_eq!(exporter.judge(&records, &answer_written(204, 1)), Outcome::Accepted);
    exporter.encode(&records).unwrap();
    assert!(matches!(exporter.judge(&records, &answer(400, &[], "")), Outcome::Never { .. }));
    assert_eq!(exporter.encode(&records).unwrap().headers()["x-prometheus-remote-write-version"], "2.0.0");
}

#[test]
fn a_check_tells_a_wrong_port_path_key_and_product_apart() {
    let place = "http://prometheus:9090/api/v1/write";
    let fault = |status, headers: &[(&str, &str)]| {
        check(Version::V2, &answer(status, headers, "why"), true, place).unwrap_err()
    };
    for (status, headers, kind, part) in [
        (404, &[][..], FaultKind::NotFound, "--web.enable-remote-write-receiver"),
        (401, &[][..], FaultKind::Unauthorized, "bearer_token"),
        (200, &[("content-type", "text/html")][..], FaultKind::NotFound, "web page"),
        (302, &[][..], FaultKind::NotFound, "redirects"),
        (503, &[][..], FaultKind::Other, "try again later"),
    ] {
        let fault = fault(status, headers);
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(part) && fault.message.contains(place), "{fault}");
    }
    assert_eq!(check(Version::V2, &answer_written(204, 0), true, place), Ok(true));
    assert_eq!(check(Version::V2, &answer(204, &[], ""), true, place), Ok(false));
    assert_eq!(check(Version::V2, &answer(415, &[], ""), true, place), Ok(false));
    assert_eq!(check(Version::V1, &answer(204, &[], ""), true, place), Ok(true));
    assert!(check(Version::V2, &answer(204, &[], ""), false, place).is_err());
}

#[test]
fn options_are_checked_and_an_address_without_a_path_gets_that_of_prometheus() {
    let made = |configure: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        configure(&mut config);
        Prometheus::new(config, &context())
    };
    let bare = made(&|config| config.endpoint = Some("http://user:hunter2@p:9090".parse().unwrap())).ok().unwrap();
    assert_eq!(bare.uri.to_string(), "http://p:9090/api/v1/write");
    assert_eq!(bare.place, "http://p:9090/api/v1/write");
    assert!(bare.headers.contains_key("authorization"));
    let tenant = made(&|config| config.tenant = Some("a".into())).ok().unwrap();
    assert_eq!(tenant.headers["x-scope-orgid"], "a");
    let fault = made(&|config| {
        config.headers.insert("Content-Encoding".into(), Secret::new("gzip"));
    });
    assert!(fault.err().unwrap().message.contains("set by the protocol"));
    let fault = made(&|config| {
        config.external_labels.insert("a.b".into(), "c".into());
    });
    assert!(fault.err().unwrap().message.contains("`a.b` is no label name"));
}

/// Versions and messages in the order of their arrival.
type Received = Arc<StdMutex<Vec<(String, Vec<u8>)>>>;

/// A receiver on loopback that keeps what it got.
async fn receiver(speaks_v2: bool) -> (String, Received) {
    let got = Received::default();
    let kept = got.clone();
    let app = axum::Router::new().route(
        "/api/v1/write",
        axum::routing::post(move |headers: HeaderMap, body: Bytes| async move {
            let version = headers["x-prometheus-remote-write-version"].to_str().unwrap().to_owned();
            let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
            let count = if version == "2.0.0" {
                v2::Request::decode(body.as_slice()).unwrap().timeseries.iter().map(|s| s.samples.len()).sum()
            } else {
                0
            };
            kept.lock().unwrap().push((version, body));
            let mut answer = HeaderMap::new();
            if speaks_v2 {
                answer.insert("x-prometheus-remote-write-samples-written", HeaderValue::from(count as u64));
            }
            (http::StatusCode::NO_CONTENT, answer)
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), got)
}

fn over_http(endpoint: &str) -> OverHttp<Prometheus> {
    let config = Config { endpoint: Some(endpoint.parse().unwrap()), ..Config::default() };
    OverHttp::new(config, &HttpOptions::default(), &context()).unwrap()
}

#[tokio::test]
async fn an_old_receiver_gets_the_same_records_again_as_1_0_and_only_that_from_then_on() {
    let (address, got) = receiver(false).await;
    let exporter = over_http(&address);
    let records = delivery([every_kind()]);
    let outcome = exporter.export(&records).await;
    assert!(matches!(&outcome, Outcome::Later { after, .. } if *after == Some(Duration::ZERO)), "{outcome:?}");
    assert_eq!(exporter.export(&records).await, Outcome::Accepted);
    assert_eq!(exporter.export(&records).await, Outcome::Accepted);
    let got = got.lock().unwrap();
    let versions: Vec<&str> = got.iter().map(|(version, _)| version.as_str()).collect();
    assert_eq!(versions, ["2.0.0", "0.1.0", "0.1.0"]);
    let first = flat_v2(&v2::Request::decode(got[0].1.as_slice()).unwrap());
    assert_eq!(first, flat_v1(&v1::WriteRequest::decode(got[1].1.as_slice()).unwrap()));
}

#[tokio::test]
async fn a_check_finds_out_the_version_without_sending_a_sample() {
    for (speaks_v2, version) in [(true, "2.0"), (false, "1.0")] {
        let (address, got) = receiver(speaks_v2).await;
        let proved = over_http(&address).check().await.unwrap();
        assert_eq!(proved, format!("{address}/api/v1/write takes remote write {version}"));
        for (version, body) in got.lock().unwrap().iter() {
            assert_eq!(
                body.as_slice(),
                if version == "2.0.0" { &[0x22, 0][..] } else { &[][..] },
                "nothing but the empty symbol"
            );
        }
    }
    let fault = over_http("http://127.0.0.1:1").check().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
}
