//! The README's own words: its configuration is read, its commands run.

use std::path::Path;

use crate::harness::server::{Options, Server};
use crate::harness::weir::{ConfigFile, command, said};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("the README is there")
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```").is_some_and(|rest| rest == language) {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

#[test]
fn every_command_of_the_readme_runs_with_its_own_configuration() {
    let readme = readme();
    let yaml = blocks(&readme, "yaml");
    assert!(!yaml.is_empty(), "the README shows a configuration");
    let config = ConfigFile::new(&yaml[0]);
    let commands: Vec<String> = blocks(&readme, "sh").concat().lines().map(str::to_owned).collect();
    let mut run = 0;
    let stays = ["weir up", "weir agent", "weir keys"];
    let ends = |line: &&String| line.starts_with("weir ") && !stays.iter().any(|words| line.starts_with(words));
    for line in commands.iter().filter(ends) {
        let words = line.split('#').next().unwrap_or_default().split('>').next().unwrap_or_default();
        let arguments: Vec<&str> = words.split_whitespace().skip(1).collect();
        let output = command()
            .args(&arguments)
            .env("TOKEN", "a-token-of-the-test")
            .current_dir(config.folder())
            .output()
            .expect("weir runs");
        // The README's backends do not exist here, so its check finds that out, and nothing else is wrong.
        let expected = if arguments.first() == Some(&"check") { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{line}\n{}", said(&output));
        assert!(!said(&output).contains("a-token-of-the-test"), "{line} shows a secret");
        run += 1;
    }
    assert!(run >= 4, "only {run} commands of the README were run");
}

#[test]
fn what_the_readme_shows_of_a_terminal_is_tried_in_a_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guides/delivery.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    // Columns are as wide as what stands in them.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let guide: Vec<String> = guide.lines().map(words).collect();
    let shown = blocks(&readme(), "console").concat();
    assert!(shown.lines().filter(|line| line.starts_with("$ weir ")).count() >= 2, "{shown}");
    for line in shown.lines() {
        assert!(guide.contains(&words(line)), "the guide on delivery does not show {line:?}");
    }
}

#[tokio::test]
async fn the_server_takes_what_the_readme_sends_it() {
    let server = Server::start(Options::default()).await;
    let script = blocks(&readme(), "sh").into_iter().find(|block| block.contains("weir keys create"));
    let script = script.expect("the README shows how programs send to the server");
    server.post("/api/servers", &serde_json::json!({"hostname": "web-1"})).await;
    // As it stands, but for the address; what the first command prints is the key.
    let script = script.replace("http://monitor:8088", &server.url()).replacen("weir keys", "KEY=$(weir keys", 1);
    let script =
        script.replacen("--scope ingest ", "--scope ingest) ", 1).replace("curl ", "curl --silent --fail-with-body ");
    let script = format!(
        "set -eu\n{script}\nprintf '\\n%s %s' \"$OTEL_EXPORTER_OTLP_ENDPOINT\" \"$OTEL_EXPORTER_OTLP_HEADERS\"\n"
    );
    let program = command().get_program().to_owned();
    let folder = Path::new(&program).parent().expect("the program lies in a folder").to_owned();
    let path = std::env::join_paths(
        std::iter::once(folder).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let output = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .env("WEIR_DATA", server.data())
        .env("PATH", path.expect("a path"))
        .output()
        .await
        .expect("sh runs");
    assert!(output.status.success(), "{}\n{script}", said(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("\"stored\":1"), "{told}");
    // What SDKs read from the environment lets them in.
    let header = told.rsplit_once("x-api-key=").expect("the header of the SDKs").1.trim();
    let request = http::Request::post(format!("{}/v1/metrics", server.url()))
        .header("content-type", "application/json")
        .header("x-api-key", header)
        .body(bytes::Bytes::from_static(b"{}"));
    assert_eq!(server.send(request.expect("a request")).await.status, 200);
    assert_eq!(server.host("web-1").await.expect("its row is there")["cpu"], 0.452);
}
