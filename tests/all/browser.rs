//! The dashboard in a real browser. `tests/browser` says what is promised; this starts it with the program under test.

use std::path::Path;
use std::process::Command;

use crate::harness::peers::{Peer, peer};
use crate::harness::weir::program;

#[test]
fn the_dashboard_keeps_its_promises_in_a_real_browser() {
    let Some(node) = peer(Peer::Browser) else { return };
    // Its output is not captured: the figures that it measures belong into every log.
    let status = Command::new(node)
        .arg("--test-reporter=spec")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/run.mjs"))
        .env("WEIR_BIN", program())
        .status()
        .expect("node runs");
    assert!(status.success(), "browser tests: {status}; what failed is printed above");
}
