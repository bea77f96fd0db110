//! Numbers as programs print them for people: `35 %`, `1024 MiB`, `[N/A]`.

use weir_model::metrics::Number;

/// What a piece of text stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// A finite number; a unit behind it is left out.
    Number(Number),
    /// One of the words that programs print where there is no value.
    Absent,
    /// Anything else.
    Text,
}

/// Words for "no value". `nvidia-smi` puts all of its own in brackets (`[N/A]`, `[Not Supported]`,
/// `[Unknown Error]`) but `ERR!`; not-a-number and infinity are no measurements either.
const ABSENT: [&str; 12] =
    ["", "-", "--", "n/a", "na", "nan", "null", "none", "err!", "unknown", "not supported", "inf"];

/// Longer words behind a number are no unit.
const LONGEST_UNIT_CHARACTERS: usize = 12;

/// Reads a cell.
pub(super) fn read(text: &str) -> Cell {
    let text = text.trim();
    let bare = text.trim_start_matches(['+', '-']);
    let in_brackets = text.starts_with('[') && text.ends_with(']');
    if in_brackets
        || ABSENT
            .iter()
            .any(|word| word.eq_ignore_ascii_case(text) || (!bare.is_empty() && word.eq_ignore_ascii_case(bare)))
    {
        return Cell::Absent;
    }
    if let Some(number) = number(text) {
        return Cell::Number(number);
    }
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    match number(digits) {
        Some(number) if is_unit(unit) => Cell::Number(number),
        _ => Cell::Text,
    }
}

/// A finite number without anything around it; whole numbers stay whole.
pub(super) fn number(text: &str) -> Option<Number> {
    // Rust reads `inf`, `nan` and `infinity` as floats too.
    if !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Number::Int(whole));
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Number::Double)
}

/// `%`, `MiB`, ` MHz`, ` ops/s`: short, and without digits, so that dates, addresses and versions are none.
fn is_unit(text: &str) -> bool {
    let word = text.trim_start();
    let allowed = |c: char| c.is_alphabetic() || matches!(c, '%' | '°' | '/' | ' ');
    !word.is_empty() && word.chars().count() <= LONGEST_UNIT_CHARACTERS && word.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_and_without_units_are_read() {
        for (text, value) in [
            ("35 %", Number::Int(35)),
            ("1024 MiB", Number::Int(1024)),
            (" 75.31 W ", Number::Double(75.31)),
            ("-3.5°C", Number::Double(-3.5)),
            ("12ms", Number::Int(12)),
            ("1e3", Number::Double(1000.0)),
            ("18446744073709551615", Number::Double(18_446_744_073_709_551_615.0)),
        ] {
            assert_eq!(read(text), Cell::Number(value), "{text}");
        }
    }

    #[test]
    fn words_for_no_value_are_absent_and_never_zero() {
        for text in
            ["[N/A]", "N/A", "n/a", "[Not Supported]", "ERR!", "[Unknown Error]", "", "nan", "-inf", "[GPU is lost]"]
        {
            assert_eq!(read(text), Cell::Absent, "{text}");
        }
    }

    #[test]
    fn dates_addresses_versions_and_names_are_text() {
        for text in [
            "2024-01-02",
            "10.0.0.1",
            "12:30:01",
            "1.2.3-rc1",
            "NVIDIA H200",
            "0x10",
            "8 of 10",
            "1e999",
            "3 blind mice ran away",
        ] {
            assert_eq!(read(text), Cell::Text, "{text}");
        }
    }
}
