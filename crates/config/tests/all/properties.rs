//! Whatever the text, reading ends with settings or problems.

use proptest::prelude::*;
use weir_config::{Document, Settings};

use crate::fixture::{Variables, problems_of};

const LOOKUP: Variables = Variables(&[("A", "1"), ("B", "text"), ("C", "")]);

/// Pieces from which mistakes in a configuration file are made.
fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "agent",
        "integrations",
        "routes",
        "limits",
        "enabled",
        "interval",
        "tags",
        "example",
        "endpoint",
        "to",
        "from",
        "true",
        "false",
        "null",
        "~",
        "30s",
        "64MiB",
        "http://a",
        "-1",
        "1.5",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "-",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "\"",
        "'",
        "|\n",
        ">\n",
        "&a ",
        "*a",
        "<<: *a",
        "#",
        "?",
        "!",
        "!!str ",
        "%",
        "@",
        "`",
        "\t",
        "${A}",
        "${B:-x}",
        "${",
        "}",
        "$${A}",
        "${file:/x}",
        "---\n",
        "...\n",
        "\r\n",
        "\u{feff}",
        "é",
        "\0",
        "/",
        "x/y",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Document::parse("f", &text, &LOOKUP);
        let _ = problems_of("f", &text, &LOOKUP);
    }

    #[test]
    fn arbitrary_pieces_of_yaml_never_panic(text in yaml_like()) {
        if let Err(problems) = Settings::parse("f", &text, &LOOKUP) {
            let lines = text.split('\n').count() + 1;
            for problem in &problems {
                prop_assert!(problem.line >= 1 && problem.column >= 1);
                prop_assert!(problem.line as usize <= lines, "{problem} of {lines} lines");
                prop_assert!(!problem.message.is_empty() && !problem.message.ends_with('.'));
            }
        }
        let _ = problems_of("f", &text, &LOOKUP);
    }
}

#[test]
fn files_that_grow_without_bound_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    let large_text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 100].join(", "));
    let deep_text = "[".repeat(10_000);
    let deep_lines: String = (0..100).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    let deep_aliases =
        format!("a: &a {}{}\nb: {}*a{}\n", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40));
    let itself = "a: &a [*a]\n".to_owned();
    for (text, words) in [
        (laughs, "too large"),
        (large_text, "too large"),
        (deep_text, "inside each other"),
        (deep_lines, "inside each other"),
        (deep_aliases, "inside each other"),
        (itself, "repeats"),
    ] {
        let problems = Document::parse("f", &text, &LOOKUP).expect_err("refused").to_string();
        assert!(problems.contains(words), "{problems}");
    }
}
