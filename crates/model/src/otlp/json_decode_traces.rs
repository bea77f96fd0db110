//! Decoding spans from OTLP/JSON.

use bytes::Bytes;

use super::error::DecodeError;
use super::json_decode_common::{JsonDecoder, TRACES_KEYS, decode_with};
use crate::common::index;
use crate::traces::{Event, Link, Span, Status, Traces};

/// Decodes an `ExportTraceServiceRequest`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Traces, DecodeError> {
    let (common, traces) = decode_with(bytes, |decoder| {
        let mut traces = Traces::default();
        decoder.each_item(&TRACES_KEYS, &mut |decoder, scope| {
            let span = span(decoder, &mut traces, scope)?;
            traces.spans.push(span);
            Ok(1)
        })?;
        Ok(traces)
    })?;
    Ok(Traces { common, ..traces })
}

fn span(decoder: &mut JsonDecoder<'_>, traces: &mut Traces, scope: u32) -> Result<Span, DecodeError> {
    let mut span = Span { scope, ..Span::default() };
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "traceId" => span.trace_id = decoder.id()?,
            "spanId" => span.span_id = decoder.id()?,
            "traceState" => span.trace_state = decoder.text()?,
            "parentSpanId" => span.parent_span_id = decoder.id()?,
            "flags" => span.flags = decoder.json.u32()?,
            "name" => span.name = decoder.text()?,
            "kind" => span.kind = decoder.json.i32()?,
            "startTimeUnixNano" => span.start_time_unix_nano = decoder.json.u64()?,
            "endTimeUnixNano" => span.end_time_unix_nano = decoder.json.u64()?,
            "attributes" => span.attributes = decoder.attributes()?,
            "droppedAttributesCount" => span.dropped_attributes_count = decoder.json.u32()?,
            "events" => span.events = list(decoder, &mut traces.events, event)?,
            "droppedEventsCount" => span.dropped_events_count = decoder.json.u32()?,
            "links" => span.links = list(decoder, &mut traces.links, link)?,
            "droppedLinksCount" => span.dropped_links_count = decoder.json.u32()?,
            "status" => span.status = Some(status(decoder)?),
            _ => decoder.json.skip()?,
        }
    }
    Ok(span)
}

fn list<T>(
    decoder: &mut JsonDecoder<'_>,
    out: &mut Vec<T>,
    read: fn(&mut JsonDecoder<'_>) -> Result<T, DecodeError>,
) -> Result<(u32, u32), DecodeError> {
    let first = out.len();
    let mut array = decoder.json.array()?;
    while decoder.json.element(&mut array)? {
        out.push(read(decoder)?);
    }
    let length = index(out.len() - first);
    Ok(if length == 0 { (0, 0) } else { (index(first), length) })
}

fn event(decoder: &mut JsonDecoder<'_>) -> Result<Event, DecodeError> {
    let mut event = Event::default();
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "timeUnixNano" => event.time_unix_nano = decoder.json.u64()?,
            "name" => event.name = decoder.text()?,
            "attributes" => event.attributes = decoder.attributes()?,
            "droppedAttributesCount" => event.dropped_attributes_count = decoder.json.u32()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(event)
}

fn link(decoder: &mut JsonDecoder<'_>) -> Result<Link, DecodeError> {
    let mut link = Link::default();
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "traceId" => link.trace_id = decoder.id()?,
            "spanId" => link.span_id = decoder.id()?,
            "traceState" => link.trace_state = decoder.text()?,
            "attributes" => link.attributes = decoder.attributes()?,
            "droppedAttributesCount" => link.dropped_attributes_count = decoder.json.u32()?,
            "flags" => link.flags = decoder.json.u32()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(link)
}

fn status(decoder: &mut JsonDecoder<'_>) -> Result<Status, DecodeError> {
    let mut status = Status::default();
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "message" => status.message = decoder.text()?,
            "code" => status.code = decoder.json.i32()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(status)
}
