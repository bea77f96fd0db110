//! Weir's server: what the dashboard, other agents and the APIs of the seeds talk to.
//!
//! The server is the agent's pipeline with two more members: its HTTP API is a receiver (`api`), and
//! the embedded store is an exporter (`store`). A request is answered with success only after its
//! records went through that pipeline, so what is acknowledged is on disk.
//!
//! - [`api`]: every route, grouped by the scope that it needs; the OpenAPI document is made from them
//! - [`auth`]: keys, sessions, the login link, limits of failed attempts
//! - [`ingest`]: JSON of the seeds' clients to metrics
//! - [`hosts`]: the live table of machines and what is asked of the store for a chart
//! - [`dashboard`]: the embedded files

pub mod api;
pub mod auth;
mod body;
pub mod dashboard;
pub mod error;
pub mod hosts;
pub mod ingest;
pub mod query_params;
mod server;
mod state;
#[cfg(test)]
mod testing;

pub use api::join::command as join_command;
pub use server::{Api, Background, take_own};
pub use state::{Options, State, now_ms};
