//! OTLP/JSON requests: what is accepted encodes in both encodings, and is the same afterwards.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::{accept, encode_and_accept_again};
use weir_model::{Encoding, Signal, otlp};

fuzz_target!(|bytes: &[u8]| {
    for signal in Signal::ALL {
        let Ok(payload) = otlp::accept(signal, Encoding::Json, Bytes::copy_from_slice(bytes)) else { continue };
        let records = encode_and_accept_again(&payload);
        let again = accept(signal, Encoding::Json, &otlp::encode_json(records));
        let decoded = again.records().expect("what was accepted decodes");
        assert_eq!(otlp::encode_protobuf(decoded), otlp::encode_protobuf(records), "JSON keeps every field");
    }
});
