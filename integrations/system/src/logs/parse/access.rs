//! Access logs of nginx and Apache: common and combined format, and the error log of nginx.

use std::borrow::Cow;

use super::line::{Field, Line};
use super::severity;
use super::time::Clock;

/// Reads `client ident user [time] "request" status bytes ["referer" "agent"] ...`, with or
/// without Apache's `vhost:port` before it. The body stays the whole line.
pub fn parse<'a>(text: &'a str, clock: &Clock) -> Line<'a> {
    let mut line = Line::default();
    if read(text, clock, &mut line).is_none() {
        return Line::unreadable("no access log line");
    }
    line
}

fn read<'a>(text: &'a str, clock: &Clock, line: &mut Line<'a>) -> Option<()> {
    let (before, rest) = text.split_once(" [")?;
    let mut words = before.split(' ');
    let (mut client, mut user) = (words.next()?, words.nth(1)?);
    if let Some(last) = words.next() {
        line.put_known("server.address", client.rsplit_once(':').map_or(client, |(host, _)| host));
        (client, user) = (before.split(' ').nth(1)?, last);
    }
    let (time, rest) = rest.split_once(']')?;
    line.time_unix_nano = clock.common_log(time)?.0;
    line.put_known("client.address", client);
    line.put_known("user.name", user);
    let (request, rest) = quoted(rest.trim_start())?;
    put_request(line, request);
    let mut words = rest.trim_start().splitn(3, ' ');
    let status: i64 = words.next()?.parse().ok()?;
    line.put("http.response.status_code", Field::Int(status));
    // `-` is how Apache writes "no body".
    if let Ok(size) = words.next()?.parse() {
        line.put("http.response.body.size", Field::Int(size));
    }
    line.severity_number = match status {
        500.. => 17,
        400.. => 13,
        _ => 9,
    };
    if let Some((referer, rest)) = words.next().and_then(quoted) {
        put_text(line, "http.request.header.referer", referer);
        if let Some((agent, _)) = quoted(rest.trim_start()) {
            put_text(line, "user_agent.original", agent);
        }
    }
    Some(())
}

fn put_text<'a>(line: &mut Line<'a>, key: &'a str, text: Cow<'a, str>) {
    if !text.is_empty() && text != "-" {
        line.attributes.push((Cow::Borrowed(key), Field::Text(text)));
    }
}

/// `GET /path?query HTTP/1.1`. Anything else, such as the bytes of a TLS handshake, is kept as it is.
fn put_request<'a>(line: &mut Line<'a>, request: Cow<'a, str>) {
    let parts = |request: &str| {
        let (method, rest) = request.split_once(' ')?;
        let (target, version) = rest.rsplit_once(" HTTP/")?;
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        is_method.then_some((method.len(), target.len(), version.len()))
    };
    let Some((method, target, version)) = parts(&request) else {
        put_text(line, "http.request.original", request);
        return;
    };
    let cut = |from: usize, length: usize| -> Cow<'a, str> {
        match &request {
            Cow::Borrowed(text) => Cow::Borrowed(text.get(from..from + length).unwrap_or_default()),
            Cow::Owned(text) => Cow::Owned(text.get(from..from + length).unwrap_or_default().to_owned()),
        }
    };
    put_text(line, "http.request.method", cut(0, method));
    let path = cut(method + 1, target);
    match path.find('?') {
        Some(at) => {
            put_text(line, "url.path", cut(method + 1, at));
            put_text(line, "url.query", cut(method + 2 + at, target - at - 1));
        }
        None => put_text(line, "url.path", path),
    }
    put_text(line, "network.protocol.version", cut(method + 1 + target + " HTTP/".len(), version));
}

/// A text in quotes, and what follows it. Apache escapes quotes as `\"`, nginx as `\x22`.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inside = text.strip_prefix('"')?;
    let bytes = inside.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => break,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    let (raw, rest) = (inside.get(..end)?, inside.get(end + 1..)?);
    Some((unescape(raw), rest))
}

/// Replaces `\"`, `\\` and `\xHH`; bytes that make no UTF-8 stay escaped.
fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (plain, escaped) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        let code = escaped.get(2..4).filter(|_| escaped.starts_with("\\x"));
        rest = match (code.and_then(|code| u8::from_str_radix(code, 16).ok()), escaped.as_bytes().get(1)) {
            (Some(byte), _) => {
                bytes.push(byte);
                escaped.get(4..).unwrap_or_default()
            }
            (None, Some(quote @ (b'"' | b'\\'))) => {
                bytes.push(*quote);
                escaped.get(2..).unwrap_or_default()
            }
            _ => {
                bytes.push(b'\\');
                escaped.get(1..).unwrap_or_default()
            }
        };
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Reads nginx's error log: `2026/01/02 03:04:05 [error] 12#13: *14 message, client: ..., server: ...`.
pub fn nginx_error<'a>(text: &'a str, clock: &Clock) -> Line<'a> {
    let mut line = Line::default();
    if read_error(text, clock, &mut line).is_none() {
        return Line::unreadable("no line of nginx's error log");
    }
    line
}

/// What nginx adds behind its messages, and the attribute that it becomes.
const CONTEXT: [(&str, &str); 5] = [
    (", client: ", "client.address"),
    (", server: ", "server.address"),
    (", request: ", "http.request.original"),
    (", upstream: ", "nginx.upstream"),
    (", host: ", "http.request.header.host"),
];

fn read_error<'a>(text: &'a str, clock: &Clock, line: &mut Line<'a>) -> Option<()> {
    let (time, end) = clock.leading(text)?;
    line.time_unix_nano = time;
    let (level, rest) = text.get(end..)?.strip_prefix(" [")?.split_once("] ")?;
    line.severity_number = severity::of_word(level);
    line.severity_text = Cow::Borrowed(level);
    let (process, rest) = rest.split_once(": ")?;
    let (process, thread) = process.split_once('#')?;
    line.put("process.pid", Field::int_or_text(process));
    line.put("thread.id", Field::int_or_text(thread));
    let connection = rest.strip_prefix('*').and_then(|rest| rest.split_once(' '));
    let message = match connection.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
        Some((connection, rest)) => {
            line.put("nginx.connection", Field::Int(connection));
            rest
        }
        None => rest,
    };
    line.body = Some(Cow::Borrowed(message));
    for (mark, key) in CONTEXT {
        let Some((_, value)) = message.split_once(mark) else { continue };
        match quoted(value) {
            Some((value, _)) => put_text(line, key, value),
            None => line.put_known(key, value.split_once(", ").map_or(value, |(value, _)| value)),
        }
    }
    Some(())
}
