"""Sends metrics, logs and a trace with OpenTelemetry's own SDK, then ends.

send_otlp.py grpc|http ENDPOINT ATTRIBUTES_AS_JSON

Every resource, scope-level item and record carries the given attributes, so that the receiver can
tell whether one was lost. Exit status 1 if an exporter did not report success.
"""

import json
import logging
import sys

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

protocol, endpoint, attributes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    options = lambda signal: {"endpoint": endpoint, "insecure": True}
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    options = lambda signal: {"endpoint": f"{endpoint}/v1/{signal}", "compression": Compression.Gzip}


class ErrorsSeen(logging.Handler):
    """The SDK logs failed exports instead of raising them."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.seen = []

    def emit(self, record):
        self.seen.append(record.getMessage())


errors = ErrorsSeen()
logging.getLogger("opentelemetry").addHandler(errors)
resource = Resource.create({"service.name": "sender", **attributes})

views = [View(instrument_name="sent.exponential", aggregation=ExponentialBucketHistogramAggregation())]
reader = PeriodicExportingMetricReader(OTLPMetricExporter(**options("metrics")), export_interval_millis=3_600_000)
meters = MeterProvider(resource=resource, metric_readers=[reader], views=views)
meter = meters.get_meter("sender.meter", "1.2.3")
meter.create_counter("sent.counter", unit="{item}").add(41, attributes)
meter.create_up_down_counter("sent.level").add(-7, attributes)
meter.create_histogram("sent.histogram", unit="s").record(0.25, attributes)
meter.create_histogram("sent.exponential", unit="s").record(1.5, attributes)
meter.create_observable_gauge("sent.gauge", callbacks=[lambda _: [Observation(2.5, attributes)]])

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**options("logs"))))

tracers = TracerProvider(resource=resource)
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**options("traces"))))
tracer = tracers.get_tracer("sender.tracer", "1.2.3")
with tracer.start_as_current_span("parent", attributes=attributes) as parent:
    link = Link(parent.get_span_context(), attributes)
    with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, attributes=attributes, links=[link]) as child:
        child.add_event("event", attributes)
        child.set_status(Status(StatusCode.ERROR, "as planned"))
        logs.get_logger("sender.logger", "1.2.3").emit(
            LogRecord(
                timestamp=1_700_000_000_000_000_001,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body={"text": "hello", "numbers": [1, 2.5, True]},
                attributes=attributes,
                event_name="sent.event",
            )
        )

flushed = [meters.force_flush(), logs.force_flush(), tracers.force_flush()]
for provider in (meters, logs, tracers):
    provider.shutdown()
if errors.seen or not all(flushed):
    sys.exit(f"not everything was exported: {flushed} {errors.seen}")
