//! Keys, tokens and links from the command line, on the data of a server that runs.

use std::process::Command;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value as Json, json};

use crate::harness::server::{ADMIN_KEY, Options, Server};
use crate::harness::weir::{command, said};
use crate::harness::{seconds, wait_for};

/// How long a running server may take until it acts on what the command line did.
const TAKES_EFFECT: Duration = seconds(5);

/// What a command writes to its standard output, without the last line's end; fails the test if it fails.
fn out(command: &mut Command) -> String {
    let output = command.output().expect("weir runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text").trim_end_matches('\n').to_owned()
}

/// Waits until a key is answered with a status; prints how long that took.
async fn comes_to(server: &Server, key: &str, status: u16) {
    let begun = Instant::now();
    wait_for(&format!("{status} for the key"), TAKES_EFFECT, async || {
        let answer = server.ask(Method::GET, "/api/v1/hosts", key, &Json::Null).await;
        (answer.status == status).then_some(())
    })
    .await;
    println!("{status} after {:?}", begun.elapsed());
}

/// The line of a list that begins with this word.
fn line_of<'a>(list: &'a str, word: &str) -> &'a str {
    list.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("no {word} in\n{list}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_command_line_works_and_stops_working_within_seconds() {
    let server = Server::start(Options::default()).await;
    let key = out(&mut server.command(&["keys", "create", "grafana", "--scope", "read"]));
    assert_eq!(key.lines().count(), 1, "the key alone: {key}");
    assert!(key.starts_with("weir_"), "{key}");
    comes_to(&server, &key, 200).await;

    let upload = server.ask(Method::POST, "/api/metrics", &key, &json!({"serverId": "a", "cpuUsage": 1})).await;
    assert_eq!(upload.status, StatusCode::FORBIDDEN, "{}", upload.excerpt());
    let more_keys = server.ask(Method::GET, "/api/v1/keys", &key, &Json::Null).await;
    assert_eq!(more_keys.status, StatusCode::FORBIDDEN, "{}", more_keys.excerpt());

    let id = key.split('_').nth(1).expect("weir_ID_SECRET").to_owned();
    let secret = key.split('_').nth(2).expect("weir_ID_SECRET");
    let list = out(&mut server.command(&["keys", "list"]));
    println!("{list}");
    let line = line_of(&list, &id);
    assert!(line.contains("read") && line.contains("grafana") && line.contains("good"), "{line}");
    assert!(!list.contains(secret), "the list shows a secret");
    let of_api = server.get("/api/v1/keys").await;
    assert!(of_api["keys"].as_array().expect("keys").iter().any(|key| key["id"] == id.as_str()), "{of_api}");

    out(&mut server.command(&["keys", "revoke", &id]));
    comes_to(&server, &key, 401).await;
    assert!(line_of(&out(&mut server.command(&["keys", "list"])), &id).contains("revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_has_the_scopes_and_the_time_that_were_asked_for() {
    let server = Server::start(Options::default()).await;
    let both = out(&mut server.command(&["keys", "create", "both", "--scope", "ingest", "--scope", "read"]));
    comes_to(&server, &both, 200).await;
    let heard = server.ask(Method::POST, "/api/v1/agents/register", &both, &json!({"agent_id": "a"})).await;
    assert_eq!(heard.status, 200, "{}", heard.excerpt());

    let short = out(&mut server.command(&["keys", "create", "short", "--scope", "read", "--expires", "3s"]));
    comes_to(&server, &short, 200).await;
    comes_to(&server, &short, 401).await;
    assert!(out(&mut server.command(&["keys", "list"])).contains("expired"));

    let ingest = out(&mut server.command(&["keys", "create", "by default"]));
    comes_to(&server, &ingest, 403).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_the_environment_may_do_everything_and_others_nothing() {
    let server = Server::start(Options::default()).await;
    let of_it = server.get("/api/v1/session").await;
    assert_eq!(of_it["name"], "WEIR_ADMIN_KEY", "{of_it}");
    let made = server.new_key(&["admin"]).await;
    comes_to(&server, &made, 200).await;
    let wrong = server.ask(Method::GET, "/api/v1/keys", &format!("{ADMIN_KEY}x"), &Json::Null).await;
    assert_eq!(
        (wrong.status, wrong.headers["www-authenticate"].to_str().ok()),
        (StatusCode::UNAUTHORIZED, Some("Bearer"))
    );
    let log = server.stderr();
    assert!(!log.contains(ADMIN_KEY), "the key is in the log");
}

#[test]
fn a_weak_or_empty_key_of_the_environment_is_refused_in_one_line() {
    for weak in ["", "secret"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = command();
        server.env("WEIR_ADMIN_KEY", weak).args(["server", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
        let output = server.output().expect("weir runs");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = said(&output);
        println!("{}", text.trim());
        assert!(text.lines().count() == 1 && text.contains("WEIR_ADMIN_KEY") && !text.contains("secret\""), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_the_command_line_are_commands_to_paste() {
    let server = Server::start(Options::default()).await;
    let line = out(&mut server.command(&["tokens", "create", "--uses", "2", "--expires", "1h", "--name", "rack 7"]));
    let token = line
        .strip_prefix(&format!("curl -fsSL {}/join/", server.url()))
        .and_then(|rest| rest.strip_suffix(" | sh"))
        .unwrap_or_else(|| panic!("not the command for this server: {line}"));
    let enroll = async |hostname: &str| {
        let body = json!({"token": token, "hostname": hostname});
        let answer = server.ask(Method::POST, "/api/v1/agents/enroll", "", &body).await;
        let body: Json = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(enroll("web-1").await, (200, String::new()));
    let list = out(&mut server.command(&["tokens", "list"]));
    println!("{list}");
    let row = list.lines().find(|row| row.ends_with("rack 7")).expect("the token is in the list");
    assert!(row.contains("1 of 2"), "{row}");
    assert!(!list.contains(token), "the list shows the token");

    let id = row.split_whitespace().next().expect("an id");
    out(&mut server.command(&["tokens", "revoke", id]));
    assert_eq!(enroll("web-2").await, (410, "token_revoked".to_owned()));
    assert!(out(&mut server.command(&["tokens", "list"])).contains("revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weir_login_prints_a_link_that_signs_in_once() {
    let server = Server::start(Options::default()).await;
    let link = out(&mut server.command(&["login"]));
    let token = link.strip_prefix(&format!("{}/#t=", server.url())).unwrap_or_else(|| panic!("{link}"));
    let sign_in = async || server.ask(Method::POST, "/api/v1/login", "", &json!({"token": token})).await;
    let first = sign_in().await;
    assert_eq!(first.status, 200, "{}", first.excerpt());
    let cookie = first.headers["set-cookie"].to_str().expect("text").to_owned();
    for part in ["weir_session=", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let ask = async |method: Method, path: &str| {
        let request = http::Request::builder().method(method).uri(format!("{}{path}", server.url()));
        let pair = cookie.split(';').next().expect("a pair");
        server.send(request.header("cookie", pair).body("{}".into()).expect("a request")).await.status.as_u16()
    };
    assert_eq!(ask(Method::GET, "/api/v1/hosts").await, 200);
    // Any site can make a browser send its cookies.
    assert_eq!(ask(Method::POST, "/api/v1/keys").await, 403);
    let again = sign_in().await;
    assert_eq!(again.status, 401, "{}", again.excerpt());
    assert!(again.excerpt().contains("weir login"), "{}", again.excerpt());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_one_line() {
    let server = Server::start(Options::default()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let nowhere = folder.path().join("nowhere");
    let nowhere = nowhere.to_str().expect("a plain name");
    let mut elsewhere = command();
    elsewhere.args(["keys", "list", "--data", nowhere]);
    for (mut command, words) in [
        (server.command(&["keys", "revoke", "nosuchkey"]), ["nosuchkey", "key"]),
        (server.command(&["tokens", "revoke", "nosuchtoken"]), ["nosuchtoken", "token"]),
        (server.command(&["keys", "create", "a", "--scope", "raed"]), ["raed", "read"]),
        (elsewhere, [nowhere, "--data"]),
    ] {
        let output = command.output().expect("weir runs");
        let text = said(&output);
        println!("{}", text.trim());
        assert!(!output.status.success(), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(std::fs::metadata(nowhere).is_err(), "asking made a folder");
}
