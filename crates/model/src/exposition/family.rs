//! Metric families: what `# TYPE`, `# HELP` and `# UNIT` say, and which family a sample belongs to.

use hashbrown::HashTable;

use super::Format;
use super::document::hash_of;
use super::lexer::Span;

/// A type that `# TYPE` can declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FamilyType {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    #[default]
    Unknown,
}

impl FamilyType {
    /// Unknown words are unknown types, as in Prometheus: newer formats may add some.
    pub fn of(word: &str) -> FamilyType {
        match word {
            "counter" => FamilyType::Counter,
            "gauge" => FamilyType::Gauge,
            "histogram" => FamilyType::Histogram,
            "gaugehistogram" => FamilyType::GaugeHistogram,
            "summary" => FamilyType::Summary,
            "info" => FamilyType::Info,
            "stateset" => FamilyType::StateSet,
            _ => FamilyType::Unknown,
        }
    }
}

/// A family of metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Family {
    pub name: Span,
    pub kind: FamilyType,
    pub has_type: bool,
    pub help: Span,
    pub unit: Span,
}

/// What a sample is within its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A series of its own.
    Value,
    /// A bucket of a histogram.
    Bucket,
    /// A quantile of a summary.
    Quantile,
    /// `_sum` of a histogram or summary.
    Sum,
    /// `_count` of a histogram or summary.
    Count,
    /// `_created`: when the counting started (OpenMetrics).
    Created,
}

/// Families in the order of their declaration.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub list: Vec<Family>,
    by_name: HashTable<(u64, u32)>,
    /// The one that a comment declared last: most samples belong to it.
    current: Option<u32>,
}

impl Families {
    /// The family of that name, added where it is new.
    pub fn declare<'a>(&mut self, name: Span, text: impl Fn(Span) -> &'a str) -> Option<&mut Family> {
        let hash = hash_of(text(name));
        let at = match self.find(hash, text(name), &text) {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
                self.list.push(Family { name, ..Family::default() });
                self.by_name.insert_unique(hash, (hash, at), |&(hash, _)| hash);
                at
            }
        };
        self.current = Some(at);
        self.list.get_mut(at as usize)
    }

    pub fn get(&self, at: Option<u32>) -> Option<&Family> {
        self.list.get(at? as usize)
    }

    fn find<'a>(&self, hash: u64, name: &str, text: &impl Fn(Span) -> &'a str) -> Option<u32> {
        let same = |&(_, at): &(u64, u32)| self.list.get(at as usize).is_some_and(|family| text(family.name) == name);
        self.by_name.find(hash, same).map(|&(_, at)| at)
    }

    /// The family of a sample, and what the sample is in it.
    pub fn place<'a>(&self, name: &str, format: Format, text: impl Fn(Span) -> &'a str) -> (Option<u32>, Part) {
        let current = self.current.filter(|_| self.get(self.current).is_some_and(|family| text(family.name) == name));
        if let Some(at) = current.or_else(|| self.find(hash_of(name), name, &text)) {
            let is_summary = self.get(Some(at)).is_some_and(|family| family.kind == FamilyType::Summary);
            return (Some(at), if is_summary { Part::Quantile } else { Part::Value });
        }
        let Some((stem, suffix)) = name.rsplit_once('_') else { return (None, Part::Value) };
        let of_stem = |at: &u32| self.get(Some(*at)).is_some_and(|family| text(family.name) == stem);
        let found = self.current.filter(of_stem).or_else(|| self.find(hash_of(stem), stem, &text));
        let Some(family) = self.get(found) else { return (None, Part::Value) };
        let part = match (family.kind, suffix) {
            (FamilyType::Histogram, "bucket") => Part::Bucket,
            (FamilyType::Histogram | FamilyType::Summary, "sum") => Part::Sum,
            (FamilyType::Histogram | FamilyType::Summary, "count") => Part::Count,
            (FamilyType::Counter | FamilyType::Histogram | FamilyType::Summary, "created")
                if format == Format::OpenMetrics =>
            {
                Part::Created
            }
            (FamilyType::Counter, "total")
            | (FamilyType::Info, "info")
            | (FamilyType::GaugeHistogram, "bucket" | "gsum" | "gcount") => Part::Value,
            _ => return (None, Part::Value),
        };
        (found, part)
    }
}
