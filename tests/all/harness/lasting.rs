//! An agent whose data folder outlives its process, and the commands that look into that folder.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::process::Process;
use super::small_disk::SmallDisk;
use super::weir::{command, said};
use super::{free_port, seconds, wait_for};

/// The agent.
pub struct Lasting {
    folder: TempDir,
    port: u16,
    disk: Option<Arc<SmallDisk>>,
    process: Option<Process>,
}

/// What a source's records became on the way to an exporter, by the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Taken from the source.
    pub accepted: u64,
    /// The backend has them.
    pub delivered: u64,
    /// In the queue or under way.
    pub waiting: u64,
    /// Kept as dead letters.
    pub dead_lettered: u64,
    /// Not delivered.
    pub dropped: u64,
}

impl Lasting {
    /// One whose data folder is a plain folder.
    pub fn new() -> Lasting {
        Lasting {
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            disk: None,
            process: None,
        }
    }

    /// One whose data folder is a file system of this many bytes.
    pub fn on_small_disk(bytes: u64) -> Lasting {
        let mut agent = Lasting::new();
        std::fs::create_dir(agent.data()).expect("writable");
        agent.disk = Some(Arc::new(SmallDisk::mount(&agent.data(), bytes)));
        agent
    }

    /// A folder for other files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Base address of its OTLP receiver.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Port of its OTLP receiver.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets its receiver listen on this port in what is configured from now on.
    pub fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    /// Writes its configuration: what stands above `integrations:`, and the blocks below it. It has its
    /// receiver, and of what runs by default nothing.
    pub fn configure(&self, head: &str, blocks: &str) {
        let nothing_else = "  host: {enabled: false}\n  internal: {enabled: false}\n";
        let receiver = format!("  otlp_receiver: {{http: \"127.0.0.1:{}\", grpc: null}}\n", self.port);
        let yaml = format!("{head}\nintegrations:\n{nothing_else}{receiver}{blocks}");
        std::fs::write(self.config(), yaml).expect("writable");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("weir.yaml")
    }

    /// Does something where its data folder is seen.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.disk {
            Some(disk) => disk.inside(work),
            None => work(),
        }
    }

    fn weir(&self) -> std::process::Command {
        let mut weir = command();
        weir.env("WEIR_DATA", self.data()).env("WEIR_CONFIG", self.config());
        weir
    }

    /// Starts it and waits until it listens.
    pub async fn start(&mut self) {
        let mut weir = self.weir();
        weir.arg("agent");
        self.process = Some(self.inside(move || Process::start("weir", &mut weir)));
        self.wait_until_it_listens().await;
    }

    /// Starts it where that fails; what it said.
    pub async fn start_in_vain(&self) -> String {
        let mut weir = self.weir();
        weir.arg("agent");
        let mut process = self.inside(move || Process::start("weir", &mut weir));
        let (status, _) = process.end(seconds(20)).await;
        assert!(!status.success(), "it runs: {}", process.stderr());
        process.stderr()
    }

    async fn wait_until_it_listens(&mut self) {
        let (port, process) = (self.port, self.process.as_mut().expect("started"));
        wait_for("the agent listens", seconds(30), async || {
            assert!(process.ended().is_none(), "it ended:\n{}", process.stderr());
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("started")
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) {
        self.process().signal(Signal::SIGKILL);
        let mut process = self.process.take().expect("started");
        let ended = process.end(seconds(5)).await;
        assert_eq!(ended.0.code(), None, "it ended by itself:\n{}", process.stderr());
    }

    /// Stops it in good order; what it said.
    pub async fn stop(&mut self) -> String {
        self.process().signal(Signal::SIGTERM);
        let mut process = self.process.take().expect("started");
        process.end(seconds(10)).await;
        process.stderr()
    }

    /// Runs a command on its data folder.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut weir = self.weir();
        weir.args(arguments);
        self.inside(move || weir.output()).expect("weir runs")
    }

    /// Runs a command that succeeds; what it wrote to standard output.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "weir {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that fails; all that it wrote.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "weir {arguments:?} succeeds: {}", said(&output));
        said(&output)
    }

    /// Runs a command that answers JSON.
    pub fn json(&self, arguments: &[&str]) -> Json {
        let said = self.says(arguments);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("weir {arguments:?}: {error}: {said}"))
    }

    /// The rows of the ledger, each of which adds up.
    pub fn ledger(&self) -> Vec<Json> {
        let ledger = self.json(&["ledger", "--json"]);
        let rows = ledger["rows"].as_array().expect("rows").clone();
        for row in &rows {
            assert_eq!(row["difference"], 0, "{row}");
            let seen = Row::of([row]);
            let kept = seen.delivered + seen.waiting + seen.dead_lettered + seen.dropped;
            assert_eq!(seen.accepted, kept, "{row}");
        }
        rows
    }

    /// The log records of a source for an exporter.
    pub fn row(&self, source: &str, exporter: &str) -> Row {
        let rows = self.ledger();
        Row::of(
            rows.iter().filter(|row| row["source"] == source && row["exporter"] == exporter && row["signal"] == "logs"),
        )
    }

    /// Waits until no log record waits for this exporter, and gives the ledger.
    pub async fn drained(&self, exporter: &str, longest: Duration) -> Row {
        wait_for(&format!("{exporter} is drained"), longest, async || {
            let rows = self.ledger();
            let logs = rows.iter().filter(|row| row["exporter"] == exporter && row["signal"] == "logs");
            Some(Row::of(logs)).filter(|row| row.waiting == 0)
        })
        .await
    }
}

impl Row {
    /// The sum of rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Json>) -> Row {
        let mut sum = Row::default();
        for row in rows {
            let number = |column: &str| row[column].as_u64().unwrap_or_else(|| panic!("no {column}: {row}"));
            sum.accepted += number("accepted");
            sum.delivered += number("delivered");
            sum.waiting += number("queued") + number("in_flight");
            sum.dead_lettered += number("dead_lettered");
            let dropped = row["dropped"].as_object().expect("reasons").values();
            sum.dropped += dropped.map(|records| records.as_u64().expect("a number")).sum::<u64>();
        }
        sum
    }

    /// A row of which everything was delivered.
    pub fn all_delivered(records: u64) -> Row {
        Row { accepted: records, delivered: records, ..Row::default() }
    }
}
