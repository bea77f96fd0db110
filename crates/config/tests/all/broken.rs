//! Every file in `tests/broken` against the text that a user sees.
//!
//! To add a case: write `NN-name.yaml`, run the test with `WEIR_UPDATE_GOLDEN=1`, and read the new
//! `NN-name.txt` as someone who has never seen the program.

use std::path::Path;
use std::{env, fs};

use crate::fixture::{Variables, problems_of};

const VARIABLES: Variables =
    Variables(&[("PORT", "4318"), ("TOKEN", "hunter2-token"), ("EMPTY", ""), ("WORD", "plain-word")]);

#[test]
fn every_broken_file_is_explained_as_its_golden_text_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let update = env::var_os("WEIR_UPDATE_GOLDEN").is_some();
    let mut differences = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).expect("readable");
        let problems = problems_of("weir.yaml", &text, &VARIABLES);
        assert!(!problems.is_empty(), "{}: nothing is wrong with it", path.display());
        let printed = format!("{problems}\n");
        let golden = path.with_extension("txt");
        if update {
            fs::write(&golden, &printed).expect("writable");
        } else if fs::read_to_string(&golden).unwrap_or_default() != printed {
            differences.push(format!("{}:\n{printed}", golden.display()));
        }
    }
    assert!(cases >= 12, "only {cases} files in {}", folder.display());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
