//! Side-by-side benchmarks: every peer gets the same load on the same machine in the same run.
//!
//! `weir-bench duel` sends log records over OTLP/HTTP through a peer into a sink that counts every
//! record id: what was lost or doubled is printed before any speed. `weir-bench idle` lets agents
//! watch this machine. `weir-bench fleet` lets many agents post to one server. `weir-bench delivery` compares durable
//! delivery: from a file, from OTLP, and into a backend that stalls. `weir-bench isolation` measures what
//! an exporter with a dead backend costs a healthy one, `weir-bench profile` where Weir's CPU time goes in two
//! cases of `delivery`. `weir-bench limits` measures what
//! the machine allows at most. `weir-bench relay` copies bytes between two sockets and nothing else: the
//! floor of what passing a request on can cost.

#![allow(clippy::disallowed_methods, reason = "a benchmark waits on its own threads, not on a runtime's workers")]

mod delivery;
mod duel;
mod flame;
mod fleet;
mod idle;
mod limits;
mod load;
mod process;
mod relay;
mod sink;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    match arguments.first().map(String::as_str) {
        Some("duel") => duel::run(number(1, 1_000_000)),
        Some("idle") => idle::run(number(1, 300)),
        Some("fleet") => fleet::run(number(1, 500), number(2, 120)),
        Some("delivery") => delivery::run(number(1, 1_000_000), number(2, 30), arguments.get(3).map(String::as_str)),
        Some("isolation") => delivery::isolation::run(number(1, 1_000_000), number(2, 9)),
        Some("profile") => delivery::profile::run(number(1, 3_000_000)),
        Some("limits") => limits::run(),
        Some("relay") => relay::run(&arguments[1..]),
        _ => eprintln!(
            "usage: weir-bench duel [RECORDS] | idle [SECONDS] | fleet [AGENTS] [SECONDS] | delivery [RECORDS] [STALL_SECONDS] [tail|otlp|stall|killed] | isolation [RECORDS] [ROUNDS] | profile [RECORDS] | limits | relay LISTEN TARGET"
        ),
    }
}
