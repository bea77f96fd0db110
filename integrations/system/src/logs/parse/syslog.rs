//! Syslog as files hold it: RFC 5424, RFC 3164, and rsyslog's file format with ISO times; the
//! priority may be missing, because most daemons do not write it into files.

use std::borrow::Cow;

use super::line::{Field, Line};
use super::severity;
use super::time::Clock;

/// Reads a syslog line. Where only its priority can be read, this and the rest are in the line beside the error.
pub fn parse<'a>(text: &'a str, clock: &Clock) -> Line<'a> {
    let mut line = Line::default();
    let priority = priority(text);
    if let Some((code, _)) = priority {
        let level = code % 8;
        line.severity_number = severity::of_syslog(level);
        line.severity_text = Cow::Borrowed(severity::syslog_word(level));
        line.put("syslog.facility", Field::Int(i64::from(code / 8)));
        line.put("syslog.severity.code", Field::Int(i64::from(level)));
    }
    let (rest, known) = (priority.map_or(text, |(_, rest)| rest), line.attributes.len());
    let read = match rest.strip_prefix("1 ") {
        Some(rest) => rfc5424(rest, clock, &mut line),
        None => rfc3164(rest, clock, &mut line),
    };
    if read.is_none() {
        line.attributes.truncate(known);
        line.time_unix_nano = 0;
        line.body = priority.map(|_| Cow::Borrowed(rest));
        line.error = Some("no syslog line");
        return line;
    }
    if line.severity_number == 0
        && let Some((number, word)) = severity::find(line.body.as_deref().unwrap_or(text))
    {
        let word = Cow::Owned(word.to_owned());
        (line.severity_number, line.severity_text) = (number, word);
    }
    line
}

/// `<PRI>`, 0 to 191 (RFC 5424, section 6.2.1).
fn priority(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let valid = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let code = digits.parse::<u8>().ok().filter(|code| valid && *code <= 191)?;
    Some((code, rest))
}

/// `TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG`, `-` for what is not known (section 6).
fn rfc5424<'a>(rest: &'a str, clock: &Clock, line: &mut Line<'a>) -> Option<()> {
    let (time, rest) = rest.split_once(' ')?;
    if time != "-" {
        line.time_unix_nano = clock.leading(time)?.0;
    }
    let mut rest = rest;
    for key in ["syslog.hostname", "syslog.appname", "syslog.procid", "syslog.msgid"] {
        let (word, behind) = rest.split_once(' ')?;
        line.put_known(key, word);
        rest = behind;
    }
    let rest = match rest.strip_prefix('-') {
        Some(rest) => rest,
        None => {
            let (data, rest) = structured_data(rest)?;
            line.put("syslog.structured_data", Field::Map(data));
            rest
        }
    };
    let body = rest.strip_prefix(' ').unwrap_or(rest);
    line.body = Some(Cow::Borrowed(body.strip_prefix('\u{feff}').unwrap_or(body)));
    Some(())
}

type Pairs<'a> = Vec<(Cow<'a, str>, Field<'a>)>;

/// `[id name="value" ...][...]`; `\"`, `\\` and `\]` are escaped (section 6.3).
fn structured_data(text: &str) -> Option<(Pairs<'_>, &str)> {
    let (mut elements, mut rest) = (Vec::new(), text);
    while let Some(inside) = rest.strip_prefix('[') {
        let end = inside.find([' ', ']'])?;
        let (id, mut behind) = inside.split_at(end);
        let mut pairs = Vec::new();
        loop {
            behind = behind.trim_start_matches(' ');
            if let Some(after) = behind.strip_prefix(']') {
                rest = after;
                break;
            }
            let (name, value) = behind.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            pairs.push((Cow::Borrowed(name), Field::Text(value)));
            behind = after;
        }
        elements.push((Cow::Borrowed(id), Field::Map(pairs)));
    }
    if elements.is_empty() { None } else { Some((elements, rest)) }
}

fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut end = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => break,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    let (raw, rest) = (text.get(..end)?, text.get(end + 1..)?);
    if !raw.contains('\\') {
        return Some((Cow::Borrowed(raw), rest));
    }
    let plain = raw.replace("\\\"", "\"").replace("\\]", "]").replace("\\\\", "\\");
    Some((Cow::Owned(plain), rest))
}

/// `TIMESTAMP HOSTNAME TAG[PID]: MSG` (RFC 3164, section 4.1).
fn rfc3164<'a>(rest: &'a str, clock: &Clock, line: &mut Line<'a>) -> Option<()> {
    let (time, end) = clock.leading(rest)?;
    line.time_unix_nano = time;
    let rest = rest.get(end..)?.strip_prefix(' ')?;
    let (host, behind) = rest.split_once(' ')?;
    // Programs that write to the local socket leave the host out: the tag comes first. IPv6 addresses
    // may end in colons too, but in two.
    let is_tag = host.ends_with(':') && !host.ends_with("::");
    let rest = if is_tag { rest } else { behind };
    if !is_tag {
        line.put_known("syslog.hostname", host);
    }
    let end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@')))
        .unwrap_or(rest.len());
    let (tag, behind) = rest.split_at(end);
    let (process, behind) = match behind.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((process, behind)) => (process, behind),
        None => ("", behind),
    };
    // Without a colon there is no tag: the kernel's own lines and many devices leave it out.
    let Some(body) = behind.strip_prefix(':').filter(|_| !tag.is_empty()) else {
        line.body = Some(Cow::Borrowed(rest));
        return Some(());
    };
    line.put_known("syslog.appname", tag);
    line.put_known("syslog.procid", process);
    line.body = Some(Cow::Borrowed(body.strip_prefix(' ').unwrap_or(body)));
    Some(())
}
