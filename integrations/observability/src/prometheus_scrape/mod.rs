//! Scrapes Prometheus targets: text 0.0.4 and OpenMetrics over HTTP.
//!
//! - [`target`]: what is scraped, from the configuration and from files; [`files`] reads those
//! - [`scrape`]: one request and what can go wrong with it
//! - here: all targets at once, and what is recorded of each

mod files;
mod scrape;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_config::{ByteSize, Secret};
use weir_model::Signal;
use weir_model::build::Label;
use weir_model::exposition::{Attach, Document, Limits, PROMETHEUS_TYPE};
use weir_model::metrics::{NO_RECORDED_VALUE, NumberPoint};
use weir_net::{Client, HttpOptions};
use weir_pipeline::{
    About, Collect, Context, Fault, FaultKind, Kind, MetricDescription, MetricKind, MetricsBuilder, Watching,
};

use crate::credentials::Credentials;
use files::TargetFiles;
use scrape::Scraper;
use target::{Defaults, Scheme, StaticTarget, Target};

/// Options of `prometheus_scrape`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What to scrape: `host:port`, an address such as `http://host:9090/metrics`, or `{url: ..., labels: {...}}`.
    pub targets: Vec<StaticTarget>,
    /// Files with targets in Prometheus' file_sd format (`.json`, `.yml`, `.yaml`), read again when they change. The last part of a path may have one `*`.
    pub target_files: Vec<String>,
    /// Name of the job, the label `job`. By default the instance name of this integration, `prometheus_scrape`.
    pub job: Option<String>,
    /// `http` (the default) or `https`, for targets that do not say it.
    pub scheme: Scheme,
    /// Path for targets that do not have one, by default `/metrics`.
    pub metrics_path: String,
    /// Where a target exposes a label that it has been given here: keep the exposed one (`true`) or rename it to `exported_...` (the default).
    pub honor_labels: bool,
    /// Use the timestamps that a target exposes, by default on. Without, all points carry the time of the poll.
    pub honor_timestamps: bool,
    /// Longest time for one target. By default nine tenths of `timeout`, so that a target that hangs is told apart.
    pub scrape_timeout: Option<weir_config::Duration>,
    /// Most targets that are scraped at once, by default 64.
    #[schemars(range(min = 1))]
    pub concurrency: usize,
    /// Most samples of one target; one that exposes more counts as down. Without it there is no limit.
    #[schemars(range(min = 1))]
    pub sample_limit: Option<usize>,
    /// Most labels of one sample; a target that exposes more counts as down. Without it there is no limit.
    #[schemars(range(min = 1))]
    pub label_limit: Option<usize>,
    /// Most bytes of one answer, after decompression too, by default 32 MiB. A target that sends more is cut off and counts as down.
    pub body_limit: ByteSize,
    /// Headers of every request, by default none.
    pub headers: BTreeMap<String, Secret>,
    /// Token to show as `Authorization: Bearer TOKEN`.
    pub bearer_token: Option<Secret>,
    /// User name for HTTP basic authentication.
    pub username: Option<String>,
    /// Password that belongs to `username`.
    pub password: Option<Secret>,
    /// Do not check the targets' certificates, by default off. Only for tests: anybody on the way can read and change the data.
    pub tls_skip_verify: bool,
    /// File with the certificates (PEM) of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the client certificate (PEM), for mutual TLS.
    pub client_certificate_file: Option<PathBuf>,
    /// File with the key of the client certificate (PEM).
    pub client_key_file: Option<PathBuf>,
    /// Proxy for all requests, for example `http://proxy:3128`. Without it `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` apply.
    pub proxy: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            target_files: Vec::new(),
            job: None,
            scheme: Scheme::Http,
            metrics_path: "/metrics".to_owned(),
            honor_labels: false,
            honor_timestamps: true,
            scrape_timeout: None,
            concurrency: 64,
            sample_limit: None,
            label_limit: None,
            body_limit: ByteSize::from_mebibytes(32),
            headers: BTreeMap::new(),
            bearer_token: None,
            username: None,
            password: None,
            tls_skip_verify: false,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
        }
    }
}

const UP: MetricDescription<'static> = MetricDescription {
    name: "up",
    unit: "",
    kind: MetricKind::Gauge,
    help: "Whether the last scrape of the target succeeded (1) or not (0).",
};
const DURATION: MetricDescription<'static> = MetricDescription {
    name: "scrape_duration_seconds",
    unit: "seconds",
    kind: MetricKind::Gauge,
    help: "How long the scrape took.",
};
const SCRAPED: MetricDescription<'static> = MetricDescription {
    name: "scrape_samples_scraped",
    unit: "",
    kind: MetricKind::Gauge,
    help: "Samples that the target exposed.",
};
const KEPT: MetricDescription<'static> = MetricDescription {
    name: "scrape_samples_post_metric_relabeling",
    unit: "",
    kind: MetricKind::Gauge,
    help: "Samples that were kept: those that were not exposed twice.",
};
const ADDED: MetricDescription<'static> = MetricDescription {
    name: "scrape_series_added",
    unit: "",
    kind: MetricKind::Gauge,
    help: "Series that the scrape before did not have.",
};

const METRICS: &[MetricDescription<'static>] = &[UP, DURATION, SCRAPED, KEPT, ADDED];

const ABOUT: About = About {
    name: "prometheus_scrape",
    summary: "Scrapes Prometheus exporters and every other target that exposes metrics for Prometheus",
    details: "\
**What it does.** It scrapes every target at once, in Prometheus' text format or OpenMetrics, and keeps the names of the metrics as they
are: `node_cpu_seconds_total` is the same at a Prometheus backend. Counters, gauges, histograms and summaries become those of OpenTelemetry.
Like Prometheus it adds `up`, `scrape_duration_seconds`, `scrape_samples_scraped`, `scrape_samples_post_metric_relabeling` and `scrape_series_added`
for every target. When a series, a target or a scrape is gone, its series end at once with staleness markers.

**What it needs.** Targets that it can reach by HTTP. Targets may come from files in file_sd format:

    prometheus_scrape:
      target_files: [/etc/weir/targets/*.yaml]

`/etc/weir/targets/db.yaml`, where `__scheme__`, `__metrics_path__` and `__param_NAME` work as in Prometheus:

    - targets: [\"db-1:9187\", \"db-2:9187\"]
      labels: {job: postgres, team: storage}

**Labels.** `job` and `instance` are `service.name` and `service.instance.id` of the resource, and labels again at a Prometheus backend.

**Limits.** One wrong line fails the whole scrape of a target (`up` is 0), and the fault names the line: half a scrape is worse than none.
Native histograms need the protobuf format, which is not asked for; their classic buckets are scraped.
There is no relabelling here; use `routes` and transforms.

**Troubleshooting.** A target that is down is data (`up` is 0) and a fault of this integration at once; other targets do not suffer. \"web page\" means
that the port or `metrics_path` is wrong. Series with timestamps of their own do not end with staleness markers.",
    sample: "\
prometheus_scrape:
  targets:
    - localhost:9100
    - http://localhost:9090/metrics
    - url: https://shop.example.com/metrics
      labels: {team: shop}
",
    metrics: METRICS,
    signals: &[Signal::Metrics],
};

/// The kind `prometheus_scrape`.
pub const KIND: Kind = Kind::collect::<PrometheusScrape>(ABOUT);

/// So many failed targets are named in one fault; the others are counted.
const NAMED_FAILURES: usize = 5;
/// Files must not hold up the targets that are known already.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// Scrapes targets.
pub struct PrometheusScrape {
    scraper: Arc<Scraper>,
    concurrency: usize,
    honor_labels: bool,
    ignore_timestamps: bool,
    /// Time for all targets together.
    budget: Duration,
    fixed: Vec<Arc<Target>>,
    files: Arc<Mutex<TargetFiles>>,
    has_files: bool,
    states: Vec<State>,
}

/// What is remembered of a target.
struct State {
    target: Arc<Target>,
    /// The last scrape, if it succeeded: the series that a later one may end.
    last: Option<Document>,
    /// Whether `up` and its siblings have a series that must end with the target.
    was_reported: bool,
}

/// What a target is missing or hiding, for the fault.
type Problem = (FaultKind, String);

impl Collect for PrometheusScrape {
    type Config = Config;

    fn new(config: Config, context: &Context) -> Result<Self, Fault> {
        if config.targets.is_empty() && config.target_files.is_empty() {
            return Err(Fault::configuration("there is nothing to scrape; add `targets` or `target_files`"));
        }
        let budget = context.timeout - (context.timeout / 10).min(Duration::from_secs(1));
        let timeout = config.scrape_timeout.map_or(budget, Into::into);
        if timeout > budget || timeout.is_zero() {
            let message = format!(
                "scrape_timeout must be longer than 0s and at most {}, a little less than `timeout`; raise `timeout` or `interval`",
                weir_config::Duration::from(budget)
            );
            return Err(Fault::configuration(message));
        }
        let defaults = Defaults {
            job: config.job.clone().unwrap_or_else(|| job_of(&context.name)),
            scheme: config.scheme,
            path: config.metrics_path.clone(),
        };
        let fixed = target::of_configuration(&config.targets, &defaults)?;
        let files = TargetFiles::new(&config.target_files, defaults)?;
        let http = HttpOptions {
            timeout: timeout.into(),
            tls_skip_verify: config.tls_skip_verify,
            ca_file: config.ca_file.clone(),
            client_certificate_file: config.client_certificate_file.clone(),
            client_key_file: config.client_key_file.clone(),
            proxy: config.proxy.clone(),
        };
        let credentials = Credentials {
            headers: Some(&config.headers),
            bearer_token: config.bearer_token.as_ref(),
            username: config.username.as_deref(),
            password: config.password.as_ref(),
        };
        let limits = Limits {
            samples: config.sample_limit.unwrap_or(usize::MAX),
            labels: config.label_limit.unwrap_or(usize::MAX),
        };
        let scraper = Scraper {
            client: Client::new(&http).map_err(Fault::configuration)?,
            headers: credentials.headers(&scrape::RESERVED)?,
            timeout,
            limits,
            body_limit: config.body_limit,
        };
        Ok(Self {
            scraper: Arc::new(scraper),
            concurrency: config.concurrency.max(1),
            honor_labels: config.honor_labels,
            ignore_timestamps: !config.honor_timestamps,
            budget,
            fixed,
            has_files: !config.target_files.is_empty(),
            files: Arc::new(Mutex::new(files)),
            states: Vec::new(),
        })
    }

    fn watching(&mut self) -> Watching {
        let mut watching = Watching::default();
        let mut targets = self.fixed.len();
        if let Ok(mut files) = self.files.try_lock() {
            let (found, problems) = files.read();
            targets += found.len();
            watching.not_watched = problems.into_iter().map(|(_, why)| ("target_files".to_owned(), why)).collect();
        }
        watching.watched.push(if targets == 1 { "1 target".to_owned() } else { format!("{targets} targets") });
        watching
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let deadline = Instant::now() + self.budget;
        let mut problems = self.refresh(out).await;
        let mut failed = 0;
        let mut running = JoinSet::new();
        let mut places = HashMap::new();
        let slots = Arc::new(Semaphore::new(self.concurrency));
        for (at, state) in self.states.iter().enumerate() {
            let (scraper, target, slots) = (self.scraper.clone(), state.target.clone(), slots.clone());
            let task = running.spawn(async move {
                // The semaphore is never closed, so there is always a slot in the end.
                let _slot = slots.acquire_owned().await;
                let begun = Instant::now();
                (scraper.scrape(&target, deadline).await, begun.elapsed())
            });
            places.insert(task.id(), at);
        }
        while let Some(done) = running.join_next_with_id().await {
            let (id, result, duration) = match done {
                Ok((id, (result, duration))) => (id, result, duration),
                Err(error) => {
                    let fault = Fault::new(FaultKind::Other, "the scrape panicked; please report it");
                    (error.id(), Err(fault), Duration::ZERO)
                }
            };
            let Some(state) = places.get(&id).and_then(|at| self.states.get_mut(*at)) else { continue };
            let (honor_labels, ignore_timestamps) = (self.honor_labels, self.ignore_timestamps);
            if let Err(fault) = state.record(result, duration, honor_labels, ignore_timestamps, out) {
                failed += 1;
                problems.push((fault.kind, format!("{}: {}", state.target.place, fault.message)));
            }
            // Recording a large target takes milliseconds; the other scrapes go on meanwhile.
            tokio::task::yield_now().await;
        }
        out.set_resource(&[]);
        summary(&problems, failed, self.states.len())
    }
}

/// `prometheus_scrape/database` scrapes the job `database`.
fn job_of(name: &str) -> String {
    name.split_once('/').map_or(name, |(_, own)| own).to_owned()
}

/// All problems in one fault; its kind is theirs, if they share one.
fn summary(problems: &[Problem], failed: usize, targets: usize) -> Result<(), Fault> {
    let Some(&(first, _)) = problems.first() else { return Ok(()) };
    let kind = if problems.iter().all(|(kind, _)| *kind == first) { first } else { FaultKind::Other };
    let named: Vec<&str> = problems.iter().take(NAMED_FAILURES).map(|(_, text)| text.as_str()).collect();
    let mut message = if failed > 0 { format!("{failed} of {targets} targets failed: ") } else { String::new() };
    message.push_str(&named.join("; "));
    if problems.len() > NAMED_FAILURES {
        message.push_str(&format!("; and {} more", problems.len() - NAMED_FAILURES));
    }
    Err(Fault::new(kind, message))
}

impl PrometheusScrape {
    /// Reads the files again, and ends the series of targets that are gone.
    async fn refresh(&mut self, out: &mut MetricsBuilder) -> Vec<Problem> {
        let (found, mut problems) =
            if self.has_files { self.read_files().await } else { (Some(Vec::new()), Vec::new()) };
        let Some(found) = found else { return problems };
        let mut wanted: Vec<Arc<Target>> = self.fixed.clone();
        for target in found {
            if let Some(other) = wanted.iter().find(|other| other.is_same_series(&target)) {
                if other.url != target.url {
                    let message = format!(
                        "{} has the same job, instance and labels as {} and is left out: give one of them a label",
                        target.place, other.place
                    );
                    problems.push((FaultKind::Configuration, message));
                }
            } else {
                wanted.push(target);
            }
        }
        let mut before = std::mem::take(&mut self.states);
        for target in wanted {
            let known = before.iter().position(|state| *state.target == *target);
            self.states.push(match known {
                Some(at) => before.swap_remove(at),
                None => State { target, last: None, was_reported: false },
            });
        }
        for mut gone in before {
            gone.end(self.honor_labels, self.ignore_timestamps, out);
        }
        problems
    }

    /// The targets in the files; `None` if they cannot be read in time, and all stays as it was.
    async fn read_files(&self) -> (Option<Vec<Arc<Target>>>, Vec<Problem>) {
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || files.try_lock().ok().map(|mut files| files.read()));
        match tokio::time::timeout(FILES_TIMEOUT.min(self.budget / 2), read).await {
            Ok(Ok(Some((targets, problems)))) => (Some(targets), problems),
            _ => {
                let why =
                    "target_files cannot be read in time: does their file system hang? the targets stay as they were";
                (None, vec![(FaultKind::TimedOut, why.to_owned())])
            }
        }
    }
}

impl State {
    /// Records the result of a scrape; gives the fault back.
    fn record(
        &mut self,
        result: Result<Document, Fault>,
        duration: Duration,
        honor_labels: bool,
        ignore_timestamps: bool,
        out: &mut MetricsBuilder,
    ) -> Result<(), Fault> {
        let target = self.target.clone();
        let labels = target.labels();
        let attach = Attach { labels: &labels, reserved: &["job", "instance"], honor_labels, ignore_timestamps };
        out.set_resource(&target.resource());
        let before = self.last.take();
        let (up, samples, kept, added, fault) = match result {
            Ok(document) => {
                let parsed = document.record(&attach, out);
                if let Some(before) = before.as_ref() {
                    before.record_end(Some(&document), &attach, out);
                }
                let added = document.series_added(before.as_ref());
                self.last = Some(document);
                (1_u64, parsed.samples, parsed.samples - parsed.duplicates, added, Ok(()))
            }
            Err(fault) => {
                if let Some(before) = before {
                    before.record_end(None, &attach, out);
                }
                (0, 0, 0, 0, Err(fault))
            }
        };
        out.set_metadata(&[(PROMETHEUS_TYPE, "gauge")]);
        out.record(&UP, &labels, up);
        out.record(&DURATION, &labels, duration.as_secs_f64());
        out.record(&SCRAPED, &labels, samples as u64);
        out.record(&KEPT, &labels, kept as u64);
        out.record(&ADDED, &labels, added as u64);
        out.set_metadata(&[]);
        self.was_reported = true;
        fault
    }

    /// Ends all series of a target that is gone.
    fn end(&mut self, honor_labels: bool, ignore_timestamps: bool, out: &mut MetricsBuilder) {
        let labels: Vec<Label<'_>> = self.target.labels();
        let attach = Attach { labels: &labels, reserved: &["job", "instance"], honor_labels, ignore_timestamps };
        out.set_resource(&self.target.resource());
        if let Some(last) = self.last.take() {
            last.record_end(None, &attach, out);
        }
        if self.was_reported {
            out.set_metadata(&[(PROMETHEUS_TYPE, "gauge")]);
            let time_unix_nano = out.now_unix_nano();
            let end = NumberPoint { time_unix_nano, flags: NO_RECORDED_VALUE, ..NumberPoint::default() };
            METRICS.iter().for_each(|metric| out.record_point(metric, &labels, end));
            out.set_metadata(&[]);
        }
    }
}

#[cfg(test)]
mod tests;
