//! Senders of numbered log records: OTLP over HTTP, one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use weir_net::{Client, HttpOptions};

use super::numbered::{self, Numbered};
use crate::delivery::oracle::Sent;

/// What a sender does with records that were not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Sends them again until they are, as OpenTelemetry SDKs do.
    SendsAgain,
    /// Goes on with the next, as a program does whose buffer is full.
    GoesOn,
}

/// How it sends.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Records in a request.
    pub records: usize,
    /// Bytes of a record.
    pub bytes: usize,
    /// Time from one request to the next, if it is answered by then.
    pub interval: Duration,
    /// What it does with records that were not acknowledged.
    pub then: Then,
}

/// What its requests were answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// Success.
    pub taken: AtomicU64,
    /// 429 or 503 with `Retry-After`.
    pub later: AtomicU64,
    /// Nothing at all.
    pub none: AtomicU64,
}

/// A sender at work.
pub struct Sender {
    /// What it sent.
    pub sent: Arc<Sent>,
    /// What it heard.
    pub answers: Arc<Answers>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Sender {
    /// Starts to send to an address (without its path), as a source of this number.
    pub fn start(source: u16, url: &str, manners: Manners) -> Sender {
        let (sent, answers, stop) = (Arc::new(Sent::over_the_network(source)), Arc::default(), Arc::default());
        let work = Work {
            sent: sent.clone(),
            answers: Arc::clone(&answers),
            stop: Arc::clone(&stop),
            url: format!("{url}/v1/logs"),
            client: Client::new(&HttpOptions::default()).expect("a plain client"),
            manners,
        };
        Sender { sent, answers, stop, task: tokio::spawn(work.run()) }
    }

    /// Stops when everything that is to be sent again was acknowledged; what it sent.
    pub async fn stop(self, longest: Duration) -> Arc<Sent> {
        self.stop.store(true, Ordering::Release);
        let ended = tokio::time::timeout(longest, self.task).await;
        ended.expect("the last records are acknowledged in time").expect("the sender does not panic");
        self.sent
    }
}

/// Sends some requests of 10 records each, which are acknowledged.
pub async fn send(url: &str, sent: &Sent, requests: usize) {
    let client = Client::new(&HttpOptions::default()).expect("a plain client");
    for _ in 0..requests {
        let records = sent.next(10);
        let request = http::Request::post(format!("{url}/v1/logs")).header("content-type", "application/x-protobuf");
        let request = request.body(Bytes::from(numbered::request(&records, 200).encode_to_vec())).expect("a request");
        let answer = client.send(request, 1 << 20).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{}", answer.excerpt());
        sent.acknowledge(&records);
    }
}

struct Work {
    sent: Arc<Sent>,
    answers: Arc<Answers>,
    stop: Arc<AtomicBool>,
    url: String,
    client: Client,
    manners: Manners,
}

impl Work {
    async fn run(self) {
        let mut ticks = tokio::time::interval(self.manners.interval);
        // Who was held up sends as fast as it can until it has caught up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut pending: Vec<Numbered> = Vec::new();
        loop {
            ticks.tick().await;
            let records = if pending.is_empty() {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                self.sent.next(self.manners.records)
            } else {
                self.sent.again(&pending)
            };
            let is_taken = self.send(&records).await;
            pending = if is_taken || self.manners.then == Then::GoesOn { Vec::new() } else { records };
            if !is_taken {
                ticks.reset_after(ticks.period().max(Duration::from_millis(10)));
            }
        }
    }

    /// Whether the records were acknowledged.
    async fn send(&self, records: &[Numbered]) -> bool {
        let body = numbered::request(records, self.manners.bytes).encode_to_vec();
        let request = http::Request::post(&self.url).header("content-type", "application/x-protobuf");
        let request = request.body(Bytes::from(body)).expect("a request");
        let Ok(answer) = self.client.send(request, 1 << 20).await else {
            self.answers.none.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        match answer.status.as_u16() {
            200 => {
                let decoded = ExportLogsServiceResponse::decode(answer.body).expect("protobuf");
                assert_eq!(decoded.partial_success, None, "nobody refuses anything");
                self.sent.acknowledge(records);
                self.answers.taken.fetch_add(1, Ordering::Relaxed);
                true
            }
            429 | 503 => {
                let after =
                    answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                assert!(after.is_some_and(|seconds| seconds > 0), "{}: {:?}", answer.status, answer.headers);
                self.answers.later.fetch_add(1, Ordering::Relaxed);
                false
            }
            _ => panic!("{}", answer.excerpt()),
        }
    }
}
