//! The top level of `weir.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::duration::Duration;
use crate::endpoint::Endpoint;
use crate::expand::{Lookup, below};
use crate::node::{KeyNode, Node, Value};
use crate::parse;
use crate::problem::{Problem, Problems};
use crate::secret::Secret;
use crate::size::ByteSize;
use crate::socket_address::SocketAddress;
use crate::text::{Text, text_values};
use crate::validate::{check, read, read_with};
use crate::words;

/// The key below which the integrations stand.
const INTEGRATIONS: &str = "integrations";

/// Everything in `weir.yaml`. No key is required: [`Settings::default`] is an empty file.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Settings {
    /// The agent itself.
    pub agent: Agent,
    /// The integrations in the order of the file, with their own options unread.
    pub integrations: Vec<Block>,
    /// Which records go where. Empty: every record goes to every exporter that takes its signal.
    pub routes: Vec<Route>,
    /// What the process may use.
    pub limits: Limits,
    /// What a receiver promises.
    pub delivery: Delivery,
    /// Weir's own server; only `weir up` and `weir server` read it.
    pub server: Server,
}

/// What the file says about the agent itself.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Name under which this machine appears. Default: the host name.
    pub name: Option<String>,
    /// Attributes on every record, such as `environment: production`.
    #[serde(deserialize_with = "text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub tags: BTreeMap<String, String>,
    /// Time between two polls of a source that sets no interval of its own. Default: `10s`.
    pub interval: Duration,
    /// Time between two signs of life to a Weir server (integration `weir`). Default: `30s`.
    pub heartbeat_interval: Duration,
    /// Folder for what must survive a restart, such as positions in log files. Default: `/var/lib/weir`
    /// as root, else `~/.local/share/weir`.
    pub data: Option<PathBuf>,
}

impl Default for Agent {
    fn default() -> Agent {
        Agent {
            name: None,
            tags: BTreeMap::new(),
            interval: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            data: None,
        }
    }
}

/// One integration as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Name of the integration: what stands before the first `/`, for example `otlp`.
    pub kind: String,
    /// Name of this instance, unique in the file: `otlp` or `otlp/backup`.
    pub name: String,
    /// Whether it runs: `enabled` in the block, `true` by default.
    pub enabled: bool,
    /// The mapping of its options, without `enabled`. Where it is not enabled, texts may still
    /// hold variables that are not set.
    pub node: Node,
    /// Line of the key, from 1.
    pub line: u32,
    /// Column of the key, from 1.
    pub column: u32,
}

impl Block {
    /// Where the block stands, for [`read`]: `integrations.otlp/backup`.
    #[must_use]
    pub fn path(&self) -> String {
        below(INTEGRATIONS, &self.name)
    }
}

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Measurements.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
}

/// Where the records of some sources go.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Names of the integrations whose records take this route. Empty: all.
    #[serde(default)]
    pub from: Vec<String>,
    /// Signals that take this route: `metrics`, `logs`, `traces`. Empty: all.
    #[serde(default)]
    pub signals: Vec<Signal>,
    /// Condition that a record must meet, such as `severity >= "WARN"`. Not read here.
    #[serde(default)]
    pub keep: Option<String>,
    /// Resource attributes set on every record that passes.
    #[serde(default, deserialize_with = "text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub set: BTreeMap<String, String>,
    /// Names of the exporters that get the records.
    #[schemars(length(min = 1))]
    pub to: Vec<String>,
    /// The route as it stands in the file, for problems that point into it.
    #[serde(skip, default = "nowhere")]
    pub node: Node,
}

fn nowhere() -> Node {
    Node::new(Value::Null, 1, 1)
}

/// What the process may use.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory for records on their way. Default: `128MiB`.
    pub memory: ByteSize,
    /// Disk for the queues of all exporters together. Default: `8GiB`.
    pub disk: ByteSize,
    /// Bytes of the file system that queues leave free for others. Default: `256MiB`, at most a tenth of it.
    pub disk_reserve: Option<ByteSize>,
    /// Disk for records that backends refused for good; the oldest make room. Default: `256MiB`.
    pub dead_letters: ByteSize,
    /// How long records that backends refused for good are kept. Default: `30d`.
    pub dead_letters_age: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory: ByteSize::from_mebibytes(128),
            disk: ByteSize::from_mebibytes(8 << 10),
            disk_reserve: None,
            dead_letters: ByteSize::from_mebibytes(256),
            dead_letters_age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What a receiver promises to those who send to it.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// When a receiver answers success. Default: `durable`.
    pub acknowledge: Acknowledge,
    /// Where records wait for an exporter that does not say it itself. Default: `disk`.
    pub queue: QueueKind,
    /// When a record counts as being on the disk. Default: `group`.
    pub sync: SyncPolicy,
    /// File with exactly 32 random bytes that encrypt what waits on the disk (AES-256-GCM).
    pub key_file: Option<PathBuf>,
}

/// Where records wait for their exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// On the disk, in the data folder: they survive crashes and restarts.
    #[default]
    Disk,
    /// In memory: receivers answer only after delivery, and what was polled is lost in a crash.
    Memory,
}

/// When a record that waits on the disk counts as safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// After a sync of its own.
    Each,
    /// After a sync that it shares with the batches that came while the one before was under way.
    #[default]
    Group,
    /// At once: a crash of the process loses nothing, a crash of the machine may lose what the
    /// operating system had not written yet.
    Never,
}

/// When a receiver answers success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// As soon as nothing but a broken disk can lose the record: it is on the disk for every exporter,
    /// or, where an exporter's queue is in memory, delivered.
    #[default]
    Durable,
    /// As soon as the record is in memory. It is lost if the process is killed at that moment.
    Queued,
}

/// Weir's own server: its address, its data and whom it lets in.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address of the dashboard and of every API. Default: `:8088`, all interfaces.
    pub listen: Option<SocketAddress>,
    /// Folder of the stored data. Default: `agent.data`.
    pub data: Option<PathBuf>,
    /// Address under which other machines reach this server, for links and for the command that adds
    /// a machine. Default: the machine's own address and the port of `listen`.
    pub public_url: Option<Endpoint>,
    /// PostgreSQL for servers, agents and keys, as `postgres://user:password@host/database`.
    /// Default: SQLite in the data folder.
    pub metadata: Option<Secret>,
    /// How long metrics are kept. Default: `24h`.
    pub retention: Option<Duration>,
    /// Whether programs on this machine may send without a key. Default: only while `listen` is a
    /// loopback address.
    pub keyless_loopback: Option<bool>,
    /// Whether metrics of an agent that never registered make it known, instead of being answered
    /// 404. Default: `false`.
    pub auto_register: bool,
}

/// Everything but the integrations, as serde reads it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    /// The agent itself.
    agent: Agent,
    /// Which records go where. Empty: every record goes to every exporter that takes its signal.
    routes: Vec<Route>,
    /// What the process may use.
    limits: Limits,
    /// What a receiver promises.
    delivery: Delivery,
    /// Weir's own server; only `weir up` and `weir server` read it.
    server: Server,
}

impl Settings {
    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong outside of the integrations' own options.
    pub fn parse(file: &str, text: &str, lookup: &dyn Lookup) -> Result<Settings, Problems> {
        let (settings, problems) = Settings::inspect(file, text, lookup);
        problems.or(settings)
    }

    /// Like [`Settings::parse`], but gives the blocks of the integrations next to the problems, so
    /// that their options can be checked too and all problems of a file be shown at once. With any
    /// problem, use [`check`](crate::check) on the blocks, not [`read`], and run nothing: the
    /// blocks may hold variables that are not set, and the rest of the settings are defaults.
    #[must_use]
    pub fn inspect(file: &str, text: &str, lookup: &dyn Lookup) -> (Settings, Problems) {
        let (node, mut problems) = parse::load(file, text, lookup);
        let Some(node) = node else {
            return (Settings::default(), problems);
        };
        let (integrations, rest) = node.split(&[INTEGRATIONS]);
        let mut sections = Sections::default();
        if let Err(wrong) = check::<Sections>(file, &rest, "", &[INTEGRATIONS]) {
            problems = problems.and(wrong);
        }
        if problems.is_empty() {
            match read_with::<Sections>(file, &rest, "", &[INTEGRATIONS]) {
                Ok(read) => sections = read,
                Err(wrong) => problems = problems.and(wrong),
            }
        }
        problems = problems.and(Problems::new(zero_intervals(file, &rest, &sections)));
        let routes = rest.get("routes").map(Node::items).unwrap_or_default();
        for (route, node) in sections.routes.iter_mut().zip(routes) {
            route.node = node.clone();
        }
        let mut reader = Blocks { file, blocks: Vec::new(), problems: Vec::new() };
        if let Some(node) = integrations.get(INTEGRATIONS) {
            reader.read(node);
        }
        let settings = Settings {
            agent: sections.agent,
            integrations: reader.blocks,
            routes: sections.routes,
            limits: sections.limits,
            delivery: sections.delivery,
            server: sections.server,
        };
        (settings, problems.and(Problems::new(reader.problems)))
    }

    /// The JSON Schema of the file; every block below `integrations` is an open mapping in it.
    #[must_use]
    pub fn schema() -> Json {
        let mut schema = SchemaGenerator::default().into_root_schema_for::<Sections>();
        schema.insert("title".to_owned(), json!("weir.yaml"));
        if let Some(Json::Object(properties)) = schema.get_mut("properties") {
            let block = json!({ "type": ["object", "null"] });
            let integrations = json!({
                "description": "The integrations: a name, or a name and an instance as in `otlp/backup`, with its options.",
                "type": ["object", "null"],
                "additionalProperties": block,
            });
            properties.insert(INTEGRATIONS.to_owned(), integrations);
        }
        schema.to_value()
    }
}

/// The intervals of the agent that are zero, which would poll without end.
fn zero_intervals(file: &str, rest: &Node, sections: &Sections) -> Vec<Problem> {
    let intervals = [("interval", sections.agent.interval), ("heartbeat_interval", sections.agent.heartbeat_interval)];
    let zero = intervals.into_iter().filter(|(_, interval)| interval.is_zero());
    zero.filter_map(|(key, _)| {
        let node = rest.get("agent")?.get(key)?;
        let problem = Problem::at(file, node, &below("agent", key), "the interval must be longer than zero");
        Some(problem.with_help("write `10s` for ten seconds"))
    })
    .collect()
}

struct Blocks<'a> {
    file: &'a str,
    blocks: Vec<Block>,
    problems: Vec<Problem>,
}

impl Blocks<'_> {
    fn read(&mut self, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    self.block(key, value);
                }
            }
            _ => {
                let message = format!("expected the integrations by name, found {}", words::found(node, false));
                self.problems.push(
                    Problem::at(self.file, node, INTEGRATIONS, message)
                        .with_help("write each integration as a key with its options below it: `prometheus:`"),
                );
            }
        }
    }

    fn block(&mut self, key: &KeyNode, value: &Node) {
        let path = below(INTEGRATIONS, &key.name);
        if let Err((message, help)) = check_name(&key.name) {
            let problem = Problem::new(self.file, (key.line, key.column), &path, message);
            self.problems.push(problem.with_help(help));
            return;
        }
        let (switch, mut node) = match &value.value {
            Value::Mapping(_) => value.split(&["enabled"]),
            Value::Null => {
                let mut empty = value.clone();
                empty.value = Value::Mapping(Vec::new());
                (empty.clone(), empty)
            }
            _ => return self.not_a_mapping(value, &path),
        };
        node.key_position = Some((key.line, key.column));
        let mut enabled = true;
        if let Some(switch) = switch.get("enabled").filter(|switch| !switch.incomplete) {
            match read::<bool>(self.file, switch, &below(&path, "enabled")) {
                Ok(value) => enabled = value,
                Err(wrong) => self.problems.extend(wrong),
            }
        }
        let kind = key.name.split('/').next().unwrap_or_default();
        self.blocks.push(Block {
            kind: kind.to_owned(),
            name: key.name.clone(),
            enabled,
            node,
            line: key.line,
            column: key.column,
        });
    }

    fn not_a_mapping(&mut self, value: &Node, path: &str) {
        if value.incomplete {
            return;
        }
        let help = match &value.value {
            Value::Bool(switch) => format!("to switch it on or off, write `enabled: {switch}` below the name"),
            Value::Sequence(_) => {
                "for several of one kind, give each a name of its own, as in `otlp/first` and `otlp/second`".to_owned()
            }
            _ => "write the options below the name, one `key: value` a line, or nothing for the defaults".to_owned(),
        };
        // The content may be a secret that stands in the wrong place.
        let message = format!("expected a mapping (`key: value` lines), found {}", words::found(value, true));
        self.problems.push(Problem::at(self.file, value, path, message).with_help(help));
    }
}

/// A name is a kind, or a kind and an instance. Instances appear in file names and labels, which
/// limits their characters.
fn check_name(name: &str) -> Result<(), (String, &'static str)> {
    let example = "write a name such as `otlp`, or `otlp/backup` for a second one of the same kind";
    let (kind, instance) = match name.split_once('/') {
        Some((kind, instance)) => (kind, Some(instance)),
        None => (name, None),
    };
    if kind.is_empty() {
        return Err(("the name of the integration is missing".to_owned(), example));
    }
    let Some(instance) = instance else {
        return Ok(());
    };
    if instance.is_empty() {
        return Err(("nothing follows the `/`".to_owned(), example));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !instance.chars().all(allowed) {
        let message = "the part after the `/` has a character that is not allowed";
        return Err((message.to_owned(), "use letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}
