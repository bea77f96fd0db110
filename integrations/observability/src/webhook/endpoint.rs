//! One endpoint: its options made ready, its requests, and what its answers mean.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::Sha256;
use weir_config::{Endpoint, Secret};
use weir_model::Signal;
use weir_net::{Answer, AnswerNote, Client, Compression, HttpOptions, Pieces, answer_note};
use weir_pipeline::role::ANSWER_LIMIT_BYTES;
use weir_pipeline::{Fault, FaultKind, Outcome};

use super::body::{Encoding, Source};
use super::success::{Success, SuccessConfig};
use super::template::Template;
use crate::credentials::{Credentials, take_from_url};
use crate::readable::hexadecimal;

/// The same for every attempt to send the same records to the same endpoint.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// HMAC over timestamp and body.
const SIGNATURE: &str = "x-signature-256";
/// When it was signed, unix seconds.
const TIMESTAMP: &str = "x-timestamp";
/// Marks the batch without records that a check sends.
const CHECK: &str = "x-weir-check";

/// The methods that carry a body and change something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verb {
    /// The usual one.
    #[default]
    Post,
    /// For receivers that store what they get at this address.
    Put,
    /// For receivers that add what they get to what is at this address.
    Patch,
}

/// One endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Name in messages. Default: host and port of `url`.
    pub(super) name: Option<String>,
    /// Where to send to.
    pub(super) url: Endpoint,
    /// `POST`, `PUT` or `PATCH`. Default: `POST`.
    pub(super) method: Option<Verb>,
    /// Headers of every request; their values are treated as secrets.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Secret>,
    /// `json`, `ndjson`, `otlp_json` or `text`. Default: `json`.
    pub(super) encoding: Option<Encoding>,
    /// The line of a record for the encoding `text`, such as `{{time}} {{name}} {{value}}`.
    pub(super) template: Option<String>,
    /// `none`, `gzip` or `zstd`. Default: `none`.
    pub(super) compression: Option<Compression>,
    /// Most records in one request. Default: all that the runner hands over at once.
    #[schemars(range(min = 1))]
    pub(super) batch_size: Option<usize>,
    /// Longest time for one request. Default: `30s`.
    pub(super) timeout: Option<weir_config::Duration>,
    /// Attempts after the first, after which this endpoint goes without the records. Default: no limit but `retry_max_age`.
    pub(super) retry_attempts: Option<u32>,
    /// Sent as `Authorization: Bearer`.
    pub(super) bearer_token: Option<Secret>,
    /// User name of `Authorization: Basic`.
    pub(super) username: Option<String>,
    /// Password of `Authorization: Basic`.
    pub(super) password: Option<Secret>,
    /// Key of the signature in `X-Signature-256`.
    pub(super) signing_key: Option<Secret>,
    /// What an answer must be to count as taken: `statuses` (default: 200 to 299) and `body`, a regular expression.
    pub(super) success: Option<SuccessConfig>,
    /// Whether it gets metrics. Default: `true`.
    pub(super) metrics: Option<bool>,
    /// Whether it gets logs. Default: `true`.
    pub(super) logs: Option<bool>,
    /// Whether it gets traces. Default: `true`.
    pub(super) traces: Option<bool>,
}

/// How far an endpoint is with one delivery.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Every record before this one is taken or refused.
    pub(super) next: usize,
    /// Most records in one request, after it asked for smaller ones.
    limit: Option<usize>,
    /// Attempts that failed.
    failed: u32,
    /// Whether they were too many: then the rest of the records is refused, and not for its own fault.
    pub(super) is_over: bool,
    /// Records that it will never take.
    pub(super) refused: Vec<Range<usize>>,
    /// Records that it refused together: some of them it may take.
    pub(super) suspect: Vec<Range<usize>>,
    /// Why, for the first of both.
    pub(super) why: String,
    /// The answer that said so.
    pub(super) answer: Option<AnswerNote>,
}

impl Progress {
    fn refuse(&mut self, range: Range<usize>, why: String) {
        self.explain(range.end, why);
        self.refused.push(range);
    }

    fn suspect(&mut self, range: Range<usize>, why: String) {
        self.explain(range.end, why);
        self.suspect.push(range);
    }

    fn explain(&mut self, next: usize, why: String) {
        self.next = next;
        if self.refused.is_empty() && self.suspect.is_empty() {
            (self.why, self.answer) = (why, answer_note::last());
        }
    }
}

/// What is left to do after one attempt.
pub(super) enum Left {
    /// Everything is taken or refused.
    Nothing,
    /// The rest may be taken later.
    Later { after: Option<Duration>, why: String },
    /// The credentials are not right (yet).
    Unauthorized { why: String },
}

/// An endpoint that is ready to send.
pub(super) struct Target {
    pub(super) label: String,
    position: usize,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    encoding: Encoding,
    template: Option<Template>,
    compression: Compression,
    batch_size: usize,
    retry_attempts: Option<u32>,
    signing_key: Option<Secret>,
    success: Success,
    signals: [bool; 3],
    client: Client,
}

impl Target {
    /// Makes an endpoint ready. `http` holds what all endpoints of the block share.
    ///
    /// # Errors
    /// If the options make no sense; the sentence names the endpoint.
    pub(super) fn new(config: EndpointConfig, position: usize, http: &HttpOptions) -> Result<Self, Fault> {
        let label = config.name.clone().unwrap_or_else(|| place(config.url.url()));
        let wrong = |why: String| Fault::configuration(format!("endpoint `{label}`: {why}"));
        let mut url = config.url.url().clone();
        let encoding = config.encoding.unwrap_or_default();
        let headers = headers(&config, &mut url, encoding).map_err(|fault| wrong(fault.message))?;
        // Never an error with the address in it: the path may be the secret.
        let uri: Uri = url.as_str().parse().map_err(|_| wrong("the url is not one that HTTP can carry".into()))?;
        let template = match (encoding, config.template.as_deref()) {
            (Encoding::Text, Some(text)) => Some(Template::parse(text).map_err(wrong)?),
            (Encoding::Text, None) => {
                return Err(wrong(
                    "the encoding `text` needs a `template`, such as `{{time}} {{name}} {{value}}`".into(),
                ));
            }
            (_, Some(_)) => return Err(wrong("`template` is for `encoding: text` only".into())),
            (_, None) => None,
        };
        let flags = [config.metrics, config.logs, config.traces].map(|flag| flag.unwrap_or(true));
        if flags == [false; 3] {
            return Err(wrong("metrics, logs and traces are all `false`: nothing would be sent".into()));
        }
        let timeout = config.timeout.unwrap_or(http.timeout);
        if timeout.is_zero() {
            return Err(wrong("`timeout` must be longer than 0s".into()));
        }
        let client = Client::new(&HttpOptions { timeout, ..http.clone() }).map_err(wrong)?;
        let success = Success::new(config.success.unwrap_or_default()).map_err(wrong)?;
        Ok(Self {
            headers,
            method: match config.method.unwrap_or_default() {
                Verb::Post => Method::POST,
                Verb::Put => Method::PUT,
                Verb::Patch => Method::PATCH,
            },
            compression: config.compression.unwrap_or_default(),
            batch_size: config.batch_size.unwrap_or(usize::MAX).max(1),
            retry_attempts: config.retry_attempts,
            signing_key: config.signing_key,
            success,
            signals: flags,
            label,
            position,
            uri,
            encoding,
            template,
            client,
        })
    }

    /// Whether it gets a signal.
    pub(super) fn takes(&self, signal: Signal) -> bool {
        let [metrics, logs, traces] = self.signals;
        match signal {
            Signal::Metrics => metrics,
            Signal::Logs => logs,
            Signal::Traces => traces,
        }
    }

    /// Sends what is left of a delivery, piece by piece, until the end or the first failure. `note`
    /// keeps the progress after every answer, so that an attempt that is broken off repeats nothing.
    pub(super) async fn deliver(
        &self,
        source: &Source<'_>,
        id: u64,
        mut progress: Progress,
        note: impl Fn(&Progress),
    ) -> Left {
        while progress.next < source.len() {
            let size = progress.limit.unwrap_or(self.batch_size);
            let range = progress.next..progress.next.saturating_add(size).min(source.len());
            let left = match self.send(source, id, range.clone()).await {
                Outcome::Accepted => {
                    progress.next = range.end;
                    None
                }
                Outcome::Split { .. } if range.len() > 1 => {
                    progress.limit = Some(range.len() / 2);
                    None
                }
                // This one was too large, not the number of records.
                Outcome::Split { why } => {
                    progress.refuse(range, why);
                    progress.limit = None;
                    None
                }
                Outcome::Never { why } | Outcome::Partly { why, .. } | Outcome::Each { why, .. } => {
                    if range.len() > 1 {
                        progress.suspect(range, why);
                    } else {
                        progress.refuse(range, why);
                    }
                    None
                }
                Outcome::Unauthorized { why } => Some(Left::Unauthorized { why }),
                Outcome::Later { after, why } => Some(Left::Later { after, why }),
            };
            if let Some(left) = left {
                let left = self.give_up_or(left, &mut progress, source.len());
                note(&progress);
                return left;
            }
            note(&progress);
        }
        Left::Nothing
    }

    /// Counts a failed attempt; after the last one that is allowed the rest is refused.
    fn give_up_or(&self, left: Left, progress: &mut Progress, records: usize) -> Left {
        progress.failed = progress.failed.saturating_add(1);
        let (Left::Later { why, .. } | Left::Unauthorized { why }) = &left else { return left };
        let Some(attempts) = self.retry_attempts.filter(|most| progress.failed > *most) else { return left };
        let why = format!("given up after {} attempts (retry_attempts: {attempts}): {why}", progress.failed);
        progress.refuse(progress.next..records, why);
        progress.is_over = true;
        Left::Nothing
    }

    /// One request.
    async fn send(&self, source: &Source<'_>, id: u64, range: Range<usize>) -> Outcome {
        // The same records carry the same key in every attempt, and every endpoint has its own.
        let key = format!("{id:016x}-{}-{}-{}", self.position, range.start, range.end);
        let never = |why: String| Outcome::Never { why };
        let body = match source.body(self.encoding, self.template.as_ref(), range) {
            Ok(body) => body,
            Err(why) => return never(format!("the records cannot be written: {why}")),
        };
        let request = self.request(body, SystemTime::now()).and_then(|mut request| {
            let key = HeaderValue::try_from(key).map_err(|error| error.to_string())?;
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
            Ok(request)
        });
        match request {
            Ok(request) => match self.client.send(request, ANSWER_LIMIT_BYTES).await {
                Ok(answer) => self.success.judge(&answer).unwrap_or_else(|| judge(&answer)),
                Err(error) => Outcome::of_transport(error),
            },
            Err(why) => never(why),
        }
    }

    /// A request with everything but its idempotency key.
    fn request(&self, body: Pieces, now: SystemTime) -> Result<Request<Pieces>, String> {
        let body = self
            .compression
            .compress_pieces(body)
            .map_err(|error| format!("the body cannot be compressed: {error}"))?;
        let mut headers = self.headers.clone();
        if let Some(encoding) = self.compression.header() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if let Some(key) = &self.signing_key {
            let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let timestamp = seconds.to_string();
            let before = [timestamp.as_bytes(), b"."];
            let signature =
                sign(key.expose().as_bytes(), before.into_iter().chain(body.iter().map(|piece| &piece[..])))?;
            let value = |text: String| HeaderValue::try_from(text).map_err(|error| error.to_string());
            headers.insert(TIMESTAMP, value(timestamp)?);
            headers.insert(SIGNATURE, value(format!("sha256={signature}"))?);
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Sends a batch without records, marked with `X-Weir-Check: 1`.
    ///
    /// # Errors
    /// What is wrong with address, path or credentials.
    pub(super) async fn check(&self) -> Result<String, Fault> {
        let mut request =
            self.request(self.encoding.empty().into(), SystemTime::now()).map_err(Fault::configuration)?;
        request.headers_mut().insert(CHECK, HeaderValue::from_static("1"));
        let answer = self.client.send(request, ANSWER_LIMIT_BYTES).await.map_err(Fault::from)?;
        match self.success.of(&answer) {
            Ok(true) => return Ok("takes batches".to_owned()),
            Ok(false) => {}
            Err(why) => return Err(Fault::new(FaultKind::Other, why)),
        }
        match answer.status.as_u16() {
            400 | 422 => Ok(format!(
                "address and path are right, but it refuses a batch without records ({}); only real records can show the rest",
                answer.excerpt()
            )),
            300..=399 => Err(Fault::new(FaultKind::NotFound, redirected(&answer))),
            // Not `Fault::of_answer` with the address: the path may be the secret.
            _ => Fault::of_answer(&answer, "the receiver").map_or_else(|| Ok("takes batches".to_owned()), Err),
        }
    }
}

/// What an answer means (RFC 9110 §15): redirects are refused, because the next server would get the
/// credentials of this one.
fn judge(answer: &Answer) -> Outcome {
    if answer.status.is_redirection() {
        return Outcome::Never { why: redirected(answer) };
    }
    Outcome::of_answer(answer)
}

fn redirected(answer: &Answer) -> String {
    let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let to = match location.map(url::Url::parse) {
        Some(Ok(url)) => format!(" to {}://{}", url.scheme(), place(&url)),
        Some(Err(_)) => " to another path".to_owned(),
        None => String::new(),
    };
    format!(
        "{} redirects{to}, and redirects are not followed since credentials would go along: write the final address as `url`",
        answer.status
    )
}

/// Host and port, and nothing that may be secret.
fn place(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The headers of every request; the credentials of `url` move into them.
fn headers(config: &EndpointConfig, url: &mut url::Url, encoding: Encoding) -> Result<HeaderMap, Fault> {
    let credentials = Credentials {
        headers: Some(&config.headers),
        bearer_token: config.bearer_token.as_ref(),
        username: config.username.as_deref(),
        password: config.password.as_ref(),
    };
    let own = [IDEMPOTENCY_KEY, SIGNATURE, TIMESTAMP, CHECK].map(HeaderName::from_static);
    let mut headers = credentials.headers(&[own.as_slice(), &[CONTENT_ENCODING, CONTENT_LENGTH]].concat())?;
    take_from_url(url, &mut headers)?;
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(encoding.content_type()));
    Ok(headers)
}

/// HMAC-SHA-256 (RFC 2104) over the parts in order, as lowercase hexadecimal.
pub(super) fn sign<'a>(key: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| format!("signing_key: {error}"))?;
    parts.into_iter().for_each(|part| mac.update(part));
    Ok(hexadecimal(&mac.finalize().into_bytes()))
}
