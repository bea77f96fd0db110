//! `weir dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;
use weir_pipeline::control::{DoneView, ListQuery, OfflineLetters, Selected};

use crate::records::table::{age, table};
use crate::records::{Folder, Place, not_running};
use crate::say;

/// What can be done with dead letters.
#[derive(Subcommand)]
pub enum Command {
    /// What backends refused for good, newest first
    List {
        #[command(flatten)]
        place: Place,
        /// Of this exporter
        #[arg(long)]
        exporter: Option<String>,
        /// From this source
        #[arg(long)]
        source: Option<String>,
        /// Of this signal: metrics, logs or traces
        #[arg(long)]
        signal: Option<String>,
        /// Older than this one: the last one of the page before
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One with its reason, the backend's answer and its records, as JSON
    Show {
        #[command(flatten)]
        place: Place,
        /// Its id
        id: String,
    },
    /// Hand them to their exporters once more
    Replay(Which),
    /// Remove them for good
    Drop(Which),
    /// Write them as lines of OTLP/JSON, each of which any OTLP receiver takes
    Export(Which),
}

/// What names many of them.
const SCOPE: [&str; 4] = ["exporter", "source", "signal", "all"];

/// Some of them.
#[derive(Args)]
pub struct Which {
    #[command(flatten)]
    place: Place,
    /// Their ids
    #[arg(value_name = "ID", required_unless_present_any = SCOPE, conflicts_with_all = SCOPE)]
    ids: Vec<String>,
    /// Those of this exporter
    #[arg(long, conflicts_with = "all")]
    exporter: Option<String>,
    /// Those from this source
    #[arg(long, conflicts_with = "all")]
    source: Option<String>,
    /// Those of this signal: metrics, logs or traces
    #[arg(long, conflicts_with = "all")]
    signal: Option<String>,
    /// All
    #[arg(long)]
    all: bool,
}

impl Which {
    fn selected(&self) -> Selected {
        Selected {
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            exporter: self.exporter.clone(),
            source: self.source.clone(),
            signal: self.signal.clone(),
            all: self.all.then_some(true),
        }
    }
}

/// Does what the command says.
pub async fn run(command: &Command) -> Result<ExitCode, String> {
    match command {
        Command::List { place, exporter, source, signal, before, limit, json } => {
            let query = ListQuery {
                exporter: exporter.clone(),
                source: source.clone(),
                signal: signal.clone(),
                before: before.clone(),
                limit: Some(*limit),
            };
            list(&place.find().await?, &query, *json).await
        }
        Command::Show { place, id } => {
            let folder = place.find().await?;
            let letter: Value = match &folder.process {
                Some(process) => process.get(&format!("/api/v1/dead-letters/{}", encoded(id))).await?,
                None => as_json(offline(&folder).get(id).map_err(|error| error.to_string())?)?,
            };
            print(&letter)
        }
        Command::Replay(which) => {
            let Folder { path, process } = which.place.find().await?;
            let process = process.ok_or_else(|| not_running(&path))?;
            done("handed on again", &process.post("/api/v1/dead-letters/replay", &which.selected()).await?)
        }
        Command::Drop(which) => {
            let folder = which.place.find().await?;
            let dropped = match &folder.process {
                Some(process) => process.post("/api/v1/dead-letters/drop", &which.selected()).await?,
                None => offline(&folder).drop(&which.selected()).map_err(|error| error.to_string())?,
            };
            done("dropped", &dropped)
        }
        Command::Export(which) => {
            let folder = which.place.find().await?;
            let lines = match &folder.process {
                Some(process) => process.post_for_text("/api/v1/dead-letters/export", &which.selected()).await?,
                None => offline(&folder).export(&which.selected()).map_err(|error| error.to_string())?.into_bytes(),
            };
            Ok(say::out(&String::from_utf8_lossy(&lines)))
        }
    }
}

fn offline(folder: &Folder) -> OfflineLetters {
    OfflineLetters::open(&folder.path)
}

fn as_json(value: impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| error.to_string())
}

fn print(value: &Value) -> Result<ExitCode, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Ok(say::out(&format!("{text}\n")))
}

fn done(what: &str, done: &DoneView) -> Result<ExitCode, String> {
    let mut text = format!("{} {what}", done.done);
    if done.left > 0 {
        text.push_str(&format!(", {} left", done.left));
    }
    if let Some(reason) = &done.reason {
        text.push_str(&format!(": {reason}"));
    }
    let said = say::out(&format!("{text}\n"));
    Ok(if done.left > 0 { ExitCode::FAILURE } else { said })
}

async fn list(folder: &Folder, query: &ListQuery, json: bool) -> Result<ExitCode, String> {
    let page: Value = match &folder.process {
        Some(process) => {
            let query = serde_urlencoded(query)?;
            process.get(&format!("/api/v1/dead-letters?{query}")).await?
        }
        None => as_json(offline(folder).list(query).map_err(|error| error.to_string())?)?,
    };
    if json {
        return print(&page);
    }
    let letters = page.get("dead_letters").and_then(Value::as_array).cloned().unwrap_or_default();
    let total = page.get("total").and_then(Value::as_u64).unwrap_or(0);
    if letters.is_empty() {
        return Ok(say::out("there are no dead letters\n"));
    }
    let text = |letter: &Value, key: &str| match letter.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let cells = |letter: &Value| {
        let last_ms = letter.get("last_ms").and_then(Value::as_i64).unwrap_or(now_ms);
        let reason: String = text(letter, "reason").chars().take(90).collect();
        vec![
            text(letter, "id"),
            text(letter, "exporter"),
            text(letter, "source"),
            text(letter, "signal"),
            text(letter, "records"),
            text(letter, "times"),
            format!("{} ago", age(now_ms.saturating_sub(last_ms).max(0) as f64 / 1000.0)),
            reason,
        ]
    };
    let rows: Vec<Vec<String>> = letters.iter().map(cells).collect();
    let head = ["id", "exporter", "source", "signal", "records", "times", "last", "reason"];
    let mut out = table(&head, &rows);
    if total > letters.len() as u64 {
        let last = letters.last().map(|letter| text(letter, "id")).unwrap_or_default();
        let filters = [("exporter", &query.exporter), ("source", &query.source), ("signal", &query.signal)];
        let filters = filters.into_iter().filter_map(|(name, value)| Some(format!("--{name} {} ", value.as_ref()?)));
        let filters: String = filters.collect();
        let shown = letters.len();
        out.push_str(&format!("{shown} of {total}; older ones: weir dead-letters list {filters}--before {last}\n"));
    }
    Ok(say::out(&out))
}

/// A text as a part of an address (RFC 3986 §2.1).
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The query of an address (`application/x-www-form-urlencoded`).
fn serde_urlencoded(query: &ListQuery) -> Result<String, String> {
    let Value::Object(fields) = as_json(query)? else { return Ok(String::new()) };
    let fields = fields.iter().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{key}={}", encoded(&value))
    });
    Ok(fields.collect::<Vec<_>>().join("&"))
}
