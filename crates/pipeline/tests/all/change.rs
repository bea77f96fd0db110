//! A running pipeline becomes another one, or fails to: nothing is lost, nothing is left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use weir_config::{ByteSize, Environment, QueueKind, Settings, SyncPolicy};
use weir_pipeline::control::{DoneView, LedgerRow, ListQuery, Selected};
use weir_pipeline::health::State;
use weir_pipeline::itself::KIND;
use weir_pipeline::ledger::{Counts, Key};
use weir_pipeline::options::{ExportOptions, WhenRemoved};
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Identity, Input, Member, Plan};
use weir_pipeline::role::{Delivery, DynExport, DynReceive, Mount, Stop, Takes};
use weir_pipeline::storage::{self, StoragePlan};
use weir_pipeline::{Answer, Fault, Intake, Outcome, Refused, memory_budget};

use crate::backend::{Backend, logs, patient, plan, start};

/// What made an integration, another one for each interval.
pub fn identity(interval: &str) -> Identity {
    let text = format!("integrations:\n  internal: {{interval: {interval}}}\n");
    let (settings, problems) = Settings::inspect("weir.yaml", &text, &Environment);
    let input = Input {
        file: "weir.yaml",
        settings: &settings,
        problems,
        kinds: &[KIND],
        planned: &[],
        added: &[],
        resource: Vec::new(),
        data_folder: Path::new("unused").into(),
        control: Default::default(),
    };
    Plan::new(input).unwrap().identities.remove("internal").unwrap()
}

/// A plan of exporters as a configuration makes them: with what made each.
fn configured(exporters: Vec<(&str, ExportOptions, Backend, &str)>) -> Plan {
    let made = exporters.iter().map(|(name, .., interval)| (Arc::from(*name), identity(interval))).collect();
    let members = exporters.into_iter().map(|(name, options, backend, _)| (name, options, backend)).collect();
    Plan { identities: made, ..plan(members) }
}

/// The same with a data folder.
fn in_folder(folder: &Path, plan: Plan) -> Plan {
    let storage = StoragePlan {
        folder: folder.to_owned(),
        is_wanted: true,
        queue: QueueKind::Memory,
        sync: SyncPolicy::Group,
        disk_bytes: 1 << 30,
        reserve_bytes: Some(0),
        key_file: None,
        dead_letters_bytes: 1 << 20,
        dead_letters_age: Duration::from_secs(3600),
    };
    Plan { storage: Some(storage), ..plan }
}

fn on_disk() -> ExportOptions {
    ExportOptions { queue: Some(QueueKind::Disk), retry_delay: weir_config::Duration::from_millis(20), ..patient() }
}

fn in_memory(bytes: u64) -> ExportOptions {
    ExportOptions {
        queue: Some(QueueKind::Memory),
        queue_size: Some(ByteSize::from_bytes(bytes)),
        retry_delay: weir_config::Duration::from_millis(20),
        ..patient()
    }
}

/// A backend that is away until it is told to come back.
fn away() -> (Backend, Arc<AtomicBool>) {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = is_back.clone();
    let backend = Backend::judging(move |_| match back.load(Ordering::SeqCst) {
        true => Outcome::Accepted,
        false => Outcome::Later { after: None, why: "away".into() },
    });
    (backend, is_back)
}

/// Waits until something is so.
async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All rows of an exporter as one, each adding up.
fn counts(rows: &[(Key, Counts)], exporter: &str) -> (u64, u64, u64) {
    let mut all = (0, 0, 0);
    for ((_, name, _), counts) in rows {
        assert_eq!(counts.difference(), 0, "{counts:?}");
        if **name == *exporter {
            all = (all.0 + counts.accepted, all.1 + counts.delivered, all.2 + counts.queued + counts.in_flight);
        }
    }
    all
}

fn now(pipeline: &Pipeline, exporter: &str) -> (u64, u64, u64) {
    counts(&pipeline.telemetry().ledger.snapshot(), exporter)
}

fn sorted(backend: &Backend) -> Vec<String> {
    let mut taken = backend.taken();
    taken.sort_unstable();
    taken
}

#[tokio::test]
async fn a_change_that_fails_halfway_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (backend, new) = (Backend::scripted([]), Backend::scripted([]));
    let (mut pipeline, intake) =
        start(in_folder(folder, configured(vec![("one", on_disk(), backend.clone(), "1s")]))).await;
    // A file where the folder of a queue should be.
    std::fs::write(folder.join("queues/worse"), "").unwrap();
    let next = || {
        let exporters = vec![
            ("one", on_disk(), backend.clone(), "2s"),
            ("new", on_disk(), new.clone(), "1s"),
            ("worse", on_disk(), Backend::scripted([]), "1s"),
        ];
        Plan { memory_bytes: 1 << 20, ..in_folder(folder, configured(exporters)) }
    };
    let before = pipeline.control().pipeline();
    let error = pipeline.change(next()).await.unwrap_err();
    assert_eq!(&*error.integration, "worse");
    assert_eq!(pipeline.telemetry().memory.limit(), 64 << 20);
    let after = pipeline.control().pipeline();
    assert_eq!(after.exporters.len(), before.exporters.len());
    assert!(!pipeline.telemetry().health.snapshot().contains_key("new"));
    assert_eq!(intake.offer(logs(["a"])).await, Answer::Stored);
    std::fs::remove_file(folder.join("queues/worse")).unwrap();
    let changes = pipeline.change(next()).await.unwrap();
    assert_eq!((changes.started, changes.restarted), (vec!["new".into(), "worse".into()], vec!["one".into()]));
    assert_eq!(pipeline.telemetry().memory.limit(), 1 << 20);
    assert_eq!(intake.offer(logs(["b"])).await, Answer::Stored);
    wait_for("b", || new.taken() == ["b"] && backend.taken() == ["a", "b"]).await;
    let rows = pipeline.stop().await;
    assert_eq!((counts(&rows, "one"), counts(&rows, "new")), ((2, 2, 0), (1, 1, 0)));
    assert_eq!(storage::ledger(folder).unwrap(), rows);
}

#[tokio::test]
async fn a_queue_on_disk_where_the_process_has_no_folder_is_an_error_and_not_a_queue_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pipeline, _intake) =
        start(configured(vec![("one", in_memory(1 << 20), Backend::scripted([]), "1s")])).await;
    let next = configured(vec![("one", on_disk(), Backend::scripted([]), "2s")]);
    let error = pipeline.change(in_folder(folder.path(), next)).await.unwrap_err().to_string();
    assert!(error.contains("one: ") && error.contains("restart"), "{error}");
}

#[tokio::test]
async fn queues_in_memory_that_change_their_size_again_and_again_keep_what_waits_in_each() {
    let (backend, is_back) = away();
    let sized = |bytes, interval| configured(vec![("one", in_memory(bytes), backend.clone(), interval)]);
    let (mut pipeline, intake) = start(sized(1 << 20, "1s")).await;
    for (round, interval) in ["2s", "3s", "4s", "5s"].into_iter().enumerate() {
        intake.push(logs([format!("record {round}")]));
        pipeline.change(sized((2 + round as u64) << 20, interval)).await.unwrap();
    }
    assert_eq!(now(&pipeline, "one"), (4, 0, 4));
    is_back.store(true, Ordering::SeqCst);
    wait_for("everything", || backend.taken().len() == 4).await;
    assert_eq!(sorted(&backend), ["record 0", "record 1", "record 2", "record 3"]);
    assert_eq!(counts(&pipeline.stop().await, "one"), (4, 4, 0));
}

#[tokio::test]
async fn an_exporter_that_was_removed_is_forgotten_when_it_has_delivered_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (backend, is_back) = away();
    let (mut pipeline, intake) =
        start(in_folder(folder, configured(vec![("one", on_disk(), backend.clone(), "1s")]))).await;
    assert_eq!(intake.offer(logs(["a", "b"])).await, Answer::Stored);
    let mut without = in_folder(folder, configured(vec![]));
    without.members.push(Member::Off { name: Arc::from("off") });
    assert_eq!(pipeline.change(without).await.unwrap().stopped, ["one"]);
    let shown = pipeline.control().queues().queues;
    assert_eq!(shown.iter().map(|queue| (&*queue.exporter, queue.records)).collect::<Vec<_>>(), [("one", 2)]);
    assert_eq!(pipeline.telemetry().health.snapshot().get("off").unwrap().state, State::Disabled);
    is_back.store(true, Ordering::SeqCst);
    wait_for("the end of the exporter", || pipeline.telemetry().exporters().is_empty()).await;
    wait_for("the end of its health", || !pipeline.telemetry().health.snapshot().contains_key("one")).await;
    assert_eq!(backend.taken(), ["a", "b"]);
    assert!(pipeline.control().queues().queues.is_empty());
    assert_eq!(storage::ledger(folder).unwrap(), pipeline.telemetry().ledger.snapshot(), "its queue is closed");
    pipeline.change(in_folder(folder, configured(vec![]))).await.unwrap();
    assert!(pipeline.telemetry().health.snapshot().keys().all(|name| &**name != "off"));
    // It comes back, with all that was counted.
    pipeline.change(in_folder(folder, configured(vec![("one", on_disk(), backend.clone(), "1s")]))).await.unwrap();
    assert_eq!(intake.offer(logs(["c"])).await, Answer::Stored);
    wait_for("c", || backend.taken() == ["a", "b", "c"]).await;
    assert_eq!(counts(&pipeline.stop().await, "one"), (3, 3, 0));
}

#[tokio::test]
async fn an_exporter_that_is_kept_or_drains_takes_its_queue_again_when_it_comes_back() {
    for when_removed in [WhenRemoved::Keep, WhenRemoved::Drain] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (backend, is_back) = away();
        let options = ExportOptions { when_removed, ..on_disk() };
        let with = || in_folder(folder, configured(vec![("one", options.clone(), backend.clone(), "1s")]));
        let (mut pipeline, intake) = start(with()).await;
        for round in 0..5 {
            assert_eq!(intake.offer(logs([format!("record {round}")])).await, Answer::Stored);
            assert_eq!(pipeline.change(in_folder(folder, configured(vec![]))).await.unwrap().stopped, ["one"]);
            assert_eq!(now(&pipeline, "one"), (round + 1, 0, round + 1));
            pipeline.change(with()).await.unwrap();
        }
        assert_eq!(now(&pipeline, "one"), (5, 0, 5));
        is_back.store(true, Ordering::SeqCst);
        wait_for("everything", || backend.taken().len() >= 5).await;
        let rows = pipeline.stop().await;
        assert_eq!(backend.taken(), (0..5).map(|round| format!("record {round}")).collect::<Vec<_>>());
        assert_eq!(counts(&rows, "one"), (5, 5, 0));
        assert_eq!(storage::ledger(folder).unwrap(), rows);
    }
}

#[tokio::test]
async fn a_queue_moves_from_disk_to_memory_and_back_while_records_wait_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (backend, is_back) = away();
    let next = |options, interval| in_folder(folder, configured(vec![("one", options, backend.clone(), interval)]));
    let (mut pipeline, intake) = start(next(on_disk(), "1s")).await;
    for (round, options) in [in_memory(1 << 20), on_disk(), in_memory(1 << 20), on_disk()].into_iter().enumerate() {
        intake.push(logs([format!("record {round}")]));
        wait_for("it", || now(&pipeline, "one").0 == round as u64 + 1).await;
        pipeline.change(next(options, ["2s", "3s"][round % 2])).await.unwrap();
        assert_eq!(now(&pipeline, "one"), (round as u64 + 1, 0, round as u64 + 1));
    }
    is_back.store(true, Ordering::SeqCst);
    wait_for("everything", || backend.taken().len() >= 4).await;
    wait_for("the end", || now(&pipeline, "one") == (4, 4, 0)).await;
    assert_eq!(sorted(&backend), ["record 0", "record 1", "record 2", "record 3"]);
    let rows = pipeline.stop().await;
    assert_eq!(counts(&rows, "one"), (4, 4, 0));
    assert_eq!(storage::ledger(folder).unwrap(), rows);
}

#[tokio::test]
async fn a_move_to_the_disk_that_fails_leaves_the_rows_of_the_queue_in_memory_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (backend, is_back) = away();
    let next = |options, interval| in_folder(folder, configured(vec![("one", options, backend.clone(), interval)]));
    let (mut pipeline, intake) = start(next(in_memory(1 << 20), "1s")).await;
    intake.push(logs(["a", "b", "c"]));
    let mut worse = next(on_disk(), "2s");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    worse.members.push(Member::receiver("web", Web { port, handler: |_| async { StatusCode::OK } }));
    assert_eq!(&*pipeline.change(worse).await.unwrap_err().integration, "web");
    assert_eq!(now(&pipeline, "one"), (3, 0, 3));
    is_back.store(true, Ordering::SeqCst);
    wait_for("everything", || now(&pipeline, "one") == (3, 3, 0)).await;
    let rows = pipeline.stop().await;
    assert_eq!(counts(&rows, "one"), (3, 3, 0));
    assert_eq!(counts(&storage::ledger(folder).unwrap(), "one"), (3, 3, 0));
}

#[tokio::test]
async fn what_waits_for_exporters_that_are_not_configured_any_more_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (backend, is_back) = away();
    let with = || in_folder(folder, configured(vec![("one", on_disk(), backend.clone(), "1s")]));
    let (pipeline, intake) = start(with()).await;
    assert_eq!(intake.offer(logs(["a", "b", "c"])).await, Answer::Stored);
    let before = pipeline.stop().await;
    assert_eq!(counts(&before, "one"), (3, 0, 3));
    drop(intake);

    // Without it, and with its queue in memory: in both cases nobody reads what waits.
    for other in [configured(vec![]), configured(vec![("one", in_memory(1 << 20), Backend::scripted([]), "1s")])] {
        let (pipeline, intake) = start(in_folder(folder, other)).await;
        assert_eq!(counts(&pipeline.telemetry().ledger.snapshot(), "one"), (3, 0, 3));
        let shown = pipeline.control().queues().queues;
        let kept: Vec<_> = shown.iter().filter(|queue| queue.kind.name() == "disk").collect();
        assert_eq!(kept.iter().map(|queue| (&*queue.exporter, queue.records)).collect::<Vec<_>>(), [("one", 3)]);
        assert!(kept[0].bytes > 0 && kept[0].oldest_age_seconds.is_some());
        assert_eq!(storage::ledger(folder).unwrap(), pipeline.telemetry().ledger.snapshot());
        pipeline.stop().await;
        drop(intake);
        assert_eq!(counts(&storage::ledger(folder).unwrap(), "one"), (3, 0, 3));
    }
    let (mut pipeline, intake) = start(in_folder(folder, configured(vec![]))).await;
    is_back.store(true, Ordering::SeqCst);
    pipeline.change(with()).await.unwrap();
    wait_for("everything", || backend.taken() == ["a", "b", "c"]).await;
    wait_for("its row", || now(&pipeline, "one") == (3, 3, 0)).await;
    assert_eq!(pipeline.control().queues().queues.len(), 1);
    drop(intake);
    assert_eq!(storage::ledger(folder).is_ok(), !pipeline.stop().await.is_empty());
}

#[tokio::test]
async fn the_programs_own_exporters_have_their_share_of_the_memory_at_a_change_too() {
    let mut first = configured(vec![("one", ExportOptions::default(), Backend::scripted([]), "1s")]);
    let store = plan(vec![("store", ExportOptions::default(), Backend::scripted([]))]);
    first.members.extend(store.members);
    let (mut pipeline, _intake) = start(first).await;
    let changed = configured(vec![("two", ExportOptions::default(), Backend::scripted([]), "1s")]);
    pipeline.change(changed).await.unwrap();
    let limits: BTreeMap<String, u64> =
        pipeline.control().queues().queues.into_iter().map(|queue| (queue.exporter, queue.limit_bytes)).collect();
    assert_eq!((limits["store"], limits["two"]), (32 << 20, 32 << 20));
}

/// An exporter that hangs, or panics when its worker asks it.
#[derive(Clone)]
struct Odd {
    asked: Arc<AtomicUsize>,
    panics: bool,
}

impl DynExport for Odd {
    fn takes(&self) -> Takes {
        assert!(!self.panics || self.asked.fetch_add(1, Ordering::SeqCst) == 0, "on purpose");
        Takes::EVERYTHING
    }

    fn export<'a>(&'a self, _: &'a Delivery) -> BoxFuture<'a, Outcome> {
        Box::pin(std::future::pending())
    }

    fn check(&self) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async { Ok(String::new()) })
    }
}

#[tokio::test(start_paused = true)]
async fn many_exporters_that_hang_are_changed_in_the_time_of_one() {
    let names = ["a", "b", "c", "d", "e"];
    let next = |interval| Plan {
        members: names
            .iter()
            .map(|name| Member::Export {
                name: Arc::from(*name),
                options: ExportOptions::default(),
                exporter: Box::new(Odd { asked: Arc::default(), panics: false }),
            })
            .collect(),
        identities: names.iter().map(|name| (Arc::from(*name), identity(interval))).collect(),
        memory_bytes: 64 << 20,
        ..Plan::default()
    };
    let (mut pipeline, intake) = start(next("1s")).await;
    intake.push(logs(["x"]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begin = Instant::now();
    assert_eq!(pipeline.change(next("2s")).await.unwrap().restarted, names);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_worker_that_panics_is_not_taken_for_one_that_works() {
    let exporter = Odd { asked: Arc::default(), panics: true };
    let member = Member::Export { name: Arc::from("odd"), options: patient(), exporter: Box::new(exporter) };
    let (pipeline, _intake) = start(Plan { members: vec![member], memory_bytes: 1 << 20, ..Plan::default() }).await;
    let health = || pipeline.telemetry().health.snapshot().get("odd").cloned().unwrap();
    wait_for("its health", || health().state == State::Unhealthy).await;
    assert!(health().reason.unwrap().contains("panicked"));
}

/// A receiver that answers POST requests at a port of this machine.
struct Web<H> {
    port: u16,
    handler: H,
}

impl<H, F> DynReceive for Web<H>
where
    H: Fn(Intake) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = StatusCode> + Send + 'static,
{
    fn mounts(&self, intake: &Intake) -> Vec<Mount> {
        let (handler, intake) = (self.handler.clone(), intake.clone());
        let router = Router::new().route("/", post(move || handler(intake.clone())));
        vec![Mount { address: format!("127.0.0.1:{}", self.port).parse().unwrap(), router }]
    }

    fn run(self: Box<Self>, _: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            stop.wait().await;
            Ok(())
        })
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn answered(port: u16) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_backend_that_is_away_is_answered_when_the_pipeline_stops() {
    let (backend, _) = away();
    let port = free_port();
    let mut web = plan(vec![("one", patient(), backend)]);
    let handler = |intake: Intake| async move {
        match intake.offer(logs(["a"])).await {
            Answer::Later { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        }
    };
    web.members.push(Member::receiver("web", Web { port, handler }));
    let (pipeline, _intake) = start(web).await;
    let asked: Vec<_> = (0..20).map(|_| tokio::spawn(answered(port))).collect();
    wait_for("all requests", || now(&pipeline, "one").0 == 20).await;
    let begin = Instant::now();
    let rows = pipeline.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(counts(&rows, "one"), (20, 0, 0));
    for asked in asked {
        let answer = asked.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_that_needs_more_than_half_of_the_memory_is_taken() {
    let backend = Backend::scripted([]);
    let small = Plan { memory_bytes: 10_000, ..plan(vec![("one", patient(), backend.clone())]) };
    let (pipeline, intake) = start(small).await;
    let budget = pipeline.telemetry().memory.clone();
    let body = "x".repeat(7000);
    let answer = memory_budget::within(budget.clone(), async {
        assert!(memory_budget::take(7000));
        intake.offer(logs([body])).await
    });
    assert_eq!(answer.await, Answer::Stored);
    assert_eq!(backend.taken().len(), 1);
    wait_for("the memory", || budget.used() == 0).await;
}

/// A pipeline with one dead letter of an exporter whose queue is in memory, and whose backend is away since.
async fn with_a_dead_letter(folder: &Path) -> (Pipeline, Intake, Arc<AtomicBool>) {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = is_back.clone();
    let mut is_first = true;
    let backend = Backend::judging(move |_| match (std::mem::take(&mut is_first), back.load(Ordering::SeqCst)) {
        (true, _) => Outcome::Partly { refused: Refused::Count(1), why: "bad".into() },
        (false, true) => Outcome::Accepted,
        (false, false) => Outcome::Later { after: None, why: "away".into() },
    });
    let letters = in_folder(folder, configured(vec![("one", in_memory(1 << 20), backend, "1s")]));
    let (pipeline, intake) = start(letters).await;
    intake.push(logs(["a"]));
    loop {
        if pipeline.control().list_dead_letters(&ListQuery::default()).await.unwrap().total == 1 {
            return (pipeline, intake, is_back);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn everything() -> Selected {
    Selected { all: Some(true), ..Selected::default() }
}

#[tokio::test(start_paused = true)]
async fn a_replay_to_a_backend_that_is_away_ends_and_keeps_the_letters() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, _intake, is_back) = with_a_dead_letter(folder.path()).await;
    let all = everything();
    let replay = || tokio::time::timeout(Duration::from_secs(300), pipeline.control().replay_dead_letters(&all));
    let done = replay().await.expect("it ends").unwrap();
    assert_eq!((done.done, done.left), (0, 1));
    assert!(done.reason.unwrap().contains("one"));
    is_back.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(replay().await.unwrap().unwrap(), DoneView { done: 1, ..DoneView::default() });
    assert!(pipeline.telemetry().ledger.snapshot().iter().all(|(_, counts)| counts.difference() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_when_whoever_asked_for_it_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, _intake, is_back) = with_a_dead_letter(folder.path()).await;
    let all = everything();
    let asked = tokio::time::timeout(Duration::from_secs(1), pipeline.control().replay_dead_letters(&all));
    assert!(asked.await.is_err());
    is_back.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pipeline.control().list_dead_letters(&ListQuery::default()).await.unwrap().total, 0);
    let delivered: u64 = pipeline.control().ledger().rows.iter().map(|row: &LedgerRow| row.delivered).sum();
    assert_eq!(delivered, 1);
}
