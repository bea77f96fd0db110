//! All of it assembled: from settings to a running pipeline, and back to rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_config::{Acknowledge, SocketAddress};
use weir_model::Signal;
use weir_model::build::MetricsBuilder;

use crate::intake::Intake;
use crate::ledger::{Counts, Key};
use crate::options::{CollectOptions, ExportOptions, LONGEST_POLL};
use crate::plan::{Member, Plan, RoutePlan};
use crate::queue::{MemoryQueue, Outlet, Queue};
use crate::role::{DynCollect, DynExport, DynReceive, Mount, Stop};
use crate::route::{Path, Paths};
use crate::schedule::Schedule;
use crate::telemetry::{Attempts, Telemetry};
use crate::worker::Worker;

/// How long a stopping pipeline delivers what it holds before it counts the rest as stopped.
/// With the listeners' own drain it keeps a stop below 5 s.
const DRAIN: Duration = Duration::from_secs(3);

/// How much of that time sources have to hand in what they hold. Then the queues are closed, which
/// also sends what waits in them for company: those who wait for its delivery can answer.
const HAND_IN: Duration = Duration::from_secs(1);

/// How long tasks have to let go when they are told to.
const LET_GO: Duration = Duration::from_millis(500);

/// Why a pipeline could not be started: which integration, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{integration}: {reason}")]
pub struct StartError {
    /// The instance.
    pub integration: Arc<str>,
    /// Cause and remedy.
    pub reason: String,
}

/// A running pipeline.
pub struct Pipeline {
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
    abandon: CancellationToken,
    sources: JoinSet<()>,
    workers: JoinSet<()>,
    outlets: Vec<Arc<Outlet>>,
}

/// An exporter and what it takes.
struct Exporter {
    outlet: Arc<Outlet>,
    signals: &'static [Signal],
}

impl Pipeline {
    /// Starts everything. Listeners are opened before anything runs, so that a taken port stops
    /// the start and not a service that looks alive.
    ///
    /// # Errors
    /// [`StartError`] for the first listener that cannot be opened.
    pub async fn start(plan: Plan) -> Result<Pipeline, StartError> {
        let (mut starting, sources) = Starting::new(plan);
        starting.receive(sources.receives).await?;
        for (name, options, collector, builder) in sources.collects {
            let schedule = starting.schedule(name, &options, collector, builder);
            let stop = Stop(starting.pipeline.stop.clone());
            starting.pipeline.sources.spawn(schedule.run(stop));
        }
        Ok(starting.pipeline)
    }

    /// Polls every collector once, delivers, and says where every record went. Receivers stay closed.
    pub async fn once(plan: Plan) -> (Arc<Telemetry>, Vec<(Key, Counts)>) {
        let (mut starting, sources) = Starting::new(plan);
        for (name, options, collector, builder) in sources.collects {
            let schedule = starting.schedule(name, &options, collector, builder);
            starting.pipeline.sources.spawn(schedule.run_once());
        }
        let mut pipeline = starting.pipeline;
        ended(&mut pipeline.sources).await;
        (pipeline.telemetry.clone(), pipeline.stop().await)
    }

    /// What it knows about itself.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Stops the sources, delivers what is held for at most 3 s, and says where every record went.
    pub async fn stop(mut self) -> Vec<(Key, Counts)> {
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + DRAIN;
        let _ = tokio::time::timeout(HAND_IN, ended(&mut self.sources)).await;
        for outlet in &self.outlets {
            outlet.queue.close();
        }
        if tokio::time::timeout_at(deadline, ended(&mut self.workers)).await.is_err() {
            self.abandon.cancel();
            // An exporter that does not even let go is ended with the runtime; its records are
            // in flight in the ledger then.
            let _ = tokio::time::timeout(LET_GO, ended(&mut self.workers)).await;
        }
        // Every batch is settled, so receivers can pass the last answers on.
        if tokio::time::timeout_at(deadline, ended(&mut self.sources)).await.is_err() {
            self.sources.abort_all();
            let _ = tokio::time::timeout(LET_GO, ended(&mut self.sources)).await;
        }
        self.telemetry.ledger.snapshot()
    }
}

impl Drop for Pipeline {
    // Its own tasks end with their sets; this ends what receivers have spawned besides.
    fn drop(&mut self) {
        self.stop.cancel();
        self.abandon.cancel();
    }
}

/// Waits until all tasks have ended.
async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// A listener that receivers of different kinds share.
struct Place {
    address: SocketAddress,
    owners: Vec<Arc<str>>,
    router: Router,
}

impl Place {
    /// Adds a receiver's routes to the listener of their address. Two receivers of one kind answer
    /// the same paths, so they cannot share one.
    fn share(places: &mut BTreeMap<String, Place>, name: &Arc<str>, mount: Mount) -> Result<(), StartError> {
        let Mount { address, router } = mount;
        let kind = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let Some(place) = places.get_mut(&address.to_string()) else {
            let owners = vec![name.clone()];
            places.insert(address.to_string(), Place { address, owners, router });
            return Ok(());
        };
        if let Some(owner) = place.owners.iter().find(|owner| kind(owner) == kind(name)) {
            let reason = format!("{address} is already used by {owner}; give it another port");
            return Err(StartError { integration: name.clone(), reason });
        }
        // The first one's answer to unknown paths stays; a listener has room for one.
        place.router = std::mem::take(&mut place.router).merge(router.reset_fallback());
        place.owners.push(name.clone());
        Ok(())
    }
}

/// A pipeline while it is being started.
struct Starting {
    pipeline: Pipeline,
    routes: Vec<RoutePlan>,
    acknowledge: Acknowledge,
    exporters: Vec<Exporter>,
}

/// A collector with its name, options and builder.
type Collector = (Arc<str>, CollectOptions, Box<dyn DynCollect>, MetricsBuilder);

/// What brings records, not started yet.
struct Sources {
    collects: Vec<Collector>,
    receives: Vec<(Arc<str>, Box<dyn DynReceive>)>,
}

impl Starting {
    /// Starts the exporters: sources find their queues.
    fn new(plan: Plan) -> (Starting, Sources) {
        let Plan { members, routes, acknowledge, memory_bytes, telemetry } = plan;
        let pipeline = Pipeline {
            telemetry,
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            sources: JoinSet::new(),
            workers: JoinSet::new(),
            outlets: Vec::new(),
        };
        let mut starting = Starting { pipeline, routes, acknowledge, exporters: Vec::new() };
        let mut sources = Sources { collects: Vec::new(), receives: Vec::new() };
        let mut exports = Vec::new();
        for member in members {
            match member {
                Member::Export { name, options, exporter } => exports.push((name, options, exporter)),
                Member::Collect { name, options, collector, builder } => {
                    sources.collects.push((name, options, collector, builder));
                }
                Member::Receive { name, receiver } => sources.receives.push((name, receiver)),
                Member::Off { name } => starting.pipeline.telemetry.health.disabled(&name),
            }
        }
        let share = memory_bytes / exports.len().max(1);
        for (name, options, exporter) in exports {
            starting.export(name, options, exporter, share);
        }
        (starting, sources)
    }

    fn export(&mut self, name: Arc<str>, options: ExportOptions, exporter: Box<dyn DynExport>, share: usize) {
        let limit = options.queue_size.map_or(share, |size| usize::try_from(size.bytes()).unwrap_or(usize::MAX));
        let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::new(limit, options.when_full));
        let outlet = Arc::new(Outlet { name: name.clone(), queue: queue.clone() });
        let attempts = Arc::new(Attempts::default());
        let telemetry = &self.pipeline.telemetry;
        telemetry.health.initializing(&name);
        telemetry.exporter(outlet.clone(), attempts.clone());
        let exporter: Arc<dyn DynExport> = Arc::from(exporter);
        self.exporters.push(Exporter { outlet: outlet.clone(), signals: exporter.takes().signals });
        self.pipeline.outlets.push(outlet);
        let board = telemetry.health.clone();
        let worker = Worker { name, exporter, queue, options, board, attempts, dead_letters: None };
        self.pipeline.workers.spawn(worker.run(CancellationToken::new(), self.pipeline.abandon.clone()));
    }

    fn schedule(
        &self,
        name: Arc<str>,
        options: &CollectOptions,
        collector: Box<dyn DynCollect>,
        builder: MetricsBuilder,
    ) -> Schedule {
        let telemetry = self.pipeline.telemetry.clone();
        telemetry.health.initializing(&name);
        let intake = self.intake(&name);
        let seconds = |value: Option<weir_config::Duration>| value.map_or(LONGEST_POLL, Into::into);
        let (interval, timeout) = (seconds(options.interval), seconds(options.timeout));
        Schedule { name, collector, builder, interval, timeout, intake, telemetry }
    }

    async fn receive(&mut self, receivers: Vec<(Arc<str>, Box<dyn DynReceive>)>) -> Result<(), StartError> {
        let mut shared: BTreeMap<String, Place> = BTreeMap::new();
        let mut running = Vec::new();
        for (name, receiver) in receivers {
            self.pipeline.telemetry.health.initializing(&name);
            let intake = self.intake(&name);
            for mount in receiver.mounts(&intake) {
                Place::share(&mut shared, &name, mount)?;
            }
            running.push((name, receiver, intake));
        }
        let mut listening: Vec<(TcpListener, Router)> = Vec::new();
        for Place { address, owners, router } in shared.into_values() {
            let listener = weir_net::bind(&address).await;
            let integration = owners.first().cloned().unwrap_or_else(|| Arc::from("listener"));
            let listener = listener.map_err(|error| StartError { integration, reason: error.to_string() })?;
            listening.push((listener, router));
        }
        for (listener, router) in listening {
            let stop = self.pipeline.stop.clone();
            self.pipeline.sources.spawn(weir_net::serve(listener, router, async move { stop.cancelled().await }));
        }
        for (name, receiver, intake) in running {
            let (stop, board) = (Stop(self.pipeline.stop.clone()), self.pipeline.telemetry.health.clone());
            board.healthy(&name);
            self.pipeline.sources.spawn(async move {
                let run = async { receiver.run(intake, stop).await };
                match std::panic::AssertUnwindSafe(run).catch_unwind().await {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => board.unhealthy(&name, &fault.message),
                    Err(_) => board.unhealthy(&name, "the receiver panicked; please report it"),
                }
            });
        }
        Ok(())
    }

    /// The intake of a source: its paths by the configured routes, or to everybody.
    fn intake(&self, origin: &Arc<str>) -> Intake {
        let ledger = &self.pipeline.telemetry.ledger;
        let everywhere = [RoutePlan::default()];
        let routes = if self.routes.is_empty() { &everywhere[..] } else { &self.routes[..] };
        let mut paths = Paths::default();
        for exporter in &self.exporters {
            for signal in exporter.signals {
                let name = &exporter.outlet.name;
                let Some(route) = routes.iter().find(|route| route.leads(origin, *signal, name)) else { continue };
                let path = Path {
                    outlet: exporter.outlet.clone(),
                    row: ledger.row(origin, name, *signal),
                    set: route.set.clone(),
                    keep: route.keep,
                };
                paths.add(*signal, path);
            }
        }
        Intake::new(origin.clone(), Arc::new(paths), self.pipeline.telemetry.clone(), self.acknowledge)
    }
}
