//! Severity: words of many loggers to OpenTelemetry's numbers.

/// Severity number of a syslog severity, 0 to 7 (OpenTelemetry logs data model, appendix B).
pub fn of_syslog(code: u8) -> i32 {
    [21, 19, 18, 17, 13, 10, 9, 5].get(usize::from(code)).copied().unwrap_or(0)
}

/// The word of a syslog severity (RFC 5424, table 2, as `logger` abbreviates it).
pub fn syslog_word(code: u8) -> &'static str {
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
        .get(usize::from(code))
        .copied()
        .unwrap_or_default()
}

/// Longest word below.
const LONGEST_WORD: usize = 13;

/// Severity number of a level's word in any case; 0 = no such word.
pub fn of_word(word: &str) -> i32 {
    let mut lower = [0_u8; LONGEST_WORD];
    let Some(lower) = lower.get_mut(..word.len()) else { return 0 };
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    match &*lower {
        b"trace" | b"finest" | b"verbose" => 1,
        b"debug" | b"finer" | b"fine" | b"dbg" => 5,
        b"info" | b"information" | b"informational" | b"inf" | b"config" => 9,
        b"notice" => 10,
        b"warn" | b"warning" | b"wrn" => 13,
        b"error" | b"err" | b"severe" | b"fail" => 17,
        b"critical" | b"crit" => 18,
        b"alert" => 19,
        b"fatal" | b"panic" | b"emerg" | b"emergency" => 21,
        _ => 0,
    }
}

/// Severity number of a level that is a number, as bunyan and pino write it (10 trace to 60 fatal).
pub fn of_number(level: i64) -> i32 {
    match level {
        10 => 1,
        20 => 5,
        30 => 9,
        40 => 13,
        50 => 17,
        60 => 21,
        _ => 0,
    }
}

/// How far into a line its level may stand.
const LOOK_BYTES: usize = 200;

/// The level that a line without a known format names: a word in capitals (`ERROR`), in brackets
/// (`[error]`), behind `level=`, or the letter and date of glog (`E0102 15:04:05`).
pub fn find(line: &str) -> Option<(i32, &str)> {
    if let Some(found) = glog(line) {
        return Some(found);
    }
    let bytes = line.as_bytes();
    let looked_at = bytes.len().min(LOOK_BYTES);
    let mut at = 0;
    while at < looked_at {
        let letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
        if !letter(at) {
            at += 1;
            continue;
        }
        let start = at;
        while letter(at) {
            at += 1;
        }
        if at - start < 3 || at - start > LONGEST_WORD || bytes.get(at).is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let Some(word) = line.get(start..at) else { continue };
        let number = of_word(word);
        if number != 0 && is_level(bytes, start, at, word) {
            return Some((number, word));
        }
    }
    None
}

/// Whether a word that could be a level stands where levels stand.
fn is_level(bytes: &[u8], start: usize, end: usize, word: &str) -> bool {
    let before = start.checked_sub(1).and_then(|at| bytes.get(at)).copied();
    if before.is_some_and(|byte| byte == b'_' || byte.is_ascii_digit()) || bytes.get(end) == Some(&b'_') {
        return false;
    }
    if word.bytes().all(|byte| byte.is_ascii_uppercase()) {
        // `CONFIG`, `FINE`, `FAIL` and `ALERT` are ordinary words in capitals too often.
        return !matches!(word, "CONFIG" | "FINE" | "FAIL" | "ALERT" | "VERBOSE");
    }
    let after = bytes.get(end).copied();
    let bracketed =
        matches!((before, after), (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')) | (Some(b'|'), Some(b'|')));
    let head = bytes.get(..start).unwrap_or_default();
    let head = head.strip_suffix(b"\"").unwrap_or(head);
    let named =
        [&b"level="[..], b"lvl=", b"severity=", b"level\":", b"level\": "].iter().any(|key| head.ends_with(key));
    bracketed || named
}

fn glog(line: &str) -> Option<(i32, &str)> {
    let (letter, rest) = (line.get(..1)?, line.as_bytes().get(1..6)?);
    let (digits, blank) = rest.split_at_checked(4)?;
    if !digits.iter().all(u8::is_ascii_digit) || blank != b" " {
        return None;
    }
    let number = match letter {
        "I" => 9,
        "W" => 13,
        "E" => 17,
        "F" => 21,
        _ => return None,
    };
    Some((number, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_where_loggers_put_them_and_nowhere_else() {
        for (line, expected) in [
            ("2026-01-02 03:04:05,123 ERROR [main] c.e.Shop - no stock", Some((17, "ERROR"))),
            ("WARNING:root:disk", Some((13, "WARNING"))),
            ("[2026-01-02] [notice] worker", Some((10, "notice"))),
            ("time=x level=warn msg=\"an error\"", Some((13, "warn"))),
            ("{\"level\":\"info\",\"msg\":\"x\"}", Some((9, "info"))),
            ("E0102 15:04:05.1 1 main.go:1] x", Some((17, "E"))),
            ("no error occurred, all info is here", None),
            ("ERROR_CODE=5 MY_ERROR ok", None),
            ("INFOX ERR0R", None),
            ("", None),
            ("größer [ERROR] ü", Some((17, "ERROR"))),
        ] {
            assert_eq!(find(line), expected, "{line}");
        }
    }

    #[test]
    fn syslog_codes_and_words_become_the_numbers_of_the_data_model() {
        let numbers: Vec<i32> = (0..9).map(of_syslog).collect();
        assert_eq!(numbers, [21, 19, 18, 17, 13, 10, 9, 5, 0]);
        for code in 0..8 {
            assert_eq!(of_word(syslog_word(code)), of_syslog(code));
        }
        assert_eq!(of_word("a word that is longer than every level"), 0);
    }
}
