//! What senders of syslog put on a connection: where messages begin and end, by counted octets or by lines, and what
//! each says in RFC 3164 or RFC 5424.

#![no_main]
// The files are included as they are; not all of them is used here.
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::encode_and_accept_again;

#[path = "../../integrations/system/src/logs/encoding.rs"]
mod encoding;
#[path = "../../integrations/system/src/syslog/framing.rs"]
mod framing;
#[path = "../../integrations/system/src/syslog/message.rs"]
mod message;
#[path = "../../integrations/system/src/logs/parse/mod.rs"]
mod parse;
#[path = "../../integrations/system/src/logs/record.rs"]
mod record;

/// The names under which the files know each other.
mod logs {
    pub(crate) use crate::{encoding, parse, record};
}

use framing::{Frame, Framing};
use message::Peer;
use parse::time::Clock;
use record::Gathered;

/// Most bytes that are kept of a message.
const MOST_BYTES: usize = 200;

/// The messages of a connection that brings bytes in pieces of this size and ends then.
fn framed(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let (mut framing, mut frames) = (Framing::new(MOST_BYTES), Vec::new());
    for piece in bytes.chunks(piece) {
        framing.feed(piece, &mut frames);
    }
    frames.extend(framing.finish());
    frames
}

/// Every message is a record, which can be encoded.
fn gathered(frames: &[Frame]) {
    let clock = Clock { zone: jiff::tz::TimeZone::UTC, now_unix_nano: 1_767_355_200_000_000_000 };
    let peer = Peer::new(([192, 0, 2, 1], 514).into(), "tcp");
    for host_from_message in [true, false] {
        let mut gathered = Gathered::new("syslog", &[("host.name".to_owned(), "agent".to_owned())]);
        for frame in frames {
            let odd = message::gather(frame, &peer, host_from_message, &clock, &mut gathered);
            assert_eq!(odd.is_cut, frame.cut > 0);
        }
        assert_eq!(gathered.len(), frames.len(), "every message is a record");
        let Some(payload) = gathered.finish() else { return };
        encode_and_accept_again(&payload);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let frames = framed(bytes, bytes.len().max(1));
    let kept: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(kept <= bytes.len(), "nothing is invented");
    assert!(frames.iter().all(|frame| frame.bytes.len() <= MOST_BYTES), "longer than the limit");
    let piece = usize::from(bytes.first().copied().unwrap_or(1) % 32) + 1;
    assert_eq!(framed(bytes, piece), frames, "the same, however it comes");
    gathered(&frames);
    // Counted, messages come back as they are, whatever is in them.
    let messages: Vec<Frame> = frames.into_iter().filter(|frame| frame.bytes.starts_with(b"<")).collect();
    let counted: Vec<u8> =
        messages.iter().flat_map(|m| [format!("{} ", m.bytes.len()).as_bytes(), &m.bytes].concat()).collect();
    let again = framed(&counted, piece);
    assert!(again.iter().map(|frame| &frame.bytes).eq(messages.iter().map(|frame| &frame.bytes)));
});
