//! Telemetry in the terminal: what passes, as people read it, without a backend.
//!
//! - `render.rs`: a delivery as text; `host.rs`: a machine as a block; `itself.rs`: Weir as a line of it
//! - `row.rs`: a row of a block; `units.rs`: numbers as people read them; `rates.rs`: what is remembered
//! - `style.rs`: width and colour
//! - `readable.rs` (of the crate): the JSON object of a record

mod host;
mod itself;
mod rates;
mod render;
mod row;
mod style;
mod units;

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::Signal;
use weir_pipeline::{About, Context, Delivery, Export, Fault, Kind, Outcome, Takes};

use crate::readable;
use render::{State, render};
use style::Style;

/// Options of `console`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `pretty` for people, `json` for programs: one object per line. Default: `pretty`.
    format: Format,
    /// `auto` (on a terminal, unless `NO_COLOR` is set), `always` or `never`. Default: `auto`.
    color: Color,
    /// `stdout` or `stderr`. Default: `stdout`.
    output: Output,
    /// Most lines of series, logs or spans per delivery; `0` = all. Default: 40 on a terminal, else all.
    max_lines: Option<usize>,
}

/// For whom the output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object per record and line.
    Json,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Color {
    /// On a terminal that has not asked for none.
    #[default]
    Auto,
    /// Also in files and pipes.
    Always,
    /// Nowhere.
    Never,
}

/// Where the output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

const ABOUT: About = About {
    name: "console",
    summary: "Shows metrics, logs and traces in the terminal, readable at a glance",
    details: r#"Writes what it gets to standard output or standard error. Nothing has to be set up; it is the quickest way to
see whether a source works.

**pretty.** The metrics of a machine become one block: CPU, memory, disks, network, with rates from the difference to
the delivery before, so they appear with the second one. Values above 90 % are red. The last line of the block is
Weir about itself: `all well`, or one line for every trouble. On a narrow terminal the less important parts of a line
are left out. Every other series is one line
with its value in a readable unit, and the rate for counters. Logs are `time SEVERITY service message key=value`, spans
`time service name duration status`. Times are local; the date stands before those that are not of today. Lines are
cut to the width of the terminal (`COLUMNS`, else what the terminal says, else 100) and limited to `max_lines` per
delivery; into files and pipes they go whole and without colours, and bars are plain characters. The cursor is never
moved, so the output works in tmux and in logs. Control characters in the data are written as `\u{1b}`.

**json.** One object per record and line, the same objects as the encoding `ndjson` of `webhook`.

**Limits.** When nobody reads the output any more (a closed pipe), records are refused and counted, and the rest of
Weir goes on. The console is not a backend: it keeps nothing.
"#,
    sample: r#"console:
  format: pretty
  color: auto
  output: stdout
  max_lines: 40
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `console`.
pub const KIND: Kind = Kind::export::<Console>(ABOUT).that_waits_in_memory();

/// Columns where nothing says how wide the output is.
const DEFAULT_WIDTH: usize = 100;

/// Lines per delivery on a terminal.
const DEFAULT_MAX_LINES: usize = 40;

/// The exporter.
pub struct Console {
    config: Config,
    state: Mutex<State>,
}

impl Output {
    fn is_terminal(self) -> bool {
        match self {
            Output::Stdout => io::stdout().is_terminal(),
            Output::Stderr => io::stderr().is_terminal(),
        }
    }

    fn terminal_width(self) -> Option<usize> {
        let size = match self {
            Output::Stdout => terminal_size::terminal_size_of(io::stdout()),
            Output::Stderr => terminal_size::terminal_size_of(io::stderr()),
        };
        size.map(|(width, _)| usize::from(width.0))
    }

    /// Everything at once, so that the output of others never falls in between.
    fn write(self, text: &[u8]) -> io::Result<()> {
        let whole = |out: &mut dyn Write| out.write_all(text).and_then(|()| out.flush());
        match self {
            Output::Stdout => whole(&mut io::stdout().lock()),
            Output::Stderr => whole(&mut io::stderr().lock()),
        }
    }
}

/// What the environment says about the terminal.
struct Surroundings {
    is_terminal: bool,
    terminal_width: Option<usize>,
    /// `COLUMNS`.
    columns: Option<usize>,
    /// `NO_COLOR` (no-color.org) or a terminal without colours.
    no_color: bool,
    /// The character set of the locale is UTF-8, or there is none.
    utf8: bool,
}

impl Surroundings {
    fn of(output: Output) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // The first of these that is set decides (POSIX, "Environment Variables").
        // Where none is, as in most containers, the terminal outside is one of today's.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let locale = locale.map_or_else(|| "utf-8".to_owned(), |locale| locale.to_lowercase());
        Self {
            is_terminal: output.is_terminal(),
            terminal_width: output.terminal_width(),
            columns: set("COLUMNS").and_then(|columns| columns.parse().ok()),
            no_color: set("NO_COLOR").is_some() || set("TERM").as_deref() == Some("dumb"),
            utf8: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn style(&self, config: &Config) -> Style {
        let width = self.columns.or(self.terminal_width).filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH);
        let default_lines = if self.is_terminal { DEFAULT_MAX_LINES } else { usize::MAX };
        Style {
            width: width.max(40),
            cut: self.is_terminal,
            color: match config.color {
                Color::Auto => self.is_terminal && !self.no_color,
                Color::Always => true,
                Color::Never => false,
            },
            unicode: self.is_terminal && self.utf8,
            max_lines: config.max_lines.map_or(default_lines, |lines| if lines == 0 { usize::MAX } else { lines }),
        }
    }
}

/// One JSON object per record and line.
fn json_lines(delivery: &Delivery) -> Result<Vec<u8>, String> {
    let decoded = readable::decode(delivery).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    for record in readable::all(&decoded) {
        serde_json::to_writer(&mut out, &record).map_err(|error| error.to_string())?;
        out.push(b'\n');
    }
    Ok(out)
}

/// What a failed write means.
fn judge(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Outcome::Never { why: "nobody reads the console's output any more".into() },
        _ => Outcome::Later { after: None, why: format!("cannot write to the console: {error}") },
    }
}

impl Export for Console {
    type Config = Config;

    fn new(config: Config, _: &Context) -> Result<Self, Fault> {
        Ok(Self { config, state: Mutex::new(State::new(TimeZone::system())) })
    }

    fn takes(&self) -> Takes {
        // In order, for people and for rates.
        Takes { ordered: true, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let output = self.config.output;
        let text = match self.config.format {
            Format::Json => json_lines(delivery),
            Format::Pretty => {
                let style = Surroundings::of(output).style(&self.config);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                render(delivery, &mut state, &style, u64::try_from(now).unwrap_or(u64::MAX))
                    .map(String::into_bytes)
                    .map_err(|error| error.to_string())
            }
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => return Outcome::Never { why: format!("the records cannot be read: {error}") },
        };
        // A terminal that is stopped (Ctrl-S) holds only this thread.
        match tokio::task::spawn_blocking(move || output.write(&text)).await {
            Ok(Ok(())) => Outcome::Accepted,
            Ok(Err(error)) => judge(&error),
            Err(error) => Outcome::Later { after: None, why: format!("writing to the console broke off: {error}") },
        }
    }

    async fn check(&self) -> Result<String, Fault> {
        let output = self.config.output;
        let name = if output == Output::Stdout { "standard output" } else { "standard error" };
        Ok(match output.terminal_width() {
            Some(columns) if output.is_terminal() => format!("writes to {name}, a terminal of {columns} columns"),
            _ => format!("writes to {name}, which is not a terminal"),
        })
    }
}

#[cfg(test)]
mod tests;
