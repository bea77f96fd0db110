//! `${VAR}`, `${VAR:-default}`, `${file:/path}` and `$${`.

use weir_config::{Document, Environment, Lookup, Node, Value};

use crate::fixture::Variables;

const LOOKUP: Variables = Variables(&[
    ("HOST", "web-1"),
    ("PORT", "8080"),
    ("EMPTY", ""),
    ("YAML", "a: {b: [1]}\n- c"),
    ("/run/secrets/key", "hunter2\n"),
    ("/two", "x\r\n\n"),
]);

fn value(yaml: &str) -> Value {
    match Document::parse("f", &format!("v: {yaml}"), &LOOKUP) {
        Ok(node) => node.get("v").map(|node| node.value.clone()).expect("v"),
        Err(problems) => panic!("{yaml}: {problems}"),
    }
}

fn text(yaml: &str) -> String {
    match value(yaml) {
        Value::String(text) => text,
        other => panic!("{yaml}: {other:?}"),
    }
}

#[test]
fn references_are_replaced_anywhere_in_a_scalar() {
    assert_eq!(text("\"${HOST}\""), "web-1");
    assert_eq!(text("http://${HOST}:${PORT}/x"), "http://web-1:8080/x");
    assert_eq!(text("${REGION:-us-west-2}"), "us-west-2");
    assert_eq!(text("${URL:-http://localhost:4318}"), "http://localhost:4318");
    assert_eq!(text("'${EMPTY:-fallback}'"), "fallback");
    assert_eq!(text("'${EMPTY}'"), "");
    assert_eq!(text("'${NONE:-}'"), "");
    assert_eq!(text("${file:/run/secrets/key}"), "hunter2");
    assert_eq!(text("'${file:/two}'"), "x\r\n");
    assert_eq!(text("$${HOST}"), "${HOST}");
    assert_eq!(text("$HOST"), "$HOST");
}

#[test]
fn only_an_unquoted_reference_alone_takes_another_type() {
    assert!(value("${PORT}") == Value::Int(8080));
    assert!(value("${NONE:-true}") == Value::Bool(true));
    assert!(value("\"${PORT}\"") == Value::String("8080".into()));
    assert!(value("${PORT}0") == Value::String("80800".into()));
}

#[test]
fn a_value_never_brings_structure_with_it() {
    assert_eq!(text("${YAML}"), "a: {b: [1]}\n- c");
    assert_eq!(text("x ${YAML}"), "x a: {b: [1]}\n- c");
}

#[test]
fn a_value_is_not_expanded_again() {
    let lookup = Variables(&[("A", "${B}"), ("B", "no")]);
    let node = Document::parse("f", "v: ${A}", &lookup).expect("valid");
    assert_eq!(node.get("v").and_then(Node::as_str), Some("${B}"));
    assert!(node.get("v").is_some_and(Node::from_variable));
}

#[test]
fn the_switch_of_a_block_may_come_from_a_variable_and_stand_last() {
    let text = "b: {key: '${NOT_SET}', enabled: false}\n";
    assert!(Document::parse("f", text, &LOOKUP).is_ok());
    let text = "b:\n  key: ${NOT_SET}\n  enabled: ${SWITCH:-false}\n";
    assert!(Document::parse("f", text, &LOOKUP).is_ok());
    let text = "b:\n  key: ${NOT_SET}\n  enabled: ${SWITCH:-true}\n";
    assert!(Document::parse("f", text, &LOOKUP).is_err());
}

#[test]
fn the_real_lookup_reads_files_within_a_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("small"), "content\n").expect("written");
    std::fs::write(path("large"), vec![b'x'; (1 << 20) + 1]).expect("written");
    assert_eq!(Environment.file(&path("small")).expect("read"), "content\n");
    let error = Environment.file(&path("large")).expect_err("too large").to_string();
    assert!(error.contains("more than 1 MiB"), "{error}");
    assert!(Environment.file(&path("absent")).is_err());
    assert!(Environment.variable("PATH").is_some());
    assert!(Environment.variable("WEIR_TEST_NO_SUCH_VARIABLE").is_none());
}
