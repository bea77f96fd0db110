//! The OpenAPI document against the server that it describes, tried by a program that others wrote.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::harness::peers::{Peer, peer};
use crate::harness::process::{Process, Stream};
use crate::harness::seconds;
use crate::harness::server::{ADMIN_KEY, Options, Server};

/// Cases for each operation. More find more; these fit the time that a test may take.
const EXAMPLES: &str = "20";

/// The same cases in every run, so that a failure is there again in the next one.
const SEED: &str = "20260101";

/// What must hold for every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// Operations that refuse whatever the document does not allow. Ingestion does not: it takes numbers
/// as text and keeps fields that it does not know, because its clients were there before it.
const STRICT: [&str; 2] = ["/api/v1/keys", "/api/v1/tokens"];

/// Where the cases meet something: without it nearly every path with an id leads to 404.
const KNOWN: &str = r#"
[[operations]]
include-path = ["/api/v1/agents/{id}", "/api/v1/agents/{id}/metrics", "/api/v1/agents/{id}/heartbeat"]
parameters = { "path.id" = "agent-1" }
[[operations]]
include-path = ["/api/v1/hosts/{name}", "/api/v1/hosts/{name}/processes", "/api/v1/hosts/{name}/probes"]
parameters = { "path.name" = "web-1" }
[[operations]]
include-path = "/api/servers/{id}"
parameters = { "path.id" = "server-1" }
[[operations]]
include-path = "/api/metrics"
include-method = "GET"
parameters = { "query.serverId" = "server-1" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_answer_that_the_document_does_not_describe() {
    let Some(program) = peer(Peer::Schemathesis) else { return };
    let server = Server::start(Options::default()).await;
    let tried = tempfile::tempdir().expect("a temporary folder");
    run(&program, &server, tried.path(), CHECKS, &[]).await;
    let strict: Vec<&str> = STRICT.iter().flat_map(|path| ["--include-path", path]).collect();
    run(&program, &server, tried.path(), &format!("{CHECKS},negative_data_rejection"), &strict).await;
    know_something(&server).await;
    std::fs::write(tried.path().join("schemathesis.toml"), KNOWN).expect("writable");
    run(
        &program,
        &server,
        tried.path(),
        CHECKS,
        &["--include-path-regex", "id}|name}|/api/metrics", "--exclude-method", "DELETE"],
    )
    .await;
    let log = server.stderr();
    assert!(!log.contains("panicked"), "{log}");
}

/// A server, its agent and metrics of everything that a history can show.
async fn know_something(server: &Server) {
    server.post("/api/servers", &json!({"id": "server-1", "hostname": "web-1", "tags": ["a"]})).await;
    server
        .post(
            "/api/v1/agents/register",
            &json!({"agent_id": "agent-1", "hostname": "web-1", "system": {"os": "linux"}}),
        )
        .await;
    let metrics = json!({"cpu_usage": 12.5, "network_io": {"sent": 1}, "custom_metrics": {"a": {"b": true}, "c": "d"}});
    server.post("/api/v1/agents/agent-1/metrics", &metrics).await;
    let metrics =
        json!({"serverId": "server-1", "memoryUsage": 50, "memoryTotal": 1024, "networkLatency": 2.5, "queue": [1, 2]});
    server.post("/api/metrics", &metrics).await;
}

async fn run(program: &Path, server: &Server, folder: &Path, checks: &str, more: &[&str]) {
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", server.url()))
        .args(["--header", &format!("Authorization: Bearer {ADMIN_KEY}")])
        .args(["--checks", checks, "--max-examples", EXAMPLES, "--seed", SEED])
        // One worker: CPython 3.11 may fail in `ast.parse` on two threads ("AST constructor recursion depth mismatch").
        .args(["--workers", "1"])
        .args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"])
        .args(["--generation-database", "none", "--continue-on-failure", "--no-color", "--no-shrink"])
        .args(more)
        .current_dir(folder)
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1");
    let begun = Instant::now();
    let mut process = Process::start("schemathesis", &mut command);
    let (status, _) = process.end(seconds(240)).await;
    let text = process.text(Stream::Out);
    println!("seed {SEED}, {:?}\n{text}", begun.elapsed());
    assert!(status.success(), "schemathesis: {status}\n{}", process.stderr());
}
