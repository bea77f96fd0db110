//! Backends and protocols of observability.

use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] = &[];
