//! Batches: what travels through the pipeline.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::otlp::{self, DecodeError};
use crate::receipt::Receipt;
use crate::traces::Traces;

/// The kinds of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Metric points.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
}

impl Signal {
    /// All signals.
    pub const ALL: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

    /// `metrics`, `logs` or `traces`, as in OTLP paths and configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }
}

/// An encoding of an OTLP export request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// An OTLP export request exactly as it was received, and checked to be decodable.
///
/// [`otlp::accept`] makes one from received bytes.
#[derive(Clone, Debug)]
pub struct Wire {
    /// How the bytes are encoded.
    pub encoding: Encoding,
    /// The request, not compressed.
    pub bytes: Bytes,
}

/// Decoded records of one signal.
#[derive(Clone, Debug)]
pub enum Records {
    /// Metric points.
    Metrics(Metrics),
    /// Log records.
    Logs(Logs),
    /// Spans.
    Traces(Traces),
}

impl Records {
    /// Their signal.
    pub fn signal(&self) -> Signal {
        match self {
            Records::Metrics(_) => Signal::Metrics,
            Records::Logs(_) => Signal::Logs,
            Records::Traces(_) => Signal::Traces,
        }
    }

    /// How many metric points, log records or spans.
    pub fn len(&self) -> usize {
        match self {
            Records::Metrics(metrics) => metrics.len(),
            Records::Logs(logs) => logs.records.len(),
            Records::Traces(traces) => traces.spans.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held in memory.
    pub fn size_bytes(&self) -> usize {
        match self {
            Records::Metrics(metrics) => metrics.size_bytes(),
            Records::Logs(logs) => logs.common.size_bytes() + logs.records.len() * size_of::<crate::logs::LogRecord>(),
            Records::Traces(traces) => {
                traces.common.size_bytes()
                    + traces.spans.len() * size_of::<crate::traces::Span>()
                    + traces.events.len() * size_of::<crate::traces::Event>()
                    + traces.links.len() * size_of::<crate::traces::Link>()
            }
        }
    }
}

/// Records as they were received, decoded, or both; cloning shares them.
#[derive(Clone, Debug)]
pub struct Payload(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    signal: Signal,
    records: usize,
    size_bytes: usize,
    wire: Option<Wire>,
    decoded: OnceLock<Result<Records, DecodeError>>,
}

impl Payload {
    /// A payload in wire form. `records` is what [`otlp::accept`] counted.
    pub fn from_wire(signal: Signal, wire: Wire, records: usize) -> Self {
        let size_bytes = wire.bytes.len();
        Self(Arc::new(Inner { signal, records, size_bytes, wire: Some(wire), decoded: OnceLock::new() }))
    }

    /// A payload that is decoded already and keeps its wire form (OTLP/JSON, which is decoded to be
    /// checked). Its size counts both.
    pub fn from_decoded_wire(wire: Wire, records: Records) -> Self {
        let inner = Inner {
            signal: records.signal(),
            records: records.len(),
            size_bytes: wire.bytes.len() + records.size_bytes(),
            wire: Some(wire),
            decoded: OnceLock::from(Ok(records)),
        };
        Self(Arc::new(inner))
    }

    /// A payload of decoded records.
    pub fn from_records(records: Records) -> Self {
        let inner = Inner {
            signal: records.signal(),
            records: records.len(),
            size_bytes: records.size_bytes(),
            wire: None,
            decoded: OnceLock::from(Ok(records)),
        };
        Self(Arc::new(inner))
    }

    /// The signal of the records.
    pub fn signal(&self) -> Signal {
        self.0.signal
    }

    /// How many metric points, log records or spans.
    pub fn len(&self) -> usize {
        self.0.records
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.0.records == 0
    }

    /// Bytes that it holds when made: the wire form, the decoded form, or both. What is decoded later
    /// does not count again.
    pub fn size_bytes(&self) -> usize {
        self.0.size_bytes
    }

    /// The wire form, if it was received as such.
    pub fn wire(&self) -> Option<&Wire> {
        self.0.wire.as_ref()
    }

    /// The records, decoded on the first call and kept.
    ///
    /// # Errors
    /// [`DecodeError`] if the wire form is not what it claims to be. Payloads that came through
    /// [`otlp::accept`] were checked, so this is an error of Weir then.
    pub fn records(&self) -> Result<&Records, DecodeError> {
        let decoded = self.0.decoded.get_or_init(|| match &self.0.wire {
            Some(wire) => otlp::decode(self.0.signal, wire),
            None => Err(DecodeError::empty()),
        });
        decoded.as_ref().map_err(Clone::clone)
    }

    /// The records for one use: those that are kept already, else decoded and not kept. For whoever writes
    /// them into another form and waits with that, so that both are not in memory meanwhile.
    ///
    /// # Errors
    /// As [`Payload::records`].
    pub fn records_once(&self) -> Result<Cow<'_, Records>, DecodeError> {
        match (&self.0.wire, self.0.decoded.get()) {
            (Some(wire), None) => otlp::decode(self.0.signal, wire).map(Cow::Owned),
            _ => self.records().map(Cow::Borrowed),
        }
    }

    /// The records, to be changed: moved out where this is the only holder, else copied.
    ///
    /// # Errors
    /// As [`Payload::records`].
    pub fn into_records(self) -> Result<Records, DecodeError> {
        self.records()?;
        match Arc::try_unwrap(self.0) {
            Ok(inner) => inner.decoded.into_inner().unwrap_or_else(|| Err(DecodeError::empty())),
            Err(shared) => Payload(shared).records().cloned(),
        }
    }

    /// The payload as an OTLP protobuf request: the received bytes where they are that, else encoded.
    ///
    /// # Errors
    /// As [`Payload::records`].
    pub fn to_protobuf(&self) -> Result<Bytes, DecodeError> {
        match &self.0.wire {
            Some(Wire { encoding: Encoding::Protobuf, bytes }) => Ok(bytes.clone()),
            _ => Ok(otlp::encode_protobuf(&*self.records_once()?)),
        }
    }

    /// The payload as an OTLP/JSON request: the received bytes where they are that, else encoded.
    ///
    /// # Errors
    /// As [`Payload::records`].
    pub fn to_json(&self) -> Result<Bytes, DecodeError> {
        match &self.0.wire {
            Some(Wire { encoding: Encoding::Json, bytes }) => Ok(bytes.clone()),
            _ => Ok(otlp::encode_json(&*self.records_once()?)),
        }
    }
}

/// Records on their way from one source, and the receipt that the source waits for.
#[derive(Debug)]
pub struct Batch {
    /// The integration instance that brought it, for example `otlp_receiver`.
    pub origin: Arc<str>,
    /// The records.
    pub payload: Payload,
    /// Settled when the batch has reached its durable point, or cannot.
    pub receipt: Receipt,
}

impl Batch {
    /// The same records for another destination, with a part of the receipt.
    pub fn split(&self) -> Batch {
        Batch { origin: self.origin.clone(), payload: self.payload.clone(), receipt: self.receipt.split() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::Value;

    #[test]
    fn records_for_one_use_are_decoded_and_not_kept_and_what_is_kept_is_not_decoded_again() {
        let mut logs = Logs::default();
        let body = Value::String(logs.common.arena.add(b"hello"));
        logs.records.push(crate::logs::LogRecord { body, ..Default::default() });
        let decoded = Payload::from_records(Records::Logs(logs));
        assert!(matches!(decoded.records_once(), Ok(Cow::Borrowed(_))));
        let wire = Wire { encoding: Encoding::Protobuf, bytes: decoded.to_protobuf().unwrap() };
        let received = Payload::from_wire(Signal::Logs, wire, 1);
        assert!(matches!(received.records_once(), Ok(Cow::Owned(records)) if records.len() == 1));
        assert_eq!(received.to_json().unwrap(), decoded.to_json().unwrap());
        assert!(received.0.decoded.get().is_none(), "neither was kept");
        assert_eq!(received.records().unwrap().len(), 1);
        assert!(matches!(received.records_once(), Ok(Cow::Borrowed(_))));
    }
}
