//! Decoding metrics.
//!
//! Every data point becomes a series of its own: finding equal attribute sets costs more than it
//! saves for a batch that is read once. Who keeps series from batch to batch looks them up by content.

use std::sync::Arc;

use bytes::Bytes;

use super::decode_common::{Decoder, Place, each_item, low_32_bits, low_signed, next};
use super::error::DecodeError;
use super::reader::{Range, Reader, WireType};
use crate::arena::Text;
use crate::common::{Attributes, index};
use crate::metrics::{
    Buckets, Data, Distribution, Exemplar, ExponentialPoint, HistogramPoint, Metric, Metrics, Number, NumberPoint,
    PointRef, Series, SeriesTable, SummaryPoint, Temporality,
};

struct MetricsDecoder<'a> {
    decoder: Decoder<'a>,
    metrics: Vec<Metric>,
    series: Vec<Series>,
    points: Metrics,
}

/// Decodes an `ExportMetricsServiceRequest`.
pub(crate) fn decode(base: &Bytes) -> Result<Metrics, DecodeError> {
    let mut metrics = MetricsDecoder {
        decoder: Decoder::new(base, base)?,
        metrics: Vec::new(),
        series: Vec::new(),
        points: Metrics::default(),
    };
    each_item(
        &mut metrics,
        |metrics| &mut metrics.decoder,
        |metrics, count| metrics.metrics.reserve(count),
        |metrics, range, place| metrics.metric(range, place),
    )?;
    let MetricsDecoder { decoder, metrics, series, mut points } = metrics;
    // Stable: the exemplars of one point keep their order.
    points.exemplars.sort_by_key(|exemplar| exemplar.point);
    points.table = Arc::new(SeriesTable { common: decoder.common, metrics, series });
    Ok(points)
}

/// Field numbers of `Metric.data`.
const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL_HISTOGRAM: u32 = 10;
const SUMMARY: u32 = 11;
const METADATA: u32 = 12;

/// The fields of a data message beside its points.
#[derive(Default)]
struct Header {
    points: usize,
    temporality: Temporality,
    monotonic: bool,
}

impl MetricsDecoder<'_> {
    fn metric(&mut self, range: Range, place: &mut Place) -> Result<(), DecodeError> {
        let (mut name, mut description, mut unit) = (Text::EMPTY, Text::EMPTY, Text::EMPTY);
        // Of the data fields the last one wins; the same field twice is one list of points.
        let (mut field, mut has_metadata) = (0, false);
        // Where the last kind of data begins: earlier fields of that kind were replaced by another one.
        let mut from = range.start;
        let mut header = Header::default();
        let mut reader = self.decoder.reader(range);
        while !reader.is_done() {
            let start = reader.at();
            match reader.key()? {
                (1, WireType::Length) => name = self.decoder.text(&mut reader)?,
                (2, WireType::Length) => description = self.decoder.text(&mut reader)?,
                (3, WireType::Length) => unit = self.decoder.text(&mut reader)?,
                (number @ (GAUGE | SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM | SUMMARY), WireType::Length) => {
                    if field != number {
                        (field, from, header) = (number, start, Header::default());
                    }
                    let data = reader.length()?;
                    header.read(self.decoder.reader(data))?;
                }
                (METADATA, WireType::Length) => {
                    reader.length()?;
                    has_metadata = true;
                }
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        if header.points == 0 {
            return Ok(());
        }
        let scope = place.scope_index(&mut self.decoder)?;
        let metadata = if has_metadata { self.metadata(range)? } else { Attributes::EMPTY };
        let data = match field {
            GAUGE => Data::Gauge,
            SUM => Data::Sum { temporality: header.temporality, monotonic: header.monotonic },
            HISTOGRAM => Data::Histogram(header.temporality),
            EXPONENTIAL_HISTOGRAM => Data::ExponentialHistogram(header.temporality),
            _ => Data::Summary,
        };
        self.metrics.push(Metric { scope, name, description, unit, data, metadata });
        self.reserve(data, header.points);
        let mut fields = self.decoder.reader(Range { start: from, end: range.end });
        while let Some(container) = next(&mut fields, field)? {
            let mut points = self.decoder.reader(container);
            while let Some(point) = next(&mut points, 1)? {
                self.point(data, point)?;
            }
        }
        Ok(())
    }

    fn reserve(&mut self, data: Data, count: usize) {
        self.series.reserve(count);
        match data {
            Data::Gauge | Data::Sum { .. } => {
                let numbers = &mut self.points.numbers;
                numbers.series.reserve(count);
                numbers.start_time_unix_nano.reserve(count);
                numbers.time_unix_nano.reserve(count);
                numbers.value.reserve(count);
                numbers.flags.reserve(count);
            }
            Data::Histogram(_) => self.points.histograms.reserve(count),
            Data::ExponentialHistogram(_) => self.points.exponential.reserve(count),
            Data::Summary => self.points.summaries.reserve(count),
        }
    }

    fn metadata(&mut self, metric: Range) -> Result<Attributes, DecodeError> {
        let start = self.decoder.common.attributes.len();
        let mut fields = self.decoder.reader(metric);
        while let Some(range) = next(&mut fields, METADATA)? {
            self.decoder.attribute(range)?;
        }
        self.decoder.attributes_since(start)
    }

    fn point(&mut self, data: Data, range: Range) -> Result<(), DecodeError> {
        match data {
            Data::Gauge | Data::Sum { .. } => self.number(range),
            Data::Histogram(_) => self.histogram(range),
            Data::ExponentialHistogram(_) => self.exponential(range),
            Data::Summary => self.summary(range),
        }
    }

    /// The series that the point being decoded will get from [`Self::series`].
    fn next_series(&self) -> u32 {
        index(self.series.len())
    }

    /// Adds the series of a point, whose attributes are those since `start`.
    fn series(&mut self, start: usize) -> Result<(), DecodeError> {
        let attributes = self.decoder.attributes_since(start)?;
        let metric = index(self.metrics.len().saturating_sub(1));
        self.series.push(Series { metric, attributes });
        Ok(())
    }

    fn number(&mut self, range: Range) -> Result<(), DecodeError> {
        let mut point = NumberPoint { series: self.next_series(), ..NumberPoint::default() };
        let mut has_exemplars = false;
        let start = self.decoder.common.attributes.len();
        let mut reader = self.decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (2, WireType::Fixed64) => point.start_time_unix_nano = reader.fixed64()?,
                (3, WireType::Fixed64) => point.time_unix_nano = reader.fixed64()?,
                (4, WireType::Fixed64) => point.value = Number::Double(reader.double()?),
                (5, WireType::Length) => {
                    reader.length()?;
                    has_exemplars = true;
                }
                (6, WireType::Fixed64) => point.value = Number::Int(reader.fixed64()?.cast_signed()),
                (7, WireType::Length) => self.decoder.attribute(reader.length()?)?,
                (8, WireType::Varint) => point.flags = low_32_bits(reader.varint()?),
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        self.series(start)?;
        if has_exemplars {
            self.exemplars(range, 5, PointRef::Number(index(self.points.numbers.len())))?;
        }
        self.points.numbers.push(point);
        Ok(())
    }

    fn histogram(&mut self, range: Range) -> Result<(), DecodeError> {
        let mut point = HistogramPoint::default();
        let distribution = &mut point.distribution;
        *distribution = Distribution { series: index(self.series.len()), ..Distribution::default() };
        let mut has_exemplars = false;
        let start = self.decoder.common.attributes.len();
        let mut reader = self.decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (2, WireType::Fixed64) => distribution.start_time_unix_nano = reader.fixed64()?,
                (3, WireType::Fixed64) => distribution.time_unix_nano = reader.fixed64()?,
                (4, WireType::Fixed64) => distribution.count = reader.fixed64()?,
                (5, WireType::Fixed64) => distribution.sum = Some(reader.double()?),
                (6, wire_type) => packed_fixed64(&mut reader, wire_type, &mut point.bucket_counts, u64::from_le_bytes)?,
                (7, wire_type) => {
                    packed_fixed64(&mut reader, wire_type, &mut point.explicit_bounds, f64::from_le_bytes)?
                }
                (8, WireType::Length) => {
                    reader.length()?;
                    has_exemplars = true;
                }
                (9, WireType::Length) => self.decoder.attribute(reader.length()?)?,
                (10, WireType::Varint) => distribution.flags = low_32_bits(reader.varint()?),
                (11, WireType::Fixed64) => distribution.min = Some(reader.double()?),
                (12, WireType::Fixed64) => distribution.max = Some(reader.double()?),
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        self.series(start)?;
        if has_exemplars {
            self.exemplars(range, 8, PointRef::Histogram(index(self.points.histograms.len())))?;
        }
        self.points.histograms.push(point);
        Ok(())
    }

    fn exponential(&mut self, range: Range) -> Result<(), DecodeError> {
        let mut point = ExponentialPoint::default();
        let distribution = &mut point.distribution;
        *distribution = Distribution { series: index(self.series.len()), ..Distribution::default() };
        let mut has_exemplars = false;
        let start = self.decoder.common.attributes.len();
        let mut reader = self.decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Length) => self.decoder.attribute(reader.length()?)?,
                (2, WireType::Fixed64) => distribution.start_time_unix_nano = reader.fixed64()?,
                (3, WireType::Fixed64) => distribution.time_unix_nano = reader.fixed64()?,
                (4, WireType::Fixed64) => distribution.count = reader.fixed64()?,
                (5, WireType::Fixed64) => distribution.sum = Some(reader.double()?),
                (6, WireType::Varint) => point.scale = zigzag(reader.varint()?),
                (7, WireType::Fixed64) => point.zero_count = reader.fixed64()?,
                (8, WireType::Length) => point.positive = Some(buckets(self.decoder.reader(reader.length()?))?),
                (9, WireType::Length) => point.negative = Some(buckets(self.decoder.reader(reader.length()?))?),
                (10, WireType::Varint) => distribution.flags = low_32_bits(reader.varint()?),
                (11, WireType::Length) => {
                    reader.length()?;
                    has_exemplars = true;
                }
                (12, WireType::Fixed64) => distribution.min = Some(reader.double()?),
                (13, WireType::Fixed64) => distribution.max = Some(reader.double()?),
                (14, WireType::Fixed64) => point.zero_threshold = reader.double()?,
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        self.series(start)?;
        if has_exemplars {
            self.exemplars(range, 11, PointRef::Exponential(index(self.points.exponential.len())))?;
        }
        self.points.exponential.push(point);
        Ok(())
    }

    fn summary(&mut self, range: Range) -> Result<(), DecodeError> {
        let mut point = SummaryPoint { series: self.next_series(), ..SummaryPoint::default() };
        let start = self.decoder.common.attributes.len();
        let mut reader = self.decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (2, WireType::Fixed64) => point.start_time_unix_nano = reader.fixed64()?,
                (3, WireType::Fixed64) => point.time_unix_nano = reader.fixed64()?,
                (4, WireType::Fixed64) => point.count = reader.fixed64()?,
                (5, WireType::Fixed64) => point.sum = reader.double()?,
                (6, WireType::Length) => point.quantiles.push(quantile(self.decoder.reader(reader.length()?))?),
                (7, WireType::Length) => self.decoder.attribute(reader.length()?)?,
                (8, WireType::Varint) => point.flags = low_32_bits(reader.varint()?),
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        self.series(start)?;
        self.points.summaries.push(point);
        Ok(())
    }

    /// The exemplars of a point lie in one of its fields; they have attributes of their own, so
    /// they are read after the point's.
    fn exemplars(&mut self, point: Range, field: u32, of: PointRef) -> Result<(), DecodeError> {
        let mut fields = self.decoder.reader(point);
        while let Some(range) = next(&mut fields, field)? {
            let exemplar = exemplar(&mut self.decoder, range, of)?;
            self.points.exemplars.push(exemplar);
        }
        Ok(())
    }
}

impl Header {
    fn read(&mut self, mut reader: Reader<'_>) -> Result<(), DecodeError> {
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Length) => {
                    reader.length()?;
                    self.points += 1;
                }
                (2, WireType::Varint) => self.temporality = Temporality::from_number(low_signed(reader.varint()?)),
                (3, WireType::Varint) => self.monotonic = reader.varint()? != 0,
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        Ok(())
    }
}

fn exemplar(decoder: &mut Decoder<'_>, range: Range, point: PointRef) -> Result<Exemplar, DecodeError> {
    let (mut time_unix_nano, mut value) = (0, Number::None);
    let (mut span_id, mut trace_id) = (Text::EMPTY, Text::EMPTY);
    let start = decoder.common.attributes.len();
    let mut reader = decoder.reader(range);
    while !reader.is_done() {
        match reader.key()? {
            (2, WireType::Fixed64) => time_unix_nano = reader.fixed64()?,
            (3, WireType::Fixed64) => value = Number::Double(reader.double()?),
            (4, WireType::Length) => span_id = decoder.text(&mut reader)?,
            (5, WireType::Length) => trace_id = decoder.text(&mut reader)?,
            (6, WireType::Fixed64) => value = Number::Int(reader.fixed64()?.cast_signed()),
            (7, WireType::Length) => decoder.attribute(reader.length()?)?,
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    let filtered_attributes = decoder.attributes_since(start)?;
    Ok(Exemplar { point, filtered_attributes, time_unix_nano, value, span_id, trace_id })
}

fn buckets(mut reader: Reader<'_>) -> Result<Buckets, DecodeError> {
    let mut buckets = Buckets::default();
    while !reader.is_done() {
        match reader.key()? {
            (1, WireType::Varint) => buckets.offset = zigzag(reader.varint()?),
            (2, WireType::Varint) => buckets.counts.push(reader.varint()?),
            (2, WireType::Length) => {
                let range = reader.length()?;
                let mut packed = reader.within(range);
                while !packed.is_done() {
                    buckets.counts.push(packed.varint()?);
                }
            }
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok(buckets)
}

fn quantile(mut reader: Reader<'_>) -> Result<(f64, f64), DecodeError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    while !reader.is_done() {
        match reader.key()? {
            (1, WireType::Fixed64) => quantile = reader.double()?,
            (2, WireType::Fixed64) => value = reader.double()?,
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok((quantile, value))
}

/// Numbers of eight bytes come packed, or one by one from encoders of the older syntax.
fn packed_fixed64<T>(
    reader: &mut Reader<'_>,
    wire_type: WireType,
    out: &mut Vec<T>,
    convert: fn([u8; 8]) -> T,
) -> Result<(), DecodeError> {
    match wire_type {
        WireType::Length => {
            let range = reader.length()?;
            let (numbers, _) = reader.slice(range).as_chunks::<8>();
            out.extend(numbers.iter().map(|bytes| convert(*bytes)));
        }
        WireType::Fixed64 => out.push(convert(reader.fixed64()?.to_le_bytes())),
        other => reader.skip(0, other, 0)?,
    }
    Ok(())
}

/// `sint32`: the sign is the lowest bit.
fn zigzag(value: u64) -> i32 {
    let value = low_32_bits(value);
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

impl Temporality {
    /// From the number of the OTLP enumeration; a number that the schema does not name is unspecified.
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            1 => Temporality::Delta,
            2 => Temporality::Cumulative,
            _ => Temporality::Unspecified,
        }
    }

    /// The number of the OTLP enumeration.
    pub(crate) fn number(self) -> i32 {
        match self {
            Temporality::Unspecified => 0,
            Temporality::Delta => 1,
            Temporality::Cumulative => 2,
        }
    }
}
