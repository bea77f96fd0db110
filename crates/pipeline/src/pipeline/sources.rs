//! What brings records: collectors on their schedule, receivers until they are stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weir_model::build::MetricsBuilder;

use crate::control::{Changes, SourceShape};
use crate::intake::Intake;
use crate::kind::Role;
use crate::options::{CollectOptions, LONGEST_POLL};
use crate::pipeline::listeners::Mounted;
use crate::plan::{Identity, Member};
use crate::role::{DynCollect, DynReceive, Mount, Stop};
use crate::schedule::Schedule;
use crate::telemetry::Telemetry;

/// How long a source has to end when a reload takes it away.
const LET_GO: Duration = Duration::from_secs(2);

/// How long one that has not ended by then, and is ended where it stands, has to be gone.
const ABORTED: Duration = Duration::from_millis(500);

/// All sources of a pipeline.
#[derive(Default)]
pub struct Sources {
    running: BTreeMap<Arc<str>, Source>,
    generation: u64,
}

/// A source that runs.
struct Source {
    identity: Option<Identity>,
    role: Role,
    intake: Intake,
    mounts: Vec<Mount>,
    generation: u64,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// A source that is about to run.
struct Coming {
    name: Arc<str>,
    identity: Option<Identity>,
    intake: Intake,
    mounts: Vec<Mount>,
    generation: u64,
    work: Work,
}

/// What a source does.
#[allow(clippy::large_enum_variant, reason = "a handful per process, each moved once")]
enum Work {
    Collect(CollectOptions, Box<dyn DynCollect>, MetricsBuilder),
    Receive(Box<dyn DynReceive>),
}

/// What [`Sources::prepare`] made.
pub struct Prepared {
    coming: Vec<Coming>,
    /// Those that go, and do not come back.
    going: Vec<Arc<str>>,
    unchanged: usize,
}

impl Sources {
    /// Makes what is new and leaves out what runs unchanged. A source that runs with other options
    /// afterwards keeps its intake.
    pub fn prepare(
        &mut self,
        members: Vec<(Member, Option<Identity>)>,
        new_intake: impl Fn(&Arc<str>) -> Intake,
    ) -> Prepared {
        let mut prepared = Prepared { coming: Vec::new(), going: Vec::new(), unchanged: 0 };
        let named: Vec<Arc<str>> = members.iter().map(|(member, _)| member.name().clone()).collect();
        for (name, source) in &self.running {
            // What the program made stays.
            if source.identity.is_some() && !named.contains(name) {
                prepared.going.push(name.clone());
            }
        }
        for (member, identity) in members {
            let name = member.name().clone();
            let running = self.running.get(&name);
            if running.is_some_and(|running| running.identity == identity) {
                prepared.unchanged += 1;
                continue;
            }
            let intake = running.map_or_else(|| new_intake(&name), |running| running.intake.clone());
            let (work, mounts) = match member {
                Member::Collect { options, collector, builder, .. } => {
                    (Work::Collect(options, collector, builder), Vec::new())
                }
                Member::Receive { receiver, .. } => {
                    let mounts = receiver.mounts(&intake);
                    (Work::Receive(receiver), mounts)
                }
                Member::Export { .. } | Member::Off { .. } => continue,
            };
            self.generation += 1;
            let generation = self.generation;
            prepared.coming.push(Coming { name, identity, intake, mounts, generation, work });
        }
        prepared
    }

    /// The routes of all receivers as they are to be.
    pub fn mounted<'a>(&'a self, prepared: &'a Prepared) -> Vec<Mounted<'a>> {
        let stays = |name: &Arc<str>| {
            !prepared.going.contains(name) && !prepared.coming.iter().any(|coming| coming.name == *name)
        };
        let running = self.running.iter().filter(|(name, _)| stays(name)).map(|(name, source)| Mounted {
            name: name.clone(),
            generation: source.generation,
            mounts: &source.mounts,
        });
        let coming = prepared.coming.iter().map(|coming| Mounted {
            name: coming.name.clone(),
            generation: coming.generation,
            mounts: &coming.mounts,
        });
        // The program's own receivers own their listener's answer to unknown paths, so the order counts.
        coming.chain(running).collect()
    }

    /// The intakes of all sources as they are to be.
    pub fn intakes(&self, prepared: &Prepared) -> BTreeMap<Arc<str>, Intake> {
        let mut intakes: BTreeMap<Arc<str>, Intake> =
            self.running.iter().map(|(name, source)| (name.clone(), source.intake.clone())).collect();
        intakes.extend(prepared.coming.iter().map(|coming| (coming.name.clone(), coming.intake.clone())));
        intakes
    }

    /// Ends what goes, then starts what comes: two of one name would fight for their port or place.
    pub async fn commit(&mut self, prepared: Prepared, telemetry: &Arc<Telemetry>, once: bool, changes: &mut Changes) {
        let Prepared { coming, going, unchanged } = prepared;
        changes.unchanged += unchanged;
        let is_over = |name: &Arc<str>| going.contains(name) || coming.iter().any(|coming| coming.name == *name);
        let over: Vec<Arc<str>> = self.running.keys().filter(|name| is_over(name)).cloned().collect();
        let ended: Vec<Source> = over.iter().filter_map(|name| self.running.remove(name)).collect();
        ended.iter().for_each(|source| source.stop.cancel());
        end(over.iter().zip(ended.into_iter().map(|source| source.task)).collect()).await;
        for name in going {
            telemetry.forget(&name);
            changes.stopped.push(name.to_string());
        }
        for coming in coming {
            let list = if over.contains(&coming.name) { &mut changes.restarted } else { &mut changes.started };
            list.push(coming.name.to_string());
            self.start(coming, telemetry, once);
        }
    }

    fn start(&mut self, coming: Coming, telemetry: &Arc<Telemetry>, once: bool) {
        let Coming { name, identity, intake, mounts, generation, work } = coming;
        telemetry.health.initializing(&name);
        let stop = CancellationToken::new();
        let stopped = Stop(stop.clone());
        let (role, task) = match work {
            Work::Collect(options, collector, builder) => {
                let schedule = schedule(&name, &options, collector, builder, &intake, telemetry);
                let task = if once { tokio::spawn(schedule.run_once()) } else { tokio::spawn(schedule.run(stopped)) };
                (Role::Collect, task)
            }
            Work::Receive(receiver) => {
                telemetry.health.healthy(&name);
                let task = tokio::spawn(receive(name.clone(), receiver, intake.clone(), stopped, telemetry.clone()));
                (Role::Receive, task)
            }
        };
        let task = AbortOnDropHandle::new(task);
        let role = identity.as_ref().map_or(role, |identity| identity.role);
        self.running.insert(name, Source { identity, role, intake, mounts, generation, stop, task });
    }

    /// What they are.
    pub fn shapes(&self) -> Vec<SourceShape> {
        self.running.iter().map(|(name, source)| SourceShape { name: name.clone(), role: source.role }).collect()
    }

    /// Tells all of them to hand in what they hold, and to end.
    pub fn stop(&self) {
        self.running.values().for_each(|source| source.stop.cancel());
    }

    /// Whether one of this name runs.
    pub fn has(&self, name: &str) -> bool {
        self.running.contains_key(name)
    }

    /// Lets nothing in any more, and lets go of the queues.
    pub fn close(&self) {
        self.running.values().for_each(|source| source.intake.close());
    }

    /// Waits until all have ended.
    pub async fn ended(&mut self) {
        let unfinished = self.running.values_mut().filter(|source| !source.task.is_finished());
        join_all(unfinished.map(|source| &mut source.task)).await;
    }
}

/// Waits until sources that were told to end have ended; what they held, such as a port, is free then.
async fn end(mut ended: Vec<(&Arc<str>, AbortOnDropHandle<()>)>) {
    if tokio::time::timeout(LET_GO, join_all(ended.iter_mut().map(|(_, task)| task))).await.is_ok() {
        return;
    }
    ended.retain(|(_, task)| !task.is_finished());
    for (name, task) in &ended {
        tracing::warn!("{name} did not end in time and is ended");
        task.abort();
    }
    // One that blocks a thread stays until it does not.
    let _ = tokio::time::timeout(ABORTED, join_all(ended.iter_mut().map(|(_, task)| task))).await;
}

fn schedule(
    name: &Arc<str>,
    options: &CollectOptions,
    collector: Box<dyn DynCollect>,
    builder: MetricsBuilder,
    intake: &Intake,
    telemetry: &Arc<Telemetry>,
) -> Schedule {
    let duration = |value: Option<weir_config::Duration>| value.map_or(LONGEST_POLL, Into::into);
    Schedule {
        name: name.clone(),
        collector,
        builder,
        interval: duration(options.interval),
        timeout: duration(options.timeout),
        intake: intake.clone(),
        telemetry: telemetry.clone(),
        last_bytes: 0,
    }
}

/// Runs a receiver; one that ends early or panics is unhealthy.
async fn receive(name: Arc<str>, receiver: Box<dyn DynReceive>, intake: Intake, stop: Stop, telemetry: Arc<Telemetry>) {
    let run = async { receiver.run(intake, stop).await };
    match std::panic::AssertUnwindSafe(run).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => telemetry.health.unhealthy(&name, &fault.message),
        Err(_) => telemetry.health.unhealthy(&name, "the receiver panicked; please report it"),
    }
}
