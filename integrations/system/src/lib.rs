//! What this machine says about itself.

use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] = &[];
