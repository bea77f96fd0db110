//! Sends the messages of one attempt and waits for their delivery reports.
//!
//! librdkafka answers for every message, at the latest after `message.timeout.ms`; until then it sends a
//! message again by itself, and the idempotent producer (KIP-98) keeps it from being written twice.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::mpsc;
use weir_model::{Encoding, Signal};
use weir_pipeline::Outcome;

use super::judge::{self, Failure};
use super::message::{Message, Piece};
use super::voice::Voice;
use super::{CONTENT_TYPE, SIGNAL, content_type};

/// A producer of librdkafka, its reports served by a thread of its own.
pub(super) type Sender = ThreadedProducer<Reports>;

/// Passes delivery reports on to the attempts that wait for them.
pub(super) struct Reports(pub Arc<Voice>);

/// Travels with a message through librdkafka.
pub(super) struct Ticket {
    /// Which message of the attempt it is.
    index: usize,
    answers: mpsc::UnboundedSender<(usize, Result<(), Code>)>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let answer = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        if answer.is_ok() {
            self.0.clear();
        }
        let heard = ticket.answers.send((ticket.index, answer));
        if heard.is_err() && answer.is_ok() {
            self.0.warn(
                "LATE",
                "a message was written after its attempt had been given up; if its records are sent again they are there twice",
            );
        }
    }
}

/// One attempt to deliver.
pub(super) struct Attempt {
    sender: Arc<Sender>,
    name: Arc<str>,
    topic: String,
    headers: OwnedHeaders,
    /// Positions of the records of each message that was sent; emptied when it is answered.
    sent: Vec<Vec<u32>>,
    unanswered: usize,
    failures: Vec<Failure>,
    refused: Vec<(u32, String)>,
    answers: mpsc::UnboundedReceiver<(usize, Result<(), Code>)>,
    answer_here: mpsc::UnboundedSender<(usize, Result<(), Code>)>,
}

impl Attempt {
    /// An attempt that has sent nothing yet.
    pub(super) fn new(sender: Arc<Sender>, topic: &str, signal: Signal, encoding: Encoding) -> Attempt {
        let (answer_here, answers) = mpsc::unbounded_channel();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: CONTENT_TYPE, value: Some(content_type(encoding)) })
            .insert(Header { key: SIGNAL, value: Some(signal.name()) });
        Attempt {
            name: sender.context().0.name.clone(),
            sender,
            topic: topic.to_owned(),
            headers,
            sent: Vec::new(),
            unanswered: 0,
            failures: Vec::new(),
            refused: Vec::new(),
            answers,
            answer_here,
        }
    }

    /// Hands a message to librdkafka, or notes what cannot be one.
    pub(super) fn send(&mut self, piece: Piece) {
        let Message { key, body, positions } = match piece {
            Piece::Message(message) => message,
            Piece::Refused(position, why) => return self.refused.push((position, why)),
        };
        let ticket = Box::new(Ticket { index: self.sent.len(), answers: self.answer_here.clone() });
        let record: BaseRecord<'_, str, [u8], Box<Ticket>> =
            BaseRecord::with_opaque_to(&self.topic, ticket).payload(&body[..]).headers(self.headers.clone());
        let record = match &key {
            Some(key) => record.key(key.as_str()),
            None => record,
        };
        match self.sender.send(record) {
            Ok(()) => {
                self.sent.push(positions);
                self.unanswered += 1;
            }
            Err((error, _)) => self.fail(positions, error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        }
    }

    fn fail(&mut self, positions: Vec<u32>, code: Code) {
        self.failures.push(Failure { positions, code, topic: self.topic.clone() });
    }

    /// Waits for all reports; what became of the `records` records of the delivery.
    pub(super) async fn finish(mut self, records: usize) -> Outcome {
        while self.unanswered > 0 {
            // This attempt holds a sender itself, so the channel stays open.
            let Some((index, answer)) = self.answers.recv().await else { break };
            self.unanswered -= 1;
            let positions = self.sent.get_mut(index).map(std::mem::take).unwrap_or_default();
            if let Err(code) = answer {
                self.fail(positions, code);
            }
        }
        let doubtful = self.failures.iter().filter(|failure| judge::may_be_written(failure.code)).count();
        if doubtful > 0 {
            tracing::info!(
                "{}: the brokers did not say whether {doubtful} messages were written; they are sent again and may be there twice",
                self.name
            );
        }
        let trouble = self.sender.context().0.trouble();
        judge::outcome(records, &self.failures, std::mem::take(&mut self.refused), trouble.as_ref())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.unanswered == 0 {
            return;
        }
        // What was not even sent is taken back, so that it cannot come twice.
        self.sender.purge(PurgeConfig::default().queue());
        tracing::warn!(
            "{}: an attempt was given up while {} messages were under way; if their records are sent again they may be there twice",
            self.name,
            self.unanswered
        );
    }
}
