//! The three roles of an integration, as their authors write them.
//!
//! Authors implement one trait with an associated configuration type; [`Kind`](crate::Kind) erases
//! the types once, at the edge of the file.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use weir_model::build::MetricsBuilder;
use weir_model::metrics::Temporality;
use weir_model::{Payload, Signal};
use weir_net::{Answer, Client, HttpOptions};

use crate::intake::Intake;
use crate::outcome::{Fault, Outcome};
use crate::telemetry::Telemetry;

/// A configuration type: read from YAML, with a JSON Schema.
pub trait Config: DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: DeserializeOwned + JsonSchema + Send + 'static> Config for T {}

/// What an integration is told about where it runs.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of this instance, for example `otlp/backup`.
    pub name: Arc<str>,
    /// The interval of its polls (collectors).
    pub interval: std::time::Duration,
    /// The longest time for one poll or one request.
    pub timeout: std::time::Duration,
    /// Resource attributes of this agent: `host.name` and the configured tags.
    pub resource: Vec<(String, String)>,
    /// What Weir knows about itself.
    pub telemetry: Arc<Telemetry>,
    /// Folder for what must survive a restart, such as positions in files. It may not be there yet.
    pub data_folder: Arc<std::path::Path>,
}

/// What a collector found to watch when it started, in a few words each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watching {
    /// What it watches, for example `2 disks`.
    pub watched: Vec<String>,
    /// What it does not watch, and why, for example (`temperatures`, `no sensors`).
    pub not_watched: Vec<(String, String)>,
}

/// Fetches on a schedule. The scheduler owns interval, jitter, timeout and overlap, and records
/// duration and success; a poll only gathers.
pub trait Collect: Send + Sized + 'static {
    /// Its configuration.
    type Config: Config;

    /// Makes the collector; looks at nothing outside yet.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    fn new(config: Self::Config, context: &Context) -> Result<Self, Fault>;

    /// Looks what there is to watch, for the start-up message.
    fn watching(&mut self) -> Watching {
        Watching::default()
    }

    /// One poll. What was recorded before an error is kept and sent.
    fn collect(&mut self, out: &mut MetricsBuilder) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// One router to be mounted on a listener that several receivers may share.
pub struct Mount {
    /// Where to listen.
    pub address: weir_config::SocketAddress,
    /// The routes.
    pub router: axum::Router,
}

/// Listens or subscribes until it is stopped.
pub trait Receive: Send + Sized + 'static {
    /// Its configuration.
    type Config: Config;

    /// Makes the receiver; opens nothing yet.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    fn new(config: Self::Config, context: &Context) -> Result<Self, Fault>;

    /// The HTTP routes that it answers. They answer success only after [`Intake::offer`] said so.
    fn mounts(&self, intake: &Intake) -> Vec<Mount>;

    /// Work besides answering HTTP; returns when `stop` resolves. Most receivers have none.
    fn run(self, _intake: Intake, stop: Stop) -> impl Future<Output = Result<(), Fault>> + Send {
        async move {
            stop.wait().await;
            Ok(())
        }
    }
}

/// Resolves when the pipeline stops.
#[derive(Clone, Debug)]
pub struct Stop(pub(crate) tokio_util::sync::CancellationToken);

impl Stop {
    /// Waits until the pipeline stops.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// What is delivered in one attempt: payloads of one signal and one origin, which the batcher put
/// together without decoding them.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Their signal.
    pub signal: Signal,
    /// The payloads in order.
    pub payloads: Vec<Payload>,
    /// Constant over all attempts of the same records, for idempotency keys.
    pub id: u64,
}

impl Delivery {
    /// How many records.
    pub fn len(&self) -> usize {
        self.payloads.iter().map(Payload::len).sum()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the payloads hold.
    pub fn size_bytes(&self) -> usize {
        self.payloads.iter().map(Payload::size_bytes).sum()
    }
}

/// What an exporter can take. Constant per kind; the runner asks before it queues.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    /// The signals.
    pub signals: &'static [Signal],
    /// The temporality of sums and histograms that the backend wants; `Unspecified` = any.
    pub temporality: Temporality,
    /// Whether deliveries must arrive in order (at most one in flight).
    pub ordered: bool,
}

impl Takes {
    /// Every signal, any temporality, any order.
    pub const EVERYTHING: Takes =
        Takes { signals: &Signal::ALL, temporality: Temporality::Unspecified, ordered: false };
}

/// Sends on. The runner owns queue, batching, retry, concurrency and health.
pub trait Export: Send + Sync + Sized + 'static {
    /// Its configuration.
    type Config: Config;

    /// Makes the exporter; connects to nothing yet.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    fn new(config: Self::Config, context: &Context) -> Result<Self, Fault>;

    /// What this instance takes.
    fn takes(&self) -> Takes;

    /// ONE attempt; never retries, sleeps or batches.
    fn export(&self, delivery: &Delivery) -> impl Future<Output = Outcome> + Send;

    /// Proves address, credentials and permission, without user data where the backend allows it.
    /// Answers what was proved, in one line.
    fn check(&self) -> impl Future<Output = Result<String, Fault>> + Send;
}

/// An exporter whose backend speaks HTTP: how records become requests, and what an answer means.
/// Both are pure, so they are tested without a network; the runner does the rest.
pub trait HttpExport: Send + Sync + Sized + 'static {
    /// Its configuration, besides [`HttpOptions`].
    type Config: Config;

    /// Makes the exporter.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    fn new(config: Self::Config, context: &Context) -> Result<Self, Fault>;

    /// What this instance takes.
    fn takes(&self) -> Takes;

    /// The request for a delivery.
    ///
    /// # Errors
    /// The outcome for records that cannot be encoded.
    fn encode(&self, delivery: &Delivery) -> Result<http::Request<bytes::Bytes>, Outcome>;

    /// What the answer to [`HttpExport::encode`]'s request means.
    fn judge(&self, _delivery: &Delivery, answer: &Answer) -> Outcome {
        Outcome::of_answer(answer)
    }

    /// Proves address, credentials and permission.
    fn check(&self, client: &Client) -> impl Future<Output = Result<String, Fault>> + Send;
}

/// The largest answer that exporters read: longer ones say nothing more.
pub const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// Gives an [`HttpExport`] its client.
pub struct OverHttp<E> {
    exporter: E,
    client: Client,
}

impl<E: HttpExport> OverHttp<E> {
    /// An exporter with a client of these options.
    ///
    /// # Errors
    /// If the options or the exporter's configuration make no sense.
    pub fn new(config: E::Config, http: &HttpOptions, context: &Context) -> Result<Self, Fault> {
        let client = Client::new(http).map_err(Fault::configuration)?;
        Ok(Self { exporter: E::new(config, context)?, client })
    }
}

/// An exporter with its type erased.
pub trait DynExport: Send + Sync {
    /// See [`Export::takes`].
    fn takes(&self) -> Takes;
    /// See [`Export::export`].
    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome>;
    /// See [`Export::check`].
    fn check(&self) -> BoxFuture<'_, Result<String, Fault>>;
}

/// Erases an [`Export`].
pub(crate) struct Direct<E>(pub E);

impl<E: Export> DynExport for Direct<E> {
    fn takes(&self) -> Takes {
        self.0.takes()
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(self.0.export(delivery))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(self.0.check())
    }
}

impl<E: HttpExport> DynExport for OverHttp<E> {
    fn takes(&self) -> Takes {
        self.exporter.takes()
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let request = match self.exporter.encode(delivery) {
                Ok(request) => request,
                Err(outcome) => return outcome,
            };
            match self.client.send(request, ANSWER_LIMIT_BYTES).await {
                Ok(answer) => self.exporter.judge(delivery, &answer),
                Err(error) => Outcome::of_transport(error),
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(self.exporter.check(&self.client))
    }
}

/// A collector with its type erased.
pub trait DynCollect: Send {
    /// See [`Collect::watching`].
    fn watching(&mut self) -> Watching;
    /// See [`Collect::collect`].
    fn collect<'a>(&'a mut self, out: &'a mut MetricsBuilder) -> BoxFuture<'a, Result<(), Fault>>;
}

impl<C: Collect> DynCollect for C {
    fn watching(&mut self) -> Watching {
        Collect::watching(self)
    }

    fn collect<'a>(&'a mut self, out: &'a mut MetricsBuilder) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(Collect::collect(self, out))
    }
}

/// A receiver with its type erased.
pub trait DynReceive: Send {
    /// See [`Receive::mounts`].
    fn mounts(&self, intake: &Intake) -> Vec<Mount>;
    /// See [`Receive::run`].
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>>;
}

impl<R: Receive> DynReceive for R {
    fn mounts(&self, intake: &Intake) -> Vec<Mount> {
        Receive::mounts(self, intake)
    }

    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(Receive::run(*self, intake, stop))
    }
}
