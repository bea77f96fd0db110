//! A server between two others that passes everything on and keeps the headers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Headers of the request.
    pub request: HeaderMap,
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub answer: HeaderMap,
}

#[derive(Clone)]
struct Between {
    upstream: String,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

/// A listening tap; its task ends with the runtime of the test.
pub struct Tap {
    address: SocketAddr,
    between: Between,
}

async fn pass(State(between): State<Between>, request: axum::extract::Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{}{path}", between.upstream).parse().expect("an address");
    parts.headers.remove("host");
    parts.version = http::Version::HTTP_11;
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    let answer = match super::http::send(http::Request::from_parts(parts, body)).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.message).into_response(),
    };
    let exchange = Exchange { request: headers, status: answer.status, answer: answer.headers.clone() };
    between.exchanges.lock().expect("nobody panics with it").push(exchange);
    let mut response = (answer.status, answer.body).into_response();
    for (name, value) in &answer.headers {
        if name != "content-length" && name != "transfer-encoding" {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}

impl Tap {
    /// Starts to listen on a free port in front of `upstream` (`HOST:PORT`).
    pub async fn start(upstream: &str) -> Tap {
        let between = Between { upstream: upstream.to_owned(), exchanges: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(pass).with_state(between.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Tap { address, between }
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What passed so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.between.exchanges.lock().expect("nobody panics with it").clone()
    }
}
