//! Receives OTLP over gRPC and HTTP.
//!
//! Both ports answer both transports, because mixing them up is the most frequent mistake with
//! OTLP. Received bytes are checked and counted, not decoded: they go on as they came.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use weir_config::{ByteSize, Secret, SocketAddress};
use weir_model::{Encoding, Payload, Signal, otlp};
use weir_net::compress::DecompressError;
use weir_net::{BodyError, read_body};
use weir_pipeline::{About, Answer, Context, Fault, Intake, Kind, Mount, Receive};

use super::status::{Code, PartialSuccess, Status};
use super::{content_type, encoding_of, grpc, grpc_path, http_path};

/// Options of `otlp_receiver`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address for gRPC, by default `127.0.0.1:4317`. `null` switches it off; `:4317` listens on all interfaces.
    pub grpc: Option<SocketAddress>,
    /// Address for HTTP, by default `127.0.0.1:4318`. `null` switches it off; `:4318` listens on all interfaces.
    pub http: Option<SocketAddress>,
    /// Largest request, before and after decompression.
    pub max_request_size: ByteSize,
    /// Token that senders must show as `Authorization: Bearer TOKEN`. Without it and `api_key` everybody may send.
    pub bearer_token: Option<Secret>,
    /// Key that senders must show as `x-api-key: KEY`. Where both are set, either is enough.
    pub api_key: Option<Secret>,
}

/// The ports that IANA and OpenTelemetry know for OTLP.
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

impl Default for Config {
    fn default() -> Self {
        // Without a configured key nobody but this machine may send.
        let local = |port| Some(SocketAddress::new(Some("127.0.0.1".to_owned()), port));
        Self {
            grpc: local(GRPC_PORT),
            http: local(HTTP_PORT),
            max_request_size: ByteSize::from_mebibytes(64),
            bearer_token: None,
            api_key: None,
        }
    }
}

const ABOUT: About = About {
    name: "otlp_receiver",
    summary: "Receives metrics, logs and traces over OTLP from SDKs, Collectors and agents",
    details: "\
Every OpenTelemetry SDK and Collector can send here without changes.

**What it does.** It takes OTLP over gRPC (port 4317) and over HTTP (port 4318, `/v1/metrics`, `/v1/logs`, `/v1/traces`; binary protobuf
and JSON), compressed with gzip, zstd or not at all. Both ports answer both transports. A success is answered only after the records are
as durable as `delivery.acknowledge` says. What was refused for good is named in `partial_success`; when a queue is full the answer is 503 or
UNAVAILABLE with the time to wait, and every OpenTelemetry sender then tries again.

**What it needs.** Nothing. By default only programs on the same machine can send. To open it to others:

    otlp_receiver:
      grpc: \":4317\"
      http: \":4318\"
      bearer_token: \"${OTLP_TOKEN}\"

Senders then set `OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20TOKEN`.

**Limits.** Requests of more than `max_request_size` are answered 413 or RESOURCE_EXHAUSTED. Profiles are not taken. Listening is
without TLS; put a proxy in front of it where the network is not trusted.

**Troubleshooting.** A 404 names the three right paths, a 415 the right content types, a 400 the field and the byte that cannot be read.",
    sample: "\
otlp_receiver:
  grpc: 127.0.0.1:4317
  http: 127.0.0.1:4318
",
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `otlp_receiver`.
pub const KIND: Kind = Kind::receive::<OtlpReceiver>(ABOUT);

/// Receives OTLP.
pub struct OtlpReceiver {
    config: Config,
    limit_bytes: usize,
}

impl Receive for OtlpReceiver {
    type Config = Config;

    fn new(config: Config, _context: &Context) -> Result<Self, Fault> {
        if config.grpc.is_none() && config.http.is_none() {
            return Err(Fault::configuration(
                "`grpc` and `http` are both off; give one of them an address, or set `enabled: false`",
            ));
        }
        let limit_bytes = usize::try_from(config.max_request_size.bytes()).unwrap_or(usize::MAX);
        if limit_bytes == 0 {
            return Err(Fault::configuration("`max_request_size` must be larger than 0, for example 64MiB"));
        }
        Ok(Self { config, limit_bytes })
    }

    fn mounts(&self, intake: &Intake) -> Vec<Mount> {
        let endpoint = Arc::new(Endpoint::new(&self.config, self.limit_bytes, intake.clone()));
        let mut addresses: Vec<&SocketAddress> = self.config.grpc.iter().chain(&self.config.http).collect();
        addresses.dedup();
        addresses.into_iter().map(|address| Mount { address: address.clone(), router: router(&endpoint) }).collect()
    }
}

/// Where received records go: the pipeline's intake, or what stands in front of it.
pub trait Sink: Send + Sync + 'static {
    /// Takes records; answers when it is settled what becomes of them.
    fn offer(&self, payload: Payload) -> impl Future<Output = Answer> + Send;
}

impl Sink for Intake {
    async fn offer(&self, payload: Payload) -> Answer {
        Intake::offer(self, payload).await
    }
}

/// What all requests share.
pub(super) struct Endpoint<S> {
    sink: S,
    limit_bytes: usize,
    /// The headers of which one must hold its secret; empty = everybody may send.
    keys: Vec<(HeaderName, Secret)>,
}

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The paths of all signals over both transports, for a server that asks for keys itself and has
/// its own answer to other paths. `sink_of` finds the sink of a request by its extensions, where the
/// server leaves who sends. A request has at most `limit_bytes`, before and after decompression.
pub fn routes<S: Sink>(
    sink_of: impl Fn(&http::Extensions) -> S + Clone + Send + Sync + 'static,
    limit_bytes: usize,
) -> Router {
    paths(move |request| Arc::new(Endpoint { sink: sink_of(request.extensions()), limit_bytes, keys: Vec::new() }))
}

pub(super) fn router<S: Sink>(endpoint: &Arc<Endpoint<S>>) -> Router {
    let endpoint = endpoint.clone();
    paths(move |_| endpoint.clone()).fallback(unknown_path)
}

fn paths<S: Sink>(endpoint_of: impl Fn(&Request) -> Arc<Endpoint<S>> + Clone + Send + Sync + 'static) -> Router {
    let mut router = Router::new();
    for signal in Signal::ALL {
        let (http, grpc) = (endpoint_of.clone(), endpoint_of.clone());
        let http = move |request: Request| {
            let endpoint = http(&request);
            async move { endpoint.http(signal, request).await }
        };
        let grpc = move |request: Request| {
            let endpoint = grpc(&request);
            async move { endpoint.grpc(signal, request).await }
        };
        router = router.route(http_path(signal), any(http)).route(grpc_path(signal), any(grpc));
    }
    router
}

impl<S: Sink> Endpoint<S> {
    pub(super) fn new(config: &Config, limit_bytes: usize, sink: S) -> Self {
        let bearer = config.bearer_token.iter().map(|token| (AUTHORIZATION, token.clone()));
        let keys = bearer.chain(config.api_key.iter().map(|key| (API_KEY, key.clone()))).collect();
        Self { sink, limit_bytes, keys }
    }

    /// Whether the sender shows one of the secrets; compared in constant time.
    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        self.keys.is_empty()
            || self.keys.iter().any(|(name, secret)| {
                let shown = headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
                let shown = if *name == AUTHORIZATION { bearer(shown) } else { Some(shown) };
                shown.is_some_and(|shown| shown.ct_eq(secret.expose().as_bytes()).into())
            })
    }

    fn unauthorized(&self) -> Status {
        let names: Vec<&str> = self
            .keys
            .iter()
            .map(|(name, _)| if *name == AUTHORIZATION { "`authorization: Bearer ...`" } else { "`x-api-key`" })
            .collect();
        Status::new(
            Code::Unauthenticated,
            format!("the key is missing or wrong; send it in the header {}", names.join(" or ")),
        )
    }

    /// OTLP/HTTP.
    async fn http(&self, signal: Signal, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let known = encoding_of(&parts.headers);
        let answer_in = known.unwrap_or(Encoding::Json);
        if parts.method != Method::POST {
            let message = format!("{} is not supported here; send telemetry with POST", parts.method);
            let mut response =
                refusal(StatusCode::METHOD_NOT_ALLOWED, answer_in, &Status::new(Code::Unimplemented, message));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        if !self.is_authorized(&parts.headers) {
            let mut response = refusal(StatusCode::UNAUTHORIZED, answer_in, &self.unauthorized());
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        let Some(encoding) = known else {
            let message = "the content-type must be `application/x-protobuf` or `application/json`";
            return refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                answer_in,
                &Status::new(Code::InvalidArgument, message),
            );
        };
        let bytes = match read_body(&parts.headers, body, self.limit_bytes).await {
            Ok(bytes) => bytes,
            Err(error) => {
                if error == BodyError::Busy {
                    return busy(encoding, &Status::new(Code::Unavailable, error.to_string()));
                }
                let too_large = matches!(error, BodyError::TooLarge { .. });
                let code = if too_large { Code::ResourceExhausted } else { Code::InvalidArgument };
                return refusal(error.status(), encoding, &Status::new(code, error.to_string()));
            }
        };
        match self.take(signal, encoding, bytes).await {
            Ok(None) => answer(StatusCode::OK, encoding, empty(encoding)),
            Ok(Some(partial)) => answer(StatusCode::OK, encoding, partial.encode(signal, encoding).into()),
            Err(status) if status.code == Code::Unavailable => busy(encoding, &status),
            Err(status) => refusal(StatusCode::BAD_REQUEST, encoding, &status),
        }
    }

    /// OTLP/gRPC.
    async fn grpc(&self, signal: Signal, request: Request) -> Response {
        if let Some(response) = not_grpc(&request) {
            return response;
        }
        match self.grpc_call(signal, request).await {
            Ok(None) => grpc::success(&[]),
            Ok(Some(partial)) => grpc::success(&partial.encode(signal, Encoding::Protobuf)),
            Err(status) if status.code == Code::Unimplemented => {
                let mut response = grpc::failure(&status);
                response
                    .headers_mut()
                    .insert(grpc::GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,zstd"));
                response
            }
            Err(status) => grpc::failure(&status),
        }
    }

    async fn grpc_call(&self, signal: Signal, request: Request) -> Result<Option<PartialSuccess>, Status> {
        let (parts, body) = request.into_parts();
        if !self.is_authorized(&parts.headers) {
            return Err(self.unauthorized());
        }
        let compression = grpc::message_compression(&parts.headers).ok_or_else(|| {
            Status::new(Code::Unimplemented, "this grpc-encoding is not supported; use gzip, zstd or identity")
        })?;
        let unary = grpc::read_unary(body, self.limit_bytes).await.map_err(|error| {
            let code = match error {
                grpc::FrameError::TooLarge { .. } => Code::ResourceExhausted,
                grpc::FrameError::Busy => return no_memory(),
                _ => Code::InvalidArgument,
            };
            Status::new(code, error.to_string())
        })?;
        let Some((compressed, message)) = unary.message else {
            return Err(Status::new(
                Code::InvalidArgument,
                "the call has no message; an empty request is a message of length 0",
            ));
        };
        let message = if compressed {
            let limit = self.limit_bytes;
            compression.decompress(message, limit).map_err(|error| match error {
                DecompressError::TooLarge => Status::new(
                    Code::ResourceExhausted,
                    format!("the message is larger than the limit of {limit} bytes after decompression; send smaller batches or raise `max_request_size`"),
                ),
                DecompressError::Busy => no_memory(),
                DecompressError::Corrupt(why) => Status::new(
                    Code::InvalidArgument,
                    format!("the message is not valid {}: {why}", compression.header().unwrap_or("data")),
                ),
            })?
        } else {
            message
        };
        self.take(signal, Encoding::Protobuf, message).await
    }

    /// Hands a request to the pipeline, and says what its sender must know.
    async fn take(&self, signal: Signal, encoding: Encoding, bytes: Bytes) -> Result<Option<PartialSuccess>, Status> {
        let payload = otlp::accept(signal, encoding, bytes).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("not a readable request for {}: {error}", signal.name()))
        })?;
        if payload.is_empty() {
            return Ok(None);
        }
        let sent = payload.len() as u64;
        match self.sink.offer(payload).await {
            Answer::Stored => Ok(None),
            Answer::Refused { records, why } => Ok(Some(PartialSuccess { rejected: records.min(sent), message: why })),
            Answer::Later { after, why } => {
                Err(Status { code: Code::Unavailable, message: why, retry_after: Some(after) })
            }
        }
    }
}

/// What a sender hears while there is no memory for its call: come again.
fn no_memory() -> Status {
    let message = grpc::FrameError::Busy.to_string();
    Status { code: Code::Unavailable, message, retry_after: Some(Duration::from_secs(1)) }
}

/// The token of an `Authorization: Bearer` header; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(grpc::GRPC_TYPE.as_bytes()))
}

/// The answer to what came to a path of gRPC but cannot be answered as gRPC.
fn not_grpc(request: &Request) -> Option<Response> {
    let refuse =
        |status, message: &str| Some(refusal(status, Encoding::Json, &Status::new(Code::InvalidArgument, message)));
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "this is a path of gRPC; call it with POST");
    }
    if request.version() < Version::HTTP_2 {
        return refuse(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "gRPC needs HTTP/2; over HTTP/1.1 send to /v1/metrics, /v1/logs or /v1/traces",
        );
    }
    let essence = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    match essence.map(str::trim) {
        Some(grpc::GRPC_TYPE | "application/grpc+proto") => None,
        _ => refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content-type of gRPC calls must be `application/grpc` or `application/grpc+proto`",
        ),
    }
}

/// The answer to a path where nothing is, in the words of whoever asked.
async fn unknown_path(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(100).collect();
    if is_grpc(request.headers()) {
        let message = format!("there is no {path}; this server has the OTLP services for metrics, logs and traces");
        return grpc::failure(&Status::new(Code::Unimplemented, message));
    }
    let message = format!("there is no {path}; send to /v1/metrics, /v1/logs or /v1/traces");
    let encoding = encoding_of(request.headers()).unwrap_or(Encoding::Json);
    refusal(StatusCode::NOT_FOUND, encoding, &Status::new(Code::NotFound, message))
}

/// An empty response message: full success.
fn empty(encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::Protobuf => Bytes::new(),
        Encoding::Json => Bytes::from_static(b"{}"),
    }
}

fn answer(status: StatusCode, encoding: Encoding, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(encoding)));
    response
}

fn refusal(http: StatusCode, encoding: Encoding, status: &Status) -> Response {
    answer(http, encoding, status.encode(encoding).into())
}

/// 503 with the delay in whole seconds, at least one: `Retry-After: 0` would invite a storm.
fn busy(encoding: Encoding, status: &Status) -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, encoding, status);
    let delay = status.retry_after.unwrap_or_default();
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}
