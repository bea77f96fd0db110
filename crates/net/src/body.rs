//! Request bodies, bounded before and after decompression.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::CONTENT_ENCODING};
use http_body_util::BodyExt;

use crate::compress::{Compression, DecompressError};
use crate::memory;

/// Why a request body was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the limit, before or after decompression.
    #[error("the body is larger than the limit of {limit} bytes{}; send smaller batches or raise `max_request_size`",
        if *.decompressed { " after decompression" } else { "" })]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// Whether it was within the limit before decompression.
        decompressed: bool,
    },
    /// The `Content-Encoding` is not one of those that are supported.
    #[error("content-encoding `{0}` is not supported; use gzip, zstd or none")]
    Encoding(String),
    /// The bytes are not what `Content-Encoding` says.
    #[error("the body is not valid {0}: {1}")]
    Corrupt(&'static str, String),
    /// There is no memory for it now.
    #[error("there is no memory for the request now; send it again in a moment, or raise `limits.memory`")]
    Busy,
    /// The connection broke off.
    #[error("the body broke off: {0}")]
    Broken(String),
}

impl BodyError {
    /// The HTTP status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BodyError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            BodyError::Corrupt(..) | BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request body of at most `limit` bytes, before and after decompression, within the memory of
/// the request ([`crate::memory::within`]).
///
/// # Errors
/// [`BodyError`], which knows its HTTP status.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, BodyError> {
    let encoding = headers.get(CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    let compression =
        Compression::from_header(encoding).ok_or_else(|| BodyError::Encoding(encoding.chars().take(40).collect()))?;
    let announced = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    let too_large = BodyError::TooLarge { limit, decompressed: false };
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large);
    }
    let raw = collect(body, announced, limit).await?;
    compression.decompress(raw, limit).map_err(|error| match error {
        DecompressError::TooLarge => BodyError::TooLarge { limit, decompressed: true },
        DecompressError::Busy => BodyError::Busy,
        DecompressError::Corrupt(why) => BodyError::Corrupt(compression.header().unwrap_or("data"), why),
    })
}

/// All frames as one buffer, allocated once when the length was announced.
async fn collect(mut body: Body, announced: Option<usize>, limit: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.is_empty() {
            if announced.is_none_or(|length| length <= data.len()) && http_body::Body::is_end_stream(&body) {
                // It lies in the connection's buffer already.
                return if memory::take(data.len()) { Ok(data) } else { Err(BodyError::Busy) };
            }
            let room = announced.unwrap_or(data.len() * 2);
            if !memory::take(room) {
                return Err(BodyError::Busy);
            }
            whole.reserve(room);
        }
        if whole.len() + data.len() > limit {
            return Err(BodyError::TooLarge { limit, decompressed: false });
        }
        // A vector that is full doubles.
        if whole.capacity() - whole.len() < data.len() && !memory::take(whole.capacity().max(data.len())) {
            return Err(BodyError::Busy);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
