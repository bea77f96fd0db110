//! The body of a bulk request (Elasticsearch, "Bulk API"): per record a line that says what to do
//! and one with the document. `create` works for indices and data streams alike.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use weir_model::{Common, Records, Signal};
use weir_pipeline::Delivery;

use super::document::{self, NoDocument};
use super::index::{IndexName, Names};
use super::labels::Place;
use crate::readable;

/// Bytes of a hash that become an id: two of 2^60 documents share one with a chance of less than one in a million.
const ID_BYTES: usize = 18;

/// A request that is ready to be sent.
pub(super) struct Bulk {
    /// The lines.
    pub(super) body: Bytes,
    /// The position in the delivery of every document in the request, in order.
    pub(super) records: Vec<u32>,
    /// Records that no document can say, and why.
    pub(super) refused: Vec<(u32, String)>,
    /// Whether the documents have ids of their own.
    pub(super) has_ids: bool,
}

/// A document that waits for its id.
struct Waiting {
    document: Range<usize>,
    index: Arc<str>,
}

/// Writes a delivery. `now` stands in where a record has no time.
///
/// # Errors
/// If a payload cannot be decoded.
pub(super) fn write(delivery: &Delivery, index: &IndexName, has_ids: bool, now: Timestamp) -> Result<Bulk, String> {
    let decoded = readable::decode(delivery).map_err(|error| format!("the records cannot be read: {error}"))?;
    let mut names = Names::new(index, delivery.signal);
    let (mut body, mut records, mut refused, mut position) = (Vec::new(), Vec::new(), Vec::new(), 0_u32);
    let (mut documents, mut waiting) = (Vec::new(), Vec::new());
    for payload in decoded {
        documents.clear();
        waiting.clear();
        let mut places: HashMap<u32, Place> = HashMap::new();
        let mut is_timed = true;
        for record in readable::of(payload) {
            let unix_nano = document::time_unix_nano(record);
            let time = timestamp(unix_nano);
            is_timed &= time.is_some();
            let time = time.unwrap_or(now);
            let scope = document::scope(record);
            let place = places.entry(scope).or_insert_with(|| Place::new(common(payload), scope));
            let start = documents.len();
            match document::write(&mut documents, record, time, place) {
                Ok(()) => {
                    waiting.push(Waiting { document: start..documents.len(), index: names.at(time)? });
                    records.push(position);
                }
                Err(NoDocument::Empty) => {}
                Err(NoDocument::Refused(why)) => refused.push((position, why.to_owned())),
            }
            position = position.saturating_add(1);
        }
        let shared = match delivery.signal {
            // Of logs two equal records are two events, unless they came in two equal payloads: those are
            // a repeat of the sender. Without times payloads of different moments may be equal too.
            Signal::Logs if is_timed => Some(Sha256::new().chain_update(&documents)),
            Signal::Logs => Some(Sha256::new().chain_update(&documents).chain_update(delivery.id.to_be_bytes())),
            // Equal points and spans are the same.
            Signal::Metrics | Signal::Traces => None,
        };
        for (at, Waiting { document, index }) in waiting.iter().enumerate() {
            let document = documents.get(document.clone()).unwrap_or_default();
            let hash = has_ids.then(|| match &shared {
                Some(all) => all.clone().chain_update((at as u64).to_be_bytes()).finalize(),
                None => Sha256::digest(document),
            });
            action(&mut body, index, hash.as_deref());
            body.extend_from_slice(document);
            body.push(b'\n');
        }
    }
    Ok(Bulk { body: body.into(), records, refused, has_ids })
}

/// The line before a document. Neither a checked name nor an id needs to be escaped.
fn action(body: &mut Vec<u8>, index: &str, hash: Option<&[u8]>) {
    body.extend_from_slice(b"{\"create\":{\"_index\":\"");
    body.extend_from_slice(index.as_bytes());
    if let Some(id) = hash.and_then(|hash| hash.get(..ID_BYTES)) {
        body.extend_from_slice(b"\",\"_id\":\"");
        body.extend_from_slice(URL_SAFE_NO_PAD.encode(id).as_bytes());
    }
    body.extend_from_slice(b"\"}}\n");
}

/// `None` for 0, which means unknown.
fn timestamp(unix_nano: u64) -> Option<Timestamp> {
    if unix_nano == 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(unix_nano)).ok()
}

fn common(records: &Records) -> &Common {
    match records {
        Records::Metrics(metrics) => &metrics.table.common,
        Records::Logs(logs) => &logs.common,
        Records::Traces(traces) => &traces.common,
    }
}
