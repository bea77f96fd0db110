//! HTTP and HTTPS, phase by phase.

use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use url::{Host, Url};
use weir_config::Endpoint;

use super::report::{ErrorType, Failure, Report, add};
use super::tcp::{self, Place};
use super::tls::{Handshake, Trust};

/// Redirects that are followed at most.
const MOST_REDIRECTS: i64 = 5;

/// Most bytes of the head of an answer; a server that sends more is cut.
const LONGEST_HEAD_BYTES: usize = 64 << 10;

/// An HTTP target.
#[derive(Clone, Debug)]
pub(super) struct HttpTarget {
    /// The address; may hold credentials, which are sent as basic authentication.
    pub endpoint: Endpoint,
    /// Usually GET.
    pub method: Method,
    /// Headers besides the usual ones; secrets are marked as such.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Statuses that count as success; empty = 200 to 299.
    pub expect_status: Vec<u16>,
    /// Text that must be in the body.
    pub expect_body: Option<String>,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Most bytes of the body.
    pub max_body_bytes: usize,
    /// Whether any certificate will do.
    pub skip_verify: bool,
    /// 4 or 6, if only that version is wanted.
    pub ip_version: Option<u8>,
}

/// How one request ended.
enum Hop {
    Answered,
    Redirected(Url),
}

/// The probe: whether the answer, after redirects, is the expected one.
pub(super) async fn probe(
    target: &HttpTarget,
    trust: &Trust,
    deadline: Instant,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut url = target.endpoint.url().clone();
    loop {
        match hop(target, &url, trust, deadline, report).await? {
            Hop::Answered => return Ok(()),
            Hop::Redirected(_) if report.redirects >= MOST_REDIRECTS => {
                return Err(Failure::new(ErrorType::Status, format!("it redirects more than {MOST_REDIRECTS} times")));
            }
            Hop::Redirected(next) => {
                report.redirects += 1;
                url = next;
            }
        }
    }
}

/// One request on a connection of its own.
async fn hop(
    target: &HttpTarget,
    url: &Url,
    trust: &Trust,
    deadline: Instant,
    report: &mut Report,
) -> Result<Hop, Failure> {
    let host = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
        None => return Err(Failure::new(ErrorType::Status, "it redirects to an address without a host")),
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let place = Place { host, port, ip_version: target.ip_version };
    let request = request(target, url)?;
    let stream = tcp::connect(&place, deadline, report).await?;
    if url.scheme() == "https" {
        let handshake =
            Handshake { server_name: &place.host, skip_verify: target.skip_verify, protocol: Some(b"http/1.1") };
        let stream = trust.handshake(stream, handshake, report).await?;
        talk(TokioIo::new(stream), request, target, url, report).await
    } else {
        talk(TokioIo::new(stream), request, target, url, report).await
    }
}

fn request(target: &HttpTarget, url: &Url) -> Result<Request<Empty<Bytes>>, Failure> {
    let invalid = |error: http::Error| Failure::new(ErrorType::Other, format!("the request cannot be made: {error}"));
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder()
        .method(target.method.clone())
        .uri(if path.is_empty() { "/" } else { path })
        .header(HOST, authority)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(invalid)?;
    // What the owner trusts one server with is not meant for another one that it names.
    if url.origin() == target.endpoint.url().origin() {
        let headers = request.headers_mut();
        if let Some(value) = credentials(target.endpoint.url()) {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &target.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    Ok(request)
}

/// User and password of the address as basic authentication (RFC 7617).
fn credentials(url: &Url) -> Option<HeaderValue> {
    use base64::Engine;
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let mut pair = decoded(url.username());
    pair.push(b':');
    pair.extend(decoded(url.password().unwrap_or_default()));
    let mut value =
        HeaderValue::try_from(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Sends the request and reads the answer, while the connection is kept moving.
async fn talk<S: Read + Write + Unpin>(
    stream: S,
    request: Request<Empty<Bytes>>,
    target: &HttpTarget,
    url: &Url,
    report: &mut Report,
) -> Result<Hop, Failure> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEAD_BYTES)
        .handshake(stream)
        .await
        .map_err(|error| explain(&error))?;
    let exchange = async {
        let started = Instant::now();
        let response = sender.send_request(request).await.map_err(|error| explain(&error))?;
        add(&mut report.processing, started.elapsed());
        report.status = Some(response.status().as_u16());
        if let Some(next) = redirect(target, url, response.status().as_u16(), response.headers())? {
            return Ok(Hop::Redirected(next));
        }
        judge_status(target, response.status().as_u16())?;
        let started = Instant::now();
        let body = read_body(response, target).await;
        add(&mut report.transfer, started.elapsed());
        judge_body(target, &body?).map(|()| Hop::Answered)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        hop = &mut exchange => hop,
        // Its end or error reaches the exchange, which knows what it means.
        _ = &mut connection => exchange.await,
    }
}

/// Where an answer redirects to, if it is to be followed.
fn redirect(target: &HttpTarget, url: &Url, status: u16, headers: &HeaderMap) -> Result<Option<Url>, Failure> {
    if !target.follow_redirects
        || !matches!(status, 301 | 302 | 303 | 307 | 308)
        || target.expect_status.contains(&status)
    {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let next = location.to_str().ok().and_then(|location| url.join(location).ok());
    match next {
        Some(next) if matches!(next.scheme(), "http" | "https") => Ok(Some(next)),
        _ => Err(Failure::new(ErrorType::Status, format!("status {status} redirects to an address that is not HTTP"))),
    }
}

fn judge_status(target: &HttpTarget, status: u16) -> Result<(), Failure> {
    let expected = &target.expect_status;
    let is_expected = if expected.is_empty() { (200..300).contains(&status) } else { expected.contains(&status) };
    if is_expected { Ok(()) } else { Err(Failure::new(ErrorType::Status, format!("it answers with status {status}"))) }
}

fn judge_body(target: &HttpTarget, body: &[u8]) -> Result<(), Failure> {
    match &target.expect_body {
        Some(expected) if !String::from_utf8_lossy(body).contains(expected) => {
            Err(Failure::new(ErrorType::Body, "the body does not hold the text of `expect_body`"))
        }
        _ => Ok(()),
    }
}

/// Reads the body to its end or the limit; keeps it only where it is looked at.
async fn read_body(response: Response<Incoming>, target: &HttpTarget) -> Result<Vec<u8>, Failure> {
    let mut body = response.into_body();
    let (mut length, mut kept) = (0_usize, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| explain(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > target.max_body_bytes {
            let message = format!("the body is larger than {} bytes; `max_body` sets the limit", target.max_body_bytes);
            return Err(Failure::new(ErrorType::BodyTooLarge, message));
        }
        if target.expect_body.is_some() {
            kept.extend_from_slice(&data);
        }
    }
    Ok(kept)
}

fn explain(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        return Failure::io("the connection broke", io);
    }
    let message = if error.is_parse() {
        format!("the server does not speak HTTP at this port: {error}")
    } else if error.is_incomplete_message() {
        "the server closed the connection before its answer was complete".to_owned()
    } else {
        cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
    };
    Failure::new(ErrorType::Other, message)
}
