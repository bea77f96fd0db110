//! The two messages of remote write, from the same series: `prometheus.WriteRequest` (1.0) and
//! `io.prometheus.write.v2.Request` (2.0-rc.4). Field numbers: prometheus/prometheus
//! `prompb/types.proto`, `prompb/remote.proto` and `prompb/io/prometheus/write/v2/types.proto`.

use super::native::{NativeHistogram, Side};
use super::protobuf as proto;
use super::series::{ExemplarRow, Family, HistogramRow, SampleRow, Series, SeriesSet};

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

impl Version {
    /// `Content-Type` of its requests.
    pub fn content_type(self) -> &'static str {
        match self {
            Version::V1 => "application/x-protobuf",
            Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// `X-Prometheus-Remote-Write-Version` of its requests.
    pub fn header(self) -> &'static str {
        match self {
            Version::V1 => "0.1.0",
            Version::V2 => "2.0.0",
        }
    }
}

/// The message, not compressed.
pub(super) fn message(set: &SeriesSet, version: Version) -> Vec<u8> {
    match version {
        Version::V1 => message_v1(set),
        Version::V2 => message_v2(set),
    }
}

/// What is written of one series.
struct Rows<'a> {
    series: &'a Series,
    samples: &'a [SampleRow],
    histograms: &'a [HistogramRow],
    exemplars: &'a [ExemplarRow],
}

/// All series that have a sample, with their rows, which are sorted by series.
fn rows(set: &SeriesSet) -> impl Iterator<Item = Rows<'_>> {
    let (mut samples, mut histograms, mut exemplars) =
        (set.samples.as_slice(), set.histograms.as_slice(), set.exemplars.as_slice());
    set.series.iter().enumerate().filter_map(move |(at, series)| {
        let at = u32::try_from(at).ok()?;
        let rows = Rows {
            series,
            samples: take(&mut samples, |row| row.series == at),
            histograms: take(&mut histograms, |row| row.series == at),
            exemplars: take(&mut exemplars, |row| row.series == at),
        };
        // A series whose samples were all refused: receivers take one without samples for an error.
        (!rows.samples.is_empty() || !rows.histograms.is_empty()).then_some(rows)
    })
}

fn take<'a, T>(rows: &mut &'a [T], is_own: impl Fn(&T) -> bool) -> &'a [T] {
    let end = rows.iter().position(|row| !is_own(row)).unwrap_or(rows.len());
    let (own, rest) = rows.split_at(end);
    *rows = rest;
    own
}

fn message_v1(set: &SeriesSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 * set.series.len());
    let (mut message, mut inner) = (Vec::new(), Vec::new());
    for rows in rows(set) {
        message.clear();
        for &(name, value) in set.labels(rows.series.labels) {
            inner.clear();
            label_v1(&mut inner, set.symbols.text(name), set.symbols.text(value));
            proto::bytes(&mut message, 1, &inner);
        }
        for row in rows.samples {
            inner.clear();
            proto::double(&mut inner, 1, row.value);
            proto::int(&mut inner, 2, row.time_ms);
            proto::bytes(&mut message, 2, &inner);
        }
        for row in rows.exemplars {
            inner.clear();
            for &(name, value) in set.labels(row.labels) {
                let mut label = Vec::new();
                label_v1(&mut label, set.symbols.text(name), set.symbols.text(value));
                proto::bytes(&mut inner, 1, &label);
            }
            proto::double(&mut inner, 2, row.value);
            proto::int(&mut inner, 3, row.time_ms);
            proto::bytes(&mut message, 3, &inner);
        }
        for row in rows.histograms {
            inner.clear();
            histogram(&mut inner, &row.histogram, row.time_ms);
            proto::bytes(&mut message, 4, &inner);
        }
        proto::bytes(&mut out, 1, &message);
    }
    for family in &set.families {
        message.clear();
        proto::uint(&mut message, 1, family.kind.number());
        proto::string(&mut message, 2, set.symbols.text(family.name));
        proto::string(&mut message, 4, set.symbols.text(family.help));
        proto::string(&mut message, 5, set.symbols.text(family.unit));
        proto::bytes(&mut out, 3, &message);
    }
    out
}

fn label_v1(out: &mut Vec<u8>, name: &str, value: &str) {
    proto::string(out, 1, name);
    proto::string(out, 2, value);
}

fn message_v2(set: &SeriesSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * set.series.len());
    for symbol in set.symbols.iter() {
        // The first symbol must be there, and is empty.
        proto::bytes(&mut out, 4, symbol.as_bytes());
    }
    let (mut message, mut inner) = (Vec::new(), Vec::new());
    for rows in rows(set) {
        message.clear();
        refs(&mut message, &mut inner, set.labels(rows.series.labels));
        for row in rows.samples {
            inner.clear();
            proto::double(&mut inner, 1, row.value);
            proto::int(&mut inner, 2, row.time_ms);
            proto::int(&mut inner, 3, row.start_ms);
            proto::bytes(&mut message, 2, &inner);
        }
        for row in rows.histograms {
            inner.clear();
            histogram(&mut inner, &row.histogram, row.time_ms);
            proto::int(&mut inner, 17, row.start_ms);
            proto::bytes(&mut message, 3, &inner);
        }
        for row in rows.exemplars {
            let mut exemplar = Vec::new();
            refs(&mut exemplar, &mut inner, set.labels(row.labels));
            proto::double(&mut exemplar, 2, row.value);
            proto::int(&mut exemplar, 3, row.time_ms);
            proto::bytes(&mut message, 4, &exemplar);
        }
        if let Some(Family { kind, help, unit, .. }) = set.families.get(rows.series.family as usize) {
            inner.clear();
            proto::uint(&mut inner, 1, kind.number());
            proto::uint(&mut inner, 3, u64::from(*help));
            proto::uint(&mut inner, 4, u64::from(*unit));
            proto::bytes(&mut message, 5, &inner);
        }
        proto::bytes(&mut out, 5, &message);
    }
    out
}

/// Label references as one packed field 1.
fn refs(out: &mut Vec<u8>, scratch: &mut Vec<u8>, labels: &[(u32, u32)]) {
    scratch.clear();
    for &(name, value) in labels {
        proto::varint(scratch, u64::from(name));
        proto::varint(scratch, u64::from(value));
    }
    if !scratch.is_empty() {
        proto::bytes(out, 1, scratch);
    }
}

/// `Histogram`, the same in both versions but for the start time. The reset hint stays unknown.
fn histogram(out: &mut Vec<u8>, own: &NativeHistogram, time_ms: i64) {
    proto::uint_always(out, 1, own.count);
    proto::double(out, 3, own.sum);
    proto::sint(out, 4, i64::from(own.schema));
    proto::double(out, 5, own.zero_threshold);
    proto::uint_always(out, 6, own.zero_count);
    side(out, &own.negative, 8, 9);
    side(out, &own.positive, 11, 12);
    proto::int(out, 15, time_ms);
}

fn side(out: &mut Vec<u8>, own: &Side, spans_field: u32, deltas_field: u32) {
    let mut inner = Vec::new();
    for &(gap, length) in &own.spans {
        inner.clear();
        proto::sint(&mut inner, 1, gap);
        proto::uint(&mut inner, 2, length);
        proto::bytes(out, spans_field, &inner);
    }
    if !own.deltas.is_empty() {
        inner.clear();
        own.deltas.iter().for_each(|delta| proto::varint(&mut inner, proto::zigzag(*delta)));
        proto::bytes(out, deltas_field, &inner);
    }
}
