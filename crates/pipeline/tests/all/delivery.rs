//! What becomes of records under every outcome, and that the ledger says it exactly.

use std::time::Duration;

use proptest::prelude::*;
use weir_config::ByteSize;
use weir_pipeline::ledger::{Counts, Key, Reason};
use weir_pipeline::options::{ExportOptions, WhenFull};
use weir_pipeline::{Answer, Outcome, Refused};

use crate::backend::{Backend, logs, patient, plan, start};

fn later() -> Outcome {
    Outcome::Later { after: None, why: "busy".into() }
}

fn never() -> Outcome {
    Outcome::Never { why: "bad data".into() }
}

fn split() -> Outcome {
    Outcome::Split { why: "too large".into() }
}

/// The columns of an exporter, all of them adding up.
fn counts(ledger: &[(Key, Counts)], exporter: &str) -> Counts {
    for (key, counts) in ledger {
        assert_eq!(counts.difference(), 0, "{key:?} does not add up: {counts:?}");
    }
    ledger.iter().find(|(key, _)| &*key.1 == exporter).map(|(_, counts)| counts.clone()).unwrap_or_default()
}

fn dropped(counts: &Counts, reason: Reason) -> u64 {
    counts.dropped.get(&reason).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_sender_hears_stored_only_after_every_exporter_took_it() {
    let (fast, slow) = (Backend::scripted([]), Backend::scripted([later(), later()]));
    let (pipeline, intake) =
        start(plan(vec![("fast", patient(), fast.clone()), ("slow", patient(), slow.clone())])).await;
    assert_eq!(intake.offer(logs(["a", "b"])).await, Answer::Stored);
    assert_eq!(slow.taken(), ["a", "b"]);
    assert_eq!(slow.attempts(), 3);
    assert_eq!(fast.attempts(), 1, "the healthy one must not get it twice");
    let ledger = pipeline.stop().await;
    assert_eq!(counts(&ledger, "fast").delivered, 2);
    assert_eq!(counts(&ledger, "slow").delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn the_backends_retry_after_is_a_floor() {
    let backend = Backend::scripted([Outcome::Later { after: Some(Duration::from_secs(5)), why: "429".into() }]);
    let (_pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    assert_eq!(intake.offer(logs(["a"])).await, Answer::Stored);
    let seen = backend.seen.lock().unwrap();
    assert!(seen.at[1] - seen.at[0] >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_the_sender_with_count_and_reason() {
    let (pipeline, intake) = start(plan(vec![("one", patient(), Backend::judging(|_| never()))])).await;
    assert_eq!(intake.offer(logs(["a", "b"])).await, Answer::Refused { records: 2, why: "bad data".into() });
    let counts = counts(&pipeline.stop().await, "one");
    assert_eq!((counts.delivered, dropped(&counts, Reason::Refused)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_partial_refusal_counts_exactly_the_refused_records() {
    let partly = Outcome::Partly { refused: Refused::Count(2), why: "too old".into() };
    let (pipeline, intake) = start(plan(vec![("one", patient(), Backend::scripted([partly]))])).await;
    assert_eq!(intake.offer(logs(["a", "b", "c"])).await, Answer::Refused { records: 2, why: "too old".into() });
    let counts = counts(&pipeline.stop().await, "one");
    assert_eq!((counts.delivered, dropped(&counts, Reason::Refused)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_split_loses_only_its_bad_record() {
    let backend =
        Backend::judging(|bodies| if bodies.contains(&"bad".to_owned()) { split() } else { Outcome::Accepted });
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    let answer = intake.offer(logs(["1", "2", "bad", "3", "4", "5", "6"])).await;
    assert_eq!(answer, Answer::Refused { records: 1, why: "too large".into() });
    assert_eq!(backend.taken(), ["1", "2", "3", "4", "5", "6"], "in order, none twice");
    let counts = counts(&pipeline.stop().await, "one");
    assert_eq!((counts.delivered, dropped(&counts, Reason::Refused)), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_panics_is_asked_again_and_nothing_is_lost() {
    let mut first = true;
    let backend = Backend::judging(move |_| {
        assert!(!std::mem::take(&mut first), "an exporter's bug");
        Outcome::Accepted
    });
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    assert_eq!(intake.offer(logs(["a"])).await, Answer::Stored);
    assert_eq!((backend.attempts(), backend.taken()), (2, vec!["a".to_owned()]));
    assert_eq!(counts(&pipeline.stop().await, "one").delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_exporter_does_not_stop_another() {
    let (dead, alive) = (Backend::judging(|_| later()), Backend::scripted([]));
    let small = ExportOptions { queue_size: Some(ByteSize::from_bytes(2_000)), ..patient() };
    let (pipeline, intake) = start(plan(vec![("dead", small, dead), ("alive", patient(), alive.clone())])).await;
    for at in 0..200 {
        intake.push(logs([format!("poll {at}")]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(alive.taken().len(), 200, "polls keep their schedule");
    let counts = counts(&pipeline.stop().await, "dead");
    assert!(dropped(&counts, Reason::QueueFull) > 0, "what did not fit is counted: {counts:?}");
    assert_eq!(counts.accepted, 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_asks_the_sender_to_come_again_and_takes_nothing() {
    let small = ExportOptions { queue_size: Some(ByteSize::from_bytes(1_000)), ..patient() };
    let (pipeline, intake) = start(plan(vec![("dead", small, Backend::judging(|_| later()))])).await;
    let first = tokio::spawn({
        let intake = intake.clone();
        async move { intake.offer(logs(["x".repeat(900)])).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = intake.offer(logs(["y".repeat(900)])).await;
    assert!(
        matches!(&second, Answer::Later { why, .. } if why.contains("queue of dead") && why.contains("full")),
        "{second:?}"
    );
    assert!(matches!(first.await.unwrap(), Answer::Later { .. }), "the first was not delivered in time");
    assert_eq!(counts(&pipeline.stop().await, "dead").accepted, 1);
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_keeps_the_newest_and_counts_the_rest() {
    let mut open = 3;
    let backend = Backend::judging(move |_| {
        open -= 1;
        if open >= 0 { later() } else { Outcome::Accepted }
    });
    let options =
        ExportOptions { queue_size: Some(ByteSize::from_bytes(3_000)), when_full: WhenFull::DropOldest, ..patient() };
    let (pipeline, intake) = start(plan(vec![("one", options, backend.clone())])).await;
    for at in 0..20 {
        intake.push(logs([format!("{at:04}{}", "x".repeat(500))]));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let taken = backend.taken();
    assert!(taken.last().unwrap().starts_with("0019"), "the newest arrived");
    let counts = counts(&pipeline.stop().await, "one");
    assert_eq!(counts.delivered + dropped(&counts, Reason::QueueFull), 20);
    assert!(dropped(&counts, Reason::QueueFull) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_sender_went_away_is_not_delivered_twice() {
    let mut busy = true;
    let backend = Backend::judging(move |_| if std::mem::take(&mut busy) { later() } else { Outcome::Accepted });
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    // The sender hangs up while the first attempt fails, and sends again.
    let gone = tokio::time::timeout(Duration::from_millis(1), intake.offer(logs(["a"]))).await;
    assert!(gone.is_err());
    assert_eq!(intake.offer(logs(["a"])).await, Answer::Stored);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(backend.taken(), ["a"]);
    let counts = counts(&pipeline.stop().await, "one");
    assert_eq!((counts.delivered, dropped(&counts, Reason::Withdrawn)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_where_configured_and_the_sender_may_come_again() {
    let options = ExportOptions { retry_attempts: Some(2), ..patient() };
    let backend = Backend::judging(|_| later());
    let (pipeline, intake) = start(plan(vec![("one", options, backend.clone())])).await;
    assert!(matches!(intake.offer(logs(["a"])).await, Answer::Later { .. }));
    assert_eq!(backend.attempts(), 3, "the first attempt and two more");
    assert_eq!(dropped(&counts(&pipeline.stop().await, "one"), Reason::Expired), 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_not_accepted_pause_the_exporter_and_lose_nothing() {
    let backend = Backend::scripted([Outcome::Unauthorized { why: "401".into() }]);
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    intake.push(logs(["a"]));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(backend.attempts(), 1, "no hammering");
    let health = pipeline.telemetry().health.snapshot();
    assert_eq!(health["one"].reason.as_deref(), Some("401"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(backend.taken(), ["a"]);
    assert_eq!(counts(&pipeline.stop().await, "one").delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_with_a_dead_backend_ends_within_five_seconds_and_counts_what_is_left() {
    let (pipeline, intake) = start(plan(vec![("dead", patient(), Backend::judging(|_| later()))])).await;
    for at in 0..5 {
        intake.push(logs([format!("{at}")]));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    let ledger = pipeline.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let counts = counts(&ledger, "dead");
    assert_eq!((counts.accepted, dropped(&counts, Reason::Stopped)), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn records_that_no_exporter_takes_are_refused_and_counted() {
    let (pipeline, intake) = start(plan(Vec::new())).await;
    let answer = intake.offer(logs(["a"])).await;
    assert!(
        matches!(&answer, Answer::Refused { records: 1, why } if why.contains("no exporter takes logs")),
        "{answer:?}"
    );
    assert_eq!(dropped(&counts(&pipeline.stop().await, "-"), Reason::NoRoute), 1);
}

#[tokio::test(start_paused = true)]
async fn records_that_arrive_while_a_request_is_under_way_travel_together() {
    let backend = Backend::scripted([later()]);
    let (_pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    for at in 0..50 {
        intake.push(logs([format!("{at}")]));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(backend.taken().len(), 50);
    assert!(backend.attempts() <= 5, "{} requests for 50 small batches", backend.attempts());
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Accepted),
        2 => Just(later()),
        1 => Just(never()),
        1 => Just(split()),
        1 => (0_u64..4).prop_map(|n| Outcome::Partly { refused: Refused::Count(n), why: "some".into() }),
        1 => Just(Outcome::Unauthorized { why: "401".into() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever two backends answer, every record is in exactly one column, and every sender is answered.
    #[test]
    fn the_ledger_adds_up_under_any_sequence_of_outcomes(
        one in proptest::collection::vec(outcome(), 0..12),
        two in proptest::collection::vec(outcome(), 0..12),
        batches in proptest::collection::vec(1_usize..6, 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let options = ExportOptions { retry_attempts: Some(4), ..patient() };
            let exporters = vec![("one", options.clone(), Backend::scripted(one)), ("two", options, Backend::scripted(two))];
            let (pipeline, intake) = start(plan(exporters)).await;
            let mut offered = 0_u64;
            for (at, size) in batches.iter().enumerate() {
                offered += *size as u64;
                let payload = logs((0..*size).map(|n| format!("{at}.{n}")));
                if at % 3 == 0 { intake.push(payload) } else { intake.offer(payload).await; }
            }
            let ledger = pipeline.stop().await;
            for exporter in ["one", "two"] {
                let counts = counts(&ledger, exporter);
                assert_eq!(counts.accepted, offered);
                assert_eq!(counts.queued + counts.in_flight, 0, "a stopped pipeline holds nothing: {counts:?}");
            }
        });
    }
}
