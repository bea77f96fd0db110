//! Polls: they keep their schedule, whatever a collector does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weir_model::MetricsBuilder;
use weir_pipeline::options::CollectOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::Member;
use weir_pipeline::{Fault, FaultKind};

use crate::backend::{Polled, plan};

fn every(seconds: u64, timeout: u64) -> CollectOptions {
    CollectOptions {
        interval: Some(weir_config::Duration::from_secs(seconds)),
        timeout: Some(weir_config::Duration::from_secs(timeout)),
    }
}

fn member(name: &str, options: CollectOptions, collector: Box<dyn weir_pipeline::role::DynCollect>) -> Member {
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
    assert!(counts.failed["timeout"] >= 3 && counts.skipped >= 3, "{counts:?}");
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
