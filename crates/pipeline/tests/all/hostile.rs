//! Hostile backends, careless integrations, and stops at the worst moment: no record is lost
//! without being counted, and nobody is told what is not true.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use weir_config::ByteSize;
use weir_model::metrics::{Number, NumberPoint, Temporality};
use weir_model::{Encoding, Kind as MetricKind, MetricDescription, MetricsBuilder, Payload, Records, Signal, Wire};
use weir_pipeline::keep::Keep;
use weir_pipeline::ledger::{Counts, Key, Reason};
use weir_pipeline::options::{CollectOptions, ExportOptions, WhenFull};
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan, RoutePlan};
use weir_pipeline::role::{Delivery, DynExport, DynReceive, Mount, Stop, Takes};
use weir_pipeline::{Answer, Fault, Intake, Outcome, Refused};

use crate::backend::{Backend, Polled, logs, patient, plan, start};

fn later() -> Outcome {
    Outcome::Later { after: None, why: "busy".into() }
}

/// The columns of an exporter, all of them adding up and nothing left under way.
fn settled(ledger: &[(Key, Counts)], exporter: &str) -> Counts {
    for (key, counts) in ledger {
        assert_eq!(counts.difference(), 0, "{key:?} does not add up: {counts:?}");
        assert_eq!(counts.queued + counts.in_flight, 0, "a stopped pipeline holds nothing: {key:?} {counts:?}");
    }
    ledger.iter().find(|(key, _)| &*key.1 == exporter).map(|(_, counts)| counts.clone()).unwrap_or_default()
}

fn dropped(counts: &Counts, reason: Reason) -> u64 {
    counts.dropped.get(&reason).copied().unwrap_or(0)
}

fn routed(mut plan: Plan, keep: &str) -> Plan {
    let mut route = RoutePlan::default();
    route.keep = Some(Keep::parse(keep).unwrap());
    plan.routes = vec![route];
    plan
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_all_time_does_not_break_the_ledger() {
    let for_ever = || Backend::scripted([Outcome::Later { after: Some(Duration::MAX), why: "429".into() }]);
    let endless = ExportOptions { retry_max_age: weir_config::Duration::from_secs(0), ..patient() };
    let hour = ExportOptions { retry_max_age: weir_config::Duration::from_secs(3600), ..patient() };
    let (pipeline, intake) = start(plan(vec![("one", hour, for_ever()), ("endless", endless, for_ever())])).await;
    intake.push(logs(["a"]));
    tokio::time::sleep(Duration::from_secs(3700)).await;
    let ledger = pipeline.stop().await;
    assert_eq!(dropped(&settled(&ledger, "one"), Reason::Expired), 1);
    assert_eq!(settled(&ledger, "endless").delivered, 1, "asked again after an hour");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_names_a_record_twice_or_one_that_was_not_sent_refuses_each_once() {
    let refusing = |at: &[u32]| Outcome::Partly { refused: Refused::Records(at.to_vec()), why: "bad".into() };
    let backend = Backend::scripted([refusing(&[0, 0, 0]), refusing(&[1, 9, 1])]);
    let (pipeline, intake) = start(plan(vec![("one", patient(), backend)])).await;
    assert_eq!(intake.offer(logs(["a"])).await, Answer::Refused { records: 1, why: "bad".into() });
    assert_eq!(intake.offer(logs(["a", "b", "c"])).await, Answer::Refused { records: 1, why: "bad".into() });
    let counts = settled(&pipeline.stop().await, "one");
    assert_eq!((counts.delivered, dropped(&counts, Reason::Refused)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_pieces_of_a_split_batch_add_up_for_its_sender() {
    let bad = |body: &String| body.starts_with("bad");
    let backend = Backend::judging(move |bodies| match bodies.iter().any(bad) {
        true => Outcome::Split { why: "no".into() },
        false => Outcome::Accepted,
    });
    let (_pipeline, intake) =
        start(plan(vec![("one", patient(), backend), ("two", patient(), Backend::scripted([]))])).await;
    let answer = intake.offer(logs(["bad 1", "2", "3", "bad 4", "5", "bad 6"])).await;
    assert_eq!(answer, Answer::Refused { records: 3, why: "no".into() });
}

#[tokio::test(start_paused = true)]
async fn records_without_a_route_are_counted_under_their_own_signal() {
    let (pipeline, intake) = start(plan(Vec::new())).await;
    intake.offer(logs(["a"])).await;
    intake.push(logs(["b"]));
    let ledger = pipeline.stop().await;
    let rows: Vec<_> = ledger.iter().map(|(key, counts)| (key.2, dropped(counts, Reason::NoRoute))).collect();
    assert_eq!(rows, [(Signal::Logs, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_taken_is_not_counted_as_filtered_either() {
    let small = ExportOptions { queue_size: Some(ByteSize::from_bytes(1)), ..patient() };
    let busy = Backend::judging(|_| later());
    let filtering = Backend::scripted([]);
    // Severity is unset, which counts as INFO: a batch passes both, or is left out by both.
    let plan = routed(plan(vec![("busy", small, busy), ("free", patient(), filtering)]), "severity >= \"INFO\"");
    let (pipeline, intake) = start(plan).await;
    let first = tokio::spawn({
        let intake = intake.clone();
        async move { intake.offer(logs(["a"])).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        assert!(matches!(intake.offer(mixed()).await, Answer::Later { .. }));
    }
    assert!(matches!(first.await.unwrap(), Answer::Later { .. }));
    let ledger = pipeline.stop().await;
    assert_eq!(settled(&ledger, "busy").accepted, 1, "only the first was taken");
    assert_eq!(settled(&ledger, "free").accepted, 1, "only the first was taken");
}

/// One record of INFO and one of DEBUG.
fn mixed() -> Payload {
    let Ok(Records::Logs(mut logs)) = logs(["info", "debug"]).into_records() else { unreachable!() };
    logs.records[1].severity_number = 5;
    Payload::from_records(Records::Logs(logs))
}

#[tokio::test(start_paused = true)]
async fn records_that_a_route_cannot_read_are_counted_whoever_brings_them() {
    let garbage = || {
        let wire = Wire { encoding: Encoding::Protobuf, bytes: b"\xff\xff garbage"[..].into() };
        Payload::from_wire(Signal::Logs, wire, 3)
    };
    let (pipeline, intake) =
        start(routed(plan(vec![("one", patient(), Backend::scripted([]))]), "severity >= \"WARN\"")).await;
    intake.push(garbage());
    assert!(matches!(intake.offer(garbage()).await, Answer::Refused { records: 3, .. }));
    let counts = settled(&pipeline.stop().await, "one");
    assert_eq!((counts.accepted, dropped(&counts, Reason::NotEncodable)), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn what_drop_oldest_drops_is_not_sent_again() {
    let options =
        ExportOptions { queue_size: Some(ByteSize::from_bytes(1_500)), when_full: WhenFull::DropOldest, ..patient() };
    let (pipeline, intake) = start(plan(vec![("dead", options, Backend::judging(|_| later()))])).await;
    let offer = |name: &str| {
        let (intake, body) = (intake.clone(), name.repeat(500));
        tokio::spawn(async move { intake.offer(logs([body])).await })
    };
    let under_way = offer("a");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let oldest = offer("b");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let newest = offer("c");
    // Its sender asked for this loss; a "later" would bring it back to push out newer ones, for ever.
    assert_eq!(oldest.await.unwrap(), Answer::Stored);
    assert!(matches!(under_way.await.unwrap(), Answer::Later { .. }));
    assert!(matches!(newest.await.unwrap(), Answer::Later { .. }));
    assert_eq!(dropped(&settled(&pipeline.stop().await, "dead"), Reason::QueueFull), 1);
}

#[tokio::test(start_paused = true)]
async fn records_that_waited_for_a_busy_exporter_do_not_wait_for_company_again() {
    let backend = Backend::scripted([Outcome::Later { after: Some(Duration::from_secs(5)), why: "busy".into() }]);
    let options = ExportOptions { flush_interval: weir_config::Duration::from_secs(3), ..patient() };
    let (_pipeline, intake) = start(plan(vec![("one", options, backend.clone())])).await;
    intake.push(logs(["a"]));
    tokio::time::sleep(Duration::from_secs(4)).await;
    intake.push(logs(["b"]));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let seen = backend.seen.lock().unwrap();
    assert_eq!(seen.taken, ["a", "b"]);
    assert!(seen.at[2] - seen.at[1] < Duration::from_millis(100), "b was old enough when a was delivered");
}

#[tokio::test(start_paused = true)]
async fn records_that_travel_with_too_old_ones_have_their_own_time() {
    let busy = |seconds| Outcome::Later { after: Some(Duration::from_secs(seconds)), why: "busy".into() };
    let backend = Backend::scripted([busy(8), Outcome::Accepted, busy(5)]);
    let options = ExportOptions { retry_max_age: weir_config::Duration::from_secs(10), ..patient() };
    let (pipeline, intake) = start(plan(vec![("one", options, backend.clone())])).await;
    for (body, pause) in [("first", 1), ("old", 6), ("young", 30)] {
        intake.push(logs([body]));
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    assert_eq!(backend.taken(), ["first", "young"]);
    assert_eq!(dropped(&settled(&pipeline.stop().await, "one"), Reason::Expired), 1);
}

/// Takes metrics as deltas, after having been busy for a while, and adds them up.
struct Deltas {
    total: Arc<AtomicI64>,
    busy: AtomicUsize,
}

impl DynExport for Deltas {
    fn takes(&self) -> Takes {
        Takes { signals: &Signal::ALL, temporality: Temporality::Delta, ordered: true }
    }

    fn export<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let busy = self.busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
            if busy.is_ok() {
                return Outcome::Later { after: Some(Duration::from_secs(4)), why: "busy".into() };
            }
            for payload in &delivery.payloads {
                let Ok(Records::Metrics(metrics)) = payload.records() else { continue };
                for value in &metrics.numbers.value {
                    if let Number::Int(value) = value {
                        self.total.fetch_add(*value, Ordering::AcqRel);
                    }
                }
            }
            Outcome::Accepted
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok("a test".into()) })
    }
}

fn deltas(busy: usize) -> (Plan, Arc<AtomicI64>) {
    let total = Arc::new(AtomicI64::new(0));
    let exporter = Deltas { total: total.clone(), busy: AtomicUsize::new(busy) };
    let mut plan = plan(Vec::new());
    plan.members.push(Member::Export { name: Arc::from("deltas"), options: patient(), exporter: Box::new(exporter) });
    (plan, total)
}

fn counter(time: u64, value: i64) -> Payload {
    const REQUESTS: MetricDescription<'static> =
        MetricDescription { name: "requests", unit: "1", kind: MetricKind::Counter, help: "" };
    let mut builder = MetricsBuilder::new("test", Vec::new());
    builder.begin(time, 1);
    let point =
        NumberPoint { start_time_unix_nano: 1, time_unix_nano: time, value: value.into(), ..Default::default() };
    builder.record_point(&REQUESTS, &[], point);
    Payload::from_records(Records::Metrics(builder.finish()))
}

#[tokio::test(start_paused = true)]
async fn a_delta_whose_sender_gave_up_is_delivered_all_the_same_because_it_cannot_be_made_again() {
    let (plan, total) = deltas(5);
    let (pipeline, intake) = start(plan).await;
    assert_eq!(intake.offer(counter(10, 100)).await, Answer::Stored, "the first point has no delta");
    // The backend is busy for 20 s: longer than the sender waits, who sends the same point again.
    assert!(matches!(intake.offer(counter(20, 107)).await, Answer::Later { .. }));
    while matches!(intake.offer(counter(20, 107)).await, Answer::Later { .. }) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    intake.offer(counter(30, 110)).await;
    assert_eq!(total.load(Ordering::Acquire), 10, "107 - 100 and 110 - 107, each once");
    settled(&pipeline.stop().await, "deltas");
}

fn collector(collector: Box<dyn weir_pipeline::role::DynCollect>) -> Member {
    let seconds = weir_config::Duration::from_secs;
    let options = CollectOptions { interval: Some(seconds(60)), timeout: Some(seconds(30)) };
    Member::Collect { name: Arc::from("slow"), options, collector, builder: MetricsBuilder::new("slow", Vec::new()) }
}

#[tokio::test(start_paused = true)]
async fn a_poll_under_way_does_not_delay_the_stop_and_what_it_gathered_is_delivered() {
    let (mut plan, total) = deltas(0);
    const GAUGE: MetricDescription<'static> =
        MetricDescription { name: "size", unit: "1", kind: MetricKind::Gauge, help: "" };
    let hangs = Polled(|out: &mut MetricsBuilder| {
        out.record(&GAUGE, &[], 7_i64);
        Box::pin(std::future::pending()) as _
    });
    plan.members.push(collector(Box::new(hangs)));
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = tokio::time::Instant::now();
    let ledger = pipeline.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(settled(&ledger, "deltas").delivered, 1);
    assert_eq!(total.load(Ordering::Acquire), 7);
}

/// A receiver that answers the request it has begun before it ends, or never ends.
struct Request {
    ends: bool,
    answer: Arc<Mutex<Option<Answer>>>,
}

impl DynReceive for Request {
    fn mounts(&self, _: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    fn run(self: Box<Self>, intake: Intake, _: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            let answer = intake.offer(logs(["a"])).await;
            *self.answer.lock().unwrap() = Some(answer);
            if !self.ends {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_at_once_what_waits_for_company_whatever_its_source_does() {
    for ends in [true, false] {
        let backend = Backend::scripted([]);
        let options = ExportOptions { flush_interval: weir_config::Duration::from_secs(60), ..patient() };
        let mut plan = plan(vec![("one", options, backend.clone())]);
        let answer = Arc::default();
        let receiver = Box::new(Request { ends, answer: Arc::clone(&answer) });
        plan.members.push(Member::Receive { name: Arc::from("request"), receiver });
        let pipeline = Pipeline::start(plan).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        let begun = tokio::time::Instant::now();
        let counts = settled(&pipeline.stop().await, "one");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(counts.delivered, 1, "{counts:?}");
        assert_eq!(*answer.lock().unwrap(), Some(Answer::Stored), "ends: {ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_stop_is_counted_as_stopped_and_given_back() {
    let (pipeline, intake) = start(plan(vec![("one", patient(), Backend::scripted([]))])).await;
    let telemetry = pipeline.telemetry().clone();
    pipeline.stop().await;
    intake.push(logs(["a"]));
    assert_eq!(dropped(&settled(&telemetry.ledger.snapshot(), "one"), Reason::Stopped), 1);
    let answer = intake.offer(logs(["a"])).await;
    assert!(matches!(&answer, Answer::Later { why, .. } if why.contains("stopp")), "{answer:?}");
}

/// A receiver that panics at once, or mounts at an address.
struct Careless(Option<weir_config::SocketAddress>);

impl DynReceive for Careless {
    fn mounts(&self, _: &Intake) -> Vec<Mount> {
        self.0.iter().map(|address| Mount { address: address.clone(), router: axum::Router::new() }).collect()
    }

    fn run(self: Box<Self>, _: Intake, _: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { panic!("a receiver's bug") })
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_panics_is_not_shown_as_healthy() {
    let mut plan = plan(Vec::new());
    plan.members.push(Member::Receive { name: Arc::from("careless"), receiver: Box::new(Careless(None)) });
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let health = pipeline.telemetry().health.snapshot()["careless"].clone();
    assert!(health.reason.as_deref().is_some_and(|why| why.contains("panicked")), "{health:?}");
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing_running() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string().parse().unwrap();
    let backend = Backend::scripted([]);
    let mut plan = plan(vec![("one", patient(), backend.clone())]);
    plan.members.push(Member::Receive { name: Arc::from("careless"), receiver: Box::new(Careless(Some(address))) });
    assert!(Pipeline::start(plan).await.is_err());
    while Arc::strong_count(&backend.seen) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_dropped_stops_what_its_receivers_have_spawned() {
    struct Spawns(tokio::sync::mpsc::UnboundedSender<()>);
    impl DynReceive for Spawns {
        fn mounts(&self, _: &Intake) -> Vec<Mount> {
            Vec::new()
        }
        fn run(self: Box<Self>, _: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
            Box::pin(async move {
                let own = stop.clone();
                tokio::spawn(async move {
                    own.wait().await;
                    drop(self.0);
                });
                stop.wait().await;
                Ok(())
            })
        }
    }
    let (sender, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let mut plan = plan(Vec::new());
    plan.members.push(Member::Receive { name: Arc::from("spawns"), receiver: Box::new(Spawns(sender)) });
    let pipeline = Pipeline::start(plan).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(pipeline);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), ended.recv()).await, Ok(None));
}
