//! Sends metrics, logs and traces to Elasticsearch and OpenSearch through the bulk API.
//!
//! - [`index`]: the name of the index of a record
//! - [`document`] writes a record as a document, with [`labels`]
//! - [`bulk`] makes the request; [`judge`] reads the answer, item by item

mod bulk;
mod document;
mod index;
mod judge;
mod labels;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::Signal;
use weir_net::{Answer, Client, Compression, HttpOptions, TransportError, TransportKind};
use weir_pipeline::role::ANSWER_LIMIT_BYTES;
use weir_pipeline::{About, Context, Delivery, Export, Fault, FaultKind, Kind, Outcome, Takes};

use crate::credentials::{Credentials, take_from_url};
use bulk::Bulk;
use index::IndexName;

/// Where Elasticsearch listens, if nothing else is configured.
const DEFAULT_ENDPOINT: &str = "http://localhost:9200";
/// The index, if nothing else is configured.
const DEFAULT_INDEX: &str = "weir-{signal}-%Y.%m.%d";
/// What of the answer is read: without this every item repeats its id, its index and its shards.
const WANTED: &str =
    "errors,error,status,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by";
/// Bytes of an answer that are read: a request full of refused records has a long one.
const BULK_ANSWER_LIMIT_BYTES: usize = 64 << 20;

/// Options of `elasticsearch`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of the nodes, by default `http://localhost:9200`. Requests go to one of them, and to the next when it does not answer.
    pub endpoints: Vec<Endpoint>,
    /// Name of the index or data stream, by default `weir-{signal}-%Y.%m.%d`. `%Y`, `%m`, `%d`, `%H` and so on are the time of the
    /// record in UTC, `{signal}` is `metrics`, `logs` or `traces`.
    pub index: String,
    /// Give every document an id made from its content, so that a request that is sent again stores nothing twice; by default on.
    /// Time series data streams allow no ids of their own: switch it off there.
    pub document_ids: bool,
    /// User name for HTTP basic authentication.
    pub username: Option<String>,
    /// Password that belongs to `username`.
    pub password: Option<Secret>,
    /// API key, encoded as Elasticsearch shows it, or as `ID:KEY`.
    pub api_key: Option<Secret>,
    /// Token to show as `Authorization: Bearer TOKEN`.
    pub bearer_token: Option<Secret>,
    /// Headers of every request, by default none.
    pub headers: BTreeMap<String, Secret>,
    /// Compression of requests: `gzip` (the default) or `none`.
    pub compression: Compression,
    /// Whether metrics are sent, by default on.
    pub metrics: bool,
    /// Whether logs are sent, by default on.
    pub logs: bool,
    /// Whether traces are sent, by default on.
    pub traces: bool,
    /// The options that all HTTP exporters share; set by the registry.
    #[serde(skip)]
    #[schemars(skip)]
    http: HttpOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            index: DEFAULT_INDEX.to_owned(),
            document_ids: true,
            username: None,
            password: None,
            api_key: None,
            bearer_token: None,
            headers: BTreeMap::new(),
            compression: Compression::Gzip,
            metrics: true,
            logs: true,
            traces: true,
            http: HttpOptions::default(),
        }
    }
}

impl AsMut<HttpOptions> for Config {
    fn as_mut(&mut self) -> &mut HttpOptions {
        &mut self.http
    }
}

const ABOUT: About = About {
    name: "elasticsearch",
    summary: "Sends metrics, logs and traces to Elasticsearch and OpenSearch",
    details: r#"**What it does.** It stores every record as one document through the bulk API, by `create`, in an index per day or in a data
stream. Every record has its own answer: what is refused for good (a field of another type) is refused alone and with the server's
reason; what a busy node puts off (429, `es_rejected_execution_exception`, a blocked index) is sent again alone.

**Documents** use the field names of ECS, which OpenTelemetry's resource attributes share:

```json
{"@timestamp":"2026-01-07T12:03:10.123Z","message":"disk full","log.level":"error","event.severity":17,"trace.id":"0af7...",
 "host.name":"web-1","labels":{"thread":"main"},"numeric_labels":{"queue_size":12},"otel.scope.name":"logs"}
{"@timestamp":"2026-01-07T12:03:10Z","metric":{"name":"system.cpu.time","type":"counter","unit":"s","temporality":"cumulative",
 "value":81.5,"start_time":"2026-01-01T00:00:00Z"},"host.name":"web-1","labels":{"cpu_mode":"user"},"otel.scope.name":"host"}
{"@timestamp":"2026-01-07T12:03:10Z","span.name":"GET /","span.kind":"server","event.duration":12000000,"event.outcome":"success",
 "trace.id":"0af7...","span.id":"b7ad...","parent.id":"00f0...","service.name":"shop"}
```

Resource attributes with a dot in their name stand at the top, `deployment.environment.name` as `service.environment`. All other
attributes, and tags of the agent, are texts in `labels` or numbers in `numeric_labels`, dots in their names written as `_`:
so an attribute that is once a text and once a number is never refused. `exception.*` becomes `error.*`, `log.file.*` keeps its
name. Histograms have `metric.count`, `sum`, `min`, `max`, `bounds`, `bucket_counts` and, for the field type `histogram`,
`metric.histogram` with `values` (middles of the buckets) and `counts`; exponential ones have no `bounds`. Summaries have
`metric.quantiles`. `event.duration` is in nanoseconds. NaN and infinities have no form in JSON: such points are refused and
counted. The end of a series is not sent.

**What it needs.** The rights `create_doc` and, unless the indices are there, `create_index` and `auto_configure`. For a data stream
write its name as `index` and have an index template with `data_stream: {}` (Elasticsearch has one for `logs-*-*` and `metrics-*-*`).
Fields that are found out by themselves are 32-bit floats; a template that makes numbers exact:

```json
{"index_patterns":["weir-metrics-*"],"template":{"mappings":{"dynamic_templates":[
  {"labels":{"path_match":"labels.*","mapping":{"type":"keyword"}}},
  {"numbers":{"match_mapping_type":"double","mapping":{"type":"double"}}}]}}}
```

**Nothing twice.** The id of a document is a hash of its content; for logs, where two equal lines are two events, of all records that
came with it and of its place among them. A document that is there already was stored by an earlier attempt and counts as delivered.
Ids are unique within one index: after a data stream rolled over, a repeat is stored once more. Log records without any time are
told from a repeat only while the same request is sent again.

**Troubleshooting.** `refused ... mapper_parsing_exception`: the index has that field with another type, often from another sender; use
an index of its own. `index_not_found_exception`: the index may not be created automatically; it is tried again until
`retry_max_age`. TLS errors: see `ca_file`.
"#,
    sample: r#"elasticsearch:
  endpoints:
    - "http://elasticsearch:9200"
  index: "telemetryflow-%Y.%m.%d"
  api_key: "${ES_API_KEY}"
  batch_size: 1000
  flush_interval: 10s
  metrics: true
  logs: true
  traces: false
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `elasticsearch`.
pub const KIND: Kind = Kind::export_with_http::<Elasticsearch>(ABOUT);

/// A node.
struct Node {
    /// The bulk API.
    bulk: Uri,
    /// What the node says about itself.
    root: Uri,
    /// For messages.
    place: String,
    headers: HeaderMap,
}

/// The exporter.
pub struct Elasticsearch {
    nodes: Vec<Node>,
    /// The node that answered last.
    current: AtomicUsize,
    index: IndexName,
    document_ids: bool,
    compression: Compression,
    signals: &'static [Signal],
    client: Client,
}

impl Export for Elasticsearch {
    type Config = Config;

    fn new(config: Config, _: &Context) -> Result<Self, Fault> {
        if config.compression == Compression::Zstd {
            return Err(Fault::configuration("compression: Elasticsearch takes `gzip` or `none`"));
        }
        let signals = signals([config.metrics, config.logs, config.traces])?;
        let headers = headers(&config)?;
        let mut endpoints = config.endpoints;
        if endpoints.is_empty() {
            let default = DEFAULT_ENDPOINT.parse();
            endpoints.push(default.map_err(|error| Fault::configuration(format!("endpoints: {error}")))?);
        }
        Ok(Self {
            nodes: endpoints.iter().map(|endpoint| Node::new(endpoint, &headers)).collect::<Result<_, _>>()?,
            current: AtomicUsize::new(0),
            index: IndexName::parse(&config.index).map_err(Fault::configuration)?,
            document_ids: config.document_ids,
            compression: config.compression,
            signals,
            client: Client::new(&config.http).map_err(Fault::configuration)?,
        })
    }

    fn takes(&self) -> Takes {
        Takes { signals: self.signals, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let bulk = match bulk::write(delivery, &self.index, self.document_ids, Timestamp::now()) {
            Ok(bulk) => bulk,
            Err(why) => return Outcome::Never { why },
        };
        if bulk.records.is_empty() {
            return judge::all_taken(bulk);
        }
        match self.compression.compress(bulk.body.clone()) {
            Ok(body) => self.send(&bulk, body).await,
            Err(error) => Outcome::Never { why: format!("the request cannot be compressed: {error}") },
        }
    }

    async fn check(&self) -> Result<String, Fault> {
        let mut found = Vec::new();
        for node in &self.nodes {
            found.push(self.check_node(node).await?);
        }
        Ok(found.join("; "))
    }
}

impl Elasticsearch {
    /// One attempt: at the node that answered last, and at the others as long as no connection comes
    /// about, so that nothing was sent yet.
    async fn send(&self, bulk: &Bulk, body: Bytes) -> Outcome {
        let first = self.current.load(Ordering::Relaxed);
        let mut failed = Outcome::Never { why: "there is no endpoint".to_owned() };
        for (step, _) in self.nodes.iter().enumerate() {
            let at = (first + step) % self.nodes.len();
            let Some(node) = self.nodes.get(at) else { continue };
            match self.client.send(node.bulk_request(body.clone(), self.compression), BULK_ANSWER_LIMIT_BYTES).await {
                Ok(answer) => {
                    // A gateway without a node behind it, or a node that leaves the cluster.
                    let is_away = matches!(answer.status.as_u16(), 502..=504);
                    self.current.store(if is_away { at + 1 } else { at } % self.nodes.len(), Ordering::Relaxed);
                    return judge::judge(bulk, &answer);
                }
                Err(error) => {
                    self.current.store((at + 1) % self.nodes.len(), Ordering::Relaxed);
                    let was_sent = was_sent(&error);
                    failed = Outcome::of_transport(error);
                    if was_sent {
                        break;
                    }
                }
            }
        }
        failed
    }

    async fn check_node(&self, node: &Node) -> Result<String, Fault> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = node.root.clone();
        *request.headers_mut() = node.headers.clone();
        let answer = self.client.send(request, ANSWER_LIMIT_BYTES).await?;
        if let Some(fault) = Fault::of_answer(&answer, &node.place) {
            return Err(fault);
        }
        about_node(&answer).map(|about| format!("{} is {about}", node.place)).ok_or_else(|| {
            let message =
                format!("{} answers, but is neither Elasticsearch nor OpenSearch: check host and port", node.place);
            Fault::new(FaultKind::NotFound, message)
        })
    }
}

impl Node {
    fn new(endpoint: &Endpoint, headers: &HeaderMap) -> Result<Self, Fault> {
        let mut headers = headers.clone();
        let uri = |path: &str, query: Option<&str>, headers: &mut HeaderMap| {
            let mut url = endpoint.join(path);
            take_from_url(&mut url, headers)?;
            url.set_query(query);
            url.as_str().parse::<Uri>().map_err(|error| Fault::configuration(format!("endpoints: {endpoint}: {error}")))
        };
        let bulk = uri("_bulk", Some(&format!("filter_path={WANTED}")), &mut headers)?;
        Ok(Self { bulk, root: uri("", None, &mut headers)?, place: endpoint.to_string(), headers })
    }

    fn bulk_request(&self, body: Bytes, compression: Compression) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.bulk.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(encoding) = compression.header() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        request
    }
}

/// Whether the server may have got the request although no answer came.
fn was_sent(error: &TransportError) -> bool {
    !matches!(error.kind, TransportKind::Refused | TransportKind::UnknownHost | TransportKind::Tls)
}

/// `GET /` of every node: product, version and cluster.
fn about_node(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Root {
        #[serde(default)]
        cluster_name: String,
        version: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        number: String,
        distribution: Option<String>,
    }
    let root: Root = serde_json::from_slice(&answer.body).ok()?;
    let product = root.version.distribution.as_deref().unwrap_or("elasticsearch");
    Some(format!("{product} {}, cluster `{}`", root.version.number, root.cluster_name))
}

fn signals(wanted: [bool; 3]) -> Result<&'static [Signal], Fault> {
    use Signal::{Logs, Metrics, Traces};
    Ok(match wanted {
        [true, true, true] => &Signal::ALL,
        [true, true, false] => &[Metrics, Logs],
        [true, false, true] => &[Metrics, Traces],
        [false, true, true] => &[Logs, Traces],
        [true, false, false] => &[Metrics],
        [false, true, false] => &[Logs],
        [false, false, true] => &[Traces],
        [false, false, false] => {
            return Err(Fault::configuration("metrics, logs and traces are all `false`: nothing would be sent"));
        }
    })
}

fn headers(config: &Config) -> Result<HeaderMap, Fault> {
    let credentials = Credentials {
        headers: Some(&config.headers),
        bearer_token: config.bearer_token.as_ref(),
        username: config.username.as_deref(),
        password: config.password.as_ref(),
    };
    let mut headers = credentials.headers(&[CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, HOST, ACCEPT])?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let Some(key) = &config.api_key else { return Ok(headers) };
    if headers.contains_key(AUTHORIZATION) {
        return Err(Fault::configuration(
            "api_key excludes username, bearer_token and a header `authorization`; keep one of them",
        ));
    }
    // An encoded key has no colon in it.
    let encoded = if key.expose().contains(':') { STANDARD.encode(key.expose()) } else { key.expose().to_owned() };
    let mut value = HeaderValue::try_from(format!("ApiKey {encoded}"))
        .map_err(|_| Fault::configuration("api_key has a character that no header can have"))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

#[cfg(test)]
mod tests;
