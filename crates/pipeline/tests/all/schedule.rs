//! Polls: they keep their schedule, whatever a collector does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use weir_model::build::{Kind as Instrument, MetricDescription, metric};
use weir_model::{MetricsBuilder, Signal};
use weir_pipeline::options::{CollectOptions, ExportOptions, WhenFull};
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::Member;
use weir_pipeline::role::{Delivery, DynCollect, DynExport, Takes};
use weir_pipeline::{Fault, FaultKind, Outcome};

use crate::backend::{Polled, patient, plan};
use crate::line::later;

fn every(seconds: u64, timeout: u64) -> CollectOptions {
    CollectOptions {
        interval: Some(weir_config::Duration::from_secs(seconds)),
        timeout: Some(weir_config::Duration::from_secs(timeout)),
    }
}

fn member(name: &str, options: CollectOptions, collector: Box<dyn DynCollect>) -> Member {
    Member::Collect { name: Arc::from(name), options, collector, builder: MetricsBuilder::new(name, Vec::new()) }
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_is_cut_named_and_does_not_delay_another() {
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = polled.clone();
    let well = Polled(move |_: &mut MetricsBuilder| {
        counter.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(()) }) as _
    });
    let hangs = Polled(|_: &mut MetricsBuilder| Box::pin(std::future::pending()) as _);
    let mut plan = plan(Vec::new());
    plan.members.push(member("hangs", every(10, 25), Box::new(hangs)));
    plan.members.push(member("well", every(10, 5), Box::new(well)));
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert!((12..=14).contains(&polled.load(Ordering::Relaxed)), "{polled:?} polls in 121 s");
    let telemetry = pipeline.telemetry();
    let reason = telemetry.health.snapshot()["hangs"].reason.clone().unwrap();
    assert!(reason.contains("did not end within 25 s"), "{reason}");
    let counts = telemetry.polls(&Arc::from("hangs")).counts();
    assert!(counts.failed["timeout"] >= 3 && counts.overlapped >= 3, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_panics_or_fails_is_polled_again() {
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = polled.clone();
    let collector = Polled(move |_: &mut MetricsBuilder| {
        let at = counter.fetch_add(1, Ordering::Relaxed);
        assert!(at != 0, "a collector's bug");
        Box::pin(async move { if at == 1 { Err(Fault::new(FaultKind::Unreachable, "nobody there")) } else { Ok(()) } })
            as _
    });
    let mut plan = plan(Vec::new());
    plan.members.push(member("moody", every(10, 5), Box::new(collector)));
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    let counts = pipeline.telemetry().polls(&Arc::from("moody")).counts();
    assert_eq!((counts.failed["other"], counts.failed["unreachable"]), (1, 1), "{counts:?}");
    assert!(counts.succeeded >= 1);
    assert_eq!(pipeline.telemetry().health.snapshot()["moody"].reason, None, "healthy again");
}

const POINTS: MetricDescription<'static> = metric("test.points", "1", Instrument::Gauge, "Points.");

/// A backend for metrics that can be away.
#[derive(Clone, Default)]
struct Store {
    is_away: Arc<AtomicBool>,
    points: Arc<AtomicUsize>,
}

impl DynExport for Store {
    fn takes(&self) -> Takes {
        Takes { signals: &[Signal::Metrics], ..Takes::EVERYTHING }
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.is_away.load(Ordering::Relaxed) {
                return later();
            }
            let points: usize = delivery.payloads.iter().map(|payload| payload.len()).sum();
            self.points.fetch_add(points, Ordering::Relaxed);
            Outcome::Accepted
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok("a test".into()) })
    }
}

/// Gathers 100 points a poll, and counts its polls.
fn hundred(polled: &Arc<AtomicUsize>) -> Box<dyn DynCollect> {
    let polled = polled.clone();
    Box::new(Polled(move |out: &mut MetricsBuilder| {
        let poll = polled.fetch_add(1, Ordering::Relaxed) as u64;
        for at in 0..100_u64 {
            out.record(&POINTS, &[("at", &at.to_string())], poll * 1000 + at);
        }
        Box::pin(async { Ok(()) }) as _
    }))
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_left_out_and_counted_while_memory_is_used_up_and_nothing_that_was_gathered_is_dropped() {
    let (polled, store) = (Arc::new(AtomicUsize::new(0)), Store::default());
    store.is_away.store(true, Ordering::Relaxed);
    let mut plan = plan(Vec::new());
    plan.memory_bytes = 50_000;
    let exporter = Box::new(store.clone());
    plan.members.push(Member::Export { name: Arc::from("store"), options: patient(), exporter });
    plan.members.push(member("hundred", every(10, 5), hundred(&polled)));
    let pipeline = Pipeline::start(plan).await.unwrap();
    let telemetry = pipeline.telemetry().clone();
    let counts = || telemetry.polls(&Arc::from("hundred")).counts();
    tokio::time::sleep(Duration::from_secs(600)).await;

    let (away, polls) = (counts(), polled.load(Ordering::Relaxed));
    assert!(polls > 1 && away.short_of_memory > 10, "{polls} polls, {away:?}");
    assert_eq!(away.succeeded, polls as u64, "what is left out is not counted as a poll");
    assert!((59..=62).contains(&(away.succeeded + away.short_of_memory)), "one of them each time: {away:?}");
    assert_eq!(away.overlapped, 0);
    let reason = telemetry.health.snapshot()["hundred"].reason.clone().unwrap();
    assert!(reason.contains("memory is used up") && reason.contains("`limits.memory`"), "{reason}");
    let shown = serde_json::to_value(pipeline.control().pipeline()).unwrap();
    assert_eq!(shown["sources"][0]["skipped_polls"]["memory_full"], away.short_of_memory, "{shown}");

    store.is_away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let back = counts();
    assert!(back.succeeded > away.succeeded + 50, "{back:?}");
    assert_eq!(telemetry.health.snapshot()["hundred"].reason, None, "healthy again");
    pipeline.stop().await;
    let gathered = polled.load(Ordering::Relaxed) * 100;
    assert_eq!(store.points.load(Ordering::Relaxed), gathered);
    let ledger = telemetry.ledger.snapshot();
    assert!(ledger.iter().all(|(_, counts)| counts.dropped.is_empty()), "{ledger:?}");
    assert_eq!(ledger.iter().map(|(_, counts)| counts.accepted).sum::<u64>(), gathered as u64);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_drops_what_is_older_lets_polls_go_on_when_memory_is_used_up() {
    let (polled, store) = (Arc::new(AtomicUsize::new(0)), Store::default());
    store.is_away.store(true, Ordering::Relaxed);
    let mut plan = plan(Vec::new());
    plan.memory_bytes = 50_000;
    let options = ExportOptions { when_full: WhenFull::DropOldest, ..patient() };
    plan.members.push(Member::Export { name: Arc::from("store"), options, exporter: Box::new(store) });
    plan.members.push(member("hundred", every(10, 5), hundred(&polled)));
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let counts = pipeline.telemetry().polls(&Arc::from("hundred")).counts();
    assert_eq!((counts.short_of_memory, counts.overlapped), (0, 0), "{counts:?}");
    assert!(polled.load(Ordering::Relaxed) >= 59);
}
