//! Records that a backend refuses for good: exactly they become dead letters, before anybody hears of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use weir_model::{Encoding, Payload, Signal, Verdict, Wire};
use weir_net::{Client, HttpOptions};
use weir_pipeline::dead_letters::{DeadLetters, Limits};
use weir_pipeline::ledger::Reason;
use weir_pipeline::options::ExportOptions;
use weir_pipeline::role::{Delivery, DynExport, Takes};
use weir_pipeline::{Fault, Outcome, Refused};

use crate::backend::{logs, patient};
use crate::line::{Line, Server, later, never, until};

fn pair(body: &str, why: &str) -> (String, String) {
    (body.into(), why.into())
}

/// A backend that refuses requests with a bad record in them, and does not say which.
fn picky() -> Server {
    Server::judging(|bodies| match bodies.iter().find(|body| body.starts_with("bad")) {
        Some(body) => never(&format!("cannot read {}", bodies.len().min(1) * body.len())),
        None => Outcome::Accepted,
    })
}

#[tokio::test(start_paused = true)]
async fn exactly_the_bad_records_of_a_batch_become_dead_letters_and_the_others_are_delivered_in_order() {
    let (line, server) = (Line::in_memory(), picky().ordered());
    line.push(&["1", "2", "bad 3", "4", "5", "6", "bad 77"]);
    line.push(&["8", "9"]);
    let _worker = line.start(&server, patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!(server.taken(), ["1", "2", "4", "5", "6", "8", "9"]);
    assert_eq!(line.dead().await, [pair("bad 3", "cannot read 5"), pair("bad 77", "cannot read 6")]);
    let counts = line.counts();
    assert_eq!((counts.delivered, counts.dead_lettered, counts.dropped_total()), (7, 2, 0));
    assert_eq!(line.unhealthy(), None, "the backend takes what is good");
}

#[tokio::test(start_paused = true)]
async fn records_that_a_backend_names_become_dead_letters_with_their_own_reasons() {
    let refused = vec![(3, "too old".into()), (1, "no name".into()), (3, "again".into())];
    let outcome = Outcome::Each { refused, later: vec![0], after: None, why: "some".into() };
    let script = Mutex::new(vec![outcome]);
    let (line, server) =
        (Line::in_memory(), Server::judging(move |_| script.lock().unwrap().pop().unwrap_or(Outcome::Accepted)));
    line.push(&["a", "b"]);
    line.push(&["c", "d"]);
    let _worker = line.start(&server, patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!(line.dead().await, [pair("b", "no name"), pair("d", "too old")]);
    assert_eq!(server.taken(), ["a"], "of the second attempt");
    assert_eq!((line.counts().delivered, line.counts().dead_lettered), (2, 2));
}

#[tokio::test]
async fn thousands_of_records_with_a_reason_each_are_told_apart_and_hold_up_nobody_meanwhile() {
    let line = Line::in_memory();
    let bodies: Vec<String> = (0..4000).map(|at| format!("record {at} {}", "x".repeat(200))).collect();
    line.push_payload(logs(&bodies));
    let server = Server::judging(|bodies| {
        let refused = (0..bodies.len() as u32).filter(|at| at % 2 == 0).map(|at| (at, format!("reason {at}")));
        Outcome::Each { refused: refused.collect(), later: Vec::new(), after: None, why: "some".into() }
    });
    let _worker = line.start(&server, patient());
    let mut longest = Duration::ZERO;
    while line.counts().dead_lettered == 0 {
        let begun = std::time::Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_millis(700), "{longest:?}");
    assert_eq!((line.counts().delivered, line.counts().dead_lettered), (2000, 2000));
    let letters = line.letters().await;
    let reasons: std::collections::BTreeSet<_> = letters.iter().map(|letter| &letter.reason).collect();
    assert_eq!((letters.len(), reasons.len()), (2000, 2000));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_names_positions_or_only_a_number() {
    for (refused, dead, of) in [
        (Refused::Records(vec![1, 1, 9]), vec![pair("b", "why")], 1),
        (Refused::Count(1), vec![pair("a", "why"), pair("b", "why"), pair("c", "why")], 3),
        (Refused::Count(0), vec![], 0),
    ] {
        let line = Line::in_memory();
        line.push(&["a", "b", "c"]);
        let partly = refused.clone();
        let server = Server::judging(move |_| Outcome::Partly { refused: partly.clone(), why: "why".into() });
        let _worker = line.start(&server, patient());
        until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
        assert_eq!(line.dead().await, dead, "{refused:?}");
        let letters: Vec<_> = line.letters().await.iter().map(|letter| (letter.records, letter.of)).collect();
        let count = u64::from(!dead.is_empty());
        assert_eq!(letters, vec![(1, of); count as usize], "{refused:?}");
        assert_eq!((line.counts().delivered, line.counts().dead_lettered), (3 - count, count), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_record_that_is_too_large_becomes_a_dead_letter() {
    let line = Line::in_memory();
    line.push(&["small", "too large for every request", "fits"]);
    let server = Server::judging(|bodies| match bodies.iter().map(String::len).sum::<usize>() {
        0..=9 => Outcome::Accepted,
        _ => Outcome::Split { why: "413".into() },
    });
    let _worker = line.start(&server, patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!(line.dead().await, [pair("too large for every request", "413")]);
    assert_eq!(line.counts().delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_meant_for_all_costs_a_bounded_number_of_requests_and_keeps_every_record() {
    let (line, server) = (Line::in_memory(), Server::judging(|_| never("404: no such path")));
    let bodies: Vec<String> = (0..2000).map(|at| format!("record {at}")).collect();
    line.push_payload(logs(&bodies));
    let _worker = line.start(&server, patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert!(server.attempts() <= 32 + 12, "{}", server.attempts());
    assert_eq!((line.counts().dead_lettered, line.letters().await.len()), (2000, 2000), "one letter per record");
    assert_eq!(line.unhealthy().as_deref(), Some("404: no such path"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hears_of_a_refusal_keeps_its_record_and_one_that_was_told_taken_does_not() {
    let (line, server) = (Line::in_memory(), picky());
    let heard = line.offer(&["bad 1", "2"]);
    line.push_unheard(&["bad 3", "4"]);
    let _worker = line.start(&server, patient());
    let heard = heard.await.unwrap();
    assert_eq!((heard.verdict, heard.refused_records), (Verdict::Refused, 1));
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!(line.dead().await, [pair("bad 3", "cannot read 5")]);
    let counts = line.counts();
    assert_eq!((counts.delivered, counts.dead_lettered, line.dropped(Reason::Refused)), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_dead_letters_refused_records_are_dropped_and_counted() {
    let line = Line { dead_letters: None, ..Line::in_memory() };
    line.push(&["bad 1", "2"]);
    let _worker = line.start(&picky(), patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!((line.counts().delivered, line.dropped(Reason::Refused)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_become_dead_letters() {
    let line = Line::in_memory();
    let wire = Wire { encoding: Encoding::Protobuf, bytes: b"\xff\xff garbage"[..].into() };
    line.push_payload(Payload::from_wire(Signal::Metrics, wire, 3));
    let server = picky().deltas();
    let _worker = line.start(&server, patient());
    until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
    assert_eq!((line.counts().dead_lettered, server.attempts()), (3, 0));
    assert_eq!(line.letters().await.iter().map(|letter| letter.records).sum::<u64>(), 3);
}

/// A line whose dead letters have no place: a file is where their folder should be.
fn without_place(folder: &std::path::Path) -> (Line, std::path::PathBuf) {
    let place = folder.join("data");
    std::fs::write(&place, "in the way").unwrap();
    let dead_letters = Some(Arc::new(DeadLetters::open(&place, Limits::default())));
    (Line { dead_letters, ..Line::in_memory() }, place)
}

#[tokio::test]
async fn refused_records_stay_in_flight_until_the_disk_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let (line, place) = without_place(folder.path());
    line.push(&["bad 1", "2"]);
    let server = picky();
    let _worker = line.start(&server, patient());
    until("the disk is named", || line.unhealthy().is_some_and(|why| why.contains("the disk does not take"))).await;
    // Other deliveries go on, but it is not healthy.
    line.push(&["3"]);
    until("delivered", || line.counts().delivered == 1).await;
    assert_eq!((line.counts().in_flight, line.counts().dead_lettered), (2, 0));
    assert!(line.unhealthy().is_some());
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    until("kept", || line.counts().dead_lettered == 1).await;
    assert_eq!(line.dead().await, [pair("bad 1", "cannot read 5")]);
    assert_eq!(server.attempts(), 4, "it is not sent again");
    line.push(&["4"]);
    until("healthy", || line.unhealthy().is_none()).await;
}

#[tokio::test]
async fn refused_records_that_the_disk_does_not_take_are_counted_at_a_stop_and_given_back_at_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let (line, place) = without_place(folder.path());
    line.push(&["bad 1"]);
    let worker = line.start(&picky(), patient());
    until("the disk is named", || line.unhealthy().is_some_and(|why| why.contains("the disk does not take"))).await;
    worker.release.cancel();
    worker.task.await.unwrap();
    assert_eq!((line.counts().queued, line.counts().in_flight), (1, 0), "given back");
    let next = line.start(&picky(), patient());
    until("taken again", || line.counts().in_flight == 1).await;
    next.abandon.cancel();
    next.task.await.unwrap();
    assert_eq!(line.dropped(Reason::Stopped), 1);
    assert!(place.is_file());
}

/// Posts to a real server.
#[derive(Clone)]
struct Posts(Client, String);

impl DynExport for Posts {
    fn takes(&self) -> Takes {
        Takes::EVERYTHING
    }

    fn export<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let request = http::Request::post(&self.1).body(bytes::Bytes::new()).unwrap();
            match self.0.send(request, 1 << 20).await {
                Ok(answer) => Outcome::of_answer(&answer),
                Err(error) => Outcome::of_transport(error),
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok("a test".into()) })
    }
}

#[tokio::test]
async fn a_dead_letter_has_the_status_and_the_beginning_of_the_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let body = "\u{20ac}".repeat(1000);
    let answer = (StatusCode::UNPROCESSABLE_ENTITY, body.clone());
    let routes = axum::Router::new().fallback(move || std::future::ready(answer.clone()));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let line = Line::in_memory();
    line.push(&["a"]);
    let _worker = line.start(&Posts(Client::new(&HttpOptions::default()).unwrap(), address), patient());
    until("settled", || line.counts().dead_lettered == 1).await;
    let letter = line.letters().await.remove(0);
    assert_eq!((letter.status, &*letter.source, &*letter.exporter), (Some(422), "source", "one"));
    let answer = letter.answer.unwrap();
    assert!(body.starts_with(&answer) && (1020..=1024).contains(&answer.len()), "{}", answer.len());
}

#[tokio::test]
async fn what_is_refused_or_expires_on_disk_is_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    {
        let line = Line::on_disk(folder.path());
        let server = Server::judging(|bodies| match &*bodies[0] {
            "bad" => never("bad"),
            "good" => Outcome::Accepted,
            _ => later(),
        });
        let options = ExportOptions {
            retry_attempts: Some(1),
            retry_delay: Duration::from_millis(1).into(),
            batch_size: 1,
            ..patient()
        };
        line.push(&["bad"]);
        line.push(&["good"]);
        line.push(&["late"]);
        let worker = line.start(&server, options);
        until("settled", || line.counts().in_flight + line.counts().queued == 0).await;
        assert_eq!(line.dead().await, [pair("bad", "bad")]);
        assert_eq!((line.counts().delivered, line.dropped(Reason::Expired)), (1, 1));
        assert_eq!(server.attempts(), 4);
        line.queue.close();
        worker.task.await.unwrap();
    }
    let reopened = Line::on_disk(folder.path());
    assert_eq!((reopened.counts().queued, reopened.queue.status().records), (0, 0));
}

#[tokio::test]
async fn a_stop_drops_nothing_that_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    {
        let line = Line::on_disk(folder.path());
        line.push(&["a", "b"]);
        line.push(&["c"]);
        let server = Server::judging(|_| later());
        let worker = line.start(&server, patient());
        until("tried", || server.attempts() > 0).await;
        worker.abandon.cancel();
        worker.task.await.unwrap();
        assert_eq!(line.counts().dropped_total(), 0);
    }
    let line = Line::on_disk(folder.path());
    assert_eq!(line.counts().queued, 3);
    let server = Server::judging(|_| Outcome::Accepted);
    let worker = line.start(&server, patient());
    line.queue.close();
    worker.task.await.unwrap();
    assert_eq!((server.taken(), line.counts().delivered), (vec!["a".into(), "b".into(), "c".into()], 3));
}
