//! The data that flows through Weir, in OpenTelemetry's model and names.
//!
//! A [`Batch`] carries a [`Payload`] from one origin together with the [`Receipt`] that its source
//! waits for. A payload is the wire form exactly as it was received, the decoded form, or both:
//! it is decoded at most once, and only when somebody reads records.
//!
//! - [`common`]: what the records of a batch share (text, attributes, resources, scopes)
//! - [`metrics`], [`logs`], [`traces`]: the decoded records
//! - [`build`]: how a collector makes metrics, keeping its series from poll to poll
//! - [`exposition`]: Prometheus' text formats
//! - [`otlp`]: OTLP protobuf and OTLP/JSON, both directions
//! - [`receipt`]: settled once, and never silently

pub mod arena;
pub mod batch;
pub mod build;
pub mod common;
pub mod exposition;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod receipt;
pub mod split;
pub mod traces;

pub use arena::{Arena, Text};
pub use batch::{Batch, Encoding, Payload, Records, Signal, Wire};
pub use build::{Kind, MetricDescription, MetricsBuilder};
pub use common::{Attribute, Attributes, Common, Resource, Scope, Value};
pub use otlp::DecodeError;
pub use receipt::{Claim, Receipt, Settled, Verdict};
