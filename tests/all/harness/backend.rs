//! An OTLP backend that keeps every record in the order of arrival, and may be slow, busy or away.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message;
use tokio::runtime::Runtime;

use super::numbered::{Numbered, numbered};

/// How it answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Time between taking the records and answering.
    pub delay: Duration,
    /// Every so many requests one is answered 503 and nothing of it taken; 0 = none.
    pub busy_every: u64,
    /// Requests that hold a record of this source are answered 400 and nothing of them taken.
    pub refuses: Option<u16>,
}

#[derive(Default)]
struct Shared {
    arrivals: Mutex<Vec<Numbered>>,
    /// When a request was taken, and how many records there were then.
    times: Mutex<Vec<(Instant, usize)>>,
    manner: Mutex<Manner>,
    requests: AtomicU64,
    requests_with_metrics: AtomicU64,
}

/// The backend. It has a runtime of its own, so that it can vanish with all its connections.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

async fn take(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 256 << 20).await else { return StatusCode::BAD_REQUEST.into_response() };
    // An empty message is the success of all services.
    let success = ([("content-type", "application/x-protobuf")], Bytes::new());
    if parts.uri.path() != "/v1/logs" {
        shared.requests_with_metrics.fetch_add(1, Ordering::Relaxed);
        return success.into_response();
    }
    let request = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let manner = *shared.manner.lock().expect("nobody panics with it");
    if manner.busy_every > 0 && request.is_multiple_of(manner.busy_every) {
        tokio::time::sleep(manner.delay).await;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok(decoded) = ExportLogsServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST.into_response() };
    let records = numbered(&decoded);
    if records.iter().any(|record| Some(record.source) == manner.refuses) {
        return (StatusCode::BAD_REQUEST, "a field of a record has the wrong type").into_response();
    }
    let count = {
        let mut arrivals = shared.arrivals.lock().expect("nobody panics with it");
        arrivals.extend(records);
        arrivals.len()
    };
    shared.times.lock().expect("nobody panics with it").push((Instant::now(), count));
    tokio::time::sleep(manner.delay).await;
    success.into_response()
}

impl Backend {
    /// Starts to listen on a free port.
    pub fn start() -> Backend {
        let mut backend = Backend::away();
        backend.come_back();
        backend
    }

    /// One that is not there yet.
    pub fn away() -> Backend {
        let address = SocketAddr::from(([127, 0, 0, 1], super::free_port()));
        Backend { address, shared: Arc::default(), runtime: None }
    }

    /// Vanishes: its connections break, and new ones are refused.
    pub fn go_away(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
            self.wait_until("it is gone", || std::net::TcpStream::connect(self.address).is_err());
        }
    }

    /// Listens again on the same port.
    pub fn come_back(&mut self) {
        let mut listener = None;
        self.wait_until("its port is free", || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        let listener = listener.expect("waited for");
        listener.set_nonblocking(true).expect("a socket");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let router = Router::new().fallback(take).with_state(self.shared.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            axum::serve(listener, router).await
        });
        self.runtime = Some(runtime);
    }

    fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{}: {what}: not within 5 s", self.address);
            let pause = Duration::from_millis(5);
            #[expect(
                clippy::disallowed_methods,
                reason = "a few milliseconds, so that tests need not await a backend"
            )]
            std::thread::sleep(pause);
        }
    }

    /// Answers like this from now on.
    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().expect("nobody panics with it") = manner;
    }

    /// Its base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The block of an `otlp` exporter that sends here, uncompressed, with more options.
    pub fn exporter(&self, name: &str, options: &str) -> String {
        format!("  {name}: {{endpoint: \"{}\", compression: none, {options}}}\n", self.url())
    }

    /// Every record that was taken, in the order of arrival.
    pub fn arrivals(&self) -> Vec<Numbered> {
        self.shared.arrivals.lock().expect("nobody panics with it").clone()
    }

    /// How many records were taken.
    pub fn count(&self) -> usize {
        self.shared.arrivals.lock().expect("nobody panics with it").len()
    }

    /// How many records had been taken at a time.
    pub fn count_at(&self, time: Instant) -> usize {
        let times = self.shared.times.lock().expect("nobody panics with it");
        let later = times.partition_point(|(taken, _)| *taken <= time);
        later.checked_sub(1).map_or(0, |last| times[last].1)
    }

    /// The records of the largest request that was taken.
    pub fn largest_request(&self) -> usize {
        let times = self.shared.times.lock().expect("nobody panics with it");
        let counts = times.iter().map(|(_, count)| *count);
        counts.clone().zip([0].into_iter().chain(counts)).map(|(now, before)| now - before).max().unwrap_or(0)
    }

    /// How many requests with metrics came.
    pub fn requests_with_metrics(&self) -> u64 {
        self.shared.requests_with_metrics.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    // A runtime must not be waited for within another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
