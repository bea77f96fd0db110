//! Plain HTTP requests of the tests themselves.

use bytes::Bytes;
use serde_json::Value as Json;
use weir_net::{Answer, Client, HttpOptions, TransportError};

/// Most bytes of an answer.
const LIMIT_BYTES: usize = 64 << 20;

/// Sends a request.
pub async fn send(request: http::Request<Bytes>) -> Result<Answer, TransportError> {
    let client = Client::new(&HttpOptions::default()).expect("a plain client");
    client.send(request, LIMIT_BYTES).await
}

/// Gets a page; `None` unless the answer is a success.
pub async fn get(url: &str) -> Option<Bytes> {
    let request = http::Request::get(url).body(Bytes::new()).expect("a good address");
    send(request).await.ok().filter(|answer| answer.status.is_success()).map(|answer| answer.body)
}

/// Gets JSON; `None` unless the answer is a success.
pub async fn get_json(url: &str) -> Option<Json> {
    get(url).await.and_then(|body| serde_json::from_slice(&body).ok())
}

/// Posts bytes.
pub async fn post(url: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let request =
        http::Request::post(url).header("content-type", content_type).body(body.into()).expect("a good address");
    send(request).await.unwrap_or_else(|error| panic!("POST {url}: {error}"))
}
