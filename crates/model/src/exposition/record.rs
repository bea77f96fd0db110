//! A document's samples as points of a [`MetricsBuilder`], and the end of series.

use super::distribution::{Distribution, Shape};
use super::document::{Document, LabelRange, Sample};
use super::family::{Family, FamilyType};
use super::lexer::Span;
use crate::build::{Kind, Label, MetricDescription, MetricsBuilder, SampledMeasurement};
use crate::metrics::{HistogramPoint, NO_RECORDED_VALUE, Number, NumberPoint, SummaryPoint};

/// Key of the metadata that holds the type which the exposition declared: `counter`, `gauge`,
/// `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`. Exporters to Prometheus
/// leave the names of such metrics as they are.
pub const PROMETHEUS_TYPE: &str = "prometheus.type";

/// What is added to every series of an exposition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach<'a> {
    /// Labels of the target.
    pub labels: &'a [Label<'a>],
    /// Names that the target has too, but in its resource: `job`, `instance`.
    pub reserved: &'a [&'a str],
    /// Where the exposition has a label of the same name: keep that one (`true`), or keep the
    /// target's and rename the exposed one to `exported_...`.
    pub honor_labels: bool,
    /// Do not use the timestamps of the samples, but the time of the poll.
    pub ignore_timestamps: bool,
}

/// What became of the samples: every one is in a point, a duplicate or a creation time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Samples in the text: lines that are no comments.
    pub samples: usize,
    /// Points recorded: a histogram or summary is one.
    pub points: usize,
    /// Samples of a series that was there already, not recorded.
    pub duplicates: usize,
    /// `_created` samples, recorded as the start of their counter, histogram or summary.
    pub created: usize,
}

const fn metadata(kind: FamilyType) -> &'static [Label<'static>] {
    match kind {
        FamilyType::Counter => &[(PROMETHEUS_TYPE, "counter")],
        FamilyType::Gauge => &[(PROMETHEUS_TYPE, "gauge")],
        FamilyType::Histogram => &[(PROMETHEUS_TYPE, "histogram")],
        FamilyType::GaugeHistogram => &[(PROMETHEUS_TYPE, "gaugehistogram")],
        FamilyType::Summary => &[(PROMETHEUS_TYPE, "summary")],
        FamilyType::Info => &[(PROMETHEUS_TYPE, "info")],
        FamilyType::StateSet => &[(PROMETHEUS_TYPE, "stateset")],
        FamilyType::Unknown => &[(PROMETHEUS_TYPE, "unknown")],
    }
}

/// How often a label can be `exported_`: more than once only if the target exposes what it scraped.
const RENAMES: usize = 4;

/// The labels of a series and of its target, without conflicts.
struct Labels<'a> {
    document: &'a Document,
    attach: &'a Attach<'a>,
    /// Names that the target has, each with the names that an exposed label of it may get instead.
    taken: &'a [(&'a str, [String; RENAMES])],
    row: Vec<Label<'a>>,
}

fn taken_names<'a>(attach: &Attach<'a>) -> Vec<(&'a str, [String; RENAMES])> {
    let names = attach.labels.iter().map(|&(name, _)| name).chain(attach.reserved.iter().copied());
    names.map(|name| (name, std::array::from_fn(|at| format!("{}{name}", "exported_".repeat(at + 1))))).collect()
}

impl<'a> Labels<'a> {
    fn of(&mut self, range: LabelRange) -> &[Label<'a>] {
        self.row.clear();
        let document = self.document;
        let own = document.label_spans(range);
        self.row.extend(own.iter().map(|label| (document.text(label.name), document.text(label.value))));
        if self.taken.is_empty() {
            return &self.row;
        }
        for at in 0..self.row.len() {
            let Some(&(name, value)) = self.row.get(at) else { continue };
            let Some((_, renames)) = self.taken.iter().find(|(taken, _)| *taken == name) else { continue };
            if self.attach.honor_labels {
                continue;
            }
            let free = |new: &&String| {
                !self.row.iter().any(|(other, _)| other == new) && !self.taken.iter().any(|(other, _)| other == new)
            };
            let new = renames.iter().find(free).or(renames.last()).map_or(name, String::as_str);
            if let Some(label) = self.row.get_mut(at) {
                *label = (new, value);
            }
        }
        let exposed = self.row.len();
        for &(name, value) in self.attach.labels {
            if !self.row.iter().take(exposed).any(|(other, _)| *other == name) {
                self.row.push((name, value));
            }
        }
        &self.row
    }
}

impl Document {
    /// Records all samples.
    pub fn record(&self, attach: &Attach<'_>, out: &mut MetricsBuilder) -> Parsed {
        let taken = taken_names(attach);
        let mut labels = Labels { document: self, attach, taken: &taken, row: Vec::new() };
        let time_of = |own: u64| if attach.ignore_timestamps { 0 } else { own };
        let before = out.len();
        for sample in &self.samples {
            let point = NumberPoint {
                start_time_unix_nano: sample.start_time_unix_nano,
                time_unix_nano: match time_of(sample.time_unix_nano) {
                    0 => out.now_unix_nano(),
                    own => own,
                },
                value: Number::Double(sample.value),
                ..NumberPoint::default()
            };
            self.record_number(sample, point, &mut labels, out);
            self.record_exemplars(sample.exemplar, out);
        }
        for distribution in &self.distributions {
            self.record_distribution(distribution, time_of(distribution.time_unix_nano), &mut labels, out);
        }
        out.set_metadata(&[]);
        Parsed {
            samples: self.sample_lines,
            points: out.len() - before,
            duplicates: self.duplicates,
            created: self.created,
        }
    }

    /// Records the end of all series that the document has and `now` has not: points without a
    /// value. Series with timestamps of their own never end so, as in Prometheus. Gives their number.
    pub fn record_end(&self, now: Option<&Document>, attach: &Attach<'_>, out: &mut MetricsBuilder) -> usize {
        let taken = taken_names(attach);
        let mut labels = Labels { document: self, attach, taken: &taken, row: Vec::new() };
        let before = out.len();
        let ended = |hash: u64, time_unix_nano: u64| {
            (time_unix_nano == 0 || attach.ignore_timestamps) && !now.is_some_and(|now| now.has(hash))
        };
        for sample in self.samples.iter().filter(|sample| ended(sample.hash, sample.time_unix_nano)) {
            let point =
                NumberPoint { time_unix_nano: out.now_unix_nano(), flags: NO_RECORDED_VALUE, ..NumberPoint::default() };
            self.record_number(sample, point, &mut labels, out);
        }
        for distribution in self.distributions.iter().filter(|one| ended(one.hash, one.time_unix_nano)) {
            self.record_distribution_end(distribution, &mut labels, out);
        }
        out.set_metadata(&[]);
        out.len() - before
    }

    /// How many of its series `before` did not have.
    pub fn series_added(&self, before: Option<&Document>) -> usize {
        let is_new = |hash: u64| !before.is_some_and(|before| before.has(hash));
        let samples = self.samples.iter().filter(|sample| is_new(sample.hash)).count();
        let distributions = self.distributions.iter().filter(|one| one.shape != Shape::Loose && is_new(one.hash));
        samples + distributions.map(Distribution::series_count).sum::<usize>()
    }

    fn describe<'a>(&'a self, family: Option<u32>, name: Option<Span>, is_loose: bool) -> MetricDescription<'a> {
        let family = family.and_then(|at| self.families.get(at as usize)).copied().unwrap_or_default();
        let kind = match family.kind {
            FamilyType::Counter => Kind::Counter,
            FamilyType::Info | FamilyType::StateSet => Kind::UpDownCounter,
            FamilyType::Histogram if !is_loose => Kind::Histogram,
            FamilyType::Summary if !is_loose => Kind::Summary,
            _ => Kind::Gauge,
        };
        let Family { name: family_name, help, unit, .. } = family;
        MetricDescription {
            name: self.text(name.unwrap_or(family_name)),
            unit: self.text(unit),
            kind,
            help: self.text(help),
        }
    }

    fn kind(&self, family: Option<u32>) -> FamilyType {
        family.and_then(|at| self.families.get(at as usize)).map_or(FamilyType::Unknown, |family| family.kind)
    }

    fn record_number(&self, sample: &Sample, point: NumberPoint, labels: &mut Labels<'_>, out: &mut MetricsBuilder) {
        let description = self.describe(sample.family, Some(sample.name), true);
        // Parts of a histogram or summary that was not whole.
        let kind = match self.kind(sample.family) {
            FamilyType::Histogram | FamilyType::Summary => FamilyType::Unknown,
            kind => kind,
        };
        out.set_metadata(metadata(kind));
        out.record_point(&description, labels.of(sample.labels), point);
    }

    fn record_distribution(
        &self,
        distribution: &Distribution,
        time_unix_nano: u64,
        labels: &mut Labels<'_>,
        out: &mut MetricsBuilder,
    ) {
        let family = Some(distribution.family);
        let description = self.describe(family, None, false);
        out.set_metadata(metadata(self.kind(family)));
        let start_time_unix_nano = distribution.start_time_unix_nano;
        match distribution.shape {
            Shape::Loose => {}
            Shape::Histogram { count } => {
                let (explicit_bounds, bucket_counts) = distribution.buckets(count);
                let sum = distribution.sum.map(|sum| sum.value);
                let mut point = HistogramPoint { explicit_bounds, bucket_counts, ..HistogramPoint::default() };
                (point.distribution.count, point.distribution.sum) = (count, sum);
                point.distribution.time_unix_nano = time_unix_nano;
                point.distribution.start_time_unix_nano = start_time_unix_nano;
                out.record_histogram(&description, labels.of(distribution.labels), point);
                for exemplar in &distribution.exemplars {
                    self.record_exemplars(Some(*exemplar), out);
                }
            }
            Shape::Summary { count } => {
                let quantiles = distribution.parts.iter().map(|part| (part.bound, part.value)).collect();
                let sum = distribution.sum.map_or(0.0, |sum| sum.value);
                let point = SummaryPoint {
                    count,
                    sum,
                    quantiles,
                    time_unix_nano,
                    start_time_unix_nano,
                    ..SummaryPoint::default()
                };
                out.record_summary(&description, labels.of(distribution.labels), point);
            }
        }
    }

    /// The point keeps bounds and quantiles: a backend that stores a series for each needs to know which end.
    fn record_distribution_end(&self, distribution: &Distribution, labels: &mut Labels<'_>, out: &mut MetricsBuilder) {
        let family = Some(distribution.family);
        let description = self.describe(family, None, false);
        out.set_metadata(metadata(self.kind(family)));
        match distribution.shape {
            Shape::Loose => {}
            Shape::Histogram { .. } => {
                let (explicit_bounds, counts) = distribution.buckets(0);
                let mut point = HistogramPoint {
                    explicit_bounds,
                    bucket_counts: vec![0; counts.len()],
                    ..HistogramPoint::default()
                };
                point.distribution.flags = NO_RECORDED_VALUE;
                point.distribution.sum = distribution.sum.map(|_| 0.0);
                out.record_histogram(&description, labels.of(distribution.labels), point);
            }
            Shape::Summary { .. } => {
                let quantiles = distribution.parts.iter().map(|part| (part.bound, 0.0)).collect();
                let point = SummaryPoint { quantiles, flags: NO_RECORDED_VALUE, ..SummaryPoint::default() };
                out.record_summary(&description, labels.of(distribution.labels), point);
            }
        }
    }

    /// An exemplar of the point recorded last. Ids of a trace that are what OpenTelemetry takes for
    /// them become ids, everything else stays a label.
    fn record_exemplars(&self, exemplar: Option<u32>, out: &mut MetricsBuilder) {
        let Some(exemplar) = exemplar.and_then(|at| self.exemplars.get(at as usize)) else { return };
        let (mut trace_id, mut span_id) = (None::<[u8; 16]>, None::<[u8; 8]>);
        let mut labels = Vec::new();
        for label in self.label_spans(exemplar.labels) {
            let (name, value) = (self.text(label.name), self.text(label.value));
            match name {
                "trace_id" if hexadecimal::<16>(value).is_some() => trace_id = hexadecimal(value),
                "span_id" if hexadecimal::<8>(value).is_some() => span_id = hexadecimal(value),
                _ => labels.push((name, value)),
            }
        }
        out.record_exemplar(SampledMeasurement {
            labels: &labels,
            time_unix_nano: exemplar.time_unix_nano,
            value: Number::Double(exemplar.value),
            trace_id: trace_id.as_ref().map_or(&[], |id| id.as_slice()),
            span_id: span_id.as_ref().map_or(&[], |id| id.as_slice()),
        });
    }
}

impl Distribution {
    /// How many series Prometheus makes of it.
    fn series_count(&self) -> usize {
        self.parts.len() + usize::from(self.sum.is_some()) + usize::from(self.count.is_some())
    }
}

fn hexadecimal<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut id = [0; BYTES];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(id)
}
