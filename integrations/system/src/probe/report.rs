//! What a probe found out, and how it becomes metrics.

use std::io;
use std::time::Duration;

use weir_pipeline::{MetricDescription, MetricKind, MetricsBuilder};

/// Why a probe failed: the label `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    /// The name cannot be resolved, or the DNS server says no.
    Dns,
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// Another HTTP status than expected.
    Status,
    /// The expected text is not in the body.
    Body,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// There is no way to the address.
    Unreachable,
    /// This machine does not let the agent send.
    Permission,
    /// Anything else.
    Other,
}

impl ErrorType {
    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::Dns => "dns",
            ErrorType::Refused => "refused",
            ErrorType::Timeout => "timeout",
            ErrorType::Tls => "tls",
            ErrorType::Status => "status",
            ErrorType::Body => "body",
            ErrorType::BodyTooLarge => "body_too_large",
            ErrorType::Unreachable => "unreachable",
            ErrorType::Permission => "permission",
            ErrorType::Other => "other",
        }
    }

    /// The type of an error that the operating system reports.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorType::Refused,
            io::ErrorKind::TimedOut => ErrorType::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
                ErrorType::Unreachable
            }
            io::ErrorKind::PermissionDenied => ErrorType::Permission,
            _ => ErrorType::Other,
        }
    }
}

/// A probe that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its class.
    pub kind: ErrorType,
    /// What happened, for the log.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A failure that the operating system reports.
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self::new(ErrorType::of_io(error), format!("{what}: {error}"))
    }
}

/// What was measured until the probe ended, well or not.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Name resolution; absent for addresses.
    pub resolve: Option<Duration>,
    /// TCP handshake.
    pub connect: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// From the request to the head of the answer.
    pub processing: Option<Duration>,
    /// From the head of the answer to its end.
    pub transfer: Option<Duration>,
    /// 4 or 6.
    pub ip_version: Option<i64>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// How many redirects were followed.
    pub redirects: i64,
    /// When the first certificate of the presented chain expires, unix seconds.
    pub certificate_expiry: Option<i64>,
    /// ICMP echo.
    pub round_trip: Option<Duration>,
    /// Answer of a DNS server: record type, response code, number of records.
    pub answer: Option<(&'static str, &'static str, u64)>,
}

/// Adds to a phase that may come several times, once per redirect.
pub(super) fn add(phase: &mut Option<Duration>, time: Duration) {
    *phase = Some(phase.unwrap_or_default() + time);
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> MetricDescription<'static> {
    MetricDescription { name, unit, kind: MetricKind::Gauge, help }
}

const SUCCESS: MetricDescription<'static> =
    gauge("probe_success", "1", "1 if the target answered as expected, else 0.");
const DURATION: MetricDescription<'static> = gauge("probe_duration_seconds", "s", "How long the whole probe took.");
const ERROR: MetricDescription<'static> =
    gauge("probe_error", "1", "1 with the reason in `error.type` while the target fails; absent while it does not.");
const LOOKUP: MetricDescription<'static> =
    gauge("probe_dns_lookup_time_seconds", "s", "Time to resolve the name; for a DNS target the time of the query.");
const CONNECT: MetricDescription<'static> =
    gauge("probe_tcp_connect_time_seconds", "s", "Time to open the TCP connection.");
const IP_PROTOCOL: MetricDescription<'static> = gauge("probe_ip_protocol", "1", "IP version that was used, 4 or 6.");
const STATUS_CODE: MetricDescription<'static> = gauge("probe_http_status_code", "1", "HTTP status of the last answer.");
const HTTP_DURATION: MetricDescription<'static> = gauge(
    "probe_http_duration_seconds",
    "s",
    "Time per phase, summed over redirects: resolve, connect, tls, processing, transfer.",
);
const REDIRECTS: MetricDescription<'static> = gauge("probe_http_redirects", "1", "How many redirects were followed.");
const EXPIRY: MetricDescription<'static> = gauge(
    "probe_ssl_earliest_cert_expiry",
    "s",
    "When the first certificate of the presented chain expires, unix seconds.",
);
const ANSWERS: MetricDescription<'static> =
    gauge("probe_dns_answer_rrs", "1", "How many records the DNS answer holds.");
const ROUND_TRIP: MetricDescription<'static> =
    gauge("probe_icmp_rtt_seconds", "s", "Time from ICMP echo request to reply.");
const CHECK_DURATION: MetricDescription<'static> = gauge("httpcheck.duration", "ms", "How long the HTTP check took.");
const CHECK_STATUS: MetricDescription<'static> = MetricDescription {
    kind: MetricKind::UpDownCounter,
    ..gauge("httpcheck.status", "1", "1 for the status class of the answer, 0 for the other classes.")
};
const CHECK_ERROR: MetricDescription<'static> = MetricDescription {
    kind: MetricKind::UpDownCounter,
    ..gauge("httpcheck.error", "{error}", "1 with the reason in `error.type` while the HTTP check fails.")
};

/// Everything that probes record.
pub(super) const METRICS: &[MetricDescription<'static>] = &[
    SUCCESS,
    DURATION,
    ERROR,
    LOOKUP,
    CONNECT,
    IP_PROTOCOL,
    STATUS_CODE,
    HTTP_DURATION,
    REDIRECTS,
    EXPIRY,
    ANSWERS,
    ROUND_TRIP,
    CHECK_DURATION,
    CHECK_STATUS,
    CHECK_ERROR,
];

/// The classes of HTTP statuses as the OpenTelemetry httpcheck receiver labels them.
const CLASSES: [(u16, &str); 5] = [(1, "1xx"), (2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")];

/// Where the points of one probe go.
pub(super) struct Recorder<'a> {
    /// The target's labels.
    pub labels: &'a [(String, String)],
    /// The poll.
    pub out: &'a mut MetricsBuilder,
}

impl Recorder<'_> {
    fn value(
        &mut self,
        metric: &MetricDescription<'_>,
        extra: &[(&str, &str)],
        value: impl Into<weir_model::metrics::Number>,
    ) {
        let own = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let labels: Vec<(&str, &str)> = own.chain(extra.iter().copied()).collect();
        self.out.record(metric, &labels, value);
    }

    fn seconds(&mut self, metric: &MetricDescription<'_>, extra: &[(&str, &str)], time: Option<Duration>) {
        if let Some(time) = time {
            self.value(metric, extra, time.as_secs_f64());
        }
    }

    /// Records one probe; `http_method` only for HTTP targets.
    pub fn record(
        &mut self,
        report: &Report,
        failure: Option<&Failure>,
        duration: Duration,
        http_method: Option<&str>,
    ) {
        self.value(&SUCCESS, &[], i64::from(failure.is_none()));
        self.seconds(&DURATION, &[], Some(duration));
        if let Some(failure) = failure {
            self.value(&ERROR, &[("error.type", failure.kind.name())], 1_i64);
        }
        if let Some(version) = report.ip_version {
            self.value(&IP_PROTOCOL, &[], version);
        }
        self.seconds(&CONNECT, &[], report.connect);
        if let Some(expiry) = report.certificate_expiry {
            self.value(&EXPIRY, &[], expiry);
        }
        self.seconds(&ROUND_TRIP, &[], report.round_trip);
        match report.answer {
            Some((record, code, count)) => {
                let labels = [("dns.record_type", record), ("dns.response_code", code)];
                self.seconds(&LOOKUP, &labels, report.resolve);
                self.value(&ANSWERS, &labels, count);
            }
            None => self.seconds(&LOOKUP, &[], report.resolve),
        }
        if let Some(method) = http_method {
            self.http(report, failure, duration, method);
        }
    }

    fn http(&mut self, report: &Report, failure: Option<&Failure>, duration: Duration, method: &str) {
        for (phase, time) in [
            ("resolve", report.resolve),
            ("connect", report.connect),
            ("tls", report.tls),
            ("processing", report.processing),
            ("transfer", report.transfer),
        ] {
            self.seconds(&HTTP_DURATION, &[("phase", phase)], time);
        }
        self.value(&CHECK_DURATION, &[], duration.as_secs_f64() * 1000.0);
        if let Some(failure) = failure {
            self.value(&CHECK_ERROR, &[("error.type", failure.kind.name())], 1_i64);
        }
        if let Some(status) = report.status {
            self.value(&REDIRECTS, &[], report.redirects);
            self.value(&STATUS_CODE, &[], i64::from(status));
            let code = status.to_string();
            for (class, name) in CLASSES {
                let labels =
                    [("http.status_code", code.as_str()), ("http.method", method), ("http.status_class", name)];
                self.value(&CHECK_STATUS, &labels, i64::from(status / 100 == class));
            }
        }
    }
}
