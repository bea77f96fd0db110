//! The HTTP client of exporters, scrapers and probes.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::answer_note;

/// Options that every integration with an HTTP client understands.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Longest time for one request, the connection included.
    pub timeout: weir_config::Duration,
    /// Do not check the server's certificate. Only for tests: anybody on the way can read and change the data.
    pub tls_skip_verify: bool,
    /// File with the certificates (PEM) of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the client certificate (PEM), for mutual TLS.
    pub client_certificate_file: Option<PathBuf>,
    /// File with the key of the client certificate (PEM).
    pub client_key_file: Option<PathBuf>,
    /// Proxy for all requests, for example `http://proxy:3128`. Without it `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` apply.
    pub proxy: Option<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30).into(),
            tls_skip_verify: false,
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
        }
    }
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// The name of the host is not known.
    UnknownHost,
    /// Nothing listens at that address and port.
    Refused,
    /// The connection was closed before the answer was complete.
    Closed,
    /// No answer within the timeout.
    TimedOut,
    /// The TLS handshake failed.
    Tls,
    /// The answer is larger than the client reads.
    TooLarge,
    /// Anything else.
    Other,
}

/// A request that got no (complete) answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// The class.
    pub kind: TransportKind,
    /// What happened and what to look at, without credentials.
    pub message: String,
}

/// An HTTP answer, its body bounded.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most as many bytes as the caller allowed.
    pub body: Bytes,
}

impl Answer {
    /// The status and the beginning of the body in one line, for errors.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        if line.is_empty() { self.status.to_string() } else { format!("{}: {line}", self.status) }
    }
}

/// An HTTP client; cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
}

/// What rustls-platform-verifier says on a machine without any certificate of an authority.
const NO_AUTHORITIES: &str = "No CA certificates were loaded";

/// TLS uses ring: it builds in seconds, without a second toolchain.
fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that the embedding program has installed its own, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Client {
    /// A client with these options.
    ///
    /// # Errors
    /// One sentence that names the option that is wrong (an unreadable file, a bad proxy).
    pub fn new(options: &HttpOptions) -> Result<Self, String> {
        Self::build(options, reqwest::Client::builder)
    }

    /// A client that speaks HTTP/2 from the first byte (RFC 9113 §3.3), as gRPC servers without TLS expect.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn http2(options: &HttpOptions) -> Result<Self, String> {
        Self::build(options, || reqwest::Client::builder().http2_prior_knowledge())
    }

    /// A client that reaches one server only, over its Unix socket, whatever host the addresses name.
    ///
    /// # Errors
    /// None that is known.
    pub fn unix(socket: &Path) -> Result<Self, String> {
        let options = HttpOptions { timeout: Duration::from_secs(600).into(), ..HttpOptions::default() };
        Self::build(&options, || reqwest::Client::builder().unix_socket(socket).no_proxy())
    }

    fn build(options: &HttpOptions, new: impl Fn() -> reqwest::ClientBuilder) -> Result<Self, String> {
        install_crypto();
        let built = match Self::configured(options, new())?.build() {
            // A small machine may have no certificates of authorities at all. It speaks plain http all
            // the same, and https servers are told apart when they are asked.
            Err(error) if options.ca_file.is_none() && chain(&error).contains(NO_AUTHORITIES) => {
                Self::configured(options, new())?.tls_certs_only([]).build()
            }
            built => built,
        };
        let inner = built.map_err(|error| format!("cannot prepare the HTTP client: {}", chain(&error)))?;
        Ok(Self { inner })
    }

    fn configured(options: &HttpOptions, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder, String> {
        let mut builder = builder
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .timeout(options.timeout.into())
            .connect_timeout(Duration::from(options.timeout).min(Duration::from_secs(10)))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(50))
            .danger_accept_invalid_certs(options.tls_skip_verify);
        if let Some(file) = &options.ca_file {
            let pem = read("ca_file", file)?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|_| format!("ca_file {}: no PEM certificate in it", file.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        match (&options.client_certificate_file, &options.client_key_file) {
            (Some(certificate), Some(key)) => {
                let mut pem = read("client_certificate_file", certificate)?;
                pem.push(b'\n');
                pem.extend(read("client_key_file", key)?);
                let identity = reqwest::Identity::from_pem(&pem).map_err(|_| {
                    format!("{} and {} are not a PEM certificate and its key", certificate.display(), key.display())
                })?;
                builder = builder.identity(identity);
            }
            (None, None) => {}
            _ => return Err("client_certificate_file and client_key_file must be given together".into()),
        }
        if let Some(proxy) = &options.proxy {
            let proxy =
                reqwest::Proxy::all(proxy).map_err(|_| "proxy: not an address like http://host:3128".to_owned())?;
            builder = builder.proxy(proxy);
        }
        Ok(builder)
    }

    /// Sends a request, whose body may come in pieces, and reads no more than the head of the answer.
    ///
    /// # Errors
    /// [`TransportError`] if no answer began.
    pub async fn begin<B>(&self, request: http::Request<B>) -> Result<reqwest::Response, TransportError>
    where
        B: Into<reqwest::Body>,
    {
        answer_note::begins();
        let request = reqwest::Request::try_from(request).map_err(|error| classify(&error))?;
        let response = self.inner.execute(request).await.map_err(|error| classify(&error))?;
        answer_note::head(response.status());
        Ok(response)
    }

    /// Sends a request and reads at most `limit` bytes of the answer.
    ///
    /// # Errors
    /// [`TransportError`] if no complete answer came.
    pub async fn send<B>(&self, request: http::Request<B>, limit: usize) -> Result<Answer, TransportError>
    where
        B: Into<reqwest::Body>,
    {
        let mut response = self.begin(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len() + chunk.len() > limit {
                let message = format!("the answer is larger than {limit} bytes: is the address right?");
                return Err(TransportError { kind: TransportKind::TooLarge, message });
            }
            body.extend_from_slice(&chunk);
        }
        let answer = Answer { status, headers, body: body.freeze() };
        answer_note::answer(&answer);
        Ok(answer)
    }
}

fn read(option: &str, file: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{option} {}: {error}", file.display()))
}

/// All causes of an error in one line; addresses are stripped of credentials by the caller.
fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if text.is_empty() { "the request failed".into() } else { text }
}

fn io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}

fn place(error: &reqwest::Error) -> String {
    let Some(url) = error.url() else { return "the server".into() };
    let host = url.host_str().unwrap_or("?");
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn classify(error: &reqwest::Error) -> TransportError {
    let (place, causes, io) = (place(error), chain(error), io_kind(error));
    let lower = causes.to_lowercase();
    let (kind, message) = if error.is_timeout() || io == Some(std::io::ErrorKind::TimedOut) {
        (
            TransportKind::TimedOut,
            format!("no answer from {place} within the timeout: is it overloaded, or does a firewall drop packets?"),
        )
    } else if lower.contains("dns") || lower.contains("lookup address") || lower.contains("name or service") {
        (TransportKind::UnknownHost, format!("the name of {place} cannot be resolved: is it spelled right?"))
    } else if io == Some(std::io::ErrorKind::ConnectionRefused) {
        (
            TransportKind::Refused,
            format!("{place} refuses the connection: is the server running, and is the port right?"),
        )
    } else if lower.contains("certificate")
        || lower.contains("tls")
        || lower.contains("handshake")
        || lower.contains("invalidcontenttype")
        || lower.contains("corrupt message")
    {
        (
            TransportKind::Tls,
            format!(
                "TLS with {place} failed: {causes}; does the server speak https, and is its certificate trusted (see `ca_file`)?"
            ),
        )
    } else if matches!(
        io,
        Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof)
    ) || lower.contains("connection closed")
        || lower.contains("incomplete message")
    {
        (TransportKind::Closed, format!("{place} closed the connection before its answer was complete"))
    } else if error.is_connect() {
        (TransportKind::Other, format!("cannot connect to {place}: {causes}"))
    } else {
        (TransportKind::Other, format!("request to {place} failed: {causes}"))
    };
    TransportError { kind, message }
}
