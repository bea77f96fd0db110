//! The configuration of `exec`, and its check.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use weir_config::{ByteSize, Secret, Text};
use weir_pipeline::{Context, Fault};

use super::csv::CsvOptions;
use super::json::JsonOptions;
use super::preset::Preset;
use super::run::Program;
use super::sample::{Naming, ValueConfig};
use super::{Command, Reading};

/// Runs programs and turns what they print into metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecConfig {
    /// The programs: a list, or the short form `NAME: COMMAND` for programs that print one number.
    pub commands: Commands,
}

/// One program and how its output is read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommandConfig {
    /// Name of the command: label `exec.command`, and the first part of its metrics' names.
    pub name: String,
    /// A ready-made command; every other key here overrides what it brings.
    pub preset: Option<Preset>,
    /// Program and arguments as a list; or as one text, which is split at blanks (with `shell: true` it is handed to a shell instead).
    pub command: Option<CommandLine>,
    /// Run the text through `/bin/sh -c`, for pipes, variables and wildcards. Default false.
    pub shell: bool,
    /// Directory that the program starts in. Default: the agent's own.
    pub working_directory: Option<PathBuf>,
    /// Variables of its environment, besides `PATH`, `HOME` and `LANG`; it sees no other of the agent's.
    pub environment: BTreeMap<String, Secret>,
    /// Longest time it may take; then its whole process group gets SIGTERM and, 2 s later, SIGKILL. Default 10s, or what the poll's timeout leaves.
    pub timeout: Option<weir_config::Duration>,
    /// Most bytes that it may print before it is stopped. Default 1MiB.
    pub max_output: ByteSize,
    /// Whether its output counts whatever its exit status is. Default false.
    pub ignore_exit_status: bool,
    /// Format of what it prints. Default `value`.
    pub format: Option<Format>,
    /// First part of the metrics' names. Default: the name; nothing for `influx` and `prometheus`, whose values bring full names.
    pub prefix: Option<String>,
    /// Labels on all of its metrics.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub labels: BTreeMap<String, String>,
    /// Which values become which metric, by JSON path, column or `measurement.field`. Without it every number becomes a gauge.
    pub metrics: BTreeMap<String, ValueConfig>,
    /// JSON: keys whose values become labels of everything in their object, for example `[id, name]`.
    pub label_keys: Vec<String>,
    /// JSON: whether texts that are numbers count as numbers. Default false.
    pub numbers_in_strings: bool,
    /// CSV: the character between cells. Default `,`.
    pub delimiter: String,
    /// CSV: whether the first line is a header. Default: true without `columns`, false with them.
    pub header: Option<bool>,
    /// CSV: names of the columns, where no header gives them.
    pub columns: Vec<String>,
    /// CSV: columns that become labels of their row.
    pub label_columns: Vec<String>,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            preset: None,
            command: None,
            shell: false,
            working_directory: None,
            environment: BTreeMap::new(),
            timeout: None,
            max_output: ByteSize::from_mebibytes(1),
            ignore_exit_status: false,
            format: None,
            prefix: None,
            labels: BTreeMap::new(),
            metrics: BTreeMap::new(),
            label_keys: Vec::new(),
            numbers_in_strings: false,
            delimiter: ",".into(),
            header: None,
            columns: Vec::new(),
            label_columns: Vec::new(),
        }
    }
}

/// How output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One number, perhaps with a unit behind it.
    #[default]
    Value,
    /// Nothing is read: only duration and exit status count.
    None,
    /// JSON, one or several documents.
    Json,
    /// Rows and columns.
    Csv,
    /// InfluxDB line protocol.
    Influx,
    /// Prometheus' text format, or OpenMetrics if it ends with `# EOF`.
    Prometheus,
    /// A Nagios plugin: state from the exit status, values from its performance data.
    Nagios,
}

/// Program and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// One by one.
    Words(Vec<String>),
    /// As one text.
    Line(String),
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CommandLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command as text, or program and arguments as a list")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<CommandLine, E> {
                Ok(CommandLine::Line(line.to_owned()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<CommandLine, A::Error> {
                let mut words = Vec::new();
                while let Some(Text(word)) = items.next_element()? {
                    words.push(word);
                }
                Ok(CommandLine::Words(words))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for CommandLine {
    fn schema_name() -> Cow<'static, str> {
        "CommandLine".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<Text>();
        json_schema!({ "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": word, "minItems": 1 }] })
    }
}

/// The commands in either form.
#[derive(Clone, Debug, Default)]
pub struct Commands(pub Vec<CommandConfig>);

impl<'de> Deserialize<'de> for Commands {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Commands;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of commands, or names with their commands")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Commands, E> {
                Ok(Commands::default())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Commands, A::Error> {
                let mut commands = Vec::new();
                while let Some(command) = items.next_element()? {
                    commands.push(command);
                }
                Ok(Commands(commands))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Commands, A::Error> {
                let mut commands = Vec::new();
                while let Some((name, line)) = entries.next_entry()? {
                    commands.push(CommandConfig { name, command: Some(line), ..CommandConfig::default() });
                }
                Ok(Commands(commands))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Commands {
    fn schema_name() -> Cow<'static, str> {
        "Commands".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let command = generator.subschema_for::<CommandConfig>();
        let line = generator.subschema_for::<CommandLine>();
        json_schema!({ "anyOf": [
            { "type": "array", "items": command },
            { "type": "object", "additionalProperties": line }
        ] })
    }
}

/// The time that a program may take when nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Characters that only a shell understands.
const SHELL_CHARACTERS: [char; 13] = ['|', '>', '<', ';', '&', '$', '`', '"', '\'', '*', '(', ')', '\\'];

/// Checks the commands and brings them into the form that is run.
pub(super) fn checked(config: ExecConfig, context: &Context) -> Result<Vec<Command>, Fault> {
    let mut commands: Vec<Command> = Vec::new();
    for (at, command) in config.commands.0.into_iter().enumerate() {
        let command = checked_command(command, at, context)?;
        if commands.iter().any(|other| other.name == command.name) {
            return Err(Fault::configuration(format!(
                "two commands are named `{}`: give each its own `name`",
                command.name
            )));
        }
        commands.push(command);
    }
    if commands.is_empty() {
        return Err(Fault::configuration("no `commands` are listed: there is nothing to run"));
    }
    Ok(commands)
}

fn checked_command(mut config: CommandConfig, at: usize, context: &Context) -> Result<Command, Fault> {
    if let Some(preset) = config.preset {
        preset.apply(&mut config);
        if config.name.is_empty() {
            preset.name().clone_into(&mut config.name);
        }
    }
    if config.name.is_empty() {
        return Err(Fault::configuration(format!("commands[{at}] has no `name`: its metrics are named after it")));
    }
    let wrong = |problem: String| Fault::configuration(format!("command `{}`: {problem}", config.name));
    let (program, arguments) = split(config.command.as_ref(), config.shell).map_err(wrong)?;
    let (timeout, grace) = limits(config.timeout, context.timeout).map_err(wrong)?;
    let max_output_bytes = usize::try_from(config.max_output.bytes()).unwrap_or(usize::MAX);
    let reading = reading(&config).map_err(wrong)?;
    let prefix = match (&config.prefix, &reading) {
        (Some(prefix), _) => prefix.clone(),
        (None, Reading::Influx | Reading::Prometheus) => String::new(),
        (None, _) => config.name.clone(),
    };
    Ok(Command {
        program: Program {
            program,
            arguments,
            working_directory: config.working_directory,
            environment: config.environment.into_iter().collect(),
            timeout,
            grace,
            max_output_bytes,
        },
        ignore_exit_status: config.ignore_exit_status,
        reading,
        naming: Naming { prefix, labels: config.labels.into_iter().collect(), values: config.metrics },
        name: config.name,
    })
}

/// The program and its arguments.
fn split(command: Option<&CommandLine>, shell: bool) -> Result<(String, Vec<String>), String> {
    let missing = || "`command` is missing: write program and arguments as a list".to_owned();
    let mut words = match command.ok_or_else(missing)? {
        CommandLine::Line(line) if shell => return Ok(("/bin/sh".into(), vec!["-c".into(), line.clone()])),
        CommandLine::Words(_) if shell => {
            return Err("with `shell: true` the command is one text, not a list".into());
        }
        CommandLine::Line(line) => {
            if let Some(found) = line.chars().find(|c| SHELL_CHARACTERS.contains(c)) {
                return Err(format!(
                    "`{found}` means something only to a shell: set `shell: true`, or write program and arguments as a list"
                ));
            }
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
        }
        CommandLine::Words(words) => words.clone().into_iter(),
    };
    let program = words.next().filter(|program| !program.is_empty()).ok_or_else(missing)?;
    Ok((program, words.collect()))
}

/// Timeout and grace of a program: both together end before the poll does, because the runner
/// cuts a poll that takes longer, and with it what the other commands said.
fn limits(configured: Option<weir_config::Duration>, poll: Duration) -> Result<(Duration, Duration), String> {
    let grace = GRACE.min(poll / 8);
    // Ending takes the grace twice at most: for SIGTERM, and for SIGKILL to work.
    let most = poll.saturating_sub(grace * 2).mul_f64(0.95);
    match configured.map(weir_config::Duration::get) {
        None => Ok((DEFAULT_TIMEOUT.min(most), grace)),
        Some(timeout) if timeout.is_zero() => Err("`timeout` must be longer than 0s".into()),
        Some(timeout) if timeout > most => Err(format!(
            "its `timeout` of {} does not fit into the poll's timeout of {} (the time to stop it included): raise `timeout` of the whole block",
            weir_config::Duration::from(timeout),
            weir_config::Duration::from(poll)
        )),
        Some(timeout) => Ok((timeout, grace)),
    }
}

fn reading(config: &CommandConfig) -> Result<Reading, String> {
    Ok(match config.format.unwrap_or_default() {
        Format::None => Reading::None,
        Format::Value => Reading::Value,
        Format::Influx => Reading::Influx,
        Format::Prometheus if config.prefix.is_some() || !config.metrics.is_empty() => {
            return Err(
                "with format `prometheus` the metrics keep their names: leave out `prefix` and `metrics`".into()
            );
        }
        Format::Prometheus => Reading::Prometheus,
        Format::Nagios => Reading::Nagios,
        Format::Json => Reading::Json(JsonOptions {
            label_keys: config.label_keys.clone(),
            numbers_in_strings: config.numbers_in_strings,
        }),
        Format::Csv => Reading::Csv(csv_options(config)?),
    })
}

fn csv_options(config: &CommandConfig) -> Result<CsvOptions, String> {
    let delimiter = match config.delimiter.as_str() {
        "\\t" => b'\t',
        text => match text.as_bytes() {
            [one] if one.is_ascii() && !matches!(one, b'"' | b'\n' | b'\r') => *one,
            _ => return Err("`delimiter` must be one ASCII character such as `;`, or `\\t` for a tab".into()),
        },
    };
    let has_header = config.header.unwrap_or(config.columns.is_empty());
    if !has_header && config.columns.is_empty() {
        return Err("without a header `columns` must name the columns".into());
    }
    if !config.columns.is_empty() {
        let unknown =
            config.label_columns.iter().chain(config.metrics.keys()).find(|name| !config.columns.contains(name));
        if let Some(unknown) = unknown {
            return Err(format!("column `{unknown}` is not among `columns`"));
        }
    }
    Ok(CsvOptions {
        delimiter,
        has_header,
        columns: config.columns.clone(),
        label_columns: config.label_columns.clone(),
        number_columns: config.metrics.keys().cloned().collect(),
    })
}
