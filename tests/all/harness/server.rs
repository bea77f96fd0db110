//! A server under test: `weir server` or `weir up`, on a port and a data folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use weir_net::{Answer, Client, HttpOptions, TransportError};

use super::process::{Process, Stream};
use super::weir::command;
use super::{free_port, seconds, wait_for};

/// The key with all rights that every server of the tests is started with.
pub const ADMIN_KEY: &str = "weir-tests-admin-key-0123456789";

/// Most bytes of an answer; a debug build of the program itself is among the answers.
const ANSWER_LIMIT_BYTES: usize = 1 << 30;

/// How long a server may take until it is ready.
const START: Duration = seconds(30);

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// `server`, which stores what others send, or `up`, which also watches this machine.
    pub command: &'static str,
    /// Host part of the address to listen on.
    pub host: String,
    /// Port to listen on; without one a free port.
    pub port: Option<u16>,
    /// Text of the configuration file; without it there is none.
    pub config: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside `WEIR_ADMIN_KEY`.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    /// `weir server` on loopback without a configuration file.
    fn default() -> Self {
        Options {
            command: "server",
            host: "127.0.0.1".to_owned(),
            port: None,
            config: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A running server; killed when it is dropped.
pub struct Server {
    /// Its process.
    pub process: Process,
    options: Options,
    port: u16,
    folder: TempDir,
    client: Client,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub async fn start(options: Options) -> Server {
        let mut server = Server::launch(options);
        server.ready().await;
        server
    }

    /// Starts a server and does not wait.
    pub fn launch(options: Options) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = options.port.unwrap_or_else(free_port);
        if let Some(text) = &options.config {
            std::fs::write(config_file(folder.path()), text).expect("writable");
        }
        let process = process(&options, port, folder.path());
        let client = Client::new(&HttpOptions::default()).expect("a plain client");
        Server { process, options, port, folder, client }
    }

    /// Waits until it answers that it is ready.
    pub async fn ready(&mut self) {
        wait_for("the server is ready", START, async || {
            assert!(self.process.ended().is_none(), "the server ended: {}", self.process.stderr());
            let request = http::Request::get(format!("{}/ready", self.url())).body(Bytes::new()).expect("a request");
            self.try_send(request).await.ok().filter(|answer| answer.status.is_success())
        })
        .await;
    }

    /// Its address: `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.port)
    }

    /// Its base address: `http://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        data_folder(self.folder.path())
    }

    /// A folder for files of the test; the data folder lies in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything on its standard error since it was started last.
    pub fn stderr(&self) -> String {
        self.process.text(Stream::Err)
    }

    /// Kills it as a power failure would: SIGKILL.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end(seconds(10)).await;
    }

    /// Ends it as Ctrl-C does; how it ended, and how long that took.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        self.process.signal(Signal::SIGINT);
        self.process.end(seconds(20)).await
    }

    /// Starts it again after its end, on the same folder and port, and waits until it is ready.
    pub async fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "it still runs");
        self.process = process(&self.options, self.port, self.folder.path());
        self.ready().await;
    }

    /// A command of the program on this server's data, for example `weir keys list`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.args(arguments).arg("--data").arg(self.data());
        command
    }

    /// Sends a request as it stands, over connections that stay open.
    pub async fn try_send(&self, request: http::Request<Bytes>) -> Result<Answer, TransportError> {
        self.client.send(request, ANSWER_LIMIT_BYTES).await
    }

    /// Sends a request as it stands; fails the test without an answer.
    pub async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        self.try_send(request).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends a request with a key (an empty one is left out) and a JSON body (null is left out).
    pub async fn ask(&self, method: Method, path: &str, key: &str, body: &Json) -> Answer {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.url()));
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = match body {
            Json::Null => Bytes::new(),
            body => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
        };
        self.send(request.body(body).expect("a good address")).await
    }

    /// GETs JSON with the admin key; fails the test unless it is a success.
    pub async fn get(&self, path: &str) -> Json {
        json_of(path, &self.ask(Method::GET, path, ADMIN_KEY, &Json::Null).await)
    }

    /// POSTs JSON with the admin key; fails the test unless it is a success.
    pub async fn post(&self, path: &str, body: &Json) -> Json {
        json_of(path, &self.ask(Method::POST, path, ADMIN_KEY, body).await)
    }

    /// DELETEs with the admin key.
    pub async fn delete(&self, path: &str) -> StatusCode {
        self.ask(Method::DELETE, path, ADMIN_KEY, &Json::Null).await.status
    }

    /// Makes a key with these scopes.
    pub async fn new_key(&self, scopes: &[&str]) -> String {
        let made = self.post("/api/v1/keys", &json!({"name": "of a test", "scopes": scopes})).await;
        made["key"].as_str().expect("the key is shown once").to_owned()
    }

    /// Makes an enrolment token: the whole answer.
    pub async fn new_token(&self, uses: u32, expires_in_seconds: u32) -> Json {
        self.post("/api/v1/tokens", &json!({"uses": uses, "expires_in_seconds": expires_in_seconds})).await
    }

    /// The row of a host, if it is there.
    pub async fn host(&self, name: &str) -> Option<Json> {
        let hosts = self.get("/api/v1/hosts").await;
        hosts["hosts"].as_array().expect("a list").iter().find(|row| row["name"] == name).cloned()
    }
}

fn json_of(path: &str, answer: &Answer) -> Json {
    assert!(answer.status.is_success(), "{path}: {}", answer.excerpt());
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.excerpt()))
}

fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("weir.yaml")
}

fn process(options: &Options, port: u16, folder: &Path) -> Process {
    let mut command = command();
    command.env("WEIR_ADMIN_KEY", ADMIN_KEY).env_remove("WEIR_DATA").env_remove("WEIR_LISTEN");
    command.args([options.command, "--listen", &format!("{}:{port}", options.host)]);
    command.arg("--data").arg(data_folder(folder));
    if options.config.is_some() {
        command.arg("--config").arg(config_file(folder));
    }
    command.args(&options.arguments).envs(options.environment.iter().cloned());
    Process::start("weir", &mut command)
}
