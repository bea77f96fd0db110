//! The README's own words: its configuration is read, its commands run.

use std::path::Path;

use crate::harness::weir::{ConfigFile, command, said};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("the README is there")
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.strip_prefix("```").is_some_and(|rest| rest == language) {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

#[test]
fn every_command_of_the_readme_runs_with_its_own_configuration() {
    let readme = readme();
    let yaml = blocks(&readme, "yaml");
    assert!(!yaml.is_empty(), "the README shows a configuration");
    let config = ConfigFile::new(&yaml[0]);
    let commands: Vec<String> = blocks(&readme, "sh").concat().lines().map(str::to_owned).collect();
    let mut run = 0;
    for line in commands.iter().filter(|line| line.starts_with("weir ") && !line.starts_with("weir agent")) {
        let words = line.split('#').next().unwrap_or_default().split('>').next().unwrap_or_default();
        let arguments: Vec<&str> = words.split_whitespace().skip(1).collect();
        let output = command()
            .args(&arguments)
            .env("TOKEN", "a-token-of-the-test")
            .current_dir(config.folder())
            .output()
            .expect("weir runs");
        // The README's backends do not exist here, so its check finds that out, and nothing else is wrong.
        let expected = if arguments.first() == Some(&"check") { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{line}\n{}", said(&output));
        assert!(!said(&output).contains("a-token-of-the-test"), "{line} shows a secret");
        run += 1;
    }
    assert!(run >= 4, "only {run} commands of the README were run");
}
