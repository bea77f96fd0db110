//! What is wrong with a configuration file, where, and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::node::Node;

/// Why a text is not a valid value of its type. Never quotes the text, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue(String);

impl InvalidValue {
    /// A reason in words that complete "this is not valid: ...".
    #[must_use]
    pub fn new(reason: impl Into<String>) -> InvalidValue {
        InvalidValue(reason.into())
    }
}

/// Reads a value that is written as text. `expected` completes "expected ..." and shows an example.
pub(crate) fn read_text<'de, T, D>(deserializer: D, expected: &str) -> Result<T, D::Error>
where
    T: FromStr<Err = InvalidValue>,
    D: Deserializer<'de>,
{
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|invalid| serde::de::Error::custom(format_args!("expected {expected}: {invalid}")))
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidValue {}

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file as the user gave it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Keys from the top of the file, for example `integrations.prometheus.endpoint`; empty at
    /// the top.
    pub path: String,
    /// What is wrong, in one sentence without a final period.
    pub message: String,
    /// What to do about it, where there is more to say than the message does.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with the value at `node`.
    #[must_use]
    pub fn at(file: &str, node: &Node, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(file, (node.line, node.column), path, message)
    }

    pub(crate) fn new(file: &str, (line, column): (u32, u32), path: &str, message: impl Into<String>) -> Problem {
        Problem { file: file.to_owned(), line, column, path: path.to_owned(), message: message.into(), help: None }
    }

    /// The same problem with a line of help.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// All problems of a file, in the order of their positions. One line each, and a line of help
/// below where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Collects problems and brings them into the order of the file.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Problems {
        problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.path).cmp(&(&b.file, b.line, b.column, &b.path)));
        problems.dedup();
        Problems(problems)
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things are wrong.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// These problems and `others`, in the order of the file.
    #[must_use]
    pub fn and(mut self, others: Problems) -> Problems {
        self.0.extend(others.0);
        Problems::new(self.0)
    }

    /// `value` when nothing is wrong, else the problems.
    ///
    /// # Errors
    /// These problems, when there are any.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Problems {
        Problems::new(problems.into_iter().collect())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_stand_in_the_order_of_the_file_and_print_one_line_each() {
        let late = Problem::new("weir.yaml", (14, 5), "a.b", "late").with_help("do this");
        let early = Problem::new("weir.yaml", (2, 1), "", "early");
        let problems = Problems::new(vec![late.clone(), early, late]);
        assert_eq!(problems.to_string(), "weir.yaml:2:1: early\nweir.yaml:14:5: a.b: late\n  help: do this");
    }
}
