//! Lines of log files for `logs`: every format, its times and levels, and how lines are split,
//! cut and joined.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;

#[path = "../../integrations/system/src/logs/assemble.rs"]
mod assemble;
#[path = "../../integrations/system/src/logs/encoding.rs"]
mod encoding;
#[path = "../../integrations/system/src/logs/multiline.rs"]
mod multiline;
#[path = "../../integrations/system/src/logs/parse/mod.rs"]
mod parse;

use assemble::{Assembler, Shape};
use encoding::{Decoded, Encoding};
use multiline::Multiline;
use parse::container::Container;
use parse::pattern::GrokPattern;
use parse::time::{Clock, TimeFormat};
use parse::{Grammar, Parser};

/// Every grammar, bare and inside the lines of containers.
static PARSERS: LazyLock<Vec<Parser>> = LazyLock::new(|| {
    let pattern = regex::Regex::new(r"^(?<time>\S+) (?<level>\w+) (?<message>.*)$").expect("a pattern");
    let grok = GrokPattern::new("%{COMBINEDAPACHELOG}", []).expect("a pattern");
    let bare = [
        Grammar::Raw,
        Grammar::Json,
        Grammar::Logfmt,
        Grammar::Syslog,
        Grammar::Access,
        Grammar::NginxError,
        Grammar::Regex(pattern),
        Grammar::Grok(grok),
    ];
    let parser = |container, grammar| Parser {
        container,
        grammar,
        severity_field: None,
        time_field: None,
        time_format: TimeFormat::Auto,
        message_field: None,
    };
    let inside = [(Container::Cri, Grammar::Raw), (Container::Cri, Grammar::Json), (Container::Docker, Grammar::Json)];
    let wrapped = inside.into_iter().map(|(container, grammar)| parser(Some(container), grammar));
    bare.into_iter().map(|grammar| parser(None, grammar)).chain(wrapped).collect()
});

/// Splits and joins the bytes in chunks of this size: every byte is accounted for.
fn assembled(bytes: &[u8], shape: Shape, chunk: usize) {
    let width = shape.encoding.width();
    let bytes = &bytes[..bytes.len() - bytes.len() % width];
    let most = shape.max_bytes + 4;
    let (encoding, mut assembler) = (shape.encoding, Assembler::new(shape));
    let mut consumed = 0;
    for chunk in bytes.chunks(chunk * width) {
        assembler.push(chunk);
        while let Some(record) = assembler.next() {
            consumed += record.consumed;
            assert!(assembler.bytes(record).len() <= most, "longer than the limit");
            let _ = encoding.decode(assembler.bytes(record));
        }
        let position = usize::try_from(consumed).expect("within the input");
        assert!(bytes[..position].ends_with(assembler.guard()), "the guard stands before the position");
    }
    while let Some(record) = assembler.flush(true) {
        consumed += record.consumed;
    }
    assert_eq!(consumed, bytes.len() as u64, "every byte is accounted for");
}

fuzz_target!(|bytes: &[u8]| {
    let clock = Clock { zone: jiff::tz::TimeZone::UTC, now_unix_nano: 1_767_355_200_000_000_000 };
    if let Decoded::Text(text) = Encoding::Utf8.decode(bytes) {
        for parser in PARSERS.iter() {
            let line = parser.parse(&text, &clock);
            assert!((0..=24).contains(&line.severity_number));
            assert!(line.error.is_none_or(|error| !error.is_empty()));
        }
        for format in ["unix", "unix_ns", "%d.%m.%Y %H:%M:%S"] {
            let _ = TimeFormat::named(format).expect("a format").read(&text, &clock);
        }
    }
    let chunk = usize::from(bytes.first().copied().unwrap_or(1) % 32) + 1;
    let modes = [None, Some(Multiline::Indent), Some(Multiline::Java), Some(Multiline::Python)];
    for multiline in modes {
        for encoding in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Latin1] {
            let multiline = multiline.clone().map(Arc::new);
            assembled(bytes, Shape { encoding, multiline, container: None, max_bytes: 64 }, chunk);
        }
    }
    for container in [Container::Cri, Container::Docker] {
        let shape = Shape { encoding: Encoding::Utf8, multiline: None, container: Some(container), max_bytes: 256 };
        assembled(bytes, shape, chunk);
    }
});
