//! A server for tests: the real router over a real store and real metadata, in a folder of its own.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use weir_config::Acknowledge;
use weir_metadata::{Location, Metadata, NewKey, Scopes};
use weir_pipeline::Intake;
use weir_pipeline::control::Control;
use weir_pipeline::route::Paths;
use weir_store::Store;

use crate::state::{App, Options, State, now_ms};

/// Where requests seem to come from.
pub const ELSEWHERE: &str = "192.0.2.10:40000";
pub const HERE: &str = "127.0.0.1:40000";

pub struct TestServer {
    pub app: App,
    pub router: Router,
    _folder: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The code of an error answer.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl TestServer {
    pub async fn start() -> TestServer {
        TestServer::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> TestServer {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = Options {
            listen: ":8088".parse().expect("address"),
            public_url: "http://10.0.0.5:8088".to_owned(),
            data_folder: folder.path().to_owned(),
            retention: std::time::Duration::from_hours(24),
            keyless_loopback: false,
            auto_register: false,
            host_name: "web-1".to_owned(),
            watching: Vec::new(),
        };
        change(&mut options);
        let store = Store::open(&folder.path().join("store"), weir_store::Options::default()).expect("store");
        let location = Location::Sqlite(folder.path().join("metadata.sqlite"));
        let metadata = Metadata::open(&location).await.expect("metadata");
        let control = Control::default();
        let telemetry = control.telemetry().clone();
        let intake = Intake::new("api".into(), Paths::default(), telemetry.clone(), Acknowledge::Durable);
        let app = App { state: State::new(options, store, metadata, control), intake };
        TestServer { router: crate::api::router(app.clone()), app, _folder: folder }
    }

    /// The text of a new key.
    pub async fn key(&self, scopes: Scopes) -> String {
        let new = NewKey { name: "test".to_owned(), scopes, agent_id: None, expires_ms: None };
        let (_, text) = self.app.metadata.create_key(new, now_ms()).await.expect("key");
        text.expose().to_owned()
    }

    /// The cookie of a new session.
    pub async fn session(&self) -> String {
        let token = self.app.metadata.create_login_token("dashboard", now_ms()).await.expect("token");
        let redeemed = self.app.metadata.redeem_login_token(token.expose(), now_ms()).await.expect("session");
        format!("weir_session={}", redeemed.expect("fresh").0.expose())
    }

    /// Sends a request from an address.
    pub async fn send_from(&self, peer: &str, request: Builder, body: impl Into<Body>) -> Got {
        let peer: SocketAddr = peer.parse().expect("address");
        let request = request.extension(ConnectInfo(peer)).body(body.into()).expect("request");
        let response = self.router.clone().oneshot(request).await.expect("answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("body").to_bytes();
        Got { status: parts.status, headers: parts.headers, body }
    }

    /// Sends a request from another machine.
    pub async fn send(&self, request: Builder, body: impl Into<Body>) -> Got {
        self.send_from(ELSEWHERE, request, body).await
    }

    /// GETs with a key.
    pub async fn get(&self, path: &str, key: &str) -> Got {
        self.send(request(Method::GET, path).header("authorization", format!("Bearer {key}")), Body::empty()).await
    }

    /// Sends JSON with a key.
    pub async fn json(&self, method: Method, path: &str, key: &str, body: &Value) -> Got {
        self.send(request(method, path).header("authorization", format!("Bearer {key}")), body.to_string()).await
    }
}

/// A request to the server's own address.
pub fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path).header("host", "10.0.0.5:8088")
}
