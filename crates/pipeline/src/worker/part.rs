//! A part of a delivery: the records of one entry of the queue, or a piece of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;
use weir_model::metrics::Metrics;
use weir_model::otlp::encode_protobuf;
use weir_model::{Batch, Encoding, Payload, Receipt, Records, Verdict, Wire};
use weir_net::AnswerNote;

use crate::dead_letters::Letter;
use crate::ledger::{Account, Reason};
use crate::queue::{Hold, Queue, Taken};

/// One payload, its receipt and the account it is counted in.
#[derive(Debug)]
pub struct Part {
    /// Its records.
    pub payload: Payload,
    /// When they came.
    pub since: Instant,
    origin: Arc<str>,
    receipt: Receipt,
    account: Account,
    /// Whether its temporality was converted. Sent again, the same points would be out of order
    /// and give nothing, so this part is delivered even if its sender gave up waiting.
    is_converted: bool,
    /// Whether it is all of its entry, and nothing of it is settled.
    is_whole: bool,
    /// Whether the receipt is that of a queue on disk; see [`Queue::is_durable`].
    is_durable: bool,
    /// Records of the same batch that were refused, once it has been split.
    refused_before: Option<Arc<AtomicU64>>,
    /// Keeps the queue's bytes accounted for until this part is settled.
    hold: Arc<Hold>,
}

impl Part {
    /// An entry of a queue.
    pub fn new(taken: Taken, is_durable: bool) -> Self {
        let Taken { batch: Batch { origin, payload, receipt }, account, since, hold } = taken;
        let (is_converted, is_whole, refused_before) = (false, true, None);
        Self { payload, since, origin, receipt, account, is_converted, is_whole, is_durable, refused_before, hold }
    }

    /// How many records.
    pub fn records(&self) -> u64 {
        self.payload.len() as u64
    }

    /// Whether it can go back to its queue as if it had never been taken.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Its sender gave up and sends it again: delivering this copy too would only double it.
    pub fn is_withdrawn(&self) -> bool {
        !self.is_converted && self.receipt.is_withdrawn()
    }

    /// Whether its source hears of a refusal and can act on it: then the source has the record, and it
    /// is no dead letter.
    fn is_heard(&self) -> bool {
        !self.is_durable && self.receipt.is_claimed()
    }

    /// The same metrics in another temporality, which may leave out some of their points; `None` if it
    /// leaves nothing.
    pub fn converted(mut self, convert: impl FnOnce(Metrics) -> Metrics) -> Option<Part> {
        let before = self.records();
        // Taken apart, not copied, where nobody else holds it.
        let taken = std::mem::replace(&mut self.payload, Payload::from_records(Records::Metrics(Metrics::default())));
        self.payload = Payload::from_records(match taken.into_records() {
            Ok(Records::Metrics(metrics)) => Records::Metrics(convert(metrics)),
            // Neither can be: whoever converts metrics has read them.
            Ok(other) => other,
            Err(_) => Records::Metrics(Metrics::default()),
        });
        self.is_converted = true;
        let left_out = before.saturating_sub(self.records());
        if left_out > 0 {
            self.account.drop_in_flight(left_out, Reason::Temporality);
            self.is_whole = false;
        }
        if self.payload.is_empty() {
            self.receipt.settle(Verdict::Delivered);
            return None;
        }
        Some(self)
    }

    /// The backend has it.
    pub fn delivered(self) {
        self.account.deliver(self.records());
        self.receipt.settle(Verdict::Delivered);
    }

    /// Dropped by Weir. A source that can must send it again; a queue on disk must not give it again.
    pub fn given_up(self, reason: Reason) {
        self.account.drop_in_flight(self.records(), reason);
        self.receipt.settle(if self.is_durable { Verdict::Delivered } else { Verdict::Retry });
    }

    /// Weir stops before it was delivered. On disk it stays; elsewhere the source must send it again if it can.
    pub fn stopped(self) {
        if !self.is_durable {
            self.account.drop_in_flight(self.records(), Reason::Stopped);
        }
        self.receipt.settle(Verdict::Retry);
    }

    /// Back to its queue, for another worker. A queue on disk has the entry of a piece, and gives it again whole.
    pub fn give_back(mut self, queue: &dyn Queue) {
        if self.is_durable && !self.is_whole {
            self.receipt.settle(Verdict::Retry);
            return;
        }
        if self.is_converted && self.receipt.is_withdrawn() {
            // The next worker would drop it, although it cannot be made again.
            self.receipt.settle(Verdict::Retry);
            self.receipt = Receipt::unclaimed();
        }
        let batch = Batch { origin: self.origin, payload: self.payload, receipt: self.receipt };
        queue.give_back(Taken { batch, account: self.account, since: self.since, hold: self.hold });
    }

    /// Some of its records, with a claim of their own.
    fn piece(&mut self, payload: Payload) -> Part {
        let refused_before = self.refused_before.get_or_insert_default().clone();
        Part {
            payload,
            since: self.since,
            origin: self.origin.clone(),
            receipt: self.receipt.split(),
            account: self.account.clone(),
            is_converted: self.is_converted,
            is_whole: false,
            is_durable: self.is_durable,
            refused_before: Some(refused_before),
            hold: self.hold.clone(),
        }
    }

    /// Two halves of the records; itself if there is one only, or if they cannot be read.
    fn halves(mut self) -> Result<(Part, Part), Part> {
        let Some(middle) = Some(self.payload.len() / 2).filter(|middle| *middle > 0) else { return Err(self) };
        let Ok(records) = self.payload.records() else { return Err(self) };
        let (first, second) = records.split_at(middle);
        let halves = (self.piece(own(first)), self.piece(own(second)));
        // This part's own claim lives on in its halves.
        self.receipt.settle(Verdict::Delivered);
        Ok(halves)
    }

    /// All of it was refused.
    pub fn refused(self, because: &Because) -> Refusal {
        let refused = self.records();
        Refusal { part: self, delivered: 0, refused, because: because.clone() }
    }

    /// So many of its records were refused, and nobody knows which.
    pub fn partly_refused(self, refused: u64, because: &Because) -> Refusal {
        let refused = refused.min(self.records());
        Refusal { delivered: self.records() - refused, part: self, refused, because: because.clone() }
    }

    /// The backend took all records but those at the positions `refused`, each for its reason, and those
    /// at the positions `later`; both are in order. Gives the refusals, and what is to be sent again.
    /// `keeps` says whether refused records are kept, so that each must be told from the others.
    pub fn settle_each(
        mut self,
        refused: &[(usize, &str)],
        later: &[usize],
        because: &Because,
        keeps: bool,
    ) -> (Vec<Refusal>, Option<Part>) {
        let Some((_, first_why)) = refused.first() else { return (Vec::new(), self.without_taken(later)) };
        let alike = refused.iter().all(|(_, why)| why == first_why);
        if alike && refused.len() == self.payload.len() {
            return (vec![self.refused(&because.with(first_why))], None);
        }
        // Who names records has read them, so this is an error of Weir: all are sent again.
        let payload = self.payload.clone();
        let Ok(records) = payload.records() else { return (Vec::new(), Some(self)) };
        let mut refusals = Vec::new();
        if !keeps || self.is_heard() {
            let (part, refused) = (self.piece(payload.clone()), refused.len() as u64);
            refusals.push(Refusal { part, delivered: 0, refused, because: because.with(first_why) });
        } else {
            let mut alike = BTreeMap::<&str, Vec<usize>>::new();
            refused.iter().for_each(|(at, why)| alike.entry(why).or_default().push(*at));
            for (why, at) in alike {
                let payload = own(records.select(|position| at.binary_search(&position).is_ok()));
                refusals.push(self.piece(payload).refused(&because.with(why)));
            }
        }
        self.is_whole = false;
        let taken = self.payload.len().saturating_sub(refused.len() + later.len());
        if later.is_empty() {
            self.account.deliver(taken as u64);
            self.receipt.settle(Verdict::Delivered);
            return (refusals, None);
        }
        self.account.deliver(taken as u64);
        self.payload = Payload::from_records(records.select(|position| later.binary_search(&position).is_ok()));
        (refusals, Some(self))
    }

    /// What is left when all was taken but the records at the positions `later`.
    fn without_taken(mut self, later: &[usize]) -> Option<Part> {
        if later.is_empty() {
            self.delivered();
            return None;
        }
        // Without its records a part can only be sent again whole.
        let Ok(records) = self.payload.records() else { return Some(self) };
        if later.len() == records.len() {
            return Some(self);
        }
        let left = records.select(|position| later.binary_search(&position).is_ok());
        self.account.deliver(self.records().saturating_sub(left.len() as u64));
        (self.payload, self.is_whole) = (Payload::from_records(left), false);
        Some(self)
    }
}

/// Two halves of what was refused or too large: batches first, then the records of one. The same if
/// there is nothing to halve.
pub fn halve(mut parts: Vec<Part>) -> Result<(Vec<Part>, Vec<Part>), Vec<Part>> {
    if parts.len() > 1 {
        let second = parts.split_off(parts.len() / 2);
        return Ok((parts, second));
    }
    let Some(part) = parts.pop() else { return Err(parts) };
    part.halves().map(|(first, second)| (vec![first], vec![second])).map_err(|part| vec![part])
}

/// A payload of some records that does not hold the text of the others too. What metrics share is
/// shared among the payloads as well.
fn own(records: Records) -> Payload {
    match records {
        Records::Metrics(_) => Payload::from_records(records),
        Records::Logs(_) | Records::Traces(_) => {
            let wire = Wire { encoding: Encoding::Protobuf, bytes: encode_protobuf(&records) };
            Payload::from_wire(records.signal(), wire, records.len())
        }
    }
}

/// Why records were refused.
#[derive(Clone, Debug)]
pub struct Because {
    /// How they are counted if they are not kept.
    pub reason: Reason,
    /// In the words of the backend.
    pub why: String,
    /// The answer.
    pub answer: Option<Arc<AnswerNote>>,
}

impl Because {
    fn with(&self, why: &str) -> Because {
        Because { why: why.to_owned(), ..self.clone() }
    }
}

/// Records that were refused for good, and are in flight until they are kept or counted.
#[derive(Debug)]
pub struct Refusal {
    part: Part,
    /// Records of the part that the backend took.
    delivered: u64,
    /// Records that it refused.
    refused: u64,
    /// Why.
    pub because: Because,
}

impl Refusal {
    /// Whether the source has them still, and hears that they were refused.
    pub fn is_heard(&self) -> bool {
        self.part.is_heard()
    }

    /// How many records were refused.
    pub fn records(&self) -> u64 {
        self.refused
    }

    /// The letter of an exporter that keeps them.
    pub fn letter(&self, exporter: &Arc<str>) -> Letter {
        // The head of a success alone says nothing.
        let says_something =
            |note: &&AnswerNote| note.status >= 300 || note.grpc_status.is_some() || !note.excerpt.is_empty();
        let answer = self.because.answer.as_deref().filter(says_something);
        Letter {
            source: self.part.origin.clone(),
            exporter: exporter.clone(),
            payload: self.part.payload.clone(),
            refused: self.refused,
            reason: self.because.why.clone(),
            // That of a failed gRPC call is a success, which is none.
            status: answer.filter(|note| note.grpc_status.is_none()).map(|note| note.status),
            grpc_status: answer.and_then(|note| note.grpc_status.clone()),
            answer: answer.map(|note| note.excerpt.clone()),
        }
    }

    /// They are kept.
    pub fn kept(self) {
        self.part.account.deliver(self.delivered);
        self.part.account.dead_letter(self.refused);
        self.tell();
    }

    /// They are dropped.
    pub fn dropped(self) {
        self.part.account.deliver(self.delivered);
        self.part.account.drop_in_flight(self.refused, self.because.reason);
        self.tell();
    }

    /// Refused records of the pieces of one batch add up for its source.
    fn tell(self) {
        let before = self.part.refused_before.map_or(0, |before| before.fetch_add(self.refused, Ordering::Relaxed));
        self.part.receipt.refuse(before + self.refused, &self.because.why);
    }

    /// Nothing is decided: the part as it was sent.
    pub fn into_part(self) -> Part {
        self.part
    }

    /// Weir stops before they were kept.
    pub fn stopped(self) {
        if !self.part.is_durable {
            self.part.account.deliver(self.delivered);
            self.part.account.drop_in_flight(self.refused, Reason::Stopped);
        }
        self.part.receipt.settle(Verdict::Retry);
    }
}
