//! What others see of a running pipeline, and ask of it: the API, the command line, the dashboard.

mod letters;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;
use weir_model::Signal;

use crate::dead_letters::DeadLetters;
use crate::kind::Role;
use crate::ledger::Row;
use crate::options::WhenFull;
use crate::queue::Outlet;
use crate::storage::Kept;
use crate::telemetry::{Attempts, Telemetry};

pub use letters::{DeadLettersView, DoneView, LetterError, ListQuery, OfflineLetters, Selected};
pub use view::{
    ExporterView, FlowView, HealthView, LedgerRow, LedgerView, PipelineView, QueueView, QueuesView, RequestsView,
    RouteView, SkippedPollsView, SourceView, ledger_rows,
};

/// A handle on a pipeline, before it runs and while it does. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    telemetry: Arc<Telemetry>,
    shape: RwLock<Shape>,
    ask: mpsc::Sender<Reload>,
    asked: Mutex<Option<mpsc::Receiver<Reload>>>,
}

impl Default for Control {
    fn default() -> Self {
        // One reload at a time, and one more that waits for it.
        let (ask, asked) = mpsc::channel(1);
        Self(Arc::new(Inner {
            telemetry: Arc::default(),
            shape: RwLock::default(),
            ask,
            asked: Mutex::new(Some(asked)),
        }))
    }
}

/// What a pipeline is made of.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// What brings records.
    pub sources: Vec<SourceShape>,
    /// The routes, by name.
    pub routes: Vec<RouteView>,
    /// What takes them.
    pub exporters: Vec<ExporterShape>,
    /// The ways between them.
    pub flows: Vec<FlowShape>,
    /// Queues that are emptied, of exporters that were removed or have another queue.
    pub draining: Vec<Weak<Outlet>>,
    /// Queues on disk that no exporter has.
    pub kept: Vec<Kept>,
}

/// A source.
#[derive(Debug)]
pub(crate) struct SourceShape {
    /// Its instance name.
    pub name: Arc<str>,
    /// What it does.
    pub role: Role,
}

/// An exporter.
#[derive(Debug)]
pub(crate) struct ExporterShape {
    /// Its queue.
    pub outlet: Arc<Outlet>,
    /// What it has done.
    pub attempts: Arc<Attempts>,
    /// What happens when its queue is full.
    pub when_full: WhenFull,
}

/// The way from a source to an exporter for a signal.
#[derive(Debug)]
pub(crate) struct FlowShape {
    /// The source.
    pub source: Arc<str>,
    /// The exporter.
    pub exporter: Arc<str>,
    /// The signal.
    pub signal: Signal,
    /// The position of its route.
    pub route: usize,
    /// Where its records are counted.
    pub row: Arc<Row>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReloadAnswer)]
pub struct Changes {
    /// Integrations that were not there before.
    pub started: Vec<String>,
    /// Integrations that are not there any more.
    pub stopped: Vec<String>,
    /// Integrations that run with new options.
    pub restarted: Vec<String>,
    /// How many run on, untouched.
    pub unchanged: usize,
    /// Settings that have changed since the start and are used after the next start only, such as `limits.disk`.
    #[serde(default)]
    #[schema(required)]
    pub pending_restart: Vec<String>,
}

/// Somebody asks for a reload.
#[derive(Debug)]
pub struct Reload {
    answer: oneshot::Sender<Result<Changes, String>>,
}

impl Reload {
    /// Tells whoever asked what became of it.
    pub fn answer(self, result: Result<Changes, String>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(result);
    }
}

impl Control {
    /// What Weir knows about itself.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.0.telemetry
    }

    /// What backends refused for good; `None` before the start, and where everything is in memory.
    pub fn dead_letters(&self) -> Option<&Arc<DeadLetters>> {
        self.0.telemetry.dead_letters()
    }

    /// Asks whoever runs the pipeline to read the configuration again.
    ///
    /// # Errors
    /// What is wrong with the new configuration, for people; then nothing has changed.
    pub async fn reload(&self) -> Result<Changes, String> {
        let (answer, answered) = oneshot::channel();
        let stopping = |_| "the pipeline is being stopped".to_owned();
        self.0.ask.send(Reload { answer }).await.map_err(|_| stopping(()))?;
        answered.await.map_err(|_| stopping(()))?
    }

    /// The reloads that are asked for; there is one who hears of them.
    pub fn reloads(&self) -> Option<mpsc::Receiver<Reload>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn set_shape(&self, shape: Shape) {
        *self.0.shape.write().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    pub(crate) fn set_leaving(&self, draining: Vec<Weak<Outlet>>, kept: Vec<Kept>) {
        let mut shape = self.0.shape.write().unwrap_or_else(PoisonError::into_inner);
        (shape.draining, shape.kept) = (draining, kept);
    }

    pub(crate) fn with_shape<T>(&self, see: impl FnOnce(&Shape) -> T) -> T {
        see(&self.0.shape.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The outlets of all exporters, by name.
    pub fn outlets(&self) -> BTreeMap<Arc<str>, Arc<Outlet>> {
        let outlet = |exporter: &ExporterShape| (exporter.outlet.name.clone(), exporter.outlet.clone());
        self.with_shape(|shape| shape.exporters.iter().map(outlet).collect())
    }
}
