//! Arbitrary export requests, in the types of opentelemetry-proto.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1 as m;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A configuration that writes no files beside the tests: a failure prints its smallest input.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, max_shrink_iters: 512, ..ProptestConfig::default() }
}

/// Whether NaN and infinities may appear: the JSON side of opentelemetry-proto cannot read them everywhere.
#[derive(Clone, Copy)]
pub enum Doubles {
    All,
    Finite,
}

fn double(doubles: Doubles) -> BoxedStrategy<f64> {
    let finite = prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(5e-324),
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
    ];
    match doubles {
        Doubles::Finite => finite.boxed(),
        Doubles::All => {
            prop_oneof![5 => finite, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
                .boxed()
        }
    }
}

fn long() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0..300_u64]
}

fn signed() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), any::<i64>()]
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => any::<u32>()]
}

fn enumeration() -> impl Strategy<Value = i32> {
    prop_oneof![0..25_i32, Just(-1), Just(i32::MAX), Just(i32::MIN)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => "[a-z.]{1,12}",
        2 => "\\PC{0,8}",
        1 => "[\\x00-\\x20\"\\\\/\u{7f}é\u{1f600}]{0,6}",
        1 => "[x ]{120,140}",
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..40)]
}

fn id(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(Vec::new()), 4 => vec(any::<u8>(), length), 1 => vec(any::<u8>(), 1..4)]
}

fn any_value(doubles: Doubles) -> BoxedStrategy<AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        text().prop_map(|v| Some(Value::StringValue(v))),
        any::<bool>().prop_map(|v| Some(Value::BoolValue(v))),
        signed().prop_map(|v| Some(Value::IntValue(v))),
        double(doubles).prop_map(|v| Some(Value::DoubleValue(v))),
        bytes().prop_map(|v| Some(Value::BytesValue(v))),
        any::<i32>().prop_map(|v| Some(Value::StringValueStrindex(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let pair =
            (text(), option::of(inner.clone())).prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() });
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(pair, 0..4).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
    .boxed()
}

fn attributes(doubles: Doubles) -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (text(), option::weighted(0.9, any_value(doubles)), prop_oneof![9 => Just(0), 1 => any::<i32>()])
        .prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex });
    prop_oneof![1 => Just(Vec::new()), 2 => vec(pair, 0..4)]
}

fn entity_refs() -> impl Strategy<Value = Vec<EntityRef>> {
    let one = (text(), text(), vec(text(), 0..3), vec(text(), 0..3)).prop_map(
        |(schema_url, r#type, id_keys, description_keys)| EntityRef { schema_url, r#type, id_keys, description_keys },
    );
    prop_oneof![2 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

fn resource(doubles: Doubles) -> impl Strategy<Value = Option<Resource>> {
    option::weighted(
        0.8,
        (attributes(doubles), count(), entity_refs()).prop_map(
            |(attributes, dropped_attributes_count, entity_refs)| Resource {
                attributes,
                dropped_attributes_count,
                entity_refs,
            },
        ),
    )
}

fn scope(doubles: Doubles) -> impl Strategy<Value = Option<InstrumentationScope>> {
    option::weighted(
        0.8,
        (text(), text(), attributes(doubles), count()).prop_map(
            |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
                name,
                version,
                attributes,
                dropped_attributes_count,
            },
        ),
    )
}

fn log_record(doubles: Doubles) -> impl Strategy<Value = LogRecord> {
    let first = (long(), long(), enumeration(), text(), option::of(any_value(doubles)), attributes(doubles));
    let second = (count(), any::<u32>(), id(16), id(8), text());
    (first, second).prop_map(|(a, b)| LogRecord {
        time_unix_nano: a.0,
        observed_time_unix_nano: a.1,
        severity_number: a.2,
        severity_text: a.3,
        body: a.4,
        attributes: a.5,
        dropped_attributes_count: b.0,
        flags: b.1,
        trace_id: b.2,
        span_id: b.3,
        event_name: b.4,
    })
}

pub fn logs(doubles: Doubles) -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scopes = (scope(doubles), vec(log_record(doubles), 0..4), text())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let resources = (resource(doubles), vec(scopes, 0..3), text())
        .prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resources, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn event(doubles: Doubles) -> impl Strategy<Value = span::Event> {
    (long(), text(), attributes(doubles), count()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| span::Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link(doubles: Doubles) -> impl Strategy<Value = span::Link> {
    (id(16), id(8), text(), attributes(doubles), count(), count()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| span::Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn one_span(doubles: Doubles) -> impl Strategy<Value = Span> {
    let ids = (id(16), id(8), text(), id(8), text(), enumeration(), long(), long());
    let lists = (attributes(doubles), vec(event(doubles), 0..3), vec(link(doubles), 0..3));
    let status = option::of((text(), enumeration()).prop_map(|(message, code)| Status { message, code }));
    (ids, lists, (count(), count(), count()), any::<u32>(), status).prop_map(|(a, lists, dropped, flags, status)| {
        Span {
            trace_id: a.0,
            span_id: a.1,
            trace_state: a.2,
            parent_span_id: a.3,
            flags,
            name: a.4,
            kind: a.5,
            start_time_unix_nano: a.6,
            end_time_unix_nano: a.7,
            attributes: lists.0,
            dropped_attributes_count: dropped.0,
            events: lists.1,
            dropped_events_count: dropped.1,
            links: lists.2,
            dropped_links_count: dropped.2,
            status,
        }
    })
}

pub fn traces(doubles: Doubles) -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scopes = (scope(doubles), vec(one_span(doubles), 0..3), text())
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resources = (resource(doubles), vec(scopes, 0..3), text())
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resources, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn exemplar(doubles: Doubles) -> impl Strategy<Value = m::Exemplar> {
    let value = option::of(prop_oneof![
        double(doubles).prop_map(m::exemplar::Value::AsDouble),
        signed().prop_map(m::exemplar::Value::AsInt),
    ]);
    (attributes(doubles), long(), id(8), id(16), value).prop_map(
        |(filtered_attributes, time_unix_nano, span_id, trace_id, value)| m::Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        },
    )
}

fn exemplars(doubles: Doubles) -> impl Strategy<Value = Vec<m::Exemplar>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(exemplar(doubles), 1..3)]
}

fn number_point(doubles: Doubles) -> impl Strategy<Value = m::NumberDataPoint> {
    let value = option::weighted(
        0.9,
        prop_oneof![
            double(doubles).prop_map(m::number_data_point::Value::AsDouble),
            signed().prop_map(m::number_data_point::Value::AsInt),
        ],
    );
    (attributes(doubles), long(), long(), exemplars(doubles), count(), value).prop_map(
        |(attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value)| m::NumberDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            exemplars,
            flags,
            value,
        },
    )
}

fn optional(doubles: Doubles) -> impl Strategy<Value = Option<f64>> {
    option::of(double(doubles))
}

fn histogram_point(doubles: Doubles) -> impl Strategy<Value = m::HistogramDataPoint> {
    let first = (attributes(doubles), long(), long(), long(), optional(doubles), vec(long(), 0..4));
    let second = (vec(double(doubles), 0..4), exemplars(doubles), count(), optional(doubles), optional(doubles));
    (first, second).prop_map(|(a, b)| m::HistogramDataPoint {
        attributes: a.0,
        start_time_unix_nano: a.1,
        time_unix_nano: a.2,
        count: a.3,
        sum: a.4,
        bucket_counts: a.5,
        explicit_bounds: b.0,
        exemplars: b.1,
        flags: b.2,
        min: b.3,
        max: b.4,
    })
}

fn buckets() -> impl Strategy<Value = Option<m::exponential_histogram_data_point::Buckets>> {
    option::of(
        (enumeration(), vec(long(), 0..4))
            .prop_map(|(offset, bucket_counts)| m::exponential_histogram_data_point::Buckets { offset, bucket_counts }),
    )
}

fn exponential_point(doubles: Doubles) -> impl Strategy<Value = m::ExponentialHistogramDataPoint> {
    let first = (attributes(doubles), long(), long(), long(), optional(doubles), enumeration(), long());
    let second = (buckets(), buckets(), count(), exemplars(doubles), optional(doubles), optional(doubles));
    (first, second, double(doubles)).prop_map(|(a, b, zero_threshold)| m::ExponentialHistogramDataPoint {
        attributes: a.0,
        start_time_unix_nano: a.1,
        time_unix_nano: a.2,
        count: a.3,
        sum: a.4,
        scale: a.5,
        zero_count: a.6,
        positive: b.0,
        negative: b.1,
        flags: b.2,
        exemplars: b.3,
        min: b.4,
        max: b.5,
        zero_threshold,
    })
}

fn summary_point(doubles: Doubles) -> impl Strategy<Value = m::SummaryDataPoint> {
    let quantile = (double(doubles), double(doubles))
        .prop_map(|(quantile, value)| m::summary_data_point::ValueAtQuantile { quantile, value });
    (attributes(doubles), long(), long(), long(), double(doubles), vec(quantile, 0..3), count()).prop_map(|a| {
        m::SummaryDataPoint {
            attributes: a.0,
            start_time_unix_nano: a.1,
            time_unix_nano: a.2,
            count: a.3,
            sum: a.4,
            quantile_values: a.5,
            flags: a.6,
        }
    })
}

fn data(doubles: Doubles) -> BoxedStrategy<m::metric::Data> {
    let temporality = || prop_oneof![9 => 0..3_i32, 1 => enumeration()];
    prop_oneof![
        vec(number_point(doubles), 0..4).prop_map(|data_points| m::metric::Data::Gauge(m::Gauge { data_points })),
        (vec(number_point(doubles), 0..4), temporality(), any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| m::metric::Data::Sum(m::Sum {
                data_points,
                aggregation_temporality,
                is_monotonic,
            })
        ),
        (vec(histogram_point(doubles), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            m::metric::Data::Histogram(m::Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential_point(doubles), 0..3), temporality()).prop_map(|(data_points, aggregation_temporality)| {
            m::metric::Data::ExponentialHistogram(m::ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(summary_point(doubles), 0..3).prop_map(|data_points| m::metric::Data::Summary(m::Summary { data_points })),
    ]
    .boxed()
}

pub fn metrics(doubles: Doubles) -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric = (text(), text(), text(), attributes(doubles), option::weighted(0.9, data(doubles)))
        .prop_map(|(name, description, unit, metadata, data)| m::Metric { name, description, unit, metadata, data });
    let scopes = (scope(doubles), vec(metric, 0..4), text()).prop_map(|(scope, metrics, schema_url)| m::ScopeMetrics {
        scope,
        metrics,
        schema_url,
    });
    let resources = (resource(doubles), vec(scopes, 0..3), text())
        .prop_map(|(resource, scope_metrics, schema_url)| m::ResourceMetrics { resource, scope_metrics, schema_url });
    vec(resources, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}
