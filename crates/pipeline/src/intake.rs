//! Where sources hand in records, and what they may answer to whoever sent them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use weir_config::Acknowledge;
use weir_model::{Batch, Claim, Payload, Receipt, Settled, Verdict};

use crate::ledger::{Reason, Row};
use crate::queue::{Entry, Queue};
use crate::route::Paths;

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

/// An exporter as sources see it.
pub struct Outlet {
    /// Its instance name.
    pub name: Arc<str>,
    /// Its queue.
    pub queue: Arc<dyn Queue>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("name", &self.name).finish()
    }
}

/// How long a receiver waits for a delivery before it asks its sender to come again. Below the
/// 10 s that OpenTelemetry SDKs wait for an answer by default.
const PATIENCE: Duration = Duration::from_secs(8);

/// The delay that senders are asked for when a queue is full.
const COME_AGAIN: Duration = Duration::from_secs(2);

/// The way of one source into the pipeline.
#[derive(Clone, Debug)]
pub struct Intake {
    origin: Arc<str>,
    paths: Arc<Paths>,
    unrouted: Arc<Row>,
    acknowledge: Acknowledge,
}

impl Intake {
    /// The intake of the source `origin`; `unrouted` counts the records that no route takes.
    pub fn new(origin: Arc<str>, paths: Arc<Paths>, unrouted: Arc<Row>, acknowledge: Acknowledge) -> Self {
        Self { origin, paths, unrouted, acknowledge }
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
        let mut copies = Vec::new();
        for path in self.paths.of(payload.signal()) {
            match path.prepare(payload.clone()) {
                Ok(Some(payload)) => copies.push((path, payload)),
                Ok(None) => {}
                Err(why) => return Answer::Refused { records, why },
            }
        }
        if copies.is_empty() && self.paths.of(payload.signal()).is_empty() {
            self.unrouted.accept_and_drop(records, Reason::NoRoute);
            let why = format!("no exporter takes {}; add one below `integrations:` or a route", payload.signal().name());
            return Answer::Refused { records, why };
        }
        if let Some((path, _)) = copies.iter().find(|(path, payload)| !path.outlet.queue.has_room(payload.size_bytes())) {
            return Answer::Later { after: COME_AGAIN, why: format!("the queue of {} is full", path.outlet.name) };
        }
        let (sender, settled) = oneshot::channel();
        let (receipt, claim) = match self.acknowledge {
            // The source may have gone: then nobody wants to know.
            Acknowledge::Delivered => Receipt::with_claim(move |settled| drop(sender.send(settled))),
            Acknowledge::Queued => Receipt::with_claim(|_| {}),
        };
        for (path, payload) in copies {
            let batch = Batch { origin: self.origin.clone(), payload, receipt: receipt.split() };
            let entry = Entry { batch, row: path.row.clone(), since: Instant::now() };
            if path.outlet.queue.push(entry).is_err() {
                // Another source took the room since it was asked for; the copies before this one
                // are withdrawn with the receipt, and the sender comes again.
                claim.withdraw();
                receipt.settle(Verdict::Retry);
                return Answer::Later { after: COME_AGAIN, why: format!("the queue of {} is full", path.outlet.name) };
            }
        }
        receipt.settle(Verdict::Delivered);
        match self.acknowledge {
            Acknowledge::Queued => Answer::Stored,
            Acknowledge::Delivered => wait(settled, claim, records).await,
        }
    }

    /// Hands in what a poll gathered. It cannot be fetched again, so an exporter whose queue is
    /// full goes without it (counted), and the others get it all the same.
    pub fn push(&self, payload: Payload) {
        if payload.is_empty() {
            return;
        }
        let paths = self.paths.of(payload.signal());
        if paths.is_empty() {
            self.unrouted.accept_and_drop(payload.len() as u64, Reason::NoRoute);
        }
        for path in paths {
            let payload = match path.prepare(payload.clone()) {
                Ok(Some(payload)) => payload,
                Ok(None) => continue,
                Err(why) => {
                    tracing::error!("{}: records for {} are lost: {why}", self.origin, path.outlet.name);
                    continue;
                }
            };
            let records = payload.len() as u64;
            let batch = Batch { origin: self.origin.clone(), payload, receipt: Receipt::unclaimed() };
            let entry = Entry { batch, row: path.row.clone(), since: Instant::now() };
            if path.outlet.queue.push(entry).is_err() {
                path.row.accept_and_drop(records, Reason::QueueFull);
            }
        }
    }
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
