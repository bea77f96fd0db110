//! gRPC over HTTP/2 for unary calls: message framing, status and the answers of a server.
//!
//! Source: grpc `doc/PROTOCOL-HTTP2.md`. Messages stay bytes here, so a stub generator would bring
//! nothing: a call is a five-byte prefix, the message, and a status in the trailers.

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use weir_net::Compression;

use super::status::{Code, Status};

/// The content type of gRPC; `+proto` may follow.
pub(super) const GRPC_TYPE: &str = "application/grpc";

/// The name of the message compression of a request or answer.
pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// The compressions that the sender of this header understands.
pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Bytes before each message: a compression flag and the length, big-endian.
const PREFIX_BYTES: usize = 5;

/// What a unary call carries in one direction.
#[derive(Debug, Default)]
pub(super) struct Unary {
    /// The message, if there was one, and whether it is compressed.
    pub message: Option<(bool, Bytes)>,
    /// What followed the body.
    pub trailers: HeaderMap,
}

/// Why the body of a unary call could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// Refused by its announced length, before the rest of it is read.
    #[error(
        "the message of {length} bytes is larger than the limit of {limit} bytes; send smaller batches or raise `max_request_size`"
    )]
    TooLarge { length: usize, limit: usize },
    /// It ends too early.
    #[error("the message breaks off: {got} of {announced} bytes came, its prefix of 5 bytes included")]
    Truncated { got: usize, announced: usize },
    /// A unary call has one message.
    #[error("{0} bytes or more follow the message; a unary call has exactly one message")]
    Trailing(usize),
    /// The flag byte is neither 0 nor 1.
    #[error("the message prefix starts with {0:#04x}, which is no compression flag (0 or 1)")]
    Flag(u8),
    /// There is no memory for it now.
    #[error("there is no memory for the request now; send it again in a moment, or raise `limits.memory`")]
    Busy,
    /// The connection broke off.
    #[error("the call broke off: {0}")]
    Broken(String),
}

/// The length that a message's prefix announces, once all of the prefix is there.
fn announced(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(1..PREFIX_BYTES)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

/// Reads the one message of a unary call, at most `limit` bytes of it as sent, and the trailers.
pub(super) async fn read_unary<B>(mut body: B, limit: usize) -> Result<Unary, FrameError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (mut whole, mut length, mut trailers) = (BytesMut::new(), None, HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FrameError::Broken(error.to_string()))?;
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                trailers = frame.into_trailers().unwrap_or_default();
                continue;
            }
        };
        whole.extend_from_slice(&data);
        if length.is_none()
            && let Some(found) = announced(&whole)
        {
            if found > limit {
                return Err(FrameError::TooLarge { length: found, limit });
            }
            let room = (found + PREFIX_BYTES).saturating_sub(whole.len());
            if !weir_net::memory::take(room) {
                return Err(FrameError::Busy);
            }
            whole.reserve(room);
            length = Some(found);
        }
        if let Some(length) = length
            && whole.len() > length + PREFIX_BYTES
        {
            return Err(FrameError::Trailing(whole.len() - length - PREFIX_BYTES));
        }
    }
    if whole.is_empty() {
        return Ok(Unary { message: None, trailers });
    }
    let end = length.map_or(PREFIX_BYTES, |length| length + PREFIX_BYTES);
    if whole.len() < end {
        return Err(FrameError::Truncated { got: whole.len(), announced: end });
    }
    let compressed = match whole.first() {
        Some(0) => false,
        Some(1) => true,
        other => return Err(FrameError::Flag(other.copied().unwrap_or_default())),
    };
    whole.advance(PREFIX_BYTES);
    Ok(Unary { message: Some((compressed, whole.freeze())), trailers })
}

/// The compression that `grpc-encoding` names; `None` if it is not supported.
pub(super) fn message_compression(headers: &HeaderMap) -> Option<Compression> {
    headers.get(GRPC_ENCODING).map_or(Some(Compression::None), |value| Compression::from_header(value.to_str().ok()?))
}

/// The prefix of a message of `length` bytes; `None` beyond the 4 GiB that gRPC can say.
pub(super) fn prefix(length: usize, compressed: bool) -> Option<Bytes> {
    let length = u32::try_from(length).ok()?.to_be_bytes();
    Some(Bytes::from([&[u8::from(compressed)][..], &length].concat()))
}

/// The answer of a server to a call that went well. An empty message is a valid one.
pub(super) fn success(message: &[u8]) -> Response {
    // Answers are at most a status line long, so their length always has a prefix.
    let body = match prefix(message.len(), false) {
        Some(prefix) if message.is_empty() => prefix,
        Some(prefix) => [&prefix[..], message].concat().into(),
        None => Bytes::from_static(&[0; PREFIX_BYTES]),
    };
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC_TYPE));
    response
}

/// The answer of a server to a call that failed ("Trailers-Only").
pub(super) fn failure(status: &Status) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC_TYPE));
    headers.insert(GRPC_STATUS, HeaderValue::from(status.code.number()));
    // Percent-encoded text is always a valid header; if it ever were not, the code still arrives.
    if let Ok(message) = HeaderValue::from_str(&percent_encode(&status.message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    if status.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(status.encode(weir_model::Encoding::Protobuf));
        if let Ok(details) = HeaderValue::from_str(&details) {
            headers.insert(GRPC_DETAILS, details);
        }
    }
    response
}

/// The status in the trailers of a call, or in its headers if there are no trailers.
pub(super) fn status_of(headers: &HeaderMap, trailers: &HeaderMap) -> Option<Status> {
    let place = if trailers.contains_key(GRPC_STATUS) { trailers } else { headers };
    let text = |name| place.get(name).and_then(|value| value.to_str().ok());
    let code = text(GRPC_STATUS)?.trim().parse().map_or(Code::Unknown, Code::of_number);
    let message = text(GRPC_MESSAGE).map(percent_decode).unwrap_or_default();
    let details = text(GRPC_DETAILS).and_then(|value| {
        // Both forms are allowed: with and without padding.
        let bytes = STANDARD_NO_PAD.decode(value).or_else(|_| STANDARD.decode(value)).ok()?;
        Status::of_protobuf(&bytes)
    });
    Some(Status { code, message, retry_after: details.and_then(|details| details.retry_after) })
}

/// `grpc-message`: everything but printable ASCII without `%` becomes `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The reverse; what is no escape stays as it is, as the protocol asks for.
pub(super) fn percent_decode(text: &str) -> String {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        match hexadecimal(after) {
            Some(value) if byte == b'%' => {
                out.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte that two hexadecimal digits at the start of `text` say.
fn hexadecimal(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn read(bytes: &'static [u8], limit: usize) -> Result<Unary, FrameError> {
        read_unary(Full::new(Bytes::from_static(bytes)), limit).await
    }

    #[tokio::test]
    async fn a_message_is_read_whatever_the_frames_are() {
        // One byte per frame: even the prefix comes in pieces.
        let mut frames = std::collections::VecDeque::from(vec![0, 0, 0, 0, 3, b'a', b'b', b'c']);
        let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |_| {
            let next =
                frames.pop_front().map(|byte| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![byte]))));
            std::task::Poll::Ready(next)
        }));
        let unary = read_unary(body, 3).await.unwrap();
        assert_eq!(unary.message, Some((false, Bytes::from_static(b"abc"))));
    }

    #[tokio::test]
    async fn wrong_lengths_are_named() {
        assert_eq!(read(b"\0\0\0\0\x04abc", 9).await.unwrap_err(), FrameError::Truncated { got: 8, announced: 9 });
        assert_eq!(read(b"\0\0\0", 9).await.unwrap_err(), FrameError::Truncated { got: 3, announced: 5 });
        assert_eq!(read(b"\0\0\0\0\x02abc", 9).await.unwrap_err(), FrameError::Trailing(1));
        assert_eq!(read(b"\x07\0\0\0\x03abc", 9).await.unwrap_err(), FrameError::Flag(7));
        let largest = FrameError::TooLarge { length: 0xffff_ffff, limit: 9 };
        assert_eq!(read(b"\0\xff\xff\xff\xffabc", 9).await.unwrap_err(), largest);
        assert_eq!(read(b"", 9).await.unwrap().message, None);
        assert_eq!(read(b"\x01\0\0\0\x00", 9).await.unwrap().message, Some((true, Bytes::new())));
    }

    #[test]
    fn a_failure_carries_its_status_to_the_client() {
        let status = Status {
            code: Code::Unavailable,
            message: "100 % full\n\u{fc}ber".into(),
            retry_after: Some(Duration::from_millis(2500)),
        };
        let response = failure(&status);
        assert_eq!(status_of(response.headers(), &HeaderMap::new()), Some(status));
    }

    #[test]
    fn what_is_no_escape_stays_as_it_is() {
        assert_eq!(percent_decode("100%25 of 5% and %4"), "100% of 5% and %4");
        assert_eq!(percent_decode("%zz%+5%"), "%zz%+5%");
    }
}
