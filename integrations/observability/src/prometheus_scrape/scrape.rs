//! One scrape of one target.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::time::Instant;
use weir_config::ByteSize;
use weir_model::exposition::{Document, Format, Limits};
use weir_net::{Answer, Client, Compression, TransportKind};
use weir_pipeline::{Fault, FaultKind};

use super::target::Target;

const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Headers that the configuration cannot set.
pub(super) const RESERVED: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, HOST, TIMEOUT_HEADER];
/// OpenMetrics first: it has start times, exemplars, and an end that tells a cut-off answer.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
/// Larger answers are read apart from the tasks that wait for the network.
const LARGE_BYTES: usize = 256 << 10;

/// What all scrapes share.
#[derive(Debug)]
pub(super) struct Scraper {
    pub client: Client,
    /// Credentials and configured headers.
    pub headers: HeaderMap,
    /// Longest time for one target.
    pub timeout: Duration,
    pub limits: Limits,
    pub body_limit: ByteSize,
}

impl Scraper {
    /// Scrapes a target, in its own time and until the deadline of the poll.
    ///
    /// # Errors
    /// Why there is no scrape; the message does not name the target.
    pub async fn scrape(&self, target: &Target, deadline: Instant) -> Result<Document, Fault> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Whole milliseconds: nobody wants to read more of it in headers and messages.
        let timeout = Duration::from_millis(u64::try_from(self.timeout.min(left).as_millis()).unwrap_or(u64::MAX));
        if timeout.is_zero() {
            let why = "there was no time left for it: other targets hang; raise `concurrency` or `timeout`";
            return Err(Fault::new(FaultKind::TimedOut, why));
        }
        match tokio::time::timeout(timeout, self.attempt(target, timeout)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(timeout)),
        }
    }

    async fn attempt(&self, target: &Target, timeout: Duration) -> Result<Document, Fault> {
        let request = self.request(target, timeout)?;
        let limit = usize::try_from(self.body_limit.bytes()).unwrap_or(usize::MAX);
        let answer = self.client.send(request, limit).await.map_err(|error| match error.kind {
            TransportKind::TooLarge => self.too_large(),
            TransportKind::TimedOut => timed_out(timeout),
            _ => Fault::from(error),
        })?;
        let format = format_of(&answer)?;
        let encoding = text(&answer, &CONTENT_ENCODING);
        let compression = Compression::from_header(encoding).ok_or_else(|| {
            Fault::new(FaultKind::Decode, format!("its answer is compressed as `{encoding}`, which was not asked for"))
        })?;
        let (limits, too_large) = (self.limits, self.too_large());
        let parse = move |body: Bytes| {
            let body = compression.decompress(body, limit).map_err(|error| match error {
                weir_net::compress::DecompressError::TooLarge => too_large,
                corrupt => Fault::new(FaultKind::Decode, corrupt.to_string()),
            })?;
            Document::parse(Vec::from(body), format, limits).map_err(|error| {
                let (kind, hint) = if error.over_limit {
                    (FaultKind::TooLarge, " (see `sample_limit` and `label_limit`)")
                } else {
                    (FaultKind::Decode, "")
                };
                Fault::new(kind, format!("{error}{hint}"))
            })
        };
        if answer.body.len() <= LARGE_BYTES {
            return parse(answer.body);
        }
        let parsed = tokio::task::spawn_blocking(move || parse(answer.body)).await;
        parsed.unwrap_or_else(|_| Err(Fault::new(FaultKind::Other, "reading its answer panicked; please report it")))
    }

    fn request(&self, target: &Target, timeout: Duration) -> Result<Request<Bytes>, Fault> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = target
            .url
            .as_str()
            .parse()
            .map_err(|error| Fault::configuration(format!("the address cannot be used: {error}")))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.extend(target.headers.clone());
        headers.insert(ACCEPT, ACCEPTED);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if let Ok(seconds) = HeaderValue::from_str(&timeout.as_secs_f64().to_string()) {
            headers.insert(TIMEOUT_HEADER, seconds);
        }
        Ok(request)
    }

    fn too_large(&self) -> Fault {
        let why = format!("its answer is larger than `body_limit`, {}, and was cut off", self.body_limit);
        Fault::new(FaultKind::TooLarge, why)
    }
}

fn timed_out(timeout: Duration) -> Fault {
    let why =
        format!("no answer within {} s: it hangs, or `scrape_timeout` is too short for it", timeout.as_secs_f64());
    Fault::new(FaultKind::TimedOut, why)
}

fn text<'a>(answer: &'a Answer, name: &HeaderName) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The format of an answer, if it is one with metrics.
fn format_of(answer: &Answer) -> Result<Format, Fault> {
    let status = answer.status;
    let (kind, why) = match status.as_u16() {
        200 => return format_of_type(text(answer, &CONTENT_TYPE)),
        401 | 403 => (
            FaultKind::Unauthorized,
            "it does not accept the credentials: check `bearer_token`, `username` and `password`".to_owned(),
        ),
        404 | 405 => (FaultKind::NotFound, format!("it answers {status}: check `metrics_path`")),
        300..=399 => {
            (FaultKind::NotFound, format!("it redirects to `{}`: scrape that address", text(answer, &LOCATION)))
        }
        _ => (FaultKind::Other, format!("it answers {}", answer.excerpt())),
    };
    Err(Fault::new(kind, why))
}

fn format_of_type(content_type: &str) -> Result<Format, Fault> {
    let lower = content_type.to_ascii_lowercase();
    match Format::from_content_type(content_type) {
        Some(format) => Ok(format),
        None if lower.contains("html") => Err(Fault::new(
            FaultKind::NotFound,
            "it answers with a web page, not with metrics: check port and `metrics_path`",
        )),
        None if lower.contains("json") || lower.contains("protobuf") => {
            Err(Fault::new(FaultKind::Decode, format!("it answers with `{content_type}`, not with metrics as text")))
        }
        // Some exporters name no proper type; the first wrong line tells if it is something else.
        None => Ok(Format::Text),
    }
}
