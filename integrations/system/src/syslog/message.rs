//! From a message to a log record.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use super::framing::Frame;
use crate::logs::encoding::{Decoded, Encoding};
use crate::logs::parse::line::{Field, Line};
use crate::logs::parse::time::Clock;
use crate::logs::parse::{severity, syslog};
use crate::logs::record::{Gathered, Origin, Read};

/// The severity of messages that name none: notice (RFC 3164, section 4.3.3).
const UNNAMED: u8 = 5;

/// Who sends.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its IP address.
    pub address: Arc<str>,
    /// What all its messages have in common.
    pub origin: Origin,
    /// `tcp`, `tls` or `udp`.
    pub transport: &'static str,
}

impl Peer {
    /// The sender at an address.
    pub fn new(address: SocketAddr, transport: &'static str) -> Peer {
        // A socket for both versions shows IPv4 as `::ffff:192.0.2.1`.
        let text = address.ip().to_canonical().to_string();
        let network = if transport == "udp" { "udp" } else { "tcp" };
        let origin = Arc::from([
            ("network.peer.address", Field::Text(Cow::Owned(text.clone()))),
            ("network.peer.port", Field::Int(i64::from(address.port()))),
            ("network.transport", Field::text(network)),
        ]);
        Peer { address: text.into(), origin, transport }
    }
}

/// What was odd about a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oddities {
    /// It is in no format of syslog.
    pub is_unreadable: bool,
    /// It was longer than the limit, or a part of it is missing.
    pub is_cut: bool,
}

/// Adds the record that a message is.
pub fn gather(frame: &Frame, peer: &Peer, host_from_message: bool, clock: &Clock, gathered: &mut Gathered) -> Oddities {
    let text = Encoding::Utf8.decode(&frame.bytes);
    let plain: &str = match &text {
        Decoded::Text(text) => text,
        Decoded::Bytes(_, nearest) => nearest,
    };
    let mut line = syslog::parse(plain, clock);
    if line.severity_number == 0 {
        name_severity(&mut line, plain);
    }
    let mut resource = Vec::new();
    if host_from_message {
        let host = match line.get("syslog.hostname") {
            Some(Field::Text(host)) => host.clone().into_owned(),
            _ => peer.address.to_string(),
        };
        resource.push(("host.name", host));
    }
    let oddities = Oddities { is_unreadable: line.error.is_some(), is_cut: frame.cut > 0 };
    let observed_unix_nano = clock.now_unix_nano;
    let read = Read { text: &text, line: &line, cut: frame.cut, observed_unix_nano, original: false, resource };
    gathered.add(&peer.origin, read);
    oddities
}

/// The level that the text names, or else what the RFC says.
fn name_severity(line: &mut Line<'_>, text: &str) {
    let (number, word) = match severity::find(text) {
        Some((number, word)) => (number, word.to_owned()),
        None => (severity::of_syslog(UNNAMED), severity::syslog_word(UNNAMED).to_owned()),
    };
    (line.severity_number, line.severity_text) = (number, Cow::Owned(word));
}
