//! Plans: every problem of a file is found, with its place.

use weir_config::{Environment, Settings};
use weir_pipeline::itself::KIND;
use weir_pipeline::plan::{Input, Plan};
use weir_pipeline::{Problems, Role};

fn problems(text: &str) -> String {
    let (settings, problems) = Settings::inspect("weir.yaml", text, &Environment);
    let input = Input {
        file: "weir.yaml",
        settings: &settings,
        problems,
        kinds: &[KIND],
        planned: &["kafka"],
        added: &[("store", Role::Export)],
        resource: Vec::new(),
        data_folder: std::env::temp_dir().into(),
        control: Default::default(),
    };
    Plan::new(input).err().map(|problems: Problems| problems.to_string()).unwrap_or_default()
}

#[test]
fn a_misspelled_integration_is_named_with_its_line_and_the_right_name() {
    let text = problems("integrations:\n  internall:\n    interval: 5s\n");
    assert!(text.contains("weir.yaml:2:3") && text.contains("did you mean `internal`?"), "{text}");
}

#[test]
fn an_integration_of_a_later_version_is_told_apart_from_a_typing_error() {
    let text = problems("integrations:\n  kafka: {}\n");
    assert!(text.contains("does not have this integration yet"), "{text}");
    assert_eq!(problems("integrations:\n  kafka: {enabled: false, brokers: [a]}\n"), "");
}

#[test]
fn all_problems_of_a_file_come_at_once() {
    let text = problems(
        "agent: {intervall: 5s}\nintegrations:\n  internal: {intervall: 5s}\nroutes:\n  - {from: [hots], to: [nobody], keep: 'size > 3'}\n",
    );
    for part in ["weir.yaml:1:9", "weir.yaml:3:14"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = problems("routes:\n  - {from: [internl], to: [nobody], keep: 'size > 3'}\n");
    for part in ["no source `internl`", "did you mean `internal`?", "no exporter `nobody`", "cannot read the condition"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn routes_may_name_what_the_program_adds_by_itself() {
    assert_eq!(problems("routes:\n  - {to: [store]}\n"), "");
    let text = problems("routes:\n  - {to: [stor]}\n");
    assert!(text.contains("did you mean `store`?"), "{text}");
    let text = problems("routes:\n  - {from: [store], to: [store]}\n");
    assert!(text.contains("no source `store`"), "{text}");
}

#[test]
fn an_interval_of_zero_is_refused() {
    let text = problems("integrations:\n  internal: {interval: 0s}\n");
    assert!(text.contains("longer than 0s"), "{text}");
}
