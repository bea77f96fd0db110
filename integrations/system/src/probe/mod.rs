//! `probe`: asks from the outside whether things answer, and how fast: HTTP, TCP, TLS, DNS, ICMP.
//!
//! Needs a way to the targets; ICMP needs a right, see `icmp.rs`. One file per protocol;
//! `report.rs` holds what they measure and makes metrics of it, `config.rs` checks the targets.

mod config;
mod dns;
mod http;
mod icmp;
mod report;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use weir_model::Signal;
use weir_pipeline::{About, Collect, Context, Fault, FaultKind, Kind, MetricsBuilder, Watching};

pub use config::ProbeConfig;

use self::report::{ErrorType, Failure, Recorder, Report};
use self::tls::Trust;

const ABOUT: About = About {
    name: "probe",
    summary: "Asks web servers, ports, certificates, DNS servers and hosts whether they answer, and how fast",
    details: r#"Every target is asked once per poll, 32 at the same time. `timeout` (5s) bounds the whole probe: name resolution,
connection, TLS, answer and body. A target that fails is data, not an error of the collector: `probe_success` is 0, and
`probe_error` carries the reason in `error.type`: `dns`, `refused`, `timeout`, `tls`, `status`, `body`, `body_too_large`,
`unreachable`, `permission` or `other`. The sentence behind it stands in the agent's log when a target begins to fail.

**Targets** (one of these keys each)

- `http: URL`: requests it and follows up to 5 redirects. `expect_status` (default 200 to 299), `expect_body`
  (a text in the body), `method`, `headers`. Credentials in the URL and headers go to that server only.
  The body is read up to `max_body` (1MiB); a larger one is cut and counts as `body_too_large`.
- `tcp: HOST:PORT`: opens a connection.
- `tls: HOST:PORT`: shakes hands. Like `https`, it reports in `probe_ssl_earliest_cert_expiry` when the presented certificates
  expire, also for certificates that are expired or not trusted, and fails for those unless `tls_skip_verify: true`.
- `dns: NAME`: asks `server` (default: the system's first) for a `record` (default A).
  Fails if there is none. Type and response code are labels of the metrics.
- `icmp: HOST`: sends one echo request over IPv4 or IPv6.

**Labels**: `probe.name` (`name`, or the address), `probe.type`, `server.address`, `server.port`, `url.full` (without credentials and query).

**Names.** `probe_*` are those of Prometheus' blackbox exporter, `httpcheck.*` those of the OpenTelemetry httpcheck receiver.
The response time of a web server in ms is `httpcheck.duration`; the latency of the network is `probe_icmp_rtt_seconds` or
`probe_tcp_connect_time_seconds`.

**Limits.** Requests are HTTP/1.1, without a proxy: a probe through a proxy measures the proxy. When many targets hang, those that failed before are
asked last; those for which no time is left are named, and have no values for that poll.

**Troubleshooting.** `permission` for ICMP: put the agent's group into the sysctl `net.ipv4.ping_group_range`, or give the agent CAP_NET_RAW."#,
    sample: r#"probe:
  targets:
    - {http: "https://example.com/health", expect_status: [200], expect_body: ok}
    - {tcp: "db.example.com:5432"}
    - {tls: "example.com:443", name: certificate}
    - {dns: example.com, server: "1.1.1.1:53", record: AAAA}
    - {icmp: 10.0.0.1}
"#,
    metrics: report::METRICS,
    signals: &[Signal::Metrics],
};

/// The `probe` collector.
pub const KIND: Kind = Kind::collect::<Probe>(ABOUT);

/// A checked target.
#[derive(Debug)]
struct Target {
    name: String,
    /// As messages show it, without credentials.
    address: String,
    labels: Vec<(String, String)>,
    timeout: Duration,
    probing: Probing,
    /// How the last probe failed.
    last_failure: Option<ErrorType>,
    /// Counts the probes.
    sequence: u16,
}

/// How a target is asked.
#[derive(Clone, Debug)]
enum Probing {
    Http(Box<http::HttpTarget>),
    Tcp(tcp::Place),
    Tls(tls::TlsTarget),
    Dns(dns::DnsTarget),
    Icmp(tcp::Place),
}

/// How one probe went.
struct Probed {
    report: Report,
    failure: Option<Failure>,
    duration: Duration,
}

/// Probes the configured targets.
#[derive(Debug)]
pub struct Probe {
    targets: Vec<Target>,
    ca_file: Option<PathBuf>,
    /// Loaded with the first poll, if any target speaks TLS.
    trust: Option<Arc<Trust>>,
    max_concurrent: usize,
    poll_limit: Duration,
}

impl Collect for Probe {
    type Config = ProbeConfig;

    fn new(config: ProbeConfig, context: &Context) -> Result<Self, Fault> {
        Ok(Self {
            targets: config::checked(config.targets, context)?,
            ca_file: config.ca_file,
            trust: None,
            max_concurrent: config.max_concurrent.max(1),
            poll_limit: config::poll_limit(context),
        })
    }

    fn watching(&mut self) -> Watching {
        let watched = self.targets.iter().map(|target| format!("{} {}", target.kind(), target.address));
        Watching { watched: watched.collect(), not_watched: Vec::new() }
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let deadline = Instant::now() + self.poll_limit;
        let trust = self.trust().await?;
        // Those that answered before come first: those that hang cannot keep them from being asked.
        let mut targets: Vec<&mut Target> = self.targets.iter_mut().collect();
        targets.sort_by_key(|target| target.last_failure.is_some());
        let trust = trust.as_deref();
        let probes: Vec<_> = targets
            .into_iter()
            .map(|target| {
                Box::pin(async move {
                    let probed = target.probe(trust, deadline).await;
                    (target, probed)
                })
            })
            .collect();
        let mut probing = stream::iter(probes).buffer_unordered(self.max_concurrent);
        let (mut forbidden, mut left_out) = (Vec::new(), Vec::new());
        while let Some((target, probed)) = probing.next().await {
            let Some(probed) = probed else {
                left_out.push(target.name.clone());
                continue;
            };
            target.record(&probed, out);
            let is_forbidden = probed.failure.as_ref().is_some_and(|failure| failure.message == icmp::MISSING_RIGHT);
            if is_forbidden {
                forbidden.push(target.name.clone());
            }
        }
        faults(&forbidden, &left_out)
    }
}

impl Probe {
    /// What certificates are checked against; nothing if no target has any.
    async fn trust(&mut self) -> Result<Option<Arc<Trust>>, Fault> {
        let is_needed = self.targets.iter().any(|target| matches!(target.probing, Probing::Http(_) | Probing::Tls(_)));
        if self.trust.is_none() && is_needed {
            let ca_file = self.ca_file.clone();
            let loading = tokio::task::spawn_blocking(move || Trust::load(ca_file.as_deref()));
            let loaded = loading
                .await
                .map_err(|_| Fault::new(FaultKind::Other, "the trusted certificates could not be loaded"))?;
            self.trust = Some(Arc::new(loaded?));
        }
        Ok(self.trust.clone())
    }
}

/// What is wrong with this machine or the configuration, not with a target.
fn faults(forbidden: &[String], left_out: &[String]) -> Result<(), Fault> {
    if !forbidden.is_empty() {
        return Err(Fault::new(
            FaultKind::Permission,
            format!("cannot ping {}: {}", some(forbidden), icmp::MISSING_RIGHT),
        ));
    }
    if !left_out.is_empty() {
        let message = format!(
            "too many targets hang to ask all of them in one poll; not asked: {}; raise `timeout` of the block or `max_concurrent`",
            some(left_out)
        );
        return Err(Fault::new(FaultKind::TimedOut, message));
    }
    Ok(())
}

/// The first names of a list.
fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

impl Target {
    /// The label `probe.type`.
    fn kind(&self) -> &'static str {
        match self.probing {
            Probing::Http(_) => "http",
            Probing::Tcp(_) => "tcp",
            Probing::Tls(_) => "tls",
            Probing::Dns(_) => "dns",
            Probing::Icmp(_) => "icmp",
        }
    }

    /// Asks the target; `None` if the poll ended before the target had its time.
    async fn probe(&mut self, trust: Option<&Trust>, poll_deadline: Instant) -> Option<Probed> {
        let started = Instant::now();
        let left = poll_deadline.saturating_duration_since(started);
        let limit = self.timeout.min(left);
        self.sequence = self.sequence.wrapping_add(1);
        let mut report = Report::default();
        let result = tokio::time::timeout(limit, self.ask(trust, started + limit, &mut report)).await;
        let is_cut_short = limit < self.timeout;
        let timed_out = || {
            Failure::new(ErrorType::Timeout, format!("no answer within {}", weir_config::Duration::from(self.timeout)))
        };
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(failure)) if failure.kind == ErrorType::Timeout && is_cut_short => return None,
            Ok(Err(failure)) => Some(failure),
            Err(_) if is_cut_short => return None,
            Err(_) => Some(timed_out()),
        };
        Some(Probed { report, failure, duration: started.elapsed() })
    }

    async fn ask(&self, trust: Option<&Trust>, deadline: Instant, report: &mut Report) -> Result<(), Failure> {
        match (&self.probing, trust) {
            (Probing::Http(target), Some(trust)) => http::probe(target, trust, deadline, report).await,
            (Probing::Tls(target), Some(trust)) => tls::probe(target, trust, deadline, report).await,
            (Probing::Http(_) | Probing::Tls(_), None) => {
                Err(Failure::new(ErrorType::Tls, "no trusted certificates are loaded"))
            }
            (Probing::Tcp(place), _) => tcp::probe(place, deadline, report).await,
            (Probing::Dns(target), _) => dns::probe(target, report).await,
            (Probing::Icmp(place), _) => icmp::probe(place, self.sequence, report).await,
        }
    }

    /// Records a probe, and tells the log when the target begins or ceases to fail.
    fn record(&mut self, probed: &Probed, out: &mut MetricsBuilder) {
        let method = match &self.probing {
            Probing::Http(target) => Some(target.method.as_str()),
            _ => None,
        };
        let failure = probed.failure.as_ref();
        Recorder { labels: &self.labels, out }.record(&probed.report, failure, probed.duration, method);
        let kind = failure.map(|failure| failure.kind);
        if kind != self.last_failure {
            match failure {
                Some(failure) => tracing::warn!("{} probe of {} fails: {}", self.kind(), self.address, failure.message),
                None => tracing::info!("{} probe of {} succeeds again", self.kind(), self.address),
            }
        }
        self.last_failure = kind;
    }
}
