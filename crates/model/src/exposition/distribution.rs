//! Histograms and summaries, put together from the samples that they are exposed as.

use super::ParseError;
use super::document::LabelRange;
use super::family::FamilyType;
use super::lexer::Span;

/// One sample of a histogram or summary.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSample {
    /// The name in the text, suffix included.
    pub name: Span,
    pub value: f64,
    /// Upper bound or quantile.
    pub bound: f64,
    pub bound_text: Span,
    pub line: usize,
}

/// What a distribution is recorded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Histogram {
        /// How many values.
        count: u64,
    },
    Summary {
        /// How many values.
        count: u64,
    },
    /// As the series that it consists of: something is missing that a point must have.
    Loose,
}

#[derive(Debug)]
pub(super) struct Distribution {
    pub family: u32,
    pub labels: LabelRange,
    pub hash: u64,
    /// 0 = the time of the poll.
    pub time_unix_nano: u64,
    /// 0 = unknown.
    pub start_time_unix_nano: u64,
    /// Buckets, cumulative, or quantiles; sorted by [`Distribution::settle`].
    pub parts: Vec<PartSample>,
    pub sum: Option<PartSample>,
    pub count: Option<PartSample>,
    /// Indices into the document's exemplars.
    pub exemplars: Vec<u32>,
    /// `le` or `quantile`.
    pub bound_name: &'static str,
    pub shape: Shape,
}

/// A count, where it is one. Counts are doubles in the text, exact to 2^53 and close beyond.
fn whole(value: f64) -> Option<u64> {
    const LARGEST: f64 = 18_446_744_073_709_549_568.0;
    // Checked to be a whole number within the range of u64.
    ((0.0..=LARGEST).contains(&value) && value.fract() == 0.0).then_some(value as u64)
}

impl Distribution {
    pub fn new(family: u32, kind: FamilyType, labels: LabelRange, hash: u64, time_unix_nano: u64) -> Self {
        Self {
            family,
            labels,
            hash,
            time_unix_nano,
            start_time_unix_nano: 0,
            parts: Vec::new(),
            sum: None,
            count: None,
            exemplars: Vec::new(),
            bound_name: if kind == FamilyType::Summary { "quantile" } else { "le" },
            shape: Shape::Loose,
        }
    }

    /// Sorts the parts and decides on the shape. Gives the number of bounds that came twice.
    pub fn settle(&mut self) -> Result<usize, ParseError> {
        let before = self.parts.len();
        self.parts.sort_by(|a, b| a.bound.total_cmp(&b.bound));
        self.parts.dedup_by(|later, first| later.bound == first.bound);
        let duplicates = before - self.parts.len();
        let said = self.count.and_then(|count| whole(count.value));
        self.shape = if self.bound_name == "quantile" {
            match said {
                Some(count) if self.sum.is_some() => Shape::Summary { count },
                _ => Shape::Loose,
            }
        } else {
            match self.total(said)? {
                Some(count) => Shape::Histogram { count },
                None => Shape::Loose,
            }
        };
        Ok(duplicates)
    }

    /// How many values the histogram has, if all its counts are whole numbers and the total is known.
    fn total(&self, said: Option<u64>) -> Result<Option<u64>, ParseError> {
        let mut last = 0;
        for part in &self.parts {
            let Some(count) = whole(part.value) else { return Ok(None) };
            if count < last {
                let message = format!(
                    "the bucket counts {count} values, but the one below it counts {last}: buckets include all below them"
                );
                return Err(ParseError { line: part.line, message, over_limit: false });
            }
            last = count;
        }
        if self.parts.last().is_some_and(|part| part.bound == f64::INFINITY) {
            return Ok(Some(last));
        }
        if let (Some(count), Some(part)) = (said, self.count)
            && count < last
        {
            let message = format!("the histogram counts {count} values, but its largest bucket {last}");
            return Err(ParseError { line: part.line, message, over_limit: false });
        }
        Ok(said)
    }

    /// Upper bounds without +Inf, and counts per bucket.
    pub fn buckets(&self, count: u64) -> (Vec<f64>, Vec<u64>) {
        let mut bounds = Vec::with_capacity(self.parts.len());
        let mut counts = Vec::with_capacity(self.parts.len() + 1);
        let mut below = 0;
        for part in self.parts.iter().filter(|part| part.bound != f64::INFINITY) {
            let cumulative = whole(part.value).unwrap_or(below);
            bounds.push(part.bound);
            counts.push(cumulative.saturating_sub(below));
            below = cumulative;
        }
        if !self.parts.is_empty() {
            counts.push(count.saturating_sub(below));
        }
        (bounds, counts)
    }
}
