//! The OTLP messages as tables, for the walk that checks a request.
//!
//! Field numbers and types: opentelemetry-proto 1.9, `opentelemetry/proto/{common,resource,metrics,
//! logs,trace}/v1` and `collector/*/v1`.

use crate::batch::Signal;

/// Field numbers above this are unknown to the schema.
const LARGEST_FIELD: usize = 16;

/// A message: its fields by field number.
pub(crate) struct Message {
    fields: [Field; LARGEST_FIELD + 1],
}

/// A field of a message.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// Name in the schema.
    pub(crate) name: &'static str,
    /// Type.
    pub(crate) kind: Kind,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Not in the schema: skipped by its wire type.
    Unknown,
    /// Number of variable length.
    Varint,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// Numbers of variable length, packed or one by one.
    PackedVarint,
    /// Numbers of eight bytes, packed or one by one.
    PackedFixed64,
    /// A message.
    Message(&'static Message),
    /// A message that counts as one record.
    Record(&'static Message),
    /// The data of a metric: of these fields the last one wins, and only its records count.
    Data(&'static Message),
    /// A `KeyValue`: most fields of a request are these, so the walk knows them by heart.
    KeyValue,
}

impl Message {
    /// The field with a number.
    #[inline(always)]
    pub(crate) fn field(&self, number: u32) -> &Field {
        self.fields.get(number as usize).unwrap_or(&UNKNOWN)
    }
}

static UNKNOWN: Field = Field { name: "", kind: Kind::Unknown };

#[allow(clippy::indexing_slicing)] // Evaluated by the compiler, which refuses what is out of bounds.
const fn message(list: &[(usize, &'static str, Kind)]) -> Message {
    let mut fields = [Field { name: "", kind: Kind::Unknown }; LARGEST_FIELD + 1];
    let mut at = 0;
    while at < list.len() {
        let (number, name, kind) = list[at];
        fields[number] = Field { name, kind };
        at += 1;
    }
    Message { fields }
}

/// The request of a signal.
pub(crate) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Metrics => &METRICS_REQUEST,
        Signal::Logs => &LOGS_REQUEST,
        Signal::Traces => &TRACES_REQUEST,
    }
}

use Kind::{Bytes, Data, Fixed32, Fixed64, KeyValue, PackedFixed64, PackedVarint, Record, Text, Varint};

pub(crate) static KEY_VALUE: Message =
    message(&[(1, "key", Text), (2, "value", Kind::Message(&ANY_VALUE)), (3, "key_strindex", Varint)]);

static ANY_VALUE: Message = message(&[
    (1, "string_value", Text),
    (2, "bool_value", Varint),
    (3, "int_value", Varint),
    (4, "double_value", Fixed64),
    (5, "array_value", Kind::Message(&ARRAY_VALUE)),
    (6, "kvlist_value", Kind::Message(&KEY_VALUE_LIST)),
    (7, "bytes_value", Bytes),
    (8, "string_value_strindex", Varint),
]);

static ARRAY_VALUE: Message = message(&[(1, "values", Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = message(&[(1, "values", KeyValue)]);

static SCOPE: Message = message(&[
    (1, "name", Text),
    (2, "version", Text),
    (3, "attributes", KeyValue),
    (4, "dropped_attributes_count", Varint),
]);

static ENTITY_REF: Message =
    message(&[(1, "schema_url", Text), (2, "type", Text), (3, "id_keys", Text), (4, "description_keys", Text)]);

static RESOURCE: Message = message(&[
    (1, "attributes", KeyValue),
    (2, "dropped_attributes_count", Varint),
    (3, "entity_refs", Kind::Message(&ENTITY_REF)),
]);

static LOGS_REQUEST: Message = message(&[(1, "resource_logs", Kind::Message(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = message(&[
    (1, "resource", Kind::Message(&RESOURCE)),
    (2, "scope_logs", Kind::Message(&SCOPE_LOGS)),
    (3, "schema_url", Text),
]);
static SCOPE_LOGS: Message =
    message(&[(1, "scope", Kind::Message(&SCOPE)), (2, "log_records", Record(&LOG_RECORD)), (3, "schema_url", Text)]);
static LOG_RECORD: Message = message(&[
    (1, "time_unix_nano", Fixed64),
    (2, "severity_number", Varint),
    (3, "severity_text", Text),
    (5, "body", Kind::Message(&ANY_VALUE)),
    (6, "attributes", KeyValue),
    (7, "dropped_attributes_count", Varint),
    (8, "flags", Fixed32),
    (9, "trace_id", Bytes),
    (10, "span_id", Bytes),
    (11, "observed_time_unix_nano", Fixed64),
    (12, "event_name", Text),
]);

static TRACES_REQUEST: Message = message(&[(1, "resource_spans", Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = message(&[
    (1, "resource", Kind::Message(&RESOURCE)),
    (2, "scope_spans", Kind::Message(&SCOPE_SPANS)),
    (3, "schema_url", Text),
]);
static SCOPE_SPANS: Message =
    message(&[(1, "scope", Kind::Message(&SCOPE)), (2, "spans", Record(&SPAN)), (3, "schema_url", Text)]);
static SPAN: Message = message(&[
    (1, "trace_id", Bytes),
    (2, "span_id", Bytes),
    (3, "trace_state", Text),
    (4, "parent_span_id", Bytes),
    (5, "name", Text),
    (6, "kind", Varint),
    (7, "start_time_unix_nano", Fixed64),
    (8, "end_time_unix_nano", Fixed64),
    (9, "attributes", KeyValue),
    (10, "dropped_attributes_count", Varint),
    (11, "events", Kind::Message(&EVENT)),
    (12, "dropped_events_count", Varint),
    (13, "links", Kind::Message(&LINK)),
    (14, "dropped_links_count", Varint),
    (15, "status", Kind::Message(&STATUS)),
    (16, "flags", Fixed32),
]);
static EVENT: Message = message(&[
    (1, "time_unix_nano", Fixed64),
    (2, "name", Text),
    (3, "attributes", KeyValue),
    (4, "dropped_attributes_count", Varint),
]);
static LINK: Message = message(&[
    (1, "trace_id", Bytes),
    (2, "span_id", Bytes),
    (3, "trace_state", Text),
    (4, "attributes", KeyValue),
    (5, "dropped_attributes_count", Varint),
    (6, "flags", Fixed32),
]);
static STATUS: Message = message(&[(2, "message", Text), (3, "code", Varint)]);

static METRICS_REQUEST: Message = message(&[(1, "resource_metrics", Kind::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Message = message(&[
    (1, "resource", Kind::Message(&RESOURCE)),
    (2, "scope_metrics", Kind::Message(&SCOPE_METRICS)),
    (3, "schema_url", Text),
]);
static SCOPE_METRICS: Message =
    message(&[(1, "scope", Kind::Message(&SCOPE)), (2, "metrics", Kind::Message(&METRIC)), (3, "schema_url", Text)]);
static METRIC: Message = message(&[
    (1, "name", Text),
    (2, "description", Text),
    (3, "unit", Text),
    (5, "gauge", Data(&GAUGE)),
    (7, "sum", Data(&SUM)),
    (9, "histogram", Data(&HISTOGRAM)),
    (10, "exponential_histogram", Data(&EXPONENTIAL_HISTOGRAM)),
    (11, "summary", Data(&SUMMARY)),
    (12, "metadata", KeyValue),
]);
static GAUGE: Message = message(&[(1, "data_points", Record(&NUMBER_POINT))]);
static SUM: Message = message(&[
    (1, "data_points", Record(&NUMBER_POINT)),
    (2, "aggregation_temporality", Varint),
    (3, "is_monotonic", Varint),
]);
static HISTOGRAM: Message =
    message(&[(1, "data_points", Record(&HISTOGRAM_POINT)), (2, "aggregation_temporality", Varint)]);
static EXPONENTIAL_HISTOGRAM: Message =
    message(&[(1, "data_points", Record(&EXPONENTIAL_POINT)), (2, "aggregation_temporality", Varint)]);
static SUMMARY: Message = message(&[(1, "data_points", Record(&SUMMARY_POINT))]);
static NUMBER_POINT: Message = message(&[
    (2, "start_time_unix_nano", Fixed64),
    (3, "time_unix_nano", Fixed64),
    (4, "as_double", Fixed64),
    (5, "exemplars", Kind::Message(&EXEMPLAR)),
    (6, "as_int", Fixed64),
    (7, "attributes", KeyValue),
    (8, "flags", Varint),
]);
static HISTOGRAM_POINT: Message = message(&[
    (2, "start_time_unix_nano", Fixed64),
    (3, "time_unix_nano", Fixed64),
    (4, "count", Fixed64),
    (5, "sum", Fixed64),
    (6, "bucket_counts", PackedFixed64),
    (7, "explicit_bounds", PackedFixed64),
    (8, "exemplars", Kind::Message(&EXEMPLAR)),
    (9, "attributes", KeyValue),
    (10, "flags", Varint),
    (11, "min", Fixed64),
    (12, "max", Fixed64),
]);
static EXPONENTIAL_POINT: Message = message(&[
    (1, "attributes", KeyValue),
    (2, "start_time_unix_nano", Fixed64),
    (3, "time_unix_nano", Fixed64),
    (4, "count", Fixed64),
    (5, "sum", Fixed64),
    (6, "scale", Varint),
    (7, "zero_count", Fixed64),
    (8, "positive", Kind::Message(&BUCKETS)),
    (9, "negative", Kind::Message(&BUCKETS)),
    (10, "flags", Varint),
    (11, "exemplars", Kind::Message(&EXEMPLAR)),
    (12, "min", Fixed64),
    (13, "max", Fixed64),
    (14, "zero_threshold", Fixed64),
]);
static BUCKETS: Message = message(&[(1, "offset", Varint), (2, "bucket_counts", PackedVarint)]);
static SUMMARY_POINT: Message = message(&[
    (2, "start_time_unix_nano", Fixed64),
    (3, "time_unix_nano", Fixed64),
    (4, "count", Fixed64),
    (5, "sum", Fixed64),
    (6, "quantile_values", Kind::Message(&VALUE_AT_QUANTILE)),
    (7, "attributes", KeyValue),
    (8, "flags", Varint),
]);
static VALUE_AT_QUANTILE: Message = message(&[(1, "quantile", Fixed64), (2, "value", Fixed64)]);
static EXEMPLAR: Message = message(&[
    (2, "time_unix_nano", Fixed64),
    (3, "as_double", Fixed64),
    (4, "span_id", Bytes),
    (5, "trace_id", Bytes),
    (6, "as_int", Fixed64),
    (7, "filtered_attributes", KeyValue),
]);
