//! Encryption at rest: AES-256-GCM (NIST SP 800-38D).
//!
//! GCM must never see one nonce twice under one key. A queue cannot promise that by counting: after
//! a crash it may write other bytes to the place of bytes that were lost, several queues may share a
//! key file, and a folder may be restored from a backup. So every record has a key of its own:
//! HKDF-SHA-256 (RFC 5869) of the key file with 16 random bytes that stand before the record. With a
//! key that is used once, the nonce is constant. Two records with the same random bytes are expected
//! after 2^64 records.
//!
//! Authenticated besides the payload: sequence, time, count, signal, encoding and origin. Not hidden:
//! these, and the lengths.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// How much longer an encrypted payload is.
pub const OVERHEAD_BYTES: usize = SALT_BYTES + TAG_BYTES;

/// Names a key without giving it away; all zero: not encrypted.
pub type KeyId = [u8; 8];

/// A key of 256 bits that encrypts queues.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; KEY_BYTES],
    random: SystemRandom,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self { bytes, random: SystemRandom::new() }
    }

    /// Reads a key file: exactly 32 random bytes, nothing else.
    ///
    /// # Errors
    /// If it cannot be read or has another length.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let length = bytes.len();
        let bytes = bytes.try_into().map_err(|_| {
            let what = format!(
                "{} has {length} bytes, a key has exactly 32; make one with `head -c 32 /dev/urandom > FILE`",
                path.display()
            );
            io::Error::new(ErrorKind::InvalidData, what)
        })?;
        Ok(Self::new(bytes))
    }

    fn derive(&self, salt: &[u8], purpose: &[u8]) -> io::Result<UnboundKey> {
        let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(&self.bytes);
        let purpose = [purpose];
        let derived = pseudorandom.expand(&purpose, &AES_256_GCM).map_err(|_| failed())?;
        Ok(UnboundKey::from(derived))
    }

    /// The name of this key.
    ///
    /// # Errors
    /// None that is known.
    pub fn id(&self) -> io::Result<KeyId> {
        // The tag of nothing under a derived key: tells keys apart and nothing about them.
        let key = LessSafeKey::new(self.derive(&[], b"weir queue key id 1")?);
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut []).map_err(|_| failed())?;
        tag.as_ref().first_chunk().copied().ok_or_else(failed)
    }

    fn for_record(&self, salt: &[u8]) -> io::Result<LessSafeKey> {
        Ok(LessSafeKey::new(self.derive(salt, b"weir queue record 1")?))
    }

    /// Encrypts a payload.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn seal(&self, authenticated: &[u8], plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt).map_err(|_| failed())?;
        let mut stored = Vec::with_capacity(plain.len() + OVERHEAD_BYTES);
        stored.extend_from_slice(&salt);
        stored.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let hidden = stored.get_mut(SALT_BYTES..).unwrap_or_default();
        let key = self.for_record(&salt)?;
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(authenticated), hidden).map_err(|_| failed())?;
        stored.extend_from_slice(tag.as_ref());
        Ok(stored)
    }

    /// Decrypts a payload; `None` if it is not what was encrypted with this key.
    pub fn open(&self, authenticated: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (salt, hidden) = stored.split_at_checked(SALT_BYTES)?;
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let mut plain = hidden.to_vec();
        let length = self.for_record(salt).ok()?.open_in_place(nonce, Aad::from(authenticated), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

fn failed() -> io::Error {
    io::Error::other("the cryptographic library failed; no random bytes from the system?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_header_open_what_was_sealed_and_no_bit_may_change() {
        let key = Key::new([7; 32]);
        let stored = key.seal(b"header", b"payload").unwrap();
        assert_eq!(stored.len(), 7 + OVERHEAD_BYTES);
        assert!(!stored.windows(7).any(|window| window == b"payload"));
        assert_eq!(key.open(b"header", &stored).unwrap(), b"payload");
        assert_eq!(key.open(b"heaber", &stored), None);
        assert_eq!(Key::new([8; 32]).open(b"header", &stored), None);
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"header", &changed), None);
        }
        assert_eq!(key.open(b"header", &[]), None);
        assert_ne!(key.seal(b"header", b"payload").unwrap(), stored, "every record has its own key");
        assert_ne!(key.id().unwrap(), Key::new([8; 32]).id().unwrap());
        assert_eq!(format!("{key:?}"), "Key");
    }

    #[test]
    fn a_key_file_of_another_length_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [1; 33]).unwrap();
        let error = Key::read(&path).unwrap_err().to_string();
        assert!(error.contains("33 bytes") && error.contains("head -c 32"), "{error}");
        std::fs::write(&path, [1; 32]).unwrap();
        assert_eq!(Key::read(&path).unwrap().id().unwrap(), Key::new([1; 32]).id().unwrap());
    }
}
