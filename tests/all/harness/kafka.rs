//! A Kafka broker that can be killed and started again on the same ports with the same data, and Kafka's own
//! client beside it.

pub mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::Process;
use super::{free_port, seconds, wait_for};
use wire::Wire;

/// The password of the user `weir` at [`Broker::sasl_address`].
pub const PASSWORD: &str = "right-password-of-the-test";

/// One node with KRaft: broker and controller in one.
pub struct Broker {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    sasl_port: u16,
    /// Where the broker listens behind the wire, and where the wire does.
    behind_wire: (u16, u16),
    process: Process,
}

/// A message as Kafka's own client reads it.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its key.
    pub key: Option<String>,
    /// Its headers as `NAME=VALUE;`.
    pub headers: String,
    /// Its body.
    pub body: Bytes,
}

impl Broker {
    /// Starts a broker; it listens when this returns.
    pub async fn start(program: &Path) -> Broker {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, sasl_port, controller) = (free_port(), free_port(), free_port());
        let logs = folder.path().join("logs");
        let behind_wire = (free_port(), free_port());
        let listeners = format!("PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port}");
        let (behind, wire) = behind_wire;
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listeners},WIRE://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={listeners},WIRE://127.0.0.1:{wire}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,WIRE:PLAINTEXT,SASL:SASL_PLAINTEXT\n\
             authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
             super.users=User:ANONYMOUS\nallow.everyone.if.no.acl.found=true\n\
             sasl.enabled.mechanisms=PLAIN\n\
             listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_weir=\"{PASSWORD}\";\n\
             log.dirs={}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            logs.display()
        );
        std::fs::write(folder.path().join("server.properties"), properties).expect("writable");
        let formatted = java(program, folder.path())
            .args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", "server.properties"])
            .output()
            .expect("java runs");
        assert!(formatted.status.success(), "{}", super::weir::said(&formatted));
        let process = Self::launch(program, folder.path());
        let broker = Broker { program: program.to_owned(), folder, port, sasl_port, behind_wire, process };
        broker.is_ready().await;
        broker
    }

    fn launch(program: &Path, folder: &Path) -> Process {
        Process::start("Kafka", java(program, folder).args(["kafka.Kafka", "server.properties"]))
    }

    async fn is_ready(&self) {
        wait_for("Kafka is ready", seconds(60), async || {
            self.process.stderr().contains("Kafka Server started").then_some(())
        })
        .await;
    }

    /// Where it listens for everybody.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it wants user and password.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.sasl_port)
    }

    /// A wire to it, and the address of its near end.
    pub async fn wire(&self) -> (Wire, String) {
        let (behind, wire) = self.behind_wire;
        (Wire::start(wire, behind).await, format!("127.0.0.1:{wire}"))
    }

    /// Ends it at once.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end(seconds(20)).await;
    }

    /// Starts it again after [`Broker::kill`].
    pub async fn start_again(&mut self) {
        self.process = Self::launch(&self.program, self.folder.path());
        self.is_ready().await;
    }

    /// Bytes that a partition takes on its disk.
    pub fn size_bytes(&self, topic: &str) -> u64 {
        let segment = format!("logs/{topic}-0/00000000000000000000.log");
        std::fs::metadata(self.folder.path().join(segment)).expect("a segment").len()
    }

    fn tool(&self, command: &str, arguments: &[&str]) -> String {
        let output = java(&self.program, self.folder.path())
            .args(["KafkaTool", command, &self.address()])
            .args(arguments)
            .output()
            .expect("java runs");
        assert!(output.status.success(), "{command} {arguments:?}: {}", super::weir::said(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Creates topics, named with commas between; `settings` as `NAME=VALUE`.
    pub fn create(&self, topics: &str, partitions: u32, settings: &[&str]) {
        let partitions = partitions.to_string();
        self.tool("create", &[&[topics, &partitions], settings].concat());
    }

    /// Runs one of Kafka's own commands.
    fn admin(&self, class: &str, arguments: &[&str]) {
        let output = java(&self.program, self.folder.path())
            .args([class, "--bootstrap-server", &self.address()])
            .args(arguments)
            .output()
            .expect("java runs");
        assert!(output.status.success(), "{class} {arguments:?}: {}", super::weir::said(&output));
    }

    /// Changes a setting of a topic, `NAME=VALUE`.
    pub fn set(&self, topic: &str, setting: &str) {
        let alter = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting];
        self.admin("kafka.admin.ConfigCommand", &alter);
    }

    /// Forbids the user `weir` to write to a topic, or no longer.
    pub fn forbid(&self, topic: &str, is_forbidden: bool) {
        let (how, more): (_, &[&str]) = if is_forbidden { ("--add", &[]) } else { ("--remove", &["--force"]) };
        let rule = [how, "--deny-principal", "User:weir", "--operation", "Write", "--topic", topic];
        self.admin("kafka.admin.AclCommand", &[&rule, more].concat());
    }

    /// Everything that is in some topics.
    pub fn read(&self, topics: &[&str]) -> Vec<Message> {
        let lines = self.tool("read", topics);
        let message = |line: &str| {
            let mut fields = line.split('\t');
            let mut next = || fields.next().expect("five fields").to_owned();
            Message {
                topic: next(),
                partition: next().parse().expect("a number"),
                key: Some(next()).filter(|key| key != "-"),
                headers: next(),
                body: from_hexadecimal(&next()),
            }
        };
        lines.lines().map(message).collect()
    }

    /// Writes messages to a topic with Kafka's own client, spread over its partitions.
    pub fn write(&self, topic: &str, bodies: impl IntoIterator<Item = Bytes>) {
        let lines: String = bodies.into_iter().map(|body| hexadecimal(&body) + "\n").collect();
        let file = self.folder.path().join("bodies.txt");
        std::fs::write(&file, lines).expect("writable");
        self.tool("write", &[topic, file.to_str().expect("a plain name")]);
    }

    /// The sum of the offsets that a group has committed.
    pub fn committed(&self, group: &str) -> u64 {
        let lines = self.tool("committed", &[group]);
        lines
            .lines()
            .map(|line| line.rsplit('\t').next().and_then(|it| it.parse::<u64>().ok()).expect("an offset"))
            .sum()
    }
}

/// A command of Java with Kafka's classes, which logs to standard error.
fn java(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("java");
    let classes = format!("{0}/lib/*:{0}", program.display());
    command.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", &classes]).current_dir(folder);
    command
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(text: &str) -> Bytes {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
    text.as_bytes().chunks(2).map(byte).collect()
}
