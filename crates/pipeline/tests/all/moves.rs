//! An exporter whose queue moves between disk and memory keeps its rows of the ledger.

use std::path::Path;
use std::sync::Arc;

use weir_config::{QueueKind, SyncPolicy};
use weir_pipeline::Answer;
use weir_pipeline::ledger::{Counts, Key};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::plan::Plan;
use weir_pipeline::storage::{self, StoragePlan};

use crate::backend::{Backend, logs, patient, plan, start};
use crate::change::identity;

/// A plan of one exporter with a queue of that kind.
fn with_queue(folder: &Path, queue: QueueKind, interval: &str) -> Plan {
    let options = ExportOptions { queue: Some(queue), ..patient() };
    let mut plan = plan(vec![("one", options, Backend::scripted([]))]);
    plan.identities.insert(Arc::from("one"), identity(interval));
    plan.storage = Some(StoragePlan {
        folder: folder.to_owned(),
        is_wanted: true,
        queue,
        sync: SyncPolicy::Group,
        disk_bytes: 1 << 30,
        reserve_bytes: Some(0),
        key_file: None,
        dead_letters_bytes: 1 << 20,
        dead_letters_age: std::time::Duration::from_secs(3600),
    });
    plan
}

/// What is delivered by the only row.
fn delivered(rows: &[(Key, Counts)]) -> u64 {
    assert!(rows.iter().all(|(_, counts)| counts.difference() == 0), "{rows:?}");
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].1.delivered
}

#[tokio::test]
async fn rows_go_on_when_a_queue_moves_from_disk_to_memory_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut pipeline, intake) = start(with_queue(folder, QueueKind::Disk, "1s")).await;
    assert_eq!(intake.offer(logs(["a", "b", "c"])).await, Answer::Stored);
    let changes = pipeline.change(with_queue(folder, QueueKind::Memory, "2s")).await.unwrap();
    assert_eq!(changes.restarted, ["one"]);
    assert_eq!(intake.offer(logs(["d"])).await, Answer::Stored);
    assert_eq!(delivered(&pipeline.stop().await), 4);
    assert_eq!(delivered(&storage::ledger(folder).unwrap()), 4, "what the file has is later than the log");

    let (pipeline, intake) = start(with_queue(folder, QueueKind::Memory, "2s")).await;
    assert_eq!(intake.offer(logs(["e"])).await, Answer::Stored);
    assert_eq!(delivered(&pipeline.stop().await), 5);

    let (pipeline, intake) = start(with_queue(folder, QueueKind::Disk, "1s")).await;
    assert_eq!(intake.offer(logs(["f"])).await, Answer::Stored);
    assert_eq!(delivered(&pipeline.stop().await), 6);
    assert_eq!(delivered(&storage::ledger(folder).unwrap()), 6);
}
