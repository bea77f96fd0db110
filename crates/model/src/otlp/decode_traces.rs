//! Decoding spans.

use bytes::Bytes;

use super::decode_common::{Decoder, Place, each_item, low_32_bits, low_signed, next};
use super::error::DecodeError;
use super::reader::{Range, WireType};
use crate::common::index;
use crate::traces::{Event, Link, Span, Status, Traces};

const EVENTS: u32 = 11;
const LINKS: u32 = 13;

struct TracesDecoder<'a> {
    decoder: Decoder<'a>,
    spans: Vec<Span>,
    events: Vec<Event>,
    links: Vec<Link>,
}

/// Decodes an `ExportTraceServiceRequest`.
pub(crate) fn decode(base: &Bytes) -> Result<Traces, DecodeError> {
    let decoder = Decoder::new(base, base)?;
    let mut traces = TracesDecoder { decoder, spans: Vec::new(), events: Vec::new(), links: Vec::new() };
    each_item(
        &mut traces,
        |traces| &mut traces.decoder,
        |traces, count| traces.spans.reserve(count),
        |traces, range, place| traces.span(range, place),
    )?;
    let TracesDecoder { decoder, spans, events, links } = traces;
    Ok(Traces { common: decoder.common, spans, events, links })
}

impl TracesDecoder<'_> {
    fn span(&mut self, range: Range, place: &mut Place) -> Result<(), DecodeError> {
        let decoder = &mut self.decoder;
        let mut span = Span { scope: place.scope_index(decoder)?, ..Span::default() };
        // Events and links have attributes of their own, so they wait until the span's are complete.
        let (mut has_events, mut has_links) = (false, false);
        let start = decoder.common.attributes.len();
        let mut reader = decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Length) => span.trace_id = decoder.text(&mut reader)?,
                (2, WireType::Length) => span.span_id = decoder.text(&mut reader)?,
                (3, WireType::Length) => span.trace_state = decoder.text(&mut reader)?,
                (4, WireType::Length) => span.parent_span_id = decoder.text(&mut reader)?,
                (5, WireType::Length) => span.name = decoder.text(&mut reader)?,
                (6, WireType::Varint) => span.kind = low_signed(reader.varint()?),
                (7, WireType::Fixed64) => span.start_time_unix_nano = reader.fixed64()?,
                (8, WireType::Fixed64) => span.end_time_unix_nano = reader.fixed64()?,
                (9, WireType::Length) => decoder.attribute(reader.length()?)?,
                (10, WireType::Varint) => span.dropped_attributes_count = low_32_bits(reader.varint()?),
                (EVENTS, WireType::Length) => {
                    reader.length()?;
                    has_events = true;
                }
                (12, WireType::Varint) => span.dropped_events_count = low_32_bits(reader.varint()?),
                (LINKS, WireType::Length) => {
                    reader.length()?;
                    has_links = true;
                }
                (14, WireType::Varint) => span.dropped_links_count = low_32_bits(reader.varint()?),
                (15, WireType::Length) => span.status = Some(status(decoder, reader.length()?)?),
                (16, WireType::Fixed32) => span.flags = reader.fixed32()?,
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        span.attributes = decoder.attributes_since(start)?;
        if has_events {
            span.events = self.events(range)?;
        }
        if has_links {
            span.links = self.links(range)?;
        }
        self.spans.push(span);
        Ok(())
    }

    fn events(&mut self, span: Range) -> Result<(u32, u32), DecodeError> {
        let first = self.events.len();
        let mut fields = self.decoder.reader(span);
        while let Some(range) = next(&mut fields, EVENTS)? {
            let event = event(&mut self.decoder, range)?;
            self.events.push(event);
        }
        Ok((index(first), index(self.events.len() - first)))
    }

    fn links(&mut self, span: Range) -> Result<(u32, u32), DecodeError> {
        let first = self.links.len();
        let mut fields = self.decoder.reader(span);
        while let Some(range) = next(&mut fields, LINKS)? {
            let link = link(&mut self.decoder, range)?;
            self.links.push(link);
        }
        Ok((index(first), index(self.links.len() - first)))
    }
}

fn event(decoder: &mut Decoder<'_>, range: Range) -> Result<Event, DecodeError> {
    let mut event = Event::default();
    let start = decoder.common.attributes.len();
    let mut reader = decoder.reader(range);
    while !reader.is_done() {
        match reader.key()? {
            (1, WireType::Fixed64) => event.time_unix_nano = reader.fixed64()?,
            (2, WireType::Length) => event.name = decoder.text(&mut reader)?,
            (3, WireType::Length) => decoder.attribute(reader.length()?)?,
            (4, WireType::Varint) => event.dropped_attributes_count = low_32_bits(reader.varint()?),
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    event.attributes = decoder.attributes_since(start)?;
    Ok(event)
}

fn link(decoder: &mut Decoder<'_>, range: Range) -> Result<Link, DecodeError> {
    let mut link = Link::default();
    let start = decoder.common.attributes.len();
    let mut reader = decoder.reader(range);
    while !reader.is_done() {
        match reader.key()? {
            (1, WireType::Length) => link.trace_id = decoder.text(&mut reader)?,
            (2, WireType::Length) => link.span_id = decoder.text(&mut reader)?,
            (3, WireType::Length) => link.trace_state = decoder.text(&mut reader)?,
            (4, WireType::Length) => decoder.attribute(reader.length()?)?,
            (5, WireType::Varint) => link.dropped_attributes_count = low_32_bits(reader.varint()?),
            (6, WireType::Fixed32) => link.flags = reader.fixed32()?,
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    link.attributes = decoder.attributes_since(start)?;
    Ok(link)
}

fn status(decoder: &Decoder<'_>, range: Range) -> Result<Status, DecodeError> {
    let mut status = Status::default();
    let mut reader = decoder.reader(range);
    while !reader.is_done() {
        match reader.key()? {
            (2, WireType::Length) => status.message = decoder.text(&mut reader)?,
            (3, WireType::Varint) => status.code = low_signed(reader.varint()?),
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok(status)
}
