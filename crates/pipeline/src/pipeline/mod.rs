//! All of it assembled: from a plan to a running pipeline, to another plan, and back to rest.
//!
//! - [`exporters`]: queues and workers, [`draining`]: those that go; [`sources`]: what collects and receives; [`listeners`]: the
//!   ports that receivers share
//! - here: the order in which they start, change and stop

mod draining;
mod exporters;
mod listeners;
mod sources;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weir_model::Signal;

use crate::control::{Changes, Control, FlowShape, RouteView, Shape};
use crate::intake::{Intake, OldWay};
use crate::ledger::{Counts, Key, Ledger};
use crate::pipeline::exporters::{Exporters, Shared};
use crate::pipeline::listeners::Listeners;
use crate::pipeline::sources::Sources;
use crate::plan::{Member, Plan, RoutePlan};
use crate::queue::Outlet;
use crate::route::{Path, Paths};
use crate::storage::Storage;
use crate::telemetry::Telemetry;

/// How long a stopping pipeline delivers what it holds before it lets go of the rest.
/// Below the 3 s that listeners give to requests under way, so that those who wait for a delivery are
/// answered when it is over.
const DRAIN: Duration = Duration::from_millis(2500);

/// How much of that time sources have to hand in what they hold. Then the queues are closed, which
/// also sends what waits in them for company: those who wait for its delivery can answer.
const HAND_IN: Duration = Duration::from_secs(1);

/// How long tasks have to let go when they are told to.
const LET_GO: Duration = Duration::from_millis(500);

/// How often the rows of the ledger that no queue keeps are written down.
const SAVE: Duration = Duration::from_secs(10);
const SAVES_PER_HOUR: usize = 360;

/// How long a stop waits for the ledger to be written down.
const SAVED: Duration = Duration::from_secs(1);

/// How long a change waits for batches that are on their way to an exporter that goes.
const ON_THEIR_WAY: Duration = Duration::from_secs(1);

/// Why a pipeline could not be started or changed: which integration, and what to do.
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
    control: Control,
    storage: Option<Arc<Storage>>,
    exporters: Exporters,
    sources: Sources,
    listeners: Listeners,
    is_once: bool,
    /// Integrations that are switched off.
    off: BTreeSet<Arc<str>>,
    saving: Option<AbortOnDropHandle<()>>,
}

impl Pipeline {
    /// Starts everything. Queues and listeners are opened before anything runs, so that a taken port
    /// stops the start and not a service that looks alive.
    ///
    /// # Errors
    /// [`StartError`] for the first queue or listener that cannot be opened.
    pub async fn start(plan: Plan) -> Result<Pipeline, StartError> {
        let mut pipeline = Pipeline::new(&plan, false)?;
        pipeline.change(plan).await?;
        if let Some(storage) = pipeline.storage.clone() {
            let ledger = pipeline.telemetry().ledger.clone();
            pipeline.saving = Some(AbortOnDropHandle::new(tokio::spawn(keep_house(storage, ledger))));
        }
        Ok(pipeline)
    }

    /// Polls every collector once, delivers, and says where every record went. Receivers stay closed,
    /// and nothing is kept on the disk.
    ///
    /// # Errors
    /// None that is known: what can fail is not opened.
    pub async fn once(mut plan: Plan) -> Result<(Arc<Telemetry>, Vec<(Key, Counts)>), StartError> {
        plan.storage = None;
        plan.members.retain(|member| !matches!(member, Member::Receive { .. }));
        let mut pipeline = Pipeline::new(&plan, true)?;
        pipeline.change(plan).await?;
        pipeline.sources.ended().await;
        Ok((pipeline.telemetry().clone(), pipeline.stop().await))
    }

    fn new(plan: &Plan, is_once: bool) -> Result<Pipeline, StartError> {
        let telemetry = plan.telemetry().clone();
        let queues = plan.members.iter().filter_map(Member::export_options).map(|options| options.queue);
        let needed = plan.storage.clone().filter(|storage| storage.is_needed(queues));
        let storage = needed.map(|storage| Storage::open(storage, &telemetry.ledger).map(Arc::new)).transpose();
        let storage = storage.map_err(|reason| StartError { integration: Arc::from("agent.data"), reason })?;
        if let Some(storage) = &storage {
            telemetry.set_dead_letters(storage.dead_letters.clone());
        }
        let budget = telemetry.memory.clone();
        let listeners = Listeners::new(budget.clone());
        let abandon = CancellationToken::new();
        let kept = storage.as_ref().map(|storage| {
            let options = |name: &str| plan.members.iter().find(|member| **member.name() == *name);
            let has_queue =
                |name: &str| options(name).and_then(Member::export_options).is_some_and(|o| storage.keeps(o));
            storage.recall(&telemetry.ledger, has_queue)
        });
        let shared = Shared { storage: storage.clone(), budget, telemetry, abandon };
        let exporters = Exporters::new(shared, kept.unwrap_or_default());
        Ok(Pipeline {
            control: plan.control.clone(),
            storage,
            exporters,
            sources: Sources::default(),
            listeners,
            is_once,
            off: BTreeSet::new(),
            saving: None,
        })
    }

    /// What it knows about itself.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        self.control.telemetry()
    }

    /// Whether anything of it outlives the process.
    pub fn has_storage(&self) -> bool {
        self.storage.is_some()
    }

    /// What others see of it, and ask of it.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Makes it what another plan says. What stays the same runs on untouched, and no record is lost
    /// by the change. Members that the program made stay, whether the plan has them or not. The data
    /// folder, its bounds and its key are those of the start.
    ///
    /// # Errors
    /// [`StartError`]: then nothing has changed.
    pub async fn change(&mut self, plan: Plan) -> Result<Changes, StartError> {
        let pending_restart = self.check_storage(&plan)?;
        let Plan { members, mut identities, routes, acknowledge, memory_bytes, .. } = plan;
        let telemetry = self.telemetry().clone();
        let (mut exporting, mut bringing, mut off) = (Vec::new(), Vec::new(), BTreeSet::new());
        for member in members {
            let identity = identities.remove(member.name());
            match member {
                Member::Export { name, options, exporter } => exporting.push((name, identity, options, exporter)),
                Member::Off { name } => drop(off.insert(name)),
                source => bringing.push((source, identity)),
            }
        }
        // What can fail goes first: queues, then ports, then queues that others have to let go of.
        let exporting = self.exporters.prepare(exporting, memory_bytes).await?;
        let new_intake =
            |origin: &Arc<str>| Intake::new(origin.clone(), Paths::default(), telemetry.clone(), acknowledge);
        let bringing = self.sources.prepare(bringing, new_intake);
        let listening = match self.listeners.prepare(&self.sources.mounted(&bringing)).await {
            Ok(listening) => listening,
            Err(error) => {
                self.exporters.give_up(exporting).await;
                return Err(error);
            }
        };
        let exporting = self.exporters.reopen(exporting).await?;

        telemetry.memory.set_limit(memory_bytes);
        let mut changes = Changes { pending_restart, ..Changes::default() };
        let outlets = self.exporters.outlets(&exporting);
        let intakes = self.sources.intakes(&bringing);
        let removed = self.exporters.commit(exporting, &mut changes).await;
        let (mut flows, mut left) = (Vec::new(), Vec::new());
        for (origin, intake) in &intakes {
            let paths = self.paths(&routes, &outlets, origin, &mut flows);
            left.push(intake.lead(paths, acknowledge));
        }
        drop((intakes, outlets));
        self.sources.commit(bringing, &telemetry, self.is_once, &mut changes).await;
        self.listeners.commit(listening);
        is_empty(&left).await;
        drop(left);
        // Whoever looks sees the new ones before the others are closed: what is seen is open.
        let (sources, exporters) = (self.sources.shapes(), self.exporters.shapes());
        self.control.set_shape(Shape { sources, routes: route_views(&routes), exporters, flows, ..Shape::default() });
        self.exporters.remove(removed, &mut changes).await;
        let (draining, kept) = self.exporters.leaving();
        self.control.set_leaving(draining, kept);
        self.switched_off(off);
        Ok(changes)
    }

    /// Whether a plan asks for what only a start can do. Gives the settings that wait for the next start.
    fn check_storage(&self, plan: &Plan) -> Result<Vec<String>, StartError> {
        let Some(wanted) = plan.storage.as_ref().filter(|_| !self.is_once) else { return Ok(Vec::new()) };
        let Some(storage) = &self.storage else {
            let is_on_disk =
                |member: &&Member| member.export_options().is_some_and(|options| wanted.is_on_disk(options.queue));
            return plan.members.iter().find(is_on_disk).map_or(Ok(Vec::new()), |member| {
                let reason =
                    "its queue is to be on the disk, and this process keeps everything in memory; restart Weir";
                Err(StartError { integration: member.name().clone(), reason: reason.to_owned() })
            });
        };
        Ok(storage.plan().differs(wanted).into_iter().map(str::to_owned).collect())
    }

    /// Shows which integrations are switched off, and no more those that were.
    fn switched_off(&mut self, off: BTreeSet<Arc<str>>) {
        let health = &self.telemetry().health;
        let is_gone = |name: &&Arc<str>| !off.contains(*name) && !self.exporters.has(name) && !self.sources.has(name);
        self.off.iter().filter(is_gone).for_each(|name| health.forget(name));
        off.iter().for_each(|name| health.disabled(name));
        self.off = off;
    }

    /// The ways of a source: by the configured routes, or to everybody.
    fn paths(
        &self,
        routes: &[RoutePlan],
        outlets: &[(Arc<Outlet>, &'static [Signal])],
        origin: &Arc<str>,
        flows: &mut Vec<FlowShape>,
    ) -> Paths {
        let everywhere = [RoutePlan::default()];
        let routes = if routes.is_empty() { &everywhere[..] } else { routes };
        let mut paths = Paths::default();
        for (outlet, signals) in outlets {
            for signal in *signals {
                let leads = |route: &RoutePlan| route.leads(origin, *signal, &outlet.name);
                let Some((at, route)) = routes.iter().enumerate().find(|(_, route)| leads(route)) else { continue };
                let row = self.telemetry().ledger.row(origin, &outlet.name, *signal);
                let (source, exporter) = (origin.clone(), outlet.name.clone());
                flows.push(FlowShape { source, exporter, signal: *signal, route: at, row: row.clone() });
                paths.add(*signal, Path { outlet: outlet.clone(), row, set: route.set.clone(), keep: route.keep });
            }
        }
        paths
    }

    /// Stops the sources, delivers what is held for at most 2.5 s, and says where every record went.
    /// What waits on the disk then is delivered after the next start.
    pub async fn stop(mut self) -> Vec<(Key, Counts)> {
        self.sources.stop();
        self.listeners.stop();
        let deadline = Instant::now() + DRAIN;
        let bringing = async {
            self.sources.ended().await;
            self.listeners.ended().await;
        };
        let _ = timeout(HAND_IN, bringing).await;
        self.exporters.close();
        if timeout_at(deadline, self.exporters.ended()).await.is_err() {
            self.exporters.abandon();
            // An exporter that does not even let go is ended with the runtime; its records are
            // in flight in the ledger then.
            let _ = timeout(LET_GO, self.exporters.ended()).await;
        }
        // Every batch is settled, so receivers can pass the last answers on.
        let bringing = async {
            self.sources.ended().await;
            self.listeners.ended().await;
        };
        if timeout(LET_GO, bringing).await.is_err() {
            self.listeners.abort();
        }
        if let Some(saving) = self.saving.take() {
            saving.abort();
            // It has the data folder until it is gone.
            let _ = saving.await;
        }
        let ledger = self.telemetry().ledger.clone();
        // Nobody has the queues any more, so that they are closed when this ends.
        self.sources.close();
        self.control.set_shape(Shape::default());
        self.exporters.finish().await;
        if let Some(storage) = self.storage.clone() {
            let ledger = ledger.clone();
            // A disk that hangs must not keep the process.
            let _ = timeout(SAVED, tokio::task::spawn_blocking(move || storage.save(&ledger))).await;
        }
        ledger.snapshot()
    }
}

impl Drop for Pipeline {
    // Its own tasks end with their handles; this ends what receivers and workers have spawned besides.
    fn drop(&mut self) {
        self.sources.stop();
        self.listeners.stop();
        self.exporters.abandon();
    }
}

/// Writes the ledger down now and then, and removes old dead letters.
async fn keep_house(storage: Arc<Storage>, ledger: Arc<Ledger>) {
    loop {
        for _ in 0..SAVES_PER_HOUR {
            tokio::time::sleep(SAVE).await;
            let (storage, ledger) = (storage.clone(), ledger.clone());
            // A panic there ends nothing else.
            let _ = tokio::task::spawn_blocking(move || storage.save(&ledger)).await;
        }
        storage.expire().await;
    }
}

/// Waits until no batch is on a way that was left.
async fn is_empty(left: &[OldWay]) {
    let deadline = Instant::now() + ON_THEIR_WAY;
    while left.iter().any(OldWay::is_used) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The routes for people.
fn route_views(routes: &[RoutePlan]) -> Vec<RouteView> {
    if routes.is_empty() {
        return vec![RouteView { name: "everything".to_owned(), keep: None, set: Default::default() }];
    }
    let view = |(at, route): (usize, &RoutePlan)| RouteView {
        name: format!("route {}", at + 1),
        keep: route.keep_text.clone(),
        set: route.set.iter().cloned().collect(),
    };
    routes.iter().enumerate().map(view).collect()
}
