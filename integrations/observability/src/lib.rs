//! Backends and protocols of observability.

mod console;
mod credentials;
mod elasticsearch;
mod file;
mod influxdb;
mod otlp;
mod prometheus;
mod prometheus_scrape;
mod readable;
mod webhook;
pub mod weir;

pub use otlp::{Sink as OtlpSink, routes as otlp_routes};
use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] = &[
    otlp::EXPORTER,
    otlp::RECEIVER,
    prometheus::KIND,
    prometheus_scrape::KIND,
    console::KIND,
    file::KIND,
    webhook::KIND,
    weir::KIND,
    elasticsearch::KIND,
    influxdb::KIND,
];
