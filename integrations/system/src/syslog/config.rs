//! The configuration of `syslog`, and its check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, SocketAddress, Text};
use weir_pipeline::{Context, Fault};

/// Receives syslog messages.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogConfig {
    /// Address for UDP, by default `127.0.0.1:514`. `null` switches it off; `:514` listens on all interfaces.
    pub udp: Option<SocketAddress>,
    /// Address for TCP, by default `127.0.0.1:514`. `null` switches it off; `:514` listens on all interfaces.
    pub tcp: Option<SocketAddress>,
    /// Address for TLS, for example `:6514`. Default: none. It needs `certificate_file` and `key_file`.
    pub tls: Option<SocketAddress>,
    /// Certificate of this receiver and those between it and its authority, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// Private key of that certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// Authorities in PEM of which senders over TLS must show a certificate. Default: everybody may send.
    pub client_ca_file: Option<PathBuf>,
    /// Longest message; what is beyond is left out, and attribute `log.record.cut_bytes` says how much. Default 64KiB.
    pub max_message_size: ByteSize,
    /// Most connections over TCP and TLS at once; further ones are closed at once and counted. Default 512.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// How long a connection may say nothing; `0s` = for ever. What a sender writes into a connection that is just being closed is lost. Default 1d.
    pub idle_timeout: weir_config::Duration,
    /// Messages that wait while exporters cannot keep up, in bytes, for streams and again for UDP. When it is full, TCP and TLS senders wait, and UDP messages are dropped and counted. Default 8MiB.
    pub buffer_size: ByteSize,
    /// Buffer of the operating system for UDP. Linux gives at most `net.core.rmem_max`. Default 4MiB.
    pub receive_buffer: ByteSize,
    /// Whether the host that a message names, or else its sender's address, is its `host.name`; otherwise this agent is. Default true.
    pub host_from_message: bool,
    /// Resource attributes for all records, for example `deployment.environment.name: test`.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub attributes: BTreeMap<String, String>,
}

/// The port that IANA and everybody knows for syslog over UDP; over TCP it is custom.
const PORT: u16 = 514;

impl Default for SyslogConfig {
    fn default() -> Self {
        // Syslog knows no key: nobody but this machine may send unless an address says so.
        let local = Some(SocketAddress::new(Some("127.0.0.1".to_owned()), PORT));
        Self {
            udp: local.clone(),
            tcp: local,
            tls: None,
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            max_message_size: ByteSize::from_bytes(64 << 10),
            max_connections: 512,
            idle_timeout: Duration::from_hours(24).into(),
            buffer_size: ByteSize::from_mebibytes(8),
            receive_buffer: ByteSize::from_mebibytes(4),
            host_from_message: true,
            attributes: BTreeMap::new(),
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen for UDP.
    pub udp: Option<SocketAddress>,
    /// Where to listen for TCP.
    pub tcp: Option<SocketAddress>,
    /// Where to listen for TLS, and who this is.
    pub tls: Option<(SocketAddress, Identity)>,
    /// Most bytes of a message.
    pub max_message_bytes: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// How long a connection may say nothing.
    pub idle_timeout: Option<Duration>,
    /// Bytes of messages that wait, for streams and for UDP each.
    pub buffer_bytes: u32,
    /// Bytes that the system is asked to keep of UDP.
    pub receive_buffer_bytes: usize,
    /// Whether messages name their host.
    pub host_from_message: bool,
    /// Resource attributes of all records.
    pub resource: Vec<(String, String)>,
}

/// Files with certificates.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The receiver's own.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities of senders.
    pub client_ca_file: Option<PathBuf>,
}

/// The limits of `max_message_size`: RFC 5424, section 6.1, wants 480 bytes at least.
const LEAST_MESSAGE_BYTES: u64 = 480;
const MOST_MESSAGE_BYTES: u64 = 16 << 20;

/// The limits of both buffers.
const LEAST_BUFFER_BYTES: u64 = 64 << 10;
const MOST_BUFFER_BYTES: u64 = 1 << 30;

/// Checks a configuration.
///
/// # Errors
/// What is wrong, and what to do.
pub fn checked(config: SyslogConfig, context: &Context) -> Result<Settings, Fault> {
    let wrong = |why: &str| Fault::configuration(why);
    if config.udp.is_none() && config.tcp.is_none() && config.tls.is_none() {
        return Err(wrong("`udp`, `tcp` and `tls` are all off; give one of them an address, or set `enabled: false`"));
    }
    let files = (config.certificate_file, config.key_file, config.client_ca_file);
    let tls = match (config.tls, files) {
        (Some(address), (Some(certificate_file), Some(key_file), client_ca_file)) => {
            Some((address, Identity { certificate_file, key_file, client_ca_file }))
        }
        (Some(_), _) => return Err(wrong("`tls` needs `certificate_file` and `key_file`")),
        (None, (None, None, None)) => None,
        (None, _) => {
            return Err(wrong("certificates are for `tls`, which is off; give it an address, for example `:6514`"));
        }
    };
    if !(LEAST_MESSAGE_BYTES..=MOST_MESSAGE_BYTES).contains(&config.max_message_size.bytes()) {
        return Err(wrong("`max_message_size` must be from 480B to 16MiB"));
    }
    let buffers = [("buffer_size", config.buffer_size), ("receive_buffer", config.receive_buffer)];
    let is_wrong = |size: &ByteSize| !(LEAST_BUFFER_BYTES..=MOST_BUFFER_BYTES).contains(&size.bytes());
    if let Some((option, _)) = buffers.iter().find(|(_, size)| is_wrong(size)) {
        return Err(Fault::configuration(format!("`{option}` must be from 64KiB to 1GiB")));
    }
    if config.max_connections == 0 {
        return Err(wrong("`max_connections` must be at least 1"));
    }
    let mut resource = context.resource.clone();
    resource.retain(|(key, _)| !config.attributes.contains_key(key));
    let has_host = config.attributes.contains_key("host.name");
    resource.extend(config.attributes);
    let bytes = |size: ByteSize| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    Ok(Settings {
        udp: config.udp,
        tcp: config.tcp,
        tls,
        max_message_bytes: bytes(config.max_message_size),
        max_connections: config.max_connections,
        idle_timeout: Some(config.idle_timeout.get()).filter(|timeout| !timeout.is_zero()),
        buffer_bytes: u32::try_from(config.buffer_size.bytes()).unwrap_or(u32::MAX),
        receive_buffer_bytes: bytes(config.receive_buffer),
        host_from_message: config.host_from_message && !has_host,
        resource,
    })
}
