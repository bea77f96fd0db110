//! Numbers as people read them.

/// At most four digits: `0`, `0.42`, `18.0`, `340`.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if size >= 99.95 {
        format!("{value:.0}")
    } else if size >= 0.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A number of any size: whole ones in groups of three digits, others with three significant digits.
pub(super) fn plain(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".into()
        } else if value > 0.0 {
            "∞".into()
        } else {
            "-∞".into()
        };
    }
    if size >= 1e15 || (size > 0.0 && size < 0.001) {
        return format!("{value:.2e}");
    }
    if value.fract() == 0.0 || size >= 999.5 {
        return grouped(&format!("{value:.0}"));
    }
    let text = if size >= 99.95 {
        format!("{value:.1}")
    } else if size >= 9.995 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1 234 567`; numbers of four digits stay together.
fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    if digits.len() <= 4 {
        return format!("{sign}{digits}");
    }
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Whether bytes are counted in steps of 1024 or 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// KiB, MiB: memory.
    Binary,
    /// kB, MB: disks and networks, as their makers count.
    Decimal,
}

impl Bytes {
    /// The unit in which a number of bytes has at most four digits, and its name.
    fn unit(self, value: f64) -> (f64, &'static str) {
        let (step, limit, names) = match self {
            Bytes::Binary => (1024.0, 1023.5, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]),
            Bytes::Decimal => (1000.0, 999.5, ["B", "kB", "MB", "GB", "TB", "PB"]),
        };
        let mut size = 1.0;
        for name in names {
            if value.abs() / size < limit {
                return (size, name);
            }
            size *= step;
        }
        (size / step, if self == Bytes::Binary { "PiB" } else { "PB" })
    }

    /// `340 kB`.
    pub(super) fn text(self, value: f64) -> String {
        let (size, name) = self.unit(value);
        let number = if size == 1.0 { format!("{value:.0}") } else { short(value / size) };
        format!("{number} {name}")
    }

    /// `12.1 of 31.3 GiB`.
    pub(super) fn of(self, part: f64, whole: f64) -> String {
        let (size, name) = self.unit(whole);
        format!("{} of {} {name}", short(part / size), short(whole / size))
    }
}

/// A length of time: `12.3 ms`, `1.5 s`, `4 min 5 s`, `3 d 4 h`.
pub(super) fn duration(seconds: f64) -> String {
    let size = seconds.abs();
    if !seconds.is_finite() || seconds == 0.0 || size >= 1e12 {
        return format!("{} s", plain(seconds));
    }
    for (limit, factor, unit) in [(1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")] {
        if size < limit * 0.9995 {
            return format!("{} {unit}", short(seconds * factor));
        }
    }
    // Below 1e12, so the conversion is exact.
    let whole = size.round() as u64;
    let sign = if seconds < 0.0 { "-" } else { "" };
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours) {
        (0, 0) => format!("{sign}{minutes} min {rest} s"),
        (0, _) => format!("{sign}{hours} h {minutes} min"),
        _ => format!("{sign}{} d {hours} h", grouped(&days.to_string())),
    }
}

/// `1 record`, `78 records`.
pub(super) fn counted(value: f64, word: &str) -> String {
    format!("{} {}", plain(value), of_number(value, word))
}

/// The form of an English word that stands behind a number.
pub(super) fn of_number(value: f64, word: &str) -> String {
    let ends = |ends: &[&str]| ends.iter().any(|end| word.ends_with(end));
    let is_plural = word.ends_with('s') && !word.ends_with("ss");
    if value == 1.0 || is_plural || !word.ends_with(|c: char| c.is_ascii_lowercase()) {
        return word.to_owned();
    }
    match word.strip_suffix('y') {
        Some(stem) if !ends(&["ay", "ey", "oy", "uy"]) => format!("{stem}ies"),
        _ if ends(&["ss", "x", "ch", "sh"]) => format!("{word}es"),
        _ => format!("{word}s"),
    }
}

/// A UCUM unit as people say it: `{request}/s` is `requests/s`. Words in braces are what is counted
/// (UCUM §12); what stands behind them says per what.
fn spoken(unit: &str, value: f64) -> String {
    match unit.strip_prefix('{').and_then(|unit| unit.split_once('}')) {
        Some((word, rest)) => of_number(value, word) + &rest.replace(['{', '}'], ""),
        None => unit.replace(['{', '}'], ""),
    }
}

/// A value with its UCUM unit, as number and unit. `name` tells fractions from other numbers
/// without a unit.
pub(super) fn with_unit(name: &str, unit: &str, value: f64) -> (String, String) {
    let split = |text: String| match text.rsplit_once(' ') {
        Some((number, unit)) if !text.contains(" d ") && !text.contains(" min") => (number.to_owned(), unit.to_owned()),
        _ => (text, String::new()),
    };
    match unit {
        _ if !value.is_finite() => (plain(value), String::new()),
        "By" => split(Bytes::Binary.text(value)),
        "By/s" => {
            let (number, unit) = split(Bytes::Decimal.text(value));
            (number, format!("{unit}/s"))
        }
        "s" => split(duration(value)),
        "ms" => split(duration(value / 1e3)),
        "us" => split(duration(value / 1e6)),
        "ns" => split(duration(value / 1e9)),
        "1" if name.ends_with("utilization") => (short(value * 100.0), "%".to_owned()),
        "1" => (plain(value), String::new()),
        "Cel" => (short(value), "°C".to_owned()),
        unit => (plain(value), spoken(unit, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_matters() {
        for (value, expected) in [
            (0.0, "0"),
            (142.0, "142"),
            (1234.0, "1234"),
            (1_234_567.0, "1 234 567"),
            (-12_345.6, "-12 346"),
            (0.421_37, "0.421"),
            (12.345, "12.35"),
            (123.45, "123.5"),
            (9.9999, "10"),
            (0.000_012, "1.20e-5"),
            (1e18, "1.00e18"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(plain(value), expected);
        }
    }

    #[test]
    fn bytes_get_the_unit_in_which_they_are_short() {
        assert_eq!(Bytes::Binary.text(0.0), "0 B");
        assert_eq!(Bytes::Binary.text(1536.0), "1.5 KiB");
        assert_eq!(Bytes::Decimal.text(340_000.0), "340 kB");
        assert_eq!(Bytes::Decimal.text(999_999.0), "1.0 MB");
        assert_eq!(Bytes::Decimal.text(1e21), "1000000 PB");
        assert_eq!(Bytes::Binary.of(12.1 * 1_073_741_824.0, 31.3 * 1_073_741_824.0), "12.1 of 31.3 GiB");
        assert_eq!(Bytes::Binary.of(0.0, 2_147_483_648.0), "0 of 2.0 GiB");
    }

    #[test]
    fn lengths_of_time_get_the_units_of_everyday_life() {
        for (seconds, expected) in [
            (0.000_000_25, "250 ns"),
            (0.012_34, "12.3 ms"),
            (0.9999, "1.0 s"),
            (59.0, "59.0 s"),
            (245.0, "4 min 5 s"),
            (3.0 * 3600.0 + 240.0, "3 h 4 min"),
            (3.0 * 86_400.0 + 4.0 * 3600.0, "3 d 4 h"),
            (0.0, "0 s"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn units_are_written_as_people_know_them() {
        let text = |name, unit, value| {
            let (number, unit) = with_unit(name, unit, value);
            format!("{number}|{unit}")
        };
        assert_eq!(text("system.memory.usage", "By", 2_097_152.0), "2.0|MiB");
        assert_eq!(text("link", "By/s", 125e6), "125|MB/s");
        assert_eq!(text("system.cpu.utilization", "1", 0.234), "23.4|%");
        assert_eq!(text("ratio", "1", 0.234), "0.234|");
        assert_eq!(text("requests", "{request}", 7.0), "7|requests");
        assert_eq!(text("requests", "{request}", 1.0), "1|request");
        assert_eq!(text("rate", "{request}/s", 7.0), "7|requests/s");
        assert_eq!(text("processes", "{process}", 0.0), "0|processes");
        assert_eq!(text("queries", "{query}", 2.0), "2|queries");
        assert_eq!(text("packets", "{packets}", 2.0), "2|packets");
        assert_eq!(text("level", "dBm", 2.0), "2|dBm");
        assert_eq!(text("latency", "ms", 12.0), "12.0|ms");
        assert_eq!(text("up", "s", 90.0), "1 min 30 s|");
    }
}
