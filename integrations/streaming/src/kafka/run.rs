//! The running consumer: reads messages, hands them to their partitions, pauses those that have too much in
//! hand, and commits what is settled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use weir_pipeline::{Fault, FaultKind, Intake, Stop};

use super::decode::{Reading, Received};
use super::partition::{self, PartitionId, Progress, Shared};
use super::voice::Voice;

/// How often offsets are committed while they move.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// The least that a partition may hold, however many there are.
const LEAST_PER_PARTITION_BYTES: usize = 256 << 10;
/// How long everything may take when the pipeline stops, which gives sources 3 s: settling, the last commit,
/// leaving the group.
const STOPPING: Duration = Duration::from_millis(2900);
/// How long of that what is under way has to settle.
const SETTLING: Duration = Duration::from_millis(1900);

/// A partition that this member reads.
struct Assigned {
    progress: Arc<Progress>,
    inbox: mpsc::UnboundedSender<Received>,
    task: JoinHandle<()>,
}

/// All partitions that this member reads, shared with the callbacks of librdkafka.
type Partitions = Arc<Mutex<HashMap<PartitionId, Assigned>>>;

/// Hears of rebalances and commits.
struct Group {
    voice: Arc<Voice>,
    partitions: Partitions,
}

fn locked(partitions: &Partitions) -> MutexGuard<'_, HashMap<PartitionId, Assigned>> {
    partitions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.voice.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }
}

impl ConsumerContext for Group {
    /// Partitions go to another member: what is settled is committed, what is under way is withdrawn.
    /// librdkafka gives them away only after the commit has been answered.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(revoked) = rebalance else { return };
        let mut positions = TopicPartitionList::new();
        {
            let mut partitions = locked(&self.partitions);
            for element in revoked.elements() {
                let id = PartitionId { topic: Arc::from(element.topic()), number: element.partition() };
                if let Some(assigned) = partitions.remove(&id) {
                    add_position(&mut positions, &assigned.progress, assigned.progress.to_commit());
                    assigned.task.abort();
                }
            }
        }
        tracing::info!("{}: {} partitions go to other members", self.voice.name, revoked.count());
        if positions.count() > 0
            && let Err(error) = consumer.commit(&positions, CommitMode::Async)
        {
            self.voice.warn("COMMIT", &format!("offsets cannot be committed before a rebalance: {error}"));
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(assigned) = rebalance {
            tracing::info!("{}: {} partitions are read here from now on", self.voice.name, assigned.count());
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let partitions = locked(&self.partitions);
        for element in offsets.elements() {
            let id = PartitionId { topic: Arc::from(element.topic()), number: element.partition() };
            let error = result.as_ref().err().cloned().or_else(|| element.error().err());
            let progress = partitions.get(&id).map(|assigned| &assigned.progress);
            if let Some(error) = error {
                self.voice.warn("COMMIT", &format!("offsets could not be committed, which is tried again: {error}"));
                progress.inspect(|progress| progress.forget_asked());
            } else if let (Some(progress), Offset::Offset(offset)) = (progress, element.offset()) {
                progress.note_committed(offset);
            }
        }
    }
}

/// Adds the position of a partition, if it has to be committed.
fn add_position(positions: &mut TopicPartitionList, progress: &Progress, position: Option<i64>) {
    let Some(offset) = position else { return };
    // Fails for negative offsets alone.
    if positions.add_partition_offset(&progress.id.topic, progress.id.number, Offset::Offset(offset)).is_ok() {
        progress.note_asked(offset);
    }
}

/// A running consumer.
pub(super) struct Run {
    consumer: StreamConsumer<Group>,
    partitions: Partitions,
    shared: Arc<Shared>,
    freed: mpsc::UnboundedReceiver<PartitionId>,
    buffer_bytes: usize,
}

impl Run {
    /// Joins the group; brokers need not be there yet.
    pub(super) fn start(
        name: Arc<str>,
        config: &ClientConfig,
        topics: &[String],
        reading: Reading,
        buffer_bytes: usize,
        intake: Intake,
        stop: Stop,
    ) -> Result<Run, Fault> {
        let voice = Arc::new(Voice::new(name, true));
        let partitions = Partitions::default();
        let group = Group { voice: voice.clone(), partitions: partitions.clone() };
        let consumer: StreamConsumer<Group> = config
            .create_with_context(group)
            .map_err(|error| Fault::configuration(format!("librdkafka does not start with these options: {error}")))?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| {
            Fault::configuration(format!("topics: {error}; check the regular expressions, which begin with ^"))
        })?;
        let (sender, freed) = mpsc::unbounded_channel();
        let shared = Shared { voice, reading, intake, stop, undecodable: AtomicU64::new(0), freed: sender };
        Ok(Run { consumer, partitions, shared: Arc::new(shared), freed, buffer_bytes })
    }

    /// Reads until the pipeline stops.
    pub(super) async fn until_stopped(mut self) -> Result<(), Fault> {
        let mut commits = tokio::time::interval(COMMIT_INTERVAL);
        commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.shared.stop.clone();
        let outcome = loop {
            tokio::select! {
                biased;
                () = stop.wait() => break Ok(()),
                Some(id) = self.freed.recv() => self.resume(&id),
                _ = commits.tick() => self.commit(),
                message = self.consumer.recv() => match message {
                    Ok(message) => self.take(&message),
                    Err(error) => if let Some(fault) = self.trouble(&error) { break Err(fault) },
                },
            }
        };
        self.leave().await;
        outcome
    }

    /// Hands a message to its partition, and pauses that if it holds too much.
    fn take(&self, message: &BorrowedMessage<'_>) {
        let mut partitions = locked(&self.partitions);
        let id = PartitionId { topic: Arc::from(message.topic()), number: message.partition() };
        let share = (self.buffer_bytes / partitions.len().max(1)).max(LEAST_PER_PARTITION_BYTES);
        let assigned = partitions.entry(id.clone()).or_insert_with(|| {
            let progress = Arc::new(Progress::new(id.clone()));
            let (inbox, received) = mpsc::unbounded_channel();
            let task = tokio::spawn(partition::work(progress.clone(), self.shared.clone(), received));
            Assigned { progress, inbox, task }
        });
        let received = Received::new(message, id.topic);
        let held = assigned.progress.hold(received.size_bytes());
        // Its task ends when the pipeline stops; then this message comes again after the next start.
        let _ = assigned.inbox.send(received);
        if held > share && !assigned.progress.paused.swap(true, Ordering::AcqRel) {
            self.set_paused(&assigned.progress, true);
            if assigned.progress.held_bytes() <= share / 2 {
                // It was settled in this moment, before anybody could see that it is paused.
                let _ = self.shared.freed.send(assigned.progress.id.clone());
            }
        }
    }

    /// Fetches from a partition again that has room.
    fn resume(&self, id: &PartitionId) {
        let partitions = locked(&self.partitions);
        let share = (self.buffer_bytes / partitions.len().max(1)).max(LEAST_PER_PARTITION_BYTES);
        let Some(assigned) = partitions.get(id) else { return };
        let progress = &assigned.progress;
        if progress.held_bytes() <= share / 2 && progress.paused.swap(false, Ordering::AcqRel) {
            self.set_paused(progress, false);
        }
    }

    fn set_paused(&self, progress: &Progress, pause: bool) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&progress.id.topic, progress.id.number);
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            let what = if pause { "paused" } else { "resumed" };
            self.shared.voice.warn("PAUSE", &format!("a partition could not be {what}: {error}"));
        }
    }

    /// Commits what was settled since the last time.
    fn commit(&self) {
        let positions = self.positions();
        if positions.count() > 0
            && let Err(error) = self.consumer.commit(&positions, CommitMode::Async)
        {
            self.shared.voice.warn("COMMIT", &format!("offsets cannot be committed: {error}"));
            locked(&self.partitions).values().for_each(|assigned| assigned.progress.forget_asked());
        }
    }

    fn positions(&self) -> TopicPartitionList {
        let mut positions = TopicPartitionList::new();
        for assigned in locked(&self.partitions).values() {
            add_position(&mut positions, &assigned.progress, assigned.progress.to_ask());
        }
        positions
    }

    /// What an error while reading means; the fault if nothing can be read any more.
    fn trouble(&self, error: &KafkaError) -> Option<Fault> {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Some(Fault::new(FaultKind::Other, format!("the consumer cannot go on: {code}; restart Weir")));
        }
        let advice = match code {
            Code::TopicAuthorizationFailed => "; give the user the right Read on the topics",
            Code::GroupAuthorizationFailed => "; give the user the right Read on the group",
            Code::UnknownTopicOrPartition => "; reading begins when the topic is there",
            _ => "",
        };
        self.shared.voice.warn(&format!("READ {code:?}"), &format!("{error}{advice}"));
        None
    }

    /// Waits for what is under way, commits it and leaves the group.
    async fn leave(self) {
        let assigned: Vec<Assigned> = locked(&self.partitions).drain().map(|(_, assigned)| assigned).collect();
        let begun = Instant::now();
        let mut positions = TopicPartitionList::new();
        for Assigned { progress, inbox, mut task } in assigned {
            drop(inbox);
            if tokio::time::timeout_at(begun + SETTLING, &mut task).await.is_err() {
                task.abort();
            }
            // Also what was asked for without an answer so far: that commit may have failed.
            add_position(&mut positions, &progress, progress.to_commit());
        }
        let (voice, consumer) = (self.shared.voice.clone(), self.consumer);
        let (sender, left) = oneshot::channel();
        // A thread of its own: it waits for brokers, who may be away, and must not hold up the end of Weir.
        std::thread::spawn(move || {
            let committed = if positions.count() > 0 { consumer.commit(&positions, CommitMode::Sync) } else { Ok(()) };
            drop(consumer);
            // Nobody listens any more if it took too long.
            let _ = sender.send(committed);
        });
        match tokio::time::timeout_at(begun + STOPPING, left).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(
                    "{}: the last offsets could not be committed: {error}; some messages come twice",
                    voice.name
                );
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    "{}: the brokers did not answer the last commit before the stop; some messages may come twice",
                    voice.name
                );
            }
        }
    }
}
