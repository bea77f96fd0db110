//! Every file in `tests/broken` against what a user sees, with the integrations' own options: the
//! name of the file is shown as `weir.yaml`.
//!
//! To add a case: write `NN-name.yaml`, run the test with `WEIR_UPDATE_GOLDEN=1`, and read the new
//! `NN-name.txt` as someone who has never seen the program. The files of `crates/config/tests/broken`
//! cover what is wrong outside of the integrations.

use std::path::Path;

use crate::harness::weir::command;

/// Exit code for a configuration that cannot be used.
const WRONG_CONFIGURATION: i32 = 2;

#[test]
fn every_broken_file_is_explained_as_its_golden_text_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("broken");
    let update = std::env::var_os("WEIR_UPDATE_GOLDEN").is_some();
    let mut differences = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        // Relative, so that the text does not depend on where the clone lies.
        let output = command().args(["agent", "--config", name]).current_dir(&folder).output().expect("weir runs");
        let printed = String::from_utf8_lossy(&output.stderr).replace(name, "weir.yaml");
        if output.status.code() != Some(WRONG_CONFIGURATION) || !output.stdout.is_empty() {
            differences.push(format!("{name} ends with {}: {printed}", output.status));
        }
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &printed).expect("writable");
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != printed {
            differences.push(format!("{}:\n{printed}", golden.display()));
        }
    }
    assert!(cases >= 12, "only {cases} files in {}", folder.display());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
