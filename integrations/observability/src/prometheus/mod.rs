//! Sends metrics by Prometheus remote write 1.0 and 2.0 (Snappy block format over protobuf).
//!
//! - [`translate`] turns points into series, by [`names`] and [`target`]; [`native`] does so for
//!   exponential histograms; [`series`] holds them
//! - [`write`] makes the message of either version, with [`protobuf`]
//! - [`judge`] reads the answer

mod judge;
mod names;
mod native;
mod protobuf;
mod series;
mod target;
mod translate;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::metrics::Temporality;
use weir_model::{Records, Signal};
use weir_net::{Answer, Client};
use weir_pipeline::role::ANSWER_LIMIT_BYTES;
use weir_pipeline::{About, Context, Delivery, Fault, HttpExport, Kind, Outcome, Takes};

use crate::credentials::{Credentials, take_from_url};
use judge::{Expectation, Judgement, Sent};
use series::SeriesSet;
use target::{Rules, TargetInfos};
use translate::Translation;
use write::Version;

/// Where Prometheus takes remote writes, if nothing else is configured.
const DEFAULT_ENDPOINT: &str = "http://localhost:9090/api/v1/write";
const DEFAULT_PATH: &str = "/api/v1/write";
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// The version of remote write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// 2.0, and 1.0 from the moment on that the receiver shows that it does not speak 2.0.
    #[default]
    Auto,
    /// Remote write 1.0.
    V1,
    /// Remote write 2.0.
    V2,
}

/// Options of `prometheus`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the remote write receiver, by default `http://localhost:9090/api/v1/write`. An address without a path gets `/api/v1/write`.
    pub endpoint: Option<Endpoint>,
    /// Version of remote write: `auto` (the default: 2.0, or 1.0 where the receiver does not speak it), `v1` or `v2`.
    pub protocol: Protocol,
    /// Labels of every series that has no label of the same name, by default none.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, weir_config::Text>")]
    pub external_labels: BTreeMap<String, String>,
    /// Resource attributes that become labels of every series, for example `deployment.environment.name`; by default none.
    /// `service.name` (as `job`) and `service.instance.id` (as `instance`) always do.
    pub resource_attributes: Vec<String>,
    /// Send the other resource attributes as labels of the series `target_info`, once a minute; by default on.
    pub target_info: bool,
    /// Headers of every request, by default none.
    pub headers: BTreeMap<String, Secret>,
    /// Token to show as `Authorization: Bearer TOKEN`.
    pub bearer_token: Option<Secret>,
    /// User name for HTTP basic authentication.
    pub username: Option<String>,
    /// Password that belongs to `username`.
    pub password: Option<Secret>,
    /// Tenant of Mimir, Cortex or Thanos, sent as `X-Scope-OrgID`.
    pub tenant: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Auto,
            external_labels: BTreeMap::new(),
            resource_attributes: Vec::new(),
            target_info: true,
            headers: BTreeMap::new(),
            bearer_token: None,
            username: None,
            password: None,
            tenant: None,
        }
    }
}

const ABOUT: About = About {
    name: "prometheus",
    summary: "Sends metrics by remote write to Prometheus, Mimir, Thanos, VictoriaMetrics and others",
    details: "\
**What it does.** It sends every metric point by remote write 2.0, or 1.0 to receivers that do not speak 2.0; which one is found out with
the first request. Deltas are made cumulative before. Names that came from Prometheus (`prometheus_scrape`, `exec`) stay as they are;
OpenTelemetry names get Prometheus' form: `system.cpu.time` in `s` becomes `system_cpu_time_seconds_total`. Exponential
histograms become native histograms. The end of a series is sent as a staleness marker.

**Labels.** `job` is `service.name` and `instance` is `service.instance.id` of the resource; what has no service, such as a host, has the name
of the integration as `job` and the host's name as `instance`. Other resource attributes are labels of `target_info`, to be joined in queries:
`system_memory_usage_bytes * on (job, instance) group_left (os_type) target_info`.

**What it needs.** Prometheus must run with `--web.enable-remote-write-receiver`, and with `--enable-feature=native-histograms`
(before 3.0) where exponential histograms are sent.

**Limits.** Prometheus refuses samples that are older than others of the same series, and samples from the future. With remote write 1.0 it then
stores nothing of the request and does not say which sample it was: the request is halved until the sample stands alone and is
refused. Of two points of one series within a millisecond the first is sent, the other one is counted as refused.
The scope of a metric is no label. Minimum and maximum of a histogram have no place in Prometheus.

**VictoriaMetrics** (1.79) says of no sample that it does not take it, so what it leaves out counts as delivered. It drops NaN, samples outside its
retention or more than 2 days ahead, and what is beyond its limits of series. It cuts names of labels at 256 bytes and their values at 16,384.
Of more than 30 labels (`-maxLabelsPerTimeseries`) it keeps the first 30 in the order of their names: series that differ in the others, `instance`
among them, become one. Its own counters tell: `vm_rows_ignored_total`, `vm_metrics_with_dropped_labels_total`,
`vm_too_long_label_names_total`, `vm_too_long_label_values_total`, `vm_hourly_series_limit_rows_dropped_total`.

**Troubleshooting.** A 404 is tried again until `retry_max_age`: the path is wrong, or the receiver is not switched on. 401 and 403 are tried
again too, so that new credentials help without a restart.",
    sample: "\
prometheus:
  endpoint: http://prometheus:9090/api/v1/write
  external_labels:
    environment: production
",
    metrics: &[],
    signals: &[Signal::Metrics],
};

/// The kind `prometheus`.
pub const KIND: Kind = Kind::http_export::<Prometheus>(ABOUT);

/// What is known of the receiver.
const UNKNOWN: u8 = 0;
const SPEAKS_V1: u8 = 1;
const SPEAKS_V2: u8 = 2;

/// Sends by remote write.
pub struct Prometheus {
    uri: Uri,
    place: String,
    headers: HeaderMap,
    protocol: Protocol,
    /// What `auto` has found out, until the next start.
    speaks: AtomicU8,
    rules: Rules,
    /// Deliveries are ordered, so there is one request under way at most.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: Option<Sent>,
    infos: TargetInfos,
}

impl HttpExport for Prometheus {
    type Config = Config;

    fn new(config: Config, _context: &Context) -> Result<Self, Fault> {
        let endpoint = match config.endpoint.clone() {
            Some(endpoint) => endpoint,
            None => DEFAULT_ENDPOINT
                .parse()
                .map_err(|error: weir_config::InvalidValue| Fault::configuration(format!("endpoint: {error}")))?,
        };
        let mut headers = headers(&config)?;
        let mut url = endpoint.url().clone();
        take_from_url(&mut url, &mut headers)?;
        if matches!(url.path(), "" | "/") {
            url.set_path(DEFAULT_PATH);
        }
        let uri = url.as_str().parse().map_err(|error| Fault::configuration(format!("endpoint: {error}")))?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        for name in config.external_labels.keys() {
            if !names::is_label_name(name) || name.starts_with("__") {
                let message = format!("external_labels: `{name}` is no label name; use letters, digits and `_`");
                return Err(Fault::configuration(message));
            }
        }
        let rules = Rules {
            external_labels: config.external_labels.into_iter().collect(),
            promoted: config.resource_attributes,
            target_info: config.target_info,
        };
        Ok(Self {
            uri,
            place: format!("{}://{host}{port}{}", url.scheme(), url.path()),
            headers,
            protocol: config.protocol,
            speaks: AtomicU8::new(UNKNOWN),
            rules,
            state: Mutex::default(),
        })
    }

    fn takes(&self) -> Takes {
        Takes { signals: &[Signal::Metrics], temporality: Temporality::Cumulative, ordered: true }
    }

    fn encode(&self, delivery: &Delivery) -> Result<Request<Bytes>, Outcome> {
        let mut translation = Translation::new(&self.rules);
        for payload in &delivery.payloads {
            match payload.records() {
                Ok(Records::Metrics(metrics)) => translation.add(metrics),
                Ok(_) => return Err(Outcome::Never { why: "remote write takes metrics only".to_owned() }),
                Err(error) => return Err(Outcome::Never { why: format!("the records cannot be decoded: {error}") }),
            }
        }
        let version = self.version();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, announced) = translation.finish(&state.infos);
        let samples = (set.samples.len() + set.histograms.len()) as u64;
        if samples == 0 {
            return Err(match set.refused.first() {
                Some(refused) => Outcome::Never { why: format!("not sent: {}", refused.why) },
                None => Outcome::Accepted,
            });
        }
        let request = self.request(&set, version).map_err(|why| Outcome::Never { why })?;
        let records = delivery.len();
        state.sent = Some(Sent { delivery: delivery.id, version, records, samples, refused: set.refused, announced });
        Ok(request)
    }

    fn judge(&self, delivery: &Delivery, answer: &Answer) -> Outcome {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sent) = state.sent.take().filter(|sent| sent.delivery == delivery.id) else {
            return Outcome::of_answer(answer);
        };
        let expectation = Expectation {
            may_fall_back: self.protocol == Protocol::Auto,
            is_v2_proved: self.speaks.load(Ordering::Relaxed) == SPEAKS_V2,
        };
        if sent.version == Version::V2 && judge::has_written_headers(answer) {
            self.speaks.store(SPEAKS_V2, Ordering::Relaxed);
        }
        match judge::judge(&sent, answer, expectation) {
            Judgement::Outcome(outcome) => {
                if matches!(outcome, Outcome::Accepted | Outcome::Partly { .. }) {
                    state.infos.delivered(sent.announced);
                }
                outcome
            }
            Judgement::FallBack(why) => {
                self.speaks.store(SPEAKS_V1, Ordering::Relaxed);
                let why = format!("{} does not speak remote write 2.0 ({why}); it gets 1.0 from now on", self.place);
                Outcome::Later { after: Some(Duration::ZERO), why }
            }
        }
    }

    async fn check(&self, client: &Client) -> Result<String, Fault> {
        loop {
            let version = self.version();
            let empty = self.request(&SeriesSet::default(), version).map_err(Fault::configuration)?;
            let answer = client.send(empty, ANSWER_LIMIT_BYTES).await?;
            let may_fall_back = self.protocol == Protocol::Auto;
            if judge::check(version, &answer, may_fall_back, &self.place)? {
                let (known, name) = match version {
                    Version::V1 => (SPEAKS_V1, "1.0"),
                    Version::V2 => (SPEAKS_V2, "2.0"),
                };
                self.speaks.store(known, Ordering::Relaxed);
                return Ok(format!("{} takes remote write {name}", self.place));
            }
            // 1.0 never asks for another try, so this ends.
            self.speaks.store(SPEAKS_V1, Ordering::Relaxed);
        }
    }
}

impl Prometheus {
    fn version(&self) -> Version {
        match self.protocol {
            Protocol::V1 => Version::V1,
            Protocol::V2 => Version::V2,
            Protocol::Auto if self.speaks.load(Ordering::Relaxed) == SPEAKS_V1 => Version::V1,
            Protocol::Auto => Version::V2,
        }
    }

    fn request(&self, set: &SeriesSet, version: Version) -> Result<Request<Bytes>, String> {
        let body = snap::raw::Encoder::new()
            .compress_vec(&write::message(set, version))
            .map_err(|error| format!("the request cannot be compressed: {error}"))?;
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(version.content_type()));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(VERSION_HEADER, HeaderValue::from_static(version.header()));
        Ok(request)
    }
}

fn headers(config: &Config) -> Result<HeaderMap, Fault> {
    let credentials = Credentials {
        headers: Some(&config.headers),
        bearer_token: config.bearer_token.as_ref(),
        username: config.username.as_deref(),
        password: config.password.as_ref(),
    };
    let mut headers = credentials.headers(&[CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, HOST, VERSION_HEADER])?;
    if let Some(tenant) = config.tenant.as_deref().filter(|tenant| !tenant.is_empty()) {
        let value = HeaderValue::from_str(tenant)
            .map_err(|_| Fault::configuration("tenant: it has a character that no header can have"))?;
        headers.insert(TENANT_HEADER, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
