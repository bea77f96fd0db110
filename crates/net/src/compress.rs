//! Compression of HTTP bodies, bounded when it grows again.

use std::io::{self, Read, Write};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::memory;
use crate::pieces::Pieces;

/// The least that is allocated at once.
const PIECE_BYTES: usize = 4 << 10;

/// How a body is compressed (`Content-Encoding`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The `Content-Encoding` value; `None` where none is sent.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }

    /// The compression that a `Content-Encoding` value names; `None` if it is not supported.
    pub fn from_header(value: &str) -> Option<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Compression::None),
            "gzip" | "x-gzip" => Some(Compression::Gzip),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// The body, compressed.
    ///
    /// # Errors
    /// If the library runs out of memory.
    pub fn compress(self, body: Bytes) -> io::Result<Bytes> {
        match self {
            Compression::None => Ok(body),
            Compression::Gzip => {
                let room = Vec::with_capacity(body.len() / 4 + 64);
                let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
                encoder.write_all(&body)?;
                Ok(encoder.finish()?.into())
            }
            Compression::Zstd => Ok(zstd::bulk::compress(&body, 1)?.into()),
        }
    }

    /// The body, compressed; what is not stays in its pieces.
    ///
    /// # Errors
    /// As [`Compression::compress`].
    pub fn compress_pieces(self, body: Pieces) -> io::Result<Pieces> {
        match self {
            Compression::None => Ok(body),
            Compression::Gzip | Compression::Zstd => self.compress(body.whole()).map(Pieces::from),
        }
    }

    /// The body as it was before compression, at most `limit` bytes of it, within the memory of the
    /// request that is served, if one is.
    ///
    /// # Errors
    /// [`DecompressError::TooLarge`] beyond `limit`; [`DecompressError::Busy`]; [`DecompressError::Corrupt`] if the bytes are
    /// not what the header says.
    pub fn decompress(self, body: Bytes, limit: usize) -> Result<Bytes, DecompressError> {
        let read = |reader: &mut dyn Read| {
            let mut out = Vec::new();
            loop {
                // Room is taken before it is allocated: 4 times the body first, then as much again.
                let more = out.len().max(body.len().saturating_mul(4)).clamp(PIECE_BYTES, limit.max(PIECE_BYTES));
                if !memory::take(more) {
                    return Err(DecompressError::Busy);
                }
                out.reserve_exact(more);
                // One byte more than allowed tells "exactly full" from "too large".
                let bound = more.min((limit + 1).saturating_sub(out.len()));
                let bound = u64::try_from(bound).unwrap_or(u64::MAX);
                let read = reader.take(bound).read_to_end(&mut out);
                let read = read.map_err(|e| DecompressError::Corrupt(e.to_string()))?;
                match () {
                    () if out.len() > limit => return Err(DecompressError::TooLarge),
                    () if (read as u64) < bound => return Ok(out.into()),
                    () => {}
                }
            }
        };
        match self {
            Compression::None if body.len() > limit => Err(DecompressError::TooLarge),
            Compression::None => Ok(body),
            Compression::Gzip => read(&mut flate2::read::MultiGzDecoder::new(&body[..])),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..])
                    .map_err(|e| DecompressError::Corrupt(e.to_string()))?;
                // 8 MiB of window: what RFC 8878 §3.1.1.1.2 asks decoders to support at least.
                decoder.window_log_max(23).map_err(|e| DecompressError::Corrupt(e.to_string()))?;
                read(&mut decoder)
            }
        }
    }
}

/// Why a body could not be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// More bytes came out than the limit allows.
    #[error("it is larger than the limit after decompression")]
    TooLarge,
    /// There is no memory for it now.
    #[error("there is no memory for it now")]
    Busy,
    /// The bytes are not what the header says.
    #[error("it cannot be decompressed: {0}")]
    Corrupt(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let body = Bytes::from(b"telemetry ".repeat(1000));
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let small = compression.compress(body.clone()).unwrap();
            assert_eq!(compression.decompress(small, body.len()).unwrap(), body);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = Bytes::from(vec![0_u8; 8 << 20]);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let small = compression.compress(bomb.clone()).unwrap();
            assert_eq!(compression.decompress(small, 1 << 20), Err(DecompressError::TooLarge));
        }
    }

    #[test]
    fn garbage_is_named_as_such() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let result = compression.decompress(Bytes::from_static(b"not compressed at all"), 1000);
            assert!(matches!(result, Err(DecompressError::Corrupt(_))), "{result:?}");
        }
    }
}
