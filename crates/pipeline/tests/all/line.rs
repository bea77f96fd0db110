//! One worker between a real queue and a backend that the test is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_model::metrics::Temporality;
use weir_model::{Batch, Payload, Receipt, Settled, Signal};
use weir_pipeline::dead_letters::{DeadLetters, Filter, Summary};
use weir_pipeline::health::Board;
use weir_pipeline::ledger::{Counts, Ledger, Reason};
use weir_pipeline::options::{ExportOptions, WhenFull};
use weir_pipeline::queue::{DiskQueue, DiskQueueOptions, Entry, MemoryQueue, Queue};
use weir_pipeline::role::{Delivery, DynExport, Takes};
use weir_pipeline::telemetry::Attempts;
use weir_pipeline::worker::Worker;
use weir_pipeline::{Fault, Outcome};

use crate::backend::{bodies, logs};

type Judge = Box<dyn Fn(Vec<String>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// When an attempt came, and the bodies in it.
type Attempt = (Instant, Vec<String>);

/// A backend. Cloning shares it.
#[derive(Clone)]
pub struct Server {
    judge: Arc<Judge>,
    ordered: bool,
    temporality: Temporality,
    /// The attempts, in order.
    pub attempts: Arc<Mutex<Vec<Attempt>>>,
    /// What was taken by an outcome of [`Outcome::Accepted`].
    pub taken: Arc<Mutex<Vec<String>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Server {
    /// A backend that takes some time for its answers.
    pub fn slow<F>(judge: impl Fn(Vec<String>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self {
            judge: Arc::new(Box::new(move |bodies| Box::pin(judge(bodies)))),
            ordered: false,
            temporality: Temporality::Unspecified,
            attempts: Arc::default(),
            taken: Arc::default(),
            under_way: Arc::default(),
            most: Arc::default(),
        }
    }

    /// A backend that answers at once.
    pub fn judging(judge: impl FnMut(&[String]) -> Outcome + Send + 'static) -> Self {
        let judge = Arc::new(Mutex::new(judge));
        Self::slow(move |bodies| {
            let judge = judge.clone();
            async move { (judge.lock().unwrap())(&bodies) }
        })
    }

    /// The same, for deliveries in order.
    pub fn ordered(self) -> Self {
        Self { ordered: true, ..self }
    }

    /// The same, for metrics as deltas.
    pub fn deltas(self) -> Self {
        Self { temporality: Temporality::Delta, ..self }
    }

    pub fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    pub fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    /// The most attempts that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }
}

/// Counts an attempt under way, however it ends.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl DynExport for Server {
    fn takes(&self) -> Takes {
        Takes { signals: &Signal::ALL, ordered: self.ordered, temporality: self.temporality }
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let now = self.under_way.fetch_add(1, Ordering::AcqRel) + 1;
            self.most.fetch_max(now, Ordering::AcqRel);
            let _under_way = UnderWay(self.under_way.clone());
            let bodies: Vec<String> = delivery.payloads.iter().flat_map(bodies).collect();
            self.attempts.lock().unwrap().push((Instant::now(), bodies.clone()));
            let outcome = (self.judge)(bodies.clone()).await;
            if outcome == Outcome::Accepted {
                self.taken.lock().unwrap().extend(bodies);
            }
            outcome
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok("a test".into()) })
    }
}

/// A worker at work.
pub struct Running {
    pub release: CancellationToken,
    pub abandon: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
}

/// A queue and what is counted of it; workers come and go.
pub struct Line {
    pub queue: Arc<dyn Queue>,
    pub ledger: Arc<Ledger>,
    pub board: Arc<Board>,
    pub attempts: Arc<Attempts>,
    pub dead_letters: Option<Arc<DeadLetters>>,
}

const EXPORTER: &str = "one";
const SOURCE: &str = "source";

impl Line {
    fn of(queue: Arc<dyn Queue>, ledger: Arc<Ledger>) -> Self {
        let dead_letters = Some(Arc::new(DeadLetters::default()));
        Self { queue, ledger, board: Arc::default(), attempts: Arc::default(), dead_letters }
    }

    pub fn in_memory() -> Self {
        Self::of(Arc::new(MemoryQueue::new(64 << 20, WhenFull::Block, None)), Arc::default())
    }

    /// With a queue on disk, which may hold something already.
    pub fn on_disk(folder: &Path) -> Self {
        let ledger = Arc::new(Ledger::default());
        let (disk, options) = (Arc::new(weir_pipeline::disk::RealDisk), DiskQueueOptions::new(64 << 20));
        let (queue, _) =
            DiskQueue::open(disk, folder.join("queue"), &Arc::from(EXPORTER), ledger.clone(), options).unwrap();
        Self::of(Arc::new(queue), ledger)
    }

    pub fn start(&self, server: &(impl DynExport + Clone + 'static), options: ExportOptions) -> Running {
        let (release, abandon) = (CancellationToken::new(), CancellationToken::new());
        let worker = Worker {
            name: Arc::from(EXPORTER),
            exporter: Arc::new(server.clone()),
            queue: self.queue.clone(),
            options,
            board: self.board.clone(),
            attempts: self.attempts.clone(),
            dead_letters: self.dead_letters.clone(),
        };
        let task = tokio::spawn(worker.run(release.clone(), abandon.clone()));
        Running { release, abandon, task }
    }

    fn put(&self, payload: Payload, receipt: Receipt) {
        let (origin, signal) = (Arc::<str>::from(SOURCE), payload.signal());
        let row = self.ledger.row(&origin, &Arc::from(EXPORTER), signal);
        let batch = Batch { origin, payload, receipt };
        self.queue.push(Entry { batch, row, since: Instant::now() }).unwrap();
    }

    /// Records that nobody can send again.
    pub fn push(&self, bodies: &[&str]) {
        self.put(logs(bodies), Receipt::unclaimed());
    }

    pub fn push_payload(&self, payload: Payload) {
        self.put(payload, Receipt::unclaimed());
    }

    /// Records whose source was told that they are taken.
    pub fn push_unheard(&self, bodies: &[&str]) {
        self.put(logs(bodies), Receipt::unheard().0);
    }

    /// Records whose source waits for what becomes of them.
    pub fn offer(&self, bodies: &[&str]) -> oneshot::Receiver<Settled> {
        let (sender, heard) = oneshot::channel();
        self.put(logs(bodies), Receipt::new(move |settled| drop(sender.send(settled))));
        heard
    }

    /// The columns of logs or metrics, adding up.
    pub fn counts(&self) -> Counts {
        let rows = self.ledger.snapshot();
        rows.iter().for_each(|(key, counts)| assert_eq!(counts.difference(), 0, "{key:?}: {counts:?}"));
        rows.into_iter().next().map(|(_, counts)| counts).unwrap_or_default()
    }

    pub fn dropped(&self, reason: Reason) -> u64 {
        self.counts().dropped.get(&reason).copied().unwrap_or(0)
    }

    /// Why the exporter is unhealthy.
    pub fn unhealthy(&self) -> Option<String> {
        self.board.snapshot().get(EXPORTER).and_then(|health| health.reason.clone())
    }

    /// The dead letters, oldest first.
    pub async fn letters(&self) -> Vec<Summary> {
        let dead_letters = self.dead_letters.as_ref().unwrap();
        let mut page = dead_letters.list(Filter { limit: 10_000, ..Filter::default() }).await.unwrap();
        page.letters.reverse();
        page.letters
    }

    /// The bodies of the dead letters, each with its reason, sorted.
    pub async fn dead(&self) -> Vec<(String, String)> {
        let mut dead = Vec::new();
        for letter in self.letters().await {
            let stored = self.dead_letters.as_ref().unwrap().get(letter.id).await.unwrap().unwrap();
            let text = stored.payload.to_string();
            for piece in text.split("\"stringValue\":\"").skip(1) {
                dead.push((piece.split('"').next().unwrap().to_owned(), letter.reason.clone()));
            }
        }
        dead.sort();
        dead
    }
}

/// Waits until something is so. Under a paused clock time passes while it waits.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..100_000_u32 {
        if is_so() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub fn later() -> Outcome {
    Outcome::Later { after: None, why: "busy".into() }
}

pub fn never(why: &str) -> Outcome {
    Outcome::Never { why: why.into() }
}
