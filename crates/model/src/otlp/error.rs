//! What can be wrong with an OTLP request.

use std::fmt;

/// Received bytes are not the OTLP request that they claim to be.
///
/// Says what is wrong, in which message and where: `resource_logs.scope_logs.log_records.attributes
/// at byte 1234: length 900 runs past the end of the message, which has 12 bytes left`. Sending the
/// same bytes again cannot succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Detail {
    path: String,
    offset: Option<usize>,
    fault: Fault,
}

/// The kinds of damage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("length {length} runs past the end of the message, which has {left} bytes left")]
    LengthPastEnd { length: u64, left: usize },
    #[error("a {width}-byte number runs past the end of the message, which has {left} bytes left")]
    FixedPastEnd { width: usize, left: usize },
    #[error("a variable-length number does not end within the message and within 64 bits")]
    Varint,
    #[error("field key {0} is not a valid protobuf field number and wire type")]
    Key(u64),
    #[error("wire type {found} where the schema says {expected}")]
    WireType { found: u8, expected: &'static str },
    #[error("a group ends that was not begun")]
    Group,
    #[error("text is not valid UTF-8")]
    Utf8,
    #[error("messages are nested deeper than {limit} levels")]
    Nesting { limit: u32 },
    #[error("the request is larger than the 4 GiB that a batch can hold")]
    TooLarge,
    #[error("the payload has neither wire bytes nor records; this is an error of Weir, please report it")]
    Empty,
    #[error("not valid JSON: expected {expected}, found {found}")]
    Json { expected: &'static str, found: String },
    #[error("expected {expected}, found {found}")]
    JsonType { expected: &'static str, found: String },
}

impl DecodeError {
    /// An error of Weir itself: a payload with neither wire bytes nor records.
    pub fn empty() -> Self {
        Self::new(Fault::Empty)
    }

    #[cold]
    pub(crate) fn new(fault: Fault) -> Self {
        Self(Box::new(Detail { path: String::new(), offset: None, fault }))
    }

    #[cold]
    pub(crate) fn at(offset: usize, fault: Fault) -> Self {
        Self(Box::new(Detail { path: String::new(), offset: Some(offset), fault }))
    }

    /// The same error, seen from the message around: `name` goes in front of the path.
    #[cold]
    pub(crate) fn within(mut self, name: &str) -> Self {
        let path = &mut self.0.path;
        if path.is_empty() {
            path.push_str(name);
        } else {
            *path = format!("{name}.{path}");
        }
        self
    }

    /// The same error with its whole path.
    #[cold]
    pub(crate) fn located(mut self, path: String) -> Self {
        self.0.path = path;
        self
    }

    /// Where the damage is: field names joined by dots, as in the schema of the encoding; empty at the top.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Byte offset in the request; `None` only for errors that concern the request as a whole.
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { path, offset, fault } = &*self.0;
        if matches!(fault, Fault::Empty | Fault::TooLarge) {
            return write!(f, "{fault}");
        }
        f.write_str(if path.is_empty() { "request" } else { path })?;
        if let Some(offset) = offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {fault}")
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_message_offset_and_damage() {
        let fault = Fault::LengthPastEnd { length: 900, left: 12 };
        let error = DecodeError::at(1234, fault).within("attributes").within("log_records");
        assert_eq!(
            error.to_string(),
            "log_records.attributes at byte 1234: length 900 runs past the end of the message, which has 12 bytes left"
        );
        assert_eq!(DecodeError::new(Fault::Utf8).to_string(), "request: text is not valid UTF-8");
    }
}
