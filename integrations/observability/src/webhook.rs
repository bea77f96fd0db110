//! Records to any HTTP address: JSON, NDJSON, OTLP/JSON or a text template, to several endpoints at once.
//!
//! One delivery goes to every endpoint of the block that takes its signal, and it has one outcome:
//! the worst. So that a repeat for one endpoint does not reach the others again, the progress of
//! every endpoint is kept per delivery until the delivery is settled.
//!
//! - `webhook/endpoint.rs`: options, requests, signature and answers of one endpoint
//! - `webhook/success.rs`: what an answer must be to count as taken
//! - `webhook/body.rs`: the encodings; `webhook/template.rs`: text templates
//! - `readable.rs`: the JSON object of a record

mod body;
mod endpoint;
mod success;
mod template;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::Signal;
use weir_net::{Compression, HttpOptions, answer_note};
use weir_pipeline::{About, Context, Delivery, Export, Fault, Kind, Outcome, Refused, Takes};

use body::{Encoding, Source};
use endpoint::{EndpointConfig, Left, Progress, Target, Verb};
use success::SuccessConfig;

/// Options of `webhook`: `endpoints`, or `url` with its options for a single one.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to send to. Every endpoint gets every record of the signals that it takes.
    endpoints: Vec<EndpointConfig>,
    /// The address of a single endpoint, instead of `endpoints`. The options up to `traces` belong to it.
    url: Option<Endpoint>,
    /// `POST`, `PUT` or `PATCH`. Default: `POST`.
    method: Option<Verb>,
    /// Headers of every request; their values are treated as secrets.
    headers: BTreeMap<String, Secret>,
    /// `json`, `ndjson`, `otlp_json` or `text`. Default: `json`.
    encoding: Option<Encoding>,
    /// The line of a record for the encoding `text`, such as `{{time}} {{name}} {{value}}`.
    template: Option<String>,
    /// `none`, `gzip` or `zstd`. Default: `none`.
    compression: Option<Compression>,
    /// Sent as `Authorization: Bearer`.
    bearer_token: Option<Secret>,
    /// User name of `Authorization: Basic`.
    username: Option<String>,
    /// Password of `Authorization: Basic`.
    password: Option<Secret>,
    /// Key of the signature in `X-Signature-256`.
    signing_key: Option<Secret>,
    /// What an answer must be to count as taken: `statuses` (default: 200 to 299) and `body`, a regular expression.
    success: Option<SuccessConfig>,
    /// Whether it gets metrics. Default: `true`.
    metrics: Option<bool>,
    /// Whether it gets logs. Default: `true`.
    logs: Option<bool>,
    /// Whether it gets traces. Default: `true`.
    traces: Option<bool>,
    /// Longest time for one request, for endpoints that say nothing else. Default: `30s`.
    timeout: Option<weir_config::Duration>,
    /// Do not check the servers' certificates. Only for tests: anybody on the way can read and change the data.
    tls_skip_verify: bool,
    /// File with the certificates (PEM) of the authorities to trust instead of the system's.
    ca_file: Option<PathBuf>,
    /// File with the client certificate (PEM), for mutual TLS.
    client_certificate_file: Option<PathBuf>,
    /// File with the key of the client certificate (PEM).
    client_key_file: Option<PathBuf>,
    /// Proxy for all requests, for example `http://proxy:3128`. Without it `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` apply.
    proxy: Option<String>,
}

const ABOUT: About = About {
    name: "webhook",
    summary: "Sends metrics, logs and traces to any HTTP address, as JSON, NDJSON, OTLP/JSON or text",
    details: r#"Sends batches of records by `POST`, `PUT` or `PATCH` to one or several addresses.

**Encodings.** `json` is an array of objects, `ndjson` the same objects one per line, `otlp_json` an OTLP/JSON
export request without loss, `text` one line per record made from `template`. An object of `json`:

```json
{"signal":"metric","name":"system.memory.usage","unit":"By","kind":"updowncounter","temporality":"cumulative",
 "value":8123456789,"time":"2025-01-07T12:03:10Z","attributes":{"system.memory.state":"used"},
 "resource":{"host.name":"web-prod-01"},"scope":"host"}
{"signal":"log","time":"2025-01-07T12:03:10.123Z","severity":"ERROR","severity_number":17,"body":"disk full",
 "attributes":{"log.file.path":"/var/log/app.log"},"resource":{"host.name":"web-prod-01"},"scope":"logs"}
{"signal":"span","name":"GET /","kind":"server","time":"2025-01-07T12:03:10Z","end_time":"2025-01-07T12:03:10.012Z",
 "duration_seconds":0.012,"status":"error","trace_id":"5b8a...","span_id":"eee1...","attributes":{},"resource":{}}
```

A field without a value is left out. Times are RFC 3339 in UTC. Integers have up to 64 bits. NaN and infinities are
the texts `NaN`, `Infinity` and `-Infinity`. Histograms have `count`, `sum`, `min`, `max`, `bounds` and
`bucket_counts`; exponential ones `scale`, `zero_count`, `zero_threshold`, `positive` and `negative`; summaries
`count`, `sum` and `quantiles`. A template names the same fields: `{{time}}`, `{{attributes.http.route}}`,
`{{resource.host.name}}`; line breaks in values are written as `\n`.

**Signature.** With `signing_key` every request carries `X-Timestamp` (unix seconds) and
`X-Signature-256: sha256=<hex>`, the HMAC-SHA-256 of timestamp, a full stop and the body as it was sent
(compressed if it is compressed). Compare it in constant time and refuse old timestamps.

**Repeats.** Every request carries `Idempotency-Key`; a repeat of the same records to the same endpoint has the same
key. A delivery is repeated only to the endpoints, and only with the records, that were not answered yet. Answers:
2xx taken (or what `success` says); 408, 425, 429, 5xx and no answer are repeated (`Retry-After` is respected); 413 is sent again in halves;
401 and 403 are repeated slowly; everything else is refused for good. Redirects are not followed, since credentials
would go along. `retry_attempts` of an endpoint counts the attempts after the first; after the last one this endpoint
goes without these records, which are counted as refused. Without it only `retry_max_age` ends the repeats. After a
restart of Weir nothing is known of earlier attempts.

**Success.** Any 2xx counts as taken, whatever its body says: receivers answer as they like. Where a proxy or a sign-in page may
answer 200 instead, or the receiver says errors with 200, tell what its success looks like:

```yaml
success: {statuses: [200, 409], body: '"ok": *true'}
```

`statuses` replaces the 2xx (409 is what some receivers say to records that they have already); `body` is a regular expression
that the body must have. A 2xx that is none of these is repeated like a 5xx.

**Counting.** Records are counted once, however many endpoints there are: a record is delivered when every endpoint
took it. To count endpoints apart, or to keep a slow one from holding up others, use one block each:
`webhook/first`, `webhook/second`.

**Check.** `weir check` sends a batch without records (`[]`) with the header `X-Weir-Check: 1`, signed and with all
credentials. Receivers may answer 2xx to it without doing anything.
"#,
    sample: r#"webhook:
  endpoints:
    - name: "custom-webhook"
      url: "https://example.com/webhook"
      method: POST
      headers:
        Authorization: "Bearer ${WEBHOOK_TOKEN}"
      encoding: json
      batch_size: 100
      timeout: 30s
      retry_attempts: 3
      metrics: true
      logs: true
      traces: false
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `webhook`.
pub const KIND: Kind = Kind::export::<Webhook>(ABOUT);

/// Deliveries whose progress is remembered. Many more than can be under way at once, so that only
/// those are forgotten that the runner has given up.
const REMEMBERED_DELIVERIES: usize = 1024;

/// The exporter.
pub struct Webhook {
    targets: Vec<Target>,
    progress: Mutex<Remembered>,
}

/// The progress of every endpoint with one delivery.
type Progresses = Arc<Mutex<Vec<Progress>>>;

/// The deliveries that are not settled yet, the oldest first.
#[derive(Default)]
struct Remembered(VecDeque<(u64, Progresses)>);

impl Remembered {
    fn of(&mut self, id: u64, endpoints: usize) -> Progresses {
        if let Some((_, progresses)) = self.0.iter().find(|(known, _)| *known == id) {
            return progresses.clone();
        }
        if self.0.len() >= REMEMBERED_DELIVERIES {
            self.0.pop_front();
        }
        let progresses = Arc::new(Mutex::new(vec![Progress::default(); endpoints]));
        self.0.push_back((id, progresses.clone()));
        progresses
    }

    fn forget(&mut self, id: u64) {
        self.0.retain(|(known, _)| *known != id);
    }
}

impl Config {
    /// The endpoints, and what they share.
    fn split(self) -> Result<(Vec<EndpointConfig>, HttpOptions), Fault> {
        let http = HttpOptions {
            timeout: self.timeout.unwrap_or(HttpOptions::default().timeout),
            tls_skip_verify: self.tls_skip_verify,
            ca_file: self.ca_file.clone(),
            client_certificate_file: self.client_certificate_file.clone(),
            client_key_file: self.client_key_file.clone(),
            proxy: self.proxy.clone(),
        };
        let stray = self.stray();
        match self.url {
            None if self.endpoints.is_empty() => {
                Err(Fault::configuration("nowhere to send to: write `url`, or `endpoints` with a `url` each"))
            }
            None if !stray.is_empty() => Err(Fault::configuration(format!(
                "{} beside `endpoints` belong to no endpoint: write them into the endpoint that they are for",
                stray.join(", ")
            ))),
            None => Ok((self.endpoints, http)),
            Some(_) if !self.endpoints.is_empty() => {
                Err(Fault::configuration("give either `url` or `endpoints`: add the url to the list"))
            }
            Some(url) => {
                let single = EndpointConfig {
                    name: None,
                    url,
                    method: self.method,
                    headers: self.headers,
                    encoding: self.encoding,
                    template: self.template,
                    compression: self.compression,
                    // Both are options of the runner here, which has the same meaning for one endpoint.
                    batch_size: None,
                    retry_attempts: None,
                    timeout: None,
                    bearer_token: self.bearer_token,
                    username: self.username,
                    password: self.password,
                    signing_key: self.signing_key,
                    success: self.success,
                    metrics: self.metrics,
                    logs: self.logs,
                    traces: self.traces,
                };
                Ok((vec![single], http))
            }
        }
    }

    /// The options of a single endpoint that are set.
    fn stray(&self) -> Vec<&'static str> {
        let options = [
            ("`method`", self.method.is_some()),
            ("`headers`", !self.headers.is_empty()),
            ("`encoding`", self.encoding.is_some()),
            ("`template`", self.template.is_some()),
            ("`compression`", self.compression.is_some()),
            ("`bearer_token`", self.bearer_token.is_some()),
            ("`username`", self.username.is_some()),
            ("`password`", self.password.is_some()),
            ("`signing_key`", self.signing_key.is_some()),
            ("`success`", self.success.is_some()),
            ("`metrics`", self.metrics.is_some()),
            ("`logs`", self.logs.is_some()),
            ("`traces`", self.traces.is_some()),
        ];
        options.into_iter().filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }
}

/// The signals that at least one endpoint takes.
fn signals(targets: &[Target]) -> &'static [Signal] {
    use Signal::{Logs, Metrics, Traces};
    match Signal::ALL.map(|signal| targets.iter().any(|target| target.takes(signal))) {
        [true, true, true] => &Signal::ALL,
        [true, true, false] => &[Metrics, Logs],
        [true, false, true] => &[Metrics, Traces],
        [false, true, true] => &[Logs, Traces],
        [true, false, false] => &[Metrics],
        [false, true, false] => &[Logs],
        [false, false, true] => &[Traces],
        [false, false, false] => &[],
    }
}

impl Export for Webhook {
    type Config = Config;

    fn new(config: Config, _: &Context) -> Result<Self, Fault> {
        let (endpoints, http) = config.split()?;
        let targets = endpoints.into_iter().enumerate().map(|(position, config)| Target::new(config, position, &http));
        Ok(Self { targets: targets.collect::<Result<_, _>>()?, progress: Mutex::default() })
    }

    fn takes(&self) -> Takes {
        Takes { signals: signals(&self.targets), ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let source = Source::new(delivery);
        let progresses = lock(&self.progress).of(delivery.id, self.targets.len());
        let attempts = self.targets.iter().enumerate().filter(|(_, target)| target.takes(delivery.signal));
        let attempts = attempts.map(|(at, target)| {
            let progress = lock(&progresses).get(at).cloned().unwrap_or_default();
            let progresses = &progresses;
            let note = move |progress: &Progress| {
                if let Some(kept) = lock(progresses).get_mut(at) {
                    kept.clone_from(progress);
                }
            };
            let source = &source;
            async move { (at, target.deliver(source, delivery.id, progress, note).await) }
        });
        let left: Vec<(usize, Left)> = join_all(attempts).await;
        if let Some(outcome) = self.unsettled(left) {
            return outcome;
        }
        lock(&self.progress).forget(delivery.id);
        let progresses = lock(&progresses);
        self.settled(&progresses, delivery)
    }

    async fn check(&self) -> Result<String, Fault> {
        let checks = join_all(self.targets.iter().map(|target| target.check())).await;
        let (mut lines, mut kind) = (Vec::new(), None);
        for (target, check) in self.targets.iter().zip(checks) {
            let text = check.unwrap_or_else(|fault| {
                kind = kind.or(Some(fault.kind));
                fault.message
            });
            lines.push(format!("endpoint `{}`: {text}", target.label));
        }
        let text = lines.join("; ");
        kind.map_or(Ok(text.clone()), |kind| Err(Fault::new(kind, text)))
    }
}

impl Webhook {
    /// The outcome while an endpoint has records left: the slowest repeat that one of them needs.
    fn unsettled(&self, left: Vec<(usize, Left)>) -> Option<Outcome> {
        let (mut longest, mut reasons, mut unauthorized) = (None, Vec::new(), false);
        for (at, left) in left {
            let label = self.targets.get(at).map_or("", |target| target.label.as_str());
            match left {
                Left::Nothing => {}
                Left::Later { after, why } => {
                    longest = longest.max(after);
                    reasons.push(format!("endpoint `{label}`: {why}"));
                }
                Left::Unauthorized { why } => {
                    unauthorized = true;
                    reasons.push(format!("endpoint `{label}` does not accept the credentials: {why}"));
                }
            }
        }
        let why = reasons.join("; ");
        match (reasons.is_empty(), unauthorized) {
            (true, _) => None,
            (false, true) => Some(Outcome::Unauthorized { why }),
            (false, false) => Some(Outcome::Later { after: longest, why }),
        }
    }

    /// The outcome when every endpoint has taken or refused every record.
    fn settled(&self, progresses: &[Progress], delivery: &Delivery) -> Outcome {
        let refused = union(progresses.iter().flat_map(|progress| progress.refused.iter().cloned()).collect());
        let mut suspect = union(progresses.iter().flat_map(|progress| progress.suspect.iter().cloned()).collect());
        if refused.is_empty() && suspect.is_empty() {
            return Outcome::Accepted;
        }
        let is_concerned = |progress: &Progress| !progress.refused.is_empty() || !progress.suspect.is_empty();
        let reasons = self.targets.iter().zip(progresses).filter(|(_, progress)| is_concerned(progress));
        let why: Vec<_> =
            reasons.map(|(target, progress)| format!("endpoint `{}`: {}", target.label, progress.why)).collect();
        let why = why.join("; ");
        // Requests after the one that was refused may have succeeded.
        if let Some(answer) =
            progresses.iter().filter(|progress| is_concerned(progress)).find_map(|it| it.answer.clone())
        {
            answer_note::decided_by(answer);
        }
        suspect.retain(|position| refused.binary_search(position).is_err());
        let is_over = progresses.iter().any(|progress| progress.is_over);
        if refused.len() + suspect.len() == delivery.len() && !is_over {
            return Outcome::Never { why };
        }
        if suspect.is_empty() {
            return Outcome::Partly { refused: Refused::Records(refused), why };
        }
        // Sent again without the others, all of them are refused, and the runner finds the culprits.
        let refused = refused.into_iter().map(|position| (position, why.clone())).collect();
        Outcome::Each { refused, later: suspect, after: Some(Duration::ZERO), why }
    }
}

/// The positions in any of the ranges, each once.
fn union(mut ranges: Vec<Range<usize>>) -> Vec<u32> {
    ranges.sort_by_key(|range| range.start);
    let (mut positions, mut end) = (Vec::new(), 0);
    for range in ranges {
        // A delivery holds far fewer than 2^32 records.
        positions.extend((range.start.max(end)..range.end).filter_map(|at| u32::try_from(at).ok()));
        end = end.max(range.end);
    }
    positions
}

/// Locks; nothing that holds these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
