//! UDP: one message per datagram (RFC 5426). Nobody can be asked to wait, so what is lost is counted: by
//! this process where it has no room, by the system where this process is too slow.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use weir_config::SocketAddress;
use weir_net::ListenError;
use weir_pipeline::Stop;

use super::framing::Frame;
use super::gather::{Counts, Inlet};
use super::message::Peer;
use super::stream::{LAST_READING, LAST_WAIT};
use crate::logs::blocking;

/// The largest datagram.
const LARGEST_BYTES: usize = 65_535;

/// Senders that are remembered; beyond that all are forgotten.
const MOST_PEERS: usize = 1_024;

/// How often the system's counter is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Opens a socket.
///
/// # Errors
/// Why it cannot be opened, and what to do.
pub async fn bind(address: &SocketAddress, receive_buffer_bytes: usize) -> Result<UdpSocket, ListenError> {
    let bound = match address.host() {
        Some(host) => match tokio::net::lookup_host((host, address.port())).await {
            Ok(addresses) => first(addresses, receive_buffer_bytes),
            Err(error) => Err(error),
        },
        None => {
            let (both, four) = (([0_u16; 8], address.port()).into(), ([0_u8; 4], address.port()).into());
            open(both, receive_buffer_bytes).or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                // A machine without IPv6.
                _ => open(four, receive_buffer_bytes),
            })
        }
    };
    let (port, address) = (address.port(), address.to_string());
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere { address, port },
        _ => ListenError::Other { address, error },
    })
}

/// A socket at the first address that has room for one.
fn first(addresses: impl Iterator<Item = SocketAddr>, receive_buffer_bytes: usize) -> io::Result<UdpSocket> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "this name has no address");
    for address in addresses {
        match open(address, receive_buffer_bytes) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn open(address: SocketAddr, receive_buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // The system gives what it allows, without an error.
    socket.set_recv_buffer_size(receive_buffer_bytes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Receives until the stop.
pub async fn receive(socket: UdpSocket, most_bytes: usize, inlet: Inlet, counts: Arc<Counts>, stop: Stop) {
    let mut datagrams = Datagrams { most_bytes, inlet, counts, peers: HashMap::new() };
    let mut buffer = vec![0_u8; LARGEST_BYTES];
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            _ = looks.tick() => datagrams.look(&socket).await,
            received = socket.recv_from(&mut buffer) => datagrams.take(received, &buffer),
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < LAST_READING {
        let Ok(received) = timeout(LAST_WAIT, socket.recv_from(&mut buffer)).await else { break };
        datagrams.take(received, &buffer);
    }
    datagrams.look(&socket).await;
}

struct Datagrams {
    most_bytes: usize,
    inlet: Inlet,
    counts: Arc<Counts>,
    peers: HashMap<SocketAddr, Peer>,
}

impl Datagrams {
    fn take(&mut self, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        // Errors are what the network says of datagrams that were never sent from here: none is lost.
        let Ok((length, sender)) = received else { return };
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        if self.peers.len() >= MOST_PEERS {
            self.peers.clear();
        }
        let peer = self.peers.entry(sender).or_insert_with(|| Peer::new(sender, "udp"));
        if !self.inlet.try_put(peer, Frame::of(without_count(bytes), self.most_bytes)) {
            Counts::add(&self.counts.no_room, 1);
        }
    }

    /// Notes how many datagrams the system dropped.
    async fn look(&self, socket: &UdpSocket) {
        let descriptor = socket.as_raw_fd();
        if let Ok(Some(drops)) = blocking(move || system_drops(descriptor)).await {
            self.counts.kernel.store(drops, Ordering::Relaxed);
        }
    }
}

/// Some senders count octets in datagrams too (`logger --udp --octet-count`).
fn without_count(bytes: &[u8]) -> &[u8] {
    let message = memchr::memchr(b' ', bytes).and_then(|blank| bytes.split_at_checked(blank + 1));
    match message {
        Some((count, message)) if count == format!("{} ", message.len()).as_bytes() && message.starts_with(b"<") => {
            message
        }
        _ => bytes,
    }
}

/// How many datagrams the system dropped because the buffer of a socket was full (proc(5), /proc/net/udp:
/// the last column; the tenth is the inode). `None` where it does not say.
pub fn system_drops(descriptor: i32) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    ["/proc/self/net/udp", "/proc/self/net/udp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        let line = table.lines().find(|line| line.split_ascii_whitespace().nth(9) == Some(inode))?;
        line.split_ascii_whitespace().last()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_taken_off_where_it_is_one() {
        assert_eq!(without_count(b"5 <1>ab"), b"<1>ab");
        for bytes in [&b"6 <1>ab"[..], b"5 apple", b"<1>ab", b"", b" ", b"05 <1>ab", b"5"] {
            assert_eq!(without_count(bytes), bytes);
        }
    }

    #[tokio::test]
    async fn what_the_system_drops_is_known_to_the_datagram() {
        let socket = bind(&"127.0.0.1:0".parse().unwrap(), 64 << 10).await.unwrap();
        assert_eq!(system_drops(socket.as_raw_fd()), Some(0));
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (to, sent) = (socket.local_addr().unwrap(), 2_000);
        for _ in 0..sent {
            sender.send_to(&[b'x'; 500], to).await.unwrap();
        }
        let mut received = 0;
        let mut buffer = [0; 600];
        socket.readable().await.unwrap();
        while socket.try_recv_from(&mut buffer).is_ok() {
            received += 1;
        }
        let dropped = system_drops(socket.as_raw_fd()).unwrap();
        assert!(dropped > 0);
        assert_eq!(received + dropped, sent);
    }

    #[tokio::test]
    async fn a_port_without_a_host_is_reached_by_ipv4_and_a_taken_one_is_named() {
        let socket = bind(&":0".parse().unwrap(), 64 << 10).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender.send_to(b"hello", ("127.0.0.1", port)).await.unwrap();
        let mut buffer = [0; 9];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from.ip().to_canonical().to_string()), (&b"hello"[..], "127.0.0.1".to_owned()));
        let taken = bind(&SocketAddress::new(None, port), 64 << 10).await.unwrap_err().to_string();
        assert!(taken.contains("taken by another program"), "{taken}");
    }
}
