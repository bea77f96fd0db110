//! From messages to records: OTLP requests as they are, text as log records, and what cannot be read as log
//! records too, so that nothing is lost.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::logs::{LogRecord, Logs};
use weir_model::{Attribute, Encoding, Payload, Records, Resource, Scope, Signal, Text, Value, otlp};

use super::{CONTENT_TYPE, SIGNAL, content_type};

/// What messages hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum MessageEncoding {
    /// Found out message by message.
    #[default]
    Auto,
    /// OTLP requests as JSON.
    #[serde(alias = "otlp_json")]
    Json,
    /// OTLP requests as binary protobuf.
    OtlpProto,
    /// Text, one log record per message.
    #[serde(alias = "raw")]
    Text,
}

/// A message, off librdkafka's hands.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone: it deletes the key in compacted topics.
    pub body: Option<Bytes>,
    /// Milliseconds since 1970, if the message has a time.
    pub time_unix_milli: Option<i64>,
    pub content_type: Option<String>,
    pub signal: Option<Signal>,
}

impl Received {
    pub(super) fn new(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Received {
        let header = |name: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|header| header.key.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8_lossy(found.value?).into_owned())
        };
        Received {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(Bytes::copy_from_slice),
            body: message.payload().map(Bytes::copy_from_slice),
            time_unix_milli: message.timestamp().to_millis(),
            content_type: header(CONTENT_TYPE),
            signal: header(SIGNAL).and_then(|name| signal_named(&name)),
        }
    }

    /// Bytes that it holds.
    pub(super) fn size_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len) + self.key.as_ref().map_or(0, Bytes::len) + size_of::<Received>()
    }
}

/// What a message is.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Nothing to be kept: a tombstone or a request without records.
    Nothing,
    /// An OTLP request.
    Request(Payload),
    /// A log record with the message as its body.
    Line,
    /// A log record with the message as its body, because it is not what it should be.
    Unreadable(String),
}

/// How messages are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub encoding: MessageEncoding,
    /// The signal of messages that do not say it themselves.
    pub signal: Option<Signal>,
}

impl Reading {
    pub(super) fn decode(&self, message: &Received) -> Decoded {
        let Some(body) = &message.body else { return Decoded::Nothing };
        let certain = match self.encoding {
            MessageEncoding::Text => return Decoded::Line,
            MessageEncoding::Json => Encoding::Json,
            MessageEncoding::OtlpProto => Encoding::Protobuf,
            MessageEncoding::Auto => match said_encoding(message) {
                Some(encoding) => encoding,
                None => return self.guess(message, body),
            },
        };
        let signal = match certain {
            Encoding::Json => self.signal_of(message).or_else(|| signal_of_json(body)),
            Encoding::Protobuf => self.signal_of(message),
        };
        let Some(signal) = signal else {
            return Decoded::Unreadable(
                "nothing says which signal it is: neither a header `signal` nor the topic's name; set `signal`"
                    .to_owned(),
            );
        };
        match otlp::accept(signal, certain, body.clone()) {
            Ok(payload) if payload.is_empty() => Decoded::Nothing,
            Ok(payload) => Decoded::Request(payload),
            Err(error) => Decoded::Unreadable(format!("it is no OTLP request for {}: {error}", signal.name())),
        }
    }

    /// A message that does not say what it is: OTLP where it can be read as that and holds records, else text.
    fn guess(&self, message: &Received, body: &Bytes) -> Decoded {
        let (signal, encoding) = match signal_of_json(body) {
            Some(signal) => (Some(signal), Encoding::Json),
            None => (self.signal_of(message), Encoding::Protobuf),
        };
        let accepted = signal.and_then(|signal| otlp::accept(signal, encoding, body.clone()).ok());
        match accepted {
            Some(payload) if !payload.is_empty() => Decoded::Request(payload),
            _ => Decoded::Line,
        }
    }

    fn signal_of(&self, message: &Received) -> Option<Signal> {
        message.signal.or(self.signal).or_else(|| signal_of_topic(&message.topic))
    }
}

fn said_encoding(message: &Received) -> Option<Encoding> {
    let said = message.content_type.as_deref()?;
    let essence = said.split(';').next()?.trim().to_ascii_lowercase();
    // JSON can be anything; OTLP is what has its name or its shape.
    match essence.as_str() {
        "application/protobuf" => Some(Encoding::Protobuf),
        name if name == content_type(Encoding::Protobuf) => Some(Encoding::Protobuf),
        name if name == content_type(Encoding::Json) && message.signal.is_some() => Some(Encoding::Json),
        _ => None,
    }
}

fn signal_named(name: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| signal.name().eq_ignore_ascii_case(name.trim()))
}

/// The signal that the name of a topic ends or begins with, for example `otlp_spans` or `telemetryflow-logs`.
fn signal_of_topic(topic: &str) -> Option<Signal> {
    const WORDS: [(&str, Signal); 7] = [
        ("metrics", Signal::Metrics),
        ("metric", Signal::Metrics),
        ("logs", Signal::Logs),
        ("log", Signal::Logs),
        ("traces", Signal::Traces),
        ("spans", Signal::Traces),
        ("trace", Signal::Traces),
    ];
    let words = || topic.split(['.', '_', '-']);
    let of = |word: &str| WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, signal)| *signal);
    words().next_back().and_then(of).or_else(|| words().next().and_then(of))
}

/// The signal of an OTLP/JSON request: it is an object whose first key names it.
fn signal_of_json(body: &[u8]) -> Option<Signal> {
    let rest = body.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let names = [
        ("resourceMetrics", Signal::Metrics),
        ("resource_metrics", Signal::Metrics),
        ("resourceLogs", Signal::Logs),
        ("resource_logs", Signal::Logs),
        ("resourceSpans", Signal::Traces),
        ("resource_spans", Signal::Traces),
    ];
    let found =
        names.iter().find(|(name, _)| rest.strip_prefix(name.as_bytes()).is_some_and(|it| it.starts_with(b"\"")));
    found.map(|(_, signal)| *signal)
}

/// Log records made of messages.
pub(super) struct Lines {
    logs: Logs,
    keys: [Text; 7],
}

/// The attributes of such a record, by the semantic conventions for messaging.
const KEYS: [&str; 7] = [
    "messaging.system",
    "messaging.destination.name",
    "messaging.destination.partition.id",
    "messaging.kafka.offset",
    "messaging.kafka.message.key",
    "error.type",
    "error.message",
];

impl Default for Lines {
    fn default() -> Self {
        let mut logs = Logs::default();
        logs.common.resources.push(Resource::default());
        let name = logs.common.arena.add(b"kafka_consumer");
        logs.common.scopes.push(Scope { present: true, name, ..Scope::default() });
        let keys = KEYS.map(|key| logs.common.arena.add(key.as_bytes()));
        Lines { logs, keys }
    }
}

impl Lines {
    /// Adds a message; `error` says why it is here although it should be something else.
    pub(super) fn add(&mut self, message: &Received, error: Option<&str>) {
        let body = message.body.as_deref().unwrap_or_default();
        let [system, topic, partition, offset, key, error_type, error_message] = self.keys;
        let start = self.logs.common.attributes.len();
        self.set(system, "kafka");
        self.set(topic, &message.topic);
        self.set(partition, &message.partition.to_string());
        self.logs.common.attributes.push(Attribute { key: offset, value: Value::Int(message.offset) });
        if let Some(of_message) = &message.key {
            let value = self.value(of_message);
            self.logs.common.attributes.push(Attribute { key, value });
        }
        if let Some(why) = error {
            self.set(error_type, "decode");
            self.set(error_message, why);
        }
        let attributes = self.logs.common.attributes_since(start);
        let milli = message.time_unix_milli.and_then(|time| u64::try_from(time).ok()).unwrap_or(0);
        let body = self.value(body);
        self.logs.records.push(LogRecord {
            time_unix_nano: milli.saturating_mul(1_000_000),
            observed_time_unix_nano: now_unix_nano(),
            body,
            attributes,
            ..LogRecord::default()
        });
    }

    fn set(&mut self, key: Text, text: &str) {
        let value = Value::String(self.logs.common.arena.add(text.as_bytes()));
        self.logs.common.attributes.push(Attribute { key, value });
    }

    /// Text where it is that, else bytes.
    fn value(&mut self, bytes: &[u8]) -> Value {
        let text = self.logs.common.arena.add(bytes);
        if std::str::from_utf8(bytes).is_ok() { Value::String(text) } else { Value::Bytes(text) }
    }

    pub(super) fn finish(self) -> Payload {
        Payload::from_records(Records::Logs(self.logs))
    }
}

fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}
