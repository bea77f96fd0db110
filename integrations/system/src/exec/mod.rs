//! `exec`: runs programs and turns what they print into metrics.
//!
//! Needs the right to run them, nothing else. `run.rs` runs one program, `json.rs`, `csv.rs`,
//! `influx.rs` and `nagios.rs` read what it printed, `sample.rs` makes metrics of it, `config.rs`
//! checks the configuration, `preset.rs` brings ready-made commands.

mod cell;
mod config;
mod csv;
mod influx;
mod json;
mod nagios;
mod preset;
mod run;
mod sample;
#[cfg(test)]
mod tests;

use futures_util::stream::{FuturesUnordered, StreamExt};
use weir_model::Signal;
use weir_model::exposition::{self, Attach, Format, Options};
use weir_model::metrics::Number;
use weir_pipeline::{
    About, Collect, Context, Fault, FaultKind, Kind, MetricDescription, MetricKind, MetricsBuilder, Watching,
};

pub use config::ExecConfig;

use self::cell::Cell;
use self::csv::CsvOptions;
use self::json::JsonOptions;
use self::run::{Ending, Finished, Program};
use self::sample::{BadOutput, Naming, Sample, shown};

const ABOUT: About = About {
    name: "exec",
    summary: "Runs programs and turns what they print into metrics",
    details: r#"Runs every command once per poll, all at the same time, and reads its standard output.

**Formats** (`format`)

- `value` (default): one number, perhaps with a unit behind it. The metric is named like the command.
- `json`: every number at any depth becomes a metric `NAME.path.to.number`; booleans are 0 and 1. Elements of arrays
  are told apart by the keys in `label_keys`, or else by their position in the label `index`.
- `csv`: every column of numbers becomes a metric `NAME.column`; `label_columns` become labels. Units in cells
  (`35 %`, `1024 MiB`) are left out; `[N/A]`, `[Not Supported]`, `ERR!` and the like mean that there is no value.
- `influx`: line protocol; `measurement.field`, tags become labels, timestamps are kept.
- `prometheus`: the text format of Prometheus, or OpenMetrics; metrics keep their names, kinds, histograms and timestamps.
  One wrong line refuses the whole output.
- `nagios`: performance data of a Nagios plugin, and its exit status 0 to 3 as `NAME.state`.
- `none`: only duration and exit status count.

With `metrics` only the values listed there become metrics, under the name, unit, kind and scale given there.

**How programs run.** Without a shell unless `shell: true`: the text is split at blanks. With closed input, and of the agent's
environment only `PATH`, `HOME` and `LANG`; more in `environment`. In a process group of their own: at the end of
`timeout` (10s) the whole group gets SIGTERM and 2 s later SIGKILL, and nothing in that group survives the command in any
case. More output than `max_output` (1MiB) stops it too. An exit status other than 0 is an error
unless `ignore_exit_status: true`; what was printed before is not read then.

**GPUs**: `preset: nvidia_smi` brings command, columns and units for `nvidia-smi`.

**Limits.** A process that leaves its group (a daemon) is not stopped. Programs run with the rights of the agent.

**Troubleshooting.** `exec.success` is 0 for a command that failed; the reason, with the end of its error output, stands in
the agent's log and in its health. `exec.samples` tells how many numbers were read: 0 means the format does not fit the output."#,
    sample: r#"exec:
  commands:
    - preset: nvidia_smi
    - name: sessions
      command: "who | wc -l"
      shell: true
    - name: queue
      command: [/usr/local/bin/queue-status, --json]
      format: json
      label_keys: [name]
"#,
    metrics: METRICS,
    signals: &[Signal::Metrics],
};

const DURATION: MetricDescription<'static> =
    MetricDescription { name: "exec.duration", unit: "s", kind: MetricKind::Gauge, help: "How long the command ran." };
const EXIT_CODE: MetricDescription<'static> = MetricDescription {
    name: "exec.exit_code",
    unit: "1",
    kind: MetricKind::Gauge,
    help: "Exit status of the command; absent if it was stopped or killed.",
};
const SUCCESS: MetricDescription<'static> = MetricDescription {
    name: "exec.success",
    unit: "1",
    kind: MetricKind::Gauge,
    help: "1 if the command ended well and its output could be read, else 0.",
};
const SAMPLES: MetricDescription<'static> = MetricDescription {
    name: "exec.samples",
    unit: "{sample}",
    kind: MetricKind::Gauge,
    help: "How many numbers were read from the output.",
};

/// The collector's own metrics and those of the presets; those of other commands depend on what they print.
const METRICS: &[MetricDescription<'static>] = &[
    DURATION,
    EXIT_CODE,
    SUCCESS,
    SAMPLES,
    preset::UTILIZATION,
    preset::MEMORY_UTILIZATION,
    preset::MEMORY_USAGE,
    preset::MEMORY_LIMIT,
    preset::TEMPERATURE,
    preset::POWER,
    preset::CLOCK_SM,
    preset::CLOCK_MEMORY,
];

/// The `exec` collector.
pub const KIND: Kind = Kind::collect::<Exec>(ABOUT);

/// How output is read, with the options of that format.
#[derive(Clone, Debug)]
enum Reading {
    None,
    Value,
    Json(JsonOptions),
    Csv(CsvOptions),
    Influx,
    Prometheus,
    Nagios,
}

/// A checked command.
#[derive(Clone, Debug)]
struct Command {
    name: String,
    program: Program,
    ignore_exit_status: bool,
    reading: Reading,
    naming: Naming,
}

/// Runs the configured commands.
#[derive(Debug)]
pub struct Exec {
    commands: Vec<Command>,
}

impl Collect for Exec {
    type Config = ExecConfig;

    fn new(config: ExecConfig, context: &Context) -> Result<Self, Fault> {
        Ok(Self { commands: config::checked(config, context)? })
    }

    fn watching(&mut self) -> Watching {
        let watched = self.commands.iter().map(|command| format!("{} ({})", command.name, command.program.program));
        Watching { watched: watched.collect(), not_watched: Vec::new() }
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let mut running: FuturesUnordered<_> = self
            .commands
            .iter()
            .enumerate()
            .map(|(at, command)| async move { (at, command, Box::pin(command.program.run()).await) })
            .collect();
        let mut faults: Vec<(usize, Fault)> = Vec::new();
        while let Some((at, command, finished)) = running.next().await {
            if let Err(fault) = command.record(finished, out) {
                faults.push((at, fault));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        together(faults.into_iter().map(|(_, fault)| fault))
    }
}

/// All faults as one, of the first one's kind.
fn together(faults: impl Iterator<Item = Fault>) -> Result<(), Fault> {
    let whole = faults.reduce(|first, next| Fault::new(first.kind, format!("{}; {}", first.message, next.message)));
    whole.map_or(Ok(()), Err)
}

impl Command {
    /// Records how the command went and what it said.
    fn record(&self, finished: std::io::Result<Finished>, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let labels = [("exec.command", self.name.as_str())];
        let result = match finished {
            Ok(finished) => {
                out.record(&DURATION, &labels, finished.duration.as_secs_f64());
                if let Ending::Exited(status) = finished.ending {
                    out.record(&EXIT_CODE, &labels, i64::from(status));
                }
                self.judge(&finished).and_then(|()| self.read(&finished, out))
            }
            Err(error) => Err(self.not_started(&error)),
        };
        out.record(&SUCCESS, &labels, i64::from(result.is_ok()));
        result
    }

    /// Whether the command ended so that its output counts.
    fn judge(&self, finished: &Finished) -> Result<(), Fault> {
        let (name, program) = (&self.name, &self.program);
        let (kind, what) = match finished.ending {
            Ending::Exited(0) => return Ok(()),
            Ending::Exited(_) | Ending::Signalled(_) if self.ignore_exit_status => return Ok(()),
            Ending::Exited(status) if matches!(self.reading, Reading::Nagios) && nagios::is_state(status) => {
                return Ok(());
            }
            Ending::Exited(status) => (FaultKind::Other, format!("ended with exit status {status}")),
            Ending::Signalled(signal) => (FaultKind::Other, format!("was killed by signal {signal}")),
            Ending::TimedOut => (
                FaultKind::TimedOut,
                format!("did not end within {} and was stopped", weir_config::Duration::from(program.timeout)),
            ),
            Ending::TooMuchOutput => (
                FaultKind::TooLarge,
                format!(
                    "printed more than {} bytes and was stopped; `max_output` sets the limit",
                    program.max_output_bytes
                ),
            ),
        };
        let tail = String::from_utf8_lossy(&finished.stderr_tail);
        let tail: Vec<&str> = tail.split_whitespace().collect();
        let said = if tail.is_empty() { String::new() } else { format!(": {}", tail.join(" ")) };
        Err(Fault::new(kind, format!("command `{name}` {what}{said}")))
    }

    fn not_started(&self, error: &std::io::Error) -> Fault {
        let (name, program) = (&self.name, &self.program.program);
        let directory = self.program.working_directory.as_ref().filter(|directory| !directory.is_dir());
        match (error.kind(), directory) {
            (_, Some(directory)) => {
                let directory = directory.display();
                Fault::new(
                    FaultKind::NotFound,
                    format!("command `{name}`: `working_directory` {directory} is no directory"),
                )
            }
            (std::io::ErrorKind::NotFound, None) => Fault::new(
                FaultKind::NotFound,
                format!("command `{name}`: cannot find `{program}`: is it installed, and is its full path given?"),
            ),
            (std::io::ErrorKind::PermissionDenied, None) => Fault::new(
                FaultKind::Permission,
                format!("command `{name}`: `{program}` may not be run by the agent's user: check owner and mode"),
            ),
            _ => Fault::new(FaultKind::Other, format!("command `{name}`: cannot start `{program}`: {error}")),
        }
    }

    /// Reads the output; what stood before a mistake is kept.
    fn read(&self, finished: &Finished, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let (count, result) = match self.reading {
            Reading::Prometheus => self.exposition(&finished.stdout, out),
            _ => self.samples(finished, out),
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        out.record(&SAMPLES, &[("exec.command", self.name.as_str())], count);
        result.map_err(|BadOutput { line, problem }| {
            Fault::new(FaultKind::Decode, format!("command `{}`, line {line} of its output: {problem}", self.name))
        })
    }

    /// Records Prometheus' text formats, which bring kinds and histograms of their own.
    fn exposition(&self, output: &[u8], out: &mut MetricsBuilder) -> (usize, Result<(), BadOutput>) {
        let is_open_metrics = output.trim_ascii_end().ends_with(b"\n# EOF");
        let format = if is_open_metrics { Format::OpenMetrics } else { Format::Text };
        let labels: Vec<(&str, &str)> =
            self.naming.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        // As in the other formats, what the program says wins over what is configured.
        let attach = Attach { labels: &labels, honor_labels: true, ..Attach::default() };
        match exposition::parse(output, format, &Options { attach, ..Options::default() }, out) {
            Ok(parsed) => (parsed.samples, Ok(())),
            Err(error) => {
                let line = u64::try_from(error.line).unwrap_or(u64::MAX);
                (0, Err(BadOutput::new(line, error.message)))
            }
        }
    }

    /// Records the formats that are read into samples.
    fn samples(&self, finished: &Finished, out: &mut MetricsBuilder) -> (usize, Result<(), BadOutput>) {
        let mut samples = Vec::new();
        let result = self.parse(&finished.stdout, &mut samples);
        for sample in &samples {
            self.naming.record(sample, out);
        }
        if let (Reading::Nagios, Ending::Exited(status)) = (&self.reading, finished.ending) {
            self.naming.record(&Sample::gauge("state", Vec::new(), Number::Int(i64::from(status))), out);
        }
        (samples.len(), result)
    }

    fn parse(&self, output: &[u8], samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
        if let Reading::Json(options) = &self.reading {
            return json::parse(output, options, samples);
        }
        let (text, valid) = valid_text(output);
        if text.is_empty() {
            valid.clone()?;
        }
        match &self.reading {
            Reading::None | Reading::Json(_) | Reading::Prometheus => return Ok(()),
            Reading::Value => value(text, samples),
            Reading::Csv(options) => csv::parse(text, options, samples),
            Reading::Influx => influx::parse(text, samples),
            Reading::Nagios => nagios::parse(text, samples),
        }
        .and(valid)
    }
}

/// The lines before the first byte that is no UTF-8, and the mistake if there is one.
fn valid_text(output: &[u8]) -> (&str, Result<(), BadOutput>) {
    let Err(error) = std::str::from_utf8(output) else {
        return (std::str::from_utf8(output).unwrap_or_default(), Ok(()));
    };
    let valid = output.get(..error.valid_up_to()).unwrap_or_default();
    let text = std::str::from_utf8(valid).unwrap_or_default();
    let whole_lines = text.rfind('\n').and_then(|end| text.get(..=end)).unwrap_or_default();
    let line = u64::try_from(whole_lines.matches('\n').count()).unwrap_or(u64::MAX - 1) + 1;
    (whole_lines, Err(BadOutput::new(line, "expected UTF-8 text, found other bytes")))
}

/// Output that is one number.
fn value(text: &str, samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
    match cell::read(text) {
        Cell::Number(number) => samples.push(Sample::gauge("", Vec::new(), number)),
        Cell::Absent if !text.trim().is_empty() => {}
        Cell::Absent => return Err(BadOutput::new(1, "expected one number, the output is empty")),
        Cell::Text => {
            let problem = format!("expected one number, found `{}`; other formats need `format`", shown(text));
            return Err(BadOutput::new(1, problem));
        }
    }
    Ok(())
}
