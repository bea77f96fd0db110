//! Brokers, credentials and further options of librdkafka, checked when an integration is made.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use weir_config::Secret;
use weir_pipeline::Fault;

/// Where a broker listens, if nothing else is configured.
const DEFAULT_BROKER: &str = "localhost:9092";

/// Whether this build has TLS and SCRAM.
const HAS_TLS: bool = cfg!(feature = "tls");

/// Longest pause between attempts to connect to a broker, as in Kafka's own clients. librdkafka's 10 s would keep
/// records and commits waiting for so long after a broker is back.
const RECONNECT_BACKOFF_MAX_MS: &str = "1000";

/// Options of librdkafka that Weir does not work with.
const NOT_TAKEN: [(&str, &str); 3] = [
    ("transactional.id", "Weir uses no transactions"),
    ("log.queue", "Weir reads the log itself"),
    ("opaque", "it is no option for people"),
];

/// Reads `options`, whose values may be numbers and booleans too; none is ever printed, because some are secret.
pub(super) fn option_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = weir_config::text_values(deserializer)?;
    Ok(texts.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
}

/// How brokers are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SecurityProtocol {
    /// Without encryption, without credentials.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// User and password, without encryption.
    SaslPlaintext,
    /// User and password over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "plaintext",
            SecurityProtocol::Ssl => "ssl",
            SecurityProtocol::SaslPlaintext => "sasl_plaintext",
            SecurityProtocol::SaslSsl => "sasl_ssl",
        }
    }

    fn is_encrypted(self) -> bool {
        matches!(self, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl)
    }

    fn has_credentials(self) -> bool {
        matches!(self, SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl)
    }
}

/// How user and password are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum SaslMechanism {
    /// As they are.
    #[default]
    #[serde(rename = "PLAIN", alias = "plain")]
    Plain,
    /// By challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256", alias = "scram-sha-256")]
    ScramSha256,
    /// By challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512", alias = "scram-sha-512")]
    ScramSha512,
}

impl SaslMechanism {
    fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What both integrations say about the way to the brokers.
pub(super) struct Connection<'a> {
    pub brokers: &'a [String],
    pub client_id: &'a str,
    pub security_protocol: SecurityProtocol,
    pub sasl_mechanism: SaslMechanism,
    pub username: Option<&'a str>,
    pub password: Option<&'a Secret>,
    pub ca_file: Option<&'a str>,
    /// Further options of librdkafka, by its names.
    pub options: &'a BTreeMap<String, Secret>,
}

impl Connection<'_> {
    /// The configuration for librdkafka: these, then `fixed` (its name, its value, and the option of Weir
    /// that it follows from), then the user's own `options`, which can change none of them.
    ///
    /// # Errors
    /// Which option makes no sense; never with the content of a secret.
    pub(super) fn client_config(&self, fixed: &[(&str, String, &str)]) -> Result<ClientConfig, Fault> {
        self.check()?;
        let mut all: Vec<(&str, String, &str)> = vec![
            ("bootstrap.servers", self.bootstrap()?, "brokers"),
            ("client.id", self.client_id.to_owned(), "client_id"),
            ("security.protocol", self.security_protocol.name().to_owned(), "security_protocol"),
        ];
        if self.security_protocol.has_credentials() {
            all.push(("sasl.mechanism", self.sasl_mechanism.name().to_owned(), "sasl_mechanism"));
            all.push(("sasl.username", self.username.unwrap_or_default().to_owned(), "username"));
            all.push(("sasl.password", self.password.map_or("", Secret::expose).to_owned(), "password"));
        }
        if let Some(path) = self.ca_file {
            all.push(("ssl.ca.location", path.to_owned(), "ca_file"));
        }
        all.extend(fixed.iter().map(|(name, value, option)| (*name, value.clone(), *option)));
        let mut config = ClientConfig::new();
        let wants_details = self.options.contains_key("debug");
        config.set_log_level(if wants_details { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        if !self.options.keys().any(|name| name.starts_with("reconnect.backoff.")) {
            config.set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MAX_MS);
        }
        for (name, value, _) in &all {
            config.set(*name, value);
        }
        for (name, value) in self.options {
            if let Some((_, why)) = NOT_TAKEN.iter().find(|(known, _)| known == name) {
                return Err(Fault::configuration(format!("options: `{name}` cannot be set: {why}")));
            }
            if let Some((_, _, option)) = all.iter().find(|(taken, ..)| taken == name || synonym(taken) == name) {
                return Err(Fault::configuration(format!(
                    "options: `{name}` is set by `{option}`; change that instead"
                )));
            }
            config.set(name, value.expose());
        }
        match config.create_native_config() {
            Ok(_) => Ok(config),
            Err(error) => Err(Fault::configuration(refusal(&error))),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        let protocol = self.security_protocol;
        let wrong = |text: String| Err(Fault::configuration(text));
        if !HAS_TLS && protocol.is_encrypted() {
            return wrong(format!(
                "security_protocol: this build of Weir speaks no TLS to Kafka, so `{}` cannot be had; build it with \
                 `--features kafka-tls`, or put a TLS proxy (stunnel) between Weir and the brokers",
                protocol.name()
            ));
        }
        if !HAS_TLS && protocol.has_credentials() && self.sasl_mechanism != SaslMechanism::Plain {
            return wrong(format!(
                "sasl_mechanism: `{}` needs a build with `--features kafka-tls`; this one has `PLAIN`",
                self.sasl_mechanism.name()
            ));
        }
        match (protocol.has_credentials(), self.username, self.password) {
            (false, Some(_), _) | (false, _, Some(_)) => {
                wrong("username and password need `security_protocol: sasl_plaintext` or `sasl_ssl`".to_owned())
            }
            (true, None, _) | (true, _, None) => {
                wrong(format!("security_protocol `{}` needs `username` and `password`", protocol.name()))
            }
            _ if self.ca_file.is_some() && !protocol.is_encrypted() => {
                wrong("ca_file needs `security_protocol: ssl` or `sasl_ssl`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The list of brokers as librdkafka reads it.
    fn bootstrap(&self) -> Result<String, Fault> {
        let mut all = Vec::new();
        for broker in self.brokers {
            let is_address = !broker.is_empty() && broker.chars().all(|c| c.is_ascii_graphic() && c != ',');
            if !is_address || broker.contains("://") {
                let message = format!("brokers: `{broker}` is no address; write HOST:PORT, for example kafka:9092");
                return Err(Fault::configuration(message));
            }
            all.push(broker.as_str());
        }
        Ok(if all.is_empty() { DEFAULT_BROKER.to_owned() } else { all.join(",") })
    }
}

/// The other name under which librdkafka takes the same option (`CONFIGURATION.md`, "Alias for").
fn synonym(name: &str) -> &str {
    match name {
        "bootstrap.servers" => "metadata.broker.list",
        "sasl.mechanism" => "sasl.mechanisms",
        "acks" => "request.required.acks",
        "compression.type" => "compression.codec",
        "message.timeout.ms" => "delivery.timeout.ms",
        name => name,
    }
}

/// librdkafka's refusal of an option, without the values of those that are secret.
fn refusal(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            format!("options: librdkafka has no option `{name}`; its CONFIGURATION.md lists them")
        }
        KafkaError::ClientConfig(_, why, name, _) if !is_secret(name) => {
            format!("options: librdkafka does not take this `{name}`: {}", why.trim_end_matches(['.', '\0']))
        }
        KafkaError::ClientConfig(_, _, name, _) => format!("options: librdkafka does not take this `{name}`"),
        other => format!("librdkafka does not take these options: {other}"),
    }
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "key", "pem", "jaas", "oauthbearer", "username"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection<'a>(brokers: &'a [String], options: &'a BTreeMap<String, Secret>) -> Connection<'a> {
        Connection {
            brokers,
            client_id: "weir",
            security_protocol: SecurityProtocol::Plaintext,
            sasl_mechanism: SaslMechanism::Plain,
            username: None,
            password: None,
            ca_file: None,
            options,
        }
    }

    fn one(name: &str, value: &str) -> BTreeMap<String, Secret> {
        BTreeMap::from([(name.to_owned(), Secret::new(value))])
    }

    fn refused(options: &BTreeMap<String, Secret>) -> String {
        connection(&[], options).client_config(&[("acks", "all".to_owned(), "acks")]).unwrap_err().message
    }

    #[test]
    fn options_that_librdkafka_does_not_know_or_take_are_refused_at_the_start() {
        assert!(refused(&one("linger.msec", "5")).contains("no option `linger.msec`"));
        assert!(refused(&one("linger.ms", "soon")).contains("does not take this `linger.ms`"));
        for name in ["bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks"] {
            assert!(refused(&one(name, "1")).contains("is set by"), "{name}");
        }
        let options = one("linger.ms", "5");
        let config = connection(&[], &options).client_config(&[]).unwrap();
        assert_eq!(config.get("linger.ms"), Some("5"));
        assert_eq!(config.get("bootstrap.servers"), Some("localhost:9092"));
        assert_eq!(config.get("reconnect.backoff.max.ms"), Some("1000"));
        let options = one("reconnect.backoff.ms", "2000");
        let config = connection(&[], &options).client_config(&[]).unwrap();
        assert_eq!(config.get("reconnect.backoff.max.ms"), None, "librdkafka takes no maximum below the minimum");
    }

    #[test]
    fn brokers_are_hosts_with_ports_and_no_urls() {
        let options = BTreeMap::new();
        let brokers = ["kafka-1:9092".to_owned(), "[::1]:9092".to_owned()];
        let config = connection(&brokers, &options).client_config(&[]).unwrap();
        assert_eq!(config.get("bootstrap.servers"), Some("kafka-1:9092,[::1]:9092"));
        for wrong in ["http://kafka:9092", "a:1,b:2", "", "kafka 9092"] {
            let brokers = [wrong.to_owned()];
            assert!(connection(&brokers, &options).client_config(&[]).unwrap_err().message.contains("HOST:PORT"));
        }
    }

    #[test]
    fn credentials_without_a_protocol_and_the_other_way_round_are_refused_without_showing_them() {
        let (options, password) = (BTreeMap::new(), Secret::new("hunter2"));
        let with = |security_protocol, username, password| {
            let base = connection(&[], &options);
            Connection { security_protocol, username, password, ..base }.client_config(&[])
        };
        let error = with(SecurityProtocol::Plaintext, Some("me"), Some(&password)).unwrap_err();
        assert!(error.message.contains("sasl_plaintext") && !error.message.contains("hunter2"), "{error}");
        let error = with(SecurityProtocol::SaslPlaintext, Some("me"), None).unwrap_err();
        assert!(error.message.contains("`password`"), "{error}");
        let config = with(SecurityProtocol::SaslPlaintext, Some("me"), Some(&password)).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let wrong = one("ssl.key.password", "hunter2\u{0}");
        assert!(!refused(&wrong).contains("hunter2"));
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn a_build_without_tls_says_so_and_what_to_do() {
        let options = BTreeMap::new();
        let ssl = Connection { security_protocol: SecurityProtocol::Ssl, ..connection(&[], &options) };
        let error = ssl.client_config(&[]).unwrap_err();
        assert!(error.message.contains("kafka-tls") && error.message.contains("stunnel"), "{error}");
    }
}
