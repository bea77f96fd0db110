//! A whole exposition, read but not yet recorded.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::distribution::{Distribution, PartSample, Shape};
use super::family::{Families, Family, FamilyType, Part};
use super::lexer::{LabelSpan, Lexer, Line, SampleLine, Span, number};
use super::{Format, Limits, ParseError};
use crate::common::index;

/// An exposition that was read to its end without an error.
///
/// It keeps the text and points into it: about twice the text in memory, and no allocation per label.
#[derive(Debug, Default)]
pub struct Document {
    pub(super) base: String,
    pub(super) unescaped: String,
    pub(super) families: Vec<Family>,
    pub(super) labels: Vec<LabelSpan>,
    pub(super) samples: Vec<Sample>,
    pub(super) distributions: Vec<Distribution>,
    pub(super) exemplars: Vec<ExemplarSample>,
    pub(super) series: HashTable<(u64, At)>,
    pub(super) sample_lines: usize,
    pub(super) duplicates: usize,
    pub(super) created: usize,
}

/// A range of [`Document::labels`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelRange {
    pub start: u32,
    pub end: u32,
}

/// A series of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub family: Option<u32>,
    pub name: Span,
    pub labels: LabelRange,
    pub hash: u64,
    pub value: f64,
    /// 0 = the time of the poll.
    pub time_unix_nano: u64,
    /// 0 = unknown.
    pub start_time_unix_nano: u64,
    pub exemplar: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ExemplarSample {
    pub labels: LabelRange,
    pub value: f64,
    pub time_unix_nano: u64,
}

/// Where a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Sample(u32),
    Distribution(u32),
}

impl Document {
    /// Reads an exposition.
    ///
    /// # Errors
    /// [`ParseError`] with the first line that is wrong or one too many.
    pub fn parse(text: Vec<u8>, format: Format, limits: Limits) -> Result<Document, ParseError> {
        let base = String::from_utf8(text).map_err(|error| {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            ParseError { line, message: "it is not UTF-8".to_owned(), over_limit: false }
        })?;
        if u32::try_from(base.len().saturating_mul(2)).is_err() {
            let message = "the text is larger than 2 GiB".to_owned();
            return Err(ParseError { line: 1, message, over_limit: true });
        }
        let mut reader = Reader::new(&base, format, limits);
        reader.read(&base)?;
        let mut document = reader.document;
        document.families = reader.families.list;
        document.unescaped = reader.lexer.unescaped;
        document.base = base;
        Ok(document)
    }

    /// How many samples (lines that are no comments) it has.
    pub fn sample_lines(&self) -> usize {
        self.sample_lines
    }

    pub(super) fn text(&self, span: Span) -> &str {
        span.of(&self.base, &self.unescaped)
    }

    pub(super) fn label_spans(&self, range: LabelRange) -> &[LabelSpan] {
        self.labels.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Whether it has the series with this hash.
    pub(super) fn has(&self, hash: u64) -> bool {
        let found = self.series.find(hash, |&(other, _)| other == hash);
        found.is_some_and(|&(_, at)| match at {
            At::Sample(_) => true,
            At::Distribution(at) => self.distributions.get(at as usize).is_some_and(|one| one.shape != Shape::Loose),
        })
    }

    fn push_labels(&mut self, labels: &[LabelSpan]) -> LabelRange {
        let start = index(self.labels.len());
        self.labels.extend_from_slice(labels);
        LabelRange { start, end: index(self.labels.len()) }
    }
}

pub(super) fn hash_of(value: impl Hash) -> u64 {
    // A fixed seed, as in the metrics builder: targets are configured by the owner and bounded.
    FixedState::with_seed(0).hash_one(value)
}

struct Created {
    family: u32,
    labels: LabelRange,
    time_unix_nano: u64,
}

struct Reader<'t> {
    lexer: Lexer<'t>,
    base: &'t str,
    format: Format,
    limits: Limits,
    families: Families,
    document: Document,
    created: Vec<Created>,
}

impl<'t> Reader<'t> {
    fn new(base: &'t str, format: Format, limits: Limits) -> Self {
        let lexer = Lexer::new(base, format);
        let (families, document) = (Families::default(), Document::default());
        Self { lexer, base, format, limits, families, document, created: Vec::new() }
    }

    fn read(&mut self, base: &str) -> Result<(), ParseError> {
        let (mut start, mut line, mut has_ended) = (0, 0, false);
        while start < base.len() {
            line += 1;
            let rest = base.get(start..).unwrap_or_default();
            let end = start + rest.find('\n').unwrap_or(rest.len());
            let error = |message: String| ParseError { line, message, over_limit: false };
            if has_ended {
                return Err(error("there is text after `# EOF`".to_owned()));
            }
            match self.lexer.line(start, end).map_err(error)? {
                Line::Nothing => {}
                Line::End => has_ended = true,
                Line::Help(name, help) => self.declare(name, |family| family.help = help),
                Line::Unit(name, unit) => self.declare(name, |family| family.unit = unit),
                Line::Type(name, word) => self.declare_type(name, word),
                Line::Sample(sample) => {
                    self.check_limits(line)?;
                    self.sample(sample, line).map_err(error)?;
                }
            }
            start = end + 1;
        }
        if self.format == Format::OpenMetrics && !has_ended {
            let message = "the text ends without `# EOF`: it was cut off".to_owned();
            return Err(ParseError { line: line.max(1), message, over_limit: false });
        }
        self.finish()
    }

    fn check_limits(&mut self, line: usize) -> Result<(), ParseError> {
        self.document.sample_lines += 1;
        let over = |message: String| Err(ParseError { line, message, over_limit: true });
        if self.document.sample_lines > self.limits.samples {
            return over(format!("there are more than {} samples", self.limits.samples));
        }
        if self.lexer.labels.len() > self.limits.labels {
            return over(format!("{} labels are more than {}", self.lexer.labels.len(), self.limits.labels));
        }
        Ok(())
    }

    fn declare(&mut self, name: Span, set: impl FnOnce(&mut Family)) {
        let (base, unescaped) = (self.base, self.lexer.unescaped.as_str());
        if let Some(family) = self.families.declare(name, |span| span.of(base, unescaped)) {
            set(family);
        }
    }

    /// The first type of a family stays: samples may have come already.
    fn declare_type(&mut self, name: Span, word: Span) {
        let kind = FamilyType::of(self.lexer.text(word));
        self.declare(name, |family| {
            if !family.has_type {
                (family.kind, family.has_type) = (kind, true);
            }
        });
    }

    fn sample(&mut self, sample: SampleLine, line: usize) -> Result<(), String> {
        let (base, unescaped) = (self.base, self.lexer.unescaped.as_str());
        let (family, part) =
            self.families.place(sample.name.of(base, unescaped), self.format, |span| span.of(base, unescaped));
        let exemplar = sample.exemplar.as_ref().map(|exemplar| {
            let labels = self.document.push_labels(&self.lexer.sampled_labels);
            let (value, time_unix_nano) = (exemplar.value, exemplar.time_unix_nano);
            self.document.exemplars.push(ExemplarSample { labels, value, time_unix_nano });
            index(self.document.exemplars.len() - 1)
        });
        match (family, part) {
            (Some(family), Part::Created) => self.created(family, sample.value),
            (Some(family), Part::Bucket) => {
                let Some(bound) = self.take_label("le") else {
                    return Err("the bucket of a histogram has no label `le`".to_owned());
                };
                self.part(family, part, &sample, Some(bound), exemplar, line)?;
            }
            (Some(family), Part::Quantile) => match self.take_label("quantile") {
                Some(bound) => self.part(family, part, &sample, Some(bound), exemplar, line)?,
                None => self.value(Some(family), &sample, exemplar),
            },
            (Some(family), Part::Sum | Part::Count) => self.part(family, part, &sample, None, exemplar, line)?,
            (family, _) => self.value(family, &sample, exemplar),
        }
        Ok(())
    }

    /// Takes a label out of the sample's; gives its value.
    fn take_label(&mut self, name: &str) -> Option<Span> {
        let at = self.lexer.labels.iter().position(|label| self.lexer.text(label.name) == name)?;
        Some(self.lexer.labels.remove(at).value)
    }

    fn created(&mut self, family: u32, seconds: f64) {
        self.document.created += 1;
        // A start that is no time, such as 0 of a counter that never counted, is an unknown start.
        if let Some(time_unix_nano) = super::lexer::nanoseconds_of(seconds) {
            let labels = self.document.push_labels(&self.lexer.labels);
            self.created.push(Created { family, labels, time_unix_nano });
        }
    }

    fn value(&mut self, family: Option<u32>, sample: &SampleLine, exemplar: Option<u32>) {
        let name = self.lexer.text(sample.name);
        let hash = self.hash(b'=', name, &self.lexer.labels);
        let same = |&(_, at): &(u64, At)| match at {
            At::Sample(at) => self.document.samples.get(at as usize).is_some_and(|other| {
                self.lexer.text(other.name) == name && self.same_labels(other.labels, &self.lexer.labels)
            }),
            At::Distribution(_) => false,
        };
        if self.document.series.find(hash, same).is_some() {
            self.document.duplicates += 1;
            return;
        }
        let labels = self.document.push_labels(&self.lexer.labels);
        let SampleLine { name, value, time_unix_nano, .. } = *sample;
        self.push_sample(Sample {
            family,
            name,
            labels,
            hash,
            value,
            time_unix_nano,
            start_time_unix_nano: 0,
            exemplar,
        });
    }

    fn push_sample(&mut self, sample: Sample) {
        let at = At::Sample(index(self.document.samples.len()));
        self.document.series.insert_unique(sample.hash, (sample.hash, at), |&(hash, _)| hash);
        self.document.samples.push(sample);
    }

    /// Adds a sample to the histogram or summary that it is a part of.
    fn part(
        &mut self,
        family: u32,
        part: Part,
        sample: &SampleLine,
        bound: Option<Span>,
        exemplar: Option<u32>,
        line: usize,
    ) -> Result<(), String> {
        let bound_value = match bound {
            Some(bound) => {
                let value = number(self.lexer.text(bound))?;
                if value.is_nan() {
                    return Err("NaN is neither a bucket nor a quantile".to_owned());
                }
                value
            }
            None => 0.0,
        };
        let name = sample.name;
        let part_sample = PartSample {
            name,
            value: sample.value,
            bound: bound_value,
            bound_text: bound.unwrap_or(Span::EMPTY),
            line,
        };
        let at = self.distribution(family, sample.time_unix_nano);
        let Some(distribution) = self.document.distributions.get_mut(at as usize) else { return Ok(()) };
        distribution.exemplars.extend(exemplar);
        let single = match part {
            Part::Sum => &mut distribution.sum,
            Part::Count => &mut distribution.count,
            _ => {
                distribution.parts.push(part_sample);
                return Ok(());
            }
        };
        if single.is_some() {
            self.document.duplicates += 1;
        } else {
            *single = Some(part_sample);
        }
        Ok(())
    }

    /// The histogram or summary with the labels that the lexer holds, added where it is new.
    fn distribution(&mut self, family: u32, time_unix_nano: u64) -> u32 {
        let hash = self.hash_of_family(family, &self.lexer.labels);
        if let Some(at) = self.find_distribution(hash, family, &self.lexer.labels) {
            return at;
        }
        let at = index(self.document.distributions.len());
        let labels = self.document.push_labels(&self.lexer.labels);
        let kind = self.families.get(Some(family)).map_or(FamilyType::Unknown, |family| family.kind);
        self.document.distributions.push(Distribution::new(family, kind, labels, hash, time_unix_nano));
        self.document.series.insert_unique(hash, (hash, At::Distribution(at)), |&(hash, _)| hash);
        at
    }

    fn find_distribution(&self, hash: u64, family: u32, labels: &[LabelSpan]) -> Option<u32> {
        let same = |&(_, at): &(u64, At)| match at {
            At::Sample(_) => false,
            At::Distribution(at) => self
                .document
                .distributions
                .get(at as usize)
                .is_some_and(|other| other.family == family && self.same_labels(other.labels, labels)),
        };
        match self.document.series.find(hash, same) {
            Some(&(_, At::Distribution(at))) => Some(at),
            _ => None,
        }
    }

    fn same_labels(&self, range: LabelRange, labels: &[LabelSpan]) -> bool {
        let own = self.document.label_spans(range);
        let same = |(a, b): (&LabelSpan, &LabelSpan)| {
            self.lexer.text(a.name) == self.lexer.text(b.name) && self.lexer.text(a.value) == self.lexer.text(b.value)
        };
        own.len() == labels.len() && own.iter().zip(labels).all(same)
    }

    /// The tag keeps a series of its own apart from a histogram of the same name.
    fn hash(&self, tag: u8, name: &str, labels: &[LabelSpan]) -> u64 {
        let mut state = FixedState::with_seed(0).build_hasher();
        (tag, name).hash(&mut state);
        for label in labels {
            (self.lexer.text(label.name), self.lexer.text(label.value)).hash(&mut state);
        }
        state.finish()
    }

    fn hash_of_family(&self, family: u32, labels: &[LabelSpan]) -> u64 {
        let name = self.families.get(Some(family)).map_or(Span::EMPTY, |family| family.name);
        self.hash(b'{', self.lexer.text(name), labels)
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        for at in 0..self.document.distributions.len() {
            let Some(distribution) = self.document.distributions.get_mut(at) else { continue };
            self.document.duplicates += distribution.settle()?;
            if distribution.shape == Shape::Loose {
                self.loosen(at);
            }
        }
        self.set_starts();
        Ok(())
    }

    /// Records a histogram or summary that is not whole as the series that it consists of.
    fn loosen(&mut self, at: usize) {
        let Some(distribution) = self.document.distributions.get_mut(at) else { return };
        let (family, range, time_unix_nano) = (distribution.family, distribution.labels, distribution.time_unix_nano);
        let bound_name = distribution.bound_name;
        let parts = std::mem::take(&mut distribution.parts);
        let singles = [distribution.sum.take(), distribution.count.take()];
        // The name of the label (`le`, `quantile`) is in no text of its own.
        let start = self.base.len() + self.lexer.unescaped.len();
        self.lexer.unescaped.push_str(bound_name);
        let bound_name = Span { start: index(start), end: index(start + bound_name.len()) };
        for part in parts.into_iter().chain(singles.into_iter().flatten()) {
            let mut labels = self.document.label_spans(range).to_vec();
            if !part.bound_text.is_empty() {
                let label = LabelSpan { name: bound_name, value: part.bound_text };
                let place = labels.partition_point(|other| self.lexer.text(other.name) < self.lexer.text(bound_name));
                labels.insert(place, label);
            }
            let hash = self.hash(b'=', self.lexer.text(part.name), &labels);
            let labels = self.document.push_labels(&labels);
            let (name, value) = (part.name, part.value);
            let family = Some(family);
            self.push_sample(Sample {
                family,
                name,
                labels,
                hash,
                value,
                time_unix_nano,
                start_time_unix_nano: 0,
                exemplar: None,
            });
        }
    }

    /// Gives counters, histograms and summaries the start that `_created` said.
    fn set_starts(&mut self) {
        let mut name = String::new();
        for created in std::mem::take(&mut self.created) {
            let labels = self.document.label_spans(created.labels).to_vec();
            let hash = self.hash_of_family(created.family, &labels);
            if let Some(at) = self.find_distribution(hash, created.family, &labels) {
                if let Some(distribution) = self.document.distributions.get_mut(at as usize) {
                    distribution.start_time_unix_nano = created.time_unix_nano;
                }
                continue;
            }
            let Some(family) = self.families.get(Some(created.family)) else { continue };
            name.clear();
            name.push_str(self.lexer.text(family.name));
            for suffix in ["", "_total"] {
                name.push_str(suffix);
                let hash = self.hash(b'=', &name, &labels);
                let found =
                    self.document.series.find(hash, |&(other, at)| other == hash && matches!(at, At::Sample(_)));
                if let Some(&(_, At::Sample(at))) = found
                    && let Some(sample) = self.document.samples.get_mut(at as usize)
                {
                    sample.start_time_unix_nano = created.time_unix_nano;
                }
            }
        }
    }
}
