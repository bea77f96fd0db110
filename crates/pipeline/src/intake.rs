//! Where sources hand in records, and what they may answer to whoever sent them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_config::Acknowledge;
use weir_model::{Batch, Claim, Payload, Receipt, Settled, Signal, Verdict};

use crate::ledger::{Reason, Row};
use crate::memory_budget;
use crate::queue::Entry;
use crate::route::{Path, Paths};
use crate::telemetry::Telemetry;

/// What a source may answer to whoever sent the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As durable as configured.
    Stored,
    /// Taken, but this many records were refused for good.
    Refused {
        /// How many, at most as many as were offered.
        records: u64,
        /// Why.
        why: String,
    },
    /// Not taken, or not known to have arrived: send it again after this time.
    Later {
        /// The delay to ask for.
        after: Duration,
        /// Why.
        why: String,
    },
}

/// How long a receiver waits for a delivery before it asks its sender to come again. Below the
/// 10 s that OpenTelemetry SDKs wait for an answer by default.
const PATIENCE: Duration = Duration::from_secs(8);

/// The delay that senders are asked for when a queue is full.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// Why nothing is taken at the end.
const STOPPED: &str = "the pipeline is being stopped";

/// The way of one source into the pipeline. A reload may lead it elsewhere at any time; a batch goes
/// one way or the other.
#[derive(Clone, Debug)]
pub struct Intake {
    origin: Arc<str>,
    way: Arc<RwLock<Arc<Way>>>,
    telemetry: Arc<Telemetry>,
}

/// Where records go, and when their sender hears of it.
#[derive(Debug)]
struct Way {
    paths: Paths,
    acknowledge: Acknowledge,
    /// The pipeline has stopped: what comes nevertheless is counted in these rows.
    stopped: Option<Vec<(Signal, Arc<Row>)>>,
}

impl Intake {
    /// The intake of the source `origin`; the ledger of `telemetry` counts what no route takes.
    pub fn new(origin: Arc<str>, paths: Paths, telemetry: Arc<Telemetry>, acknowledge: Acknowledge) -> Self {
        let way = Way { paths, acknowledge, stopped: None };
        Self { origin, way: Arc::new(RwLock::new(Arc::new(way))), telemetry }
    }

    fn way(&self) -> Arc<Way> {
        self.way.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leads what comes from now on elsewhere. The guard tells when nothing is on the old way any more.
    pub(crate) fn lead(&self, paths: Paths, acknowledge: Acknowledge) -> OldWay {
        let mut way = self.way.write().unwrap_or_else(PoisonError::into_inner);
        OldWay(std::mem::replace(&mut *way, Arc::new(Way { paths, acknowledge, stopped: None })))
    }

    /// Leads nowhere from now on, and lets go of the queues: the pipeline has stopped.
    pub(crate) fn close(&self) {
        let mut way = self.way.write().unwrap_or_else(PoisonError::into_inner);
        let rows = |signal: Signal| way.paths.of(signal).iter().map(move |path| (signal, path.row.clone()));
        let stopped = Some(Signal::ALL.into_iter().flat_map(rows).collect());
        *way = Arc::new(Way { paths: Paths::default(), acknowledge: way.acknowledge, stopped });
    }

    /// Hands in records that somebody sent, and waits until they are as durable as configured.
    ///
    /// If the future is dropped because the sender went away, the batch counts as withdrawn:
    /// whoever sent it will send it again.
    pub async fn offer(&self, payload: Payload) -> Answer {
        if payload.is_empty() {
            return Answer::Stored;
        }
        let records = payload.len() as u64;
        let way = self.way();
        if way.stopped.is_some() {
            return Answer::Later { after: COME_AGAIN, why: STOPPED.to_owned() };
        }
        let paths = way.paths.of(payload.signal());
        if paths.is_empty() {
            return Answer::Refused { records, why: self.unrouted(&payload) };
        }
        let copies: Vec<_> = paths.iter().map(|path| (path, path.prepare(payload.clone()))).collect();
        // From here on the queues count its bytes; twice, it would need twice the memory.
        memory_budget::hand_over();
        let fits = |path: &Path, copy: &Payload| copy.is_empty() || path.outlet.queue.has_room(copy.size_bytes());
        if let Some((path, _)) = copies.iter().find(|(path, copy)| copy.as_ref().is_ok_and(|copy| !fits(path, copy))) {
            return not_taken(path, Reason::QueueFull);
        }
        let (sender, settled) = oneshot::channel();
        let (receipt, claim) = match way.acknowledge {
            // The source may have gone: then nobody wants to know.
            Acknowledge::Durable => Receipt::with_claim(move |settled| drop(sender.send(settled))),
            Acknowledge::Queued => Receipt::unheard(),
        };
        for (path, copy) in copies {
            let copy = match copy {
                Ok(copy) => copy,
                Err(why) => {
                    path.row.accept_and_drop(records, Reason::NotEncodable);
                    receipt.split().refuse(records, &why);
                    continue;
                }
            };
            let left_out = records.saturating_sub(copy.len() as u64);
            if let Err(reason) = self.hand_on(path, copy, receipt.split()) {
                // Another source took the room since it was asked for; the copies before this one
                // are withdrawn with the receipt, and the sender comes again.
                claim.withdraw();
                receipt.settle(Verdict::Retry);
                return not_taken(path, reason);
            }
            path.left_out(left_out);
        }
        receipt.settle(Verdict::Delivered);
        let acknowledge = way.acknowledge;
        drop(way);
        match acknowledge {
            Acknowledge::Queued => Answer::Stored,
            Acknowledge::Durable => wait(settled, claim, records).await,
        }
    }

    /// Hands in what a poll gathered. It cannot be fetched again, so an exporter whose queue is
    /// full goes without it (counted), and the others get it all the same.
    pub fn push(&self, payload: Payload) {
        if payload.is_empty() {
            return;
        }
        let records = payload.len() as u64;
        let way = self.way();
        if let Some(rows) = &way.stopped {
            let rows = rows.iter().filter(|(signal, _)| *signal == payload.signal());
            return rows.for_each(|(_, row)| row.accept_and_drop(records, Reason::Stopped));
        }
        let paths = way.paths.of(payload.signal());
        if paths.is_empty() {
            self.unrouted(&payload);
        }
        for path in paths {
            match path.prepare(payload.clone()) {
                Ok(copy) => {
                    let left = copy.len() as u64;
                    path.left_out(records.saturating_sub(left));
                    if let Err(reason) = self.hand_on(path, copy, Receipt::unclaimed()) {
                        path.row.accept_and_drop(left, reason);
                    }
                }
                Err(why) => {
                    path.row.accept_and_drop(records, Reason::NotEncodable);
                    tracing::error!("{}: {records} records for {} are lost: {why}", self.origin, path.outlet.name);
                }
            }
        }
    }

    /// Whether so many bytes would be taken by no exporter, because the memory of the process is used up. A queue that
    /// makes room by dropping what is older takes them.
    pub fn is_out_of_memory(&self, signal: Signal, bytes: usize) -> bool {
        let way = self.way();
        let paths = way.paths.of(signal);
        // Those that can give memory back do so when they are asked.
        let is_taken = paths.iter().any(|path| path.outlet.queue.has_room(bytes));
        !paths.is_empty() && !is_taken && !self.telemetry.memory.has_room(bytes)
    }

    /// Hands a copy to an exporter; one of which its route left nothing is done with.
    fn hand_on(&self, path: &Path, payload: Payload, receipt: Receipt) -> Result<(), Reason> {
        if payload.is_empty() {
            receipt.settle(Verdict::Delivered);
            return Ok(());
        }
        let batch = Batch { origin: self.origin.clone(), payload, receipt };
        path.outlet.queue.push(Entry { batch, row: path.row.clone(), since: Instant::now() })
    }

    /// Counts records that no route takes, and says what to do.
    fn unrouted(&self, payload: &Payload) -> String {
        let row = self.telemetry.ledger.row(&self.origin, &Arc::from("-"), payload.signal());
        row.accept_and_drop(payload.len() as u64, Reason::NoRoute);
        format!("no exporter takes {}; add one below `integrations:` or a route", payload.signal().name())
    }
}

/// A way that was left.
#[derive(Debug)]
pub(crate) struct OldWay(Arc<Way>);

impl OldWay {
    /// Whether a batch may still be on it.
    pub(crate) fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The answer where an exporter's queue does not take a batch.
fn not_taken(path: &Path, reason: Reason) -> Answer {
    let name = &path.outlet.name;
    let why = match reason {
        Reason::Stopped => STOPPED.to_owned(),
        _ => match path.outlet.queue.status().is_short {
            Some(short) => format!("the queue of {name} takes nothing now: {short}"),
            None => format!("the queue of {name} is full"),
        },
    };
    Answer::Later { after: COME_AGAIN, why }
}

/// Withdraws a claim unless told otherwise: the future that waits may be dropped at any time.
struct Waiting(Option<Claim>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            claim.withdraw();
        }
    }
}

async fn wait(settled: oneshot::Receiver<Settled>, claim: Claim, records: u64) -> Answer {
    let mut waiting = Waiting(Some(claim));
    let Ok(heard) = tokio::time::timeout(PATIENCE, settled).await else {
        let why = format!("not delivered within {} s; it is given back to its sender", PATIENCE.as_secs());
        return Answer::Later { after: COME_AGAIN, why };
    };
    waiting.0 = None;
    let later = |why: &str| Answer::Later { after: COME_AGAIN, why: why.to_owned() };
    match heard {
        Ok(Settled { verdict: Verdict::Delivered, .. }) => Answer::Stored,
        Ok(Settled { verdict: Verdict::Refused, refused_records, reason }) => Answer::Refused {
            records: refused_records.min(records),
            why: reason.unwrap_or_else(|| "the destination refused it".to_owned()),
        },
        Ok(Settled { verdict: Verdict::Retry, .. }) => later("it could not be delivered; send it again"),
        Err(_) => later("the pipeline stopped before it was delivered"),
    }
}
