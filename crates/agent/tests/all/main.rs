//! The conformance suite: every integration runs it by being in the list.

mod conformance;
mod target;
