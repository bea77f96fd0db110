//! Files that must be read, and what they mean.

use std::collections::BTreeMap;

use weir_config::{
    Acknowledge, ByteSize, Document, Duration, Lookup, Settings, Signal, Value, check, property_names, read,
};

use crate::fixture::{Example, Topics, Variables, problems_of};

const NOTHING_SET: Variables = Variables(&[]);

fn parse(text: &str) -> Settings {
    match Settings::parse("weir.yaml", text, &NOTHING_SET) {
        Ok(settings) => settings,
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "# nothing\n", "---\n", "agent:\nintegrations:\nroutes:\nlimits:\ndelivery:\n"] {
        assert_eq!(parse(text), Settings::default());
    }
    let settings = Settings::default();
    assert_eq!(settings.agent.interval, Duration::from_secs(10));
    assert_eq!(settings.limits.memory, ByteSize::from_mebibytes(128));
    assert_eq!(settings.delivery.acknowledge, Acknowledge::Durable);
}

#[test]
fn the_example_of_the_design_is_understood() {
    let text = r#"
agent: {name: web-prod-01, tags: {environment: production}}
integrations:
  logs: {paths: [/var/log/nginx/*.log], format: nginx}
  prometheus: {endpoint: "http://prometheus:9090/api/v1/write"}
  datadog: {api_key: "${DATADOG_API_KEY}", site: us1}
routes:            # optional: by default every record goes to every exporter that takes its signal
  - {from: [logs], keep: 'severity >= "WARN"', to: [datadog]}
"#;
    let lookup = Variables(&[("DATADOG_API_KEY", "key")]);
    let settings = Settings::parse("weir.yaml", text, &lookup).expect("valid");
    assert_eq!(settings.agent.name.as_deref(), Some("web-prod-01"));
    let names: Vec<&str> = settings.integrations.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["logs", "prometheus", "datadog"]);
    let route = settings.routes.first().expect("one route");
    assert_eq!(
        (route.from.as_slice(), route.to.as_slice()),
        (["logs".to_owned()].as_slice(), ["datadog".to_owned()].as_slice())
    );
    assert_eq!((route.keep.as_deref(), route.node.line), (Some("severity >= \"WARN\""), 8));
}

#[test]
fn a_disabled_block_may_name_variables_that_are_not_set() {
    let text = r#"
integrations:
  # Cloud Providers
  gcp:
    enabled: false
    project_id: "${GCP_PROJECT_ID}"
    nested: [{key: "${file:/absent}"}]
  ebpf:
    enabled: false
  host:
  otlp/backup:
    endpoint: http://localhost:4318
"#;
    let settings = parse(text);
    let summary: Vec<_> = settings
        .integrations
        .iter()
        .map(|block| (block.kind.as_str(), block.name.as_str(), block.enabled, block.line, block.column))
        .collect();
    assert_eq!(
        summary,
        [
            ("gcp", "gcp", false, 4, 3),
            ("ebpf", "ebpf", false, 8, 3),
            ("host", "host", true, 10, 3),
            ("otlp", "otlp/backup", true, 11, 3),
        ]
    );
    assert!(
        settings
            .integrations
            .iter()
            .all(|block| matches!(block.node.value, Value::Mapping(_)) && block.node.get("enabled").is_none())
    );
}

#[test]
fn all_keys_of_the_top_level_are_read() {
    let settings = parse(
        "agent: {interval: 1m30s, tags: {team: 42, canary: true, version: 1.10, zip: 0123}}\n\
         routes:\n  - to: [a, b]\n  - {from: [x/y], signals: [metrics, logs, traces], set: {tier: 1}, to: [a]}\n\
         limits: {memory: 64MiB}\ndelivery: {acknowledge: queued}\n",
    );
    assert_eq!(settings.agent.interval, Duration::from_secs(90));
    let tags: Vec<(&str, &str)> =
        settings.agent.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(tags, [("canary", "true"), ("team", "42"), ("version", "1.10"), ("zip", "0123")]);
    assert_eq!(settings.routes[1].signals, [Signal::Metrics, Signal::Logs, Signal::Traces]);
    assert_eq!(settings.routes[1].set, BTreeMap::from([("tier".to_owned(), "1".to_owned())]));
    assert_eq!(settings.limits.memory.bytes(), 64 << 20);
    assert_eq!(settings.delivery.acknowledge, Acknowledge::Queued);
}

#[test]
fn every_kind_of_option_is_read() {
    let text = r#"
integrations:
  example:
    endpoint: https://user:pw@example.com/base
    logs_endpoint: ""
    api_key: ${TOKEN}
    listen: :4317
    batch_size: ${SIZE}
    timeout: 5s
    max_body: 4096
    encoding: ndjson
    logs: ${LOGS}
    version: v3
    auth: {type: basic, username: me, password: "${TOKEN}"}
    paths:
    weights: {80: 1, 443: 0.5}
    topics: [a, b]
    network: 10.0.0.0/8
    targets: [{url: http://a, headers: {Authorization: "Bearer ${TOKEN}"}}]
"#;
    let lookup = Variables(&[("TOKEN", "123456"), ("SIZE", "500"), ("LOGS", "true")]);
    let settings = Settings::parse("weir.yaml", text, &lookup).expect("valid");
    let block = &settings.integrations[0];
    let example: Example = read("weir.yaml", &block.node, &block.path()).expect("valid");
    assert!(example.logs_endpoint.is_none() && example.logs && example.paths.is_empty());
    assert_eq!(example.api_key.expect("given").expose(), "123456");
    assert_eq!((example.batch_size, example.max_body.bytes()), (500, 4096));
    assert_eq!(example.weights, BTreeMap::from([(80, 1.0), (443, 0.5)]));
    assert!(matches!(example.topics, Some(Topics::Several(names)) if names == ["a", "b"]));
    assert_eq!(example.targets[0].headers["Authorization"].expose(), "Bearer 123456");
    assert_eq!(example.endpoint.join("v1/logs").path(), "/base/v1/logs");
    assert!(problems_of("weir.yaml", text, &lookup).is_empty());
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "
a: &base {x: 1, y: 2}
b: &more {y: 3, z: 4}
c: {<<: [*base, *more], x: 9}
d: *base
e: !!str 42
";
    let node = Document::parse("f", text, &NOTHING_SET).expect("valid");
    let merged = node.get("c").expect("c");
    let values: Vec<(&str, &Value)> =
        merged.entries().iter().map(|(key, value)| (key.name.as_str(), &value.value)).collect();
    assert_eq!(values, [("x", &Value::Int(9)), ("y", &Value::Int(2)), ("z", &Value::Int(4))]);
    assert_eq!(node.get("d"), node.get("a"));
    assert_eq!(node.get("e").and_then(|node| node.as_str()), Some("42"));
}

#[test]
fn moving_a_block_in_the_file_does_not_change_it() {
    let before = parse("integrations: {a: {x: 1}}");
    let after = parse("# a comment\nintegrations:\n  a:\n    x: 1\n");
    assert_eq!(before.integrations[0].node, after.integrations[0].node);
    let changed = parse("integrations: {a: {x: 2}}");
    assert_ne!(before.integrations[0].node, changed.integrations[0].node);
}

#[test]
fn the_keys_of_a_type_are_known_by_name() {
    let mut names = property_names::<crate::fixture::Common>();
    names.sort();
    assert_eq!(names, ["interval", "tags"]);
    let schema = Settings::schema();
    for key in ["agent", "integrations", "routes", "limits", "delivery"] {
        assert!(schema.pointer(&format!("/properties/{key}")).is_some(), "{key}");
    }
}

#[test]
fn the_file_with_every_known_integration_is_understood() {
    let text = include_str!("../good/every-integration.yaml");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    let settings = Settings::parse("weir.yaml", text, &AllSet).expect("valid");
    let read: Vec<&str> = settings.integrations.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(read, names);
    assert!(names.len() > 20, "{names:?}");
    let influxdb = settings.integrations.iter().find(|block| block.name == "influxdb").expect("influxdb");
    assert!(influxdb.node.get("version").is_some_and(|node| node.value == Value::Int(2)));
}

/// Every variable is set.
struct AllSet;

impl Lookup for AllSet {
    fn variable(&self, name: &str) -> Option<String> {
        Some(format!("value-of-{name}"))
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        Ok(format!("content-of-{path}"))
    }
}

#[test]
fn typos_in_a_block_that_is_switched_off_are_found_and_its_variables_are_not() {
    let settings = parse(
        "integrations:\n  example:\n    enabled: false\n    endpoint: ${NOT_SET}\n    timeout: ${NOT_SET}\n    tmeout: 1s\n",
    );
    let block = &settings.integrations[0];
    let problems = check::<Example>("weir.yaml", &block.node, &block.path(), &[]).expect_err("a typo");
    assert_eq!(
        problems.to_string(),
        "weir.yaml:6:5: integrations.example: unknown key `tmeout`; did you mean `timeout`?"
    );
}
