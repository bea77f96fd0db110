//! A value that is never printed.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in the place of a secret wherever one would be printed.
const REDACTED: &str = "[redacted]";

/// A password, token or key. It prints and serialises as `[redacted]`; only [`Secret::expose`]
/// gives the content.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not be printed.
    #[must_use]
    pub fn new(content: impl Into<String>) -> Secret {
        Secret(content.into())
    }

    /// The content, for the one place that sends it. Never log or format what this returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Asks the deserialiser of this crate for a text, so that no other type reaches the visitor.
pub(crate) const AS_TEXT: &str = "weir_config::Secret";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_newtype_struct(AS_TEXT, SecretVisitor)
    }
}

/// Takes scalars of every type, because serde's own error for a wrong type quotes the value.
struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Secret, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, content: &str) -> Result<Secret, E> {
        Ok(Secret::new(content))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(not_text("a boolean"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(not_text("an integer"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(not_text("an integer"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(not_text("a number"))
    }
}

fn not_text<E: de::Error>(found: &str) -> E {
    E::custom(format_args!("expected text, found {found}; put it in quotes"))
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret", "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_the_content() {
        let secret = Secret::new("hunter2");
        let json = serde_json::to_string(&secret).expect("serialises");
        for printed in [format!("{secret}"), format!("{secret:?}"), format!("{:#?}", Some(&secret)), json] {
            assert!(printed.contains("[redacted]") && !printed.contains("hunter2"), "{printed}");
        }
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_number_in_its_place_is_refused_without_quoting_it() {
        for json in ["4711", "-4711", "4711.5", "true"] {
            let error = serde_json::from_str::<Secret>(json).expect_err("not text").to_string();
            assert!(!error.contains("4711") && !error.contains("true"), "{error}");
        }
    }
}
