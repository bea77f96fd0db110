//! Against servers after the contract, over loopback, and with files of every state.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::net::TcpListener;

use super::*;

const HEALTH: &str = r#"{"status":"ok","version":"1.2.3","uptime_seconds":3}"#;

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(weir_net::serve(listener, router, std::future::pending()));
    address
}

/// A server that answers an enrolment like this, and the bodies that it was sent.
async fn server(status: u16, answer: Value) -> (Endpoint, Arc<Mutex<Vec<Value>>>) {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let sink = seen.clone();
    let enroll = move |Json(body): Json<Value>| async move {
        sink.lock().unwrap().push(body);
        (StatusCode::from_u16(status).unwrap(), [(RETRY_AFTER, "9")], Json(answer)).into_response()
    };
    let router = Router::new()
        .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], HEALTH) }))
        .route("/api/v1/agents/enroll", post(enroll));
    (format!("http://{}", serve(router).await).parse().unwrap(), seen)
}

fn files(folder: &Path, endpoint: &Endpoint) -> JoinFiles {
    JoinFiles::examine(&folder.join("weir/weir.yaml"), endpoint.clone(), Some("web-1")).unwrap()
}

async fn enrol(endpoint: &Endpoint) -> Result<Enrolled, Fault> {
    let folder = tempfile::tempdir().unwrap();
    let enrolment = Enrolment::begin(endpoint.clone()).await.unwrap();
    enrolment.enrol(&Secret::new("AAAA-BBBB-CCCC-DDDD"), &files(folder.path(), endpoint)).await
}

#[tokio::test]
async fn a_token_becomes_a_key_and_the_server_learns_who_joins() {
    let (endpoint, seen) = server(200, json!({"status": "success", "agent_id": "web-1", "key": "weir_a_b"})).await;
    let enrolled = enrol(&endpoint).await.unwrap();
    assert_eq!((enrolled.agent_id.as_str(), enrolled.key.expose()), ("web-1", "weir_a_b"));
    let seen = seen.lock().unwrap();
    let [body] = seen.as_slice() else { panic!("one request, not {}", seen.len()) };
    assert_eq!((&body["token"], &body["hostname"]), (&json!("AAAA-BBBB-CCCC-DDDD"), &json!("web-1")));
    assert_eq!((&body["agent_id"], &body["version"]), (&json!("web-1"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(body["system"]["kernel"].is_string(), "{body}");
}

#[tokio::test]
async fn a_machine_that_joined_this_server_already_shows_its_key_and_no_other_server_sees_it() {
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = keys.clone();
    let enroll = move |headers: http::HeaderMap| async move {
        let key = headers.get(AUTHORIZATION).map_or("", |key| key.to_str().unwrap());
        sink.lock().unwrap().push(key.to_owned());
        Json(json!({"status": "success", "agent_id": "web-1", "key": "weir_a_b"}))
    };
    let router = Router::new()
        .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], HEALTH) }))
        .route("/api/v1/agents/enroll", post(enroll));
    let [first, other] = [serve(router.clone()).await, serve(router).await]
        .map(|address| format!("http://{address}").parse::<Endpoint>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    for endpoint in [&first, &first, &other] {
        let files = files(folder.path(), endpoint);
        let enrolment = Enrolment::begin(endpoint.clone()).await.unwrap();
        let enrolled = enrolment.enrol(&Secret::new("AAAA-BBBB-CCCC-DDDD"), &files).await.unwrap();
        files.write(&enrolled).unwrap();
    }
    assert_eq!(*keys.lock().unwrap(), ["", "Bearer weir_a_b", ""]);
}

#[tokio::test]
async fn every_way_a_token_can_be_wrong_has_words_of_its_own() {
    let mut told = Vec::new();
    for (status, code, words) in [
        (401, "token_unknown", "does not know this token"),
        (410, "token_used_up", "as often as it may be"),
        (410, "token_expired", "has expired"),
        (410, "token_revoked", "has been revoked"),
        (429, "too_many_requests", "again in 9 s"),
        (404, "not_found", "older version"),
        (409, "conflict", "the server's own words"),
        (500, "internal", "the server's own words"),
    ] {
        let answer = json!({"status": "error", "code": code, "message": "the server's own words"});
        let (endpoint, _) = server(status, answer).await;
        let message = enrol(&endpoint).await.err().unwrap().message;
        assert!(message.contains(words) && !message.contains("AAAA"), "{code}: {message}");
        told.push(message);
    }
    told.truncate(6);
    told.sort();
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:#?}");
}

#[tokio::test]
async fn what_does_not_answer_as_weir_is_named_before_a_token_is_spent() {
    let begin = async |address: String| Enrolment::begin(address.parse().unwrap()).await.err().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let fault = begin(format!("http://{nobody}")).await;
    assert!(fault.kind == FaultKind::Unreachable && fault.message.contains("refuses the connection"), "{fault}");
    let fault = begin("http://no-such-host.invalid:8088".to_owned()).await;
    assert!(fault.kind == FaultKind::Unreachable && fault.message.contains("cannot be resolved"), "{fault}");
    let page = serve(Router::new().fallback(|| async { axum::response::Html("<html>welcome</html>") })).await;
    let fault = begin(format!("http://{page}")).await;
    assert!(fault.kind == FaultKind::NotFound && fault.message.contains("not as a Weir server"), "{fault}");
}

#[tokio::test]
async fn the_clocks_are_compared() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(ahead_seconds("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(0));
    assert_eq!(ahead_seconds("Sun, 06 Nov 1994 08:46:17 GMT", now), Some(200));
    assert_eq!(ahead_seconds("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(-60));
    assert_eq!(ahead_seconds("soon", now), None);
    let (endpoint, _) = server(200, json!({})).await;
    let ahead = Enrolment::begin(endpoint).await.unwrap().clock_ahead_seconds.expect("a server says its time");
    assert!(ahead.abs() <= 5, "{ahead}");
}

fn enrolled(id: &str) -> Enrolled {
    Enrolled { agent_id: id.to_owned(), key: Secret::new("weir_a_b") }
}

fn endpoint() -> Endpoint {
    "http://10.0.0.5:8088".parse().unwrap()
}

#[test]
fn a_new_machine_gets_a_key_for_its_owner_alone_and_a_configuration_that_loads() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &endpoint());
    assert_eq!(files.write(&enrolled("web-1")).unwrap(), Written::Complete);
    assert_eq!(std::fs::read_to_string(&files.key_file).unwrap(), "weir_a_b\n");
    assert_eq!(std::fs::metadata(&files.key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = crate::load(crate::Source::File(files.config.clone()), crate::Program::Agent, None);
    let loaded = loaded.map_err(|error| error.to_string()).unwrap();
    assert_eq!(loaded.host_name, "web-1");
    let names: Vec<&str> = loaded.settings.integrations.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["process", "weir"]);
    let mut found: Vec<_> =
        std::fs::read_dir(folder.path().join("weir")).unwrap().map(|e| e.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, ["weir.key", "weir.yaml"], "nothing else is left");
}

#[test]
fn an_id_of_the_servers_choice_is_kept_and_goes_when_it_is_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path(), &endpoint());
    files.write(&enrolled("agent-7")).unwrap();
    let id_file = agent_id_file(&files.key_file);
    assert_eq!(std::fs::read_to_string(&id_file).unwrap(), "agent-7\n");
    let again = JoinFiles::examine(&files.config, endpoint(), None).unwrap();
    assert_eq!(again.write(&enrolled("web-1")).unwrap(), Written::Complete);
    assert!(std::fs::metadata(&id_file).is_err());
}

fn existing(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("weir.yaml");
    std::fs::write(&config, text).unwrap();
    (folder, config)
}

#[test]
fn an_existing_configuration_of_this_server_gets_a_new_key_and_nothing_else() {
    let (folder, config) = existing("");
    let key_file = folder.path().join("elsewhere.key");
    let text = format!(
        "agent: {{name: db-1}} # mine\nintegrations:\n  weir: {{endpoint: \"http://10.0.0.5:8088/\", api_key_file: \"{}\"}}\n",
        key_file.display()
    );
    std::fs::write(&config, &text).unwrap();
    std::fs::write(&key_file, "old").unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let files = JoinFiles::examine(&config, endpoint(), None).unwrap();
    assert_eq!((files.name.as_str(), &files.key_file), ("db-1", &key_file));
    assert_eq!(files.write(&enrolled("db-1")).unwrap(), Written::Complete);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text, "the configuration is kept");
    assert_eq!(std::fs::read_to_string(&key_file).unwrap(), "weir_a_b\n");
    assert_eq!(std::fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn lines_that_an_existing_configuration_lacks_are_told_and_make_it_right() {
    for (text, indent) in [
        ("integrations:\n  host: {}\n", ""),
        ("integrations:\n  weir:\n    endpoint: http://other:8088\n", ""),
        ("integrations:\n  weir:\n    endpoint: http://10.0.0.5:8088\n", "inside"),
    ] {
        let (_folder, config) = existing(text);
        let files = JoinFiles::examine(&config, endpoint(), None).unwrap();
        let Written::Lines(lines) = files.write(&enrolled("x")).unwrap() else { panic!("{text}: lines are missing") };
        assert_eq!(std::fs::read_to_string(&config).unwrap(), text, "the configuration is kept");
        assert!(std::fs::metadata(&files.key_file).is_ok(), "the key is stored");
        let (place, lines) = lines.split_once(":\n").unwrap();
        assert_eq!(place.contains("integrations.weir"), !indent.is_empty(), "{place}");
        std::fs::write(&config, format!("{text}{lines}\n")).unwrap();
        let again = JoinFiles::examine(&config, endpoint(), None).unwrap();
        assert_eq!(again.missing, Missing::Nothing, "{text}{lines}");
        assert_eq!(again.key_file, files.key_file);
        crate::load(crate::Source::File(config), crate::Program::Agent, None)
            .map_err(|error| error.to_string())
            .unwrap();
    }
}

#[test]
fn another_servers_key_is_not_overwritten() {
    let (folder, config) = existing("");
    let key_file = folder.path().join("weir.key");
    std::fs::write(&key_file, "of-the-other").unwrap();
    let text = format!(
        "integrations: {{weir: {{endpoint: \"http://other:8088\", api_key_file: \"{}\"}}}}",
        key_file.display()
    );
    std::fs::write(&config, text).unwrap();
    let files = JoinFiles::examine(&config, endpoint(), None).unwrap();
    files.write(&enrolled("x")).unwrap();
    assert_eq!(std::fs::read_to_string(&key_file).unwrap(), "of-the-other");
    assert_eq!(files.key_file, folder.path().join("weir-10.0.0.5-8088.key"));
}

#[test]
fn the_agent_monitors_file_is_kept_and_told_its_line() {
    let text = r#"{"agent_id": "web-9", "monitor_server": "http://10.0.0.5:8088"}"#;
    let (_folder, config) = existing(text);
    let files = JoinFiles::examine(&config, endpoint(), None).unwrap();
    assert_eq!(files.name, "web-9");
    let Written::Lines(line) = files.write(&enrolled("web-9")).unwrap() else { panic!("a line is missing") };
    std::fs::write(&config, text.replace('}', &format!(",\n{line}}}"))).unwrap();
    crate::load(crate::Source::File(config), crate::Program::Agent, None).map_err(|error| error.to_string()).unwrap();
}

#[test]
fn what_would_contradict_an_existing_configuration_is_refused_before_a_token_is_spent() {
    for (text, name, words) in [
        ("agent: {name: db-1}", Some("web-1"), "agent.name: db-1"),
        ("integrations: {host: {}}", Some("another-name"), "agent: {name: another-name}"),
        ("integratoins: {}", None, "integrations"),
        ("", Some("a/b"), "--name"),
    ] {
        let (_folder, config) = existing(text);
        let fault = JoinFiles::examine(&config, endpoint(), name).unwrap_err();
        assert!(fault.message.contains(words), "{text}: {fault}");
    }
}
