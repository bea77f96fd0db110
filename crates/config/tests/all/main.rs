//! Tests of the whole way from a file to settings, through the public interface only.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code fails loudly")]

mod broken;
mod examples;
mod fixture;
mod properties;
mod secrets;
mod variables;
