//! The address of an HTTP service.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::problem::{InvalidValue, read_text};

/// A checked `http://` or `https://` URL with a host.
///
/// It prints without user name, password and query, because all three may hold secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint(Url);

impl Endpoint {
    /// The JSON Schema pattern that tells an endpoint from any other URL.
    pub(crate) const PATTERN: &str = "^https?://";

    /// The whole URL, with user name, password and query where it has them.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The URL of `path` below this one, with exactly one slash between the two. A query stays.
    #[must_use]
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = self.0.path().trim_end_matches('/');
        url.set_path(&format!("{base}/{}", path.trim_start_matches('/')));
        url
    }
}

impl FromStr for Endpoint {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Endpoint, InvalidValue> {
        let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err(InvalidValue::new("it must start with `http://` or `https://`"));
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::IdnaError | url::ParseError::InvalidDomainCharacter => {
                InvalidValue::new("the host name holds a character that host names do not have")
            }
            other => InvalidValue::new(other.to_string()),
        })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidValue::new("the host name is missing"));
        }
        Ok(Endpoint(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(f, "{}://{host}", self.0.scheme())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
        read_text(deserializer, "a URL such as `https://example.com:4318`")
    }
}

impl JsonSchema for Endpoint {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "pattern": Endpoint::PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        text.parse::<Endpoint>().map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn joining_puts_exactly_one_slash() {
        for base in ["http://host:4318/otlp", "http://host:4318/otlp/"] {
            let endpoint = parse(base).expect(base);
            for path in ["v1/logs", "/v1/logs"] {
                assert_eq!(endpoint.join(path).as_str(), "http://host:4318/otlp/v1/logs");
            }
        }
        let root = parse("http://host").expect("root");
        assert_eq!(root.join("/v1/logs").as_str(), "http://host/v1/logs");
    }

    #[test]
    fn printing_shows_no_credentials() {
        let endpoint = parse("https://user:hunter2@host:8088/a?token=hunter2").expect("valid");
        for printed in [format!("{endpoint}"), format!("{endpoint:?}"), serde_json::to_string(&endpoint).expect("json")]
        {
            assert!(printed.contains("https://host:8088/a"), "{printed}");
            assert!(!printed.contains("hunter2") && !printed.contains("user"), "{printed}");
        }
        assert_eq!(endpoint.url().password(), Some("hunter2"));
    }

    #[test]
    fn what_is_no_http_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("localhost:4318", "must start with"),
            ("tcp://mqtt:1883", "must start with"),
            ("http://", "host"),
            ("http://host:99999", "port"),
            ("http://ho st", "host name holds a character"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
