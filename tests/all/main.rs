//! The program from outside: what its users are promised, against real servers, real senders and
//! faults. Tests whose peers are missing say so and are counted as skipped (`harness/peers.rs`).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code fails loudly"
)]

mod harness;

mod broken;
mod browser;
mod check;
mod delivery;
mod elasticsearch;
mod faults;
mod guides;
mod influxdb;
mod kafka;
mod otlp;
mod readme;
mod remote_write;
mod scrape;
mod server;
mod start;
