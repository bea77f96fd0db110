//! A VictoriaMetrics of the test's own.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::http::get;
use super::process::Process;
use super::{free_port, seconds, wait_for};

/// What it counts of points and labels that it leaves out, cuts or drops without telling their sender.
pub const SILENT_CUTS: [&str; 5] = [
    "vm_too_long_label_values_total",
    "vm_too_long_label_names_total",
    "vm_metrics_with_dropped_labels_total",
    "vm_rows_ignored_total{reason=\"big_timestamp\"}",
    "vm_rows_ignored_total{reason=\"small_timestamp\"}",
];

/// A running server with an empty store.
pub struct VictoriaMetrics {
    /// Its address.
    pub url: String,
    _process: Process,
    _folder: TempDir,
}

impl VictoriaMetrics {
    /// Starts it with these options more.
    pub async fn start(program: &Path, options: &[&str]) -> VictoriaMetrics {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let mut command = Command::new(program);
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}")).args(options);
        command.arg(format!("-storageDataPath={}", folder.path().join("data").display()));
        let process = Process::start("VictoriaMetrics", &mut command);
        let url = format!("http://127.0.0.1:{port}");
        wait_for("VictoriaMetrics answers", seconds(30), async || get(&format!("{url}/health")).await).await;
        VictoriaMetrics { url, _process: process, _folder: folder }
    }

    /// All series whose name matches, with what was stored of them. Infinite values are not read.
    pub async fn series(&self, names: &str) -> Vec<Json> {
        get(&format!("{}/internal/force_flush", self.url)).await.expect("it answers");
        let matching: String =
            format!("{{__name__=~\"{names}\"}}").bytes().map(|byte| format!("%{byte:02X}")).collect();
        let lines = get(&format!("{}/api/v1/export?start=0&match[]={matching}", self.url)).await.expect("it answers");
        let lines = std::str::from_utf8(&lines).expect("text").lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// The series of a name, which is there once, as soon as it can be found.
    pub async fn one(&self, name: &str) -> Json {
        let found =
            wait_for(name, seconds(60), async || Some(self.series(name).await).filter(|found| !found.is_empty()));
        let found = found.await;
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0].clone()
    }

    /// One of its own counters, as its page of metrics writes it; 0 if it is not there.
    pub async fn counter(&self, name: &str) -> u64 {
        let page = get(&format!("{}/metrics", self.url)).await.expect("it answers");
        let lines = std::str::from_utf8(&page).expect("text").lines();
        let value = lines.filter_map(|line| line.strip_prefix(name)).find_map(|rest| rest.trim().parse().ok());
        value.unwrap_or(0)
    }
}
