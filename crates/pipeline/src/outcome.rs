//! What one attempt to export says, and why something could not be done.

use std::time::Duration;

use weir_net::{Answer, StatusClass, TransportError, TransportKind, retry_after};

/// The result of ONE attempt to deliver. Every answer of every backend maps to exactly one.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All records were taken.
    Accepted,
    /// Some records were refused for good, the rest were taken.
    Partly {
        /// Which were refused.
        refused: Refused,
        /// Why, in the backend's words.
        why: String,
    },
    /// The backend answered for every record; those that are named in neither list were taken and
    /// are never sent again.
    Each {
        /// Refused for good: the position in the delivery, counted over its payloads in order, and why.
        refused: Vec<(u32, String)>,
        /// Positions of those that were not taken, but may be later. Only they are sent again, as a
        /// delivery of their own. A record that is refused as well is refused.
        later: Vec<u32>,
        /// The delay that the backend asked for.
        after: Option<Duration>,
        /// Why, for health and logs: all answers in one line.
        why: String,
    },
    /// Nothing was taken, the same request may be taken later.
    Later {
        /// The delay that the backend asked for.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// The request is too large; its halves may be taken.
    Split {
        /// Why.
        why: String,
    },
    /// Nothing was taken and nothing of it ever will be.
    Never {
        /// Why.
        why: String,
    },
    /// The credentials are not right (yet): nothing was taken.
    Unauthorized {
        /// Why.
        why: String,
    },
}

/// Which records of a delivery were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The backend says only how many.
    Count(u64),
    /// Their positions in the delivery, counted over its payloads in order.
    Records(Vec<u32>),
}

impl Refused {
    /// How many.
    pub fn count(&self) -> u64 {
        match self {
            Refused::Count(count) => *count,
            Refused::Records(records) => records.len() as u64,
        }
    }
}

impl Outcome {
    /// The outcome of an HTTP answer, where the backend documents nothing else.
    pub fn of_answer(answer: &Answer) -> Outcome {
        let why = answer.excerpt();
        match StatusClass::of(answer.status) {
            StatusClass::Success => Outcome::Accepted,
            StatusClass::Retry => {
                Outcome::Later { after: retry_after(&answer.headers, std::time::SystemTime::now()), why }
            }
            StatusClass::TooLarge => Outcome::Split { why },
            StatusClass::Unauthorized => Outcome::Unauthorized { why },
            StatusClass::Never => Outcome::Never { why },
        }
    }

    /// The outcome of a request that got no answer: whether it arrived is unknown, so it is sent again.
    pub fn of_transport(error: TransportError) -> Outcome {
        Outcome::Later { after: None, why: error.message }
    }
}

/// What kind of remedy a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The configuration is wrong.
    Configuration,
    /// The other side cannot be reached.
    Unreachable,
    /// The other side does not accept the credentials.
    Unauthorized,
    /// There is something else than expected at that place (a wrong path, another product).
    NotFound,
    /// It did not answer in time.
    TimedOut,
    /// What came is not readable.
    Decode,
    /// More came than the limits allow.
    TooLarge,
    /// A right of the operating system is missing.
    Permission,
    /// Anything else.
    Other,
}

impl FaultKind {
    /// The `error.type` under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Configuration => "configuration",
            FaultKind::Unreachable => "unreachable",
            FaultKind::Unauthorized => "unauthorized",
            FaultKind::NotFound => "not_found",
            FaultKind::TimedOut => "timeout",
            FaultKind::Decode => "decode",
            FaultKind::TooLarge => "too_large",
            FaultKind::Permission => "permission",
            FaultKind::Other => "other",
        }
    }
}

/// Why something could not be done: what, where, and what to do next, in one line without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The kind of remedy.
    pub kind: FaultKind,
    /// The sentence for people.
    pub message: String,
}

impl Fault {
    /// A fault with its sentence.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A fault of the configuration.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Configuration, message)
    }

    /// The fault that an answer to a check stands for; `None` if it is a success.
    pub fn of_answer(answer: &Answer, place: &str) -> Option<Fault> {
        let excerpt = answer.excerpt();
        Some(match StatusClass::of(answer.status) {
            StatusClass::Success => return None,
            StatusClass::Unauthorized => Fault::new(
                FaultKind::Unauthorized,
                format!("{place} does not accept the credentials ({excerpt}): check key, user and permissions"),
            ),
            _ if answer.status.as_u16() == 404 || answer.status.as_u16() == 405 => Fault::new(
                FaultKind::NotFound,
                format!("{place} answers, but not at this path ({excerpt}): check the path of the address"),
            ),
            _ => Fault::new(FaultKind::Other, format!("{place} answers {excerpt}")),
        })
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        let kind = match error.kind {
            TransportKind::TimedOut => FaultKind::TimedOut,
            TransportKind::TooLarge => FaultKind::TooLarge,
            TransportKind::Refused | TransportKind::UnknownHost | TransportKind::Closed | TransportKind::Tls => {
                FaultKind::Unreachable
            }
            TransportKind::Other => FaultKind::Other,
        };
        Fault::new(kind, error.message)
    }
}
