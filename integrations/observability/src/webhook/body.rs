//! Request bodies: a range of a delivery's records in one of four encodings.

use std::ops::Range;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::{Payload, Records, Signal};
use weir_pipeline::Delivery;

use super::template::Template;
use crate::readable;

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

/// A delivery that is ready to be written in pieces.
pub(super) struct Source<'a> {
    delivery: &'a Delivery,
    decoded: Vec<&'a Records>,
}

impl<'a> Source<'a> {
    /// # Errors
    /// If a payload cannot be decoded.
    pub(super) fn new(delivery: &'a Delivery) -> Result<Self, String> {
        let decoded = readable::decode(delivery).map_err(|error| format!("the records cannot be read: {error}"))?;
        Ok(Self { delivery, decoded })
    }

    /// How many records.
    pub(super) fn len(&self) -> usize {
        self.delivery.len()
    }

    /// The records of a range as a body.
    ///
    /// # Errors
    /// If records cannot be written in this encoding.
    pub(super) fn body(
        &self,
        encoding: Encoding,
        template: Option<&Template>,
        range: Range<usize>,
    ) -> Result<Bytes, String> {
        match encoding {
            Encoding::Json => self.objects(range, b"[", b",", b"]"),
            Encoding::Ndjson => self.objects(range, b"", b"\n", b"\n"),
            Encoding::Text => self.lines(template, range),
            Encoding::OtlpJson => self.otlp(range),
        }
    }

    fn objects(&self, range: Range<usize>, before: &[u8], between: &[u8], after: &[u8]) -> Result<Bytes, String> {
        let mut out = before.to_vec();
        for (at, record) in readable::all(&self.decoded).skip(range.start).take(range.len()).enumerate() {
            if at > 0 {
                out.extend_from_slice(between);
            }
            serde_json::to_writer(&mut out, &record).map_err(|error| error.to_string())?;
        }
        out.extend_from_slice(after);
        Ok(out.into())
    }

    fn lines(&self, template: Option<&Template>, range: Range<usize>) -> Result<Bytes, String> {
        let template = template.ok_or("the encoding `text` has no template")?;
        let mut out = String::new();
        for record in readable::all(&self.decoded).skip(range.start).take(range.len()) {
            template.write(&serde_json::to_value(record).map_err(|error| error.to_string())?, &mut out);
        }
        Ok(out.into())
    }

    fn otlp(&self, range: Range<usize>) -> Result<Bytes, String> {
        let (mut requests, mut start) = (Vec::new(), 0);
        for (payload, records) in self.delivery.payloads.iter().zip(&self.decoded) {
            let own = start..start + payload.len();
            start = own.end;
            let wanted = range.start.max(own.start)..range.end.min(own.end);
            if wanted == own {
                requests.push(payload.to_json().map_err(|error| error.to_string())?);
            } else if !wanted.is_empty() {
                let part = records.select(|position| wanted.contains(&(own.start + position)));
                requests.push(Payload::from_records(part).to_json().map_err(|error| error.to_string())?);
            }
        }
        join(self.delivery.signal, requests)
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
