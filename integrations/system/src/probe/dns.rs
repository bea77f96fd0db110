//! DNS: one question to one server, without cache and retries (RFC 1035).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::report::{ErrorType, Failure, Report};
use super::tcp::{self, Place};

/// Where the system's DNS servers are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS servers.
const PORT: u16 = 53;

/// The type of record to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecord {
    /// IPv4 addresses.
    #[default]
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Which authorities may issue certificates.
    Caa,
    /// The name behind an alias.
    Cname,
    /// Service binding of HTTPS.
    Https,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
    /// The name of an address, which may be given as such.
    Ptr,
    /// Start of authority.
    Soa,
    /// Servers of a service.
    Srv,
    /// Texts.
    Txt,
}

impl DnsRecord {
    fn record_type(self) -> RecordType {
        match self {
            DnsRecord::A => RecordType::A,
            DnsRecord::Aaaa => RecordType::AAAA,
            DnsRecord::Caa => RecordType::CAA,
            DnsRecord::Cname => RecordType::CNAME,
            DnsRecord::Https => RecordType::HTTPS,
            DnsRecord::Mx => RecordType::MX,
            DnsRecord::Ns => RecordType::NS,
            DnsRecord::Ptr => RecordType::PTR,
            DnsRecord::Soa => RecordType::SOA,
            DnsRecord::Srv => RecordType::SRV,
            DnsRecord::Txt => RecordType::TXT,
        }
    }
}

/// A DNS target.
#[derive(Clone, Debug)]
pub(super) struct DnsTarget {
    /// The question.
    query: Query,
    /// Whom to ask; the system's first server if `None`.
    server: Option<Place>,
}

impl DnsTarget {
    /// A question to a server.
    ///
    /// # Errors
    /// If the name is none.
    pub fn new(name: &str, record: DnsRecord, server: Option<Place>) -> Result<Self, String> {
        let reverse = name.parse::<IpAddr>().ok().filter(|_| record == DnsRecord::Ptr).map(Name::from);
        let mut name = match reverse {
            Some(name) => name,
            None => Name::from_utf8(name).map_err(|error| format!("`{name}` is no DNS name: {error}"))?,
        };
        name.set_fqdn(true);
        Ok(Self { query: Query::query(name, record.record_type()), server })
    }
}

/// The probe: whether the server has such a record.
pub(super) async fn probe(target: &DnsTarget, report: &mut Report) -> Result<(), Failure> {
    let server = match &target.server {
        // How long it takes to find the server is not what is measured.
        Some(place) => tcp::resolve(place, &mut Report::default()).await?.into_iter().next(),
        None => Some(system_server().await?),
    };
    let server = server.ok_or_else(|| Failure::new(ErrorType::Dns, "the DNS server has no address"))?;
    report.ip_version = Some(tcp::ip_version(&server));
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(target.query.clone());
    let started = Instant::now();
    let mut answer = ask_udp(server, &question).await?;
    if answer.metadata.truncation {
        answer = ask_tcp(server, &question).await?;
    }
    report.resolve = Some(started.elapsed());
    let record = target.query.query_type();
    let code = answer.metadata.response_code;
    let count = answer.answers.iter().filter(|answer| answer.record_type() == record).count();
    report.answer = Some((record.into(), code_name(code), u64::try_from(count).unwrap_or(u64::MAX)));
    let name = target.query.name();
    match code {
        ResponseCode::NoError if count > 0 => Ok(()),
        ResponseCode::NoError => Err(Failure::new(ErrorType::Dns, format!("{name} has no {record} record"))),
        code => {
            Err(Failure::new(ErrorType::Dns, format!("the server answers {} ({code}) for {name}", code_name(code))))
        }
    }
}

/// The first server of the system. Only what is an address counts, as in resolv.conf(5).
async fn system_server() -> Result<SocketAddr, Failure> {
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.map_err(|error| Failure::io(RESOLV_CONF, &error))?;
    first_server(&text).ok_or_else(|| {
        let message = format!("{RESOLV_CONF} names no server: set `server` of the target");
        Failure::new(ErrorType::Dns, message)
    })
}

fn first_server(resolv_conf: &str) -> Option<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers
        .filter_map(|server| server.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .next()
}

async fn ask_udp(server: SocketAddr, question: &Message) -> Result<Message, Failure> {
    let failed = |error: io::Error| Failure::io(&format!("DNS server {server}"), &error);
    let unspecified: IpAddr =
        if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((unspecified, 0)).await.map_err(failed)?;
    // A connected socket takes packets from the server only, and hears that nothing listens there.
    socket.connect(server).await.map_err(failed)?;
    socket.send(&encoded(question)?).await.map_err(failed)?;
    let mut buffer = vec![0_u8; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(failed)?;
        // Late answers to others and forgeries are passed over; the right one may still come.
        if let Some(answer) = answer_to(question, buffer.get(..length).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}

/// Messages over TCP have their length before them (RFC 1035 §4.2.2).
async fn ask_tcp(server: SocketAddr, question: &Message) -> Result<Message, Failure> {
    let failed = |error: io::Error| Failure::io(&format!("DNS server {server} over TCP"), &error);
    let message = encoded(question)?;
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let mut packet = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    packet.extend(message);
    stream.write_all(&packet).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut buffer = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut buffer).await.map_err(failed)?;
    answer_to(question, &buffer).ok_or_else(|| {
        Failure::new(ErrorType::Dns, format!("DNS server {server} answers something else than it was asked"))
    })
}

fn encoded(question: &Message) -> Result<Vec<u8>, Failure> {
    question.to_vec().map_err(|error| Failure::new(ErrorType::Dns, format!("the question cannot be encoded: {error}")))
}

/// The message, if it answers the question.
fn answer_to(question: &Message, packet: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(packet).ok()?;
    let is_same = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        // Servers that refuse a question may leave it out.
        && (answer.queries == question.queries || (answer.queries.is_empty() && answer.answers.is_empty()));
    is_same.then_some(answer)
}

/// The mnemonic of the IANA registry "DNS RCODEs".
fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotZone => "NOTZONE",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_usable_server_of_the_system_is_asked() {
        let text =
            "# comment\nsearch example.com\nnameserver fe80::1%eth0\n nameserver\t10.0.0.2 \nnameserver 10.0.0.3\n";
        assert_eq!(first_server(text), Some("10.0.0.2:53".parse().unwrap()));
        assert_eq!(first_server("search example.com"), None);
    }

    #[test]
    fn addresses_are_asked_for_by_their_reverse_name() {
        let target = DnsTarget::new("192.0.2.7", DnsRecord::Ptr, None).unwrap();
        assert_eq!(target.query.name().to_utf8(), "7.2.0.192.in-addr.arpa.");
        assert!(DnsTarget::new("a..b", DnsRecord::A, None).is_err());
    }
}
