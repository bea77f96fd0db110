use http::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use weir_metadata::{NewToken, Scopes};

use super::*;
use crate::testing::{Got, TestServer, request};

async fn token(server: &TestServer, uses: i64) -> String {
    let new = NewToken { name: String::new(), uses, expires_ms: now_ms() + 60_000 };
    server.app.metadata.create_token(new, now_ms()).await.expect("token").1.expose().to_owned()
}

async fn get(server: &TestServer, path: &str) -> Got {
    server.send(request(Method::GET, path), Body::empty()).await
}

async fn enroll(server: &TestServer, body: &Value) -> Got {
    server.send(request(Method::POST, "/api/v1/agents/enroll"), body.to_string()).await
}

#[tokio::test]
async fn the_script_names_the_program_that_the_same_token_downloads() {
    let server = TestServer::start().await;
    let token = token(&server, 1).await;
    let script = get(&server, &format!("/join/{token}")).await;
    assert_eq!(script.status, 200);
    assert!(script.header("content-type").starts_with("text/x-shellscript"));
    let program = get(&server, &format!("/join/{token}/weir")).await;
    assert_eq!(program.header("content-length"), program.body.len().to_string());
    let hash: String = Sha256::digest(&program.body).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = script.text();
    for line in [format!("sha256='{hash}'"), format!("token='{token}'"), "url='http://10.0.0.5:8088'".to_owned()] {
        assert!(text.lines().any(|written| written == line), "{line}\n{text}");
    }
    assert!(text.starts_with("#!/bin/sh\n"));
    // Looking takes no use.
    assert_eq!(enroll(&server, &json!({"token": token, "hostname": "a"})).await.status, 200);
}

#[tokio::test]
async fn the_script_uses_the_address_that_worked_and_no_other_text() {
    let public = "https://weir.example.org";
    for (headers, expected) in [
        (&[("host", "weir.example.org")][..], "https://weir.example.org"),
        (&[("host", "10.1.1.1:8088")], "http://10.1.1.1:8088"),
        (&[("host", "[fd00::1]:8088")], "http://[fd00::1]:8088"),
        (&[("host", "other.example"), ("x-forwarded-proto", "https")], "https://other.example"),
        (&[("host", "a';reboot;'")], public),
        (&[("host", "$(reboot)")], public),
        (&[("host", "")], public),
        (&[], public),
    ] {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, _) = request.body(Body::empty()).expect("request").into_parts();
        assert_eq!(reached_at(&parts, public), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_used_gets_a_script_that_says_why_and_no_program() {
    let server = TestServer::start().await;
    let metadata = &server.app.metadata;
    let used_up = token(&server, 1).await;
    assert_eq!(enroll(&server, &json!({"token": used_up, "hostname": "a"})).await.status, 200);
    let make = async |expires_ms| {
        let new = NewToken { name: String::new(), uses: 1, expires_ms };
        metadata.create_token(new, now_ms()).await.expect("token")
    };
    let (_, expired) = make(now_ms() - 1).await;
    let (record, revoked) = make(now_ms() + 60_000).await;
    metadata.revoke_token(&record.id, now_ms()).await.expect("revoked");
    for (token, status, code, word) in [
        ("0000-0000-0000-0000", 401, "token_unknown", "unknown"),
        ("nonsense", 401, "token_unknown", "unknown"),
        (used_up.as_str(), 410, "token_used_up", "used up"),
        (expired.expose(), 410, "token_expired", "expired"),
        (revoked.expose(), 410, "token_revoked", "revoked"),
    ] {
        let script = get(&server, &format!("/join/{token}")).await;
        assert_eq!(script.status, 200);
        assert!(script.text().contains(word) && script.text().ends_with("exit 1\n"), "{}", script.text());
        let program = get(&server, &format!("/join/{token}/weir")).await;
        assert_eq!((program.status.as_u16(), program.code().as_str()), (status, code));
    }
    let unreadable = get(&server, "/join/%ff").await;
    assert_eq!(unreadable.status, 200);
    assert!(unreadable.text().contains("not readable"), "{}", unreadable.text());
    // Ten wrong ones came by now; the next is told to wait, in the words of a script too.
    let script = get(&server, "/join/nonsense").await;
    assert!(script.text().contains("too many wrong"), "{}", script.text());
    let limited = enroll(&server, &json!({"token": "nonsense", "hostname": "a"})).await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "too_many_requests"));
    let good = token(&server, 1).await;
    assert_eq!(enroll(&server, &json!({"token": good, "hostname": "b"})).await.status, 200);
}

#[tokio::test]
async fn an_agent_that_joins_gets_a_key_for_itself_and_the_token_is_kept_nowhere() {
    let server = TestServer::start().await;
    let token = token(&server, 2).await;
    let body = json!({"token": token, "hostname": "web-7", "agent_type": "weir", "rack": 4});
    let joined = enroll(&server, &body).await;
    assert_eq!(joined.status, 200, "{}", joined.text());
    let joined = joined.json();
    let id = joined["agent_id"].as_str().expect("id");
    assert_eq!((&joined["status"], &joined["heartbeat_interval_seconds"]), (&json!("success"), &json!(30)));

    let agent = server.app.metadata.agent(id).await.expect("read").expect("agent");
    assert_eq!((agent.hostname.as_str(), &agent.attributes), ("web-7", &json!({"rack": 4})));
    assert!(server.app.metadata.server_by_hostname("web-7").await.expect("read").is_some(), "its host is known");

    let key = server.app.metadata.verify_key(joined["key"].as_str().expect("key"), now_ms()).await.expect("read");
    let key = key.expect("valid");
    assert_eq!((key.scopes, key.agent_id.as_deref()), (Scopes::INGEST, Some(id)));

    // Another host cannot join as this agent, and does not use up the token by trying.
    let taken = enroll(&server, &json!({"token": token, "hostname": "web-8", "agent_id": id})).await;
    assert_eq!((taken.status.as_u16(), taken.code().as_str()), (409, "conflict"));
    let again = enroll(&server, &json!({"token": token, "hostname": "web-7", "agent_id": id})).await;
    assert_eq!(again.json()["agent_id"], id, "{}", again.text());
    assert_eq!(enroll(&server, &json!({"token": token, "hostname": "web-9"})).await.code(), "token_used_up");
}

#[tokio::test]
async fn nobody_takes_the_place_of_an_agent_that_runs_but_the_agent_itself() {
    let server = TestServer::start().await;
    let token = token(&server, 10).await;
    let metadata = &server.app.metadata;
    let join = async |body: Value, key: &str| {
        let mut request = request(Method::POST, "/api/v1/agents/enroll");
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        server.send(request, body.to_string()).await
    };
    let named = json!({"token": token, "hostname": "db-1", "agent_id": "db-1"});
    let key = join(named.clone(), "").await.json()["key"].as_str().expect("key").to_owned();
    metadata.heartbeat("db-1", now_ms(), &json!({})).await.expect("alive");

    let unnamed = json!({"token": token, "hostname": "db-1"});
    let another = json!({"token": token, "hostname": "db-1", "agent_id": "other"});
    let foreign = server.key(Scopes::INGEST).await;
    for body in [&named, &unnamed, &another] {
        for key in ["", "weir_wrong", foreign.as_str()] {
            let refused = join(body.clone(), key).await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "conflict"), "{}", refused.text());
            assert!(refused.text().contains("--name"), "{}", refused.text());
        }
    }
    assert_eq!(metadata.tokens().await.expect("tokens")[0].used, 1, "no use is lost");
    assert_eq!(join(named.clone(), &key).await.json()["agent_id"], "db-1");
    assert_eq!(join(named.clone(), &server.key(Scopes::ADMIN).await).await.status, 200);
    metadata.heartbeat("db-1", now_ms() - ALIVE_MS, &json!({})).await.expect("silent");
    assert_eq!(join(unnamed, "").await.json()["agent_id"], "db-1", "installed anew");
}

#[tokio::test]
async fn a_wrong_body_takes_no_use_of_the_token() {
    let server = TestServer::start().await;
    let token = token(&server, 1).await;
    for body in [json!({"token": token}), json!({"hostname": "a"}), json!({"token": 5, "hostname": "a"}), json!([])] {
        let got = enroll(&server, &body).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (400, "invalid_field"), "{body}");
        assert!(!got.text().contains(&token));
    }
    assert_eq!(enroll(&server, &json!({"token": token, "hostname": "a"})).await.status, 200);
}

/// The program is this test itself, which is no Weir: the script gets as far as trying it.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_real_connection_the_script_downloads_and_verifies_this_very_program() {
    if !["curl", "sha256sum"].iter().all(|tool| std::path::Path::new("/usr/bin").join(tool).is_file()) {
        eprintln!("SKIPPED: curl or sha256sum is not installed");
        return;
    }
    let server = TestServer::start().await;
    let token = token(&server, 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(weir_net::serve(listener, server.router.clone(), std::future::pending()));
    let folder = tempfile::tempdir().expect("folder");
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(format!("curl -fsSL '{url}/join/{token}' | sh"));
    command.env("WEIR_INSTALL_FOLDER", folder.path());
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.expect("run").expect("output");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("downloading Weir {} from {url}", env!("CARGO_PKG_VERSION"))), "{said}");
    assert!(said.contains("does not run on this machine") && said.contains("'version'"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0, "nothing is left");
}
