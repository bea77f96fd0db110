//! Which lines belong together.

use std::borrow::Cow;
use std::fmt;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// How lines become records.
#[derive(Clone, Debug)]
pub enum Multiline {
    /// Lines that begin with white space go on with the record before them.
    Indent,
    /// Stack traces of Java and its relatives.
    Java,
    /// Tracebacks of Python.
    Python,
    /// A record begins where this matches.
    Start(Regex),
}

impl Multiline {
    /// Whether a line begins a record; `state` is kept from line to line.
    pub fn begins(&self, line: &str, state: &mut State) -> bool {
        match self {
            Multiline::Start(start) => start.is_match(line),
            Multiline::Indent => !line.is_empty() && !is_indented(line),
            Multiline::Java => !line.is_empty() && !is_indented(line) && !is_java_continuation(line),
            Multiline::Python => !continues_python(line, state),
        }
    }
}

/// Where in a trace the lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    in_traceback: bool,
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

/// `Caused by: ...`, `Suppressed: ...`, `... 12 more`, `at a.b.C.d(...)`, and the first line of a
/// trace, `a.b.SomeException: message`.
fn is_java_continuation(line: &str) -> bool {
    if ["Caused by: ", "Suppressed: ", "... ", "at "].iter().any(|start| line.starts_with(start)) {
        return true;
    }
    let class = line.split([':', ' ']).next().unwrap_or_default();
    let is_name = class.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$'));
    let ends_like_one = ["Exception", "Error", "Throwable"].iter().any(|end| class.ends_with(end));
    is_name && ends_like_one && class.contains('.') && !class.starts_with('.')
}

/// `Traceback (most recent call last):`, indented lines, and the exception's own line behind them;
/// chained exceptions are announced by a sentence between empty lines.
fn continues_python(line: &str, state: &mut State) -> bool {
    if line.starts_with("Traceback (most recent call last):")
        || line.starts_with("During handling of the above exception")
        || line.starts_with("The above exception was the direct cause")
    {
        state.in_traceback = true;
        return true;
    }
    if line.is_empty() || is_indented(line) {
        return true;
    }
    std::mem::take(&mut state.in_traceback)
}

impl<'de> Deserialize<'de> for Multiline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Multiline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`indent`, `java`, `python` or a regular expression")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Multiline, E> {
                match text {
                    "indent" => Ok(Multiline::Indent),
                    "java" => Ok(Multiline::Java),
                    "python" => Ok(Multiline::Python),
                    start => Regex::new(start).map(Multiline::Start).map_err(|error| {
                        E::custom(format_args!(
                            "expected `indent`, `java`, `python` or a regular expression for the first line of a record: {error}"
                        ))
                    }),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl JsonSchema for Multiline {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Multiline".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "examples": ["java", "^\\d{4}-\\d{2}-\\d{2}"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records that lines become, joined with `|`.
    fn grouped(mode: &Multiline, lines: &str) -> Vec<String> {
        let (mut records, mut state): (Vec<String>, _) = (Vec::new(), State::default());
        for line in lines.lines() {
            let begins = mode.begins(line, &mut state);
            match records.last_mut().filter(|_| !begins) {
                Some(record) => *record = format!("{record}|{line}"),
                None => records.push(line.to_owned()),
            }
        }
        records
    }

    #[test]
    fn a_java_trace_belongs_to_the_line_that_logged_it() {
        let lines = "\
2026-01-02 03:04:05 ERROR Shop - failed
java.lang.IllegalStateException: no stock
\tat com.example.Shop.buy(Shop.java:17)
Caused by: java.io.IOException: disk
\t... 23 more
Exception in thread \"main\" java.lang.Error: x
\tat a.B.c(B.java:1)
2026-01-02 03:04:06 INFO ok";
        let records = grouped(&Multiline::Java, lines);
        assert_eq!(records.len(), 3, "{records:#?}");
        assert!(records[0].ends_with("|\t... 23 more"));
        assert!(records[1].starts_with("Exception in thread"));
    }

    #[test]
    fn a_python_traceback_ends_with_the_line_of_its_exception() {
        let lines = "\
ERROR:root:failed
Traceback (most recent call last):
  File \"a.py\", line 1, in <module>
    x()
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"a.py\", line 3, in <module>
ValueError: bad
INFO:root:next";
        let records = grouped(&Multiline::Python, lines);
        assert_eq!(records.len(), 2, "{records:#?}");
        assert!(records[0].ends_with("|ValueError: bad"));
    }

    #[test]
    fn indentation_and_start_patterns_join_lines() {
        assert_eq!(grouped(&Multiline::Indent, "a\n b\n\tc\nd"), ["a| b|\tc", "d"]);
        let start = Multiline::Start(Regex::new(r"^\d{4}-").unwrap());
        assert_eq!(grouped(&start, "2026-x\nmore\n\n2026-y"), ["2026-x|more|", "2026-y"]);
    }
}
