//! Compressed files, read from an offset on.

use std::fs::File;
use std::io::{self, Read as _};

use super::identity::Gzip;

/// Bytes of an archive that are passed over in one turn, on the way to its position.
const SKIP_BYTES: u64 = 16 << 20;

/// A compressed file; it can be read forwards only.
pub struct Archive {
    /// The file itself.
    pub file: File,
    /// Reads what it holds.
    pub decoder: Box<Gzip>,
    /// Decompressed bytes so far.
    pub position: u64,
}

impl Archive {
    /// Reads at an offset, which is not before the position. Passing over what lies between takes
    /// several calls.
    pub fn read_at(&mut self, offset: u64, scratch: &mut [u8]) -> io::Result<Filled> {
        let mut passed = 0;
        while self.position < offset {
            if passed >= SKIP_BYTES {
                return Ok(Filled::Skipped);
            }
            let most = usize::try_from(offset - self.position).unwrap_or(usize::MAX).min(scratch.len());
            let read = self.decoder.read(scratch.get_mut(..most).unwrap_or_default())?;
            if read == 0 {
                return Ok(Filled::Bytes(0));
            }
            self.position += read as u64;
            passed += read as u64;
        }
        // Whole chunks, so that units of two bytes stay together.
        let mut filled = 0;
        while let Some(rest) = scratch.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = self.decoder.read(rest)?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        self.position += filled as u64;
        Ok(Filled::Bytes(filled))
    }
}

/// What one call brought.
pub enum Filled {
    /// So many bytes; 0 = the end.
    Bytes(usize),
    /// Nothing yet: the offset is further on.
    Skipped,
}
