//! Tests of the pipeline as integrations see it: real queues, workers and ledger, a backend that
//! answers as it is told.

mod backend;
mod delivery;
mod planning;
mod schedule;
