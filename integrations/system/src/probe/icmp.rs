//! ICMP echo ("ping") over IPv4 (RFC 792) and IPv6 (RFC 4443 §4).
//!
//! The kernel lets members of the groups in `net.ipv4.ping_group_range` open ICMP datagram sockets;
//! without that, CAP_NET_RAW opens raw ones. A datagram socket gets only its own replies. A raw one
//! sees all of the machine's, so identifier, sequence and a random token must match: two targets
//! never take each other's replies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::report::{ErrorType, Failure, Report};
use super::tcp::{self, Place};

/// Header of echo messages: type, code, checksum, identifier, sequence.
const HEADER_BYTES: usize = 8;
/// Random bytes by which a reply is known again.
const TOKEN_BYTES: usize = 16;
/// As many bytes as `ping` sends, since some networks drop smaller packets.
const PAYLOAD_BYTES: usize = 56;
/// Replies are as long as the request, and the IP header has at most 60 bytes.
const LONGEST_PACKET_BYTES: usize = 2048;

/// What says which rights are missing.
pub(super) const MISSING_RIGHT: &str = "ICMP needs the agent's group in the sysctl net.ipv4.ping_group_range (for everybody: \"0 2147483647\"), or the capability CAP_NET_RAW";

/// Counts the echo requests of this process.
static REQUESTS: AtomicU16 = AtomicU16::new(0);

/// The probe: whether the host replies to an echo request.
pub(super) async fn probe(place: &Place, sequence: u16, report: &mut Report) -> Result<(), Failure> {
    let address = tcp::resolve(place, report).await?.into_iter().next();
    let address = address.ok_or_else(|| Failure::new(ErrorType::Dns, "no address"))?;
    report.ip_version = Some(tcp::ip_version(&address));
    let socket = EchoSocket::open(address)?;
    let echo = Echo::new(sequence);
    let started = Instant::now();
    let failed = |error: io::Error| Failure::io(&format!("no echo from {}", address.ip()), &error);
    socket.send(&echo.request(address.is_ipv6())).await.map_err(failed)?;
    loop {
        let packet = socket.receive().await.map_err(failed)?;
        if echo.is_answered_by(&packet, address.is_ipv6(), !socket.is_raw) {
            report.round_trip = Some(started.elapsed());
            return Ok(());
        }
    }
}

/// A connected ICMP socket.
struct EchoSocket {
    /// Sends and receives on any datagram socket, not only on those of UDP.
    socket: UdpSocket,
    is_raw: bool,
    /// Raw IPv4 sockets hand over the IP header too.
    has_ip_header: bool,
}

impl EchoSocket {
    fn open(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let kind = ErrorType::of_io(&error);
            if kind == ErrorType::Permission {
                return Failure::new(kind, MISSING_RIGHT);
            }
            Failure::new(kind, format!("cannot send ICMP to {}: {error}", address.ip()))
        };
        let (domain, protocol) = match address.ip() {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, is_raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol)).map_err(failed)?, true),
        };
        socket.set_nonblocking(true).map_err(failed)?;
        // Port 0: ICMP has none, and the kernel refuses others on raw IPv6 sockets.
        socket.connect(&SocketAddr::new(address.ip(), 0).into()).map_err(failed)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(failed)?;
        Ok(Self { socket, is_raw, has_ip_header: is_raw && address.is_ipv4() })
    }

    async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.socket.send(packet).await.map(drop)
    }

    /// The next ICMP message.
    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0_u8; LONGEST_PACKET_BYTES];
        let length = self.socket.recv(&mut packet).await?;
        packet.truncate(length);
        if self.has_ip_header {
            // The header's length in words of 4 bytes stands in its first byte (RFC 791 §3.1).
            let header = usize::from(packet.first().copied().unwrap_or_default() & 0x0f) * 4;
            packet.drain(..header.min(packet.len()));
        }
        Ok(packet)
    }
}

/// One echo request, and how its reply is known.
struct Echo {
    identifier: u16,
    sequence: u16,
    token: [u8; TOKEN_BYTES],
}

impl Echo {
    fn new(sequence: u16) -> Self {
        let mut token = [0_u8; TOKEN_BYTES];
        fastrand::fill(&mut token);
        // Other programs on this machine often use their process id alone.
        let process = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        Self { identifier: process.wrapping_add(REQUESTS.fetch_add(1, Ordering::Relaxed)), sequence, token }
    }

    fn request(&self, is_ipv6: bool) -> Vec<u8> {
        let mut packet = vec![if is_ipv6 { 128 } else { 8 }, 0, 0, 0];
        packet.extend(self.identifier.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.token);
        packet.resize(HEADER_BYTES + PAYLOAD_BYTES, 0);
        // The kernel computes the checksum of ICMPv6, which covers addresses that it chooses.
        if !is_ipv6 {
            let [high, low] = checksum(&packet).to_be_bytes();
            packet.splice(2..4, [high, low]);
        }
        packet
    }

    /// The kernel puts an identifier of its own into the packets of datagram sockets.
    fn is_answered_by(&self, packet: &[u8], is_ipv6: bool, identifier_is_kernels: bool) -> bool {
        let Some((header, payload)) = packet.split_at_checked(HEADER_BYTES) else { return false };
        let [kind, _, _, _, id_high, id_low, sequence_high, sequence_low] = header else { return false };
        let identifier = u16::from_be_bytes([*id_high, *id_low]);
        *kind == if is_ipv6 { 129 } else { 0 }
            && (identifier_is_kernels || identifier == self.identifier)
            && u16::from_be_bytes([*sequence_high, *sequence_low]) == self.sequence
            && payload.starts_with(&self.token)
    }
}

/// The Internet checksum (RFC 1071) of a message whose checksum field is zero.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(request: &[u8], is_ipv6: bool) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[0] = if is_ipv6 { 129 } else { 0 };
        reply
    }

    #[test]
    fn the_checksum_of_a_request_is_right() {
        let request = Echo::new(1).request(false);
        assert_eq!(checksum(&request), 0, "the sum over a packet with its checksum is all ones");
        // RFC 1071 §3: the sum of these words is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn only_the_reply_to_this_very_request_counts() {
        for is_ipv6 in [false, true] {
            let (mine, other) = (Echo::new(7), Echo::new(7));
            assert_ne!(mine.identifier, other.identifier);
            let right = reply(&mine.request(is_ipv6), is_ipv6);
            assert!(mine.is_answered_by(&right, is_ipv6, false));
            assert!(
                !mine.is_answered_by(&mine.request(is_ipv6), is_ipv6, false),
                "the request itself, seen on loopback"
            );
            assert!(!mine.is_answered_by(&reply(&other.request(is_ipv6), is_ipv6), is_ipv6, false));
            assert!(!mine.is_answered_by(&reply(&other.request(is_ipv6), is_ipv6), is_ipv6, true), "the token differs");
            for length in 0..right.len().min(HEADER_BYTES + TOKEN_BYTES) {
                assert!(!mine.is_answered_by(&right[..length], is_ipv6, true), "cut to {length} bytes");
            }
        }
    }
}
