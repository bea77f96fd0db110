//! What an answer to a remote write means.
//!
//! Sources: "Prometheus Remote-Write 2.0 specification" (rc.4), "Retries & Backoff", "Required
//! Written Response Headers", "Backward and Forward Compatibility"; prometheus/prometheus
//! `storage/remote/write_handler.go`.

use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use weir_net::{Answer, StatusClass, retry_after};
use weir_pipeline::{Fault, FaultKind, Outcome, Refused};

use super::series::RefusedRecord;
use super::target::Announced;
use super::write::Version;

const SAMPLES_WRITTEN: &str = "x-prometheus-remote-write-samples-written";
const HISTOGRAMS_WRITTEN: &str = "x-prometheus-remote-write-histograms-written";
const EXEMPLARS_WRITTEN: &str = "x-prometheus-remote-write-exemplars-written";

/// What was sent, to be compared with what was written.
#[derive(Debug)]
pub(super) struct Sent {
    /// [`weir_pipeline::Delivery::id`].
    pub delivery: u64,
    pub version: Version,
    /// Records of the delivery.
    pub records: usize,
    /// Samples and native histograms in the request.
    pub samples: u64,
    /// Records that could not be sent.
    pub refused: Vec<RefusedRecord>,
    /// `target_info` in the request.
    pub announced: Announced,
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    /// The receiver may be asked in the other version.
    pub may_fall_back: bool,
    /// It has shown that it speaks 2.0.
    pub is_v2_proved: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    Outcome(Outcome),
    /// It does not speak 2.0: the same records must go out as 1.0.
    FallBack(String),
}

/// Samples and native histograms that the receiver says it wrote; `None` if it does not say.
fn written(answer: &Answer) -> Option<u64> {
    let of = |name: &str| {
        let value = answer.headers.get(name)?.to_str().ok()?;
        value.trim().parse::<u64>().ok()
    };
    let counts = [of(SAMPLES_WRITTEN), of(HISTOGRAMS_WRITTEN), of(EXEMPLARS_WRITTEN)];
    // The specification lets a header that is missing beside others mean 0.
    counts.iter().any(Option::is_some).then(|| counts.iter().take(2).flatten().sum())
}

pub(super) fn has_written_headers(answer: &Answer) -> bool {
    written(answer).is_some()
}

fn is_web_page(answer: &Answer) -> bool {
    let media = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media.trim_start().to_ascii_lowercase().starts_with("text/html") && !answer.body.is_empty()
}

fn path_hint(answer: &Answer) -> String {
    format!(
        "{}: there is no remote write receiver at this path; Prometheus has it at /api/v1/write and needs \
         --web.enable-remote-write-receiver",
        answer.excerpt()
    )
}

/// What the answer means for the records.
///
/// A 400 for several records is a [`Outcome::Split`]: with 1.0 receivers store nothing of a request with
/// one bad sample and do not say which it is, so the runner halves until it stands alone, and that is
/// [`Outcome::Never`]. With 2.0 the good samples of both halves are written again, with the same result.
pub(super) fn judge(sent: &Sent, answer: &Answer, expectation: Expectation) -> Judgement {
    let later = |after: Option<Duration>, why: String| Judgement::Outcome(Outcome::Later { after, why });
    let (is_v2, why) = (sent.version == Version::V2, answer.excerpt());
    match answer.status.as_u16() {
        200..=299 if is_web_page(answer) => {
            later(None, "the address answers with a web page, not as a remote write receiver: check `endpoint`".into())
        }
        200..=299 => match written(answer) {
            Some(count) if is_v2 => Judgement::Outcome(with_refused(sent, sent.samples.saturating_sub(count))),
            None if is_v2 && expectation.may_fall_back => Judgement::FallBack(
                "it does not say what it wrote, so it ignored a message that it does not know".into(),
            ),
            None if is_v2 => later(None, no_v2("it answers success, but does not say what it wrote")),
            _ => Judgement::Outcome(with_refused(sent, 0)),
        },
        415 if is_v2 && expectation.may_fall_back => Judgement::FallBack(why),
        415 if is_v2 => later(None, no_v2(&why)),
        300..=399 => later(None, format!("{why}: the address redirects; set `endpoint` to where it leads")),
        404 | 405 => later(None, path_hint(answer)),
        415 => later(None, format!("{why}: it takes no remote write 1.0; check `endpoint` and `protocol`")),
        _ => match StatusClass::of(answer.status) {
            StatusClass::Retry => later(retry_after(&answer.headers, SystemTime::now()), why),
            StatusClass::TooLarge => Judgement::Outcome(Outcome::Split { why }),
            StatusClass::Unauthorized => Judgement::Outcome(Outcome::Unauthorized { why }),
            StatusClass::Success | StatusClass::Never => refused(sent, answer, expectation),
        },
    }
}

fn no_v2(why: &str) -> String {
    format!("{why}: the receiver does not speak remote write 2.0; set `protocol: auto` or `protocol: v1`")
}

/// A 400 or another status that refuses the content.
fn refused(sent: &Sent, answer: &Answer, expectation: Expectation) -> Judgement {
    let why = answer.excerpt();
    let count = written(answer).filter(|_| sent.version == Version::V2);
    let outcome = match count {
        // Only exemplars or metadata were refused; the records are there.
        Some(count) if count >= sent.samples => with_refused(sent, 0),
        Some(0) => Outcome::Never { why },
        None if sent.version == Version::V2 && expectation.may_fall_back && !expectation.is_v2_proved => {
            return Judgement::FallBack(why);
        }
        _ if sent.records > 1 => Outcome::Split { why },
        _ => Outcome::Never { why },
    };
    Judgement::Outcome(outcome)
}

/// Success, but for the records that were not sent, and the samples that the receiver left out.
fn with_refused(sent: &Sent, not_written: u64) -> Outcome {
    let own = sent.refused.len() as u64;
    let local = sent.refused.first().map(|first| first.why);
    if not_written > 0 {
        let most = sent.records as u64;
        let mut why = format!("the receiver left out {not_written} of {} samples without saying why", sent.samples);
        if let Some(local) = local {
            why = format!("{why}; {own} records were not sent: {local}");
        }
        return Outcome::Partly { refused: Refused::Count((own + not_written).min(most)), why };
    }
    match local {
        None => Outcome::Accepted,
        Some(why) => {
            let records = sent.refused.iter().map(|refused| refused.record).collect();
            Outcome::Partly { refused: Refused::Records(records), why: format!("not sent: {why}") }
        }
    }
}

/// What the answer to an empty request proves; `Ok(false)` asks for another try with 1.0.
pub(super) fn check(version: Version, answer: &Answer, may_fall_back: bool, place: &str) -> Result<bool, Fault> {
    let is_v2 = version == Version::V2;
    let why = answer.excerpt();
    let (kind, message) = match answer.status.as_u16() {
        200..=299 if is_web_page(answer) => {
            (FaultKind::NotFound, format!("{place} is a web page, no remote write receiver: check host, port and path"))
        }
        200..=299 if is_v2 && !has_written_headers(answer) => {
            if may_fall_back {
                return Ok(false);
            }
            (FaultKind::Configuration, format!("{place}: {}", no_v2("it does not say what it wrote")))
        }
        200..=299 => return Ok(true),
        400..=499 if is_v2 && may_fall_back && !matches!(answer.status.as_u16(), 401 | 403 | 404 | 405 | 408 | 429) => {
            return Ok(false);
        }
        415 if is_v2 => (FaultKind::Configuration, format!("{place}: {}", no_v2(&why))),
        401 | 403 => (
            FaultKind::Unauthorized,
            format!(
                "{place} does not accept the credentials ({why}): check `bearer_token`, `username`, `password` and `tenant`"
            ),
        ),
        404 | 405 => (FaultKind::NotFound, format!("{place} answers {}", path_hint(answer))),
        300..=399 => (FaultKind::NotFound, format!("{place} redirects ({why}): set `endpoint` to where it leads")),
        408 | 429 | 500..=599 => {
            (FaultKind::Other, format!("{place} cannot take requests at the moment ({why}): try again later"))
        }
        _ => (FaultKind::Other, format!("{place} refuses an empty test request: {why}")),
    };
    Err(Fault::new(kind, message))
}
