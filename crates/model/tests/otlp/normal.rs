//! What the model promises to keep: requests without the differences that mean nothing to it, as
//! its documentation lists them.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::Exemplar;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use weir_model::Signal;

/// An export request of opentelemetry-proto.
pub trait Request:
    prost::Message + Default + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned
{
    const SIGNAL: Signal;

    /// Records as that library counts them.
    fn count(&self) -> usize;

    /// The request as the model keeps it.
    fn normalize(&mut self);

    fn normal(&self) -> Self {
        let mut request = self.clone();
        request.normalize();
        request
    }
}

fn value(value: &mut AnyValue) {
    match &mut value.value {
        // A reference into a dictionary that only profiles have.
        Some(Value::StringValueStrindex(_)) => value.value = None,
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(self::value),
        Some(Value::KvlistValue(list)) => attributes(&mut list.values),
        _ => {}
    }
}

fn attributes(list: &mut [KeyValue]) {
    for pair in list {
        pair.key_strindex = 0;
        optional(&mut pair.value);
    }
}

fn optional(slot: &mut Option<AnyValue>) {
    if let Some(inner) = slot {
        value(inner);
        if inner.value.is_none() {
            *slot = None;
        }
    }
}

fn resource(slot: &mut Option<Resource>) {
    if let Some(inner) = slot {
        attributes(&mut inner.attributes);
        if *inner == Resource::default() {
            *slot = None;
        }
    }
}

fn scope(slot: &mut Option<InstrumentationScope>) {
    if let Some(inner) = slot {
        attributes(&mut inner.attributes);
    }
}

impl Request for ExportLogsServiceRequest {
    const SIGNAL: Signal = Signal::Logs;

    fn count(&self) -> usize {
        self.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
    }

    fn normalize(&mut self) {
        for container in &mut self.resource_logs {
            resource(&mut container.resource);
            for inner in &mut container.scope_logs {
                scope(&mut inner.scope);
                for record in &mut inner.log_records {
                    optional(&mut record.body);
                    attributes(&mut record.attributes);
                }
            }
            container.scope_logs.retain(|s| !s.log_records.is_empty());
        }
        self.resource_logs.retain(|r| !r.scope_logs.is_empty());
    }
}

impl Request for ExportTraceServiceRequest {
    const SIGNAL: Signal = Signal::Traces;

    fn count(&self) -> usize {
        self.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
    }

    fn normalize(&mut self) {
        for container in &mut self.resource_spans {
            resource(&mut container.resource);
            for inner in &mut container.scope_spans {
                scope(&mut inner.scope);
                for span in &mut inner.spans {
                    attributes(&mut span.attributes);
                    span.events.iter_mut().for_each(|event| attributes(&mut event.attributes));
                    span.links.iter_mut().for_each(|link| attributes(&mut link.attributes));
                }
            }
            container.scope_spans.retain(|s| !s.spans.is_empty());
        }
        self.resource_spans.retain(|r| !r.scope_spans.is_empty());
    }
}

fn points(data: Option<&Data>) -> usize {
    match data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    }
}

fn exemplars(list: &mut [Exemplar]) {
    list.iter_mut().for_each(|exemplar| attributes(&mut exemplar.filtered_attributes));
}

fn temporality(number: &mut i32) {
    if !(0..3).contains(number) {
        *number = 0;
    }
}

fn data(data: &mut Data) {
    match data {
        Data::Gauge(gauge) => gauge.data_points.iter_mut().for_each(|point| {
            attributes(&mut point.attributes);
            exemplars(&mut point.exemplars);
        }),
        Data::Sum(sum) => {
            temporality(&mut sum.aggregation_temporality);
            sum.data_points.iter_mut().for_each(|point| {
                attributes(&mut point.attributes);
                exemplars(&mut point.exemplars);
            });
        }
        Data::Histogram(histogram) => {
            temporality(&mut histogram.aggregation_temporality);
            histogram.data_points.iter_mut().for_each(|point| {
                attributes(&mut point.attributes);
                exemplars(&mut point.exemplars);
            });
        }
        Data::ExponentialHistogram(histogram) => {
            temporality(&mut histogram.aggregation_temporality);
            histogram.data_points.iter_mut().for_each(|point| {
                attributes(&mut point.attributes);
                exemplars(&mut point.exemplars);
            });
        }
        Data::Summary(summary) => summary.data_points.iter_mut().for_each(|point| attributes(&mut point.attributes)),
    }
}

impl Request for ExportMetricsServiceRequest {
    const SIGNAL: Signal = Signal::Metrics;

    fn count(&self) -> usize {
        let metrics = self.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
        metrics.map(|metric| points(metric.data.as_ref())).sum()
    }

    fn normalize(&mut self) {
        for container in &mut self.resource_metrics {
            resource(&mut container.resource);
            for inner in &mut container.scope_metrics {
                scope(&mut inner.scope);
                inner.metrics.retain(|metric| points(metric.data.as_ref()) > 0);
                for metric in &mut inner.metrics {
                    attributes(&mut metric.metadata);
                    metric.data.iter_mut().for_each(data);
                }
            }
            container.scope_metrics.retain(|s| !s.metrics.is_empty());
        }
        self.resource_metrics.retain(|r| !r.scope_metrics.is_empty());
    }
}
