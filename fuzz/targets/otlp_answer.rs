//! What OTLP servers answer: gRPC frames and trailers, `google.rpc.Status`, partial success.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use libfuzzer_sys::fuzz_target;
use weir_model::{Encoding, Signal};

#[path = "../../integrations/observability/src/otlp/grpc.rs"]
mod grpc;
#[path = "../../integrations/observability/src/otlp/status.rs"]
mod status;

/// The largest message that is read.
const LIMIT_BYTES: usize = 1 << 16;

/// Status and partial success of a body, in both encodings: what was read is written and read again.
fn bodies(body: &[u8]) {
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        // A status stands in the body of an error: one that says OK, or nothing, counts as unknown.
        let status = status::Status::decode(encoding, body);
        if let Some(status) = status.filter(|status| status.code != status::Code::Ok) {
            assert_eq!(status::Status::decode(encoding, &status.encode(encoding)), Some(status));
        }
        for signal in Signal::ALL {
            if let Some(partial) = status::PartialSuccess::decode(signal, encoding, body) {
                let again = status::PartialSuccess::decode(signal, encoding, &partial.encode(signal, encoding));
                assert_eq!(again, Some(partial));
            }
        }
    }
}

/// The body as two frames of a gRPC call.
fn frames(body: &[u8], cut: usize) {
    let (first, second) = body.split_at(cut.min(body.len()));
    let frames = [first, second].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part))));
    let read = grpc::read_unary(StreamBody::new(stream::iter(frames)), LIMIT_BYTES);
    let read = read.now_or_never().expect("everything is there");
    if let Ok(grpc::Unary { message: Some((_, message)), .. }) = read {
        assert!(message.len() <= LIMIT_BYTES);
        assert_eq!(message.len() + 5, body.len(), "one message is all of the body");
    }
}

/// The lines of the body as the three headers that carry a status.
fn trailers(body: &[u8]) {
    let names = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    let lines = body.split(|byte| *byte == b'\n');
    let values = names
        .into_iter()
        .zip(lines)
        .filter_map(|(name, line)| Some((HeaderName::from_static(name), HeaderValue::from_bytes(line).ok()?)));
    let _ = grpc::status_of(&HeaderMap::new(), &values.collect());
}

fuzz_target!(|bytes: &[u8]| {
    bodies(bytes);
    trailers(bytes);
    if let Some((&cut, body)) = bytes.split_first() {
        frames(body, cut.into());
    }
});
