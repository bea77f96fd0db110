//! One partition: hands in what it brought, several batches at once, and knows up to where all is settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use weir_model::Payload;
use weir_pipeline::{Answer, Intake, Stop};

use super::decode::{Decoded, Lines, Reading, Received};
use super::voice::Voice;

/// Batches of a partition that are under way at once. Several are needed where an answer means delivery.
const WINDOW: usize = 32;
/// Most messages that are made into one batch of log records.
const LINES: usize = 1024;

/// The name of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PartitionId {
    pub topic: Arc<str>,
    pub number: i32,
}

/// What all partitions of an instance share.
pub(super) struct Shared {
    pub voice: Arc<Voice>,
    pub reading: Reading,
    pub intake: Intake,
    pub stop: Stop,
    /// Messages that could not be decoded since the start.
    pub undecodable: AtomicU64,
    /// Told when a paused partition has room again.
    pub freed: mpsc::UnboundedSender<PartitionId>,
}

/// How far a partition is.
#[derive(Debug)]
pub(super) struct Progress {
    pub id: PartitionId,
    /// The offset before which everything is settled; -1 = nothing was settled yet.
    settled: AtomicI64,
    /// The offset whose commit was asked for last; -1 = none. The brokers may not have answered yet.
    asked: AtomicI64,
    /// The offset that the brokers noted last; -1 = none.
    committed: AtomicI64,
    /// Bytes of messages that are read and not settled.
    held_bytes: AtomicUsize,
    /// Whether no more is fetched for now.
    pub paused: AtomicBool,
}

impl Progress {
    pub(super) fn new(id: PartitionId) -> Progress {
        Progress {
            id,
            settled: AtomicI64::new(-1),
            asked: AtomicI64::new(-1),
            committed: AtomicI64::new(-1),
            held_bytes: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// A message was read. Bytes that are held now.
    pub(super) fn hold(&self, bytes: usize) -> usize {
        self.held_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Acquire)
    }

    /// The offset to ask a commit for, unless that was done already.
    pub(super) fn to_ask(&self) -> Option<i64> {
        self.settled_beyond(&self.asked)
    }

    /// The offset to commit, unless the brokers have noted it already: what was only asked for counts as open.
    pub(super) fn to_commit(&self) -> Option<i64> {
        self.settled_beyond(&self.committed)
    }

    fn settled_beyond(&self, done: &AtomicI64) -> Option<i64> {
        let settled = self.settled.load(Ordering::Acquire);
        (settled >= 0 && settled != done.load(Ordering::Acquire)).then_some(settled)
    }

    pub(super) fn note_asked(&self, offset: i64) {
        self.asked.store(offset, Ordering::Release);
    }

    pub(super) fn note_committed(&self, offset: i64) {
        self.committed.store(offset, Ordering::Release);
    }

    /// The last commit failed: it is made again.
    pub(super) fn forget_asked(&self) {
        self.asked.store(-1, Ordering::Release);
    }
}

/// Records that are handed in together, and the messages that they stand for.
struct Batch {
    payload: Option<Payload>,
    /// The offset after its last message.
    next: i64,
    bytes: usize,
}

/// Reads what `inbox` brings until it is closed or the pipeline stops; then waits for what is under way.
pub(super) async fn work(progress: Arc<Progress>, shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Received>) {
    let mut under_way: FuturesOrdered<BoxFuture<'static, Option<(i64, usize)>>> = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            () = shared.stop.wait() => break,
            Some(done) = under_way.next() => if !settle(&progress, &shared, done) { return },
            first = inbox.recv(), if under_way.len() < WINDOW => {
                let Some(first) = first else { break };
                for batch in gather(first, &mut inbox, &shared) {
                    under_way.push_back(hand_in(shared.clone(), batch));
                }
            }
        }
    }
    while let Some(done) = under_way.next().await {
        if !settle(&progress, &shared, done) {
            return;
        }
    }
}

/// Notes what is settled now; `false` if it was given back, so that nothing behind it counts.
fn settle(progress: &Progress, shared: &Shared, done: Option<(i64, usize)>) -> bool {
    let Some((next, bytes)) = done else { return false };
    progress.settled.store(next, Ordering::Release);
    progress.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
    if progress.paused.load(Ordering::Acquire) {
        // The run may have ended; then nobody fetches any more.
        let _ = shared.freed.send(progress.id.clone());
    }
    true
}

/// What waits in the inbox, as batches: requests alone, neighbouring log records together.
fn gather(first: Received, inbox: &mut mpsc::UnboundedReceiver<Received>, shared: &Shared) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut lines: Option<(Lines, Batch)> = None;
    let mut next_message = Some(first);
    let mut messages = 0;
    while let Some(message) = next_message {
        let (next, bytes) = (message.offset + 1, message.size_bytes());
        messages += 1;
        let error = match shared.reading.decode(&message) {
            Decoded::Request(payload) => {
                batches.extend(lines.take().map(finished));
                batches.push(Batch { payload: Some(payload), next, bytes });
                None
            }
            Decoded::Nothing => {
                batches.extend(lines.take().map(finished));
                batches.push(Batch { payload: None, next, bytes });
                None
            }
            Decoded::Line => Some(None),
            Decoded::Unreadable(why) => {
                note_undecodable(shared, &message, &why);
                Some(Some(why))
            }
        };
        if let Some(error) = error {
            let (builder, batch) =
                lines.get_or_insert_with(|| (Lines::default(), Batch { payload: None, next, bytes: 0 }));
            builder.add(&message, error.as_deref());
            batch.next = next;
            batch.bytes += bytes;
        }
        next_message = if messages < LINES && batches.len() < WINDOW { inbox.try_recv().ok() } else { None };
    }
    batches.extend(lines.take().map(finished));
    batches
}

fn finished((lines, batch): (Lines, Batch)) -> Batch {
    Batch { payload: Some(lines.finish()), ..batch }
}

fn note_undecodable(shared: &Shared, message: &Received, why: &str) {
    let count = shared.undecodable.fetch_add(1, Ordering::Relaxed) + 1;
    let Received { topic, partition, offset, .. } = message;
    let text = format!(
        "{topic} partition {partition} offset {offset} cannot be decoded and is kept as a log record: {why} ({count} so far)"
    );
    shared.voice.warn("UNDECODABLE", &text);
}

/// Offers a batch until it is taken. `None` if it was given back when the pipeline stopped.
fn hand_in(shared: Arc<Shared>, batch: Batch) -> BoxFuture<'static, Option<(i64, usize)>> {
    Box::pin(async move {
        let Batch { payload, next, bytes } = batch;
        let Some(payload) = payload else { return Some((next, bytes)) };
        loop {
            let after = match shared.intake.offer(payload.clone()).await {
                Answer::Stored => return Some((next, bytes)),
                Answer::Refused { records, why } => {
                    // They are counted in the ledger; the partition goes on.
                    shared.voice.warn("REFUSED", &format!("{records} records are refused: {why}"));
                    return Some((next, bytes));
                }
                Answer::Later { after, .. } => after,
            };
            tokio::select! {
                () = shared.stop.wait() => return None,
                () = tokio::time::sleep(after) => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_asked_for_again_only_when_it_failed_and_stays_open_until_it_is_confirmed() {
        let progress = Progress::new(PartitionId { topic: Arc::from("logs"), number: 3 });
        assert_eq!((progress.to_ask(), progress.to_commit()), (None, None));
        progress.settled.store(7, Ordering::Release);
        assert_eq!(progress.to_ask(), Some(7));
        progress.note_asked(7);
        assert_eq!((progress.to_ask(), progress.to_commit()), (None, Some(7)), "a stop now commits it all the same");
        progress.forget_asked();
        assert_eq!(progress.to_ask(), Some(7));
        progress.note_asked(7);
        progress.note_committed(7);
        assert_eq!((progress.to_ask(), progress.to_commit()), (None, None));
        progress.settled.store(8, Ordering::Release);
        assert_eq!((progress.to_ask(), progress.to_commit()), (Some(8), Some(8)));
    }
}
