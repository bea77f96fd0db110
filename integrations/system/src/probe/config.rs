//! The configuration of `probe`, and its check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Host;
use weir_config::{ByteSize, Endpoint, Secret, SocketAddress};
use weir_pipeline::{Context, Fault};

use super::dns::{DnsRecord, DnsTarget};
use super::http::HttpTarget;
use super::tcp::Place;
use super::tls::TlsTarget;
use super::{Probing, Target};

/// Asks servers, ports, certificates, names and hosts whether they answer, and how fast.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// What is asked; each has exactly one of the keys `http`, `tcp`, `tls`, `dns` and `icmp`.
    pub targets: Vec<TargetConfig>,
    /// File with the certificates (PEM) of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How many targets are asked at the same time. Default 32.
    #[schemars(range(min = 1))]
    pub max_concurrent: usize,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { targets: Vec::new(), ca_file: None, max_concurrent: 32 }
    }
}

/// One target.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TargetConfig {
    /// Name of the target, label `probe.name`. Default: its address.
    pub name: Option<String>,
    /// URL to request.
    pub http: Option<Endpoint>,
    /// Host and port to connect to.
    pub tcp: Option<SocketAddress>,
    /// Host and port to shake hands with over TLS.
    pub tls: Option<SocketAddress>,
    /// Name to ask a DNS server for.
    pub dns: Option<String>,
    /// Host to ping.
    pub icmp: Option<String>,
    /// Longest time for the whole probe: name resolution, connection, TLS, answer. Default 5s, or what the poll's timeout leaves.
    pub timeout: Option<weir_config::Duration>,
    /// Use only this version of IP, 4 or 6. Default: whichever the name has.
    #[schemars(range(min = 4, max = 6))]
    pub ip_version: Option<u8>,
    /// HTTP: method of the request. Default GET.
    pub method: Option<String>,
    /// HTTP: headers of the request. Not sent on to other servers by redirects.
    pub headers: BTreeMap<String, Secret>,
    /// HTTP: statuses that count as success. Default: 200 to 299.
    pub expect_status: Vec<u16>,
    /// HTTP: text that must be in the body.
    pub expect_body: Option<String>,
    /// HTTP: whether redirects are followed, 5 at most. Default true.
    pub follow_redirects: Option<bool>,
    /// HTTP: most bytes of the body; a larger one is cut and counts as failure. Default 1MiB.
    pub max_body: Option<ByteSize>,
    /// HTTP and TLS: accept any certificate. Its expiry is reported either way. Default false.
    pub tls_skip_verify: Option<bool>,
    /// TLS: the name that the certificate must have. Default: the host.
    pub server_name: Option<String>,
    /// DNS: server to ask, with its port (usually 53). Default: the system's first.
    pub server: Option<SocketAddress>,
    /// DNS: type of record to ask for. Default A.
    pub record: Option<DnsRecord>,
}

/// The time that a probe may take when nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The share of the poll's timeout within which all probes end, so that the runner does not cut them.
pub(super) fn poll_limit(context: &Context) -> Duration {
    context.timeout.mul_f64(0.95)
}

/// Checks the targets and brings them into the form that is asked.
pub(super) fn checked(configs: Vec<TargetConfig>, context: &Context) -> Result<Vec<Target>, Fault> {
    let mut targets: Vec<Target> = Vec::new();
    for (at, config) in configs.into_iter().enumerate() {
        let wrong = |problem: String| Fault::configuration(format!("targets[{at}]: {problem}"));
        let target = checked_target(config, context).map_err(wrong)?;
        if targets.iter().any(|other| other.name == target.name && other.kind() == target.kind()) {
            return Err(wrong(format!(
                "there are two {} targets `{}`: give each its own `name`",
                target.kind(),
                target.name
            )));
        }
        targets.push(target);
    }
    if targets.is_empty() {
        return Err(Fault::configuration("no `targets` are listed: there is nothing to probe"));
    }
    Ok(targets)
}

fn checked_target(config: TargetConfig, context: &Context) -> Result<Target, String> {
    let kinds = [
        ("http", config.http.is_some()),
        ("tcp", config.tcp.is_some()),
        ("tls", config.tls.is_some()),
        ("dns", config.dns.is_some()),
        ("icmp", config.icmp.is_some()),
    ];
    let given: Vec<&str> = kinds.iter().filter(|(_, is_given)| *is_given).map(|(kind, _)| *kind).collect();
    let [kind] = given.as_slice() else {
        return Err(format!("exactly one of http, tcp, tls, dns and icmp must be given, found {}", given.len()));
    };
    refuse_foreign(&config, kind)?;
    if config.ip_version.is_some_and(|version| version != 4 && version != 6) {
        return Err("`ip_version` is 4 or 6".into());
    }
    let (address, probing) = probing(&config)?;
    let name = config.name.filter(|name| !name.is_empty()).unwrap_or_else(|| address.shown.clone());
    let mut labels = vec![
        ("probe.name".to_owned(), name.clone()),
        ("probe.type".to_owned(), (*kind).to_owned()),
        ("server.address".to_owned(), address.host),
    ];
    labels.extend(address.port.map(|port| ("server.port".to_owned(), port.to_string())));
    labels.extend(config.http.map(|url| ("url.full".to_owned(), url.to_string())));
    Ok(Target {
        name,
        address: address.shown,
        labels,
        timeout: timeout(config.timeout, context)?,
        probing,
        last_failure: None,
        sequence: 0,
    })
}

/// Options of another kind of target do nothing, which nobody would notice.
fn refuse_foreign(config: &TargetConfig, kind: &str) -> Result<(), String> {
    let options: [(&str, bool, &[&str]); 10] = [
        ("method", config.method.is_some(), &["http"]),
        ("headers", !config.headers.is_empty(), &["http"]),
        ("expect_status", !config.expect_status.is_empty(), &["http"]),
        ("expect_body", config.expect_body.is_some(), &["http"]),
        ("follow_redirects", config.follow_redirects.is_some(), &["http"]),
        ("max_body", config.max_body.is_some(), &["http"]),
        ("tls_skip_verify", config.tls_skip_verify.is_some(), &["http", "tls"]),
        ("server_name", config.server_name.is_some(), &["tls"]),
        ("server", config.server.is_some(), &["dns"]),
        ("record", config.record.is_some(), &["dns"]),
    ];
    match options.iter().find(|(_, is_given, kinds)| *is_given && !kinds.contains(&kind)) {
        Some((option, _, kinds)) => {
            Err(format!("`{option}` means something only with {}, not with {kind}", kinds.join(" and ")))
        }
        None => Ok(()),
    }
}

fn timeout(configured: Option<weir_config::Duration>, context: &Context) -> Result<Duration, String> {
    let most = poll_limit(context);
    match configured.map(weir_config::Duration::get) {
        None => Ok(DEFAULT_TIMEOUT.min(most)),
        Some(timeout) if timeout.is_zero() => Err("`timeout` must be longer than 0s".into()),
        Some(timeout) if timeout > context.timeout => Err(format!(
            "its `timeout` of {} is longer than the poll's of {}: raise `timeout` of the whole block",
            weir_config::Duration::from(timeout),
            weir_config::Duration::from(context.timeout)
        )),
        Some(timeout) => Ok(timeout.min(most)),
    }
}

/// The address as labels and messages show it.
struct Address {
    host: String,
    port: Option<u16>,
    shown: String,
}

fn probing(config: &TargetConfig) -> Result<(Address, Probing), String> {
    let ip_version = config.ip_version;
    let skip_verify = config.tls_skip_verify.unwrap_or(false);
    if let Some(endpoint) = &config.http {
        let host = endpoint.url().host().map(bare).unwrap_or_default();
        let address = Address { host, port: endpoint.url().port_or_known_default(), shown: endpoint.to_string() };
        return Ok((address, Probing::Http(Box::new(http_target(config, endpoint, skip_verify)?))));
    }
    if let Some(socket) = &config.tcp {
        let (address, place) = place(socket, "tcp", ip_version)?;
        return Ok((address, Probing::Tcp(place)));
    }
    if let Some(socket) = &config.tls {
        let (address, place) = place(socket, "tls", ip_version)?;
        let server_name = config.server_name.clone().unwrap_or_else(|| place.host.clone());
        return Ok((address, Probing::Tls(TlsTarget { place, server_name, skip_verify })));
    }
    if let Some(name) = &config.dns {
        let server = config.server.as_ref().map(|server| place(server, "server", ip_version)).transpose()?;
        let record = config.record.unwrap_or_default();
        let (server, shown) = match server {
            Some((address, place)) => (Some(place), Address { shown: name.clone(), ..address }),
            None => (None, Address { host: name.clone(), port: None, shown: name.clone() }),
        };
        return Ok((shown, Probing::Dns(DnsTarget::new(name, record, server)?)));
    }
    let host = config.icmp.clone().unwrap_or_default();
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(format!("`icmp` takes a host name or address, found `{host}`"));
    }
    let place = Place { host: host.clone(), port: 0, ip_version };
    Ok((Address { host: host.clone(), port: None, shown: host }, Probing::Icmp(place)))
}

/// A host without the brackets of IPv6 addresses.
fn bare(host: Host<&str>) -> String {
    match host {
        Host::Ipv6(address) => address.to_string(),
        host => host.to_string(),
    }
}

fn place(socket: &SocketAddress, key: &str, ip_version: Option<u8>) -> Result<(Address, Place), String> {
    let host = socket.host().ok_or_else(|| format!("`{key}` needs a host before the port"))?.to_owned();
    let port = socket.port();
    if port == 0 {
        return Err(format!("`{key}` needs a port from 1 to 65535"));
    }
    let address = Address { host: host.clone(), port: Some(port), shown: socket.to_string() };
    Ok((address, Place { host, port, ip_version }))
}

fn http_target(config: &TargetConfig, endpoint: &Endpoint, skip_verify: bool) -> Result<HttpTarget, String> {
    let method = config.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no HTTP method"))?;
    let mut headers = Vec::new();
    for (name, value) in &config.headers {
        let header = HeaderName::try_from(name).map_err(|_| format!("`{name}` is no name of an HTTP header"))?;
        let mut value = HeaderValue::try_from(value.expose())
            .map_err(|_| format!("the value of header `{name}` has characters that no header can have"))?;
        value.set_sensitive(true);
        headers.push((header, value));
    }
    if let Some(status) = config.expect_status.iter().find(|status| !(100..600).contains(*status)) {
        return Err(format!("{status} is no HTTP status"));
    }
    Ok(HttpTarget {
        endpoint: endpoint.clone(),
        method,
        headers,
        expect_status: config.expect_status.clone(),
        expect_body: config.expect_body.clone().filter(|text| !text.is_empty()),
        follow_redirects: config.follow_redirects.unwrap_or(true),
        max_body_bytes: config.max_body.map_or(1 << 20, |size| usize::try_from(size.bytes()).unwrap_or(usize::MAX)),
        skip_verify,
        ip_version: config.ip_version,
    })
}
