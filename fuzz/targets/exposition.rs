//! Prometheus text and OpenMetrics, as scraped targets and `exec` programs print them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::accept;
use weir_model::exposition::{Attach, Document, Format, Limits};
use weir_model::{Encoding, MetricsBuilder, Records, Signal, otlp};

const NOW: u64 = 1_700_000_000_000_000_000;

fuzz_target!(|text: &[u8]| {
    for format in [Format::Text, Format::OpenMetrics] {
        let limits = Limits { samples: 1000, labels: 20 };
        let document = match Document::parse(text.to_vec(), format, limits) {
            Ok(document) => document,
            Err(error) => {
                let lines = text.split(|byte| *byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&error.line), "line {} of {lines}: {error}", error.line);
                assert!(!error.message.is_empty());
                continue;
            }
        };
        let attach = Attach {
            labels: &[("job", "fuzz"), ("instance", "localhost:9100")],
            reserved: &["job", "instance"],
            ..Attach::default()
        };
        let mut out = MetricsBuilder::new("fuzz", Vec::new());
        out.begin(NOW, 0);
        let parsed = document.record(&attach, &mut out);
        assert_eq!(parsed.samples, document.sample_lines());
        assert!(parsed.samples <= limits.samples);
        assert_eq!(out.len(), parsed.points);
        assert!(parsed.points <= parsed.samples);
        assert_eq!(document.series_added(Some(&document)), 0, "it has all of its own series");
        let metrics = Records::Metrics(out.finish());
        let bytes = otlp::encode_protobuf(&metrics);
        assert_eq!(accept(Signal::Metrics, Encoding::Protobuf, &bytes).len(), parsed.points);
        assert_eq!(document.record_end(Some(&document), &attach, &mut out), 0, "none of its series has ended");
        assert!(document.record_end(None, &attach, &mut out) <= parsed.samples);
    }
});
