//! The sink: takes every request, counts the records in it, and stalls when told to.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::watch;

use crate::delivery::oracle::{Found, Oracle};

/// What a sink does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Counts it and answers 200.
    Takes,
    /// Reads it and answers nothing until it takes requests again; then 503, so that it comes again.
    Silent,
    /// Reads it and answers 503.
    Unavailable,
}

/// A sink on a port of its own.
pub struct Sink {
    /// Its port.
    pub port: u16,
    /// What arrived so far.
    pub oracle: Arc<Mutex<Oracle>>,
    behaviour: watch::Sender<Behaviour>,
    _runtime: tokio::runtime::Runtime,
}

impl Sink {
    /// Starts a sink that takes requests.
    pub fn start() -> Sink {
        Self::at(0, Behaviour::Takes)
    }

    /// Starts a sink on this port (0: a free one) that behaves so.
    pub fn at(port: u16, behaviour: Behaviour) -> Sink {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let oracle: Arc<Mutex<Oracle>> = Arc::default();
        let (behaviour, behaves) = watch::channel(behaviour);
        let counted = oracle.clone();
        let router = Router::new().fallback(move |body: Body| answer(body, counted.clone(), behaves.clone()));
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", port))).expect("the port on loopback is free");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Sink { port, oracle, behaviour, _runtime: runtime }
    }

    /// Different records, duplicates, and requests so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let oracle = self.oracle.lock().expect("no thread panics while counting");
        (oracle.records, oracle.duplicates, oracle.requests)
    }

    /// From now on it behaves so.
    pub fn set(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }
}

type Response = (StatusCode, [(&'static str, &'static str); 1], bytes::Bytes);

async fn answer(body: Body, oracle: Arc<Mutex<Oracle>>, mut behaves: watch::Receiver<Behaviour>) -> Response {
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let behaviour = *behaves.borrow_and_update();
    let status = match behaviour {
        Behaviour::Takes => {
            let found = Found::in_body(&bytes);
            oracle.lock().expect("no thread panics while counting").count(&found);
            StatusCode::OK
        }
        Behaviour::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Behaviour::Silent => {
            // It ends early only when the benchmark itself ends.
            let _ = behaves.wait_for(|now| *now == Behaviour::Takes).await;
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    (status, [("content-type", "application/x-protobuf")], bytes::Bytes::new())
}
