//! No secret reaches an error or a debug print, whatever is wrong around it.

use weir_config::{Settings, read};

use crate::fixture::{Example, Variables, problems_of};

const SECRET: &str = "hunter2-0123456789";
const NUMERIC: &str = "98765432123456";
const LOOKUP: Variables = Variables(&[("SECRET", SECRET), ("NUMERIC", NUMERIC)]);

fn assert_hidden(printed: &str) {
    for secret in [SECRET, "hunter2", "0123456789", NUMERIC] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_variable_in_any_wrong_place_is_named_but_not_shown() {
    for option in [
        "batch_size",
        "timeout",
        "max_body",
        "encoding",
        "logs",
        "version",
        "auth",
        "paths",
        "weights",
        "listen",
        "network",
        "targets",
        "endpoint",
        "logs_endpoint",
    ] {
        for reference in ["SECRET", "NUMERIC"] {
            for (open, close) in [("", ""), ("\"", "\"")] {
                let endpoint = if option == "endpoint" { "" } else { "    endpoint: http://a\n" };
                let text =
                    format!("integrations:\n  example:\n{endpoint}    {option}: {open}${{{reference}}}{close}\n");
                let problems = problems_of("weir.yaml", &text, &LOOKUP).to_string();
                if !(option == "max_body" && reference == "NUMERIC") {
                    assert!(problems.contains(&format!("{option}: ")), "{text}{problems}");
                    assert!(problems.contains(&format!("${{{reference}}}")), "{text}{problems}");
                }
                assert_hidden(&problems);
            }
        }
    }
}

#[test]
fn a_variable_at_the_top_level_is_not_shown() {
    for text in [
        "${SECRET}",
        "agent: ${SECRET}",
        "agent: {interval: '${NUMERIC}'}",
        "agent: {name: ['${SECRET}']}",
        "integrations: ${SECRET}",
        "integrations: {example: '${SECRET}'}",
        "integrations: {example: hunter2}",
        "integrations: {example: {enabled: '${SECRET}'}}",
        "routes: '${SECRET}'",
        "routes: [{to: ['x'], signals: ['${SECRET}']}]",
        "limits: {memory: '${SECRET}'}",
        "delivery: {acknowledge: '${SECRET}'}",
    ] {
        let problems = problems_of("weir.yaml", text, &LOOKUP);
        assert!(!problems.is_empty(), "{text}");
        assert_hidden(&problems.to_string());
        assert_hidden(&format!("{problems:?}"));
    }
}

#[test]
fn a_secret_written_into_the_file_with_the_wrong_type_is_not_shown() {
    for value in ["98765432123456", "[hunter2]", "{a: hunter2}", "1.98765432123456"] {
        let text = format!("integrations:\n  example:\n    endpoint: http://a\n    api_key: {value}\n");
        let problems = problems_of("weir.yaml", &text, &LOOKUP).to_string();
        assert!(problems.contains("api_key: expected text"), "{problems}");
        assert_hidden(&problems);
        assert!(!problems.contains("98765432123456"), "{problems}");
    }
}

#[test]
fn a_password_in_a_malformed_url_is_not_shown() {
    for url in ["htp://me:hunter2@host", "http://me:hunter2@ho st", "http://me:hunter2@host:99999"] {
        let text = format!("integrations: {{example: {{endpoint: '{url}'}}}}");
        assert_hidden(&problems_of("weir.yaml", &text, &LOOKUP).to_string());
    }
}

#[test]
fn debug_prints_of_all_that_is_read_show_no_secret() {
    let text = "integrations: {example: {endpoint: 'http://me:hunter2@a', api_key: hunter2, auth: {type: bearer, token: '${SECRET}'}, batch_size: 7}}";
    let settings = Settings::parse("weir.yaml", text, &LOOKUP).expect("valid");
    let block = &settings.integrations[0];
    let example: Example = read("weir.yaml", &block.node, &block.path()).expect("valid");
    for printed in [format!("{settings:?}"), format!("{settings:#?}"), format!("{example:?}")] {
        assert_hidden(&printed);
        assert!(printed.contains("api_key"), "{printed}");
    }
}
