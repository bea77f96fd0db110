//! From a payload to the messages that carry it: one, or one per partition key, and smaller ones where it is
//! larger than the brokers take.

use bytes::Bytes;
use weir_model::logs::Logs;
use weir_model::metrics::Metrics;
use weir_model::traces::Traces;
use weir_model::{Attributes, Common, Encoding, Payload, Records, otlp};

/// What decides the partition of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PartitionKey {
    /// Nothing: messages are spread over all partitions.
    None,
    /// A resource attribute.
    Resource(String),
    /// The trace of a span or log record.
    TraceId,
}

impl PartitionKey {
    /// Reads `none`, `hostname`, `trace_id` or the name of a resource attribute.
    pub(super) fn parse(text: &str) -> PartitionKey {
        match text {
            "" | "none" => PartitionKey::None,
            "hostname" => PartitionKey::Resource("host.name".to_owned()),
            "trace_id" => PartitionKey::TraceId,
            attribute => PartitionKey::Resource(attribute.to_owned()),
        }
    }
}

/// How messages are made.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub encoding: Encoding,
    pub key: PartitionKey,
    /// Most bytes of key and body.
    pub limit_bytes: usize,
}

/// A message to be sent.
#[derive(Debug)]
pub(super) struct Message {
    pub key: Option<String>,
    pub body: Bytes,
    /// Positions of its records in the delivery.
    pub positions: Vec<u32>,
}

/// What becomes of the records of a payload, piece by piece.
#[derive(Debug)]
pub(super) enum Piece {
    Message(Message),
    /// A record that no message can carry, and why.
    Refused(u32, String),
}

/// Positions that are handed on together.
struct Group {
    key: Option<String>,
    /// Positions in the payload, ascending.
    positions: Vec<u32>,
}

impl Form {
    /// Hands the pieces of a payload to `out`, one after another so that only one is held. The payload's
    /// first record has the position `first` in the delivery.
    pub(super) fn write(&self, payload: &Payload, first: u32, out: &mut impl FnMut(Piece)) {
        let length = position(payload.len());
        if let Err(error) = self.try_write(payload, first, out) {
            for at in 0..length {
                out(Piece::Refused(first.saturating_add(at), format!("it cannot be encoded: {error}")));
            }
        }
    }

    fn try_write(
        &self,
        payload: &Payload,
        first: u32,
        out: &mut impl FnMut(Piece),
    ) -> Result<(), weir_model::DecodeError> {
        let all = (0..position(payload.len())).collect::<Vec<u32>>();
        let groups = match self.key {
            PartitionKey::None => vec![Group { key: None, positions: all }],
            _ => self.groups(payload.records()?),
        };
        if let [Group { key, positions }] = groups.as_slice() {
            let body = self.encode_payload(payload)?;
            if self.fits(key.as_deref(), &body) {
                let positions = moved(positions, first);
                out(Piece::Message(Message { key: key.clone(), body, positions }));
                return Ok(());
            }
        }
        let mut parts = Parts::new(payload.records()?);
        for group in groups {
            self.write_group(&mut parts, group, first, out);
        }
        Ok(())
    }

    /// Writes a group as one message, or as its halves.
    fn write_group(&self, parts: &mut Parts<'_>, group: Group, first: u32, out: &mut impl FnMut(Piece)) {
        let body = self.encode(parts.take(&group.positions));
        let Group { key, mut positions } = group;
        if self.fits(key.as_deref(), &body) {
            let positions = moved(&positions, first);
            return out(Piece::Message(Message { key, body, positions }));
        }
        if let [only] = positions.as_slice() {
            let why = format!("one record is {} B, more than max_message_size allows", body.len());
            return out(Piece::Refused(first.saturating_add(*only), why));
        }
        drop(body);
        let second = positions.split_off(positions.len() / 2);
        self.write_group(parts, Group { key: key.clone(), positions }, first, out);
        self.write_group(parts, Group { key, positions: second }, first, out);
    }

    fn fits(&self, key: Option<&str>, body: &Bytes) -> bool {
        key.map_or(0, str::len) + body.len() <= self.limit_bytes
    }

    fn encode(&self, records: &Records) -> Bytes {
        match self.encoding {
            Encoding::Protobuf => otlp::encode_protobuf(records),
            Encoding::Json => otlp::encode_json(records),
        }
    }

    fn encode_payload(&self, payload: &Payload) -> Result<Bytes, weir_model::DecodeError> {
        match self.encoding {
            Encoding::Protobuf => payload.to_protobuf(),
            Encoding::Json => payload.to_json(),
        }
    }

    /// Records with the same key, in the order in which the keys first come.
    fn groups(&self, records: &Records) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut known: std::collections::HashMap<Option<String>, usize> = std::collections::HashMap::new();
        for at in 0..records.len() {
            let key = self.key_of(records, at);
            let index = match known.get(&key) {
                Some(index) => *index,
                None => {
                    known.insert(key.clone(), groups.len());
                    groups.push(Group { key, positions: Vec::new() });
                    groups.len() - 1
                }
            };
            if let Some(group) = groups.get_mut(index) {
                group.positions.push(position(at));
            }
        }
        groups
    }

    /// The key of the record at a position; `None` where it has no such attribute or trace.
    fn key_of(&self, records: &Records, at: usize) -> Option<String> {
        match (&self.key, records) {
            (PartitionKey::None, _) | (PartitionKey::TraceId, Records::Metrics(_)) => None,
            (PartitionKey::TraceId, Records::Logs(logs)) => hexadecimal(&logs.common, logs.records.get(at)?.trace_id),
            (PartitionKey::TraceId, Records::Traces(traces)) => {
                hexadecimal(&traces.common, traces.spans.get(at)?.trace_id)
            }
            (PartitionKey::Resource(name), Records::Metrics(metrics)) => {
                let metric = metrics.table.metric_of(series_at(metrics, at)?)?;
                resource_text(&metrics.table.common, metric.scope, name)
            }
            (PartitionKey::Resource(name), Records::Logs(logs)) => {
                resource_text(&logs.common, logs.records.get(at)?.scope, name)
            }
            (PartitionKey::Resource(name), Records::Traces(traces)) => {
                resource_text(&traces.common, traces.spans.get(at)?.scope, name)
            }
        }
    }
}

/// A position as [`weir_pipeline::Outcome`] counts; deliveries are far below 2^32 records.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn moved(positions: &[u32], first: u32) -> Vec<u32> {
    positions.iter().map(|position| position.saturating_add(first)).collect()
}

fn hexadecimal(common: &Common, id: weir_model::Text) -> Option<String> {
    let bytes = common.arena.bytes(id);
    (!bytes.is_empty()).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn resource_text(common: &Common, scope: u32, name: &str) -> Option<String> {
    let resource = common.scopes.get(scope as usize)?.resource;
    let attributes: Attributes = common.resources.get(resource as usize)?.attributes;
    Some(common.value_text(common.find(attributes, name)?)).filter(|text| !text.is_empty())
}

/// The series of the point at a position, as [`Records::select`] counts them.
fn series_at(metrics: &Metrics, at: usize) -> Option<u32> {
    let Some(at) = at.checked_sub(metrics.numbers.len()) else { return metrics.numbers.series.get(at).copied() };
    let Some(at) = at.checked_sub(metrics.histograms.len()) else {
        return metrics.histograms.get(at).map(|point| point.distribution.series);
    };
    let Some(at) = at.checked_sub(metrics.exponential.len()) else {
        return metrics.exponential.get(at).map(|point| point.distribution.series);
    };
    metrics.summaries.get(at).map(|point| point.series)
}

/// Takes parts out of records one after another, without copying what they share each time.
struct Parts<'a> {
    whole: &'a Records,
    part: Records,
}

impl<'a> Parts<'a> {
    fn new(whole: &'a Records) -> Self {
        let part = match whole {
            Records::Metrics(metrics) => Records::Metrics(metrics.select(|_| false)),
            Records::Logs(logs) => Records::Logs(Logs { common: logs.common.clone(), records: Vec::new() }),
            Records::Traces(traces) => Records::Traces(Traces {
                common: traces.common.clone(),
                spans: Vec::new(),
                events: traces.events.clone(),
                links: traces.links.clone(),
            }),
        };
        Parts { whole, part }
    }

    /// The records at these ascending positions.
    fn take(&mut self, positions: &[u32]) -> &Records {
        match (self.whole, &mut self.part) {
            (Records::Logs(whole), Records::Logs(part)) => part.records = picked(&whole.records, positions),
            (Records::Traces(whole), Records::Traces(part)) => part.spans = picked(&whole.spans, positions),
            (whole, part) => *part = whole.select(|at| positions.binary_search(&position(at)).is_ok()),
        }
        &self.part
    }
}

fn picked<T: Copy>(all: &[T], positions: &[u32]) -> Vec<T> {
    positions.iter().filter_map(|at| all.get(*at as usize).copied()).collect()
}
