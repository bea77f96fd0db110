//! Encoding spans.

use bytes::Bytes;

use super::encode_common::{Containers, attributes};
use super::writer::Writer;
use crate::traces::{Event, Link, Span, Status, Traces};

/// Depth of a span, counted as in [`super::encode_common`].
pub(crate) const SPAN_DEPTH: u32 = 3;

/// Encodes an `ExportTraceServiceRequest`.
pub(crate) fn encode(traces: &Traces) -> Bytes {
    let common = &traces.common;
    let items = traces.spans.len() + traces.events.len() + traces.links.len();
    let mut out = Writer::with_capacity(common.arena.len() + 8 * common.attributes.len() + 96 * items);
    let mut containers = Containers::new(common);
    for one in traces.spans.iter().rev() {
        containers.enter(&mut out, one.scope);
        span(&mut out, traces, one);
    }
    containers.finish(&mut out);
    out.finish()
}

fn span(out: &mut Writer, traces: &Traces, span: &Span) {
    let arena = &traces.common.arena;
    let end = out.begin();
    out.fixed32(16, span.flags);
    if let Some(status) = span.status {
        self::status(out, traces, status);
    }
    out.unsigned(14, span.dropped_links_count);
    for link in traces.links_of(span).iter().rev() {
        self::link(out, traces, link);
    }
    out.unsigned(12, span.dropped_events_count);
    for event in traces.events_of(span).iter().rev() {
        self::event(out, traces, event);
    }
    out.unsigned(10, span.dropped_attributes_count);
    attributes(out, &traces.common, 9, span.attributes, SPAN_DEPTH);
    out.fixed64(8, span.end_time_unix_nano);
    out.fixed64(7, span.start_time_unix_nano);
    out.signed(6, span.kind);
    out.bytes_unless_empty(5, arena.bytes(span.name));
    out.bytes_unless_empty(4, arena.bytes(span.parent_span_id));
    out.bytes_unless_empty(3, arena.bytes(span.trace_state));
    out.bytes_unless_empty(2, arena.bytes(span.span_id));
    out.bytes_unless_empty(1, arena.bytes(span.trace_id));
    out.message(2, end);
}

fn status(out: &mut Writer, traces: &Traces, status: Status) {
    let end = out.begin();
    out.signed(3, status.code);
    out.bytes_unless_empty(2, traces.common.arena.bytes(status.message));
    out.message(15, end);
}

fn event(out: &mut Writer, traces: &Traces, event: &Event) {
    let end = out.begin();
    out.unsigned(4, event.dropped_attributes_count);
    attributes(out, &traces.common, 3, event.attributes, SPAN_DEPTH + 1);
    out.bytes_unless_empty(2, traces.common.arena.bytes(event.name));
    out.fixed64(1, event.time_unix_nano);
    out.message(11, end);
}

fn link(out: &mut Writer, traces: &Traces, link: &Link) {
    let arena = &traces.common.arena;
    let end = out.begin();
    out.fixed32(6, link.flags);
    out.unsigned(5, link.dropped_attributes_count);
    attributes(out, &traces.common, 4, link.attributes, SPAN_DEPTH + 1);
    out.bytes_unless_empty(3, arena.bytes(link.trace_state));
    out.bytes_unless_empty(2, arena.bytes(link.span_id));
    out.bytes_unless_empty(1, arena.bytes(link.trace_id));
    out.message(13, end);
}
