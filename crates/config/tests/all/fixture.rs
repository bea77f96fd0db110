//! An integration as the crates above define them, with every kind of option.

use std::collections::BTreeMap;
use std::io;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{
    ByteSize, Duration, Endpoint, Lookup, Problems, Secret, Settings, SocketAddress, Text, check, read_with,
};

/// Options that every integration has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Common {
    /// Time between two polls.
    pub interval: Option<Duration>,
    /// Attributes on every record.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub tags: BTreeMap<String, String>,
}

/// Keys of [`Common`].
pub const COMMON: [&str; 2] = ["interval", "tags"];

/// A typical exporter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "most fields are only read from files")]
pub struct Example {
    /// Where the records go.
    pub endpoint: Endpoint,
    /// Where the logs go. Default: below `endpoint`.
    #[serde(default)]
    pub logs_endpoint: Option<Endpoint>,
    /// Key of the account.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Address for pulled metrics.
    #[serde(default)]
    pub listen: Option<SocketAddress>,
    /// Records in one request.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: u32,
    /// Time for one request.
    #[serde(default)]
    pub timeout: Duration,
    /// Bytes in one request.
    #[serde(default)]
    pub max_body: ByteSize,
    /// Form of the records.
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether to send logs.
    #[serde(default)]
    pub logs: bool,
    /// Version of the protocol.
    #[serde(default)]
    pub version: Version,
    /// Index to write to.
    #[serde(default)]
    pub index: String,
    /// Proof of identity.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Paths to watch.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Port to weight.
    #[serde(default)]
    pub weights: BTreeMap<u16, f64>,
    /// One name or several.
    #[serde(default)]
    pub topics: Option<Topics>,
    /// Sign of the network, checked by the type itself.
    #[serde(default)]
    pub network: Option<Network>,
    /// Further receivers.
    #[serde(default)]
    pub targets: Vec<Target>,
}

fn hundred() -> u32 {
    100
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Json,
    Protobuf,
    /// Lines of text.
    Ndjson,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub enum Version {
    #[default]
    #[serde(rename = "v2c")]
    V2c,
    #[serde(rename = "v3")]
    V3,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "only read from files")]
pub enum Auth {
    Basic { username: String, password: Secret },
    Bearer { token: Secret },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only read from files")]
pub enum Topics {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read from files")]
pub struct Target {
    /// Where this receiver is.
    pub url: Endpoint,
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

/// A type with a rule that no schema knows, and an error that quotes the value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
#[expect(dead_code, reason = "only read from files")]
pub struct Network(String);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        if text.contains('/') {
            return Ok(Network(text));
        }
        Err(format!("the network `{text}` has no `/` and prefix length"))
    }
}

/// Variables from a list, and one file.
pub struct Variables(pub &'static [(&'static str, &'static str)]);

impl Lookup for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn file(&self, path: &str) -> io::Result<String> {
        match self.variable(path) {
            Some(content) => Ok(content),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "No such file or directory (os error 2)")),
        }
    }
}

/// Everything that is wrong with a file whose integrations are all [`Example`]s.
pub fn problems_of(file: &str, text: &str, lookup: &dyn Lookup) -> Problems {
    let (settings, mut problems) = Settings::inspect(file, text, lookup);
    let can_read = problems.is_empty();
    for block in &settings.integrations {
        let (common, own) = block.node.split(&COMMON);
        let path = block.path();
        let mut results =
            vec![check::<Common>(file, &common, &path, &[]), check::<Example>(file, &own, &path, &COMMON)];
        if can_read {
            results.push(read_with::<Common>(file, &common, &path, &[]).map(drop));
            results.push(read_with::<Example>(file, &own, &path, &COMMON).map(drop));
        }
        for wrong in results.into_iter().filter_map(Result::err) {
            problems = problems.and(wrong);
        }
    }
    problems
}
