//! Apache Kafka in both directions, over librdkafka.
//!
//! - `connection.rs`: brokers, credentials and other options of librdkafka, checked at the start;
//!   `voice.rs`: what librdkafka says
//! - `exporter.rs`: the kind `kafka`; `message.rs` makes messages of a delivery, `producer.rs` sends them and
//!   waits for their delivery reports, `judge.rs` knows what those mean
//! - `consumer.rs`: the kind `kafka_consumer`; `run.rs` reads from the brokers, `partition.rs` hands in what
//!   one partition brought, `decode.rs` makes records of messages
//!
//! Sources: librdkafka 2.12 `INTRODUCTION.md` and `CONFIGURATION.md`; KIP-98 and KIP-360 (idempotent producer),
//! KIP-429 (cooperative rebalance); the Kafka exporter and receiver of the OpenTelemetry Collector (encodings).

mod connection;
mod consumer;
mod decode;
mod exporter;
mod judge;
mod message;
mod partition;
mod producer;
mod run;
#[cfg(test)]
mod tests;
mod voice;

pub use consumer::KIND as RECEIVER;
pub use exporter::KIND as EXPORTER;

use weir_model::{Encoding, Signal};

/// The header of a message that names its encoding.
const CONTENT_TYPE: &str = "content-type";
/// The header of a message that names its signal.
const SIGNAL: &str = "signal";

/// Where the Collector's Kafka exporter writes a signal and its receiver reads it, by default.
fn default_topic(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "otlp_metrics",
        Signal::Logs => "otlp_logs",
        Signal::Traces => "otlp_spans",
    }
}

/// The content type of an encoding, as OTLP over HTTP has it.
fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    }
}
