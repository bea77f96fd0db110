//! The kind `kafka`: sends metrics, logs and traces to topics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode as Code;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, Duration, Secret};
use weir_model::{Encoding, Signal};
use weir_pipeline::{About, Context, Delivery, Export, Fault, FaultKind, Kind, Outcome, Takes};

use super::connection::{Connection, SaslMechanism, SecurityProtocol, option_values};
use super::default_topic;
use super::judge::{self, Class};
use super::message::{Form, PartitionKey};
use super::producer::{Attempt, Reports, Sender};
use super::voice::Voice;

/// Bytes of a message besides key and body: headers, and what a record and its batch need.
const FRAME_BYTES: u64 = 512;
/// The smallest and largest `max_message_size`, the latter as librdkafka has it.
const MESSAGE_SIZES: std::ops::RangeInclusive<u64> = 1024..=1_000_000_000;
/// Most bytes that wait within librdkafka; the exporter's queue is outside of it.
const BUFFERED_KIB: u64 = 64 << 10;
/// The longest `timeout`: the runner ends an attempt after 5 minutes.
const LONGEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(240);

/// What a message holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum MessageEncoding {
    /// An OTLP request as JSON.
    #[serde(alias = "otlp_json")]
    Json,
    /// An OTLP request as binary protobuf.
    #[default]
    OtlpProto,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// How many brokers must have a message before it counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
enum Acks {
    /// All replicas in sync.
    #[default]
    #[serde(rename = "all")]
    All,
    /// The leader of the partition.
    #[serde(rename = "leader")]
    Leader,
}

/// Options of `kafka`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses of some brokers as `HOST:PORT`, by default `localhost:9092`; the others are learnt from them.
    brokers: Vec<String>,
    /// Topic for metrics, by default `otlp_metrics`.
    topic: Option<String>,
    /// Topic for logs, by default `otlp_logs`.
    logs_topic: Option<String>,
    /// Topic for traces, by default `otlp_spans`.
    traces_topic: Option<String>,
    /// The signals to send; by default all three.
    signals: Vec<weir_config::Signal>,
    /// What a message holds: `otlp_proto` (the default) or `json`, an OTLP export request in protobuf or JSON.
    encoding: MessageEncoding,
    /// What decides the partition: `none` (the default), `hostname`, `trace_id`, or the name of a resource attribute.
    partition_key: String,
    /// Compression: `none` (the default), `gzip`, `snappy`, `lz4` or `zstd`.
    compression: Compression,
    /// When a message counts as written: `all` (the default, all replicas in sync have it) or `leader`.
    acks: Acks,
    /// Keep messages that are sent again within `timeout` from being written twice, by default on. Needs `acks: all`.
    idempotent: bool,
    /// Largest message, before compression, by default `1MB`; what is larger is split. Brokers take 1 MiB by default.
    max_message_size: ByteSize,
    /// How long a message is tried before its records wait for the next attempt, by default `30s`.
    timeout: Duration,
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
    /// Further options of librdkafka by its own names, for example `linger.ms: 50`.
    #[serde(deserialize_with = "option_values")]
    #[schemars(with = "BTreeMap<String, weir_config::Text>")]
    options: BTreeMap<String, Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: None,
            logs_topic: None,
            traces_topic: None,
            signals: Vec::new(),
            encoding: MessageEncoding::default(),
            partition_key: "none".to_owned(),
            compression: Compression::default(),
            acks: Acks::default(),
            idempotent: true,
            max_message_size: ByteSize::from_bytes(1_000_000),
            timeout: Duration::from_secs(30),
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
    name: "kafka",
    summary: "Sends metrics, logs and traces to topics of Apache Kafka",
    details: r#"**What it does.** It writes OTLP export requests, protobuf or JSON, as messages: metrics to `topic`, logs to `logs_topic`, traces to
`traces_topic`. The Collector's Kafka receiver, `kafka_consumer` and everything else that reads OTLP from Kafka understands them. Headers of
every message: `content-type` and `signal`. Its time is the time of writing.

**Delivery.** A record counts as delivered when the brokers reported its message as written (`acks: all`: by all replicas in sync). The
producer is idempotent, so what librdkafka sends again within `timeout` is written once. What is not reported within `timeout` is sent again
by Weir; if the broker had written it without being able to say so, it is there twice. The log says when that may have happened.
Senders to a receiver of Weir that hear nothing for 8 s, because no broker is there, send again: up to `max_in_flight` copies of theirs may
be written when one is back. With `delivery: {acknowledge: queued}` they are answered at once.

**Size.** What is larger than `max_message_size` is split into several messages. A single record that is larger is refused alone.

**Order and keys.** Without `partition_key` messages are spread over all partitions. `hostname` is the resource attribute `host.name`;
`trace_id` keeps the spans and log records of a trace together (metrics have no key then); any other word is the name of a resource attribute. A
payload with several keys becomes several messages. The partition is that of Java clients for the same key (murmur2).

**What it needs.** The right `Write` on the topics, and for the idempotent producer `IdempotentWrite` on brokers before 3.0. Topics must be
there, unless the brokers create them (`auto.create.topics.enable`).

**Limits.** TLS and SCRAM need a build with `--features kafka-tls`, because OpenSSL takes minutes to build; SASL `PLAIN` is always there.
Kerberos and OAUTHBEARER are not. librdkafka offers no Avro and no schema registry.

**Troubleshooting.** `not delivered in time: HOST:PORT ...: Connection refused`: nothing listens there. If the name is one that you did not
configure, it is what the broker calls itself: set `advertised.listeners` there. `not delivered in time: ... Disconnected while requesting
ApiVersion`: the broker wants TLS or credentials. `options` takes everything of librdkafka's CONFIGURATION.md that Weir does not set itself;
`options: {debug: "broker,msg"}` shows in the log what it does (with `WEIR_LOG=debug`).
"#,
    sample: r#"kafka:
  brokers:
    - "kafka:9092"
  topic: "telemetryflow-metrics"
  logs_topic: "telemetryflow-logs"
  traces_topic: "telemetryflow-traces"
  compression: snappy
  batch_size: 100
  encoding: json
  partition_key: hostname
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `kafka`.
pub const KIND: Kind = Kind::export::<Kafka>(ABOUT);

/// All sets of signals; the bit `1 << n` of an index stands for `Signal::ALL[n]`.
const SETS: [&[Signal]; 8] = [
    &Signal::ALL,
    &[Signal::Metrics],
    &[Signal::Logs],
    &[Signal::Metrics, Signal::Logs],
    &[Signal::Traces],
    &[Signal::Metrics, Signal::Traces],
    &[Signal::Logs, Signal::Traces],
    &Signal::ALL,
];

/// The exporter.
pub struct Kafka {
    name: Arc<str>,
    /// For the producer.
    config: ClientConfig,
    /// For a look at the topics: only what leads to the brokers.
    look: ClientConfig,
    topics: [String; 3],
    signals: &'static [Signal],
    form: Form,
    timeout: std::time::Duration,
    /// Made for the first delivery, and anew after an error that it cannot recover from.
    sender: Mutex<Option<Arc<Sender>>>,
}

impl Export for Kafka {
    type Config = Config;

    fn new(config: Config, context: &Context) -> Result<Self, Fault> {
        let timeout = config.timeout.get();
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            return Err(Fault::configuration("timeout must be more than 0 s and at most 240 s"));
        }
        let size = config.max_message_size.bytes();
        if !MESSAGE_SIZES.contains(&size) {
            return Err(Fault::configuration("max_message_size must be from 1KiB to 1GB"));
        }
        if config.idempotent && config.acks != Acks::All {
            return Err(Fault::configuration("acks: the idempotent producer needs `all`; or set `idempotent: false`"));
        }
        let connection = config.connection();
        let own = [
            ("acks", if config.acks == Acks::All { "all" } else { "1" }.to_owned(), "acks"),
            ("enable.idempotence", config.idempotent.to_string(), "idempotent"),
            ("compression.type", config.compression.name().to_owned(), "compression"),
            ("message.max.bytes", size.to_string(), "max_message_size"),
            ("message.timeout.ms", timeout.as_millis().to_string(), "timeout"),
            ("partitioner", "murmur2_random".to_owned(), "partition_key"),
            ("queue.buffering.max.kbytes", BUFFERED_KIB.to_string(), "queue_size"),
        ];
        let set = config.signals.iter().fold(0_usize, |set, signal| {
            set | match signal {
                weir_config::Signal::Metrics => 1,
                weir_config::Signal::Logs => 2,
                weir_config::Signal::Traces => 4,
            }
        });
        Ok(Kafka {
            name: context.name.clone(),
            config: connection.client_config(&own)?,
            look: connection.client_config(&[])?,
            topics: config.topics()?,
            signals: SETS.get(set).copied().unwrap_or(&Signal::ALL),
            form: Form {
                encoding: match config.encoding {
                    MessageEncoding::Json => Encoding::Json,
                    MessageEncoding::OtlpProto => Encoding::Protobuf,
                },
                key: PartitionKey::parse(config.partition_key.trim()),
                limit_bytes: usize::try_from(size - FRAME_BYTES).unwrap_or(usize::MAX),
            },
            timeout,
            sender: Mutex::default(),
        })
    }

    fn takes(&self) -> Takes {
        Takes { signals: self.signals, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let sender = match self.sender() {
            Ok(sender) => sender,
            Err(why) => return Outcome::Later { after: None, why },
        };
        let topic = self.topic(delivery.signal);
        let mut attempt = Attempt::new(sender.clone(), topic, delivery.signal, self.form.encoding);
        let mut first = 0_u32;
        for payload in &delivery.payloads {
            self.form.write(payload, first, &mut |piece| attempt.send(piece));
            first = first.saturating_add(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        }
        let outcome = attempt.finish(delivery.len()).await;
        self.replace_if_fatal(sender);
        outcome
    }

    async fn check(&self) -> Result<String, Fault> {
        let (config, name, timeout) = (self.look.clone(), self.name.clone(), self.timeout);
        let topics: Vec<String> = self.signals.iter().map(|signal| self.topic(*signal).to_owned()).collect();
        let looked = tokio::task::spawn_blocking(move || look(&config, name, &topics, timeout)).await;
        looked.unwrap_or_else(|error| {
            Err(Fault::new(FaultKind::Other, format!("the look at the brokers ended: {error}")))
        })
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

    /// The topics in the order of [`Signal::ALL`].
    fn topics(&self) -> Result<[String; 3], Fault> {
        let named = [
            ("topic", &self.topic, Signal::Metrics),
            ("logs_topic", &self.logs_topic, Signal::Logs),
            ("traces_topic", &self.traces_topic, Signal::Traces),
        ];
        for (option, topic, _) in named {
            if let Some(why) = topic.as_deref().and_then(wrong_topic) {
                return Err(Fault::configuration(format!("{option}: {why}")));
            }
        }
        Ok(named.map(|(_, topic, signal)| topic.clone().unwrap_or_else(|| default_topic(signal).to_owned())))
    }
}

/// Why a text cannot be the name of a topic (`Topic.validate` of Kafka).
pub(super) fn wrong_topic(name: &str) -> Option<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_wrong = name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(is_legal);
    is_wrong.then(|| {
        format!("`{name}` cannot be the name of a topic: 1 to 249 ASCII letters, digits, dots, underscores and hyphens")
    })
}

impl Kafka {
    fn topic(&self, signal: Signal) -> &str {
        let [metrics, logs, traces] = &self.topics;
        match signal {
            Signal::Metrics => metrics,
            Signal::Logs => logs,
            Signal::Traces => traces,
        }
    }

    fn sender(&self) -> Result<Arc<Sender>, String> {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*sender {
            return Ok(sender.clone());
        }
        let voice = Arc::new(Voice::new(self.name.clone(), false));
        let made: Sender = self
            .config
            .create_with_context(Reports(voice))
            .map_err(|error| format!("librdkafka does not start with these options: {error}"))?;
        let made = Arc::new(made);
        *sender = Some(made.clone());
        Ok(made)
    }

    /// An idempotent producer that cannot say any more what was written refuses everything from then on.
    fn replace_if_fatal(&self, used: Arc<Sender>) {
        let Some((code, why)) = used.client().fatal_error() else { return };
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_some_and(|sender| Arc::ptr_eq(sender, &used)) {
            tracing::warn!("{}: the producer starts anew: {code}: {why}", self.name);
            retire(sender.take());
        }
        drop(sender);
        retire(Some(used));
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        retire(self.sender.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Ends a producer beside the asynchronous workers, because that waits for its threads.
fn retire(sender: Option<Arc<Sender>>) {
    if let Some(sender) = sender {
        std::thread::spawn(move || drop(sender));
    }
}

/// Looks at the topics as a reader, who never creates any.
fn look(
    config: &ClientConfig,
    name: Arc<str>,
    topics: &[String],
    timeout: std::time::Duration,
) -> Result<String, Fault> {
    let client: BaseConsumer<Voice> = config
        .create_with_context(Voice::new(name, false))
        .map_err(|error| Fault::configuration(format!("librdkafka does not start with these options: {error}")))?;
    let (mut found, mut brokers) = (Vec::new(), 0);
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), timeout).map_err(|error| unreachable(&client, &error))?;
        brokers = metadata.brokers().len();
        let seen = metadata.topics().iter().find(|seen| seen.name() == topic);
        match seen.and_then(|seen| seen.error()).map(Code::from) {
            Some(code) if judge::class(code) == Class::Unauthorized => {
                return Err(Fault::new(
                    FaultKind::Unauthorized,
                    format!("topic `{topic}`: {code}; give the user that right"),
                ));
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                found.push(format!("`{topic}` (not there yet: create it, unless the brokers do)"));
            }
            Some(code) => return Err(Fault::new(FaultKind::Other, format!("topic `{topic}`: {code}"))),
            None => {
                let partitions = seen.map_or(0, |seen| seen.partitions().len());
                found.push(format!("`{topic}` ({partitions} partitions)"));
            }
        }
    }
    Ok(format!("{brokers} brokers, topics {}", found.join(", ")))
}

/// Why no broker answered: the client knows more than the call.
fn unreachable(client: &BaseConsumer<Voice>, error: &rdkafka::error::KafkaError) -> Fault {
    // Serves the errors that came meanwhile.
    while client.poll(std::time::Duration::from_millis(10)).is_some() {}
    match client.context().trouble() {
        Some(trouble) if judge::class(trouble.code) == Class::Unauthorized => {
            Fault::new(FaultKind::Unauthorized, format!("{}: check `username` and `password`", trouble.reason))
        }
        Some(trouble) => Fault::new(FaultKind::Unreachable, trouble.reason),
        None => Fault::new(FaultKind::TimedOut, format!("no broker answers: {error}")),
    }
}
