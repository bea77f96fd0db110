//! The embedded store: a write-ahead log on disk and a compressed head in memory.
//!
//! An append is answered once its samples are on the disk; many appends share one sync. Everything
//! that is kept can be read from memory; after a restart the log is read again.
//!
//! - [`store`]: [`Store`], its options and statistics; [`export`]: the store as an exporter of the pipeline
//! - [`labels`], [`map`]: series and their labels, and how OpenTelemetry's points become samples
//! - [`chunk`], [`series`], [`index`], [`head`], [`evict`]: what is in memory, and how it goes again
//! - [`record`], [`segment`], [`replay`], [`writer`]: what is on disk, and the thread that owns it
//! - [`select`], [`read`]: questions and answers

mod chunk;
mod error;
mod evict;
mod export;
mod head;
mod index;
mod labels;
mod map;
mod read;
mod record;
mod replay;
mod segment;
mod select;
mod series;
mod stats;
mod store;
mod writer;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use chunk::decode_and_encode;
pub use error::{AppendError, OpenError, ReadError};
pub use export::StoreExporter;
pub use labels::{Label, Labels, MetricInfo, MetricKind, NAME, Series, SeriesRef};
#[doc(hidden)]
pub use replay::{Replayed, replay_bytes, replay_payload};
pub use select::{MatchOp, Matcher, MetricEntry, Samples, Select, SeriesData, SeriesSource};
pub use stats::Stats;
pub use store::{Appended, Committed, Options, Store, Sync};

/// The value of a sample that says "this series ended": a NaN with these bits, as in Prometheus
/// (`model/value`, `StaleNaN`).
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a sample says that its series ended. No comparison tells: NaN is equal to nothing.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_BITS
}
