//! The guides' own words: their files are written and their commands typed into a shell, in order, next to a
//! small backend, and what comes back has the shape that the guide shows.
//!
//! The word after the language of a block says what it is for:
//!
//! - ```` ```yaml weir.yaml ```` is written to that file; other YAML is a piece that must be read without a problem
//! - ```` ```console run ```` is typed, line by line; `fails` after it: its last command fails
//! - `backend=picky`: before that a backend starts that refuses what it is shown a `user` in; `backend=there`: it
//!   takes everything

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use weir_net::Compression;

use crate::harness::weir::{ConfigFile, command, run, said};
use crate::harness::{free_port, seconds};

/// The backend as guides call it, and the folder that they work in.
const BACKEND: &str = "http://collector:4318";
const FOLDER: &str = "/home/ann";

/// How long a command may take to say what the guide shows: an exporter tries again after 5 s at most.
const LONGEST: Duration = seconds(30);

/// Commands that may be asked again until what they show has happened.
const READING: [&str; 5] = ["weir ledger", "weir queue", "weir dead-letters list", "grep ", "curl "];

/// A fenced block.
struct Block {
    language: String,
    words: Vec<String>,
    text: String,
}

impl Block {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// The commands, each with the lines that it shows.
    fn commands(&self) -> Vec<(String, Vec<String>)> {
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((_, shown))) => shown.push(line.to_owned()),
                (None, None) => panic!("{line:?} stands before any command"),
            }
        }
        commands
    }
}

fn guide(name: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut words = info.split_whitespace().map(str::to_owned);
        let language = words.next().unwrap_or_default();
        let text = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        blocks.push(Block { language, words: words.collect(), text });
    }
    blocks
}

/// An OTLP backend that refuses requests with a `user` in them while it is picky.
#[derive(Clone, Default)]
struct Backend {
    is_picky: Arc<AtomicBool>,
}

async fn take(State(backend): State<Backend>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let encoding = headers.get("content-encoding").and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let compression = Compression::from_header(encoding).unwrap_or_else(|| panic!("content-encoding {encoding}"));
    let body = compression.decompress(body, 1 << 20).expect("a body");
    let has_user = body.windows(5).any(|window| window == b"user=");
    if uri.path() == "/v1/logs" && has_user && backend.is_picky.load(Ordering::Acquire) {
        return (StatusCode::BAD_REQUEST, "field `user` is not a number").into_response();
    }
    // An empty message is the success of all services.
    ([("content-type", "application/x-protobuf")], Bytes::new()).into_response()
}

impl Backend {
    async fn listen(&self, port: u16) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let router = Router::new().fallback(take).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
}

/// A shell that a guide is typed into. It ends what it started when it ends.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

/// What the shell says after a command, with its exit status.
const END: &str = "--- end of a command:";

impl Shell {
    fn start(folder: &Path) -> Shell {
        let weir = command();
        let programs = Path::new(weir.get_program()).parent().expect("the program lies in a folder").to_owned();
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&paths)));
        let mut child = std::process::Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder)
            .env("PATH", path.expect("a path"))
            .env_remove("WEIR_CONFIG")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash runs");
        let input = child.stdin.take().expect("piped");
        let output = read(child.stdout.take().expect("piped"));
        let mut shell = Shell { child, input, output };
        shell.type_in("exec 2>&1; trap 'kill -9 $(jobs -p)' EXIT");
        shell
    }

    /// Types a command; what it said, and its exit status.
    fn type_in(&mut self, command: &str) -> (String, i32) {
        writeln!(self.input, "{command}\nprintf '\\n{END} %s\\n' $?").expect("the shell runs");
        let mut text = String::new();
        loop {
            let line = self.output.recv_timeout(LONGEST).unwrap_or_else(|_| panic!("{command}: no end\n{text}"));
            if let Some(status) = line.strip_prefix(END) {
                return (text, status.trim().parse().expect("an exit status"));
            }
            text.push_str(&format!("{line}\n"));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // After this it reads the end of its input.
        let _ = self.input.write_all(b"\nexit\n");
        let _ = self.input.flush();
        let _ = self.child.wait();
    }
}

fn read(output: ChildStdout) -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// A line without what differs from run to run: spaces, sizes and ages, times, ids.
fn shape(line: &str) -> String {
    const UNITS: [&str; 8] = ["B", "KiB", "MiB", "GiB", "s", "min", "h", "d"];
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_id = |word: &str| word.len() == 16 && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_time = |word: &str| word.len() == 8 && word.chars().all(|c| c.is_ascii_digit() || c == ':');
    let mut shaped: Vec<&str> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_amount = is_number(word) && words.get(at + 1).is_some_and(|unit| UNITS.contains(unit));
        let is_unit = UNITS.contains(word) && shaped.last() == Some(&"AMOUNT");
        match word {
            _ if is_unit => {}
            _ if is_amount => shaped.push("AMOUNT"),
            word if is_id(word) => shaped.push("ID"),
            word if is_time(word) => shaped.push("TIME"),
            word => shaped.push(word),
        }
    }
    shaped.join(" ")
}

/// The first line of those shown that does not come, in order; a line may go on, and `...` stands for any.
fn missing(shown: &[String], said: &str) -> Option<String> {
    let mut said = said.lines().map(shape);
    let shown = shown.iter().filter(|line| *line != "...").map(|line| shape(line));
    shown.into_iter().find(|line| !said.any(|other| other.starts_with(line.as_str())))
}

/// Types a command, and asks again what only reads until it says what is shown.
async fn try_out(shell: &mut Shell, command: &str, shown: &[String], fails: bool) {
    let may_be_asked_again = READING.iter().any(|reading| command.starts_with(reading));
    let begun = Instant::now();
    loop {
        let (said, status) = shell.type_in(command);
        let missing = missing(shown, &said);
        if missing.is_none() && (status != 0) == fails {
            return;
        }
        let is_over = !may_be_asked_again || begun.elapsed() > LONGEST;
        assert!(!is_over, "$ {command}\n{said}exit status {status}; this is missing: {missing:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Does what a guide says. Gives the number of its commands.
async fn follow(name: &str) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().canonicalize().expect("it is there");
    let (backend, port) = (Backend::default(), free_port());
    let address = format!("http://127.0.0.1:{port}");
    let here = |text: &str| text.replace(BACKEND, &address).replace(FOLDER, path.to_str().expect("a plain name"));
    let mut shell = Shell::start(&path);
    let (mut is_listening, mut commands) = (false, 0);
    for block in guide(name) {
        match (block.language.as_str(), block.words.first()) {
            ("yaml", Some(file)) => std::fs::write(path.join(file), here(&block.text)).expect("writable"),
            ("yaml", None) => assert_is_read(&block.text),
            _ => {}
        }
        if let Some(how) = block.words.iter().find_map(|word| word.strip_prefix("backend=")) {
            backend.is_picky.store(how == "picky", Ordering::Release);
            if !std::mem::replace(&mut is_listening, true) {
                backend.listen(port).await;
            }
        }
        if block.language == "console" && block.has("run") {
            let typed = block.commands();
            commands += typed.len();
            for (at, (command, shown)) in typed.iter().enumerate() {
                let shown: Vec<String> = shown.iter().map(|line| here(line)).collect();
                try_out(&mut shell, command, &shown, block.has("fails") && at + 1 == typed.len()).await;
            }
        }
    }
    commands
}

/// That a piece of a configuration can be read.
fn assert_is_read(yaml: &str) {
    let config = ConfigFile::new(yaml);
    let output = run(&["config", "explain", "--config", config.path()]);
    assert!(output.status.success(), "{yaml}{}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_guide_on_delivery_says_happens() {
    let commands = follow("delivery.md").await;
    assert!(commands >= 25, "only {commands} commands of the guide were run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_guide_on_logs_says_happens() {
    let commands = follow("logs.md").await;
    assert!(commands >= 8, "only {commands} commands of the guide were run");
}

#[test]
fn the_metrics_that_the_guide_on_delivery_names_are_there() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| std::fs::read_to_string(documents.join(name)).expect("the document is there");
    let (guide, internal) = (read("guides/delivery.md"), read("integrations/internal.md"));
    let names: Vec<&str> = guide
        .split('`')
        .filter(|word| word.starts_with("weir.") && !word.ends_with(".yaml") && !word.contains(' '))
        .collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        assert!(internal.contains(&format!("`{name}`")), "there is no metric {name}");
    }
}

/// What `weir` and these words say about themselves; `None` where there is no such command.
fn help(words: &[&str]) -> Option<String> {
    let output = run(&[words, &["--help"]].concat());
    output.status.success().then(|| said(&output))
}

#[test]
fn every_command_that_the_documents_name_is_there_with_its_options() {
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let mut commands = 0;
    for (document, text) in documents() {
        for line in text.lines() {
            let code: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            let named = code.iter().filter_map(|code| code.strip_prefix("weir "));
            let helps: Vec<String> = named
                .map(|named| {
                    let words: Vec<&str> = named.split_whitespace().take_while(is_name).collect();
                    help(&words).unwrap_or_else(|| panic!("{document} names `weir {named}`"))
                })
                .collect();
            commands += helps.len();
            let options = code.iter().flat_map(|code| code.split_whitespace()).filter(|word| word.starts_with("--"));
            for option in options.filter(|_| !helps.is_empty()) {
                assert!(helps.iter().any(|help| help.contains(option)), "{document} names {option}: {line}");
            }
        }
    }
    assert!(commands >= 15, "only {commands} commands are named");
}

#[test]
fn what_the_documents_point_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (document, text) in documents() {
        let headings: Vec<String> = text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let is_there = match file {
                "" => headings.iter().any(|heading| heading == anchor),
                file if file.starts_with("http") => true,
                file => std::fs::metadata(root.join(&document).with_file_name(file)).is_ok(),
            };
            assert!(is_there, "{document} points to {target}");
        }
    }
}

/// The documents for people that are written by hand.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guides = std::fs::read_dir(root.join("docs/guides")).expect("there are guides");
    let guides = guides.map(|entry| entry.expect("readable").file_name().into_string().expect("a plain name"));
    let others =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/README.md"].map(str::to_owned);
    let all = others.into_iter().chain(guides.map(|name| format!("docs/guides/{name}")));
    all.map(|document| {
        let text = std::fs::read_to_string(root.join(&document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        (document, text)
    })
    .collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}
