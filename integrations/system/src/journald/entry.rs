//! From an entry of the journal to a log record.

use std::borrow::Cow;

use super::config::{Fields, Settings};
use super::export::Entry;
use crate::logs::encoding::Decoded;
use crate::logs::parse::line::{Field, Line};
use crate::logs::parse::severity;
use crate::logs::record::{Gathered, Origin, Read};

/// Fields of the journal (systemd.journal-fields(7)), their names as attributes, and whether they are numbers.
const KNOWN: [(&str, &str, bool); 18] = [
    ("_PID", "process.pid", true),
    ("_UID", "process.user.id", true),
    ("_COMM", "process.executable.name", false),
    ("_EXE", "process.executable.path", false),
    ("_CMDLINE", "process.command_line", false),
    ("TID", "thread.id", true),
    ("CODE_FILE", "code.file.path", false),
    ("CODE_LINE", "code.line.number", true),
    ("CODE_FUNC", "code.function.name", false),
    ("SYSLOG_IDENTIFIER", "syslog.appname", false),
    ("SYSLOG_PID", "syslog.procid", false),
    ("SYSLOG_FACILITY", "syslog.facility", true),
    ("PRIORITY", "syslog.severity.code", true),
    ("_SYSTEMD_UNIT", "systemd.unit", false),
    ("_SYSTEMD_USER_UNIT", "systemd.user_unit", false),
    ("_TRANSPORT", "journald.transport", false),
    ("_BOOT_ID", "journald.boot_id", false),
    ("MESSAGE_ID", "journald.message_id", false),
];

/// Whether a record is to be read at all.
pub fn is_wanted(entry: &Entry, settings: &Settings) -> bool {
    settings.kernel || entry.get("_TRANSPORT") != Some(b"kernel")
}

/// Adds the record that an entry is.
pub fn gather(entry: &Entry, settings: &Settings, origin: &Origin, observed_unix_nano: u64, gathered: &mut Gathered) {
    let message = entry.get("MESSAGE").unwrap_or_default();
    let text = match std::str::from_utf8(message) {
        Ok(text) => Decoded::Text(Cow::Borrowed(text)),
        Err(_) => Decoded::Bytes(message, String::new()),
    };
    let mut line =
        Line { body: Some(Cow::Borrowed(std::str::from_utf8(message).unwrap_or_default())), ..Line::default() };
    let microseconds = entry.text("__REALTIME_TIMESTAMP").and_then(|text| text.parse::<u64>().ok());
    line.time_unix_nano = microseconds.and_then(|time| time.checked_mul(1_000)).unwrap_or_default();
    if let Some(code) = entry.text("PRIORITY").and_then(|text| text.parse::<u8>().ok()).filter(|code| *code < 8) {
        line.severity_number = severity::of_syslog(code);
        line.severity_text = Cow::Borrowed(severity::syslog_word(code));
    }
    attributes(entry, settings, &mut line);
    let cut = entry.cut_bytes;
    let resource = resource(entry, settings);
    gathered.add(origin, Read { text: &text, line: &line, cut, observed_unix_nano, original: false, resource });
}

fn attributes<'a>(entry: &'a Entry, settings: &Settings, line: &mut Line<'a>) {
    for (name, value) in &entry.fields {
        let known = KNOWN.iter().find(|(field, ..)| field == name);
        let (key, is_number) = match known {
            Some((_, key, is_number)) => (Cow::Borrowed(*key), *is_number),
            None if is_left_out(name, settings) => continue,
            None => (Cow::Owned(format!("journald.{name}")), false),
        };
        let value = match std::str::from_utf8(value) {
            Ok(text) if is_number => Field::int_or_text(text),
            Ok(text) => Field::text(text),
            Err(_) => Field::Bytes(Cow::Borrowed(value)),
        };
        // A field may have several values.
        match line.attributes.iter_mut().find(|(there, _)| *there == key) {
            None => line.attributes.push((key, value)),
            Some((_, Field::List(list))) => list.push(value),
            Some((_, single)) => {
                let first = std::mem::replace(single, Field::Null);
                *single = Field::List(vec![first, value]);
            }
        }
    }
}

fn is_left_out(name: &str, settings: &Settings) -> bool {
    // What the record says elsewhere, and the addresses of the entry.
    if name.starts_with("__") || matches!(name, "MESSAGE" | "SYSLOG_TIMESTAMP" | "SYSLOG_RAW") {
        return true;
    }
    match settings.fields {
        Fields::Known => true,
        Fields::Own => name.starts_with('_'),
        Fields::All => false,
    }
}

/// The unit is the service; the host is named by the record where it may be another one.
fn resource(entry: &Entry, settings: &Settings) -> Vec<(&'static str, String)> {
    let mut resource = Vec::new();
    if settings.host_of_record
        && let Some(host) = entry.text("_HOSTNAME")
    {
        resource.push(("host.name", host.to_owned()));
    }
    let names = ["_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER"];
    if !settings.has_service_name
        && let Some(name) = names.iter().find_map(|name| entry.text(name)).filter(|name| !name.is_empty())
    {
        resource.push(("service.name", name.strip_suffix(".service").unwrap_or(name).to_owned()));
    }
    resource
}
