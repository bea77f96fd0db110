//! Decoded spans.

use crate::arena::Text;
use crate::common::{Attributes, Common};

/// The spans of one batch.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// Text, attributes, resources and scopes.
    pub common: Common,
    /// The spans.
    pub spans: Vec<Span>,
    /// Events of the spans; a span holds a range.
    pub events: Vec<Event>,
    /// Links of the spans; a span holds a range.
    pub links: Vec<Link>,
}

/// One span (OTLP `Span`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    /// Index into [`Common::scopes`].
    pub scope: u32,
    /// 16 bytes.
    pub trace_id: Text,
    /// 8 bytes.
    pub span_id: Text,
    /// W3C trace state.
    pub trace_state: Text,
    /// 8 bytes, or empty for a root span.
    pub parent_span_id: Text,
    /// W3C trace flags and the remote bits.
    pub flags: u32,
    /// Name of the operation.
    pub name: Text,
    /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Start, unix nanoseconds.
    pub start_time_unix_nano: u64,
    /// End, unix nanoseconds.
    pub end_time_unix_nano: u64,
    /// Attributes of this span.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Start and length of its range in [`Traces::events`].
    pub events: (u32, u32),
    /// How many events the sender left out.
    pub dropped_events_count: u32,
    /// Start and length of its range in [`Traces::links`].
    pub links: (u32, u32),
    /// How many links the sender left out.
    pub dropped_links_count: u32,
    /// How it ended; `None` where the sender sent no status message.
    pub status: Option<Status>,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// 0 unset, 1 ok, 2 error.
    pub code: i32,
    /// Text for people.
    pub message: Text,
}

/// Something that happened during a span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Event {
    /// Unix nanoseconds.
    pub time_unix_nano: u64,
    /// Name of the event.
    pub name: Text,
    /// Attributes of the event.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
}

/// A reference from a span to another one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// 16 bytes.
    pub trace_id: Text,
    /// 8 bytes.
    pub span_id: Text,
    /// W3C trace state of the linked span.
    pub trace_state: Text,
    /// Attributes of the link.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// W3C trace flags.
    pub flags: u32,
}

impl Traces {
    /// The events of a span.
    pub fn events_of(&self, span: &Span) -> &[Event] {
        let (start, length) = (span.events.0 as usize, span.events.1 as usize);
        self.events.get(start..start + length).unwrap_or_default()
    }

    /// The links of a span.
    pub fn links_of(&self, span: &Span) -> &[Link] {
        let (start, length) = (span.links.0 as usize, span.links.1 as usize);
        self.links.get(start..start + length).unwrap_or_default()
    }
}
