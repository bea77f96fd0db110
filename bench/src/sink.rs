//! The sink: takes every OTLP request and counts the record ids in it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;

use crate::load::MARK;

/// What arrived.
#[derive(Default)]
pub struct Arrived {
    seen: Vec<bool>,
    /// Different records.
    pub records: u64,
    /// Records that came more than once, counted for each time after the first.
    pub duplicates: u64,
    /// Requests.
    pub requests: u64,
}

/// A sink on a port of its own.
pub struct Sink {
    /// Its port.
    pub port: u16,
    /// What arrived so far.
    pub arrived: Arc<Mutex<Arrived>>,
    _runtime: tokio::runtime::Runtime,
}

impl Sink {
    /// Starts a sink.
    pub fn start() -> Sink {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let arrived: Arc<Mutex<Arrived>> = Arc::default();
        let counted = arrived.clone();
        let router = Router::new().fallback(move |body: Body| {
            let counted = counted.clone();
            async move {
                let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                count(&counted, &bytes);
                ([("content-type", "application/x-protobuf")], bytes::Bytes::new())
            }
        });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Sink { port, arrived, _runtime: runtime }
    }

    /// Different records, duplicates, and requests so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let arrived = self.arrived.lock().expect("no thread panics while counting");
        (arrived.records, arrived.duplicates, arrived.requests)
    }
}

fn count(arrived: &Mutex<Arrived>, bytes: &[u8]) {
    let ids = memchr::memmem::find_iter(bytes, MARK).filter_map(|at| {
        let digits = bytes.get(at + MARK.len()..at + MARK.len() + 12)?;
        std::str::from_utf8(digits).ok()?.parse::<usize>().ok()
    });
    let ids: Vec<usize> = ids.collect();
    let mut arrived = arrived.lock().expect("no thread panics while counting");
    arrived.requests += 1;
    for id in ids {
        if arrived.seen.len() <= id {
            arrived.seen.resize(id + 1, false);
        }
        if std::mem::replace(&mut arrived.seen[id], true) { arrived.duplicates += 1 } else { arrived.records += 1 }
    }
}
