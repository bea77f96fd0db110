//! Dead letters as the API and the command line ask for them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use utoipa::{IntoParams, ToSchema};
use weir_model::{Batch, Receipt, Settled, Signal, Verdict};

use crate::control::Control;
use crate::dead_letters::{DeadLetters, Filter, Id, Kept, Scope, Selection, Sent, Stored, Summary};
use crate::ledger::DEAD_LETTERS;
use crate::queue::Entry;

/// Letters on a page where nothing is asked for, and at most.
const PAGE: usize = 50;
const LONGEST_PAGE: usize = 1000;

/// How long a letter that is sent again has to be taken: by the disk, or by the backend of an exporter
/// whose queue is in memory.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which dead letters to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Of this exporter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exporter: Option<String>,
    /// From this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of this signal: `metrics`, `logs` or `traces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Older than the letter of this id: the last one of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// At most so many, 1000 at most; 50 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of dead letters, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLettersView {
    /// The letters.
    pub dead_letters: Vec<Summary>,
    /// How many there are on all pages.
    pub total: u64,
    /// What they take, in bytes.
    pub bytes: u64,
}

/// Which dead letters to replay, drop or export: those of `ids`, or all that `exporter`, `source` and `signal`
/// describe together (one of them is enough), or `all`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Selected {
    /// These.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// Those of this exporter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exporter: Option<String>,
    /// Those from this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Those of this signal: `metrics`, `logs` or `traces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// All.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// What was done with dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoneView {
    /// Letters that are gone: delivered or queued again, or dropped.
    pub done: u64,
    /// Letters of the selection that are still there.
    pub left: u64,
    /// Of those left, the ones that were refused again.
    pub refused: u64,
    /// Why one was left: the last reason heard.
    #[schema(required)]
    pub reason: Option<String>,
}

/// Why something could not be done with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// The request makes no sense: which field, and what it should be.
    #[error("{field}: {message}")]
    Request {
        /// The field.
        field: &'static str,
        /// What it should be.
        message: String,
    },
    /// There is no letter of this id.
    #[error("there is no dead letter {0}; it may have been replayed, dropped or removed to make room")]
    Unknown(String),
    /// Their file cannot be used now.
    #[error("{0}")]
    Unavailable(String),
}

impl ListQuery {
    /// What it asks for.
    ///
    /// # Errors
    /// [`LetterError::Request`]
    pub fn filter(&self) -> Result<Filter, LetterError> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            return Err(request("limit", format!("expected a number from 1 to {LONGEST_PAGE}, found {limit}")));
        }
        Ok(Filter {
            scope: scope(&self.exporter, &self.source, &self.signal)?,
            before: self.before.as_deref().map(|text| id("before", text)).transpose()?,
            limit,
        })
    }
}

impl Selected {
    /// What it selects.
    ///
    /// # Errors
    /// [`LetterError::Request`]
    pub fn selection(&self) -> Result<Selection, LetterError> {
        let scope = scope(&self.exporter, &self.source, &self.signal)?;
        match (&self.ids, scope == Scope::default(), self.all) {
            (Some(ids), true, None) => {
                ids.iter().map(|text| id("ids", text)).collect::<Result<_, _>>().map(Selection::Ids)
            }
            (None, false, None) => Ok(Selection::Of(scope)),
            (None, true, Some(true)) => Ok(Selection::All),
            _ => {
                let message = "give either `ids`, or some of `exporter`, `source` and `signal`, or `all: true`";
                Err(request("ids", message.to_owned()))
            }
        }
    }
}

fn scope(exporter: &Option<String>, source: &Option<String>, named: &Option<String>) -> Result<Scope, LetterError> {
    let signal = named.as_deref().map(signal).transpose()?;
    Ok(Scope { exporter: exporter.clone(), source: source.clone(), signal })
}

fn request(field: &'static str, message: String) -> LetterError {
    LetterError::Request { field, message }
}

fn id(field: &'static str, text: &str) -> Result<Id, LetterError> {
    text.parse().map_err(|error: crate::dead_letters::NotAnId| request(field, error.to_string()))
}

fn signal(text: &str) -> Result<Signal, LetterError> {
    let found = Signal::ALL.into_iter().find(|signal| signal.name() == text);
    found.ok_or_else(|| request("signal", "expected `metrics`, `logs` or `traces`".to_owned()))
}

fn unavailable(error: std::io::Error) -> LetterError {
    LetterError::Unavailable(format!("the dead letters cannot be used: {error}"))
}

impl Control {
    fn letters(&self) -> Result<&Arc<DeadLetters>, LetterError> {
        let none = "no exporter has a queue on disk, so no dead letters are kept; see `delivery: {queue: disk}`";
        self.dead_letters().ok_or_else(|| LetterError::Unavailable(none.to_owned()))
    }

    /// A page of the list, newest first.
    ///
    /// # Errors
    /// [`LetterError`]
    pub async fn list_dead_letters(&self, query: &ListQuery) -> Result<DeadLettersView, LetterError> {
        let filter = query.filter()?;
        let Some(letters) = self.dead_letters() else {
            return Ok(DeadLettersView { dead_letters: Vec::new(), total: 0, bytes: 0 });
        };
        let page = letters.list(filter).await.map_err(unavailable)?;
        Ok(DeadLettersView { dead_letters: page.letters, total: page.total, bytes: page.bytes })
    }

    /// One letter with its records.
    ///
    /// # Errors
    /// [`LetterError`]
    pub async fn dead_letter(&self, name: &str) -> Result<Stored, LetterError> {
        let id = id("id", name)?;
        let unknown = || LetterError::Unknown(name.to_owned());
        let Some(letters) = self.dead_letters() else { return Err(unknown()) };
        letters.get(id).await.map_err(unavailable)?.ok_or_else(unknown)
    }

    /// Removes letters for good.
    ///
    /// # Errors
    /// [`LetterError`]
    pub async fn drop_dead_letters(&self, selected: &Selected) -> Result<DoneView, LetterError> {
        let done = DeadLetters::drop(self.letters()?, selected.selection()?).await.map_err(unavailable)?;
        Ok(DoneView { done, ..DoneView::default() })
    }

    /// Letters as lines of JSON, oldest first; each line can be sent to any OTLP/JSON receiver.
    ///
    /// # Errors
    /// [`LetterError`]
    pub async fn export_dead_letters(&self, selected: &Selected) -> Result<String, LetterError> {
        let (letters, selection) = (self.letters()?.clone(), selected.selection()?);
        let exported = tokio::task::spawn_blocking(move || lines(&letters, &selection)).await;
        exported.unwrap_or_else(|error| Err(LetterError::Unavailable(error.to_string())))
    }

    /// Hands letters to their exporters once more, as records of the source `dead_letters`. A letter is
    /// gone when its records are on the disk again, or delivered where their exporter's queue is in memory.
    ///
    /// # Errors
    /// [`LetterError`]
    pub async fn replay_dead_letters(&self, selected: &Selected) -> Result<DoneView, LetterError> {
        let (control, letters, selection) = (self.clone(), self.letters()?.clone(), selected.selection()?);
        // Whoever asked may go: what was sent is written down all the same, or it would be sent again.
        let replay = tokio::spawn(async move { letters.replay(selection, |kept| control.send(kept)).await });
        let replayed = replay.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(unavailable)?;
        Ok(DoneView { done: replayed.done, left: replayed.left, refused: replayed.refused, reason: replayed.reason })
    }

    /// One letter on its way to its exporter.
    async fn send(&self, kept: Kept) -> Sent {
        let exporter: Arc<str> = Arc::from(kept.summary.exporter.as_str());
        let Some(outlet) = self.outlets().remove(&exporter) else {
            return Sent::Failed {
                reason: format!("{exporter} is not configured any more; add it again or drop these"),
            };
        };
        let origin: Arc<str> = Arc::from(DEAD_LETTERS);
        let row = self.telemetry().ledger.row(&origin, &exporter, kept.summary.signal);
        let (answer, settled) = oneshot::channel();
        // Nobody waits any more if it took too long: the letter stays then.
        let (receipt, claim) = Receipt::with_claim(move |settled| drop(answer.send(settled)));
        let batch = Batch { origin, payload: kept.payload, receipt };
        if outlet.queue.push(Entry { batch, row, since: Instant::now() }).is_err() {
            return Sent::Failed { reason: format!("the queue of {exporter} is full") };
        }
        // A queue that is looked at cannot be closed.
        drop(outlet);
        let Ok(settled) = timeout(PATIENCE, settled).await else {
            claim.withdraw();
            return Sent::Failed { reason: format!("{exporter} did not take it within {} s", PATIENCE.as_secs()) };
        };
        match settled {
            Ok(Settled { verdict: Verdict::Delivered, .. }) => Sent::Delivered,
            Ok(Settled { verdict: Verdict::Refused, reason, .. }) => {
                Sent::Refused { reason: reason.unwrap_or_else(|| "refused again".to_owned()) }
            }
            Ok(Settled { verdict: Verdict::Retry, .. }) | Err(_) => {
                Sent::Failed { reason: format!("{exporter} could not take it now") }
            }
        }
    }
}

/// The dead letters of a data folder on which no process runs.
pub struct OfflineLetters(DeadLetters);

impl OfflineLetters {
    /// Those of a folder.
    pub fn open(folder: &std::path::Path) -> Self {
        Self(DeadLetters::open(folder, crate::dead_letters::Limits { bytes: u64::MAX, age: std::time::Duration::MAX }))
    }

    /// As [`Control::list_dead_letters`].
    ///
    /// # Errors
    /// [`LetterError`]
    pub fn list(&self, query: &ListQuery) -> Result<DeadLettersView, LetterError> {
        let page = self.0.blocking().list(&query.filter()?).map_err(unavailable)?;
        Ok(DeadLettersView { dead_letters: page.letters, total: page.total, bytes: page.bytes })
    }

    /// As [`Control::dead_letter`].
    ///
    /// # Errors
    /// [`LetterError`]
    pub fn get(&self, name: &str) -> Result<Stored, LetterError> {
        let letter = self.0.blocking().get(id("id", name)?).map_err(unavailable)?;
        letter.ok_or_else(|| LetterError::Unknown(name.to_owned()))
    }

    /// As [`Control::drop_dead_letters`].
    ///
    /// # Errors
    /// [`LetterError`]
    pub fn drop(&self, selected: &Selected) -> Result<DoneView, LetterError> {
        let done = self.0.blocking().drop(&selected.selection()?).map_err(unavailable)?;
        Ok(DoneView { done, ..DoneView::default() })
    }

    /// As [`Control::export_dead_letters`].
    ///
    /// # Errors
    /// [`LetterError`]
    pub fn export(&self, selected: &Selected) -> Result<String, LetterError> {
        lines(&self.0, &selected.selection()?)
    }
}

/// Letters as lines of JSON.
fn lines(letters: &DeadLetters, selection: &Selection) -> Result<String, LetterError> {
    let mut text = String::new();
    let add = |line: &str| {
        text.push_str(line);
        text.push('\n');
        Ok(())
    };
    letters.blocking().export(selection, add).map_err(unavailable)?;
    Ok(text)
}
