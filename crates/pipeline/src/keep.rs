//! `keep:` of a route: a condition on the severity of log records, such as `severity >= "WARN"`.

use weir_model::Records;

/// A condition that a record must meet. Metrics and spans have no severity and always meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    comparison: Comparison,
    severity: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

/// First severity number of each name (OpenTelemetry logs data model, "Severity Fields").
const NAMES: [(&str, i32); 6] = [("TRACE", 1), ("DEBUG", 5), ("INFO", 9), ("WARN", 13), ("ERROR", 17), ("FATAL", 21)];

/// Each name covers four severity numbers.
const NUMBERS_PER_NAME: i32 = 4;

impl Keep {
    /// Reads a condition.
    ///
    /// # Errors
    /// One sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Keep, String> {
        let wrong = || {
            format!(
                "cannot read the condition `{text}`; expected `severity`, one of >= > <= < ==, and a name in quotes, \
                 for example `severity >= \"WARN\"`"
            )
        };
        let rest = text.trim().strip_prefix("severity").ok_or_else(wrong)?.trim_start();
        let operators = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            ("==", Comparison::Equal),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let (comparison, name) = operators
            .iter()
            .find_map(|(operator, comparison)| Some((*comparison, rest.strip_prefix(operator)?)))
            .ok_or_else(wrong)?;
        let name = name.trim().trim_matches(['"', '\'']).to_ascii_uppercase();
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let severity = known.map(|(_, number)| *number).ok_or_else(|| {
            format!("unknown severity `{name}` in `{text}`; expected TRACE, DEBUG, INFO, WARN, ERROR or FATAL")
        })?;
        Ok(Keep { comparison, severity })
    }

    /// Whether a severity number meets the condition. Unset (0) is treated as INFO, as backends show it.
    fn meets(self, number: i32) -> bool {
        let number = if number == 0 { 9 } else { number };
        match self.comparison {
            Comparison::AtLeast => number >= self.severity,
            Comparison::Above => number >= self.severity + NUMBERS_PER_NAME,
            Comparison::AtMost => number < self.severity + NUMBERS_PER_NAME,
            Comparison::Below => number < self.severity,
            Comparison::Equal => (self.severity..self.severity + NUMBERS_PER_NAME).contains(&number),
        }
    }

    /// The records that meet the condition.
    pub fn apply(self, mut records: Records) -> Records {
        if let Records::Logs(logs) = &mut records {
            logs.records.retain(|record| self.meets(record.severity_number));
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_its_four_numbers() {
        let meets = |text, number| Keep::parse(text).unwrap().meets(number);
        assert!(meets("severity >= \"WARN\"", 13) && !meets("severity >= \"WARN\"", 12));
        assert!(!meets("severity > \"WARN\"", 16) && meets("severity > \"WARN\"", 17));
        assert!(meets("severity<='warn'", 16) && !meets("severity <= \"WARN\"", 17));
        assert!(meets("severity == \"INFO\"", 0), "unset counts as INFO");
        assert!(!meets("severity < \"DEBUG\"", 5) && meets("severity < \"DEBUG\"", 4));
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_what_can() {
        for text in ["level > 3", "severity", "severity ~ \"WARN\"", "severity >= \"LOUD\""] {
            let error = Keep::parse(text).unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
