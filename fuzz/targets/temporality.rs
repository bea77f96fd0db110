//! Conversion of temporality: every point comes out or is counted, whatever the points say.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::accept;
use weir_model::metrics::{Metrics, Temporality};
use weir_model::{Encoding, Records, Signal, otlp};
use weir_pipeline::temporality::Converter;

/// Few, so that series are evicted.
const MAX_SERIES: usize = 4;

fn convert(converter: &mut Converter, metrics: Metrics) -> Metrics {
    let before = metrics.len() as u64;
    let converted = converter.convert(metrics);
    assert_eq!(converted.metrics.len() as u64 + converted.dropped, before, "no point vanishes uncounted");
    assert_eq!(converted.dropped, converted.first_points + converted.out_of_order);
    assert!(!converter.needs(&converted.metrics), "nothing is left to convert");
    converted.metrics
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(payload) = otlp::accept(Signal::Metrics, Encoding::Protobuf, Bytes::copy_from_slice(bytes)) else { return };
    let Ok(Records::Metrics(metrics)) = payload.into_records() else { panic!("what was accepted decodes") };
    for target in [Temporality::Delta, Temporality::Cumulative] {
        let other = if target == Temporality::Delta { Temporality::Cumulative } else { Temporality::Delta };
        let mut there = Converter::new(target, MAX_SERIES);
        let mut back = Converter::new(other, MAX_SERIES);
        for _ in 0..2 {
            let converted = convert(&mut there, metrics.clone());
            let points = converted.len();
            let bytes = otlp::encode_protobuf(&Records::Metrics(converted.clone()));
            assert_eq!(accept(Signal::Metrics, Encoding::Protobuf, &bytes).len(), points);
            convert(&mut back, converted);
        }
    }
});
