//! OTLP protobuf requests: Weir takes what the reference decoder takes, and loses nothing of it.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use weir_fuzz::{encode_and_accept_again, halve};
use weir_model::{Encoding, Signal, otlp};

fn reference_takes(signal: Signal, bytes: &[u8]) -> bool {
    match signal {
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).is_ok(),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).is_ok(),
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).is_ok(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    for signal in Signal::ALL {
        let accepted = otlp::accept(signal, Encoding::Protobuf, Bytes::copy_from_slice(bytes));
        assert_eq!(accepted.is_ok(), reference_takes(signal, bytes), "{signal:?}: {accepted:?}");
        if let Ok(payload) = accepted {
            let records = encode_and_accept_again(&payload);
            assert!(reference_takes(signal, &otlp::encode_protobuf(records)), "the reference takes what Weir encodes");
            halve(records);
        }
    }
});
