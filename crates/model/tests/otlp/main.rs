//! The OTLP codec against an independent one: prost and the message types of opentelemetry-proto.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cost;
mod hostile;
mod json;
mod metrics_table;
mod normal;
mod requests;
mod round_trip;
