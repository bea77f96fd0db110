//! `weir queue`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Subcommand;
use weir_model::{Payload, Wire};
use weir_pipeline::control::{QueueView, QueuesView};
use weir_pipeline::disk::RealDisk;
use weir_pipeline::options::WhenFull;
use weir_pipeline::queue::{self, Exported, Key, OpenError, QueueKind, Survey};
use weir_pipeline::storage;

use crate::records::table::{age, bytes, table};
use crate::records::{Folder, Place};
use crate::say;

/// What can be done with queues.
#[derive(Subcommand)]
pub enum Command {
    /// What waits for every exporter, and how old it is
    Status {
        #[command(flatten)]
        place: Place,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every byte of the queues on disk and say what is damaged
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Write what waits as lines of OTLP/JSON, each of which any OTLP receiver takes
    Export {
        #[command(flatten)]
        place: Place,
        /// Only what waits for this exporter
        #[arg(long)]
        exporter: Option<String>,
        /// File with the key, if the queues are encrypted
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

/// Does what the command says.
pub async fn run(command: &Command) -> Result<ExitCode, String> {
    match command {
        Command::Status { place, json } => status(&place.find().await?, *json).await,
        Command::Verify { place } => verify(&place.find().await?),
        Command::Export { place, exporter, key_file } => {
            let key = key_file.as_deref().map(Key::read).transpose().map_err(|error| format!("--key-file: {error}"))?;
            export(&place.find().await?, exporter.as_deref(), key.as_ref())
        }
    }
}

fn queues(folder: &Folder) -> Result<Vec<(Arc<str>, PathBuf)>, String> {
    storage::queues_in(&folder.path).map_err(|error| format!("{}: {error}", folder.path.display()))
}

async fn status(folder: &Folder, json: bool) -> Result<ExitCode, String> {
    let mut view: QueuesView = match &folder.process {
        Some(process) => process.get("/api/v1/queues").await?,
        None => QueuesView { queues: Vec::new() },
    };
    for (exporter, path) in queues(folder)? {
        if view.queues.iter().all(|queue| queue.exporter != *exporter) {
            let survey = queue::inspect(&RealDisk, &path).map_err(|error| error.to_string())?;
            view.queues.push(on_disk(&exporter, &survey));
        }
    }
    if json {
        let text = serde_json::to_string_pretty(&view).map_err(|error| error.to_string())?;
        return Ok(say::out(&format!("{text}\n")));
    }
    let cells = |queue: &QueueView| {
        let of = if queue.limit_bytes > 0 { format!(" of {}", bytes(queue.limit_bytes)) } else { String::new() };
        vec![
            queue.exporter.clone(),
            queue.kind.name().to_owned(),
            queue.records.to_string(),
            format!("{}{of}", bytes(queue.bytes)),
            queue.oldest_age_seconds.map(age).unwrap_or_default(),
            queue.short_of.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = view.queues.iter().map(cells).collect();
    let mut text = table(&["exporter", "queue", "records", "bytes", "oldest", "note"], &rows);
    if folder.process.is_none() {
        text.push_str("no Weir runs on this folder; this is what waits for its next start\n");
    }
    Ok(say::out(&text))
}

/// A queue that no process has open.
fn on_disk(exporter: &str, survey: &Survey) -> QueueView {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    QueueView {
        exporter: exporter.to_owned(),
        kind: QueueKind::Disk,
        records: survey.waiting().iter().map(|found| found.records).sum(),
        bytes: stored_bytes(survey),
        limit_bytes: 0,
        oldest_age_seconds: survey.oldest_ms().map(|ms| (now_ms.saturating_sub(ms)).max(0) as f64 / 1000.0),
        when_full: WhenFull::Block,
        short_of: None,
    }
}

fn stored_bytes(survey: &Survey) -> u64 {
    survey.segments.iter().map(|segment| segment.file_bytes).sum()
}

/// An OTLP/JSON export request; `None` if the entry cannot be read.
fn json(entry: &Exported) -> Option<Vec<u8>> {
    let wire = Wire { encoding: entry.encoding, bytes: entry.payload.clone()? };
    let records = usize::try_from(entry.records).unwrap_or(usize::MAX);
    let payload = Payload::from_wire(entry.signal, wire, records);
    payload.to_json().ok().map(|json| json.to_vec())
}

fn verify(folder: &Folder) -> Result<ExitCode, String> {
    let mut is_damaged = false;
    let mut text = String::new();
    for (exporter, path) in queues(folder)? {
        let survey = queue::verify(&RealDisk, &path).map_err(|error| error.to_string())?;
        let records: u64 = survey.waiting().iter().map(|found| found.records).sum();
        let damage: Vec<_> = survey.damage.iter().filter(|damage| !damage.is_torn).collect();
        text.push_str(&format!(
            "{exporter}: {} in {} segments read, {records} records wait, {} damaged places\n",
            bytes(stored_bytes(&survey)),
            survey.segments.len(),
            damage.len()
        ));
        for damage in damage {
            is_damaged = true;
            let records = damage.records.map(|records| format!(", {records} records")).unwrap_or_default();
            let (file, offset, length) = (damage.path.display(), damage.offset, damage.bytes);
            text.push_str(&format!(
                "  {file}: {length} bytes at {offset} are not what was written{records}; they are passed over\n"
            ));
        }
    }
    if text.is_empty() {
        text.push_str("there are no queues on this disk\n");
    }
    let said = say::out(&text);
    Ok(if is_damaged { ExitCode::FAILURE } else { said })
}

fn export(folder: &Folder, only: Option<&str>, key: Option<&Key>) -> Result<ExitCode, String> {
    let (mut records, mut unreadable) = (0_u64, 0_u64);
    let queues = queues(folder)?;
    if let Some(only) = only.filter(|only| queues.iter().all(|(name, _)| **name != **only)) {
        let names: Vec<&str> = queues.iter().map(|(name, _)| &**name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        say::note(&format!("{only} has no queue on this disk; those that have: {there}"));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (exporter, path) in queues {
        if only.is_some_and(|only| *only != *exporter) {
            continue;
        }
        let visited = queue::export(&RealDisk, &path, key, |entry| {
            let Some(line) = json(&entry) else {
                unreadable += u64::from(entry.records);
                return Ok(());
            };
            records += u64::from(entry.records);
            out.write_all(&line)?;
            out.write_all(b"\n")
        });
        match visited {
            // A reader that went away (`weir queue export | head`) has seen enough.
            Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            visited => visited.map_err(|error| error.to_string())?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        flushed => flushed.map_err(|error| format!("cannot write: {error}"))?,
    }
    say::note(&format!("{records} records written"));
    if unreadable > 0 {
        say::note(&format!("{unreadable} records cannot be read: damaged, or encrypted with another key (--key-file)"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
