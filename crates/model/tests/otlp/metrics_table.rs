//! Metrics that a collector made: points in any order, against a table that knows more than the batch.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data as Kinds;
use prost::Message;
use weir_model::metrics::{HistogramPoint, Metrics, NumberPoint, SummaryPoint};
use weir_model::otlp;
use weir_model::{Encoding, Kind, MetricDescription, MetricsBuilder, Records, Signal};

use crate::normal::Request;

const USED: MetricDescription<'static> =
    MetricDescription { name: "memory.usage", unit: "By", kind: Kind::Gauge, help: "Memory in use." };
const TIME: MetricDescription<'static> =
    MetricDescription { name: "cpu.time", unit: "s", kind: Kind::Counter, help: "Seconds of processor time." };

fn encoded(metrics: Metrics) -> ExportMetricsServiceRequest {
    let records = Records::Metrics(metrics);
    let protobuf = ExportMetricsServiceRequest::decode(otlp::encode_protobuf(&records)).unwrap();
    assert_eq!(protobuf.count(), records.len(), "every point is written");
    let json = otlp::accept(Signal::Metrics, Encoding::Json, otlp::encode_json(&records)).unwrap();
    let json = ExportMetricsServiceRequest::decode(json.to_protobuf().unwrap()).unwrap();
    assert_eq!(json, protobuf, "both encodings say the same");
    protobuf
}

#[test]
fn points_are_grouped_by_resource_and_metric_in_the_order_of_the_table() {
    let mut out = MetricsBuilder::new("test", vec![("host.name".into(), "a".into())]);
    out.begin(7, 1);
    out.record(&TIME, &[("cpu", "0")], 1.0);
    out.record(&USED, &[], 5_u64);
    out.set_resource(&[("process.pid", "9")]);
    out.record(&USED, &[], 6_u64);
    out.set_resource(&[]);
    out.record(&TIME, &[("cpu", "1")], 2.0);
    let request = encoded(out.finish());
    assert_eq!(request.resource_metrics.len(), 2);
    let own = &request.resource_metrics[0].scope_metrics[0];
    assert_eq!(own.scope.as_ref().unwrap().name, "test");
    let names: Vec<&str> = own.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["cpu.time", "memory.usage"]);
    let Some(Kinds::Sum(time)) = &own.metrics[0].data else { panic!("not a sum") };
    assert!(time.is_monotonic);
    assert_eq!(time.data_points.len(), 2);
    assert_eq!(request.resource_metrics[1].scope_metrics[0].metrics.len(), 1);
}

#[test]
fn series_without_a_point_in_this_poll_leave_no_trace() {
    let mut out = MetricsBuilder::new("test", Vec::new());
    out.begin(7, 1);
    out.record(&TIME, &[], 1.0);
    out.set_resource(&[("process.pid", "9")]);
    out.record(&USED, &[], 6_u64);
    out.finish();
    out.begin(8, 1);
    out.record(&TIME, &[], 2.0);
    let request = encoded(out.finish());
    assert_eq!(request.resource_metrics.len(), 1);
    assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics.len(), 1);
}

#[test]
fn points_without_a_series_and_points_of_the_wrong_kind_are_written_and_not_lost() {
    let mut metrics = Metrics::default();
    metrics.numbers.push(NumberPoint { series: 3, ..NumberPoint::default() });
    metrics.histograms.push(HistogramPoint::default());
    assert_eq!(encoded(metrics).count(), 2);

    let mut out = MetricsBuilder::new("test", Vec::new());
    out.begin(7, 1);
    out.record(&USED, &[], 6_u64);
    let mut metrics = out.finish();
    metrics.summaries.push(SummaryPoint::default());
    metrics.table = Arc::clone(&metrics.table);
    let request = encoded(metrics);
    let kinds = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(kinds.len(), 2, "one metric for each kind, both with the name");
    assert!(kinds.iter().all(|metric| metric.name == "memory.usage"));
}
