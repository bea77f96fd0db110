//! OTLP, the protocol of OpenTelemetry, in both directions and over both transports.
//!
//! Source: opentelemetry-proto `docs/specification.md` (1.x) and the gRPC protocol over HTTP/2
//! (`PROTOCOL-HTTP2.md`). The records themselves are read and written by `weir_model::otlp`; here
//! are only addresses, framing and answers.
//!
//! - `exporter.rs`: the kind `otlp`; `judge.rs`: what a backend's answer means
//! - `receiver.rs`: the kind `otlp_receiver`
//! - `grpc.rs`: message framing and answers of gRPC; `channel.rs`: unary calls of a client
//! - `status.rs`: `google.rpc.Status` and partial success, in protobuf and JSON

mod channel;
mod exporter;
mod grpc;
mod judge;
mod receiver;
mod status;
#[cfg(test)]
mod tests;

pub use exporter::KIND as EXPORTER;
pub(crate) use exporter::protobufs;
pub(crate) use judge::{is_page, of_http};
pub use receiver::{KIND as RECEIVER, Sink, routes};

use weir_model::{Encoding, Signal};

/// Content type of OTLP/HTTP with binary protobuf.
pub(crate) const PROTOBUF_TYPE: &str = "application/x-protobuf";

/// Content type of OTLP/HTTP with JSON.
const JSON_TYPE: &str = "application/json";

/// The content type of an encoding.
fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => PROTOBUF_TYPE,
        Encoding::Json => JSON_TYPE,
    }
}

/// The path of a signal over HTTP, below the base address.
pub(crate) fn http_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "/v1/metrics",
        Signal::Logs => "/v1/logs",
        Signal::Traces => "/v1/traces",
    }
}

/// The path of a signal's unary `Export` call over gRPC.
fn grpc_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    }
}

/// The encoding that a `Content-Type` names; `None` if it is neither of OTLP's two.
fn encoding_of(headers: &http::HeaderMap) -> Option<Encoding> {
    let value = headers.get(http::header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        PROTOBUF_TYPE | "application/protobuf" => Some(Encoding::Protobuf),
        JSON_TYPE => Some(Encoding::Json),
        _ => None,
    }
}
