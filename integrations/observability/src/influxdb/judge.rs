//! What the answer to a write means, and which lines a partial write left out.
//!
//! Sources: InfluxDB 1 `services/httpd/handler.go` (`serveWrite`), `coordinator/points_writer.go`,
//! `tsdb/store.go` (`PartialWriteError`), `models/points.go` (parse errors); InfluxDB 2 "Troubleshoot
//! writing data". Version 1 answers 400 both when it stored a part and when it stored nothing;
//! version 2 answers 422 for a part and 400 for nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use http::header::LOCATION;
use serde::Deserialize;
use weir_net::{Answer, StatusClass, retry_after};
use weir_pipeline::{Fault, FaultKind, Outcome};

use super::Version;
use super::line::Lines;

/// Most characters of a reason that are kept.
const REASON_CHARACTERS: usize = 500;

/// All lines were taken.
pub(super) fn all_taken(lines: &Lines) -> Outcome {
    settled(lines, Vec::new(), Vec::new())
}

/// Lines that the server refused, with its reason, and those to send again at once.
fn settled(lines: &Lines, mut refused: Vec<(u32, String)>, later: Vec<u32>) -> Outcome {
    refused.extend(lines.refused.iter().cloned());
    match refused.first() {
        None => Outcome::Accepted,
        Some((_, why)) => {
            let why = why.clone();
            Outcome::Each { refused, later, after: Some(Duration::ZERO), why }
        }
    }
}

/// The outcome of a request.
pub(super) fn judge(version: Version, lines: &Lines, answer: &Answer) -> Outcome {
    let later = |why: String| Outcome::Later { after: retry_after(&answer.headers, SystemTime::now()), why };
    match answer.status.as_u16() {
        200..=299 if is_web_page(answer) => {
            later("the address answers with a web page, not as InfluxDB: check `endpoint`".into())
        }
        200..=299 => all_taken(lines),
        300..=399 => {
            let to = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("another address");
            later(format!("{} redirects to {to}: write the final address as `endpoint`", answer.status))
        }
        400 | 422 => part(version, lines, answer),
        // The database or bucket may be made in a moment, and a wrong path put right.
        404 | 405 => later(missing(version, answer)),
        _ => match StatusClass::of(answer.status) {
            StatusClass::Never => later(answer.excerpt()),
            _ => Outcome::of_answer(answer),
        },
    }
}

fn missing(version: Version, answer: &Answer) -> String {
    let why = answer.excerpt();
    if why.contains("not found: ") || why.contains("bucket") || why.contains("database") {
        return format!("{why}: create it, or correct the name");
    }
    match version {
        Version::V1 => {
            format!("{why}: there is no /write at this address; check `endpoint`, and `version` (InfluxDB 2 needs 2)")
        }
        Version::V2 => {
            format!("{why}: there is no /api/v2/write at this address; InfluxDB 1 needs `version: 1` and `database`")
        }
    }
}

fn is_web_page(answer: &Answer) -> bool {
    answer.body.trim_ascii_start().starts_with(b"<")
}

/// The message of an error: version 1 calls it `error`, version 2 `message`.
fn message(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(alias = "error")]
        message: Option<String>,
    }
    // InfluxDB 2 has `code` beside it, and Cloud `line`.
    serde_json::from_slice::<Said>(&answer.body).ok()?.message
}

/// A 400 or 422: some lines were stored, or none.
fn part(version: Version, lines: &Lines, answer: &Answer) -> Outcome {
    let text = message(answer).unwrap_or_else(|| answer.excerpt());
    let why: String = text.chars().take(REASON_CHARACTERS).collect();
    let has_stored_rest = answer.status.as_u16() == 422 || (version == Version::V1 && text.contains("partial write"));
    let refuse = |found: Vec<u32>| -> Vec<(u32, String)> { found.into_iter().map(|at| (at, why.clone())).collect() };
    let dropped = dropped(&text);
    if lines.len() == 1 || dropped == Some(lines.len()) {
        return settled_or_never(lines, refuse(lines.positions().collect()), why);
    }
    if let Some((found, reason)) = quoted(lines, &text) {
        let reasons: Vec<(u32, String)> = found.iter().map(|at| (*at, reason.clone())).collect();
        if found.len() == lines.len() {
            return settled_or_never(lines, reasons, why);
        }
        // Of version 1 it is not said whether the rest was stored where every line that it names is bad:
        // writing them again changes nothing.
        let rest =
            if has_stored_rest { Vec::new() } else { lines.positions().filter(|at| !found.contains(at)).collect() };
        return settled(lines, reasons, rest);
    }
    let named = dropped.filter(|_| has_stored_rest).and_then(|dropped| named(lines, &text, dropped));
    match named {
        Some(found) => settled(lines, refuse(found), Vec::new()),
        // Writing a point twice changes nothing, so halves may go again until the culprit stands alone.
        None => Outcome::Split { why },
    }
}

/// Nothing was taken.
fn settled_or_never(lines: &Lines, refused: Vec<(u32, String)>, why: String) -> Outcome {
    // What says nothing is in neither list, so it counts as delivered.
    if refused.len() + lines.refused.len() == lines.records as usize && lines.refused.is_empty() {
        return Outcome::Never { why };
    }
    settled(lines, refused, Vec::new())
}

/// `dropped=3` at the end.
fn dropped(text: &str) -> Option<usize> {
    let (_, number) = text.rsplit_once("dropped=")?;
    let digits = number.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The lines that the server quotes as `unable to parse 'LINE': REASON`, one per line of its message.
/// `None` if there are none, or one that was not sent.
fn quoted(lines: &Lines, text: &str) -> Option<(BTreeSet<u32>, String)> {
    const QUOTE: &str = "unable to parse '";
    let mut pieces = text.split(QUOTE);
    pieces.next()?;
    let mut known: HashMap<&str, Vec<u32>> = HashMap::new();
    for (record, line) in lines.iter() {
        known.entry(line).or_default().push(record);
    }
    let (mut found, mut reason) = (BTreeSet::new(), None);
    for piece in pieces {
        let (line, why) = piece.rsplit_once("': ")?;
        found.extend(known.get(line)?);
        reason.get_or_insert_with(|| {
            let why = why.lines().next().unwrap_or_default();
            let text = format!("unable to parse: {}", why.split(" dropped=").next().unwrap_or_default());
            text.chars().take(REASON_CHARACTERS).collect()
        });
    }
    Some((found, reason?))
}

/// The records that `dropped` lines belong to, where the reason leaves no doubt.
fn named(lines: &Lines, text: &str, dropped: usize) -> Option<Vec<u32>> {
    if dropped == 0 {
        return None;
    }
    // Everything before one moment was left out, so it was the oldest.
    if text.contains("beyond retention policy") || text.contains("outside retention policy") {
        return Some(lines.oldest(dropped));
    }
    // Only the first conflict is named; it was the only one if it accounts for all lines left out.
    let (_, after) = text.split_once("field type conflict: ")?.1.split_once(" on measurement \"")?;
    let (measurement, _) = after.rsplit_once("\" is type ")?;
    Some(lines.of_measurement(measurement)).filter(|found| found.len() == dropped)
}

/// What the answer to an empty write proves.
pub(super) fn check(version: Version, answer: &Answer, place: &str) -> Result<String, Fault> {
    let (number, text) = match version {
        Version::V1 => (1, message(answer)),
        Version::V2 => (2, message(answer)),
    };
    match answer.status.as_u16() {
        200..=299 if is_web_page(answer) => {
            Err(Fault::new(FaultKind::NotFound, format!("{place} is a web page, not InfluxDB: check host and port")))
        }
        200..=299 => Ok(format!("{place} takes writes (API version {number})")),
        // Version 2 refuses a write without a line, after it has looked at credentials and bucket.
        400 if text.is_some() => {
            Ok(format!("{place} knows the credentials (API version {number}); it refuses a write without a line"))
        }
        404 | 405 => Err(Fault::new(FaultKind::NotFound, format!("{place} answers {}", missing(version, answer)))),
        _ => match Fault::of_answer(answer, place) {
            Some(fault) => Err(fault),
            None => Ok(format!("{place} takes writes (API version {number})")),
        },
    }
}
