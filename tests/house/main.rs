//! Rules of the repository that a compiler does not check. `make lint` runs these alone.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "test code fails loudly")]

mod arrows;
mod file_size;

use std::path::Path;

/// The folder of the workspace.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace")
}
