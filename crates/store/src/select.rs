//! Questions to a source of series, and answers.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::chunk::Sample;
use crate::error::ReadError;
use crate::labels::{MetricInfo, NAME, SeriesRef};
use crate::series::Parts;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`: the regular expression matches the whole value.
    Matches,
    /// `!~`
    NotMatches,
}

/// A condition on one label, as in Prometheus: a label that is absent has the value "".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// The label, for example `host.name`; [`NAME`] for the metric's name.
    pub label: String,
    /// How it is compared.
    pub op: MatchOp,
    /// With what: a value or a regular expression.
    pub value: String,
}

impl Matcher {
    /// A condition.
    pub fn new(label: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Self {
        Self { label: label.into(), op, value: value.into() }
    }

    /// `label="value"`.
    pub fn equal(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(label, MatchOp::Equal, value)
    }

    /// The metric has this name.
    pub fn name(name: impl Into<String>) -> Self {
        Self::equal(NAME, name)
    }
}

/// Largest size of a compiled regular expression, bytes.
const REGEX_BYTES: usize = 1 << 20;

/// A condition ready to be used.
#[derive(Debug)]
pub struct Condition<'a> {
    /// The condition.
    pub matcher: &'a Matcher,
    regex: Option<Regex>,
}

impl<'a> Condition<'a> {
    /// Compiles a condition.
    ///
    /// # Errors
    /// If its regular expression is wrong or too large.
    pub fn new(matcher: &'a Matcher) -> Result<Self, ReadError> {
        let is_regex = matches!(matcher.op, MatchOp::Matches | MatchOp::NotMatches);
        let compile = || {
            RegexBuilder::new(&format!("^(?s:{})$", matcher.value))
                .size_limit(REGEX_BYTES)
                .dfa_size_limit(REGEX_BYTES)
                .build()
                .map_err(|error| ReadError::regex(matcher, &error))
        };
        let regex = if is_regex { Some(compile()?) } else { None };
        Ok(Self { matcher, regex })
    }

    /// Compiles all.
    ///
    /// # Errors
    /// As [`Condition::new`].
    pub fn all(matchers: &'a [Matcher]) -> Result<Vec<Self>, ReadError> {
        matchers.iter().map(Condition::new).collect()
    }

    /// Whether a value meets it.
    pub fn accepts(&self, value: &str) -> bool {
        let is_match = self.regex.as_ref().map_or_else(|| value == self.matcher.value, |regex| regex.is_match(value));
        is_match == matches!(self.matcher.op, MatchOp::Equal | MatchOp::Matches)
    }
}

/// Which series and which time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// All of them must be met; without any, every series is meant.
    pub matchers: Vec<Matcher>,
    /// From this time on, unix milliseconds, included.
    pub start_ms: i64,
    /// Up to this time, unix milliseconds, included.
    pub end_ms: i64,
}

impl Select {
    /// Every series that meets the conditions, at any time.
    pub fn always(matchers: Vec<Matcher>) -> Self {
        Self { matchers, start_ms: i64::MIN, end_ms: i64::MAX }
    }
}

/// The samples of one series in a range: ascending in time, no time twice. They stay compressed
/// until they are read.
#[derive(Clone, Debug)]
pub struct Samples {
    parts: Parts,
    start_ms: i64,
    end_ms: i64,
}

fn number((time, value): Sample) -> (i64, f64) {
    (time, f64::from_bits(value))
}

impl Samples {
    pub(crate) fn new(parts: Parts, start_ms: i64, end_ms: i64) -> Self {
        Self { parts, start_ms, end_ms }
    }

    /// The samples: unix milliseconds and value. [`is_stale`](crate::is_stale) tells markers.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (i64, f64)> + '_> {
        let range = self.start_ms..=self.end_ms;
        let within = move |(time, _): &Sample| range.contains(time);
        if self.parts.late.is_empty() && self.parts.latest.is_empty() {
            return Box::new(self.parts.ordered.iter().flat_map(|chunk| chunk.samples()).filter(within).map(number));
        }
        if self.parts.ordered.is_empty() && self.parts.late.is_empty() {
            return Box::new(self.parts.latest.iter().copied().filter(within).map(number));
        }
        Box::new(self.parts.merged().into_iter().filter(within).map(number))
    }

    /// The samples, all at once.
    pub fn to_vec(&self) -> Vec<(i64, f64)> {
        self.iter().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl From<Vec<(i64, f64)>> for Samples {
    /// Samples of another source; must ascend in time.
    fn from(samples: Vec<(i64, f64)>) -> Self {
        let latest = samples.into_iter().map(|(time, value)| (time, value.to_bits())).collect();
        Self { parts: Parts { latest, ..Parts::default() }, start_ms: i64::MIN, end_ms: i64::MAX }
    }
}

/// A series with its samples of a range.
#[derive(Clone, Debug)]
pub struct SeriesData {
    /// The series.
    pub series: SeriesRef,
    /// Its samples.
    pub samples: Samples,
}

/// A metric that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricEntry {
    /// Its name, for example `system.cpu.time`.
    pub name: Arc<str>,
    /// Unit, kind and description, as the newest series has them.
    pub info: Arc<MetricInfo>,
}

/// Where series can be read. All methods block for as long as the answer takes.
pub trait SeriesSource: Send + Sync {
    /// The series that meet the conditions and have samples in the range, in the order of their labels.
    ///
    /// # Errors
    /// If a condition makes no sense.
    fn select(&self, select: &Select) -> Result<Vec<SeriesData>, ReadError>;

    /// The newest sample in the range of each series that meets the conditions, in no order.
    ///
    /// # Errors
    /// If a condition makes no sense.
    fn last(&self, select: &Select) -> Result<Vec<(SeriesRef, i64, f64)>, ReadError>;

    /// The names of the labels of the selected series, sorted.
    ///
    /// # Errors
    /// If a condition makes no sense.
    fn label_names(&self, select: &Select) -> Result<Vec<String>, ReadError>;

    /// The values of a label among the selected series, sorted.
    ///
    /// # Errors
    /// If a condition makes no sense.
    fn label_values(&self, label: &str, select: &Select) -> Result<Vec<String>, ReadError>;

    /// The metrics of all series, sorted by name.
    fn metrics(&self) -> Vec<MetricEntry>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(op: MatchOp, pattern: &str, value: &str) -> bool {
        Condition::new(&Matcher::new("l", op, pattern)).unwrap().accepts(value)
    }

    #[test]
    fn regular_expressions_match_the_whole_value() {
        assert!(accepts(MatchOp::Matches, "a|ab", "ab"));
        assert!(!accepts(MatchOp::Matches, "a", "ab"));
        assert!(accepts(MatchOp::Matches, ".*", "two\nlines"));
        assert!(accepts(MatchOp::NotMatches, "a", "ab"));
        assert!(accepts(MatchOp::Matches, "", ""));
        assert!(accepts(MatchOp::NotEqual, "a", ""));
    }

    #[test]
    fn a_regular_expression_that_is_wrong_or_huge_is_an_error_in_words() {
        for pattern in ["(", "a{1000}{1000}{1000}"] {
            let matcher = Matcher::new("host", MatchOp::Matches, pattern);
            let error = Condition::new(&matcher).unwrap_err().to_string();
            assert!(error.contains("host") && !error.contains('\n'), "{error}");
        }
    }
}
