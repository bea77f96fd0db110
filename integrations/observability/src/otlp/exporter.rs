//! Sends OTLP over HTTP (protobuf or JSON) and gRPC.
//!
//! What was received as OTLP protobuf goes on byte for byte: requests are concatenated, which is
//! how protobuf merges messages, and compressed; nothing is decoded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::metrics::Temporality;
use weir_model::{DecodeError, Encoding, Payload, Signal, otlp};
use weir_net::{Answer, Client, Compression, HttpOptions, Pieces, TransportError};
use weir_pipeline::{About, Context, Delivery, Export, Fault, FaultKind, Kind, Outcome, Takes};

use super::channel::{CallAnswer, Channel};
use super::grpc::percent_decode;
use super::judge::{self, Finding, Judgement};
use super::{content_type, grpc_path, http_path};

/// How requests travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Binary protobuf over HTTP.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON over HTTP.
    #[serde(rename = "http/json")]
    HttpJson,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::HttpProtobuf => "http/protobuf",
            Protocol::HttpJson => "http/json",
            Protocol::Grpc => "grpc",
        }
    }
}

/// Options of `otlp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Base address of the receiver; over HTTP `/v1/metrics`, `/v1/logs` and `/v1/traces` are added to it.
    /// By default `http://localhost:4318`, for gRPC `http://localhost:4317`. `https` means TLS for gRPC too.
    pub endpoint: Option<Endpoint>,
    /// `http/protobuf` (the default), `http/json` or `grpc`.
    pub protocol: Protocol,
    /// Address for metrics alone; over HTTP used as it is, without a path being added.
    pub metrics_endpoint: Option<Endpoint>,
    /// Address for logs alone; over HTTP used as it is, without a path being added.
    pub logs_endpoint: Option<Endpoint>,
    /// Address for traces alone; over HTTP used as it is, without a path being added.
    pub traces_endpoint: Option<Endpoint>,
    /// The signals to send; by default all three.
    pub signals: Vec<weir_config::Signal>,
    /// Headers (over gRPC: metadata) of every request, for example a tenant or a key.
    pub headers: BTreeMap<String, Secret>,
    /// Token to show as `Authorization: Bearer TOKEN`.
    pub bearer_token: Option<Secret>,
    /// Compression of requests: `gzip` (the default), `zstd` or `none`. Within a machine `none` saves CPU time.
    pub compression: Compression,
    /// The options that all HTTP exporters share; set by the registry.
    #[serde(skip)]
    #[schemars(skip)]
    http: HttpOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::default(),
            metrics_endpoint: None,
            logs_endpoint: None,
            traces_endpoint: None,
            signals: Vec::new(),
            headers: BTreeMap::new(),
            bearer_token: None,
            compression: Compression::Gzip,
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
    name: "otlp",
    summary: "Sends metrics, logs and traces over OTLP to Collectors and every backend that speaks it",
    details: "\
**What it does.** It sends OTLP over HTTP (binary protobuf or JSON) or gRPC. What Weir received as OTLP goes on byte for byte.
Refused records are taken from `partial_success` and never sent again; 429, 502, 503, 504 and their gRPC counterparts are tried again
after the time that the backend asks for. Errors that say nothing about the records (500, a wrong path, UNKNOWN) are tried again
until `retry_max_age`; the specification would let them be dropped.

**What it needs.** The address of a receiver. Keys go into `bearer_token` or `headers`:

    otlp:
      endpoint: https://otlp.example.com
      headers: {x-api-key: \"${OTLP_KEY}\"}

**Limits.** Many gRPC servers take at most 4 MiB in one request; `batch_bytes` is below that. Several payloads that go out as JSON in one
request are encoded again.

**Troubleshooting.** Port 4317 is usually gRPC (`protocol: grpc`), port 4318 HTTP. A 404 means that the path is wrong: `/v1/logs` and so on are added
to `endpoint`, but not to `logs_endpoint`. Do not point it at this agent's own `otlp_receiver`: the records would go in circles.",
    sample: "\
otlp:
  endpoint: http://localhost:4318
  compression: gzip
",
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `otlp`.
pub const KIND: Kind = Kind::export_with_http::<Otlp>(ABOUT);

/// All sets of signals; the bit `1 << n` of an index stands for `Signal::ALL[n]`.
const SETS: [&[Signal]; 8] = [
    &Signal::ALL,
    &[Signal::Metrics],
    &[Signal::Logs],
    &[Signal::Metrics, Signal::Logs],
    &[Signal::Traces],
    &[Signal::Metrics, Signal::Traces],
    &[Signal::Logs, Signal::Traces],
    &Signal::ALL,
];

/// The set of the configured signals; none configured means all.
fn set_of(signals: &[weir_config::Signal]) -> &'static [Signal] {
    let set = signals.iter().fold(0_usize, |set, signal| {
        set | match signal {
            weir_config::Signal::Metrics => 1,
            weir_config::Signal::Logs => 2,
            weir_config::Signal::Traces => 4,
        }
    });
    SETS.get(set).copied().unwrap_or(&Signal::ALL)
}

enum Transport {
    Http(Client),
    Grpc(Channel),
}

/// An answer, whatever it came over.
enum Reply {
    Http(Answer),
    Call(CallAnswer),
}

/// Where requests with a signal go, and what they carry besides records.
struct Target {
    url: Url,
    headers: HeaderMap,
}

/// Sends OTLP.
pub struct Otlp {
    transport: Transport,
    protocol: Protocol,
    compression: Compression,
    metrics: Target,
    logs: Target,
    traces: Target,
    signals: &'static [Signal],
    has_warned: AtomicBool,
}

impl Export for Otlp {
    type Config = Config;

    fn new(config: Config, _context: &Context) -> Result<Self, Fault> {
        let transport = match config.protocol {
            Protocol::Grpc => Transport::Grpc(Channel::new(&config.http)?),
            _ => Transport::Http(Client::new(&config.http).map_err(Fault::configuration)?),
        };
        Ok(Self {
            transport,
            protocol: config.protocol,
            compression: config.compression,
            metrics: target(&config, Signal::Metrics)?,
            logs: target(&config, Signal::Logs)?,
            traces: target(&config, Signal::Traces)?,
            signals: set_of(&config.signals),
            has_warned: AtomicBool::new(false),
        })
    }

    fn takes(&self) -> Takes {
        Takes { signals: self.signals, temporality: Temporality::Unspecified, ordered: false }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let pieces = match self.encode(delivery.signal, &delivery.payloads) {
            Ok(pieces) => pieces,
            Err(error) => return Outcome::Never { why: format!("the records cannot be encoded: {error}") },
        };
        let sent_records = delivery.len() as u64;
        let judgement = match self.send(delivery.signal, pieces).await {
            Ok(Reply::Http(answer)) => judge::of_http(delivery.signal, self.encoding(), sent_records, &answer),
            Ok(Reply::Call(answer)) => judge::of_call(delivery.signal, sent_records, &answer),
            Err(error) => Outcome::of_transport(self.with_hint(error, delivery.signal)).into(),
        };
        self.warn_once(&judgement, delivery.signal);
        judgement.outcome
    }

    async fn check(&self) -> Result<String, Fault> {
        for signal in self.signals {
            let place = display(&self.target(*signal).url);
            let empty = match self.encoding() {
                Encoding::Protobuf => Vec::new(),
                Encoding::Json => vec![Bytes::from_static(b"{}")],
            };
            let finding = match self.send(*signal, empty).await {
                Ok(Reply::Http(answer)) => judge::check_http(*signal, self.encoding(), &answer),
                Ok(Reply::Call(answer)) => judge::check_call(*signal, &answer),
                Err(error) => return Err(self.with_hint(error, *signal).into()),
            };
            match finding {
                Finding::Fine => {}
                Finding::Unauthorized(why) => {
                    let message =
                        format!("{place} does not accept the credentials ({why}): check `bearer_token` and `headers`");
                    return Err(Fault::new(FaultKind::Unauthorized, message));
                }
                Finding::WrongPlace(why) => {
                    return Err(Fault::new(FaultKind::NotFound, format!("{place} is not the right place: {why}")));
                }
                Finding::Other(why) => {
                    return Err(Fault::new(FaultKind::Other, format!("{place} refuses an empty test request: {why}")));
                }
            }
        }
        let names: Vec<&str> = self.signals.iter().map(|signal| signal.name()).collect();
        let first = self.signals.first().copied().unwrap_or(Signal::Logs);
        Ok(format!("{} takes {} ({})", display(&self.target(first).url), names.join(", "), self.protocol.name()))
    }
}

impl Otlp {
    fn target(&self, signal: Signal) -> &Target {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
            Signal::Traces => &self.traces,
        }
    }

    fn encoding(&self) -> Encoding {
        match self.protocol {
            Protocol::HttpJson => Encoding::Json,
            Protocol::HttpProtobuf | Protocol::Grpc => Encoding::Protobuf,
        }
    }

    /// The message of one request, in pieces that only need to be put behind each other.
    fn encode(&self, signal: Signal, payloads: &[Payload]) -> Result<Vec<Bytes>, DecodeError> {
        match (self.encoding(), payloads) {
            (Encoding::Json, [payload]) => Ok(vec![payload.to_json()?]),
            (Encoding::Json, _) => {
                // JSON texts cannot be put behind each other, protobuf messages can.
                let whole = protobufs(payloads)?.concat();
                Ok(vec![otlp::accept(signal, Encoding::Protobuf, whole.into())?.to_json()?])
            }
            (Encoding::Protobuf, _) => protobufs(payloads),
        }
    }

    /// One request.
    async fn send(&self, signal: Signal, pieces: Vec<Bytes>) -> Result<Reply, TransportError> {
        let target = self.target(signal);
        match &self.transport {
            Transport::Grpc(channel) => {
                let answer = channel.call(&target.url, target.headers.clone(), pieces, self.compression).await?;
                Ok(Reply::Call(answer))
            }
            Transport::Http(client) => {
                let request = self
                    .http_request(target, pieces)
                    .map_err(|message| TransportError { kind: weir_net::TransportKind::Other, message })?;
                Ok(Reply::Http(client.send(request, weir_pipeline::role::ANSWER_LIMIT_BYTES).await?))
            }
        }
    }

    fn http_request(&self, target: &Target, pieces: Vec<Bytes>) -> Result<http::Request<Pieces>, String> {
        let body = self
            .compression
            .compress_pieces(Pieces::new(pieces))
            .map_err(|error| format!("the request cannot be compressed: {error}"))?;
        let mut request = http::Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() =
            target.url.as_str().parse().map_err(|error| format!("the address cannot be used: {error}"))?;
        *request.headers_mut() = target.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(self.encoding())));
        if let Some(name) = self.compression.header() {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        Ok(request)
    }

    /// The most frequent mistake with OTLP: the port of the other transport.
    fn with_hint(&self, mut error: TransportError, signal: Signal) -> TransportError {
        let port = self.target(signal).url.port_or_known_default();
        // How a client of HTTP/1.1 sees the SETTINGS frame of a gRPC server, after or before its request.
        let is_other = ["invalid HTTP version", "unexpected message"].iter().any(|words| error.message.contains(words));
        let hint = match (self.protocol, port) {
            (Protocol::Grpc, Some(4318)) => "port 4318 is usually HTTP: use port 4317, or `protocol: http/protobuf`",
            (Protocol::Grpc, _) => return error,
            (_, Some(4317)) => "port 4317 is usually gRPC: use port 4318, or `protocol: grpc`",
            _ if is_other => {
                "what listens there does not speak HTTP/1.1: if it is gRPC, set `protocol: grpc` or use its port for HTTP"
            }
            _ => return error,
        };
        error.message = format!("{}; {hint}", error.message);
        error
    }

    fn warn_once(&self, judgement: &Judgement, signal: Signal) {
        if let Some(warning) = &judgement.warning
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("{} took all records, but says: {warning}", display(&self.target(signal).url));
        }
    }
}

/// The payloads as protobuf, to be put behind each other.
pub(crate) fn protobufs(payloads: &[Payload]) -> Result<Vec<Bytes>, DecodeError> {
    payloads.iter().map(Payload::to_protobuf).collect()
}

/// An address for people: without user name, password and query, which may hold secrets.
fn display(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Where requests with a signal go, and the headers that they carry.
fn target(config: &Config, signal: Signal) -> Result<Target, Fault> {
    let own = match signal {
        Signal::Metrics => &config.metrics_endpoint,
        Signal::Logs => &config.logs_endpoint,
        Signal::Traces => &config.traces_endpoint,
    };
    let is_grpc = config.protocol == Protocol::Grpc;
    let path = if is_grpc { grpc_path(signal) } else { http_path(signal) };
    let mut url = match (own, &config.endpoint) {
        (Some(own), _) if !is_grpc => own.url().clone(),
        (Some(base), _) | (None, Some(base)) => base.join(path),
        (None, None) => {
            let port = if is_grpc { 4317 } else { 4318 };
            Url::parse(&format!("http://localhost:{port}{path}"))
                .map_err(|error| Fault::configuration(error.to_string()))?
        }
    };
    let headers = headers(config, &url)?;
    // Only addresses without a host refuse this, and `Endpoint` has checked that there is one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(Target { url, headers })
}

/// The headers of every request to an address; its user and password become one of them.
fn headers(config: &Config, url: &Url) -> Result<HeaderMap, Fault> {
    let user = url.password().map(|password| {
        let pair = format!("{}:{}", percent_decode(url.username()), percent_decode(password));
        (AUTHORIZATION.as_str(), format!("Basic {}", STANDARD.encode(pair)))
    });
    let bearer =
        config.bearer_token.as_ref().map(|token| (AUTHORIZATION.as_str(), format!("Bearer {}", token.expose())));
    let own = config.headers.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned()));
    let mut headers = HeaderMap::new();
    for (name, value) in user.into_iter().chain(bearer).chain(own) {
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            Fault::configuration(format!("`headers`: `{name}` has a character that no header name can have"))
        })?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            Fault::configuration(format!("the value of the header `{name}` has a character that no header can have"))
        })?;
        value.set_sensitive(true);
        if headers.insert(key, value).is_some() {
            let message = format!(
                "the header `{name}` is given twice; keep one of `bearer_token`, `headers` and the address's user"
            );
            return Err(Fault::configuration(message));
        }
    }
    Ok(headers)
}
