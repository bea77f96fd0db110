//! TLS handshakes that look at the certificates, also at those that are not to be trusted.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_pipeline::Fault;

use super::report::{ErrorType, Failure, Report, add};
use super::tcp::{self, Place};

/// Which certificates count as trusted.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    /// `None` on a machine without any trusted authority.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

/// A TLS target.
#[derive(Clone, Debug)]
pub(super) struct TlsTarget {
    /// Where.
    pub place: Place,
    /// The name that the certificate must have.
    pub server_name: String,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

impl Trust {
    /// The system's authorities, or those of a file. Blocks on the file system.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, Fault> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(file) => {
                let wrong = |why: String| Fault::configuration(format!("`ca_file` {}: {why}", file.display()));
                let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
                let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
                if roots.add_parsable_certificates(certificates).0 == 0 {
                    return Err(wrong("no PEM certificate in it".into()));
                }
            }
            // Stores hold broken and outdated certificates now and then: the others count.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().ok();
        Ok(Self { provider, verifier })
    }
}

/// Notes when the presented certificates expire, then decides as usual.
#[derive(Debug)]
struct Noting {
    provider: Arc<CryptoProvider>,
    /// `None` = every certificate will do.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    earliest_expiry: Mutex<Option<i64>>,
}

impl Noting {
    fn earliest_expiry(&self) -> Option<i64> {
        *self.earliest_expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let expiries = std::iter::once(end_entity).chain(intermediates).filter_map(expiry);
        *self.earliest_expiry.lock().unwrap_or_else(PoisonError::into_inner) = expiries.min();
        match &self.verifier {
            Some(verifier) => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The end of a certificate's validity, unix seconds.
fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake<'a> {
    /// The name that the certificate must have.
    pub server_name: &'a str,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// Application protocol to agree on.
    pub protocol: Option<&'a [u8]>,
}

impl Trust {
    /// Shakes hands; the expiry of the certificates is reported whether they are trusted or not.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        handshake: Handshake<'_>,
        report: &mut Report,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let failed = |why: String| Failure::new(ErrorType::Tls, why);
        let name = ServerName::try_from(handshake.server_name.to_owned())
            .map_err(|_| failed(format!("`{}` is no name that a certificate can have", handshake.server_name)))?;
        let verifier = if handshake.skip_verify { None } else { self.verifier.clone() };
        if verifier.is_none() && !handshake.skip_verify {
            return Err(failed("this machine trusts no authority: install ca-certificates or set `ca_file`".into()));
        }
        let noting = Arc::new(Noting { provider: self.provider.clone(), verifier, earliest_expiry: Mutex::default() });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(noting.clone())
            .with_no_client_auth();
        config.alpn_protocols = handshake.protocol.map(<[u8]>::to_vec).into_iter().collect();
        // A handshake that is resumed shows no certificates.
        config.resumption = rustls::client::Resumption::disabled();
        let started = Instant::now();
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        if let Some(expiry) = noting.earliest_expiry() {
            let earliest = report.certificate_expiry.map_or(expiry, |earlier| earlier.min(expiry));
            report.certificate_expiry = Some(earliest);
        }
        let stream = shaken.map_err(|error| failed(explain(&error)))?;
        add(&mut report.tls, started.elapsed());
        Ok(stream)
    }
}

/// What failed, with the remedy where there is one.
fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the certificate is of an authority that is not trusted; `ca_file` names others".into()
        }
        Some(rustls::Error::InvalidCertificate(_)) => format!("the certificate is not accepted: {error}"),
        Some(rustls::Error::InvalidMessage(_)) => format!("the server does not speak TLS at this port: {error}"),
        _ => format!("the TLS handshake failed: {error}"),
    }
}

/// The probe: whether the handshake succeeds.
pub(super) async fn probe(
    target: &TlsTarget,
    trust: &Trust,
    deadline: Instant,
    report: &mut Report,
) -> Result<(), Failure> {
    let stream = tcp::connect(&target.place, deadline, report).await?;
    let handshake = Handshake { server_name: &target.server_name, skip_verify: target.skip_verify, protocol: None };
    trust.handshake(stream, handshake, report).await.map(drop)
}
