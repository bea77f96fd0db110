//! Unary gRPC calls of a client, over the HTTP client that the other exporters use too: the same
//! TLS options and proxy, and messages that are sent without being copied.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use weir_net::compress::DecompressError;
use weir_net::{Client, Compression, HttpOptions, Pieces, TransportError, TransportKind, answer_note};
use weir_pipeline::Fault;

use super::grpc::{self, FrameError};
use super::status::{Code, Status};

/// A client that speaks HTTP/2 from the first byte, as gRPC servers without TLS expect.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    client: Client,
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
        Client::http2(options).map(|client| Self { client }).map_err(Fault::configuration)
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
        let body = message(pieces, compression != Compression::None).ok_or_else(|| {
            other("the request is larger than the 4 GiB that gRPC can carry; lower `batch_bytes`".to_owned())
        })?;
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.as_str().parse().map_err(|_| other("the address is not one of HTTP".to_owned()))?;
        *request.headers_mut() = headers;
        let response = self.client.begin(request).await.map_err(with_hint)?;
        let (parts, body) = http::Response::from(response).into_parts();
        if !is_grpc(&parts.headers) {
            // What another kind of server says is of no use here, its status is.
            return Ok(CallAnswer { http: parts.status, headers: parts.headers, status: None, message: Bytes::new() });
        }
        let unary = grpc::read_unary(body, ANSWER_LIMIT_BYTES).await.map_err(|error| unreadable(&error, url))?;
        let status = grpc::status_of(&parts.headers, &unary.trailers);
        if let Some(status) = status.as_ref().filter(|status| status.code != Code::Ok) {
            answer_note::call_failed(parts.status, status.code.to_string(), &status.message);
        }
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
        DecompressError::Busy => other("there is no memory for the answer".to_owned()),
        DecompressError::Corrupt(why) => other(format!("the answer cannot be decompressed: {why}")),
    })
}

fn other(message: String) -> TransportError {
    TransportError { kind: TransportKind::Other, message }
}

fn too_large() -> TransportError {
    let message = format!("the answer is larger than {ANSWER_LIMIT_BYTES} bytes: is the address right?");
    TransportError { kind: TransportKind::TooLarge, message }
}

/// The body of a call: a prefix and the pieces of a message.
fn message(pieces: Vec<Bytes>, compressed: bool) -> Option<Pieces> {
    let prefix = grpc::prefix(pieces.iter().map(Bytes::len).sum(), compressed)?;
    Some(Pieces::new(std::iter::once(prefix).chain(pieces)))
}

fn place(url: &reqwest::Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// What another kind of server does to a call says little about why.
fn with_hint(error: TransportError) -> TransportError {
    match error.kind {
        TransportKind::Closed | TransportKind::Other => {
            TransportError { kind: TransportKind::Closed, message: hint(&error.message) }
        }
        _ => error,
    }
}

fn hint(what: &str) -> String {
    format!("{what}; does a gRPC server listen at this port (usually 4317)?")
}

/// An answer that began but could not be read.
fn unreadable(error: &FrameError, url: &reqwest::Url) -> TransportError {
    match error {
        FrameError::TooLarge { .. } => too_large(),
        FrameError::Broken(_) => TransportError {
            kind: TransportKind::Closed,
            message: format!("{} closed the connection before its answer was complete", place(url)),
        },
        error => TransportError {
            kind: TransportKind::Other,
            message: hint(&format!("the call to {} broke off: {error}", place(url))),
        },
    }
}
