//! The address that a receiver listens on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::{InvalidValue, read_text};

/// A host and a port: `127.0.0.1:4317`, `[::1]:4317`, `localhost:4317`, or `:4317` for all
/// interfaces of the machine. Port 0 asks the system for a free port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SocketAddress {
    host: Option<String>,
    port: u16,
}

impl SocketAddress {
    /// An address from its parts; without a host, all interfaces.
    #[must_use]
    pub fn new(host: Option<String>, port: u16) -> SocketAddress {
        SocketAddress { host, port }
    }

    /// The host name or IP address without brackets; `None` means all interfaces.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port number.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for SocketAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<SocketAddress, InvalidValue> {
        if text.contains("://") {
            return Err(InvalidValue::new("it is a host and a port, without `http://` or another scheme"));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| InvalidValue::new("the port is missing: write `:` and a number after the host"))?;
        let port = port.parse::<u16>().map_err(|_| InvalidValue::new("the port must be a number from 0 to 65535"))?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = bracketed {
            let address = address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| InvalidValue::new("the brackets must hold an IPv6 address"))?;
            return Ok(SocketAddress::new(Some(address.to_string()), port));
        }
        if host.contains(':') {
            return Err(InvalidValue::new("an IPv6 address needs brackets, as in `[::1]:4317`"));
        }
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !host.chars().all(allowed) {
            return Err(InvalidValue::new("the host has a character that no host name can have"));
        }
        let host = (!host.is_empty()).then(|| host.to_owned());
        Ok(SocketAddress::new(host, port))
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SocketAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SocketAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddress, D::Error> {
        read_text(deserializer, "an address such as `127.0.0.1:4317`")
    }
}

impl JsonSchema for SocketAddress {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SocketAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "socket-address", "pattern": ":[0-9]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_reads_and_prints_the_same() {
        for (text, host) in [
            ("127.0.0.1:4317", Some("127.0.0.1")),
            ("localhost:0", Some("localhost")),
            (":4317", None),
            ("[::1]:4317", Some("::1")),
            ("[::]:4317", Some("::")),
        ] {
            let address: SocketAddress = text.parse().expect(text);
            assert_eq!(address.host(), host);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("localhost", "port is missing"),
            ("localhost:http", "0 to 65535"),
            ("localhost:70000", "0 to 65535"),
            ("http://localhost:4317", "without `http://`"),
            ("::1:4317", "brackets"),
            ("[x]:1", "IPv6"),
            ("a b:1", "character"),
        ] {
            let error = text.parse::<SocketAddress>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
