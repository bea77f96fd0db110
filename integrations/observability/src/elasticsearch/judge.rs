//! What the answer to a bulk request means, record by record.
//!
//! Sources: Elasticsearch reference, "Bulk API", "Response body"; `RestStatus` of the exceptions
//! named below. A 200 says only that the request was read.

use std::time::SystemTime;

use http::header::LOCATION;
use serde::Deserialize;
use weir_net::{Answer, StatusClass, retry_after};
use weir_pipeline::Outcome;

use super::bulk::Bulk;

/// Most characters of a reason that are kept per record.
const REASON_CHARACTERS: usize = 500;

/// Errors with a status of their own that go away without the record being changed: a node is
/// overloaded, a disk is full or an administrator blocked the index, an index may not be created by itself.
const PASSING: [&str; 5] = [
    "es_rejected_execution_exception",
    "rejected_execution_exception",
    "circuit_breaking_exception",
    "cluster_block_exception",
    "index_not_found_exception",
];

#[derive(Deserialize)]
struct BulkAnswer {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(alias = "index")]
    create: ItemAnswer,
}

#[derive(Deserialize)]
struct ItemAnswer {
    #[serde(default)]
    status: u16,
    error: Option<ItemError>,
}

#[derive(Deserialize)]
struct ItemError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    reason: Option<String>,
    caused_by: Option<Box<ItemError>>,
}

impl ItemError {
    /// Type and reason, with those of its causes.
    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.kind, self.reason.as_deref().unwrap_or("no reason is given"));
        let mut next = &self.caused_by;
        while let Some(cause) = next {
            text.push_str(&format!("; {}: {}", cause.kind, cause.reason.as_deref().unwrap_or_default()));
            next = &cause.caused_by;
        }
        text.chars().take(REASON_CHARACTERS).collect()
    }
}

/// What one item of the answer says about its record.
enum Fate {
    Taken,
    Later(String),
    Refused(String),
}

fn fate(item: &ItemAnswer, has_ids: bool) -> Fate {
    let kind = item.error.as_ref().map_or("", |error| error.kind.as_str());
    let why = || item.error.as_ref().map_or_else(|| format!("status {}", item.status), ItemError::text);
    match item.status {
        200..=299 => Fate::Taken,
        // The id is made from the content, so what is there is this very record.
        409 if has_ids => Fate::Taken,
        _ if PASSING.contains(&kind) => Fate::Later(why()),
        // The credentials may write elsewhere, but not into this index (yet).
        401 | 403 | 408 | 429 | 500..=599 => Fate::Later(why()),
        _ => Fate::Refused(why()),
    }
}

/// Everything that is in the request was taken.
pub(super) fn all_taken(bulk: Bulk) -> Outcome {
    settled(&bulk, Vec::new(), Vec::new(), None)
}

fn settled(bulk: &Bulk, mut refused: Vec<(u32, String)>, later: Vec<u32>, put_off: Option<String>) -> Outcome {
    refused.extend(bulk.refused.iter().cloned());
    if later.is_empty() && refused.is_empty() {
        return Outcome::Accepted;
    }
    let mut why = refused.first().map(|(_, why)| why.clone()).unwrap_or_default();
    if let Some(put_off) = put_off {
        why = if why.is_empty() { put_off } else { format!("{put_off}; refused: {why}") };
    }
    Outcome::Each { refused, later, after: None, why }
}

/// The outcome of a request.
pub(super) fn judge(bulk: &Bulk, answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        200..=299 => items(bulk, answer),
        300..=399 => {
            let to = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("another address");
            let why = format!("{} redirects to {to}: write the final address into `endpoints`", answer.status);
            Outcome::Later { after: None, why }
        }
        400 => Outcome::Never { why: answer.excerpt() },
        _ => match StatusClass::of(answer.status) {
            // Says something about address or configuration (404, 405, 415), nothing about the records.
            StatusClass::Never | StatusClass::Success => {
                let why = format!("{}: there is no bulk API at this address; check `endpoints`", answer.excerpt());
                Outcome::Later { after: None, why }
            }
            StatusClass::Retry => {
                Outcome::Later { after: retry_after(&answer.headers, SystemTime::now()), why: answer.excerpt() }
            }
            StatusClass::TooLarge | StatusClass::Unauthorized => Outcome::of_answer(answer),
        },
    }
}

fn items(bulk: &Bulk, answer: &Answer) -> Outcome {
    let read: BulkAnswer = match serde_json::from_slice(&answer.body) {
        Ok(read) => read,
        Err(_) => {
            let why = format!("no answer of a bulk API ({}): check `endpoints`", answer.excerpt());
            return Outcome::Later { after: None, why };
        }
    };
    if !read.errors {
        return settled(bulk, Vec::new(), Vec::new(), None);
    }
    if read.items.len() != bulk.records.len() {
        let why = format!("it answers for {} of {} records", read.items.len(), bulk.records.len());
        return Outcome::Later { after: None, why };
    }
    let (mut refused, mut later, mut put_off) = (Vec::new(), Vec::new(), None);
    for (record, item) in bulk.records.iter().zip(&read.items) {
        match fate(&item.create, bulk.has_ids) {
            Fate::Taken => {}
            Fate::Refused(why) => refused.push((*record, why)),
            Fate::Later(why) => {
                later.push(*record);
                put_off.get_or_insert(why);
            }
        }
    }
    // Nothing was taken: the same request is sent again, its ids as they were.
    if later.len() == bulk.records.len() && bulk.refused.is_empty() {
        return Outcome::Later { after: None, why: put_off.unwrap_or_default() };
    }
    settled(bulk, refused, later, put_off)
}
