//! Prometheus' text formats: 0.0.4 and OpenMetrics 1.0.
//!
//! [`parse`] reads a whole exposition and records it, or records nothing and names the line that is
//! wrong. [`Document`] does the two steps apart: a scraper keeps the document of the last poll, to
//! mark the series that ended since.
//!
//! How samples become points:
//! - names stay as they are, `_total` included, so that they come out the same at a Prometheus
//!   backend; the unit is what `# UNIT` says, or empty. The metric's metadata carries the declared
//!   type under [`PROMETHEUS_TYPE`], as the OpenTelemetry Collector does
//! - counter: cumulative monotonic sum; its start is `_created` (OpenMetrics), or unknown
//! - gauge, unknown, untyped, gaugehistogram and samples without a type: gauge
//! - info, stateset: non-monotonic sum (OpenTelemetry's compatibility specification)
//! - histogram: explicit buckets; summary: quantiles. One that lacks what the point needs (a
//!   summary without `_sum` or `_count`, a histogram without a total) is recorded as the gauges
//!   that it consists of
//! - a label with an empty value is no label; of a series that appears twice the first is kept
//!
//! Sources: prometheus/docs `content/docs/instrumenting/exposition_formats.md`, OpenMetrics 1.0.

mod distribution;
mod document;
mod family;
mod lexer;
mod record;

pub use document::Document;
pub use record::{Attach, PROMETHEUS_TYPE, Parsed};

use crate::build::MetricsBuilder;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/plain; version=0.0.4`: timestamps in milliseconds.
    #[default]
    Text,
    /// `application/openmetrics-text; version=1.0.0`: timestamps in seconds, closed by `# EOF`.
    OpenMetrics,
}

impl Format {
    /// The format that a `Content-Type` names. Nothing and `text/plain` of any version are
    /// [`Format::Text`]; `None` is anything else, such as a web page.
    pub fn from_content_type(value: &str) -> Option<Format> {
        let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media.as_str() {
            "" | "text/plain" => Some(Format::Text),
            "application/openmetrics-text" => Some(Format::OpenMetrics),
            _ => None,
        }
    }
}

/// How much an exposition may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most samples (lines that are no comments).
    pub samples: usize,
    /// Most labels of one sample.
    pub labels: usize,
}

impl Default for Limits {
    /// No limits besides the size of the text.
    fn default() -> Self {
        Self { samples: usize::MAX, labels: usize::MAX }
    }
}

/// Options of [`parse`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// How much may come.
    pub limits: Limits,
    /// What is added to every series.
    pub attach: Attach<'a>,
}

/// Why an exposition was not taken. Nothing of it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong in it.
    pub message: String,
    /// Whether it is readable, but more than [`Limits`] allow.
    pub over_limit: bool,
}

/// Records an exposition, all of it or nothing. Points without a time of their own carry the time
/// of the poll ([`MetricsBuilder::begin`]).
///
/// # Errors
/// [`ParseError`] with the line that is wrong; `out` is as it was then.
pub fn parse(
    text: &[u8],
    format: Format,
    options: &Options<'_>,
    out: &mut MetricsBuilder,
) -> Result<Parsed, ParseError> {
    let document = Document::parse(text.to_vec(), format, options.limits)?;
    Ok(document.record(&options.attach, out))
}

/// [`parse`] for text that a program printed: format 0.0.4, no limits, nothing attached. A final
/// `# EOF` makes it OpenMetrics.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(text: &[u8], out: &mut MetricsBuilder) -> Result<Parsed, ParseError> {
    let format = if text.trim_ascii_end().ends_with(b"\n# EOF") { Format::OpenMetrics } else { Format::Text };
    parse(text, format, &Options::default(), out)
}

#[cfg(test)]
mod tests;
