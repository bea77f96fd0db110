//! TCP (RFC 6587) and TLS (RFC 5425): connections that carry many messages.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use weir_pipeline::Stop;

use super::config::{Identity, Settings};
use super::framing::Framing;
use super::gather::{Counts, Inlet, Troubles};
use super::message::Peer;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// How long a sender may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// After which silence a sender is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// When the receiver is stopped, what has come is still read: until nothing came for so long, and no
/// longer than that.
pub const LAST_WAIT: Duration = Duration::from_millis(50);
pub const LAST_READING: Duration = Duration::from_millis(300);

/// How long it is waited when no connection can be accepted (no file descriptors are left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all connections share.
#[derive(Clone)]
pub struct Connections {
    /// Limits.
    pub settings: Arc<Settings>,
    /// Where messages go.
    pub inlet: Inlet,
    /// What is counted.
    pub counts: Arc<Counts>,
    /// Where losses are told.
    pub troubles: Arc<Troubles>,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// Until when.
    pub stop: Stop,
}

impl Connections {
    /// Accepts until the stop, then reads what has come.
    pub async fn serve(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let mut serving = JoinSet::new();
        loop {
            while serving.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = self.stop.wait() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.welcome(stream, address, tls.clone(), &mut serving),
                Err(error) => {
                    self.troubles.board.lost(&self.troubles.name, || format!("cannot accept a connection: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < LAST_READING {
            let Ok(Ok((stream, address))) = timeout(LAST_WAIT, listener.accept()).await else { break };
            self.welcome(stream, address, tls.clone(), &mut serving);
        }
        while serving.join_next().await.is_some() {}
    }

    fn welcome(&self, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>, serving: &mut JoinSet<()>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            Counts::add(&self.counts.too_many, 1);
            self.troubles.board.lost(&self.troubles.name, || {
                let most = self.settings.max_connections;
                format!("a connection of {} is closed: there are {most} already; raise `max_connections`", address.ip())
            });
            return;
        };
        // A peer that vanished without a word would keep its place for ever.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
            tracing::debug!("{}: no keepalive for {address}: {error}", self.troubles.name);
        }
        let connection = self.clone();
        serving.spawn(async move {
            Counts::add(&connection.counts.connections, 1);
            match tls {
                None => connection.read(stream, Peer::new(address, "tcp")).await,
                Some(tls) => connection.read_encrypted(stream, &tls, address).await,
            }
            connection.counts.connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }

    async fn read_encrypted(&self, stream: TcpStream, tls: &TlsAcceptor, address: SocketAddr) {
        let agreed = tokio::select! {
            biased;
            () = self.stop.wait() => return,
            agreed = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => agreed,
        };
        let why = match agreed {
            Ok(Ok(stream)) => return self.read(stream, Peer::new(address, "tls")).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing within {} s", HANDSHAKE_TIMEOUT.as_secs()),
        };
        Counts::add(&self.counts.handshakes, 1);
        self.troubles.board.lost(&self.troubles.name, || format!("no TLS with {}: {why}", address.ip()));
    }

    /// Reads messages until the end, the stop, or too long a silence.
    async fn read(&self, mut stream: impl AsyncRead + Unpin, peer: Peer) {
        let mut framing = Framing::new(self.settings.max_message_bytes);
        let (mut chunk, mut frames) = (vec![0_u8; CHUNK_BYTES], Vec::new());
        loop {
            let length = tokio::select! {
                biased;
                () = self.stop.wait() => break,
                read = self.patiently(stream.read(&mut chunk)) => read,
            };
            let Some(length) = length else { break };
            framing.feed(chunk.get(..length).unwrap_or_default(), &mut frames);
            if !frames.is_empty() {
                self.inlet.put(&peer, std::mem::take(&mut frames)).await;
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < LAST_READING {
            let Ok(Ok(length @ 1..)) = timeout(LAST_WAIT, stream.read(&mut chunk)).await else { break };
            framing.feed(chunk.get(..length).unwrap_or_default(), &mut frames);
        }
        frames.extend(framing.finish());
        if !frames.is_empty() {
            self.inlet.put(&peer, frames).await;
        }
    }

    /// How many bytes came; `None` where nothing will come any more.
    async fn patiently(&self, reading: impl Future<Output = io::Result<usize>>) -> Option<usize> {
        let read = match self.settings.idle_timeout {
            Some(patience) => timeout(patience, reading).await.ok()?,
            None => reading.await,
        };
        read.ok().filter(|length| *length > 0)
    }
}

/// What is needed to be a server of TLS. Reads files.
///
/// # Errors
/// Which file is wrong, and why.
pub fn acceptor(identity: &Identity) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(ring::default_provider());
    let certificates = certificates("certificate_file", &identity.certificate_file)?;
    let key_file = &identity.key_file;
    let key = PrivateKeyDer::from_pem_slice(&contents("key_file", key_file)?)
        .map_err(|error| format!("`key_file` {}: no private key in PEM in it: {error}", key_file.display()))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match &identity.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let (_, unusable) = roots.add_parsable_certificates(self::certificates("client_ca_file", file)?);
            let wrong = |why: String| format!("`client_ca_file` {}: {why}", file.display());
            if unusable > 0 {
                return Err(wrong(format!("{unusable} certificates in it cannot be read")));
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong(error.to_string()))?)
        }
    };
    let config = builder.with_single_cert(certificates, key).map_err(|error| {
        format!("`certificate_file` {} and `key_file` do not fit: {error}", identity.certificate_file.display())
    })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn contents(option: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("`{option}` {}: {error}", file.display()))
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = contents(option, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("`{option}` {}: no certificate in PEM in it", file.display())),
        Err(error) => Err(format!("`{option}` {}: {error}", file.display())),
    }
}
