//! Encoding spans as OTLP/JSON.

use super::encode_traces::SPAN_DEPTH;
use super::json_decode_common::TRACES_KEYS;
use super::json_encode_common::{JsonContainers, attributes};
use super::json_writer::JsonWriter;
use crate::common::Common;
use crate::traces::{Event, Link, Span, Traces};

/// Encodes an `ExportTraceServiceRequest`.
pub(crate) fn encode(traces: &Traces) -> Vec<u8> {
    let common = &traces.common;
    let mut out = JsonWriter::with_capacity(2 * common.arena.len() + 256);
    let mut containers = JsonContainers::new(&mut out, common, &TRACES_KEYS);
    for one in &traces.spans {
        containers.enter(&mut out, one.scope);
        span(&mut out, traces, one);
    }
    containers.finish(&mut out);
    out.finish()
}

fn span(out: &mut JsonWriter, traces: &Traces, span: &Span) {
    let common = &traces.common;
    out.open(b'{');
    out.id("traceId", common.arena.bytes(span.trace_id));
    out.id("spanId", common.arena.bytes(span.span_id));
    out.text("traceState", common.text(span.trace_state));
    out.id("parentSpanId", common.arena.bytes(span.parent_span_id));
    out.number("flags", span.flags.into());
    out.text("name", common.text(span.name));
    out.number("kind", span.kind.into());
    out.long("startTimeUnixNano", span.start_time_unix_nano);
    out.long("endTimeUnixNano", span.end_time_unix_nano);
    attributes(out, common, "attributes", span.attributes, SPAN_DEPTH);
    out.number("droppedAttributesCount", span.dropped_attributes_count.into());
    list(out, common, "events", traces.events_of(span), event);
    out.number("droppedEventsCount", span.dropped_events_count.into());
    list(out, common, "links", traces.links_of(span), link);
    out.number("droppedLinksCount", span.dropped_links_count.into());
    if let Some(status) = span.status {
        out.object("status");
        out.text("message", common.text(status.message));
        out.number("code", status.code.into());
        out.close(b'}');
    }
    out.close(b'}');
}

fn list<T>(
    out: &mut JsonWriter,
    common: &Common,
    key: &'static str,
    items: &[T],
    write: fn(&mut JsonWriter, &Common, &T),
) {
    if !items.is_empty() {
        out.array(key);
        items.iter().for_each(|item| write(out, common, item));
        out.close(b']');
    }
}

fn event(out: &mut JsonWriter, common: &Common, event: &Event) {
    out.open(b'{');
    out.long("timeUnixNano", event.time_unix_nano);
    out.text("name", common.text(event.name));
    attributes(out, common, "attributes", event.attributes, SPAN_DEPTH + 1);
    out.number("droppedAttributesCount", event.dropped_attributes_count.into());
    out.close(b'}');
}

fn link(out: &mut JsonWriter, common: &Common, link: &Link) {
    out.open(b'{');
    out.id("traceId", common.arena.bytes(link.trace_id));
    out.id("spanId", common.arena.bytes(link.span_id));
    out.text("traceState", common.text(link.trace_state));
    attributes(out, common, "attributes", link.attributes, SPAN_DEPTH + 1);
    out.number("droppedAttributesCount", link.dropped_attributes_count.into());
    out.number("flags", link.flags.into());
    out.close(b'}');
}
