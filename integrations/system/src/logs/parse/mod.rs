//! From the text of a record to what it says.

pub mod access;
pub mod container;
pub mod json;
pub mod line;
pub mod logfmt;
pub mod pattern;
pub mod severity;
pub mod syslog;
pub mod time;

use std::borrow::Cow;

use container::Container;
use line::{Field, Line};
use pattern::GrokPattern;
use regex::Regex;
use time::{Clock, TimeFormat};

/// A format, ready to be used.
#[derive(Debug)]
pub enum Grammar {
    /// Any text: time at its beginning and level are recognised, the rest is the message.
    Raw,
    /// One JSON object.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// RFC 3164 or RFC 5424.
    Syslog,
    /// Common or combined access log.
    Access,
    /// nginx's error log.
    NginxError,
    /// A regular expression with named groups.
    Regex(Regex),
    /// A grok pattern.
    Grok(GrokPattern),
}

/// Reads records of one configuration.
#[derive(Debug)]
pub struct Parser {
    /// What container runtimes wrap around it.
    pub container: Option<Container>,
    /// The format of the text itself.
    pub grammar: Grammar,
    /// Attribute with the level; the usual names otherwise.
    pub severity_field: Option<String>,
    /// Attribute with the time; the usual names otherwise.
    pub time_field: Option<String>,
    /// How that time is written.
    pub time_format: TimeFormat,
    /// Attribute with the message; the usual names otherwise.
    pub message_field: Option<String>,
}

const TIME_FIELDS: [&str; 5] = ["time", "timestamp", "@timestamp", "ts", "datetime"];
const SEVERITY_FIELDS: [&str; 6] = ["level", "severity", "lvl", "log.level", "loglevel", "levelname"];
const MESSAGE_FIELDS: [&str; 4] = ["message", "msg", "body", "log"];

impl Parser {
    /// What a record says. Its text may hold several lines.
    pub fn parse<'a>(&self, text: &'a str, clock: &Clock) -> Line<'a> {
        match self.container {
            None => self.content(text, clock),
            Some(container) => self.wrapped(container, text, clock),
        }
    }

    /// A record of a container: its pieces are put together, then read as the format says.
    fn wrapped<'a>(&self, container: Container, text: &'a str, clock: &Clock) -> Line<'a> {
        let unreadable = || Line::unreadable("no line of a container's log");
        let mut lines = text.split('\n');
        let Some(first) = lines.next().and_then(|line| container.unwrap(without_carriage_return(line))) else {
            return unreadable();
        };
        let (mut content, mut is_partial) = (first.content, first.is_partial);
        for next in lines {
            let Some(next) = container.unwrap(without_carriage_return(next)) else { return unreadable() };
            let joined = content.to_mut();
            if !is_partial {
                joined.push('\n');
            }
            joined.push_str(&next.content);
            is_partial = next.is_partial;
        }
        let mut line = match content {
            Cow::Borrowed(content) => {
                let mut line = self.content(content, clock);
                line.body.get_or_insert(Cow::Borrowed(content));
                line
            }
            Cow::Owned(content) => {
                let mut line = owned(self.content(&content, clock));
                line.body.get_or_insert(Cow::Owned(content));
                line
            }
        };
        if line.time_unix_nano == 0 {
            line.time_unix_nano = clock.leading(&first.time).map_or(0, |(time, _)| time);
        }
        if !first.stream.is_empty() {
            line.attributes.push((Cow::Borrowed("log.iostream"), Field::Text(first.stream)));
        }
        line
    }

    fn content<'a>(&self, text: &'a str, clock: &Clock) -> Line<'a> {
        let mut line = match &self.grammar {
            Grammar::Raw => return raw(text, clock),
            Grammar::Syslog => syslog::parse(text, clock),
            Grammar::Access => access::parse(text, clock),
            Grammar::NginxError => access::nginx_error(text, clock),
            Grammar::Json => json::parse(text),
            Grammar::Logfmt => logfmt::parse(text),
            Grammar::Regex(regex) => pattern::parse(regex, text),
            Grammar::Grok(pattern) => pattern.parse(text),
        };
        if let Some(error) = line.error {
            line = raw(text, clock);
            line.error = Some(error);
            return line;
        }
        self.take_time(&mut line, clock);
        self.take_severity(&mut line);
        self.take_message(&mut line, text);
        take_trace(&mut line);
        line
    }

    /// Moves the time to its place; what cannot be read stays an attribute.
    fn take_time(&self, line: &mut Line<'_>, clock: &Clock) {
        let fields = self.time_field.as_deref().map_or(&TIME_FIELDS[..], |_| &[]);
        for name in self.time_field.as_deref().into_iter().chain(fields.iter().copied()) {
            let Some(text) = line.get(name).and_then(Field::scalar) else { continue };
            let Some(time) = self.time_format.read(&text, clock) else { continue };
            line.time_unix_nano = time;
            line.take(name);
            return;
        }
    }

    fn take_severity(&self, line: &mut Line<'_>) {
        let fields = self.severity_field.as_deref().map_or(&SEVERITY_FIELDS[..], |_| &[]);
        for name in self.severity_field.as_deref().into_iter().chain(fields.iter().copied()) {
            let number = match line.get(name) {
                Some(Field::Text(word)) => severity::of_word(word.trim()),
                Some(Field::Int(level)) => severity::of_number(*level),
                _ => 0,
            };
            if number == 0 {
                continue;
            }
            line.severity_number = number;
            line.severity_text = match line.take(name) {
                Some(Field::Text(word)) => word,
                Some(Field::Int(level)) => level.to_string().into(),
                _ => Cow::Borrowed(""),
            };
            return;
        }
    }

    /// Moves the message into the body. Without one the body is the whole line; then its level may
    /// still be found in it.
    fn take_message(&self, line: &mut Line<'_>, text: &str) {
        let fields = self.message_field.as_deref().map_or(&MESSAGE_FIELDS[..], |_| &[]);
        let mut names = self.message_field.as_deref().into_iter().chain(fields.iter().copied());
        if line.body.is_none()
            && !matches!(self.grammar, Grammar::Access)
            && let Some(name) = names.find(|name| matches!(line.get(name), Some(Field::Text(_))))
            && let Some(Field::Text(message)) = line.take(name)
        {
            line.body = Some(message);
        }
        if line.severity_number == 0
            && self.severity_field.is_none()
            && matches!(self.grammar, Grammar::Regex(_) | Grammar::Grok(_))
            && let Some((number, word)) = severity::find(line.body.as_deref().unwrap_or(text))
        {
            line.severity_number = number;
            line.severity_text = Cow::Owned(word.to_owned());
        }
    }
}

fn take_trace(line: &mut Line<'_>) {
    let text = |line: &Line<'_>, names: [&'static str; 3]| {
        names.into_iter().find_map(|name| match line.get(name) {
            Some(Field::Text(text)) => Some((name, text.clone().into_owned())),
            _ => None,
        })
    };
    if let Some((name, id)) = text(line, ["trace_id", "traceId", "trace.id"])
        && let Some(id) = hexadecimal(&id)
    {
        line.trace_id = Some(id);
        line.take(name);
    }
    if let Some((name, id)) = text(line, ["span_id", "spanId", "span.id"])
        && let Some(id) = hexadecimal(&id)
    {
        line.span_id = Some(id);
        line.take(name);
    }
}

fn hexadecimal<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Text of no particular format: a time at its beginning (perhaps in brackets) and its level count.
fn raw<'a>(text: &'a str, clock: &Clock) -> Line<'a> {
    let mut line = Line::default();
    if let Some((time, _)) = clock.leading(text.strip_prefix('[').unwrap_or(text)) {
        line.time_unix_nano = time;
    }
    if let Some((number, word)) = severity::find(text) {
        line.severity_number = number;
        line.severity_text = Cow::Borrowed(word);
    }
    line
}

fn without_carriage_return(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}

/// The same line, borrowing from nothing.
fn owned<'b>(line: Line<'_>) -> Line<'b> {
    let text = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    Line {
        time_unix_nano: line.time_unix_nano,
        severity_number: line.severity_number,
        severity_text: text(line.severity_text),
        body: line.body.map(text),
        attributes: line.attributes.into_iter().map(|(key, field)| (text(key), owned_field(field))).collect(),
        trace_id: line.trace_id,
        span_id: line.span_id,
        error: line.error,
    }
}

fn owned_field<'b>(field: Field<'_>) -> Field<'b> {
    match field {
        Field::Null => Field::Null,
        Field::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
        Field::Int(number) => Field::Int(number),
        Field::Float(number) => Field::Float(number),
        Field::Bool(value) => Field::Bool(value),
        Field::Bytes(bytes) => Field::Bytes(Cow::Owned(bytes.into_owned())),
        Field::List(list) => Field::List(list.into_iter().map(owned_field).collect()),
        Field::Map(map) => {
            Field::Map(map.into_iter().map(|(key, field)| (Cow::Owned(key.into_owned()), owned_field(field))).collect())
        }
    }
}

#[cfg(test)]
mod tests;
