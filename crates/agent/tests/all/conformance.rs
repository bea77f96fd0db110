//! What every integration must do, whoever wrote it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_agent::kinds;
use weir_config::{Environment, Settings};
use weir_model::logs::{LogRecord, Logs};
use weir_model::traces::{Span, Traces};
use weir_model::{Common, MetricsBuilder, Payload, Records, Resource, Scope, Signal, Value};
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Input, Member, Plan};
use weir_pipeline::role::{Delivery, DynCollect, DynExport};
use weir_pipeline::{Kind, MetricDescription, MetricKind, Outcome, Problems, Role};

use crate::target::{ALL, Behaviour, Target};

/// A plan of one integration, from the text below `integrations:`; everything else is switched off.
fn plan(block: &str) -> Result<Plan, Problems> {
    let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
    let mut text = format!("agent: {{interval: 1s}}\nintegrations:\n{indented}");
    for kind in kinds().iter().filter(|kind| kind.on_by_default && !block.starts_with(&format!("{}:", kind.name()))) {
        text.push_str(&format!("  {}: {{enabled: false}}\n", kind.name()));
    }
    let (settings, problems) = Settings::inspect("sample.yaml", &text, &Environment);
    let kinds = kinds();
    let resource = vec![("host.name".to_owned(), "conformance".to_owned())];
    Plan::new(Input {
        file: "sample.yaml",
        settings: &settings,
        problems,
        kinds: &kinds,
        planned: &[],
        added: &[],
        resource,
        data_folder: std::env::temp_dir().into(),
        control: Default::default(),
    })
}

/// The sample with every URL and every `name:port` in it replaced by the port on a loopback address of its
/// own, and whether there was one.
fn aimed_at(kind: &Kind, to: u16) -> (String, bool) {
    let (mut out, mut found) = (String::new(), 0);
    let mut next = || {
        found += 1;
        format!("127.0.0.{found}:{to}")
    };
    let mut rest = kind.about.sample;
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    while let Some(colon) = rest.find(':') {
        let (before, after) = rest.split_at(colon);
        let port = after[1..].chars().take_while(char::is_ascii_digit).count();
        let name = before.chars().rev().take_while(|c| host(*c)).count();
        if let Some(address) = after.strip_prefix("://") {
            // The target speaks no TLS.
            let end = address.find(|c| !host(c) && c != ':').unwrap_or(address.len());
            out.push_str(&format!("{}http://{}", &before[..before.len() - name], next()));
            rest = &address[end..];
        } else if port >= 2 && name > 0 {
            out.push_str(&format!("{}{}", &before[..before.len() - name], next()));
            rest = &after[1 + port..];
        } else {
            out.push_str(before);
            out.push(':');
            rest = &after[1..];
        }
    }
    out.push_str(rest);
    (out, found > 0)
}

/// Exporters that send to no address.
const WITHOUT_ADDRESS: [&str; 2] = ["console", "file"];

/// The sample with a short patience, wherever it says one itself.
fn impatient(text: &str) -> String {
    let line = |line: &str| match line.split_once("timeout:") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}timeout: 2s\n"),
        _ => format!("{line}\n"),
    };
    let out: String = text.lines().map(line).collect();
    if out.contains("timeout:") { out } else { out.replacen('\n', "\n  timeout: 2s\n", 1) }
}

/// The samples use variables for secrets; the suite sets none, so they are filled here.
fn without_variables(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        out.push_str("secret-value-of-the-suite");
        rest = rest[at..].split_once('}').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

fn sample(kind: &Kind) -> String {
    without_variables(kind.about.sample)
}

#[test]
fn every_integration_takes_its_own_sample() {
    for kind in kinds() {
        assert!(
            kind.about.sample.starts_with(&format!("{}:", kind.name())),
            "{}: the sample starts with its name",
            kind.name()
        );
        if let Err(problems) = plan(&sample(&kind)) {
            panic!("{}: its own sample is wrong:\n{problems}", kind.name());
        }
    }
}

#[test]
fn every_integration_catches_a_misspelled_option_and_names_the_right_one() {
    for kind in kinds() {
        let mut generator = schemars::SchemaGenerator::default();
        let schema = kind.schema(&mut generator).to_value();
        let options = schema["properties"].as_object().unwrap();
        let Some(option) = options.keys().find(|name| name.len() > 5 && *name != "enabled") else { continue };
        let mut wrong = option.clone();
        wrong.remove(wrong.len() / 2);
        let text = format!("{}:\n  {wrong}: 1\n", kind.name());
        let problems =
            plan(&text).err().unwrap_or_else(|| panic!("{}: `{wrong}` was accepted", kind.name())).to_string();
        assert!(problems.contains("sample.yaml:4:5"), "{}: no position in:\n{problems}", kind.name());
        assert!(problems.contains(&format!("`{option}`")), "{}: `{option}` not suggested in:\n{problems}", kind.name());
    }
}

#[test]
fn every_option_is_explained_and_every_metric_has_unit_and_help() {
    for kind in kinds() {
        let mut generator = schemars::SchemaGenerator::default();
        let schema = kind.schema(&mut generator).to_value();
        for (name, option) in schema["properties"].as_object().unwrap() {
            let explained = option.get("description").is_some() || option.get("$ref").is_some();
            assert!(explained, "{}: option `{name}` is not explained", kind.name());
        }
        let summary = kind.about.summary;
        assert!(summary.starts_with(char::is_uppercase) && !summary.ends_with('.'), "{}: {summary}", kind.name());
        assert!(kind.about.details.len() > 80, "{}: its page says too little", kind.name());
        for metric in kind.about.metrics {
            assert!(metric.help.ends_with('.'), "{}: help of {} is no sentence", kind.name(), metric.name);
        }
    }
}

#[test]
fn names_are_unique_and_in_snake_case() {
    let mut names: Vec<&str> = kinds().iter().map(Kind::name).collect();
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')));
    names.sort_unstable();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
}

/// Receivers listen on a free port, so that the suite can run beside a running Weir.
fn on_a_free_port(kind: &Kind, text: String) -> String {
    if kind.role == Role::Receive { aimed_at(kind, 0).0 } else { text }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_integration_starts_stops_and_starts_again_leaving_nothing_behind() {
    for kind in kinds() {
        let text = on_a_free_port(&kind, without_variables(&aimed_at(&kind, 1).0));
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for _ in 0..2 {
            let pipeline = Pipeline::start(plan(&text).unwrap()).await.unwrap_or_else(|error| panic!("{error}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
            let begun = Instant::now();
            pipeline.stop().await;
            assert!(begun.elapsed() < Duration::from_secs(5), "{} took {:?} to stop", kind.name(), begun.elapsed());
        }
        // Connections that are being closed end on their own a moment later.
        for _ in 0..50 {
            if tokio::runtime::Handle::current().metrics().num_alive_tasks() <= before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert!(after <= before, "{} left {} tasks behind", kind.name(), after - before);
    }
}

fn opened(text: &str) -> Member {
    let plan = plan(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    plan.members.into_iter().find(|member| !matches!(member, Member::Off { .. })).unwrap()
}

/// One record of a signal.
fn record(signal: Signal) -> Payload {
    let mut common = Common::default();
    common.resources.push(Resource::default());
    common.scopes.push(Scope::default());
    let text = Value::String(common.arena.add(b"conformance"));
    let id = common.arena.add(&[7; 16]);
    Payload::from_records(match signal {
        Signal::Logs => Records::Logs(Logs {
            common,
            records: vec![LogRecord { body: text, time_unix_nano: 1, ..LogRecord::default() }],
        }),
        Signal::Traces => Records::Traces(Traces {
            common,
            spans: vec![Span { trace_id: id, ..Span::default() }],
            ..Traces::default()
        }),
        Signal::Metrics => {
            let mut builder = MetricsBuilder::new("conformance", Vec::new());
            builder.begin(1_700_000_000_000_000_000, 0);
            let metric = MetricDescription { name: "conformance", unit: "1", kind: MetricKind::Gauge, help: "A test." };
            builder.record(&metric, &[], 1.0);
            Records::Metrics(builder.finish())
        }
    })
}

/// Whether an exporter's backend is addressed by a URL.
fn speaks_http(kind: &Kind) -> bool {
    kind.about.sample.contains("://")
}

/// Whether an outcome is right, whatever the backend. A 200 with a body that is no answer of the
/// protocol is judged by each exporter's own tests: not every protocol has a body to look at.
fn is_right(kind: &Kind, behaviour: Behaviour, outcome: &Outcome) -> bool {
    match behaviour {
        // To a protocol of its own an answer of HTTP is garbage.
        Behaviour::Answers(..) if !speaks_http(kind) => matches!(outcome, Outcome::Later { .. }),
        Behaviour::Answers(200, _) => true,
        Behaviour::Answers(401, _) => matches!(outcome, Outcome::Unauthorized { .. }),
        Behaviour::Answers(400, _) => matches!(outcome, Outcome::Never { .. } | Outcome::Split { .. }),
        Behaviour::Answers(404, _) => {
            matches!(outcome, Outcome::Never { .. } | Outcome::Later { .. } | Outcome::Unauthorized { .. })
        }
        // One record cannot be split: whoever knows that refuses it.
        Behaviour::Answers(413, _) => matches!(outcome, Outcome::Split { .. } | Outcome::Never { .. }),
        Behaviour::Answers(429, _) => {
            matches!(outcome, Outcome::Later { after: Some(after), .. } if after.as_secs() == 7)
        }
        // Whether it arrived is not known: it must be sent again.
        _ => matches!(outcome, Outcome::Later { .. }),
    }
}

async fn exporter_meets(kind: &Kind, exporter: &Arc<dyn DynExport>, behaviour: Behaviour) {
    for signal in exporter.takes().signals {
        let delivery = Delivery { signal: *signal, payloads: vec![record(*signal)], id: 1 };
        let attempt = || async {
            let outcome = tokio::time::timeout(Duration::from_secs(10), exporter.export(&delivery)).await;
            outcome.unwrap_or_else(|_| panic!("{}: {behaviour:?} held it for ever", kind.name()))
        };
        let mut outcome = attempt().await;
        // "At once, in another way" is how an exporter falls back to an older protocol, once.
        if matches!(outcome, Outcome::Later { after: Some(Duration::ZERO), .. }) {
            outcome = attempt().await;
        }
        assert!(
            is_right(kind, behaviour, &outcome),
            "{}: {behaviour:?} with {} gave {outcome:?}",
            kind.name(),
            signal.name()
        );
        if let Outcome::Later { why, .. } | Outcome::Never { why } | Outcome::Unauthorized { why } = &outcome {
            assert!(!why.contains("secret-value"), "{}: a secret in {why}", kind.name());
        }
    }
    let check = tokio::time::timeout(Duration::from_secs(10), exporter.check()).await;
    let check = check.unwrap_or_else(|_| panic!("{}: {behaviour:?} held the check for ever", kind.name()));
    if !matches!(behaviour, Behaviour::Answers(200 | 400, _)) {
        let fault = check.expect_err(&format!("{}: the check of {behaviour:?} succeeded", kind.name()));
        assert!(!fault.message.contains("secret-value"), "{}: a secret in {}", kind.name(), fault.message);
    }
}

async fn collector_meets(
    kind: &Kind,
    collector: &mut Box<dyn DynCollect>,
    builder: &mut MetricsBuilder,
    behaviour: Behaviour,
) {
    builder.begin(1, 0);
    let poll = tokio::time::timeout(Duration::from_secs(10), collector.collect(builder)).await;
    let result = poll.unwrap_or_else(|_| panic!("{}: {behaviour:?} held it for ever", kind.name()));
    let points = builder.len();
    assert!(result.is_err() || points > 0, "{}: {behaviour:?} passed without a word", kind.name());
    if let Err(fault) = result {
        assert!(!fault.message.contains("secret-value"), "{}: a secret in {}", kind.name(), fault.message);
    }
    builder.discard();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_integration_survives_every_way_a_target_can_misbehave() {
    for kind in kinds() {
        let mut meetings = tokio::task::JoinSet::new();
        for behaviour in ALL {
            let target = Target::open(*behaviour).await;
            let (text, has_target) = aimed_at(&kind, target.port);
            let is_aimed = has_target || kind.role != Role::Export || WITHOUT_ADDRESS.contains(&kind.name());
            assert!(is_aimed, "{}: its sample names no address, so nothing can misbehave there", kind.name());
            if !has_target || kind.role == Role::Receive {
                continue;
            }
            let text = impatient(&without_variables(&text));
            meetings.spawn(async move {
                let _target = target;
                match opened(&text) {
                    Member::Export { exporter, .. } => exporter_meets(&kind, &Arc::from(exporter), *behaviour).await,
                    Member::Collect { mut collector, mut builder, .. } => {
                        collector_meets(&kind, &mut collector, &mut builder, *behaviour).await;
                    }
                    Member::Receive { .. } | Member::Off { .. } => {}
                }
            });
        }
        while let Some(met) = meetings.join_next().await {
            if let Err(error) = met {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}
