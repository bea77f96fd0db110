//! What the bodies that make keys and tokens have in common.

use serde_json::Value;

use crate::error::ApiError;
use crate::ingest::json::{Object, wrong};
use crate::state::now_ms;

/// The longest life of a credential, in seconds: 100 years.
const LONGEST_LIFE_SECONDS: i64 = 100 * 365 * 24 * 3600;

/// Most bytes of a name.
pub const NAME_LIMIT_BYTES: usize = 200;

/// Refuses fields that nobody reads: a misspelt `expires_in_seconds` would make a credential that
/// lives for ever.
///
/// # Errors
/// `invalid_field` with the first one.
pub fn only(object: &Object<'_>, known: &[&str]) -> Result<(), ApiError> {
    match object.map.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(100).collect();
            Err(ApiError::field(object.path_of(&key), format!("one of {}", known.join(", ")), "another field"))
        }
    }
}

/// A whole number within bounds.
///
/// # Errors
/// If it is something else.
pub fn whole(object: &Object<'_>, key: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
    let Some(value) = object.value(key) else { return Ok(None) };
    match value.as_i64().filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(wrong(&object.path_of(key), &format!("a whole number from {least} to {most}"), value)),
    }
}

/// When something ends that says `expires_in_seconds`, unix milliseconds.
///
/// # Errors
/// If it is no number of seconds from 1 to 100 years.
pub fn expires_ms(object: &Object<'_>) -> Result<Option<i64>, ApiError> {
    let seconds = whole(object, "expires_in_seconds", 1, LONGEST_LIFE_SECONDS)?;
    Ok(seconds.map(|seconds| now_ms().saturating_add(seconds * 1000)))
}

/// The body as an object; an empty body has no fields.
///
/// # Errors
/// If it is something else.
pub fn object(value: &Value) -> Result<Object<'_>, ApiError> {
    Object::of(value, "")
}
