//! InfluxDB line protocol: `measurement,tag=value field=1i,other=2.5 1556813561098000000`.
//!
//! Escapes and types as in the line protocol reference of InfluxDB 2: `\,` and `\ ` in measurements;
//! `\,`, `\=` and `\ ` in tag keys, tag values and field keys; `\"` and `\\` in quoted texts, which
//! may hold line breaks. A backslash before anything else stands for itself.

use weir_model::metrics::Number;

use super::sample::{BadOutput, Sample, shown};

/// Reads all lines; a field becomes `measurement.field`, tags become labels, texts are left out.
/// Lines that do not fit are left out, and the first of them is the error.
pub(super) fn parse(text: &str, samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
    let mut scanner = Scanner { rest: text };
    let mut first_problem = None;
    loop {
        scanner.rest = scanner.rest.trim_start();
        let start = scanner.rest;
        if start.is_empty() {
            break;
        }
        if start.starts_with('#') {
            scanner.skip_line();
            continue;
        }
        let before = samples.len();
        if let Err(expected) = point(&mut scanner, samples) {
            samples.truncate(before);
            scanner.rest = start;
            first_problem.get_or_insert_with(|| {
                let problem = format!("expected {expected} of the line protocol, found `{}`", shown(start));
                BadOutput::new(line_of(text, start), problem)
            });
            scanner.skip_line();
        }
    }
    first_problem.map_or(Ok(()), Err)
}

fn line_of(text: &str, rest: &str) -> u64 {
    let before = text.get(..text.len() - rest.len()).unwrap_or_default();
    u64::try_from(before.matches('\n').count()).unwrap_or(u64::MAX - 1) + 1
}

/// Takes pieces off the front of the text.
struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
    }

    fn take(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Spaces between the parts of a line; whether there were any.
    fn spaces(&mut self) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        let found = rest.len() < self.rest.len();
        self.rest = rest;
        found
    }

    fn at_line_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('\n') || self.rest.starts_with("\r\n")
    }

    /// Text up to one of `stops` or the end of the line, its escapes resolved.
    fn word(&mut self, stops: &[char]) -> String {
        let mut word = String::new();
        let mut characters = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, c)) = characters.next() {
            if c == '\n' || stops.contains(&c) {
                end = at;
                break;
            }
            match characters.peek() {
                Some(&(_, next)) if c == '\\' && stops.contains(&next) => {
                    word.push(next);
                    characters.next();
                }
                _ => word.push(c),
            }
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        word
    }

    /// Skips a text in quotes, of which the first quote is taken; `false` if it does not end.
    fn skip_quoted(&mut self) -> bool {
        let mut is_escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return true;
                }
                _ => {}
            }
        }
        false
    }
}

/// One line; the error is what was expected.
fn point(scanner: &mut Scanner<'_>, samples: &mut Vec<Sample>) -> Result<(), &'static str> {
    let measurement = scanner.word(&[',', ' ']);
    if measurement.is_empty() {
        return Err("a measurement");
    }
    let mut labels: Vec<(String, String)> = Vec::new();
    while scanner.take(',') {
        let key = scanner.word(&['=', ',', ' ']);
        if key.is_empty() || !scanner.take('=') {
            return Err("`tag=value`");
        }
        let value = scanner.word(&[',', ' ', '=']);
        if value.is_empty() || labels.iter().any(|(taken, _)| *taken == key) {
            return Err("each tag once, with a value,");
        }
        labels.push((key, value));
    }
    if !scanner.spaces() {
        return Err("a space before the fields");
    }
    let first = samples.len();
    loop {
        let key = scanner.word(&['=', ',', ' ']);
        if key.is_empty() || !scanner.take('=') {
            return Err("`field=value`");
        }
        if let Some(value) = field_value(scanner)? {
            samples.push(Sample::gauge(format!("{measurement}.{key}"), labels.clone(), value));
        }
        if !scanner.take(',') {
            break;
        }
    }
    let spaced = scanner.spaces();
    if !scanner.at_line_end() {
        let timestamp = scanner.word(&[' ', '\t', '\r']).parse::<u64>().ok().filter(|_| spaced);
        let time_unix_nano = timestamp.ok_or("a timestamp in nanoseconds")?;
        samples.iter_mut().skip(first).for_each(|sample| sample.time_unix_nano = time_unix_nano);
        scanner.spaces();
    }
    if scanner.at_line_end() { Ok(()) } else { Err("the end of the line") }
}

/// The value of a field; `None` is a text.
fn field_value(scanner: &mut Scanner<'_>) -> Result<Option<Number>, &'static str> {
    if scanner.take('"') {
        return if scanner.skip_quoted() { Ok(None) } else { Err("the closing quote of a text") };
    }
    let text = scanner.word(&[',', ' ', '\t', '\r']);
    let value = match text.as_str() {
        "t" | "T" | "true" | "True" | "TRUE" => Some(Number::Int(1)),
        "f" | "F" | "false" | "False" | "FALSE" => Some(Number::Int(0)),
        text => number(text),
    };
    value.map(Some).ok_or("a number, boolean or quoted text as value")
}

/// `1.5`, `-2e3`, `42i`, `42u`.
fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_suffix('i') {
        return digits.parse::<i64>().ok().map(Number::Int);
    }
    if let Some(digits) = text.strip_suffix('u') {
        return digits.parse::<u64>().ok().map(Number::from);
    }
    // Rust reads `inf` and `nan` as floats too; the protocol has neither.
    let is_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    text.parse::<f64>().ok().filter(|value| is_numeric && value.is_finite()).map(Number::Double)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Vec<Sample>, Result<(), BadOutput>) {
        let mut samples = Vec::new();
        let result = parse(text, &mut samples);
        (samples, result)
    }

    #[test]
    fn fields_become_metrics_tags_labels_and_the_timestamp_stays() {
        let (samples, result) = read(
            "cpu,host=a,core=0 usage=12.5,count=3i,big=18446744073709551615u,on=t,msg=\"x, y=1\" 1556813561098000000\n",
        );
        assert_eq!(result, Ok(()));
        let read: Vec<(&str, Number)> = samples.iter().map(|s| (s.path.as_str(), s.value)).collect();
        assert_eq!(
            read,
            [
                ("cpu.usage", Number::Double(12.5)),
                ("cpu.count", Number::Int(3)),
                ("cpu.big", Number::Double(18_446_744_073_709_551_615.0)),
                ("cpu.on", Number::Int(1))
            ]
        );
        assert!(samples.iter().all(|s| s.time_unix_nano == 1_556_813_561_098_000_000));
        assert_eq!(samples[0].labels, [("host".to_owned(), "a".to_owned()), ("core".to_owned(), "0".to_owned())]);
    }

    #[test]
    fn escapes_of_the_reference_are_resolved() {
        let (samples, result) =
            read(r#"my\ mea\,sure\=ment,tag\ key\=1=v\,a\ l\=x,path=C:\temp field\ key\,\==1,s="a \"b\" \\" 5"#);
        assert_eq!(result, Ok(()));
        assert_eq!(samples[0].path, r"my mea,sure\=ment.field key,=");
        assert_eq!(samples[0].labels[0], ("tag key=1".to_owned(), "v,a l=x".to_owned()));
        assert_eq!(samples[0].labels[1].1, r"C:\temp");
        assert_eq!(samples[0].time_unix_nano, 5);
    }

    #[test]
    fn comments_blank_lines_line_breaks_in_texts_and_windows_line_ends_are_understood() {
        let (samples, result) = read("# comment\n\n  \r\na x=1\r\nb s=\"two\nlines\",x=2\r\n  c x=3");
        assert_eq!(result, Ok(()));
        assert_eq!(samples.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(), ["a.x", "b.x", "c.x"]);
    }

    #[test]
    fn bad_lines_are_named_and_the_others_kept() {
        for bad in [
            "garbage",
            "m x",
            "m x=",
            "m x=nan",
            "m x=1 yesterday",
            "m,t= x=1",
            "m,t=1,t=2 x=1",
            "m x=\"open",
            ",t=1 x=1",
            "m x=1 2 3",
            "m x=1,",
        ] {
            let (samples, result) = read(&format!("a x=1\n{bad}\nb x=2\n"));
            let error = result.expect_err(bad);
            assert_eq!(error.line, 2, "{bad}: {}", error.problem);
            assert_eq!(samples.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(), ["a.x", "b.x"], "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(?s).{0,120}") {
            let _ = read(&text);
        }

        #[test]
        fn text_like_the_protocol_never_panics(text in "[a-c0-9,= \\\\\"\n\r#.itu-]{0,80}") {
            let _ = read(&text);
        }

        #[test]
        fn a_written_line_reads_back(tag in "[a-z ,=é]{1,10}", value in any::<i64>()) {
            let escaped: String = tag.chars().flat_map(|c| if " ,=".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
            let (samples, result) = read(&format!("m,t={escaped} f={value}i\n"));
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(&samples[0].labels[0].1, &tag);
            prop_assert_eq!(samples[0].value, Number::Int(value));
        }
    }
}
