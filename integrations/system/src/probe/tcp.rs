//! Resolving a name and opening a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::report::{ErrorType, Failure, Report, add};

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// 4 or 6, if only that version is wanted.
    pub ip_version: Option<u8>,
}

/// More addresses of one name are not tried.
const MOST_ADDRESSES: usize = 8;

/// The addresses of a place, in the order of preference of this machine.
///
/// The system's own resolver is asked, so that the answer is the one that other programs get.
pub(super) async fn resolve(place: &Place, report: &mut Report) -> Result<Vec<SocketAddr>, Failure> {
    let is_wanted = |address: &SocketAddr| match place.ip_version {
        Some(4) => address.is_ipv4(),
        Some(6) => address.is_ipv6(),
        _ => true,
    };
    let host = &place.host;
    let addresses: Vec<SocketAddr> = if let Ok(address) = host.parse::<IpAddr>() {
        vec![SocketAddr::new(address, place.port)]
    } else {
        let started = Instant::now();
        let found = tokio::net::lookup_host((host.as_str(), place.port)).await;
        add(&mut report.resolve, started.elapsed());
        let found = found
            .map_err(|error| Failure::new(ErrorType::Dns, format!("the name {host} cannot be resolved: {error}")))?;
        found.filter(is_wanted).take(MOST_ADDRESSES).collect()
    };
    if addresses.is_empty() {
        let version = place.ip_version.map_or(String::new(), |version| format!("IPv{version} "));
        return Err(Failure::new(ErrorType::Dns, format!("the name {host} has no {version}address")));
    }
    Ok(addresses)
}

/// Connects to the first address that answers; each has an equal share of the time that is left, so
/// that a dead IPv6 route does not hide a working IPv4 one.
pub(super) async fn connect(place: &Place, deadline: Instant, report: &mut Report) -> Result<TcpStream, Failure> {
    let addresses = resolve(place, report).await?;
    let started = Instant::now();
    let mut last = None;
    for (at, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match connect_one(*address, share).await {
            Ok(stream) => {
                add(&mut report.connect, started.elapsed());
                report.ip_version = Some(ip_version(address));
                return Ok(stream);
            }
            Err(error) => last = Some((address, error)),
        }
    }
    Err(last.map_or_else(
        || Failure::new(ErrorType::Dns, "no address"),
        |(address, error)| Failure::io(&format!("cannot connect to {address}"), &error),
    ))
}

async fn connect_one(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    // Small requests must not wait for more bytes; a failure only costs latency.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// 4 or 6.
pub(super) fn ip_version(address: &SocketAddr) -> i64 {
    if address.is_ipv6() { 6 } else { 4 }
}

/// The probe: whether somebody accepts the connection.
pub(super) async fn probe(place: &Place, deadline: Instant, report: &mut Report) -> Result<(), Failure> {
    connect(place, deadline, report).await.map(drop)
}
