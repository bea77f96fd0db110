//! What the tests share: processes, ports, waiting, peers, and a server that keeps what it gets.

pub mod backend;
pub mod capture;
pub mod chance;
pub mod http;
pub mod kafka;
pub mod lasting;
pub mod liar;
pub mod numbered;
pub mod peers;
pub mod points;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod relay;
pub mod sender;
pub mod server;
pub mod small_disk;
pub mod tap;
pub mod victoria_metrics;
pub mod weir;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A port of 127.0.0.1 that nothing listens on; no two calls give the same.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().expect("no test panicked in here").insert(port) {
            return port;
        }
    }
}

/// Asks again and again until there is an answer; fails with `what` was awaited after `longest`.
pub async fn wait_for<T>(what: &str, longest: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < longest, "{what}: not within {longest:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Seconds, for short calls.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
