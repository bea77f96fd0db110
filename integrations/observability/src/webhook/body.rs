//! Request bodies: a range of a delivery's records in one of four encodings.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::{Payload, Signal};
use weir_net::Pieces;
use weir_pipeline::Delivery;

use super::template::Template;
use crate::readable::{self, Readable};

/// How records are written into a request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encoding {
    /// A JSON array of readable objects, one per record.
    #[default]
    Json,
    /// The same objects, one per line.
    Ndjson,
    /// An OTLP/JSON export request, without loss.
    OtlpJson,
    /// One line per record, made from `template`.
    Text,
}

impl Encoding {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Encoding::Json | Encoding::OtlpJson => "application/json",
            Encoding::Ndjson => "application/x-ndjson",
            Encoding::Text => "text/plain; charset=utf-8",
        }
    }

    /// A body with no records in it.
    pub(super) fn empty(self) -> Bytes {
        Bytes::from_static(match self {
            Encoding::Json => b"[]",
            Encoding::OtlpJson => b"{}",
            Encoding::Ndjson | Encoding::Text => b"",
        })
    }
}

/// A piece of a body is ended when it is so long. One that grew as a whole would take up to twice its size,
/// and all of it until the last byte was sent.
const PIECE_BYTES: usize = 60 << 10;

/// A delivery that is to be written in pieces.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(&'a Delivery);

impl<'a> Source<'a> {
    /// A delivery. Nothing of it is decoded before it is needed.
    pub(super) fn new(delivery: &'a Delivery) -> Self {
        Self(delivery)
    }

    /// How many records.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The records of a range as a body.
    ///
    /// # Errors
    /// If records cannot be decoded, or not be written in this encoding.
    pub(super) fn body(
        &self,
        encoding: Encoding,
        template: Option<&Template>,
        range: Range<usize>,
    ) -> Result<Pieces, String> {
        match encoding {
            Encoding::Json => self.objects(range, b"[", b",", b"]"),
            Encoding::Ndjson => self.objects(range, b"", b"\n", b"\n"),
            Encoding::Text => self.lines(template, range).map(Pieces::from),
            Encoding::OtlpJson => self.otlp(range).map(Pieces::from),
        }
    }

    fn objects(&self, range: Range<usize>, before: &[u8], between: &[u8], after: &[u8]) -> Result<Pieces, String> {
        let (mut pieces, mut piece, mut is_first) = (Vec::new(), before.to_vec(), true);
        self.each(range, |record| {
            if piece.len() >= PIECE_BYTES {
                // Records are mostly alike, so that the next piece will be as long, unless one was huge.
                let next = Vec::with_capacity(piece.len().min(2 * PIECE_BYTES) + PIECE_BYTES / 16);
                pieces.push(Bytes::from(std::mem::replace(&mut piece, next)));
            }
            if !std::mem::take(&mut is_first) {
                piece.extend_from_slice(between);
            }
            serde_json::to_writer(&mut piece, &record).map_err(|error| error.to_string())
        })?;
        piece.extend_from_slice(after);
        pieces.push(piece.into());
        Ok(Pieces::new(pieces))
    }

    fn lines(&self, template: Option<&Template>, range: Range<usize>) -> Result<Bytes, String> {
        let template = template.ok_or("the encoding `text` has no template")?;
        let mut out = String::new();
        self.each(range, |record| {
            template.write(&serde_json::to_value(record).map_err(|error| error.to_string())?, &mut out);
            Ok(())
        })?;
        Ok(out.into())
    }

    /// Every record of a range. Of what is not decoded yet, only one payload at a time is: while the body
    /// is on its way, the records themselves need not be in memory.
    fn each(
        &self,
        range: Range<usize>,
        mut write: impl FnMut(Readable<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        for (payload, wanted) in self.parts(range) {
            // What is needed in pieces is decoded once for all of them.
            let records = if wanted.len() == payload.len() {
                payload.records_once()
            } else {
                payload.records().map(Cow::Borrowed)
            };
            let records = records.map_err(|error| format!("they cannot be read: {error}"))?;
            for record in readable::of(&records).skip(wanted.start).take(wanted.len()) {
                write(record)?;
            }
        }
        Ok(())
    }

    /// The payloads that records of a range are in, and where in each.
    fn parts(&self, range: Range<usize>) -> impl Iterator<Item = (&'a Payload, Range<usize>)> {
        let mut start = 0;
        let parts = self.0.payloads.iter().map(move |payload| {
            let own = start..start + payload.len();
            start = own.end;
            let wanted = range.start.clamp(own.start, own.end)..range.end.clamp(own.start, own.end);
            (payload, wanted.start - own.start..wanted.end - own.start)
        });
        parts.filter(|(_, wanted)| !wanted.is_empty())
    }

    fn otlp(&self, range: Range<usize>) -> Result<Bytes, String> {
        let mut requests = Vec::new();
        for (payload, wanted) in self.parts(range) {
            let request = if wanted.len() == payload.len() {
                payload.to_json()
            } else {
                let part = payload.records().map(|records| records.select(|position| wanted.contains(&position)));
                part.and_then(|part| Payload::from_records(part).to_json())
            };
            requests.push(request.map_err(|error| error.to_string())?);
        }
        join(self.0.signal, requests)
    }
}

/// The only field of an OTLP/JSON request, its elements as they were written.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(
        borrow,
        default,
        alias = "resourceMetrics",
        alias = "resource_metrics",
        alias = "resourceLogs",
        alias = "resource_logs",
        alias = "resourceSpans",
        alias = "resource_spans"
    )]
    resources: Option<Vec<&'a RawValue>>,
}

#[derive(Serialize)]
enum Joined<'a> {
    #[serde(rename = "resourceMetrics")]
    Metrics(Vec<&'a RawValue>),
    #[serde(rename = "resourceLogs")]
    Logs(Vec<&'a RawValue>),
    #[serde(rename = "resourceSpans")]
    Traces(Vec<&'a RawValue>),
}

/// Several requests as one, without decoding what is inside.
fn join(signal: Signal, requests: Vec<Bytes>) -> Result<Bytes, String> {
    if let [only] = requests.as_slice() {
        return Ok(only.clone());
    }
    let mut resources = Vec::new();
    for request in &requests {
        let request: Request<'_> = serde_json::from_slice(request).map_err(|error| error.to_string())?;
        resources.extend(request.resources.unwrap_or_default());
    }
    let joined = match signal {
        Signal::Metrics => Joined::Metrics(resources),
        Signal::Logs => Joined::Logs(resources),
        Signal::Traces => Joined::Traces(resources),
    };
    serde_json::to_vec(&joined).map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use weir_model::logs::{LogRecord, Logs};
    use weir_model::{Records, Value};

    use super::*;

    fn delivery(bodies: &[String]) -> Delivery {
        let mut logs = Logs::default();
        for body in bodies {
            let body = Value::String(logs.common.arena.add(body.as_bytes()));
            logs.records.push(LogRecord { body, ..LogRecord::default() });
        }
        let payloads = vec![Payload::from_records(Records::Logs(logs))];
        Delivery { signal: Signal::Logs, payloads, id: 1 }
    }

    #[test]
    fn a_large_body_is_one_text_in_pieces_that_hold_little_more_than_they_need() {
        let mut bodies: Vec<String> = (0..5_000).map(|at| format!("line {at} {}", "x".repeat(at % 700))).collect();
        bodies.insert(2_000, "y".repeat(1 << 20));
        let delivery = delivery(&bodies);
        let pieces = Source::new(&delivery).body(Encoding::Json, None, 0..bodies.len()).unwrap();
        assert!(pieces.iter().count() > 20);
        let records: Vec<serde_json::Value> = serde_json::from_slice(&pieces.clone().whole()).unwrap();
        let written: Vec<&str> = records.iter().map(|record| record["body"].as_str().unwrap()).collect();
        assert_eq!(written, bodies);
        for piece in pieces {
            let (length, room) = (piece.len(), Vec::from(piece).capacity());
            assert!(room <= 3 * PIECE_BYTES || room <= 2 * length, "{length} bytes in room for {room}");
        }
    }

    #[test]
    fn a_range_over_several_payloads_has_the_records_of_that_range() {
        let bodies: Vec<String> = (0..10).map(|at| at.to_string()).collect();
        let mut all = delivery(&bodies[..4]);
        all.payloads.extend(delivery(&bodies[4..7]).payloads);
        all.payloads.extend(delivery(&bodies[7..]).payloads);
        for range in [0..10, 3..8, 4..7, 9..10, 5..6] {
            let body = Source::new(&all).body(Encoding::Ndjson, None, range.clone()).unwrap().whole();
            let lines: Vec<serde_json::Value> =
                body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
            let written: Vec<&str> = lines.iter().map(|record| record["body"].as_str().unwrap()).collect();
            assert_eq!(written, bodies[range]);
        }
    }
}
