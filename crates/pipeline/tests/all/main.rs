//! Tests of the pipeline as integrations see it: real queues, workers and ledger, a backend that
//! answers as it is told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code fails loudly")]

mod backend;
mod change;
mod delivery;
mod each;
mod hostile;
mod line;
mod moves;
mod pauses;
mod planning;
mod refusals;
mod release;
mod schedule;
