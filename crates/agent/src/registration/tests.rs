//! Against servers after the contract, over loopback.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::Request as Incoming;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::load::{Program, Source, load};

/// Path, key and body of a request.
type Seen = (String, Option<String>, Value);

/// A server that answers its requests one after the other, the last answer for ever.
async fn server(answers: Vec<Response>) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (seen, requests) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let handler = move |request: Incoming| {
        let (seen, answers) = (seen.clone(), answers.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let key = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let _ = seen.send((parts.uri.path().to_owned(), key, serde_json::from_slice(&body).unwrap()));
            let mut answers = answers.lock().unwrap();
            answers.pop_front().unwrap_or_else(alive)
        }
    };
    tokio::spawn(weir_net::serve(listener, Router::new().fallback(handler), std::future::pending()));
    (address, requests)
}

fn json_answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn registered(id: &str) -> Response {
    json_answer(200, &json!({"status": "success", "agent_id": id}))
}

fn alive() -> Response {
    json_answer(200, &json!({"status": "success", "server_time_ms": 1_700_000_000_000_u64}))
}

fn error(status: u16, code: &str) -> Response {
    json_answer(status, &json!({"status": "error", "code": code, "message": format!("it is {code}")}))
}

/// Begins to report with a configuration, in a hurry.
fn report(folder: &Path, config: &str) -> Heartbeats {
    let file = folder.join("weir.yaml");
    std::fs::write(&file, config).unwrap();
    let mut loaded = load(Source::File(file), Program::Agent, None).map_err(|error| error.to_string()).unwrap();
    let mut registration = Registration::of(&loaded).unwrap();
    for server in &mut registration.servers {
        let moment = Duration::from_millis(20);
        server.pace = Pace { interval: moment, first_retry: moment, longest_retry: moment, refused: moment };
    }
    let watching = loaded.plan.watching();
    registration.start(watching, loaded.plan.telemetry())
}

fn config(address: SocketAddr, more: &str) -> String {
    format!(
        "agent: {{name: web/1, interval: 7s, tags: {{team: core}}}}\nintegrations:\n  weir:\n    endpoint: http://{address}\n    {more}\n"
    )
}

async fn next(requests: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(Duration::from_secs(10), requests.recv()).await.expect("a request came").unwrap()
}

#[tokio::test]
async fn an_agent_registers_and_then_says_what_it_watches() {
    let folder = tempfile::tempdir().unwrap();
    let (address, mut requests) = server(vec![registered("web/1")]).await;
    let heartbeats = report(folder.path(), &config(address, "api_key: weir_a_b"));
    assert_eq!(heartbeats.servers(), 1);

    let (path, key, body) = next(&mut requests).await;
    assert_eq!((path.as_str(), key.as_deref()), ("/api/v1/agents/register", Some("Bearer weir_a_b")));
    assert_eq!((&body["agent_id"], &body["hostname"]), (&json!("web/1"), &json!("web/1")));
    assert_eq!((&body["agent_type"], &body["tags"]), (&json!("weir"), &json!(["team=core"])));

    let (path, key, body) = next(&mut requests).await;
    // The id is one part of the path, whatever is in it.
    assert_eq!((path.as_str(), key.as_deref()), ("/api/v1/agents/web%2F1/heartbeat", Some("Bearer weir_a_b")));
    assert_eq!(body["interval_seconds"], json!(7.0));
    assert!(body["system"]["cpu_count"].as_u64().is_some_and(|count| count > 0), "{body}");
    let host = body["integrations"].as_array().unwrap().iter().find(|one| one["name"] == "host").expect("host");
    assert!(host["watched"].as_array().is_some_and(|watched| !watched.is_empty()), "{host}");

    drop(heartbeats);
    // What was under way may still arrive, then there must be silence: a report was due every 20 ms.
    let mut late = 0;
    while tokio::time::timeout(Duration::from_millis(300), requests.recv()).await.is_ok() {
        late += 1;
        assert!(late < 10, "reports go on after they were dropped");
    }
}

#[tokio::test]
async fn an_agent_that_the_server_has_forgotten_registers_again() {
    let folder = tempfile::tempdir().unwrap();
    let answers = vec![registered("a"), alive(), error(404, "not_found"), registered("b")];
    let (address, mut requests) = server(answers).await;
    let _heartbeats = report(folder.path(), &config(address, ""));
    let mut paths = Vec::new();
    for _ in 0..5 {
        paths.push(next(&mut requests).await.0);
    }
    let expected = ["register", "a/heartbeat", "a/heartbeat", "register", "b/heartbeat"];
    assert_eq!(paths, expected.map(|path| format!("/api/v1/agents/{path}")));
}

#[tokio::test]
async fn after_401_the_key_file_is_read_again_and_the_new_key_used() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("weir.key");
    std::fs::write(&key_file, "old\n").unwrap();
    let (address, mut requests) = server(vec![error(401, "unauthorized"), error(401, "unauthorized")]).await;
    let _heartbeats = report(folder.path(), &config(address, &format!("api_key_file: {}", key_file.display())));
    assert_eq!(next(&mut requests).await.1.as_deref(), Some("Bearer old"));
    std::fs::write(&key_file, "new\n").unwrap();
    loop {
        // The file may have been read again before it was replaced.
        if next(&mut requests).await.1.as_deref() == Some("Bearer new") {
            break;
        }
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_not_before_it_wants_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut busy = error(503, "unavailable");
    busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    let (address, mut requests) = server(vec![busy, registered("a")]).await;
    let _heartbeats = report(folder.path(), &config(address, ""));
    next(&mut requests).await;
    let begun = std::time::Instant::now();
    next(&mut requests).await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "only {:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_no_weir_server_is_asked_again_and_never_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let page = || (StatusCode::OK, "<html>welcome</html>").into_response();
    let (address, mut requests) = server(vec![page(), error(404, "not_found"), page()]).await;
    let _heartbeats = report(folder.path(), &config(address, ""));
    for _ in 0..4 {
        assert_eq!(next(&mut requests).await.0, "/api/v1/agents/register");
    }
}

#[test]
fn an_id_that_the_server_gave_stands_beside_the_key_and_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("weir.key");
    std::fs::write(&key_file, "k\n").unwrap();
    assert_eq!(given_agent_id(&key_file).unwrap(), None);
    std::fs::write(folder.path().join("weir.agent_id"), "agent-7\n").unwrap();
    let file = folder.path().join("weir.yaml");
    let text = format!("integrations: {{weir: {{api_key_file: \"{}\"}}}}", key_file.display());
    std::fs::write(&file, text).unwrap();
    let loaded = load(Source::File(file), Program::Agent, None).map_err(|error| error.to_string()).unwrap();
    let registration = Registration::of(&loaded).unwrap();
    assert_eq!(registration.servers[0].agent_id, "agent-7");
    assert_eq!(registration.servers[0].place, "http://localhost:8088");
}

#[test]
fn a_configuration_without_a_server_reports_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.yaml");
    std::fs::write(&file, "integrations: {console: {}, weir: {enabled: false}}").unwrap();
    let loaded = load(Source::File(file), Program::Agent, None).map_err(|error| error.to_string()).unwrap();
    assert!(Registration::of(&loaded).unwrap().servers.is_empty());
}
