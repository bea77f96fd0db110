//! A server that answers every OTLP request with success and keeps its bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::points::{Point, points};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// A listening server; its task ends with the runtime of the test.
pub struct Capture {
    address: SocketAddr,
    requests: Requests,
}

async fn keep(State(requests): State<Requests>, request: axum::extract::Request) -> impl IntoResponse {
    let (Parts { uri, headers, .. }, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 256 << 20).await else {
        return http::StatusCode::BAD_REQUEST.into_response();
    };
    let request = Request { path: uri.path().to_owned(), headers, body };
    requests.lock().expect("nobody panics with it").push(request);
    // An empty message is the success of all three services.
    ([("content-type", "application/x-protobuf")], Bytes::new()).into_response()
}

impl Capture {
    /// Starts to listen on a free port.
    pub async fn start() -> Capture {
        let requests = Requests::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(keep).with_state(requests.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Capture { address, requests }
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The block of an `otlp` exporter that sends here, uncompressed and at once.
    pub fn exporter(&self, name: &str) -> String {
        format!("  {name}: {{endpoint: \"{}\", compression: none}}\n", self.url())
    }

    /// The requests to a path so far.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let requests = self.requests.lock().expect("nobody panics with it");
        requests.iter().filter(|request| request.path == path).cloned().collect()
    }

    fn decoded<M: Message + Default>(&self, path: &str) -> Vec<M> {
        let requests = self.requests(path);
        requests
            .iter()
            .map(|request| M::decode(request.body.clone()).unwrap_or_else(|error| panic!("{path}: {error}")))
            .collect()
    }

    /// The metrics so far, decoded by opentelemetry-proto.
    pub fn metrics(&self) -> Vec<ExportMetricsServiceRequest> {
        self.decoded("/v1/metrics")
    }

    /// The logs so far.
    pub fn logs(&self) -> Vec<ExportLogsServiceRequest> {
        self.decoded("/v1/logs")
    }

    /// The traces so far.
    pub fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        self.decoded("/v1/traces")
    }

    /// The numbers among the metrics so far, one by one.
    pub fn points(&self) -> Vec<Point> {
        self.metrics().iter().flat_map(points).collect()
    }

    /// Waits for points of this metric.
    pub async fn wait_for_metric(&self, name: &str, longest: Duration) -> Vec<Point> {
        super::wait_for(&format!("a point of {name}"), longest, async || {
            let found: Vec<Point> = self.points().into_iter().filter(|point| point.name == name).collect();
            (!found.is_empty()).then_some(found)
        })
        .await
    }
}
