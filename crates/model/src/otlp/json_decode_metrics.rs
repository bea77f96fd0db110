//! Decoding metrics from OTLP/JSON.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{DecodeError, Fault};
use super::json_decode_common::{JsonDecoder, METRICS_KEYS, decode_with};
use crate::arena::Text;
use crate::common::{Attributes, index};
use crate::metrics::{
    Buckets, Data, Distribution, Exemplar, ExponentialPoint, HistogramPoint, Metric, Metrics, Number, NumberPoint,
    PointRef, Series, SeriesTable, SummaryPoint, Temporality,
};

/// Metrics as they grow; the table is shared only when it is complete.
#[derive(Default)]
struct Growing {
    metrics: Vec<Metric>,
    series: Vec<Series>,
    points: Metrics,
}

/// Decodes an `ExportMetricsServiceRequest`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Metrics, DecodeError> {
    let (common, growing) = decode_with(bytes, |decoder| {
        let mut growing = Growing::default();
        decoder.each_item(&METRICS_KEYS, &mut |decoder, scope| growing.metric(decoder, scope))?;
        Ok(growing)
    })?;
    let Growing { metrics, series, mut points } = growing;
    // Stable: the exemplars of one point keep their order.
    points.exemplars.sort_by_key(|exemplar| exemplar.point);
    points.table = Arc::new(SeriesTable { common, metrics, series });
    Ok(points)
}

/// The members of a data object beside its points.
#[derive(Default)]
struct Header {
    points: usize,
    temporality: Temporality,
    monotonic: bool,
}

type ReadPoint = fn(&mut Growing, &mut JsonDecoder<'_>) -> Result<(), DecodeError>;

impl Growing {
    /// Reads a metric and says how many points it has. Its place in the table is the next one.
    fn metric(&mut self, decoder: &mut JsonDecoder<'_>, scope: u32) -> Result<usize, DecodeError> {
        let (mut name, mut description, mut unit) = (Text::EMPTY, Text::EMPTY, Text::EMPTY);
        let mut metadata = Attributes::EMPTY;
        let mut data = None;
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            let read: ReadPoint = match &*key {
                "gauge" | "sum" => Self::number,
                "histogram" => Self::histogram,
                "exponentialHistogram" => Self::exponential,
                "summary" => Self::summary,
                other => {
                    match other {
                        "name" => name = decoder.text()?,
                        "description" => description = decoder.text()?,
                        "unit" => unit = decoder.text()?,
                        "metadata" => metadata = decoder.attributes()?,
                        _ => decoder.json.skip()?,
                    }
                    continue;
                }
            };
            if data.is_some() {
                let expected = "one of gauge, sum, histogram, exponentialHistogram and summary";
                let found = "a second one".to_owned();
                return Err(DecodeError::at(decoder.json.at(), Fault::JsonType { expected, found }));
            }
            let header = self.data(decoder, read)?;
            let kind = match &*key {
                "gauge" => Data::Gauge,
                "sum" => Data::Sum { temporality: header.temporality, monotonic: header.monotonic },
                "histogram" => Data::Histogram(header.temporality),
                "exponentialHistogram" => Data::ExponentialHistogram(header.temporality),
                _ => Data::Summary,
            };
            data = Some((kind, header.points));
        }
        match data {
            Some((data, points)) if points > 0 => {
                self.metrics.push(Metric { scope, name, description, unit, data, metadata });
                Ok(points)
            }
            _ => Ok(0),
        }
    }

    fn data(&mut self, decoder: &mut JsonDecoder<'_>, read: ReadPoint) -> Result<Header, DecodeError> {
        let mut header = Header::default();
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            match &*key {
                "dataPoints" => {
                    let mut points = decoder.json.array()?;
                    while decoder.json.element(&mut points)? {
                        read(self, decoder)?;
                        header.points += 1;
                    }
                }
                "aggregationTemporality" => header.temporality = Temporality::from_number(decoder.json.i32()?),
                "isMonotonic" => header.monotonic = decoder.json.bool()?,
                _ => decoder.json.skip()?,
            }
        }
        Ok(header)
    }

    /// Adds the series of a point, below the metric that is being read.
    fn series(&mut self, attributes: Attributes) -> u32 {
        self.series.push(Series { metric: index(self.metrics.len()), attributes });
        index(self.series.len() - 1)
    }

    fn number(&mut self, decoder: &mut JsonDecoder<'_>) -> Result<(), DecodeError> {
        let at = PointRef::Number(index(self.points.numbers.len()));
        let (mut point, mut attributes) = (NumberPoint::default(), Attributes::EMPTY);
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            match &*key {
                "attributes" => attributes = decoder.attributes()?,
                "startTimeUnixNano" => point.start_time_unix_nano = decoder.json.u64()?,
                "timeUnixNano" => point.time_unix_nano = decoder.json.u64()?,
                "asDouble" => point.value = Number::Double(decoder.json.double()?),
                "asInt" => point.value = Number::Int(decoder.json.i64()?),
                "exemplars" => self.exemplars(decoder, at)?,
                "flags" => point.flags = decoder.json.u32()?,
                _ => decoder.json.skip()?,
            }
        }
        point.series = self.series(attributes);
        self.points.numbers.push(point);
        Ok(())
    }

    fn histogram(&mut self, decoder: &mut JsonDecoder<'_>) -> Result<(), DecodeError> {
        let at = PointRef::Histogram(index(self.points.histograms.len()));
        let (mut point, mut attributes) = (HistogramPoint::default(), Attributes::EMPTY);
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            match &*key {
                "attributes" => attributes = decoder.attributes()?,
                "bucketCounts" => point.bucket_counts = numbers(decoder, |d| d.json.u64())?,
                "explicitBounds" => point.explicit_bounds = numbers(decoder, |d| d.json.double())?,
                "exemplars" => self.exemplars(decoder, at)?,
                key => distribution(decoder, key, &mut point.distribution)?,
            }
        }
        point.distribution.series = self.series(attributes);
        self.points.histograms.push(point);
        Ok(())
    }

    fn exponential(&mut self, decoder: &mut JsonDecoder<'_>) -> Result<(), DecodeError> {
        let at = PointRef::Exponential(index(self.points.exponential.len()));
        let (mut point, mut attributes) = (ExponentialPoint::default(), Attributes::EMPTY);
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            match &*key {
                "attributes" => attributes = decoder.attributes()?,
                "scale" => point.scale = decoder.json.i32()?,
                "zeroCount" => point.zero_count = decoder.json.u64()?,
                "zeroThreshold" => point.zero_threshold = decoder.json.double()?,
                "positive" => point.positive = Some(buckets(decoder)?),
                "negative" => point.negative = Some(buckets(decoder)?),
                "exemplars" => self.exemplars(decoder, at)?,
                key => distribution(decoder, key, &mut point.distribution)?,
            }
        }
        point.distribution.series = self.series(attributes);
        self.points.exponential.push(point);
        Ok(())
    }

    fn summary(&mut self, decoder: &mut JsonDecoder<'_>) -> Result<(), DecodeError> {
        let (mut point, mut attributes) = (SummaryPoint::default(), Attributes::EMPTY);
        let mut object = decoder.json.object()?;
        while let Some(key) = decoder.json.key(&mut object)? {
            match &*key {
                "attributes" => attributes = decoder.attributes()?,
                "startTimeUnixNano" => point.start_time_unix_nano = decoder.json.u64()?,
                "timeUnixNano" => point.time_unix_nano = decoder.json.u64()?,
                "count" => point.count = decoder.json.u64()?,
                "sum" => point.sum = decoder.json.double()?,
                "quantileValues" => point.quantiles = numbers(decoder, quantile)?,
                "flags" => point.flags = decoder.json.u32()?,
                _ => decoder.json.skip()?,
            }
        }
        point.series = self.series(attributes);
        self.points.summaries.push(point);
        Ok(())
    }

    fn exemplars(&mut self, decoder: &mut JsonDecoder<'_>, point: PointRef) -> Result<(), DecodeError> {
        let mut array = decoder.json.array()?;
        while decoder.json.element(&mut array)? {
            let exemplar = exemplar(decoder, point)?;
            self.points.exemplars.push(exemplar);
        }
        Ok(())
    }
}

/// A member that both histograms have.
fn distribution(decoder: &mut JsonDecoder<'_>, key: &str, out: &mut Distribution) -> Result<(), DecodeError> {
    match key {
        "startTimeUnixNano" => out.start_time_unix_nano = decoder.json.u64()?,
        "timeUnixNano" => out.time_unix_nano = decoder.json.u64()?,
        "count" => out.count = decoder.json.u64()?,
        "sum" => out.sum = Some(decoder.json.double()?),
        "min" => out.min = Some(decoder.json.double()?),
        "max" => out.max = Some(decoder.json.double()?),
        "flags" => out.flags = decoder.json.u32()?,
        _ => decoder.json.skip()?,
    }
    Ok(())
}

fn exemplar(decoder: &mut JsonDecoder<'_>, point: PointRef) -> Result<Exemplar, DecodeError> {
    let mut exemplar = Exemplar {
        point,
        filtered_attributes: Attributes::EMPTY,
        time_unix_nano: 0,
        value: Number::None,
        span_id: Text::EMPTY,
        trace_id: Text::EMPTY,
    };
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "filteredAttributes" => exemplar.filtered_attributes = decoder.attributes()?,
            "timeUnixNano" => exemplar.time_unix_nano = decoder.json.u64()?,
            "asDouble" => exemplar.value = Number::Double(decoder.json.double()?),
            "asInt" => exemplar.value = Number::Int(decoder.json.i64()?),
            "spanId" => exemplar.span_id = decoder.id()?,
            "traceId" => exemplar.trace_id = decoder.id()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(exemplar)
}

fn buckets(decoder: &mut JsonDecoder<'_>) -> Result<Buckets, DecodeError> {
    let mut buckets = Buckets::default();
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "offset" => buckets.offset = decoder.json.i32()?,
            "bucketCounts" => buckets.counts = numbers(decoder, |d| d.json.u64())?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(buckets)
}

fn quantile(decoder: &mut JsonDecoder<'_>) -> Result<(f64, f64), DecodeError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "quantile" => quantile = decoder.json.double()?,
            "value" => value = decoder.json.double()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok((quantile, value))
}

fn numbers<T>(
    decoder: &mut JsonDecoder<'_>,
    read: fn(&mut JsonDecoder<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut out = Vec::new();
    let mut array = decoder.json.array()?;
    while decoder.json.element(&mut array)? {
        out.push(read(decoder)?);
    }
    Ok(out)
}
