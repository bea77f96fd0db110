//! Names and numbers as Prometheus writes them.
//!
//! OpenTelemetry's names follow its specification "Prometheus and OpenMetrics compatibility":
//! characters that Prometheus does not allow become `_`, the unit's word and `_total` are added.
//! Names that came from Prometheus stay as they are.

use std::borrow::Cow;

use weir_model::metrics::Data;

/// UCUM units and their words (OpenTelemetry specification, "Metric Metadata").
const UNITS: [(&str, &str); 30] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("bit", "bits"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("$", "dollars"),
    ("USD", "dollars"),
    ("1", ""),
];

/// Units below a fraction bar.
const PER_UNITS: [(&str, &str); 7] =
    [("s", "second"), ("min", "minute"), ("h", "hour"), ("d", "day"), ("wk", "week"), ("mo", "month"), ("a", "year")];

fn is_name_byte(byte: u8, may_be_colon: bool) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (may_be_colon && byte == b':')
}

fn is_valid(name: &str, may_have_colons: bool) -> bool {
    let starts_right = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    starts_right && name.bytes().all(|byte| is_name_byte(byte, may_have_colons))
}

/// Whether a name may be a label of Prometheus' own form, `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(super) fn is_label_name(name: &str) -> bool {
    is_valid(name, false)
}

/// A label's name. Attributes may not take the place of the metric's name.
pub(super) fn label_name(key: &str) -> Cow<'_, str> {
    if key == "__name__" {
        return Cow::Borrowed("exported___name__");
    }
    if is_label_name(key) {
        return Cow::Borrowed(key);
    }
    let name = replace_runs(key, false);
    Cow::Owned(if name.starts_with(|first: char| first.is_ascii_digit()) { format!("key_{name}") } else { name })
}

/// Every run of characters that are not allowed becomes one `_`.
fn replace_runs(name: &str, may_have_colons: bool) -> String {
    let mut clean = String::with_capacity(name.len());
    for character in name.chars() {
        let byte = u8::try_from(character).unwrap_or(b' ');
        if is_name_byte(byte, may_have_colons) {
            clean.push(character);
        } else if !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean
}

/// A metric's name without suffixes of type or unit: for metrics that came from Prometheus.
pub(super) fn plain_metric_name(name: &str) -> Cow<'_, str> {
    if is_valid(name, true) {
        return Cow::Borrowed(name);
    }
    let clean = replace_runs(name, true);
    Cow::Owned(if clean.starts_with(|first: char| first.is_ascii_digit()) { format!("_{clean}") } else { clean })
}

/// A metric's name with the words of its unit, and `_total` or `_ratio` where its kind asks for it.
pub(super) fn metric_name(name: &str, unit: &str, data: Data) -> String {
    let clean = plain_metric_name(name);
    let is_counter = matches!(data, Data::Sum { monotonic: true, .. });
    let stem = if is_counter { clean.strip_suffix("_total").unwrap_or(&clean) } else { &clean };
    let mut full = stem.trim_end_matches('_').to_owned();
    let has = |full: &str, word: &str| full.split('_').any(|token| token == word);
    let unit_words = unit_words(unit);
    if !unit_words.is_empty() && !full.ends_with(&format!("_{unit_words}")) && !has(&full, &unit_words) {
        full.push('_');
        full.push_str(&unit_words);
    }
    if is_counter {
        full.push_str("_total");
    } else if unit == "1" && data == Data::Gauge && !has(&full, "ratio") {
        full.push_str("_ratio");
    }
    full
}

/// `By` to `bytes`, `By/s` to `bytes_per_second`; what stands in braces is for people and left out.
pub(super) fn unit_words(unit: &str) -> String {
    let (main, per) = unit.split_once('/').map_or((unit, None), |(main, per)| (main, Some(per)));
    let word = |text: &str, words: &[(&str, &str)]| {
        let text = text.trim();
        if text.contains('{') {
            return String::new();
        }
        let known = words.iter().find(|(unit, _)| *unit == text).map(|(_, word)| (*word).to_owned());
        known.unwrap_or_else(|| replace_runs(text, false).trim_matches('_').to_owned())
    };
    let main = word(main, &UNITS);
    let per = per.map(|per| word(per, &PER_UNITS)).filter(|per| !per.is_empty());
    match (main.is_empty(), per) {
        (_, None) => main,
        (true, Some(per)) => format!("per_{per}"),
        (false, Some(per)) => format!("{main}_per_{per}"),
    }
}

/// A bound or quantile as Go's client writes it (`strconv.FormatFloat(v, 'g', -1, 64)`), so that
/// buckets of scraped targets keep their label.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_model::metrics::Temporality;

    const COUNTER: Data = Data::Sum { temporality: Temporality::Cumulative, monotonic: true };
    const UP_DOWN: Data = Data::Sum { temporality: Temporality::Cumulative, monotonic: false };

    #[test]
    fn opentelemetry_names_become_those_of_its_specification() {
        for (name, unit, data, expected) in [
            ("system.cpu.time", "s", COUNTER, "system_cpu_time_seconds_total"),
            ("system.memory.usage", "By", UP_DOWN, "system_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Data::Gauge, "system_cpu_utilization_ratio"),
            ("requests", "1", COUNTER, "requests_total"),
            ("requests_total", "{request}", COUNTER, "requests_total"),
            (
                "http.server.duration",
                "ms",
                Data::Histogram(Temporality::Cumulative),
                "http_server_duration_milliseconds",
            ),
            ("disk.io", "By/s", Data::Gauge, "disk_io_bytes_per_second"),
            ("rate", "{request}/s", Data::Gauge, "rate_per_second"),
            ("process_cpu_seconds_total", "s", COUNTER, "process_cpu_seconds_total"),
            ("temp", "Cel", Data::Gauge, "temp_celsius"),
            ("2xx", "", Data::Gauge, "_2xx"),
            ("größe.a--b", "", Data::Gauge, "gr_e_a_b"),
            ("job:rate5m", "", Data::Gauge, "job:rate5m"),
        ] {
            assert_eq!(metric_name(name, unit, data), expected, "{name} in {unit}");
        }
    }

    #[test]
    fn names_from_prometheus_stay_as_they_are() {
        for name in ["node_cpu_seconds_total", "a__b", "job:x:rate5m", "_private", "foo"] {
            assert_eq!(plain_metric_name(name), name);
        }
        assert_eq!(plain_metric_name("my.metric"), "my_metric");
    }

    #[test]
    fn label_names_are_made_valid() {
        for (key, expected) in [
            ("http.method", "http_method"),
            ("1st", "key_1st"),
            ("a__b", "a__b"),
            ("a..b", "a_b"),
            ("__name__", "exported___name__"),
            ("with:colon", "with_colon"),
        ] {
            assert_eq!(label_name(key), expected);
        }
    }

    #[test]
    fn bounds_look_as_in_gos_client() {
        for (value, text) in [
            (0.005, "0.005"),
            (1.0, "1"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5, "-2.5"),
            (0.0, "0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float_text(value), text);
        }
    }

    proptest! {
        #[test]
        fn any_name_and_key_becomes_a_valid_one(name in ".{1,20}", unit in ".{0,6}") {
            for data in [Data::Gauge, COUNTER, UP_DOWN] {
                let full = metric_name(&name, &unit, data);
                prop_assert!(full.is_empty() || is_valid(&full, true), "{full}");
            }
            let label = label_name(&name);
            prop_assert!(is_label_name(&label), "{label}");
        }

        #[test]
        fn a_written_float_reads_back_the_same(value in any::<f64>()) {
            let read: f64 = float_text(value).parse().unwrap();
            prop_assert!(read == value || (read.is_nan() && value.is_nan()));
        }
    }
}
