//! Real connections to the real router, over the real pipeline and store.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use weir_metadata::{NewServer, Scopes};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::DynReceive;
use weir_pipeline::{Fault, Intake, Mount, Stop};

use super::*;
use crate::hosts::feed;
use crate::state::now_ms;
use crate::testing::TestServer;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Long enough for a busy machine; nothing waits for it that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver that only hands out the way into the pipeline.
struct Hand(oneshot::Sender<Intake>);

impl DynReceive for Hand {
    fn mounts(&self, _intake: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            self.0.send(intake).ok();
            stop.wait().await;
            Ok(())
        })
    }
}

/// A server on a port of loopback, with store and table behind the pipeline.
struct Served {
    server: TestServer,
    app: App,
    address: SocketAddr,
    _pipeline: Pipeline,
}

impl Served {
    async fn start(pace: Pace) -> Served {
        let server = TestServer::start().await;
        let state = server.app.state.clone();
        let (hand, handed) = oneshot::channel();
        let members = vec![
            Member::exporter("store", ExportOptions::default(), state.store.exporter()),
            Member::receiver("api", Hand(hand)),
        ];
        let plan = Plan {
            members,
            routes: vec![Default::default()],
            memory_bytes: 64 << 20,
            control: state.control.clone(),
            ..Plan::default()
        };
        let pipeline = Pipeline::start(plan).await.unwrap();
        let app = App { state, intake: handed.await.unwrap() };
        let feeding = app.state.clone();
        tokio::spawn(async move { feed::run(&feeding).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = at_pace(pace).with_state(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Served { server, app, address, _pipeline: pipeline }
    }

    async fn connect(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
        let mut request = format!("ws://{}/ws{query}", self.address).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
    }

    async fn with_key(&self, query: &str, key: &str) -> Socket {
        self.connect(query, &[("x-api-key", key)]).await.unwrap()
    }

    /// The status with which a connection is refused.
    async fn refused(&self, query: &str, headers: &[(&'static str, &str)]) -> (u16, Value) {
        match self.connect(query, headers).await {
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                (response.status().as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
            }
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    async fn server_named(&self, name: &str) -> String {
        let new = NewServer { hostname: name.to_owned(), ..NewServer::default() };
        let server = self.app.metadata.create_server(new, now_ms()).await.unwrap();
        self.app.hosts.describe(&server, None);
        server.id
    }
}

fn quick() -> Pace {
    Pace { tell: Duration::from_millis(20), ..Pace::default() }
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(PATIENCE, socket.next()).await.expect("a message in time")
}

/// The next message of this type.
async fn next_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let Some(Ok(message)) = next(socket).await else { panic!("the connection ended before {kind}") };
        let Message::Text(text) = message else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["type"] == kind {
            return value;
        }
    }
}

/// How the connection is closed.
async fn close_of(socket: &mut Socket) -> Option<CloseFrame> {
    loop {
        match next(socket).await {
            Some(Ok(Message::Close(frame))) => return frame,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

async fn send(socket: &mut Socket, value: &Value) {
    socket.send(Message::text(value.to_string())).await.unwrap();
}

#[tokio::test]
async fn metrics_are_acknowledged_when_stored_and_reach_the_table_and_the_listeners() {
    let served = Served::start(quick()).await;
    let id = served.server_named("web-1").await;
    let (reader, writer) = (served.server.key(Scopes::READ).await, served.server.key(Scopes::INGEST).await);
    let mut table = served.with_key("?topics=hosts", &reader).await;
    let first = next_of(&mut table, "hosts").await;
    assert_eq!(
        (first["rows"][0]["name"].as_str(), first["rows"][0]["status"].as_str()),
        (Some("web-1"), Some("unknown"))
    );
    let mut live = served.with_key("", &reader).await;
    let mut agent = served.with_key("", &writer).await;
    let data = json!({"serverId": id, "cpuUsage": 45.2, "memoryTotal": 16384, "networkLatency": 2.3});
    send(&mut agent, &json!({"type": "metrics", "id": {"n": 7}, "data": data})).await;
    assert_eq!(next_of(&mut agent, "ack").await, json!({"type": "ack", "id": {"n": 7}, "stored": 3}));
    // Which program reports the host is known before its data is stored, and may be told by itself.
    let row = loop {
        let row = next_of(&mut table, "hosts").await["rows"][0].clone();
        if row["status"] != "unknown" {
            break row;
        }
    };
    assert_eq!((row["status"].as_str(), row["cpu"].as_f64()), (Some("up"), Some(0.452)));
    let told = next_of(&mut live, "metrics").await;
    assert_eq!((&told["serverId"], &told["hostname"]), (&json!(id), &json!("web-1")));
    assert_eq!(
        (&told["cpuUsage"], &told["memoryTotal"], &told["networkLatency"]),
        (&json!(45.2), &json!(16384), &json!(2.3))
    );
    assert!(told.get("diskUsage").is_none(), "what was not sent is absent");
    assert!(told["timestamp"].as_str().unwrap().ends_with('Z'));
    // A bare body is taken as well, and acknowledged without an id.
    send(&mut agent, &json!({"serverId": "web-1", "cpuUsage": 50})).await;
    assert_eq!(next_of(&mut agent, "ack").await, json!({"type": "ack", "stored": 1}));
}

#[tokio::test]
async fn the_table_is_told_once_and_then_only_what_changed_or_is_gone() {
    let served = Served::start(quick()).await;
    served.server_named("a").await;
    served.server_named("b").await;
    let key = served.server.key(Scopes::READ).await;
    let mut table = served.with_key("?topics=hosts,alerts", &key).await;
    let names = |message: Value| -> Vec<String> {
        message["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(next_of(&mut table, "hosts").await), ["a", "b"]);
    served.server_named("c").await;
    assert_eq!(names(next_of(&mut table, "hosts").await), ["c"]);
    served.app.hosts.forget("a");
    assert_eq!(next_of(&mut table, "removed").await["names"], json!(["a"]));
}

#[tokio::test]
async fn wrong_messages_are_answered_with_what_is_wrong_and_the_connection_stays() {
    let served = Served::start(quick()).await;
    served.server_named("web-1").await;
    let writer = served.server.key(Scopes::INGEST).await;
    let mut agent = served.with_key("", &writer).await;
    let wrong = json!({"type": "metrics", "id": 1, "data": {"serverId": "web-1", "cpuUsage": "high"}});
    send(&mut agent, &wrong).await;
    let error = next_of(&mut agent, "error").await;
    assert_eq!(
        (&error["id"], &error["code"], &error["field"]),
        (&json!(1), &json!("invalid_field"), &json!("cpuUsage"))
    );
    agent.send(Message::text("{")).await.unwrap();
    assert_eq!(next_of(&mut agent, "error").await["code"], "invalid_json");
    send(&mut agent, &json!({"type": "subscribe", "id": "x"})).await;
    let error = next_of(&mut agent, "error").await;
    assert_eq!((&error["id"], &error["field"]), (&json!("x"), &json!("type")));
    send(&mut agent, &json!({"type": "metrics"})).await;
    assert_eq!(next_of(&mut agent, "error").await["field"], "data");
    send(&mut agent, &json!({"serverId": "nobody", "cpuUsage": 1})).await;
    assert_eq!(next_of(&mut agent, "error").await["code"], "not_found");
    send(&mut agent, &json!({"type": "ping"})).await;
    assert_eq!(next_of(&mut agent, "pong").await, json!({"type": "pong"}));
}

#[tokio::test]
async fn a_key_does_only_what_its_scopes_allow() {
    let served = Served::start(quick()).await;
    served.server_named("web-1").await;
    let (reader, writer) = (served.server.key(Scopes::READ).await, served.server.key(Scopes::INGEST).await);
    let (status, body) = served.refused("?topics=hosts", &[("x-api-key", &writer)]).await;
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    assert_eq!(served.refused("", &[]).await.0, 401);
    assert_eq!(served.refused("", &[("x-api-key", "weir_wrong")]).await.0, 401);
    assert_eq!(served.refused("?topics=hosts,logs", &[("x-api-key", &reader)]).await.1["field"], "topics");
    let mut socket = served.with_key("", &reader).await;
    send(&mut socket, &json!({"type": "metrics", "id": 5, "data": {"serverId": "web-1", "cpuUsage": 1}})).await;
    let error = next_of(&mut socket, "error").await;
    assert_eq!((&error["id"], &error["code"]), (&json!(5), &json!("forbidden")));
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_the_session_of_a_browser() {
    let served = Served::start(quick()).await;
    let cookie = served.server.session().await;
    let own = format!("http://{}", served.address);
    for foreign in
        [&[("cookie", cookie.as_str()), ("origin", "https://evil.example")][..], &[("cookie", cookie.as_str())]]
    {
        assert_eq!(served.refused("?topics=hosts", foreign).await.0, 403, "{foreign:?}");
    }
    let headers = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    let mut socket = served.connect("?topics=hosts", &headers).await.unwrap();
    assert_eq!(next_of(&mut socket, "hosts").await["rows"], json!([]));
}

#[tokio::test]
async fn alerts_are_told_as_they_come() {
    let served = Served::start(quick()).await;
    let key = served.server.key(Scopes::ADMIN).await;
    let mut socket = served.with_key("?topics=alerts", &key).await;
    // The connection listens from its first turn on; that it answers shows that it had one.
    send(&mut socket, &json!({"type": "ping"})).await;
    next_of(&mut socket, "pong").await;
    let alert = json!({"source": "prometheus", "severity": "critical", "title": "High CPU Usage"});
    let got = served.server.json(Method::POST, "/api/alerts", &key, &alert).await;
    assert_eq!(got.status, 200, "{}", got.text());
    let told = next_of(&mut socket, "alert").await;
    assert_eq!((&told["title"], &told["severity"]), (&json!("High CPU Usage"), &json!("critical")));
}

#[tokio::test]
async fn a_connection_ends_when_its_key_is_revoked_or_expires() {
    let pace = Pace { ask_again: Duration::from_millis(50), ..quick() };
    let served = Served::start(pace).await;
    let new = |expires_ms| weir_metadata::NewKey { name: "k".into(), scopes: Scopes::READ, agent_id: None, expires_ms };
    let (revoked, revoked_text) = served.app.metadata.create_key(new(None), now_ms()).await.unwrap();
    let soon = now_ms() + 2000;
    let (_, expires_text) = served.app.metadata.create_key(new(Some(soon)), now_ms()).await.unwrap();
    let mut sockets = [
        served.with_key("?topics=hosts", revoked_text.expose()).await,
        served.with_key("?topics=hosts", expires_text.expose()).await,
    ];
    for socket in &mut sockets {
        next_of(socket, "hosts").await;
    }
    served.app.metadata.revoke_key(&revoked.id, now_ms()).await.unwrap();
    for mut socket in sockets {
        let frame = close_of(&mut socket).await.unwrap();
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "the key or session has ended"));
    }
    assert!(now_ms() >= soon, "the second one lived until its key expired");
    assert!(ASK_AGAIN <= Duration::from_secs(30));
}

#[tokio::test]
async fn a_connection_ends_when_its_session_does() {
    let served = Served::start(Pace { ask_again: Duration::from_millis(50), ..quick() }).await;
    let cookie = served.server.session().await;
    let own = format!("http://{}", served.address);
    let mut socket = served.connect("?topics=hosts", &[("cookie", &cookie), ("origin", &own)]).await.unwrap();
    next_of(&mut socket, "hosts").await;
    let text = cookie.strip_prefix("weir_session=").unwrap();
    served.app.metadata.end_session(text).await.unwrap();
    assert_eq!(close_of(&mut socket).await.map(|frame| u16::from(frame.code)), Some(1008));
}

#[tokio::test]
async fn pings_go_out_and_who_answers_none_is_dropped() {
    assert_eq!(Pace::default().ping, Duration::from_secs(20));
    let pace = Pace { ping: Duration::from_millis(30), silence: Duration::from_millis(500), ..quick() };
    let served = Served::start(pace).await;
    let key = served.server.key(Scopes::READ).await;
    let mut socket = served.with_key("?topics=alerts", &key).await;
    // Reading answers pings: it lives on far beyond the time of silence.
    for _ in 0..30 {
        assert!(matches!(next(&mut socket).await, Some(Ok(Message::Ping(_)))));
    }
    assert_eq!(served.app.alert_feed.0.receiver_count(), 1, "it still listens");
    // Not reading answers nothing.
    let freed = async {
        while served.app.alert_feed.0.receiver_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the silent one was dropped");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_dropped_and_holds_up_nobody() {
    let pace = Pace { send: Duration::from_millis(200), ..quick() };
    let served = Served::start(pace).await;
    let key = served.server.key(Scopes::READ).await;
    let slow = served.with_key("?topics=alerts", &key).await;
    let mut quick = served.with_key("?topics=alerts", &key).await;
    // 64 MiB: more than any socket buffers. The quick one reads every alert meanwhile.
    let text = "x".repeat(64 << 10);
    for number in 0..1024 {
        served.app.alert_feed.tell(&json!({"number": number, "text": text}));
        assert_eq!(next_of(&mut quick, "alert").await["number"], number);
    }
    let dropped = async {
        while served.app.alert_feed.0.receiver_count() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, dropped).await.expect("the slow one was dropped");
    drop(slow);
}

#[tokio::test]
async fn a_listener_that_misses_alerts_is_told_how_many() {
    let served = Served::start(quick()).await;
    let key = served.server.key(Scopes::READ).await;
    let mut socket = served.with_key("?topics=alerts", &key).await;
    send(&mut socket, &json!({"type": "ping"})).await;
    next_of(&mut socket, "pong").await;
    // Nothing of the connection runs between these.
    for number in 0..ALERTS_WAITING + 50 {
        served.app.alert_feed.tell(&json!({"number": number}));
    }
    let error = next_of(&mut socket, "error").await;
    assert_eq!(error["code"], "too_many_requests");
    assert!(error["message"].as_str().unwrap().starts_with("50 alerts"), "{error}");
    assert_eq!(next_of(&mut socket, "alert").await["number"], 50);
}

#[tokio::test]
async fn a_plain_request_is_told_that_this_is_a_websocket() {
    let served = Served::start(quick()).await;
    let key = served.server.key(Scopes::READ).await;
    let got = served.server.get("/ws", &key).await;
    assert_eq!(got.status, 400);
    assert!(got.text().contains("WebSocket"), "{}", got.text());
    let got = served.server.send(crate::testing::request(Method::GET, "/ws"), Body::empty()).await;
    assert_eq!(got.status, 401);
}

#[test]
fn alerts_that_are_no_objects_are_not_told() {
    assert_eq!(messages::alert(&5), None);
    let feed = AlertFeed::default();
    feed.tell(&json!({"a": 1}));
    let _: Arc<str> = messages::PONG.into();
}
