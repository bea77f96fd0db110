//! A worker that is released for another: nothing is lost, nothing delivered twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use weir_model::Verdict;
use weir_pipeline::options::ExportOptions;
use weir_pipeline::{Outcome, Refused};

use crate::backend::patient;
use crate::line::{Line, Running, Server, later, never, until};

fn accepting() -> Server {
    Server::judging(|_| Outcome::Accepted)
}

async fn release(worker: Running) -> Duration {
    let begun = Instant::now();
    worker.release.cancel();
    worker.task.await.unwrap();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_was_not_tried_goes_back_whole_and_in_order_and_sources_hear_the_end() {
    let line = Line::in_memory();
    let heard: Vec<_> = (0..50).map(|at| line.offer(&[&format!("{at:02}")])).collect();
    let busy = Server::judging(|_| later());
    let options = ExportOptions { batch_size: 3, ..patient() };
    let worker = line.start(&busy, options.clone());
    until("tried", || busy.attempts() >= 4).await;
    assert!(release(worker).await < Duration::from_millis(10));
    assert_eq!((line.counts().queued, line.counts().in_flight), (50, 0));
    let next = accepting().ordered();
    let _worker = line.start(&next, options);
    for heard in heard {
        assert_eq!(heard.await.unwrap().verdict, Verdict::Delivered);
    }
    let expected: Vec<String> = (0..50).map(|at| format!("{at:02}")).collect();
    assert_eq!(next.taken(), expected);
    assert_eq!((line.counts().accepted, line.counts().delivered), (50, 50));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_under_way_ends_and_counts() {
    let line = Line::in_memory();
    line.push(&["a"]);
    let slow = Server::slow(|_| async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        Outcome::Accepted
    });
    let worker = line.start(&slow, patient());
    until("begun", || slow.attempts() == 1).await;
    let took = release(worker).await;
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((line.counts().delivered, line.counts().queued), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_does_not_end_is_cut_off_after_five_seconds_and_its_records_go_back() {
    let line = Line::in_memory();
    line.push(&["a"]);
    let hangs = Server::slow(|_| std::future::pending());
    let worker = line.start(&hangs, patient());
    until("begun", || hangs.attempts() == 1).await;
    let took = release(worker).await;
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!((line.counts().queued, line.counts().in_flight), (1, 0));
    let next = accepting();
    let _worker = line.start(&next, patient());
    until("delivered", || line.counts().delivered == 1).await;
    assert_eq!(next.taken(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_pieces_of_a_batch_that_was_taken_apart_are_delivered_or_go_back_alone() {
    let line = Line::in_memory();
    let heard = line.offer(&["a", "b", "busy 1", "busy 2"]);
    let server = Server::judging(|bodies| match bodies.len() {
        3.. => Outcome::Split { why: "413".into() },
        _ if bodies[0].starts_with("busy") => later(),
        _ => Outcome::Accepted,
    });
    let worker = line.start(&server, patient());
    until("half of it", || line.counts().delivered == 2).await;
    until("the other half", || server.attempts() > 3).await;
    release(worker).await;
    assert_eq!((line.counts().delivered, line.counts().queued, line.counts().in_flight), (2, 2, 0));
    let next = accepting();
    let _worker = line.start(&next, patient());
    assert_eq!(heard.await.unwrap().verdict, Verdict::Delivered);
    assert_eq!((server.taken(), next.taken()), (vec!["a".into(), "b".into()], vec!["busy 1".into(), "busy 2".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_half_delivered_is_delivered_to_its_end_where_the_backend_takes_it() {
    let line = Line::in_memory();
    let heard = line.offer(&["1", "2", "3", "4", "5", "6", "7", "8"]);
    let server = Server::slow(|bodies| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if bodies.len() > 2 { Outcome::Split { why: "413".into() } } else { Outcome::Accepted }
    });
    let worker = line.start(&server, patient());
    until("a quarter of it", || line.counts().delivered == 2).await;
    release(worker).await;
    assert_eq!((line.counts().delivered, line.counts().queued), (8, 0));
    assert_eq!(heard.await.unwrap().verdict, Verdict::Delivered);
    assert_eq!(server.taken().len(), 8);
}

#[tokio::test]
async fn a_batch_on_disk_that_is_half_delivered_goes_back_whole_and_the_ledger_takes_back_what_it_counted() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::on_disk(folder.path());
    line.push(&["a", "b", "bad", "busy"]);
    let server = Server::judging(|bodies| match &*bodies[0] {
        "a" if bodies.len() > 2 => Outcome::Split { why: "413".into() },
        "bad" => Outcome::Each { refused: vec![(0, "bad".into())], later: vec![1], after: None, why: "some".into() },
        "busy" => later(),
        _ => Outcome::Accepted,
    });
    let worker = line.start(&server, patient());
    until("half of it", || line.counts().dead_lettered == 1).await;
    assert_eq!((line.counts().delivered, line.counts().in_flight), (2, 1));
    let took = release(worker).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    let counts = line.counts();
    assert_eq!((counts.queued, counts.in_flight, counts.delivered, counts.dead_lettered), (4, 0, 0, 0));
    let next = accepting();
    let worker = line.start(&next, patient());
    line.queue.close();
    worker.task.await.unwrap();
    assert_eq!((next.taken().len(), line.counts().delivered), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_release_while_nothing_may_be_sent_gives_everything_back_at_once() {
    for outcome in [
        Outcome::Unauthorized { why: "401".into() },
        Outcome::Later { after: Some(Duration::from_secs(600)), why: "429".into() },
    ] {
        let line = Line::in_memory();
        let answer = outcome.clone();
        let server = Server::judging(move |_| answer.clone());
        let worker = line.start(&server, ExportOptions { batch_size: 1, ..patient() });
        line.push(&["a"]);
        line.push(&["b"]);
        until("tried", || server.attempts() > 0).await;
        assert!(release(worker).await < Duration::from_millis(10));
        assert_eq!((line.counts().queued, line.counts().in_flight), (2, 0), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_release_ends_it_and_counts_what_is_left() {
    let line = Line::in_memory();
    line.push(&["a"]);
    let hangs = Server::slow(|_| std::future::pending());
    let worker = line.start(&hangs, patient());
    until("begun", || hangs.attempts() == 1).await;
    worker.release.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.abandon.cancel();
    let begun = Instant::now();
    worker.task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(10));
    assert_eq!(line.counts().dropped_total(), 1);
}

#[tokio::test]
async fn a_queue_on_disk_gives_a_released_workers_entries_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::on_disk(folder.path());
    for at in 0..20 {
        line.push(&[&format!("{at:02}")]);
    }
    let busy = Server::judging(|_| later());
    let options = ExportOptions { batch_size: 3, ..patient() };
    let worker = line.start(&busy, options.clone());
    until("tried", || busy.attempts() >= 2).await;
    release(worker).await;
    assert_eq!((line.counts().queued, line.counts().in_flight), (20, 0));
    let next = accepting();
    let worker = line.start(&next, options);
    line.queue.close();
    worker.task.await.unwrap();
    let taken: BTreeSet<String> = next.taken().into_iter().collect();
    assert_eq!((taken.len(), next.taken().len(), line.counts().delivered), (20, 20, 20));
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Accepted),
        3 => Just(later()),
        1 => Just(Outcome::Later { after: Some(Duration::from_secs(3)), why: "429".into() }),
        2 => Just(never("bad")),
        2 => Just(Outcome::Split { why: "413".into() }),
        1 => Just(Outcome::Unauthorized { why: "401".into() }),
        1 => (0_u64..3).prop_map(|count| Outcome::Partly { refused: Refused::Count(count), why: "some".into() }),
        2 => Just(Outcome::Each { refused: vec![(1, "own".into())], later: vec![0, 3], after: None, why: "each".into() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Workers follow one another, each released at any moment of any script: every record is taken or
    /// refused exactly once, and every source hears one end.
    #[test]
    fn releases_at_any_moment_neither_lose_nor_double_a_record(
        scripts in proptest::collection::vec(proptest::collection::vec(outcome(), 0..20), 1..5),
        pauses in proptest::collection::vec(0_u64..8000, 5),
        batches in proptest::collection::vec(1_usize..7, 1..12),
        batch_size in 1_usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let line = Line::in_memory();
            // What the backends took, by the outcome that they gave.
            let taken: Arc<Mutex<Vec<String>>> = Arc::default();
            let total: usize = batches.iter().sum();
            let mut heard = Vec::new();
            for (at, size) in batches.iter().enumerate() {
                let bodies: Vec<String> = (0..*size).map(|n| format!("{at}.{n}")).collect();
                let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
                if at % 2 == 0 { heard.push(line.offer(&bodies)) } else { line.push(&bodies) }
            }
            let options = ExportOptions { batch_size, ..patient() };
            for (script, pause) in scripts.into_iter().chain([Vec::new()]).zip(pauses) {
                let (mut script, sink) = (script.into_iter(), taken.clone());
                let server = Server::judging(move |bodies| {
                    let outcome = script.next().unwrap_or(Outcome::Accepted);
                    let mut taken = sink.lock().unwrap();
                    match &outcome {
                        Outcome::Accepted | Outcome::Partly { .. } => taken.extend(bodies.iter().cloned()),
                        Outcome::Each { .. } => {
                            taken.extend(bodies.iter().enumerate().filter(|(at, _)| ![0, 1, 3].contains(at)).map(|(_, body)| body.clone()));
                        }
                        _ => {}
                    }
                    outcome
                });
                let worker = line.start(&server, options.clone());
                tokio::time::sleep(Duration::from_millis(pause)).await;
                release(worker).await;
                let counts = line.counts();
                assert_eq!(counts.in_flight, 0, "{counts:?}");
            }
            let worker = line.start(&accepting(), options);
            line.queue.close();
            worker.task.await.unwrap();
            for heard in heard {
                assert_ne!(heard.await.unwrap().verdict, Verdict::Retry);
            }
            let counts = line.counts();
            assert_eq!(counts.delivered + counts.dead_lettered + counts.dropped_total(), total as u64);
            let taken = taken.lock().unwrap();
            let once: BTreeSet<&String> = taken.iter().collect();
            assert_eq!(once.len(), taken.len(), "something was taken twice: {taken:?}");
        });
    }
}
