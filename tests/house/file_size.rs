//! No file has more than 500 lines of production code.

use std::path::{Path, PathBuf};

/// Lines that a file may have before its tests begin.
const LIMIT_LINES: usize = 500;

/// Lines before the tests, which stand at the end of a file.
fn production_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
    tests.unwrap_or(lines.len())
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("readable")) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().expect("a type").is_dir() {
            if name != "target" && name != "tests" && name != "node_modules" {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

#[test]
fn no_file_has_more_than_500_lines_of_production_code() {
    let mut files = Vec::new();
    for folder in ["crates", "integrations", "bench", "fuzz"] {
        rust_files(&crate::workspace().join(folder), &mut files);
    }
    assert!(files.len() > 20, "only {} files were found: the test looks at nothing", files.len());
    let mut too_long = Vec::new();
    for file in &files {
        let lines = production_lines(&std::fs::read_to_string(file).expect("readable"));
        if lines > LIMIT_LINES {
            too_long.push(format!("{}: {lines} lines, at most {LIMIT_LINES}; split it", file.display()));
        }
    }
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

#[test]
fn tests_at_the_end_of_a_file_do_not_count() {
    assert_eq!(production_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    assert_eq!(production_lines("a\n#[cfg(test)]\nuse x;\nb\n"), 4);
}
