//! Parts of decoded records: some of them, or two halves of a delivery that was refused.

use crate::batch::Records;
use crate::common::index;
use crate::logs::Logs;
use crate::metrics::{Exemplar, Metrics, Numbers, PointRef};
use crate::traces::Traces;

impl Records {
    /// The records at the positions for which `keep` says so, in the same order. Positions count
    /// as [`Records::len`] does; for metrics: numbers, histograms, exponential histograms, summaries.
    ///
    /// What the records share (text, attributes, resources, series) goes along whole.
    #[must_use]
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> Records {
        match self {
            Records::Metrics(metrics) => Records::Metrics(metrics.select(keep)),
            Records::Logs(logs) => {
                Records::Logs(Logs { common: logs.common.clone(), records: kept(&logs.records, 0, &keep) })
            }
            Records::Traces(traces) => Records::Traces(Traces {
                common: traces.common.clone(),
                spans: kept(&traces.spans, 0, &keep),
                // Spans hold ranges of these, so they stay whole.
                events: traces.events.clone(),
                links: traces.links.clone(),
            }),
        }
    }

    /// The first `at` records, and the rest.
    #[must_use]
    pub fn split_at(&self, at: usize) -> (Records, Records) {
        (self.select(|position| position < at), self.select(|position| position >= at))
    }
}

impl Metrics {
    /// The points at the positions for which `keep` says so, with their exemplars; see
    /// [`Records::select`]. The series table is shared.
    #[must_use]
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> Metrics {
        let histograms_from = self.numbers.len();
        let exponential_from = histograms_from + self.histograms.len();
        let summaries_from = exponential_from + self.exponential.len();
        Metrics {
            table: self.table.clone(),
            numbers: self.numbers.select(&keep),
            histograms: kept(&self.histograms, histograms_from, &keep),
            exponential: kept(&self.exponential, exponential_from, &keep),
            summaries: kept(&self.summaries, summaries_from, &keep),
            exemplars: self.kept_exemplars(histograms_from, exponential_from, &keep),
        }
    }

    /// The exemplars of the kept points, which have moved to the front.
    fn kept_exemplars(
        &self,
        histograms_from: usize,
        exponential_from: usize,
        keep: &impl Fn(usize) -> bool,
    ) -> Vec<Exemplar> {
        if self.exemplars.is_empty() {
            return Vec::new();
        }
        let numbers = moved(0, self.numbers.len(), keep);
        let histograms = moved(histograms_from, self.histograms.len(), keep);
        let exponential = moved(exponential_from, self.exponential.len(), keep);
        let to = |places: &[Option<u32>], at: u32| places.get(at as usize).copied().flatten();
        let moved = |exemplar: &Exemplar| {
            let point = match exemplar.point {
                PointRef::Number(at) => PointRef::Number(to(&numbers, at)?),
                PointRef::Histogram(at) => PointRef::Histogram(to(&histograms, at)?),
                PointRef::Exponential(at) => PointRef::Exponential(to(&exponential, at)?),
            };
            Some(Exemplar { point, ..*exemplar })
        };
        self.exemplars.iter().filter_map(moved).collect()
    }
}

impl Numbers {
    fn select(&self, keep: &impl Fn(usize) -> bool) -> Numbers {
        Numbers {
            series: kept(&self.series, 0, keep),
            start_time_unix_nano: kept(&self.start_time_unix_nano, 0, keep),
            time_unix_nano: kept(&self.time_unix_nano, 0, keep),
            value: kept(&self.value, 0, keep),
            flags: kept(&self.flags, 0, keep),
        }
    }
}

/// The kept ones of a list whose first element has the position `from`.
fn kept<T: Clone>(list: &[T], from: usize, keep: &impl Fn(usize) -> bool) -> Vec<T> {
    list.iter().enumerate().filter(|(at, _)| keep(from + at)).map(|(_, record)| record.clone()).collect()
}

/// Where each of `length` points goes; `None` where it is not kept.
fn moved(from: usize, length: usize, keep: &impl Fn(usize) -> bool) -> Vec<Option<u32>> {
    let mut next = 0;
    let mut place = |at: usize| {
        keep(from + at).then(|| {
            next += 1;
            index(next - 1)
        })
    };
    (0..length).map(&mut place).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::common::{Attributes, Common, Resource, Scope, Value};
    use crate::logs::LogRecord;
    use crate::metrics::*;
    use crate::otlp;
    use crate::traces::{Event, Link, Span};
    use crate::{Encoding, Signal, Text, Wire};

    fn common() -> Common {
        let mut common = Common::default();
        let attributes = common.add_texts([("host.name", "a")]);
        common.resources.push(Resource { attributes, ..Default::default() });
        let name = common.arena.add(b"scope");
        common.scopes.push(Scope { resource: 0, present: true, name, ..Default::default() });
        common
    }

    /// Points whose time is their own position, and whose exemplars have the time of their point.
    fn metrics(numbers: u64, histograms: u64, exponential: u64, summaries: u64) -> Metrics {
        let mut table = SeriesTable { common: common(), ..Default::default() };
        let kinds = [
            Data::Gauge,
            Data::Histogram(Temporality::Delta),
            Data::ExponentialHistogram(Temporality::Delta),
            Data::Summary,
        ];
        for (at, data) in kinds.into_iter().enumerate() {
            let name = table.common.arena.add(format!("metric.{at}").as_bytes());
            let (description, unit, metadata) = (Text::EMPTY, Text::EMPTY, Attributes::EMPTY);
            table.metrics.push(Metric { scope: 0, name, description, unit, data, metadata });
            table.series.push(Series { metric: index(at), attributes: Attributes::EMPTY });
        }
        let mut metrics = Metrics { table: Arc::new(table), ..Default::default() };
        let mut time_unix_nano = 0;
        let exemplar = |metrics: &mut Metrics, point, time_unix_nano| {
            // Every third point has none, the others one or two.
            for _ in 0..time_unix_nano % 3 {
                let (id, value) = (Text::EMPTY, Number::Int(7));
                let filtered_attributes = Attributes::EMPTY;
                metrics.exemplars.push(Exemplar {
                    point,
                    filtered_attributes,
                    time_unix_nano,
                    value,
                    span_id: id,
                    trace_id: id,
                });
            }
        };
        for at in 0..numbers {
            time_unix_nano += 1;
            metrics.numbers.push(NumberPoint { time_unix_nano, value: Number::Int(5), ..Default::default() });
            exemplar(&mut metrics, PointRef::Number(at as u32), time_unix_nano);
        }
        for at in 0..histograms {
            time_unix_nano += 1;
            let distribution = Distribution { series: 1, time_unix_nano, ..Default::default() };
            metrics.histograms.push(HistogramPoint { distribution, ..Default::default() });
            exemplar(&mut metrics, PointRef::Histogram(at as u32), time_unix_nano);
        }
        for at in 0..exponential {
            time_unix_nano += 1;
            let distribution = Distribution { series: 2, time_unix_nano, ..Default::default() };
            metrics.exponential.push(ExponentialPoint { distribution, ..Default::default() });
            exemplar(&mut metrics, PointRef::Exponential(at as u32), time_unix_nano);
        }
        for _ in 0..summaries {
            time_unix_nano += 1;
            metrics.summaries.push(SummaryPoint { series: 3, time_unix_nano, ..Default::default() });
        }
        metrics
    }

    fn logs(records: u64) -> Logs {
        let mut logs = Logs { common: common(), ..Default::default() };
        for time_unix_nano in 1..=records {
            let body = Value::String(logs.common.arena.add(format!("line {time_unix_nano}").as_bytes()));
            logs.records.push(LogRecord { time_unix_nano, body, ..Default::default() });
        }
        logs
    }

    /// Spans with as many events and links as their position says, marked with it.
    fn traces(spans: u64) -> Traces {
        let mut traces = Traces { common: common(), ..Default::default() };
        for time in 1..=spans {
            let many = (time % 3) as u32;
            let events = (index(traces.events.len()), many);
            let links = (index(traces.links.len()), many);
            for _ in 0..many {
                traces.events.push(Event { time_unix_nano: time, ..Default::default() });
                traces.links.push(Link { flags: time as u32, ..Default::default() });
            }
            let trace_id = traces.common.arena.add(&[time as u8; 16]);
            let span_id = traces.common.arena.add(&[time as u8; 8]);
            traces.spans.push(Span {
                trace_id,
                span_id,
                start_time_unix_nano: time,
                events,
                links,
                ..Default::default()
            });
        }
        traces
    }

    /// The times that tell the records apart, in the order in which they are counted. On the way,
    /// everything that hangs on a record must carry the time of that record.
    fn times(records: &Records) -> Vec<u64> {
        match records {
            Records::Logs(logs) => logs.records.iter().map(|r| r.time_unix_nano).collect(),
            Records::Traces(traces) => traces
                .spans
                .iter()
                .map(|span| {
                    let time = span.start_time_unix_nano;
                    assert_eq!(traces.events_of(span).len() as u64, time % 3);
                    assert_eq!(traces.links_of(span).len() as u64, time % 3);
                    assert!(traces.events_of(span).iter().all(|e| e.time_unix_nano == time));
                    assert!(traces.links_of(span).iter().all(|l| u64::from(l.flags) == time));
                    time
                })
                .collect(),
            Records::Metrics(metrics) => {
                let check = |point, time| {
                    let own = metrics.exemplars_of(point);
                    assert_eq!(own.len() as u64, time % 3, "exemplars of {point:?}");
                    assert!(own.iter().all(|e| e.time_unix_nano == time));
                    time
                };
                let numbers = metrics.numbers.iter().enumerate();
                let histograms = metrics.histograms.iter().enumerate();
                let exponential = metrics.exponential.iter().enumerate();
                let mut out: Vec<u64> =
                    numbers.map(|(at, p)| check(PointRef::Number(at as u32), p.time_unix_nano)).collect();
                out.extend(
                    histograms.map(|(at, p)| check(PointRef::Histogram(at as u32), p.distribution.time_unix_nano)),
                );
                out.extend(
                    exponential.map(|(at, p)| check(PointRef::Exponential(at as u32), p.distribution.time_unix_nano)),
                );
                out.extend(metrics.summaries.iter().map(|p| p.time_unix_nano));
                let hanging: u64 = out.iter().take(out.len() - metrics.summaries.len()).map(|time| time % 3).sum();
                assert_eq!(metrics.exemplars.len() as u64, hanging, "no exemplar without its point");
                out
            }
        }
    }

    fn any_records() -> impl Strategy<Value = Records> {
        prop_oneof![
            (0_u64..6, 0_u64..6, 0_u64..6, 0_u64..6).prop_map(|(n, h, e, s)| Records::Metrics(metrics(n, h, e, s))),
            (0_u64..12).prop_map(|records| Records::Logs(logs(records))),
            (0_u64..12).prop_map(|spans| Records::Traces(traces(spans))),
        ]
    }

    #[test]
    fn the_selected_metrics_share_the_series_table() {
        let whole = metrics(3, 0, 0, 0);
        assert!(Arc::ptr_eq(&whole.table, &whole.select(|at| at == 1).table));
    }

    proptest! {
        #[test]
        fn a_selection_and_the_rest_hold_every_record_once_in_order(records in any_records(), mask in any::<u32>()) {
            let keep = |at: usize| mask >> at & 1 == 1;
            let all = times(&records);
            prop_assert_eq!(all.len(), records.len());
            let expected = |wanted: bool| -> Vec<u64> {
                all.iter().enumerate().filter(|(at, _)| keep(*at) == wanted).map(|(_, time)| *time).collect()
            };
            prop_assert_eq!(times(&records.select(keep)), expected(true));
            prop_assert_eq!(times(&records.select(|at| !keep(at))), expected(false));
        }

        #[test]
        fn the_halves_follow_each_other(records in any_records(), at in 0_usize..30) {
            let (first, rest) = records.split_at(at);
            prop_assert_eq!(first.len(), at.min(records.len()));
            let mut both = times(&first);
            both.extend(times(&rest));
            prop_assert_eq!(both, times(&records));
        }

        /// Protobuf messages that follow each other are one message with the lists of both.
        #[test]
        fn the_requests_of_both_halves_behind_each_other_hold_all_records(records in any_records(), at in 0_usize..30) {
            let (first, rest) = records.split_at(at);
            let bytes = [otlp::encode_protobuf(&first), otlp::encode_protobuf(&rest)].concat();
            let wire = Wire { encoding: Encoding::Protobuf, bytes: bytes.into() };
            let signal: Signal = records.signal();
            let decoded = otlp::decode(signal, &wire).expect("what was encoded decodes");
            prop_assert_eq!(times(&decoded), times(&records));
        }
    }
}
