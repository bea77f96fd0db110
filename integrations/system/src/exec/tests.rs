//! Real programs, well-behaved and not.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_config::{Document, Environment};
use weir_model::metrics::Metrics;

use super::*;

fn context() -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: Arc::from("exec"),
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

fn open(yaml: &str) -> Result<Exec, String> {
    let node = Document::parse("test.yaml", yaml, &Environment).map_err(|problems| problems.to_string())?;
    let config = weir_config::read("test.yaml", &node, "exec").map_err(|problems| problems.to_string())?;
    Exec::new(config, &context()).map_err(|fault| fault.to_string())
}

/// Points as `name{key=value,...} number`.
fn lines(metrics: &Metrics) -> Vec<String> {
    let table = &metrics.table;
    let line = |point: weir_model::metrics::NumberPoint| {
        let series = table.series[point.series as usize];
        let metric = table.metric_of(point.series).unwrap();
        let labels: Vec<String> = table
            .common
            .list(series.attributes)
            .iter()
            .map(|a| format!("{}={}", table.common.text(a.key), table.common.value_text(a.value)))
            .collect();
        format!("{}{{{}}} {}", table.common.text(metric.name), labels.join(","), point.value.as_f64().unwrap())
    };
    metrics.numbers.iter().map(line).collect()
}

async fn poll(exec: &mut Exec) -> (Vec<String>, Result<(), Fault>) {
    let mut out = MetricsBuilder::new("exec", Vec::new());
    out.begin(1_000, 1);
    let result = exec.collect(&mut out).await;
    (lines(&out.finish()), result)
}

async fn run(yaml: &str) -> (Vec<String>, Result<(), Fault>) {
    poll(&mut open(yaml).unwrap()).await
}

/// Without the collector's own metrics.
async fn values(yaml: &str) -> Vec<String> {
    let (lines, result) = run(yaml).await;
    assert_eq!(result, Ok(()));
    lines.into_iter().filter(|line| !line.starts_with("exec.")).collect()
}

/// Processes of a group that are not zombies of somebody else, as `pid state`.
fn members(group: i32) -> Vec<String> {
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            // The name in parentheses may hold blanks; state, parent and group follow it.
            let (pid, rest) = stat.split_once(" (")?;
            let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
            (fields[2] == group.to_string() && fields[0] != "Z").then(|| format!("{pid} {}", fields[0]))
        })
        .collect()
}

async fn written_number(file: &Path) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(number) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            return number;
        }
        assert!(Instant::now() < deadline, "the program did not write {}", file.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The kernel ends killed processes a moment after the signal.
async fn assert_group_ends(group: i32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !members(group).is_empty() {
        assert!(Instant::now() < deadline, "left over: {:?}", members(group));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A script and the file to which it writes its process id, which is its group's too.
struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let text = format!("echo $$ > {0}.new && mv {0}.new {0}\n{text}\n", pid.display());
        std::fs::write(directory.path().join("script"), text).unwrap();
        Self { directory }
    }

    /// An entry of `commands`.
    fn yaml(&self, options: &str) -> String {
        format!("{{name: script, command: [/bin/sh, {}], {options}}}", self.directory.path().join("script").display())
    }

    async fn group(&self) -> i32 {
        written_number(&self.directory.path().join("pid")).await
    }
}

#[tokio::test]
async fn a_program_that_never_ends_is_stopped_with_its_children_and_the_others_are_kept() {
    let script = Script::new("sleep 1000 &\nsleep 1000");
    let started = Instant::now();
    let (lines, result) = run(&format!(
        "commands: [{}, {{name: quick, command: [echo, 7]}}]",
        script.yaml("timeout: 300ms, format: none")
    ))
    .await;
    assert!(started.elapsed() < Duration::from_secs(2), "SIGTERM is enough for sleep: {:?}", started.elapsed());
    let fault = result.unwrap_err();
    assert_eq!(fault.kind, FaultKind::TimedOut);
    assert_eq!(fault.message, "command `script` did not end within 300ms and was stopped");
    assert!(lines.contains(&"quick{} 7".to_owned()), "{lines:?}");
    assert!(lines.contains(&"exec.success{exec.command=script} 0".to_owned()), "{lines:?}");
    let group = script.group().await;
    assert_group_ends(group).await;
    assert!(std::fs::metadata(format!("/proc/{group}")).is_err(), "the program is left as a zombie");
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let script = Script::new("trap '' TERM\nwhile :; do sleep 0.05; done");
    let started = Instant::now();
    let (_, result) = run(&format!("commands: [{}]", script.yaml("timeout: 200ms, format: none"))).await;
    assert_eq!(result.unwrap_err().kind, FaultKind::TimedOut);
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(2200) && elapsed < Duration::from_secs(5), "{elapsed:?}");
    assert_group_ends(script.group().await).await;
}

#[tokio::test]
async fn a_child_in_the_background_neither_delays_the_result_nor_survives() {
    let script = Script::new("sleep 1000 &\necho 42");
    let started = Instant::now();
    let (lines, result) = run(&format!("commands: [{}]", script.yaml("timeout: 20s"))).await;
    assert_eq!(result, Ok(()));
    assert!(lines.contains(&"script{} 42".to_owned()), "{lines:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_group_ends(script.group().await).await;
}

#[tokio::test]
async fn a_poll_that_is_cut_off_leaves_no_process() {
    let script = Script::new("sleep 1000 &\ntrap '' TERM\nwhile :; do sleep 0.05; done");
    let mut exec = open(&format!("commands: [{}]", script.yaml("format: none"))).unwrap();
    let group = {
        let polling = poll(&mut exec);
        tokio::pin!(polling);
        tokio::select! {
            _ = &mut polling => panic!("it never ends"),
            group = script.group() => group,
        }
    };
    assert_group_ends(group).await;
}

#[tokio::test]
async fn endless_output_is_cut_and_named() {
    let script = Script::new("yes");
    let started = Instant::now();
    let (lines, result) = run(&format!("commands: [{}]", script.yaml("max_output: 64KiB"))).await;
    let fault = result.unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert_eq!(
        fault.message,
        "command `script` printed more than 65536 bytes and was stopped; `max_output` sets the limit"
    );
    assert!(lines.iter().all(|line| !line.starts_with("exec.exit_code")), "{lines:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_group_ends(script.group().await).await;
}

#[tokio::test]
async fn output_of_exactly_the_limit_is_whole() {
    let (_, result) = run("commands: [{name: a, command: [printf, '12345678'], max_output: 8B}]").await;
    assert_eq!(result, Ok(()));
    let (_, result) = run("commands: [{name: a, command: [printf, '123456789'], max_output: 8B}]").await;
    assert_eq!(result.unwrap_err().kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn endless_error_output_keeps_only_its_end() {
    let script = Script::new("i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3");
    let (lines, result) = run(&format!("commands: [{}]", script.yaml("timeout: 20s"))).await;
    let fault = result.unwrap_err();
    assert!(fault.message.starts_with("command `script` ended with exit status 3: "), "{}", fault.message);
    assert!(fault.message.ends_with("line 19999") && fault.message.len() < 1200, "{}", fault.message);
    assert!(lines.contains(&"exec.exit_code{exec.command=script} 3".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn the_exit_status_can_be_ignored() {
    let yaml = |ignore| {
        format!("commands: [{{name: a, shell: true, command: 'echo 5; exit 3', ignore_exit_status: {ignore}}}]")
    };
    assert_eq!(values(&yaml(true)).await, ["a{} 5"]);
    let (lines, result) = run(&yaml(false)).await;
    assert!(result.is_err() && !lines.contains(&"a{} 5".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn output_that_does_not_fit_names_command_line_and_expectation() {
    for (format, script, expected) in [
        (
            "value",
            "echo garbage",
            "command `a`, line 1 of its output: expected one number, found `garbage`; other formats need `format`",
        ),
        (
            "json",
            "printf '{\\n<html>'",
            "command `a`, line 2 of its output: expected JSON, found `<html>` (key must be a string)",
        ),
        (
            "influx",
            "printf 'a x=1\\ngarbage\\n'",
            "command `a`, line 2 of its output: expected a space before the fields of the line protocol, found `garbage`",
        ),
        (
            "csv, columns: [x, y]",
            "printf '1,2\\n3\\n'",
            "command `a`, line 2 of its output: expected 2 columns, found 1 in `3`",
        ),
        ("value", "printf '\\377\\376'", "command `a`, line 1 of its output: expected UTF-8 text, found other bytes"),
        (
            "csv, columns: [x]",
            "printf '1\\n\\377\\n'",
            "command `a`, line 2 of its output: expected UTF-8 text, found other bytes",
        ),
        (
            "json",
            "printf '\\377'",
            "command `a`, line 1 of its output: expected JSON, found `\u{fffd}` (expected value)",
        ),
        ("value", "true", "command `a`, line 1 of its output: expected one number, the output is empty"),
    ] {
        let script = Script::new(script);
        let entry = script.yaml(&format!("format: {format}")).replace("name: script", "name: a");
        let (lines, result) = run(&format!("commands: [{entry}, {{name: b, command: [echo, 7]}}]")).await;
        let fault = result.unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Decode, expected));
        assert!(lines.contains(&"b{} 7".to_owned()), "{lines:?}");
        assert!(lines.contains(&"exec.success{exec.command=a} 0".to_owned()), "{lines:?}");
    }
}

#[tokio::test]
async fn programs_see_only_the_allowed_environment_and_no_input() {
    // Test programs run with many CARGO_ variables.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    let yaml = "commands: [{name: a, shell: true, command: 'env | grep -c CARGO; cat', ignore_exit_status: true}]";
    assert_eq!(values(yaml).await, ["a{} 0"]);
    let yaml = "commands: [{name: a, shell: true, command: 'echo $PORT', environment: {PORT: '8080'}}]";
    assert_eq!(values(yaml).await, ["a{} 8080"]);
}

#[tokio::test]
async fn programs_run_in_their_directory_and_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("number"), "9").unwrap();
    let started = Instant::now();
    let yaml = format!(
        "commands: [{{name: a, command: [cat, number], working_directory: {0}}}, {{name: b, command: [sleep, 1], format: none}}, {{name: c, command: [sleep, 1], format: none}}]",
        directory.path().display()
    );
    assert_eq!(values(&yaml).await, ["a{} 9"]);
    assert!(started.elapsed() < Duration::from_millis(1800), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (command, kind, text) in [
        (
            "command: [no-such-program-here]".to_owned(),
            FaultKind::NotFound,
            "cannot find `no-such-program-here`: is it installed",
        ),
        (format!("command: [{}]", file.path().display()), FaultKind::Permission, "may not be run"),
        (
            "command: [echo, 1], working_directory: /no/such".to_owned(),
            FaultKind::NotFound,
            "`working_directory` /no/such is no directory",
        ),
    ] {
        let (lines, result) = run(&format!("commands: [{{name: a, {command}}}]")).await;
        let fault = result.unwrap_err();
        assert_eq!(fault.kind, kind, "{}", fault.message);
        assert!(fault.message.contains(text), "{}", fault.message);
        assert_eq!(lines, ["exec.success{exec.command=a} 0"]);
    }
}

/// As printed by `nvidia-smi` with `--format=csv,noheader,nounits` for the preset's query; the
/// second card reports what consumer cards, MIG devices and broken sensors report.
const NVIDIA_OUTPUT: &str = "\
0, GPU-5bb5e2a2-3f1d-1c2b-9f57-000000000001, NVIDIA H100 80GB HBM3, 35, 12, 1024, 81559, 41, 75.31, 345, 2619
1, GPU-5bb5e2a2-3f1d-1c2b-9f57-000000000002, NVIDIA GeForce RTX 3060, [N/A], [Not Supported], 0, 12288, ERR!, [Unknown Error], N/A, [N/A]
";

fn fake_nvidia_smi(output: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("output"), output).unwrap();
    let script = format!(
        "case \"$1\" in --query-gpu=index,uuid,name,utilization.gpu,*) cat {}/output;; *) exit 9;; esac",
        directory.path().display()
    );
    std::fs::write(directory.path().join("nvidia-smi"), script).unwrap();
    let query = "--query-gpu=index,uuid,name,utilization.gpu,utilization.memory,memory.used,memory.total,temperature.gpu,power.draw,clocks.sm,clocks.mem";
    let yaml = format!(
        "commands: [{{preset: nvidia_smi, command: [/bin/sh, {}/nvidia-smi, '{query}']}}]",
        directory.path().display()
    );
    (directory, yaml)
}

#[tokio::test]
async fn the_preset_reads_gpus_and_missing_sensors_are_absent() {
    let (_directory, yaml) = fake_nvidia_smi(NVIDIA_OUTPUT);
    let first = "hw.type=gpu,index=0,hw.id=GPU-5bb5e2a2-3f1d-1c2b-9f57-000000000001,hw.name=NVIDIA H100 80GB HBM3";
    let second = "hw.type=gpu,index=1,hw.id=GPU-5bb5e2a2-3f1d-1c2b-9f57-000000000002,hw.name=NVIDIA GeForce RTX 3060";
    assert_eq!(
        values(&yaml).await,
        [
            format!("hw.gpu.utilization{{{first}}} 0.35"),
            format!("hw.gpu.memory.utilization{{{first}}} 0.12"),
            format!("hw.gpu.memory.usage{{{first}}} 1073741824"),
            format!("hw.gpu.memory.limit{{{first}}} 85520809984"),
            format!("hw.temperature{{{first}}} 41"),
            format!("hw.power{{{first}}} 75.31"),
            format!("hw.gpu.clock.sm{{{first}}} 345000000"),
            format!("hw.gpu.clock.memory{{{first}}} 2619000000"),
            format!("hw.gpu.memory.usage{{{second}}} 0"),
            format!("hw.gpu.memory.limit{{{second}}} 12884901888"),
        ]
    );
}

#[tokio::test]
async fn a_broken_driver_is_named() {
    let (_directory, yaml) =
        fake_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n");
    let (_, result) = run(&yaml).await;
    let message = result.unwrap_err().message;
    assert!(
        message.contains(
            "command `nvidia_smi`, line 1 of its output: expected 11 columns, found 1 in `NVIDIA-SMI has failed"
        ),
        "{message}"
    );
}

#[test]
fn the_preset_runs_nvidia_smi_without_further_options() {
    let exec = open("commands: [{preset: nvidia_smi}]").unwrap();
    let program = &exec.commands[0].program;
    assert_eq!(program.program, "nvidia-smi");
    assert_eq!(
        program.arguments,
        [
            "--query-gpu=index,uuid,name,utilization.gpu,utilization.memory,memory.used,memory.total,temperature.gpu,power.draw,clocks.sm,clocks.mem",
            "--format=csv,noheader,nounits"
        ]
    );
}

#[tokio::test]
async fn values_are_renamed_scaled_and_chosen() {
    let yaml = r#"
commands:
  - name: queue
    command: [printf, '{"items": [{"id": "a", "ms": 1500, "other": 1}, {"id": "b", "ms": 2}]}']
    format: json
    label_keys: [id]
    labels: {team: 42}
    metrics:
      items.ms: {name: queue.age, unit: s, scale: 0.001}
"#;
    assert_eq!(values(yaml).await, ["queue.age{team=42,id=a} 1.5", "queue.age{team=42,id=b} 0.002"]);
}

#[tokio::test]
async fn nagios_plugins_bring_state_and_values() {
    let yaml = "commands: [{name: disk, shell: true, format: nagios, command: \"echo 'DISK WARNING | /=2643MB;5948'; exit 1\"}]";
    assert_eq!(values(yaml).await, ["disk./{} 2771386368", "disk.state{} 1"]);
}

#[tokio::test]
async fn influx_lines_keep_names_tags_and_times() {
    let yaml =
        "commands: [{name: x, command: [printf, 'cpu,core=0 usage=1.5 1700000000000000000\\n'], format: influx}]";
    let mut out = MetricsBuilder::new("exec", Vec::new());
    out.begin(1_000, 1);
    open(yaml).unwrap().collect(&mut out).await.unwrap();
    let metrics = out.finish();
    let at = lines(&metrics).iter().position(|line| line == "cpu.usage{core=0} 1.5").unwrap();
    assert_eq!(metrics.numbers.time_unix_nano[at], 1_700_000_000_000_000_000);
}

#[tokio::test]
async fn prometheus_text_keeps_names_and_kinds_and_takes_the_configured_labels() {
    let script = Script::new(
        "cat <<'END'\n# TYPE jobs_total counter\njobs_total{queue=\"a\"} 3\n# TYPE depth gauge\ndepth{team=\"own\"} 1.5\nEND",
    );
    let yaml = |script: &Script| format!("commands: [{}]", script.yaml("format: prometheus, labels: {team: x}"));
    let mut values = values(&yaml(&script)).await;
    values.iter_mut().for_each(|line| *line = line.replace("queue=a,team=x", "team=x,queue=a"));
    assert_eq!(values, ["jobs_total{team=x,queue=a} 3", "depth{team=own} 1.5"]);
    let script = Script::new("echo 'good 1'; echo '}{ bad'");
    let (lines, result) = run(&yaml(&script)).await;
    let fault = result.unwrap_err();
    assert!(fault.message.starts_with("command `script`, line 2 of its output: "), "{}", fault.message);
    assert!(lines.contains(&"exec.samples{exec.command=script} 0".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn the_short_form_names_commands() {
    assert_eq!(values("commands: {three: echo 3, four: [echo, 4]}").await.len(), 2);
}

#[test]
fn the_own_sample_is_understood() {
    let node = Document::parse("sample", ABOUT.sample, &Environment).unwrap();
    let config = weir_config::read("sample", node.get("exec").unwrap(), "exec").unwrap();
    let mut exec = Exec::new(config, &context()).unwrap();
    assert_eq!(
        exec.watching().watched,
        ["nvidia_smi (nvidia-smi)", "sessions (/bin/sh)", "queue (/usr/local/bin/queue-status)"]
    );
}

#[test]
fn configurations_that_cannot_work_are_refused_with_the_remedy() {
    for (yaml, text) in [
        ("commands: []", "no `commands` are listed"),
        ("commands: {a: 'netstat -an | wc -l'}", "command `a`: `|` means something only to a shell: set `shell: true`"),
        ("commands: [{command: [echo]}]", "commands[0] has no `name`"),
        ("commands: [{name: a}]", "command `a`: `command` is missing"),
        ("commands: [{name: a, command: [x]}, {name: a, command: [y]}]", "two commands are named `a`"),
        ("commands: [{name: a, command: [x], shell: true}]", "one text, not a list"),
        (
            "commands: [{name: a, command: [x], timeout: 60s}]",
            "its `timeout` of 1m does not fit into the poll's timeout of 30s",
        ),
        ("commands: [{name: a, command: [x], format: csv, header: false}]", "`columns` must name the columns"),
        (
            "commands: [{name: a, command: [x], format: csv, columns: [b], label_columns: [c]}]",
            "column `c` is not among",
        ),
        ("commands: [{name: a, command: [x], format: prometheus, prefix: b}]", "leave out `prefix` and `metrics`"),
        ("commands: [{name: a, comand: [x]}]", "did you mean `command`"),
    ] {
        let error = open(yaml).unwrap_err();
        assert!(error.contains(text), "{yaml}: {error}");
    }
}

#[test]
fn secrets_of_the_environment_are_never_printed() {
    let exec = open("commands: [{name: a, command: [x], environment: {TOKEN: hunter2}}]").unwrap();
    assert!(!format!("{exec:?}").contains("hunter2"));
}
