//! Prometheus and node_exporter, started on loopback with a folder of the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;
use tempfile::TempDir;

use super::http::get_json;
use super::process::Process;
use super::{free_port, seconds, wait_for};

/// Collectors of node_exporter that the tests compare with; the others cost time.
const COLLECTORS: &[&str] =
    &["cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "processes", "stat", "vmstat"];

/// A running node_exporter.
pub struct NodeExporter {
    /// Where it listens: `127.0.0.1:PORT`.
    pub address: String,
    _process: Process,
}

impl NodeExporter {
    /// Starts it and waits until it answers.
    pub async fn start(program: &Path) -> NodeExporter {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address={address}")).args([
            "--collector.disable-defaults",
            "--collector.netdev.device-exclude=^$", // the default leaves lo out
            "--log.level=error",
        ]);
        command.args(COLLECTORS.iter().map(|name| format!("--collector.{name}")));
        let process = Process::start("node_exporter", &mut command);
        let url = format!("http://{address}/metrics");
        wait_for("node_exporter answers", seconds(20), async || super::http::get(&url).await).await;
        NodeExporter { address, _process: process }
    }
}

/// A running Prometheus that takes remote write.
pub struct Prometheus {
    /// Where it listens: `127.0.0.1:PORT`.
    pub address: String,
    _process: Process,
    _folder: TempDir,
}

/// The labels of a series and its value.
pub type Series = (BTreeMap<String, String>, f64);

impl Prometheus {
    /// Starts it with these lines of configuration and flags, and waits until it is ready.
    pub async fn start(program: &Path, configuration: &str, flags: &[&str]) -> Prometheus {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration).expect("writable");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=warn"])
            .args(flags);
        let mut process = Process::start("prometheus", &mut command);
        wait_for("prometheus listens", seconds(40), async || {
            assert!(process.ended().is_none(), "prometheus ended: {}", process.stderr());
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        Prometheus { address, _process: process, _folder: folder }
    }

    /// The address that takes remote write.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// The series that an instant query finds now; `None` before the server is ready.
    pub async fn query(&self, promql: &str) -> Option<Vec<Series>> {
        let encoded: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get_json(&format!("http://{}/api/v1/query?query={encoded}", self.address)).await?;
        let result = answer["data"]["result"].as_array()?;
        Some(result.iter().map(series).collect())
    }

    /// The one number that an instant query finds; `None` if there is none.
    pub async fn number(&self, promql: &str) -> Option<f64> {
        let found = self.query(promql).await?;
        assert!(found.len() < 2, "{promql} finds {} series, not one: {found:?}", found.len());
        found.first().map(|series| series.1)
    }
}

fn series(item: &Json) -> Series {
    let labels = item["metric"].as_object().expect("labels");
    let labels =
        labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let value = item["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
    (labels, value)
}
