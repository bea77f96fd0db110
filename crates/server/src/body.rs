//! Request bodies, bounded.

use axum::extract::Request;
use bytes::Bytes;
use weir_net::read_body;

use crate::error::ApiError;

/// The largest body of ingestion, before and after decompression.
pub const INGEST_LIMIT_BYTES: usize = 16 << 20;

/// The largest body of everything else.
pub const SMALL_LIMIT_BYTES: usize = 1 << 20;

/// The largest body of whoever has shown no key yet: many of them at once must not take the memory.
pub const PUBLIC_LIMIT_BYTES: usize = 64 << 10;

/// The body of a request.
///
/// # Errors
/// 413 above `limit` bytes, 415 for an unknown encoding, 400 for one that is broken.
pub async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    Ok(read_body(&parts.headers, body, limit).await?)
}
