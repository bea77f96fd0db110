//! Queues and streams.

mod kafka;

use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] = &[kafka::EXPORTER, kafka::RECEIVER];
