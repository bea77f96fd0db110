//! Decoded log records.

use crate::arena::Text;
use crate::common::{Attributes, Common, Value};

/// The log records of one batch.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// Text, attributes, resources and scopes.
    pub common: Common,
    /// The records; neighbours share a scope as they came.
    pub records: Vec<LogRecord>,
}

/// One log record (OTLP `LogRecord`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// Index into [`Common::scopes`].
    pub scope: u32,
    /// When it happened, unix nanoseconds; 0 = unknown.
    pub time_unix_nano: u64,
    /// When it was seen, unix nanoseconds; 0 = unknown.
    pub observed_time_unix_nano: u64,
    /// Severity 1 to 24; 0 = unset.
    pub severity_number: i32,
    /// Severity as the source wrote it.
    pub severity_text: Text,
    /// The message.
    pub body: Value,
    /// Attributes of this record.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// W3C trace flags in the lowest 8 bits.
    pub flags: u32,
    /// 16 bytes, or empty.
    pub trace_id: Text,
    /// 8 bytes, or empty.
    pub span_id: Text,
    /// Name of the event class, or empty.
    pub event_name: Text,
}

impl Logs {
    /// Gives back the room that was kept for more records: a batch that is complete may wait for long.
    pub fn shrink_to_fit(&mut self) {
        self.common.arena.shrink_to_fit();
        self.common.attributes.shrink_to_fit();
        self.records.shrink_to_fit();
    }
}
