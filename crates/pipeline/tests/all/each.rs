//! A backend that answers for every record: what it took is never sent again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use weir_pipeline::ledger::{Counts, Key, Reason};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::{Answer, Outcome};

use crate::backend::{Backend, logs, patient, plan, start};

/// What a backend says about one record in one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Taken,
    Refused,
    Later,
}

/// The bodies of every attempt, and those that were taken.
type Seen = Arc<Mutex<(Vec<Vec<String>>, Vec<String>)>>;

/// A backend that asks `say` about every record (its body and how often it came before).
fn answering(mut say: impl FnMut(&str, usize) -> Says + Send + 'static) -> (Backend, Seen) {
    let seen = Seen::default();
    let sink = seen.clone();
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    let backend = Backend::judging(move |bodies| {
        let (mut refused, mut later) = (Vec::new(), Vec::new());
        let mut seen = sink.lock().unwrap();
        seen.0.push(bodies.to_vec());
        for (at, body) in bodies.iter().enumerate() {
            let before = came.entry(body.clone()).or_default();
            match say(body, *before) {
                Says::Taken => seen.1.push(body.clone()),
                Says::Refused => refused.push((at as u32, format!("{body} is bad"))),
                Says::Later => later.push(at as u32),
            }
            *before += 1;
        }
        Outcome::Each { refused, later, after: None, why: "some".into() }
    });
    (backend, seen)
}

fn counts(ledger: &[(Key, Counts)]) -> Counts {
    let (_, counts) = ledger.first().unwrap();
    assert_eq!(counts.difference(), 0, "{counts:?}");
    counts.clone()
}

fn refused(counts: &Counts) -> u64 {
    counts.dropped.get(&Reason::Refused).copied().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_not_sent_again_and_the_rest_is_until_it_is_taken() {
    let (backend, seen) = answering(|body, before| match body {
        "bad" => Says::Refused,
        "slow" if before < 2 => Says::Later,
        _ => Says::Taken,
    });
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend)])).await;
    let answer = intake.offer(logs(["a", "slow", "bad", "b"])).await;
    assert_eq!(answer, Answer::Refused { records: 1, why: "bad is bad".into() });
    let (attempts, taken) = seen.lock().unwrap().clone();
    assert_eq!(attempts, [vec!["a", "slow", "bad", "b"], vec!["slow"], vec!["slow"]]);
    assert_eq!(taken, ["a", "b", "slow"]);
    let counts = counts(&pipeline.stop().await);
    assert_eq!((counts.delivered, refused(&counts)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn refusals_of_several_attempts_add_up_for_the_sender() {
    let (backend, _) = answering(|body, before| match body {
        "bad at once" => Says::Refused,
        "bad at last" if before == 1 => Says::Refused,
        "bad at last" => Says::Later,
        _ => Says::Taken,
    });
    let (_pipeline, intake) = start(plan(vec![("one", patient(), backend)])).await;
    let answer = intake.offer(logs(["bad at once", "good", "bad at last"])).await;
    assert!(matches!(answer, Answer::Refused { records: 2, .. }), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn every_batch_of_a_delivery_gets_its_own_answer() {
    let (backend, seen) = answering(|body, before| match body {
        "hold" if before == 0 => Says::Later,
        "bad" => Says::Refused,
        "slow" if before == 0 => Says::Later,
        _ => Says::Taken,
    });
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend)])).await;
    let offer = |bodies: &'static [&'static str]| {
        let intake = intake.clone();
        tokio::spawn(async move { intake.offer(logs(bodies.iter())).await })
    };
    // While the first is held up, the others are put together.
    let first = offer(&["hold"]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (second, third, fourth) = (offer(&["a", "b"]), offer(&["bad", "c"]), offer(&["d", "slow"]));
    assert_eq!(first.await.unwrap(), Answer::Stored);
    assert_eq!(second.await.unwrap(), Answer::Stored);
    assert_eq!(third.await.unwrap(), Answer::Refused { records: 1, why: "bad is bad".into() });
    assert_eq!(fourth.await.unwrap(), Answer::Stored);
    let (attempts, _) = seen.lock().unwrap().clone();
    assert_eq!(attempts[2..], [vec!["a", "b", "bad", "c", "d", "slow"], vec!["slow"]]);
    let counts = counts(&pipeline.stop().await);
    assert_eq!((counts.delivered, refused(&counts)), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_contradicts_itself_or_names_what_was_not_sent_counts_each_record_once() {
    let outcome = Outcome::Each {
        refused: vec![(1, "first".into()), (1, "again".into()), (7, "never sent".into())],
        later: vec![1, 0, 0, 9],
        after: None,
        why: "some".into(),
    };
    let backend = Backend::scripted([outcome]);
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend.clone())])).await;
    assert_eq!(intake.offer(logs(["a", "b", "c"])).await, Answer::Refused { records: 1, why: "first".into() });
    assert_eq!(backend.taken(), ["a"], "of the second attempt");
    let counts = counts(&pipeline.stop().await);
    assert_eq!((counts.delivered, refused(&counts)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_expires_alone() {
    let (backend, seen) = answering(|body, _| if body == "slow" { Says::Later } else { Says::Taken });
    let options = ExportOptions { retry_attempts: Some(2), ..patient() };
    let (pipeline, intake) = start(plan(vec![("one", options, backend)])).await;
    intake.push(logs(["a", "slow", "b"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counts = counts(&pipeline.stop().await);
    assert_eq!((counts.delivered, counts.dropped.get(&Reason::Expired)), (2, Some(&1)));
    assert_eq!(seen.lock().unwrap().0.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is said about every record in every attempt: each is taken once or refused once, the
    /// rest is sent again until it is, and the ledger says the same.
    #[test]
    fn every_record_is_taken_or_refused_exactly_once(
        script in proptest::collection::vec(prop_oneof![Just(Says::Taken), Just(Says::Refused), Just(Says::Later)], 1..40),
        batches in proptest::collection::vec(1_usize..6, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut at = 0;
            let (backend, seen) = answering(move |_, before| {
                at += 1;
                if before > 3 { Says::Taken } else { script[at % script.len()] }
            });
            let (pipeline, intake) = start(plan(vec![("one", patient(), backend)])).await;
            let mut offered = 0_u64;
            for (at, size) in batches.iter().enumerate() {
                offered += *size as u64;
                intake.push(logs((0..*size).map(|n| format!("{at}.{n}"))));
            }
            tokio::time::sleep(Duration::from_secs(300)).await;
            let counts = counts(&pipeline.stop().await);
            let mut taken = seen.lock().unwrap().1.clone();
            let sent = taken.len() as u64;
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len() as u64, sent, "something was taken twice");
            assert_eq!((counts.delivered, counts.delivered + refused(&counts)), (sent, offered));
        });
    }
}
