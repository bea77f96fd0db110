use axum::body::Body;
use http::Method;
use weir_metadata::NewKey;

use super::*;
use crate::testing::{ELSEWHERE, Got, HERE, TestServer, request};

const READ: &str = "/api/v1/session";
const ADMIN: &str = "/api/v1/keys";
const INGEST: &str = "/api/v1/agents/register";

fn bearer_of(key: &str) -> String {
    format!("Bearer {key}")
}

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Got {
    send(server, ELSEWHERE, Method::GET, path, headers).await
}

async fn send(server: &TestServer, peer: &str, method: Method, path: &str, headers: &[(&str, &str)]) -> Got {
    let mut builder = http::Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        builder = builder.header("host", "10.0.0.5:8088");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    server.send_from(peer, builder, Body::empty()).await
}

#[tokio::test]
async fn a_key_is_taken_in_each_of_its_forms_and_only_whole() {
    let server = TestServer::start().await;
    let key = server.key(Scopes::READ).await;
    let (id, secret) = key.trim_start_matches("weir_").split_once('_').expect("form");
    for headers in [
        &[("authorization", bearer_of(&key).as_str())][..],
        &[("authorization", format!("bearer  {key} ").as_str())],
        &[("x-api-key", key.as_str())],
        &[("x-api-key-id", id), ("x-api-key-secret", secret)],
        // A proxy's own password in front does not hide the key.
        &[("authorization", "Basic dTpw"), ("x-api-key", key.as_str())],
    ] {
        assert_eq!(get(&server, READ, headers).await.status, 200);
    }
    let half = &key[..key.len() - 1];
    for headers in [
        &[][..],
        &[("authorization", bearer_of(half).as_str())],
        &[("authorization", key.as_str())],
        &[("authorization", "Bearer ")],
        &[("x-api-key", half)],
        &[("x-api-key-id", id)],
        &[("x-api-key-id", id), ("x-api-key-secret", &secret[1..])],
        &[("cookie", "weir_session=")],
        &[("cookie", format!("weir_session={secret}").as_str())],
    ] {
        let got = get(&server, READ, headers).await;
        assert_eq!((got.status.as_u16(), got.code().as_str()), (401, "unauthorized"), "{headers:?}");
        assert_eq!(got.header("www-authenticate"), "Bearer");
        assert!(!got.text().contains(secret) && !got.text().contains(half), "an answer shows what it was shown");
    }
}

#[tokio::test]
async fn a_known_key_without_the_right_is_403_and_admin_has_every_right() {
    let server = TestServer::start().await;
    let keys = [server.key(Scopes::INGEST).await, server.key(Scopes::READ).await, server.key(Scopes::ADMIN).await];
    for (path, allowed) in [(READ, [false, true, true]), (ADMIN, [false, false, true])] {
        for (key, allowed) in keys.iter().zip(allowed) {
            let got = server.get(path, key).await;
            assert_eq!(got.status, if allowed { 200 } else { 403 }, "{path}: {}", got.text());
        }
    }
    let body = serde_json::json!({});
    for (key, allowed) in keys.iter().zip([true, false, true]) {
        let got = server.json(Method::POST, INGEST, key, &body).await;
        // 400: let in, and the body is looked at.
        assert_eq!(got.status, if allowed { 400 } else { 403 }, "{}", got.text());
    }
}

#[tokio::test]
async fn a_revoked_and_an_expired_key_are_unknown() {
    let server = TestServer::start().await;
    let metadata = &server.app.metadata;
    let new = NewKey { name: "old".to_owned(), scopes: Scopes::READ, agent_id: None, expires_ms: Some(now_ms() - 1) };
    let (_, expired) = metadata.create_key(new.clone(), now_ms()).await.expect("key");
    let (record, revoked) = metadata.create_key(NewKey { expires_ms: None, ..new }, now_ms()).await.expect("key");
    assert_eq!(server.get(READ, revoked.expose()).await.status, 200);
    metadata.revoke_key(&record.id, now_ms()).await.expect("revoked");
    for key in [expired, revoked] {
        assert_eq!(server.get(READ, key.expose()).await.status, 401);
    }
}

#[tokio::test]
async fn a_session_changes_things_only_from_its_own_page() {
    let server = TestServer::start().await;
    let cookie = server.session().await;
    let with = |more: &[(&'static str, &'static str)]| {
        let mut headers = vec![("cookie", cookie.clone())];
        headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        headers
    };
    let ask = async |method: Method, more: &[(&'static str, &'static str)]| {
        let headers = with(more);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send(&server, ELSEWHERE, method, "/api/v1/tokens", &headers).await.status.as_u16()
    };
    assert_eq!(ask(Method::GET, &[]).await, 200);
    assert_eq!(ask(Method::GET, &[("sec-fetch-site", "cross-site")]).await, 200, "reading gives nothing to that site");
    for own in [("sec-fetch-site", "same-origin"), ("origin", "http://10.0.0.5:8088")] {
        assert_eq!(ask(Method::POST, &[own]).await, 201, "{own:?}");
    }
    for foreign in [
        &[][..],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://10.0.0.5:8088")],
    ] {
        assert_eq!(ask(Method::POST, foreign).await, 403, "{foreign:?}");
    }
    // A WebSocket begins as a GET and is not one.
    let socket = ("upgrade", "websocket");
    assert_eq!(ask(Method::GET, &[socket, ("origin", "http://evil.example")]).await, 403);
    assert_eq!(ask(Method::GET, &[socket, ("origin", "http://10.0.0.5:8088")]).await, 200);
}

#[tokio::test]
async fn a_program_on_this_machine_sends_without_a_key_and_does_nothing_else() {
    let server = TestServer::with(|options| options.keyless_loopback = true).await;
    let local = ("host", "127.0.0.1:8088");
    let status = async |peer: &str, method: Method, path: &str, headers: &[(&str, &str)]| {
        send(&server, peer, method, path, headers).await.status.as_u16()
    };
    assert_eq!(status(HERE, Method::POST, INGEST, &[local]).await, 400, "let in, the body is empty");
    assert_eq!(status("[::1]:1", Method::POST, INGEST, &[("host", "localhost:8088")]).await, 400);
    assert_eq!(status("[::ffff:127.0.0.1]:1", Method::POST, INGEST, &[local]).await, 400);
    for (path, method) in [(READ, Method::GET), (ADMIN, Method::GET), (ADMIN, Method::POST), ("/metrics", Method::GET)]
    {
        assert_eq!(status(HERE, method, path, &[local]).await, 401, "{path}");
    }
    assert_eq!(status(ELSEWHERE, Method::POST, INGEST, &[local]).await, 401);
    for other in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
    ] {
        let headers = if other.0 == "host" { vec![other] } else { vec![local, other] };
        assert_eq!(status(HERE, Method::POST, INGEST, &headers).await, 401, "{other:?}");
    }
    let not_configured = [local, ("x-api-key", ""), ("authorization", "Bearer "), ("cookie", "weir_session=")];
    assert_eq!(status(HERE, Method::POST, INGEST, &not_configured).await, 400);
    // A wrong key is told, and not overlooked because none is needed.
    assert_eq!(status(HERE, Method::POST, INGEST, &[local, ("x-api-key", "wrong")]).await, 401);

    let closed = TestServer::start().await;
    assert_eq!(send(&closed, HERE, Method::POST, INGEST, &[local]).await.status, 401);
}

#[tokio::test]
async fn ten_wrong_keys_a_minute_are_told_401_then_429_and_a_right_key_still_works() {
    let server = TestServer::start().await;
    let key = server.key(Scopes::READ).await;
    for _ in 0..10 {
        assert_eq!(server.get(READ, "wrong").await.status, 401);
    }
    let limited = server.get(READ, "wrong").await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "too_many_requests"));
    let wait: u64 = limited.header("retry-after").parse().expect("seconds");
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(server.get(READ, &key).await.status, 200, "nobody is locked out");
    let elsewhere = request(Method::GET, READ).header("x-api-key", "wrong");
    assert_eq!(server.send_from("198.51.100.1:1", elsewhere, Body::empty()).await.status, 401);
    // Nothing was shown: that is no attempt.
    assert_eq!(get(&server, READ, &[]).await.status, 401);
}
