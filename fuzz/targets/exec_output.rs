//! What programs print for `exec`: JSON, CSV, line protocol, Nagios performance data, single values.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use weir_model::metrics::Number;
use weir_pipeline::MetricsBuilder;

#[path = "../../integrations/system/src/exec/cell.rs"]
mod cell;
#[path = "../../integrations/system/src/exec/csv.rs"]
mod csv;
#[path = "../../integrations/system/src/exec/influx.rs"]
mod influx;
#[path = "../../integrations/system/src/exec/json.rs"]
mod json;
#[path = "../../integrations/system/src/exec/nagios.rs"]
mod nagios;
#[path = "../../integrations/system/src/exec/sample.rs"]
mod sample;

use sample::{BadOutput, Naming, Sample};

/// What came out: places exist, numbers are finite, and all of them can be recorded.
fn checked(text: &[u8], parse: impl FnOnce(&mut Vec<Sample>) -> Result<(), BadOutput>) {
    let mut samples = Vec::new();
    if let Err(error) = parse(&mut samples) {
        let lines = text.split(|byte| *byte == b'\n' || *byte == b'\r').count() as u64 + 1;
        assert!(error.line <= lines, "line {} of {lines}: {}", error.line, error.problem);
        assert!(!error.problem.is_empty());
    }
    let mut out = MetricsBuilder::new("exec", Vec::new());
    out.begin(1, 0);
    let naming = Naming { prefix: "fuzz".to_owned(), ..Naming::default() };
    for sample in &samples {
        assert!(!matches!(sample.value, Number::None), "a missing value is no sample");
        assert!(sample.value.as_f64().is_some_and(f64::is_finite), "{sample:?}");
        naming.record(sample, &mut out);
    }
    assert_eq!(out.len(), samples.len());
}

fuzz_target!(|bytes: &[u8]| {
    let keys = || vec!["name".to_owned(), "id".to_owned()];
    let options = json::JsonOptions { label_keys: keys(), numbers_in_strings: true };
    checked(bytes, |samples| json::parse(bytes, &options, samples));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    checked(bytes, |samples| influx::parse(text, samples));
    checked(bytes, |samples| nagios::parse(text, samples));
    for (has_header, columns) in [(true, Vec::new()), (false, keys()), (true, keys())] {
        let (label_columns, number_columns) = (vec!["name".to_owned()], vec!["id".to_owned()]);
        let options = csv::CsvOptions { delimiter: b',', has_header, columns, label_columns, number_columns };
        checked(bytes, |samples| csv::parse(text, &options, samples));
    }
    if let cell::Cell::Number(number) = cell::read(text) {
        assert!(number.as_f64().is_some_and(f64::is_finite));
    }
});
