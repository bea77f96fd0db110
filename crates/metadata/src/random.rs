//! Random texts from the system's source, and the hash under which they are stored.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::MetadataError;

/// Crockford's base 32 (crockford.com/base32.html): no I, L, O, U.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn bytes<const N: usize>() -> Result<[u8; N], MetadataError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| MetadataError::Unavailable { reason: format!("the system gives no random bytes: {error}") })?;
    Ok(bytes)
}

/// 32 random bytes as 43 characters of base64url.
pub(crate) fn secret() -> Result<String, MetadataError> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<32>()?))
}

/// `N` random characters of base 32, 5 bits each.
pub(crate) fn base32<const N: usize>() -> Result<String, MetadataError> {
    Ok(bytes::<N>()?.iter().filter_map(|byte| BASE32.get(usize::from(byte & 31))).copied().map(char::from).collect())
}

/// What a person typed, as base 32 without dashes and blanks: any case, O for 0, I and L for 1.
/// `None` when it cannot be `characters` of base 32.
pub(crate) fn normal_base32(text: &str, characters: usize) -> Option<String> {
    let mut normal = String::with_capacity(characters);
    for typed in text.chars().filter(|typed| *typed != '-' && !typed.is_whitespace()) {
        let meant = match typed.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        };
        let known = u8::try_from(meant).is_ok_and(|byte| BASE32.contains(&byte));
        if !known || normal.len() == characters {
            return None;
        }
        normal.push(meant);
    }
    (normal.len() == characters).then_some(normal)
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> Result<String, MetadataError> {
    let random = u128::from_be_bytes(bytes::<16>()?);
    let cleared = random & !(0xf << 76) & !(0b11 << 62);
    let hex = format!("{:032x}", cleared | (4 << 76) | (0b10 << 62));
    let mut text = String::with_capacity(36);
    for (position, digit) in hex.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    Ok(text)
}

/// SHA-256.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// SHA-256 in hexadecimal, as it is stored.
pub(crate) fn hash(text: &str) -> String {
    digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_the_version_and_variant_of_rfc_9562() {
        let uuid = uuid().expect("random");
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4", "{uuid}");
        assert!(["8", "9", "a", "b"].contains(&&uuid[19..20]), "{uuid}");
        assert_eq!(uuid.matches('-').count(), 4);
    }

    #[test]
    fn base32_takes_what_people_type() {
        assert_eq!(normal_base32("o123-ilab-CDEF-ghjk", 16).as_deref(), Some("012311ABCDEFGHJK"));
        assert_eq!(normal_base32(" 0123 ILAB CDEF GHJK\n", 16).as_deref(), Some("012311ABCDEFGHJK"));
        for wrong in ["", "0123-4567-89AB-CDE", "0123-4567-89AB-CDEFG", "U123-4567-89AB-CDEF", "é123-4567-89AB-CDEF"] {
            assert_eq!(normal_base32(wrong, 16), None, "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-4, example "abc".
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn random_texts_have_their_length_and_differ() {
        let (one, two) = (secret().expect("random"), secret().expect("random"));
        assert!(one.len() == 43 && two.len() == 43 && one != two);
        let token = base32::<16>().expect("random");
        assert_eq!(normal_base32(&token, 16), Some(token));
    }
}
