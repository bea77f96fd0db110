//! The order in which the points of a batch are written: grouped by resource, scope and metric.
//!
//! A collector records its points in any order against a table that grows from poll to poll; OTLP
//! wants every metric once with its points below it. Groups come in the order of the table, points
//! in the order in which they were recorded, so a decoded batch keeps its order exactly.

use crate::common::index;
use crate::metrics::{Data, Metrics, SeriesTable, Temporality};

/// A point and the group that it belongs to; ordered by group, then by point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) resource: u32,
    pub(crate) scope: u32,
    pub(crate) metric: u32,
    pub(crate) list: List,
    pub(crate) point: u32,
}

/// The list of [`Metrics`] that a point lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum List {
    Numbers,
    Histograms,
    Exponential,
    Summaries,
}

impl Entry {
    /// Whether both points belong below the same metric.
    pub(crate) fn same_metric(&self, other: &Entry) -> bool {
        self.metric == other.metric && self.list == other.list && self.scope == other.scope
    }
}

/// All points of a batch, grouped. A point whose series is not in the table (an error of who built
/// the batch) belongs to a metric without name: it is written rather than lost.
pub(crate) fn group(metrics: &Metrics) -> Vec<Entry> {
    let table = &metrics.table;
    let mut entries = Vec::with_capacity(metrics.len());
    let mut add = |list: List, point: usize, series: u32| {
        entries.push(entry(table, list, index(point), series));
    };
    metrics.numbers.series.iter().enumerate().for_each(|(at, series)| add(List::Numbers, at, *series));
    let histograms = metrics.histograms.iter().map(|point| point.distribution.series);
    histograms.enumerate().for_each(|(at, series)| add(List::Histograms, at, series));
    let exponential = metrics.exponential.iter().map(|point| point.distribution.series);
    exponential.enumerate().for_each(|(at, series)| add(List::Exponential, at, series));
    metrics.summaries.iter().enumerate().for_each(|(at, point)| add(List::Summaries, at, point.series));
    if !entries.is_sorted() {
        // No two entries are equal, so the order is the same as that of a stable sort.
        entries.sort_unstable();
    }
    entries
}

fn entry(table: &SeriesTable, list: List, point: u32, series: u32) -> Entry {
    let metric = table.series.get(series as usize).map_or(u32::MAX, |series| series.metric);
    let scope = table.metrics.get(metric as usize).map_or(u32::MAX, |metric| metric.scope);
    let resource = table.common.scopes.get(scope as usize).map_or(u32::MAX, |scope| scope.resource);
    Entry { resource, scope, metric, list, point }
}

/// The data field that points of a list are written in: that of their metric. Points of another
/// kind than their metric (an error of who built the batch) keep their own kind, unspecified otherwise.
pub(crate) fn data_of(table: &SeriesTable, entry: &Entry) -> Data {
    let data = table.metrics.get(entry.metric as usize).map(|metric| metric.data);
    match (entry.list, data) {
        (List::Numbers, Some(data @ (Data::Gauge | Data::Sum { .. })))
        | (List::Histograms, Some(data @ Data::Histogram(_)))
        | (List::Exponential, Some(data @ Data::ExponentialHistogram(_)))
        | (List::Summaries, Some(data @ Data::Summary)) => data,
        (List::Numbers, _) => Data::Gauge,
        (List::Histograms, _) => Data::Histogram(Temporality::Unspecified),
        (List::Exponential, _) => Data::ExponentialHistogram(Temporality::Unspecified),
        (List::Summaries, _) => Data::Summary,
    }
}
