//! The kind `kafka_consumer`: reads topics as a member of a consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, Secret};
use weir_model::Signal;
use weir_pipeline::{About, Context, Fault, Intake, Kind, Mount, Receive, Stop};

use super::connection::{Connection, SaslMechanism, SecurityProtocol, option_values};
use super::decode::{MessageEncoding, Reading};
use super::default_topic;
use super::exporter::wrong_topic;
use super::run::Run;

/// Bytes that librdkafka fetches ahead, in KiB.
const FETCHED_AHEAD_KIB: u64 = 8 << 10;
/// The smallest `buffer_size`: one message of the size that brokers take by default.
const SMALLEST_BUFFER_BYTES: u64 = 1 << 20;

/// Where a group begins that has no position yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    /// At the oldest message.
    #[default]
    Earliest,
    /// After the newest one.
    Latest,
}

/// Options of `kafka_consumer`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of some brokers as `HOST:PORT`, by default `localhost:9092`; the others are learnt from them.
    brokers: Vec<String>,
    /// Topics to read, by default `otlp_metrics`, `otlp_logs` and `otlp_spans`. What begins with `^` is a regular expression.
    topics: Vec<String>,
    /// The consumer group, by default `weir`. Members of one group share the partitions; positions belong to the group.
    group_id: String,
    /// What messages hold: `auto` (the default, found out message by message), `otlp_proto`, `json` (OTLP) or `text`.
    encoding: MessageEncoding,
    /// The signal of OTLP messages that have no header `signal`; without it the topic's name tells (`otlp_spans`, `app-logs`).
    signal: Option<weir_config::Signal>,
    /// Where a group begins that has no position yet: `earliest` (the default) or `latest`.
    start: Start,
    /// Most bytes of messages that are read and not settled yet, over all partitions, by default `32MiB`.
    buffer_size: ByteSize,
    /// The name that brokers log, by default `weir`.
    client_id: String,
    /// `plaintext` (the default), `ssl`, `sasl_plaintext` or `sasl_ssl`.
    security_protocol: SecurityProtocol,
    /// `PLAIN` (the default), `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    sasl_mechanism: SaslMechanism,
    /// User name for SASL.
    username: Option<String>,
    /// Password that belongs to `username`.
    password: Option<Secret>,
    /// File with the authorities that sign the brokers' certificates; by default the system's.
    ca_file: Option<String>,
    /// Further options of librdkafka by its own names, for example `group.instance.id: weir-1`.
    #[serde(deserialize_with = "option_values")]
    #[schemars(with = "BTreeMap<String, weir_config::Text>")]
    options: BTreeMap<String, Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topics: Vec::new(),
            group_id: "weir".to_owned(),
            encoding: MessageEncoding::default(),
            signal: None,
            start: Start::default(),
            buffer_size: ByteSize::from_mebibytes(32),
            client_id: "weir".to_owned(),
            security_protocol: SecurityProtocol::default(),
            sasl_mechanism: SaslMechanism::default(),
            username: None,
            password: None,
            ca_file: None,
            options: BTreeMap::new(),
        }
    }
}

const ABOUT: About = About {
    name: "kafka_consumer",
    summary: "Reads metrics, logs and traces from topics of Apache Kafka",
    details: r#"**What it does.** It reads topics as a member of a consumer group. Messages are OTLP export requests in protobuf or JSON, as `kafka` and the
Collector's Kafka exporter write them, or text. With `encoding: auto` the headers `content-type` and `signal` decide; without them a JSON
object that begins with `resourceLogs` (and so on) is OTLP, then whatever reads as OTLP protobuf of the topic's signal, and everything
else is text.

**Log records of messages.** Text becomes the body of a log record; its time is the message's. Attributes: `messaging.system`,
`messaging.destination.name` (the topic), `messaging.destination.partition.id`, `messaging.kafka.offset`, `messaging.kafka.message.key`.
**What cannot be decoded is not lost and blocks nothing**: it becomes such a log record too, its body the message as it came (bytes where
it is no text), with `error.type: decode` and the reason in `error.message`. It is counted in the log, with topic, partition and offset.
Tombstones (messages without a body) are left out.

**Delivery.** Offsets are committed every second, when partitions go to another member, and at the stop; and only up to the last message
before which everything is as durable as `delivery.acknowledge` says (`durable`, the default: it is on the disk for every exporter). So nothing is
lost, and after a crash or a rebalance at most what was under way comes twice; after a clean stop nothing does. A partition whose records
are not taken waits, and fetches nothing meanwhile; the others go on.

**What it needs.** The right `Read` on topics and group, and `Describe` on the topics.

**Limits.** TLS and SCRAM need a build with `--features kafka-tls`; SASL `PLAIN` is always there. Batches within a partition keep their
order unless one has to be offered again. A topic that a regular expression newly matches is found within 30 s. Members of one group must
agree on the assignment strategy: Weir's is `cooperative-sticky` (`options: {partition.assignment.strategy: range}` changes it).

**Troubleshooting.** `Unknown topic or partition`: the topic is not there yet; reading begins when it is. Nothing arrives although messages
are there: `start: latest` begins with the next one, or another member of the group has the partitions. Do not read the topics
that `kafka` of the same agent writes: the records would go in circles; routes (`from: [kafka_consumer]`) keep them apart.
"#,
    sample: r#"kafka_consumer:
  brokers: ["kafka:9092"]
  topics: [telemetryflow-metrics, telemetryflow-logs, "^app-.*-logs"]
  group_id: weir
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `kafka_consumer`.
pub const KIND: Kind = Kind::receive::<KafkaConsumer>(ABOUT);

/// The receiver.
pub struct KafkaConsumer {
    name: Arc<str>,
    config: ClientConfig,
    topics: Vec<String>,
    reading: Reading,
    buffer_bytes: usize,
}

impl Receive for KafkaConsumer {
    type Config = Config;

    fn new(config: Config, context: &Context) -> Result<Self, Fault> {
        if config.group_id.trim().is_empty() {
            return Err(Fault::configuration("group_id must not be empty: positions belong to the group"));
        }
        if config.buffer_size.bytes() < SMALLEST_BUFFER_BYTES {
            return Err(Fault::configuration("buffer_size must be at least 1MiB"));
        }
        let mut topics = config.topics.clone();
        if topics.is_empty() {
            topics = Signal::ALL.iter().map(|signal| default_topic(*signal).to_owned()).collect();
        }
        if let Some(why) = topics.iter().filter(|topic| !topic.starts_with('^')).find_map(|topic| wrong_topic(topic)) {
            return Err(Fault::configuration(format!("topics: {why}; or a regular expression that begins with ^")));
        }
        let start = match config.start {
            Start::Earliest => "earliest",
            Start::Latest => "latest",
        };
        let mut own = vec![
            ("group.id", config.group_id.clone(), "group_id"),
            ("auto.offset.reset", start.to_owned(), "start"),
            ("enable.auto.commit", "false".to_owned(), "delivery.acknowledge"),
            ("enable.auto.offset.store", "false".to_owned(), "delivery.acknowledge"),
            ("queued.max.messages.kbytes", FETCHED_AHEAD_KIB.to_string(), "buffer_size"),
        ];
        // What users may set, but librdkafka's defaults do not suit.
        let ours = [
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("topic.metadata.refresh.interval.ms", "30000"),
            ("isolation.level", "read_committed"),
        ];
        for (name, value) in ours {
            if !config.options.contains_key(name) {
                own.push((name, value.to_owned(), "options"));
            }
        }
        let signal = config.signal.map(|signal| match signal {
            weir_config::Signal::Metrics => Signal::Metrics,
            weir_config::Signal::Logs => Signal::Logs,
            weir_config::Signal::Traces => Signal::Traces,
        });
        Ok(KafkaConsumer {
            name: context.name.clone(),
            config: config.connection().client_config(&own)?,
            topics,
            reading: Reading { encoding: config.encoding, signal },
            buffer_bytes: usize::try_from(config.buffer_size.bytes()).unwrap_or(usize::MAX),
        })
    }

    fn mounts(&self, _intake: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    async fn run(self, intake: Intake, stop: Stop) -> Result<(), Fault> {
        let KafkaConsumer { name, config, topics, reading, buffer_bytes } = self;
        Run::start(name, &config, &topics, reading, buffer_bytes, intake, stop)?.until_stopped().await
    }
}

impl Config {
    fn connection(&self) -> Connection<'_> {
        Connection {
            brokers: &self.brokers,
            client_id: &self.client_id,
            security_protocol: self.security_protocol,
            sasl_mechanism: self.sasl_mechanism,
            username: self.username.as_deref(),
            password: self.password.as_ref(),
            ca_file: self.ca_file.as_deref(),
            options: &self.options,
        }
    }
}
