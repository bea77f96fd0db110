//! The metadata database, on SQLite and on PostgreSQL by the same scenarios.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test code fails loudly"
)]

mod credentials;
mod postgres;
mod records;
mod schema;
mod sqlite;
mod suite;
