//! When nothing may be sent, how much may be sent at once, and that exporters do not feel each other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use weir_pipeline::Outcome;
use weir_pipeline::ledger::Reason;
use weir_pipeline::options::ExportOptions;

use crate::backend::{logs, patient, plan, start};
use crate::line::{Line, Server, later, until};

/// Single records in requests of their own.
fn single() -> ExportOptions {
    ExportOptions { batch_size: 1, ..patient() }
}

fn push_many(line: &Line, count: usize) {
    (0..count).for_each(|at| line.push(&[&format!("{at}")]));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_asks_to_wait_is_left_alone_by_every_delivery() {
    let line = Line::in_memory();
    let mut told = false;
    let server = Server::judging(move |_| match std::mem::replace(&mut told, true) {
        false => Outcome::Later { after: Some(Duration::from_secs(20)), why: "429".into() },
        true => Outcome::Accepted,
    });
    line.push(&["first"]);
    let _worker = line.start(&server, single());
    until("told", || server.attempts() == 1).await;
    push_many(&line, 20);
    assert!(line.attempts.paused_until_ms.load(Ordering::Relaxed) > 0);
    until("delivered", || line.counts().delivered == 21).await;
    let times: Vec<Instant> = server.attempts.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert!(times[1..].iter().all(|at| *at - times[0] >= Duration::from_secs(20)), "{times:?}");
    assert_eq!(line.attempts.paused_until_ms.load(Ordering::Relaxed), 0);
    assert_eq!(line.attempts.last_error().unwrap().text, "429");
}

#[tokio::test(start_paused = true)]
async fn bad_credentials_are_tried_by_one_delivery_and_cost_no_attempt() {
    let line = Line::in_memory();
    let mut refusals = 5;
    let server = Server::judging(move |_| {
        refusals -= 1;
        if refusals >= 0 { Outcome::Unauthorized { why: "401: no such key".into() } } else { Outcome::Accepted }
    });
    let begun = Instant::now();
    push_many(&line, 30);
    let _worker = line.start(&server, ExportOptions { retry_attempts: Some(0), max_in_flight: 1, ..single() });
    until("unhealthy", || line.unhealthy().is_some_and(|why| why.contains("no such key"))).await;
    until("delivered", || line.counts().delivered == 30).await;
    let times: Vec<u64> = server.attempts.lock().unwrap().iter().map(|(at, _)| (*at - begun).as_secs()).collect();
    assert_eq!(times[..6], [0, 30, 90, 210, 450, 750], "30 s, growing to 5 min");
    assert_eq!((server.attempts(), line.unhealthy()), (35, None), "then all of them at once");
    assert!(begun.elapsed() < Duration::from_secs(752));
}

#[tokio::test(start_paused = true)]
async fn while_one_delivery_tries_the_credentials_the_others_wait() {
    let line = Line::in_memory();
    let server = Server::slow(|_| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Outcome::Unauthorized { why: "403".into() }
    });
    push_many(&line, 30);
    let _worker = line.start(&server, single());
    tokio::time::sleep(Duration::from_secs(25)).await;
    let first = server.attempts();
    assert!(first <= 4, "those that were under way already: {first}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(server.attempts() - first <= 5, "{}", server.attempts());
}

#[tokio::test(start_paused = true)]
async fn records_grow_too_old_while_the_credentials_are_bad() {
    let line = Line::in_memory();
    push_many(&line, 5);
    let server = Server::judging(|_| Outcome::Unauthorized { why: "401".into() });
    let options = ExportOptions { retry_max_age: weir_config::Duration::from_secs(100), ..single() };
    let begun = Instant::now();
    let _worker = line.start(&server, options);
    until("expired", || line.dropped(Reason::Expired) == 5).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(100) && took < Duration::from_secs(102), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn more_is_under_way_at_once_while_a_backend_is_fast_and_an_order_is_kept_where_it_must_be() {
    let fast = || {
        Server::slow(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Outcome::Accepted
        })
    };
    let line = Line::in_memory();
    push_many(&line, 1000);
    let server = fast();
    let _worker = line.start(&server, ExportOptions { max_in_flight: 12, ..single() });
    until("delivered", || line.counts().delivered == 1000).await;
    assert_eq!((server.most_at_once(), line.attempts.in_flight_limit.load(Ordering::Relaxed)), (12, 12));
    let (line, server) = (Line::in_memory(), fast().ordered());
    push_many(&line, 100);
    let _worker = line.start(&server, ExportOptions { max_in_flight: 12, ..single() });
    until("delivered", || line.counts().delivered == 100).await;
    assert_eq!((server.most_at_once(), line.attempts.in_flight_limit.load(Ordering::Relaxed)), (1, 1));
    let expected: Vec<String> = (0..100).map(|at| at.to_string()).collect();
    assert_eq!(server.taken(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_overloaded_is_asked_by_one_at_a_time() {
    let line = Line::in_memory();
    push_many(&line, 100);
    let mut left = 60;
    let server = Server::judging(move |_| {
        left -= 1;
        if left >= 0 { later() } else { Outcome::Accepted }
    });
    let _worker = line.start(&server, single());
    until("shrunk", || line.attempts.in_flight_limit.load(Ordering::Relaxed) == 1).await;
    until("delivered", || line.counts().delivered == 100).await;
}

#[tokio::test(start_paused = true)]
async fn exporters_that_hang_fail_or_panic_cost_the_others_no_time() {
    async fn time_of(others: Vec<Server>) -> Duration {
        let alive = Server::slow(|_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Outcome::Accepted
        });
        let mut plan = plan(Vec::new());
        for (at, server) in others.into_iter().chain([alive.clone()]).enumerate() {
            plan.members.push(weir_pipeline::plan::Member::Export {
                name: format!("exporter {at}").into(),
                options: single(),
                exporter: Box::new(server),
            });
        }
        let (_pipeline, intake) = start(plan).await;
        let begun = Instant::now();
        for at in 0..500 {
            intake.push(logs([format!("{at}")]));
        }
        until("delivered", || alive.taken().len() == 500).await;
        begun.elapsed()
    }
    let alone = time_of(Vec::new()).await;
    let dead = vec![
        Server::slow(|_| std::future::pending()),
        Server::judging(|_| later()),
        Server::slow(|_| async { panic!("an exporter's bug") }),
        Server::judging(|_| Outcome::Unauthorized { why: "401".into() }),
    ];
    let beside_dead_ones = time_of(dead).await;
    assert!(beside_dead_ones <= alone.mul_f64(1.05), "{beside_dead_ones:?} instead of {alone:?}");
}

#[tokio::test(start_paused = true)]
async fn one_delivery_that_is_never_taken_neither_holds_up_the_others_nor_is_it_hammered() {
    let line = Line::in_memory();
    let mut out = 20;
    let server = Server::judging(move |bodies| {
        out -= 1;
        if out >= 0 || bodies[0] == "poison" { later() } else { Outcome::Accepted }
    });
    line.push(&["poison"]);
    let _worker = line.start(&server, single());
    push_many(&line, 500);
    until("the others", || line.counts().delivered == 500).await;
    let poisoned = || server.attempts.lock().unwrap().iter().filter(|(_, bodies)| bodies[0] == "poison").count();
    let before = poisoned();
    for _ in 0..600 {
        line.push(&["more"]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(poisoned() - before <= 60, "{} attempts in 10 minutes", poisoned() - before);
    assert_eq!((line.counts().delivered, line.counts().in_flight), (1100, 1));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_everything_that_waits_is_sent_with_the_first_success() {
    let line = Line::in_memory();
    push_many(&line, 1000);
    let begun = Instant::now();
    // 16 are under way when the backend goes away for an hour.
    let server = Server::slow(move |_| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        match begun.elapsed().as_millis() {
            0..300 | 3_600_000.. => Outcome::Accepted,
            _ => later(),
        }
    });
    let options = ExportOptions { max_in_flight: 16, ..single() };
    let _worker = line.start(&server, options);
    tokio::time::sleep(Duration::from_secs(3590)).await;
    let before = server.taken().len();
    until("the first", || server.taken().len() > before).await;
    let first = Instant::now();
    until("all", || line.counts().delivered == 1000).await;
    assert!(first.elapsed() < Duration::from_secs(10), "{:?} after the first", first.elapsed());
}
