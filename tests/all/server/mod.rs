//! The server: what the seeds' clients, the OpenAPI document and people at a terminal are promised.

mod errors;
mod join;
mod keys;
mod kill;
mod schemathesis;
mod seeds;
mod start;
mod statuses;
