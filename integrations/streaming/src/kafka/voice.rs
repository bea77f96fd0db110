//! What librdkafka says: its log lines go through `tracing`, its last error explains why messages time out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// The same kind of line is said at most this often; in between it goes to the level of debugging.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// An error of the client as a whole, such as a broker that is away.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// What it is.
    pub code: RDKafkaErrorCode,
    /// librdkafka's words, which name the broker.
    pub reason: String,
}

/// The ear of one client.
#[derive(Debug)]
pub(super) struct Voice {
    /// The integration instance.
    pub name: Arc<str>,
    /// Whether errors are warnings; those of an exporter are its outcomes, which are told anyway.
    warns: bool,
    trouble: Mutex<Option<Trouble>>,
    said: Mutex<HashMap<String, Instant>>,
}

impl Voice {
    pub(super) fn new(name: Arc<str>, warns: bool) -> Voice {
        Voice { name, warns, trouble: Mutex::default(), said: Mutex::default() }
    }

    /// The last error since a message was written.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All is well again.
    pub(super) fn clear(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether this kind of line was not said lately.
    fn is_news(&self, kind: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.get(kind).is_none_or(|at| at.elapsed() > SAID_AGAIN);
        if is_new {
            said.insert(kind.to_owned(), Instant::now());
        }
        is_new
    }

    /// Warns, at most once a minute about the same kind of thing.
    pub(super) fn warn(&self, kind: &str, text: &str) {
        if self.is_news(kind) {
            tracing::warn!("{}: {text}", self.name);
        } else {
            tracing::debug!("{}: {text}", self.name);
        }
    }
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let name = &self.name;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!("{name}: librdkafka: {facility} {line}");
            }
            // Failed connections come as errors too (see `error`), once for all their log lines.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
                if !matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "GETPID") =>
            {
                self.warn(facility, &format!("librdkafka: {facility} {line}"));
            }
            _ => tracing::debug!("{name}: librdkafka: {facility} {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        tracing::debug!("{}: {code:?}: {reason}", self.name);
        if self.warns {
            self.warn(&format!("{code:?}"), reason);
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" says less than the error before it, which names one.
        if code != RDKafkaErrorCode::AllBrokersDown || trouble.is_none() {
            *trouble = Some(Trouble { code, reason: reason.to_owned() });
        }
    }
}

impl ConsumerContext for Voice {}
