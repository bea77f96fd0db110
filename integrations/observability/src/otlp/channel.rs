//! Unary gRPC calls of a client, over the HTTP client that the other exporters use too: the same
//! TLS options and proxy, and messages that are sent without being copied.

use std::collections::VecDeque;
use std::error::Error as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use weir_net::compress::DecompressError;
use weir_net::{Client, Compression, HttpOptions, TransportError, TransportKind};
use weir_pipeline::Fault;

use super::grpc::{self, FrameError};
use super::status::Status;

/// A client that speaks HTTP/2 from the first byte, as gRPC servers without TLS expect.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    client: reqwest::Client,
}

/// What came back from a call.
#[derive(Debug)]
pub(super) struct CallAnswer {
    /// The HTTP status; whatever is not 200 did not come from a gRPC server.
    pub http: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// The status of the call, if the answer had one.
    pub status: Option<Status>,
    /// The message, empty if there was none.
    pub message: Bytes,
}

/// Largest answer that is read (OTLP specification, "response size": 4 MiB).
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

impl Channel {
    /// A client with these options.
    pub(super) fn new(options: &HttpOptions) -> Result<Self, Fault> {
        // It checks every option, names the wrong one, and sets up TLS for the whole process.
        Client::new(options).map_err(Fault::configuration)?;
        let timeout = Duration::from(options.timeout);
        let mut builder = reqwest::Client::builder()
            .http2_prior_knowledge()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(50))
            .danger_accept_invalid_certs(options.tls_skip_verify);
        if let Some(file) = &options.ca_file {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&read(file)?).map_err(unusable)?);
        }
        if let (Some(certificate), Some(key)) = (&options.client_certificate_file, &options.client_key_file) {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(unusable)?);
        }
        if let Some(proxy) = &options.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(unusable)?);
        }
        Ok(Self { client: builder.build().map_err(unusable)? })
    }

    /// Calls `url` with one message, given in pieces.
    pub(super) async fn call(
        &self,
        url: &reqwest::Url,
        mut headers: HeaderMap,
        pieces: Vec<Bytes>,
        compression: Compression,
    ) -> Result<CallAnswer, TransportError> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(grpc::GRPC_TYPE));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let pieces = match compression.header() {
            None => pieces,
            Some(name) => {
                headers.insert(grpc::GRPC_ENCODING, HeaderValue::from_static(name));
                let whole = compression.compress(pieces.concat().into());
                vec![whole.map_err(|error| other(format!("the request cannot be compressed: {error}")))?]
            }
        };
        let body = Pieces::message(pieces, compression != Compression::None).ok_or_else(|| {
            other("the request is larger than the 4 GiB that gRPC can carry; lower `batch_bytes`".to_owned())
        })?;
        let request = self.client.post(url.clone()).headers(headers).body(reqwest::Body::wrap(body));
        let response = request.send().await.map_err(|error| classify(&error, url))?;
        let (parts, body) = http::Response::from(response).into_parts();
        if !is_grpc(&parts.headers) {
            // What another kind of server says is of no use here, its status is.
            return Ok(CallAnswer { http: parts.status, headers: parts.headers, status: None, message: Bytes::new() });
        }
        let unary = grpc::read_unary(body, ANSWER_LIMIT_BYTES).await.map_err(|error| unreadable(&error, url))?;
        let status = grpc::status_of(&parts.headers, &unary.trailers);
        let message = match unary.message {
            None => Bytes::new(),
            Some((false, message)) => message,
            Some((true, message)) => decompress(&parts.headers, message)?,
        };
        Ok(CallAnswer { http: parts.status, headers: parts.headers, status, message })
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(grpc::GRPC_TYPE.as_bytes()))
}

fn decompress(headers: &HeaderMap, message: Bytes) -> Result<Bytes, TransportError> {
    let compression = grpc::message_compression(headers)
        .ok_or_else(|| other("the answer is compressed in a way that was not asked for".to_owned()))?;
    compression.decompress(message, ANSWER_LIMIT_BYTES).map_err(|error| match error {
        DecompressError::TooLarge => too_large(),
        DecompressError::Corrupt(why) => other(format!("the answer cannot be decompressed: {why}")),
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|error| Fault::configuration(format!("{}: {error}", file.display())))
}

fn unusable(error: reqwest::Error) -> Fault {
    Fault::configuration(format!("cannot prepare the gRPC client: {}", causes(&error)))
}

fn other(message: String) -> TransportError {
    TransportError { kind: TransportKind::Other, message }
}

fn too_large() -> TransportError {
    let message = format!("the answer is larger than {ANSWER_LIMIT_BYTES} bytes: is the address right?");
    TransportError { kind: TransportKind::TooLarge, message }
}

/// The body of a call: a prefix and the pieces of a message, each sent as it is.
#[derive(Debug)]
struct Pieces {
    rest: VecDeque<Bytes>,
}

impl Pieces {
    fn message(pieces: Vec<Bytes>, compressed: bool) -> Option<Self> {
        let prefix = grpc::prefix(pieces.iter().map(Bytes::len).sum(), compressed)?;
        let mut rest: VecDeque<Bytes> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        rest.push_front(prefix);
        Some(Self { rest })
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.rest.pop_front().map(|piece| Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.iter().map(|piece| piece.len() as u64).sum())
    }
}

fn place(url: &reqwest::Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// All causes of an error in one line. The error's own text is left out: it quotes the address.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() { "the request failed".to_owned() } else { texts.join(": ") }
}

fn io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}

/// Why no answer came, in the words that the HTTP exporters use, and with gRPC's own traps.
fn classify(error: &reqwest::Error, url: &reqwest::Url) -> TransportError {
    let (place, causes, io) = (place(url), causes(error), io_kind(error));
    let lower = causes.to_lowercase();
    let (kind, message) = if error.is_timeout() {
        (
            TransportKind::TimedOut,
            format!("no answer from {place} within the timeout: is it overloaded, or does a firewall drop packets?"),
        )
    } else if lower.contains("dns") || lower.contains("lookup address") {
        (TransportKind::UnknownHost, format!("the name of {place} cannot be resolved: is it spelled right?"))
    } else if io == Some(std::io::ErrorKind::ConnectionRefused) {
        (
            TransportKind::Refused,
            format!("{place} refuses the connection: is the server running, and is the port right?"),
        )
    } else if lower.contains("certificate")
        || lower.contains("tls")
        || lower.contains("handshake")
        || lower.contains("corrupt message")
    {
        (
            TransportKind::Tls,
            format!(
                "TLS with {place} failed: {causes}; does the server speak https, and is its certificate trusted (see `ca_file`)?"
            ),
        )
    } else if error.is_connect() {
        (TransportKind::Other, format!("cannot connect to {place}: {causes}"))
    } else {
        (TransportKind::Closed, broken(&place, &causes))
    };
    TransportError { kind, message }
}

fn broken(place: &str, causes: &str) -> String {
    format!("the call to {place} broke off: {causes}; does a gRPC server listen at this port (usually 4317)?")
}

/// An answer that began but could not be read.
fn unreadable(error: &FrameError, url: &reqwest::Url) -> TransportError {
    match error {
        FrameError::TooLarge { .. } => too_large(),
        FrameError::Broken(_) => TransportError {
            kind: TransportKind::Closed,
            message: format!("{} closed the connection before its answer was complete", place(url)),
        },
        error => TransportError { kind: TransportKind::Other, message: broken(&place(url), &error.to_string()) },
    }
}
