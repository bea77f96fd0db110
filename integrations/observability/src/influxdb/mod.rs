//! Sends metrics to InfluxDB 1 and 2 and to what speaks their write protocol, such as VictoriaMetrics.
//!
//! - [`line`] writes a point as a line; [`judge`] reads the answer, and finds out which lines a
//!   partial write left out

mod judge;
mod line;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::Signal;
use weir_net::{Client, Compression, HttpOptions};
use weir_pipeline::role::ANSWER_LIMIT_BYTES;
use weir_pipeline::{About, Context, Delivery, Export, Fault, Kind, Outcome, Takes};

use crate::credentials::{Credentials, take_from_url};
use line::{Form, Lines};

/// Where InfluxDB listens, if nothing else is configured.
const DEFAULT_ENDPOINT: &str = "http://localhost:8086";

/// The unit of timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Ns,
    /// Microseconds.
    #[serde(alias = "u")]
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Precision {
    /// The name in requests; version 1 calls microseconds `u`.
    fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Precision::Ns, _) => "ns",
            (Precision::Us, Version::V1) => "u",
            (Precision::Us, Version::V2) => "us",
            (Precision::Ms, _) => "ms",
            (Precision::S, _) => "s",
        }
    }

    fn nanoseconds(self) -> u64 {
        match self {
            Precision::Ns => 1,
            Precision::Us => 1_000,
            Precision::Ms => 1_000_000,
            Precision::S => 1_000_000_000,
        }
    }
}

/// The write API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Options of `influxdb`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the server, by default `http://localhost:8086`. `/write` or `/api/v2/write` is added to it.
    pub endpoint: Option<Endpoint>,
    /// Version of the write API, 1 or 2. By default 1 where `database` is given, else 2.
    #[schemars(range(min = 1, max = 2))]
    pub version: Option<u8>,
    /// Token (version 2).
    pub token: Option<Secret>,
    /// Organization (version 2).
    pub org: Option<String>,
    /// Bucket to write to (version 2).
    pub bucket: Option<String>,
    /// Database to write to (version 1).
    pub database: Option<String>,
    /// Retention policy to write to (version 1), by default that of the database.
    pub retention_policy: Option<String>,
    /// User name (version 1).
    pub username: Option<String>,
    /// Password that belongs to `username`.
    pub password: Option<Secret>,
    /// Unit of timestamps: `ns` (the default), `us`, `ms` or `s`.
    pub precision: Precision,
    /// Write whole numbers as integers (`5i`). By default they are floats, because a field keeps the type of its first value and
    /// refuses the others.
    pub integers: bool,
    /// Compression of requests: `gzip` (the default) or `none`.
    pub compression: Compression,
    /// Headers of every request, by default none.
    pub headers: BTreeMap<String, Secret>,
    /// The options that all HTTP exporters share; set by the registry.
    #[serde(skip)]
    #[schemars(skip)]
    http: HttpOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            version: None,
            token: None,
            org: None,
            bucket: None,
            database: None,
            retention_policy: None,
            username: None,
            password: None,
            precision: Precision::Ns,
            integers: false,
            compression: Compression::Gzip,
            headers: BTreeMap::new(),
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
    name: "influxdb",
    summary: "Sends metrics in line protocol to InfluxDB 1 and 2, and to VictoriaMetrics",
    details: r#"**What it does.** It writes every metric point as one line, in the form that Telegraf's inputs `prometheus` (metric_version 1) and
`opentelemetry` (metrics_schema prometheus-v1) have: the measurement is the name of the metric, the tags are its attributes, those
of its resource and the scope as `otel.library.name`.

```text
system.memory.usage,host.name=web-1,system.memory.state=used gauge=8123456789 1767787390000000000
system.cpu.time,cpu.mode=user,host.name=web-1 counter=81.5 1767787390000000000
http.server.request.duration,host.name=web-1 count=3,sum=0.7,0.1=1,0.5=2,+Inf=3 1767787390000000000
rpc.latency,host.name=web-1 count=9,sum=1.5,0.5=0.1,0.99=0.4 1767787390000000000
```

Counters have the field `counter`; gauges and sums that may fall have `gauge`. Histograms have `count`, `sum`, `min`, `max` and
the number of values up to every bound; exponential histograms get the bounds of their buckets. Summaries have a field per
quantile. All numbers are floats unless `integers` is set.

**What it needs.** Version 1: `database`, and a user who may write to it. Version 2: `org`, `bucket` and a token that may write
to the bucket. VictoriaMetrics takes both, with any names. Logs and traces are not sent.

**Limits.** NaN and infinities have no form: a point without any other value is refused and counted, and a field of a histogram is left
out. The end of a series is not sent. A point without time or name is refused. Line breaks in tags are written as `\n`, a backslash at
the end of a tag is left out, tags named `time`, `_field` or `_measurement` get a `_` at the end.

**Partial writes.** InfluxDB 1 answers 400, version 2 answers 422 when it stored only a part. Which lines were left out follows from
the answer: lines that it quotes, lines of the measurement whose field has another type, lines before the retention period. They
are refused with its reason. Where it does not follow, the request is sent again in halves until the line stands alone; writing a
point twice changes nothing, since series and time are its identity.

**VictoriaMetrics** (1.79) refuses a line of more than 256 KiB (`-influx.maxLineSize`), and with it the request: the line is found by halves and
refused, and points that travelled with it may be stored twice, which its deduplication removes. Of everything else it says nothing, so it counts
as delivered: points outside its retention or more than 2 days ahead are dropped, names of tags are cut at 256 bytes and their values at
16,384, and of more than 30 tags (`-maxLabelsPerTimeseries`) the first 30 in the order of their names are kept, so that series can become one.
Its own counters tell: `vm_rows_ignored_total`, `vm_metrics_with_dropped_labels_total`, `vm_too_long_label_values_total`.

**Troubleshooting.** `field type conflict`: an earlier sender wrote that field as an integer, and its type stays until the shard's end;
write to another database. A database or bucket that is not there is tried again until `retry_max_age`. A 404 at `/api/v2/write` with
InfluxDB 1: set `version: 1`.
"#,
    sample: r#"influxdb:
  endpoint: "http://influxdb:8086"
  token: "${INFLUXDB_TOKEN}"
  org: "example"
  bucket: "telemetryflow"
  version: 2
  precision: ns
  batch_size: 1000
"#,
    metrics: &[],
    signals: &[Signal::Metrics],
};

/// The kind `influxdb`.
pub const KIND: Kind = Kind::export_with_http::<InfluxDb>(ABOUT);

/// The exporter.
pub struct InfluxDb {
    version: Version,
    uri: Uri,
    place: String,
    headers: HeaderMap,
    form: Form,
    compression: Compression,
    client: Client,
}

impl Export for InfluxDb {
    type Config = Config;

    fn new(config: Config, _: &Context) -> Result<Self, Fault> {
        if config.compression == Compression::Zstd {
            return Err(Fault::configuration("compression: InfluxDB takes `gzip` or `none`"));
        }
        let version = version(&config)?;
        let endpoint = match config.endpoint.clone() {
            Some(endpoint) => endpoint,
            None => DEFAULT_ENDPOINT
                .parse()
                .map_err(|error: weir_config::InvalidValue| Fault::configuration(format!("endpoint: {error}")))?,
        };
        let mut headers = headers(&config)?;
        let mut url = endpoint.join(match version {
            Version::V1 => "write",
            Version::V2 => "api/v2/write",
        });
        take_from_url(&mut url, &mut headers)?;
        let place = endpoint.to_string();
        url.query_pairs_mut().extend_pairs(query(&config, version));
        let uri = url.as_str().parse().map_err(|error| Fault::configuration(format!("endpoint: {error}")))?;
        Ok(Self {
            version,
            uri,
            place,
            headers,
            form: Form { precision: config.precision, integers: config.integers },
            compression: config.compression,
            client: Client::new(&config.http).map_err(Fault::configuration)?,
        })
    }

    fn takes(&self) -> Takes {
        Takes { signals: &[Signal::Metrics], ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let lines = match Lines::of(delivery, self.form) {
            Ok(lines) => lines,
            Err(why) => return Outcome::Never { why },
        };
        if lines.is_empty() {
            return judge::all_taken(&lines);
        }
        let request = match self.request(lines.body().clone()) {
            Ok(request) => request,
            Err(why) => return Outcome::Never { why },
        };
        match self.client.send(request, ANSWER_LIMIT_BYTES).await {
            Ok(answer) => judge::judge(self.version, &lines, &answer),
            Err(error) => Outcome::of_transport(error),
        }
    }

    async fn check(&self) -> Result<String, Fault> {
        let request = self.request(Bytes::new()).map_err(Fault::configuration)?;
        let answer = self.client.send(request, ANSWER_LIMIT_BYTES).await?;
        judge::check(self.version, &answer, &self.place)
    }
}

impl InfluxDb {
    fn request(&self, body: Bytes) -> Result<Request<Bytes>, String> {
        let is_compressed = !body.is_empty();
        let body = match is_compressed {
            true => {
                self.compression.compress(body).map_err(|error| format!("the request cannot be compressed: {error}"))?
            }
            false => body,
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(encoding) = self.compression.header().filter(|_| is_compressed) {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Ok(request)
    }
}

/// The version that is configured, or that the other options belong to.
fn version(config: &Config) -> Result<Version, Fault> {
    let version = match config.version {
        Some(1) => Version::V1,
        Some(2) => Version::V2,
        Some(other) => return Err(Fault::configuration(format!("version: there is no version {other}; write 1 or 2"))),
        None if config.database.is_some() => Version::V1,
        None => Version::V2,
    };
    let of_v1 = [
        ("database", config.database.is_some()),
        ("retention_policy", config.retention_policy.is_some()),
        ("username", config.username.is_some()),
    ];
    let of_v2 = [("token", config.token.is_some()), ("org", config.org.is_some()), ("bucket", config.bucket.is_some())];
    let (needed, strange, name, other) = match version {
        Version::V1 => (config.database.is_some(), of_v2, "database", 2),
        Version::V2 => (config.bucket.is_some(), of_v1, "bucket", 1),
    };
    if let Some((strange, _)) = strange.iter().find(|(_, is_given)| *is_given) {
        return Err(Fault::configuration(format!(
            "`{strange}` belongs to version {other} of the API: remove it, or write `version: {other}`"
        )));
    }
    if !needed {
        let message =
            format!("`{name}` is missing: where to write to (`bucket` for InfluxDB 2, `database` for InfluxDB 1)");
        return Err(Fault::configuration(message));
    }
    Ok(version)
}

fn query(config: &Config, version: Version) -> Vec<(&'static str, &str)> {
    let wanted = match version {
        Version::V1 => [("db", config.database.as_deref()), ("rp", config.retention_policy.as_deref())],
        Version::V2 => [("org", config.org.as_deref()), ("bucket", config.bucket.as_deref())],
    };
    let mut query: Vec<_> = wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    query.push(("precision", config.precision.name(version)));
    query
}

fn headers(config: &Config) -> Result<HeaderMap, Fault> {
    let credentials = Credentials {
        headers: Some(&config.headers),
        bearer_token: None,
        username: config.username.as_deref(),
        password: config.password.as_ref(),
    };
    let mut headers = credentials.headers(&[CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, HOST])?;
    let Some(token) = &config.token else { return Ok(headers) };
    if headers.contains_key(AUTHORIZATION) {
        return Err(Fault::configuration("headers: `authorization` is set by token; keep one of them"));
    }
    let mut value = HeaderValue::try_from(format!("Token {}", token.expose()))
        .map_err(|_| Fault::configuration("token has a character that no header can have"))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

#[cfg(test)]
mod tests;
