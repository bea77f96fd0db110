//! Tests of the whole way from a file to settings, through the public interface only.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "the helpers of tests fail loudly too")]

mod broken;
mod examples;
mod fixture;
mod properties;
mod secrets;
mod variables;
