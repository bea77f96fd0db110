//! What an unquoted scalar means: the core schema of YAML 1.2.2, section 10.3.2.

use crate::node::Value;

/// The value of an unquoted scalar. `None` for a whole number that no 64-bit integer can hold.
pub(crate) fn plain_value(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some((digits, radix)) = integer_digits(text) {
        return parse_integer(text, digits, radix);
    }
    Some(match parse_float(text) {
        Some(number) => Value::Float(number),
        None => Value::String(text.to_owned()),
    })
}

/// The digits and their radix, when `text` has the form of a whole number.
fn integer_digits(text: &str) -> Option<(&str, u32)> {
    let (digits, radix) = if let Some(octal) = text.strip_prefix("0o") {
        (octal, 8)
    } else if let Some(hexadecimal) = text.strip_prefix("0x") {
        (hexadecimal, 16)
    } else {
        (text.strip_prefix(['-', '+']).unwrap_or(text), 10)
    };
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all_digits.then_some((digits, radix))
}

fn parse_integer(text: &str, digits: &str, radix: u32) -> Option<Value> {
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let number = if text.starts_with('-') { -magnitude } else { magnitude };
    i64::try_from(number).map(Value::Int).or_else(|_| u64::try_from(number).map(Value::UInt)).ok()
}

fn parse_float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    // The standard library also reads `inf` and `nan`, which are texts in YAML.
    let looks_like_number = text.chars().any(|c| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    if looks_like_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema_decides_what_is_a_number() {
        for (text, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("yes", Value::String("yes".into())),
            ("42", Value::Int(42)),
            ("-7", Value::Int(-7)),
            ("0o17", Value::Int(15)),
            ("0xff", Value::Int(255)),
            ("18446744073709551615", Value::UInt(u64::MAX)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1_000.0)),
            (".inf", Value::Float(f64::INFINITY)),
            ("inf", Value::String("inf".into())),
            ("nan", Value::String("nan".into())),
            ("1.2.3", Value::String("1.2.3".into())),
            ("30s", Value::String("30s".into())),
            ("0x", Value::String("0x".into())),
            ("-", Value::String("-".into())),
        ] {
            assert!(plain_value(text) == Some(value), "{text}");
        }
        assert!(plain_value("18446744073709551616").is_none());
        assert!(plain_value("99999999999999999999999999999999999999999999").is_none());
    }
}
