//! What exporters make of records from outside: readable JSON, native histograms.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_model::{Encoding, Records, Signal, otlp};

#[path = "../../integrations/observability/src/prometheus/native.rs"]
mod native;
#[path = "../../integrations/observability/src/readable.rs"]
mod readable;

fuzz_target!(|bytes: &[u8]| {
    for signal in Signal::ALL {
        let Ok(payload) = otlp::accept(signal, Encoding::Protobuf, Bytes::copy_from_slice(bytes)) else { continue };
        let records = payload.records().expect("what was accepted decodes");
        let mut objects = 0;
        for record in readable::of(records) {
            let json = serde_json::to_string(&record).expect("every record has a JSON form");
            let read: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
            assert!(read.is_object());
            objects += 1;
        }
        assert_eq!(objects, records.len(), "one object per record");
        if let Records::Metrics(metrics) = records {
            metrics.exponential.iter().for_each(|point| drop(native::native(point)));
        }
    }
});
