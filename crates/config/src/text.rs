//! Text that may stand without quotes even if it looks like a number.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// Asks the deserialiser of this crate for a scalar exactly as it is written: `1.10` stays `1.10`.
pub(crate) const AS_WRITTEN: &str = "weir_config::Text";

/// A text for places where people write `team: 42` or `canary: true`: tags and labels. Numbers
/// and booleans become the text as it is written in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_newtype_struct(AS_WRITTEN, TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    // Other formats than YAML hand the scalar over typed.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Text, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"], "format": "text" })
    }
}

/// Reads a map of tags or labels whose values may look like numbers. Use it together with the
/// schema of [`Text`]:
///
/// ```
/// # use std::collections::BTreeMap;
/// # use weir_config::Text;
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Config {
///     /// Labels on every record.
///     #[serde(default, deserialize_with = "weir_config::text_values")]
///     #[schemars(with = "BTreeMap<String, Text>")]
///     labels: BTreeMap<String, String>,
/// }
/// ```
///
/// # Errors
/// When it is no map, or a value is a list or map.
pub fn text_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Text>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(key, text)| (key, text.0)).collect())
}
