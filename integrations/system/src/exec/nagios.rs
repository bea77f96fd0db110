//! Nagios plugins: one line of text, `|`, and performance data (`'label'=value[UOM];warn;crit;min;max`),
//! as in the Monitoring Plugins development guidelines.

use weir_model::metrics::Number;
use weir_pipeline::MetricKind;

use super::cell;
use super::sample::{BadOutput, Sample, shown};

/// The exit status of a plugin that has checked: 0 ok, 1 warning, 2 critical, 3 unknown.
pub(super) fn is_state(exit_status: i32) -> bool {
    (0..=3).contains(&exit_status)
}

/// Reads the performance data of all lines; the values of a line before a mistake are kept.
pub(super) fn parse(text: &str, samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
    let mut first_problem = None;
    // After a `|` in the long output, the following lines are performance data too.
    let mut in_long_data = false;
    for (line, number) in text.lines().zip(1_u64..) {
        let data = match line.split_once('|') {
            Some((_, data)) => data,
            None if in_long_data => line,
            None => continue,
        };
        in_long_data |= number > 1;
        let mut rest = data.trim();
        while !rest.is_empty() {
            match value(rest) {
                Some((sample, after)) => {
                    samples.extend(sample);
                    rest = after.trim_start();
                }
                None => {
                    let problem = format!("expected performance data `label=value`, found `{}`", shown(rest));
                    first_problem.get_or_insert(BadOutput::new(number, problem));
                    break;
                }
            }
        }
    }
    first_problem.map_or(Ok(()), Err)
}

/// One `label=value` and the text behind it; no sample where the plugin says `U` (no value).
fn value(text: &str) -> Option<(Option<Sample>, &str)> {
    let (label, rest) = match text.strip_prefix('\'') {
        Some(quoted) => quoted_label(quoted)?,
        None => text.split_once('=').map(|(label, rest)| (label.to_owned(), rest))?,
    };
    let (data, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let printed = data.split(';').next().unwrap_or_default();
    if label.is_empty() {
        return None;
    }
    if printed == "U" {
        return Some((None, after));
    }
    let end = printed.find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+')).unwrap_or(printed.len());
    let (digits, unit) = printed.split_at(end);
    let (unit, factor, kind) = unit_of(unit)?;
    let number = cell::number(digits)?;
    let number = if factor == 1.0 { number } else { Number::Double(number.as_f64()? * factor) };
    Some((Some(Sample { unit, kind, ..Sample::gauge(label, Vec::new(), number) }), after))
}

/// A label in quotes, in which two quotes stand for one, and what follows its `=`.
fn quoted_label(text: &str) -> Option<(String, &str)> {
    let mut label = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                label.push('\'');
                rest = more;
            }
            None => return Some((label, after.strip_prefix('=')?)),
        }
    }
}

/// UCUM unit, factor and kind of a unit of measurement; `None` if it is no word.
fn unit_of(unit: &str) -> Option<(&'static str, f64, MetricKind)> {
    let gauge = |unit, factor| Some((unit, factor, MetricKind::Gauge));
    match unit {
        "" => gauge("", 1.0),
        "s" => gauge("s", 1.0),
        "ms" => gauge("s", 1e-3),
        "us" => gauge("s", 1e-6),
        "ns" => gauge("s", 1e-9),
        "%" => gauge("%", 1.0),
        "B" => gauge("By", 1.0),
        "KB" => gauge("By", 1024.0),
        "MB" => gauge("By", 1024.0 * 1024.0),
        "GB" => gauge("By", 1024.0 * 1024.0 * 1024.0),
        "TB" => gauge("By", 1024.0 * 1024.0 * 1024.0 * 1024.0),
        "c" => Some(("", 1.0, MetricKind::Counter)),
        word if word.chars().all(|c| c.is_alphabetic() || c == '/') => gauge("", 1.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Value = (String, f64, &'static str);

    fn read(text: &str) -> (Vec<Value>, Result<(), BadOutput>) {
        let mut samples = Vec::new();
        let result = parse(text, &mut samples);
        (samples.into_iter().map(|s| (s.path, s.value.as_f64().unwrap(), s.unit)).collect(), result)
    }

    #[test]
    fn performance_data_is_read_with_its_units() {
        let text = "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968 'it''s me'=12ms time=U\nlong text\nmore | a=1c\nb=2%\n";
        let (samples, result) = read(text);
        assert_eq!(result, Ok(()));
        assert_eq!(
            samples,
            [
                ("/".to_owned(), 2643.0 * 1_048_576.0, "By"),
                ("it's me".to_owned(), 0.012, "s"),
                ("a".to_owned(), 1.0, ""),
                ("b".to_owned(), 2.0, "%")
            ]
        );
    }

    #[test]
    fn a_plugin_without_performance_data_is_no_mistake_but_a_broken_value_is() {
        assert_eq!(read("PING OK\n").1, Ok(()));
        assert_eq!(
            read("OK | a=1 b=x=2").1.unwrap_err().problem,
            "expected performance data `label=value`, found `b=x=2`"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,120}", data in "[a-c0-9'=;|. \nU%]{0,60}") {
            let _ = read(&text);
            let _ = read(&format!("x | {data}"));
        }
    }
}
