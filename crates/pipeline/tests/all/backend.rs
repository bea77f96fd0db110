//! A backend that answers as it is told and keeps what it took.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use weir_model::logs::{LogRecord, Logs};
use weir_model::{Common, Payload, Records, Resource, Scope, Signal, Value};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::{Delivery, DynCollect, DynExport, DynReceive, Mount, Stop, Takes};
use weir_pipeline::{Fault, Intake, Outcome};

/// Judges a delivery by the bodies of its log records.
pub type Judge = Box<dyn FnMut(&[String]) -> Outcome + Send>;

/// What a backend took and was asked.
#[derive(Default)]
pub struct Seen {
    /// Bodies that it took, in order.
    pub taken: Vec<String>,
    /// How many attempts reached it.
    pub attempts: usize,
    /// When they came.
    pub at: Vec<tokio::time::Instant>,
}

#[derive(Clone)]
pub struct Backend {
    pub seen: Arc<Mutex<Seen>>,
    judge: Arc<Mutex<Judge>>,
    ordered: bool,
}

impl Backend {
    pub fn judging(judge: impl FnMut(&[String]) -> Outcome + Send + 'static) -> Self {
        Self { seen: Arc::default(), judge: Arc::new(Mutex::new(Box::new(judge))), ordered: true }
    }

    /// Answers these outcomes first, then accepts everything.
    pub fn scripted(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        let mut script: VecDeque<Outcome> = outcomes.into_iter().collect();
        Self::judging(move |_| script.pop_front().unwrap_or(Outcome::Accepted))
    }

    pub fn taken(&self) -> Vec<String> {
        self.seen.lock().unwrap().taken.clone()
    }

    pub fn attempts(&self) -> usize {
        self.seen.lock().unwrap().attempts
    }
}

impl DynExport for Backend {
    fn takes(&self) -> Takes {
        Takes { signals: &[Signal::Logs], ordered: self.ordered, ..Takes::EVERYTHING }
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let bodies: Vec<String> = delivery.payloads.iter().flat_map(bodies).collect();
            {
                let mut seen = self.seen.lock().unwrap();
                seen.attempts += 1;
                seen.at.push(tokio::time::Instant::now());
            }
            // A judge may panic on purpose; it is asked again all the same.
            let outcome = (self.judge.lock().unwrap_or_else(PoisonError::into_inner))(&bodies);
            if outcome == Outcome::Accepted {
                self.seen.lock().unwrap().taken.extend(bodies);
            }
            outcome
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok("a test".into()) })
    }
}

/// The bodies of a payload of logs.
pub fn bodies(payload: &Payload) -> Vec<String> {
    let Ok(Records::Logs(logs)) = payload.records() else { return Vec::new() };
    logs.records.iter().map(|record| logs.common.value_text(record.body)).collect()
}

/// Log records with these bodies.
pub fn logs<S: AsRef<str>>(bodies: impl IntoIterator<Item = S>) -> Payload {
    let mut common = Common::default();
    common.resources.push(Resource::default());
    common.scopes.push(Scope::default());
    let records = bodies
        .into_iter()
        .map(|body| LogRecord {
            body: Value::String(common.arena.add(body.as_ref().as_bytes())),
            ..LogRecord::default()
        })
        .collect();
    Payload::from_records(Records::Logs(Logs { common, records }))
}

/// A receiver that hands its intake to the test.
pub struct Door(pub tokio::sync::oneshot::Sender<Intake>);

impl DynReceive for Door {
    fn mounts(&self, _: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            let _ = self.0.send(intake);
            stop.wait().await;
            Ok(())
        })
    }
}

/// Options that try again after a second, without an end.
pub fn patient() -> ExportOptions {
    ExportOptions { retry_delay: weir_config::Duration::from_secs(1), ..ExportOptions::default() }
}

/// A plan of exporters without routes.
pub fn plan(exporters: Vec<(&str, ExportOptions, Backend)>) -> Plan {
    let export = |(name, options, backend): (&str, ExportOptions, Backend)| Member::Export {
        name: Arc::from(name),
        options,
        exporter: Box::new(backend),
    };
    Plan { members: exporters.into_iter().map(export).collect(), memory_bytes: 64 << 20, ..Plan::default() }
}

/// A started pipeline and the intake of its source `door`.
pub async fn start(mut plan: Plan) -> (Pipeline, Intake) {
    let (sender, intake) = tokio::sync::oneshot::channel();
    plan.members.push(Member::Receive { name: Arc::from("door"), receiver: Box::new(Door(sender)) });
    let pipeline = Pipeline::start(plan).await.unwrap();
    (pipeline, intake.await.unwrap())
}

/// A collector made of a closure, for tests of the schedule.
pub struct Polled<F>(pub F);

impl<F> DynCollect for Polled<F>
where
    F: FnMut(&mut weir_model::MetricsBuilder) -> BoxFuture<'static, Result<(), Fault>> + Send,
{
    fn watching(&mut self) -> weir_pipeline::Watching {
        weir_pipeline::Watching::default()
    }

    fn collect<'a>(&'a mut self, out: &'a mut weir_model::MetricsBuilder) -> BoxFuture<'a, Result<(), Fault>> {
        (self.0)(out)
    }
}
