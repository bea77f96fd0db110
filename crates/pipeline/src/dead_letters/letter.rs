//! What a dead letter is, for those who ask for one.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weir_model::{Encoding, Payload, Signal, Wire};

/// Of an id, the bits behind its time: a million letters per millisecond.
const SEQUENCE_BITS: u32 = 20;

/// The name of a dead letter: 16 hexadecimal digits, which sort by the time of the first refusal. No
/// two letters of a store ever have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

impl Id {
    /// Before every other.
    pub(super) const FIRST: Id = Id(0);
    /// Behind every other.
    pub(super) const LAST: Id = Id(u64::MAX);

    /// The smallest id of a moment, in unix milliseconds.
    pub(super) fn at(unix_ms: i64) -> Self {
        let ms = u64::try_from(unix_ms).unwrap_or_default();
        Self(ms.min(u64::MAX >> SEQUENCE_BITS) << SEQUENCE_BITS)
    }

    pub(super) fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is not the id of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not the id of a dead letter: expected 16 hexadecimal digits, as the list of dead letters shows them"
)]
pub struct NotAnId(String);

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| NotAnId(text.chars().take(40).collect()))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A signal, as JSON says it.
pub(crate) fn signal_schema() -> utoipa::openapi::Object {
    let names = Signal::ALL.map(Signal::name);
    utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String).enum_values(Some(names)).build()
}

fn signal_name<S: Serializer>(signal: &Signal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(signal.name())
}

/// A dead letter without its records.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = DeadLetter)]
pub struct Summary {
    /// Its name, which sorts by time.
    #[schema(value_type = String)]
    pub id: Id,
    /// The exporter whose backend refused it.
    pub exporter: String,
    /// Where the records came from.
    pub source: String,
    /// `metrics`, `logs` or `traces`.
    #[serde(serialize_with = "signal_name")]
    #[schema(schema_with = signal_schema)]
    pub signal: Signal,
    /// How many records were refused.
    pub records: u64,
    /// How many records are kept: more than `records` where the backend did not say which it refused.
    pub of: u64,
    /// Why they were refused the last time, in one line.
    pub reason: String,
    /// The HTTP status of the last answer.
    #[schema(required)]
    pub status: Option<u16>,
    /// The gRPC status of the last answer, if it was one of gRPC; the HTTP status is missing then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "INVALID_ARGUMENT (3)")]
    pub grpc_status: Option<String>,
    /// The beginning of the last answer, at most 1 KiB.
    #[schema(required)]
    pub answer: Option<String>,
    /// When they were refused first, unix milliseconds.
    pub first_ms: i64,
    /// When they were refused last, unix milliseconds.
    pub last_ms: i64,
    /// How often they were refused.
    pub times: u64,
    /// What the letter takes, in bytes.
    pub bytes: u64,
}

/// A dead letter with its records, to be looked at.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = DeadLetterWithRecords)]
pub struct Stored {
    /// The letter.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its records as an OTLP/JSON export request.
    #[schema(value_type = Object)]
    pub payload: serde_json::Value,
}

/// A dead letter with its records, to be sent.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The letter.
    pub summary: Summary,
    /// Its records.
    pub payload: Payload,
}

impl Kept {
    /// The letter, to be looked at.
    ///
    /// # Errors
    /// [`weir_model::DecodeError`] if the records cannot be read.
    pub fn into_stored(self) -> Result<Stored, weir_model::DecodeError> {
        let json = self.payload.to_json()?;
        // A record that is nested more deeply than serde_json reads is shown as the text that it is.
        let payload = serde_json::from_slice(&json)
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&json).into_owned()));
        Ok(Stored { summary: self.summary, payload })
    }

    /// The letter as one line of JSON, without line end: an OTLP/JSON export request with one more
    /// member, `weir.dead_letter`, which holds the [`Summary`]. Readers of OTLP/JSON ignore members
    /// that they do not know (OTLP 1.9, "JSON Protobuf Encoding"), so each line can be posted to
    /// `/v1/logs`, `/v1/metrics` or `/v1/traces` of Weir and of others as it is.
    ///
    /// # Errors
    /// [`weir_model::DecodeError`] if the records cannot be read.
    pub fn to_line(&self) -> Result<String, weir_model::DecodeError> {
        let summary = serde_json::json!(self.summary);
        let json = self.payload.to_json()?;
        let json = String::from_utf8_lossy(&json);
        let open = json.trim_end().strip_suffix('}').unwrap_or_default().trim_end();
        let comma = if open.ends_with('{') { "" } else { "," };
        Ok(format!("{open}{comma}\"weir.dead_letter\":{summary}}}").replace(['\n', '\r'], " "))
    }
}

/// Letters by what their records are, where they came from and where they were to go; of what is not said, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Of this exporter.
    pub exporter: Option<String>,
    /// From this source.
    pub source: Option<String>,
    /// Of this signal.
    pub signal: Option<Signal>,
}

/// Which dead letters to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of these.
    pub scope: Scope,
    /// Older than this one: the last of the page before.
    pub before: Option<Id>,
    /// At most so many.
    pub limit: usize,
}

impl Scope {
    pub(super) fn takes(&self, exporter: &str, source: &str, signal: Signal) -> bool {
        self.exporter.as_deref().is_none_or(|wanted| wanted == exporter)
            && self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.signal.is_none_or(|wanted| wanted == signal)
    }
}

/// A page of the list, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The letters.
    pub letters: Vec<Summary>,
    /// How many letters the filter takes on all pages.
    pub total: u64,
    /// What they take, in bytes.
    pub bytes: u64,
}

/// Which dead letters to drop, replay or export.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These; those that are not there are passed over.
    Ids(Vec<Id>),
    /// All of these.
    Of(Scope),
    /// All.
    All,
}

/// What is stored of a letter beside its records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub exporter: String,
    pub source: String,
    pub signal: String,
    /// Whether the payload is OTLP/JSON: only where it could not be turned into protobuf.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub json: bool,
    pub records: u64,
    pub of: u64,
    pub reason: String,
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    pub answer: Option<String>,
    pub first_ms: i64,
    pub last_ms: i64,
    pub times: u64,
    pub payload_bytes: u64,
}

impl Head {
    /// The signal, if this version knows it.
    pub fn signal(&self) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.name() == self.signal)
    }

    /// The letter of an id whose head takes `head_bytes`.
    pub fn summary(self, id: Id, signal: Signal, head_bytes: usize) -> Summary {
        Summary {
            id,
            exporter: self.exporter,
            source: self.source,
            signal,
            records: self.records,
            of: self.of,
            reason: self.reason,
            status: self.status,
            grpc_status: self.grpc_status,
            answer: self.answer,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            times: self.times,
            bytes: self.payload_bytes.saturating_add(head_bytes as u64),
        }
    }

    /// The records, from the bytes stored for them.
    pub fn payload(&self, signal: Signal, bytes: Bytes) -> Payload {
        let encoding = if self.json { Encoding::Json } else { Encoding::Protobuf };
        Payload::from_wire(signal, Wire { encoding, bytes }, usize::try_from(self.of).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_as_text_and_come_back_from_text() {
        let ids = [Id::FIRST, Id::at(-5).next(), Id::at(1_760_000_000_000), Id::at(1_760_000_000_000).next(), Id::LAST];
        let texts: Vec<String> = ids.iter().map(Id::to_string).collect();
        assert!(texts.is_sorted());
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*id));
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text} fits a path");
        }
    }

    #[test]
    fn other_text_is_no_id_and_the_error_says_what_one_looks_like() {
        for text in ["", "12", "+123456789abcdef", "0123456789abcdeg", "0123456789abcdef0", "../../etc/passwd"] {
            let error = text.parse::<Id>().unwrap_err();
            assert!(error.to_string().contains("16 hexadecimal digits"), "{error}");
        }
    }
}
