//! What the answer of an OTLP backend means, for deliveries and for checks.
//!
//! Sources: opentelemetry-proto `docs/specification.md` ("Failures", "OTLP/gRPC Throttling", "Retryable
//! Response Codes"). Where the specification lets a sender drop data on errors that say nothing
//! about the data (500, UNKNOWN, a wrong path), Weir waits instead: the runner bounds how long.

use std::time::SystemTime;

use http::StatusCode;
use weir_model::{Encoding, Signal};
use weir_net::{Answer, retry_after};
use weir_pipeline::{Outcome, Refused};

use super::channel::CallAnswer;
use super::status::{Code, PartialSuccess, Status};
use super::{encoding_of, http_path};

/// An outcome, and what its owner should read although nothing failed.
#[derive(Debug, PartialEq)]
pub(crate) struct Judgement {
    pub outcome: Outcome,
    pub warning: Option<String>,
}

impl From<Outcome> for Judgement {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, warning: None }
    }
}

/// The outcome of a success whose body may name refused records.
fn success(partial: Option<PartialSuccess>, sent_records: u64) -> Judgement {
    let Some(partial) = partial else { return Outcome::Accepted.into() };
    let message = one_line(&partial.message);
    if partial.rejected == 0 {
        return Judgement { outcome: Outcome::Accepted, warning: (!message.is_empty()).then_some(message) };
    }
    let why = if message.is_empty() { "the backend gives no reason".to_owned() } else { message };
    // Some backends count more than they were sent: the ledger must stay exact.
    Outcome::Partly { refused: Refused::Count(partial.rejected.min(sent_records)), why }.into()
}

/// The outcome of an HTTP answer to `sent_records` records in the encoding `sent_in`.
pub(crate) fn of_http(signal: Signal, sent_in: Encoding, sent_records: u64, answer: &Answer) -> Judgement {
    let answered_in = encoding_of(&answer.headers).unwrap_or(sent_in);
    if is_page(answer) {
        let why = format!(
            "{} with a web page, not as an OTLP backend: check `endpoint`, and whether a proxy wants a login",
            answer.status
        );
        return Outcome::Later { after: None, why }.into();
    }
    if answer.status.is_success() {
        return success(PartialSuccess::decode(signal, answered_in, &answer.body), sent_records);
    }
    let status = Status::decode(answered_in, &answer.body);
    let why = explain(answer, status.as_ref());
    let asked = retry_after(&answer.headers, SystemTime::now()).or(status.and_then(|status| status.retry_after));
    let outcome = match answer.status.as_u16() {
        401 | 403 => Outcome::Unauthorized { why },
        413 => Outcome::Split { why },
        // The Collector (0.149) answers 400 `http: request body too large` where the specification asks for 413.
        400 if speaks_of_size(&why) => Outcome::Split { why },
        404 | 405 => Outcome::Later { after: asked, why: format!("{why}; {}", wrong_path(signal)) },
        // The records are not at fault, the options are.
        415 => Outcome::Later { after: asked, why: format!("{why}; try another `protocol`, or `compression: none`") },
        300..=399 => {
            Outcome::Later { after: asked, why: format!("{why}; the address is another one, see its location") }
        }
        408 | 425 | 429 | 500..=599 => Outcome::Later { after: asked, why },
        _ => Outcome::Never { why },
    };
    outcome.into()
}

/// What to look at when a path leads nowhere.
fn wrong_path(signal: Signal) -> String {
    format!(
        "is there an OTLP receiver at this path? `{}` is added to `endpoint`, `{}_endpoint` is used as it is",
        http_path(signal),
        signal.name()
    )
}

/// The outcome of a gRPC call with `sent_records` records.
pub(super) fn of_call(signal: Signal, sent_records: u64, answer: &CallAnswer) -> Judgement {
    let Some(status) = &answer.status else { return of_other_server(answer).into() };
    let why = describe(status);
    let after = status.retry_after;
    let outcome = match status.code {
        Code::Ok => {
            let partial = PartialSuccess::decode(signal, Encoding::Protobuf, &answer.message);
            return success(partial, sent_records);
        }
        Code::Unauthenticated | Code::PermissionDenied => Outcome::Unauthorized { why },
        Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => Outcome::Never { why },
        // Servers say the same code for a quota and for a message beyond their limit; tonic says OUT_OF_RANGE there.
        Code::ResourceExhausted | Code::OutOfRange if after.is_none() && speaks_of_size(&status.message) => {
            Outcome::Split { why }
        }
        Code::Unimplemented | Code::NotFound => Outcome::Later { after, why: format!("{why}; {}", no_service(signal)) },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted
        | Code::Unknown
        | Code::Internal => Outcome::Later { after, why },
    };
    outcome.into()
}

/// Whether a message speaks of the request's size. grpc-go: "received message larger than max",
/// grpc-java: "message exceeds maximum size", grpc-core: "Received message larger than max", tonic:
/// "decoded message length too large".
fn speaks_of_size(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    ["larger than", "too large", "exceeds maximum size", "message size", "length too large"]
        .iter()
        .any(|words| lower.contains(words))
}

/// What to look at when a server does not know the service.
fn no_service(signal: Signal) -> String {
    let name = signal.name();
    format!(
        "does this server take {name} over OTLP/gRPC, and this `compression`? otherwise leave {name} out of `signals`"
    )
}

/// The outcome of an answer without a gRPC status: from a proxy, or from another kind of server.
fn of_other_server(answer: &CallAnswer) -> Outcome {
    let why = format!("{} without a gRPC status: is this a gRPC server?", answer.http);
    let after = retry_after(&answer.headers, SystemTime::now());
    match answer.http.as_u16() {
        401 | 403 => Outcome::Unauthorized { why },
        413 => Outcome::Split { why },
        _ => Outcome::Later { after, why },
    }
}

/// What an answer to a check proves.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The right place, and the credentials are accepted.
    Fine,
    /// The credentials are not accepted.
    Unauthorized(String),
    /// Something else is there.
    WrongPlace(String),
    /// It answers, but not now or not to this.
    Other(String),
}

/// What an HTTP answer to an empty request proves.
pub(super) fn check_http(signal: Signal, sent_in: Encoding, answer: &Answer) -> Finding {
    let status = Status::decode(encoding_of(&answer.headers).unwrap_or(sent_in), &answer.body);
    let why = explain(answer, status.as_ref());
    match answer.status.as_u16() {
        200..=299 if is_page(answer) => {
            Finding::WrongPlace(format!("it answers with a page, not as an OTLP receiver; {}", wrong_path(signal)))
        }
        200..=299 => Finding::Fine,
        401 | 403 => Finding::Unauthorized(why),
        404 | 405 => Finding::WrongPlace(format!("{why}; {}", wrong_path(signal))),
        _ => Finding::Other(why),
    }
}

/// A page for people instead of an OTLP answer: a captive portal, the start page of another product.
pub(crate) fn is_page(answer: &Answer) -> bool {
    let content_type = answer.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_html = content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("text/html"));
    let body = answer.body.trim_ascii_start();
    answer.status.is_success() && !body.is_empty() && (is_html || body.starts_with(b"<"))
}

/// What the answer to an empty gRPC call proves.
pub(super) fn check_call(signal: Signal, answer: &CallAnswer) -> Finding {
    let Some(status) = &answer.status else {
        let why = format!("{} without a gRPC status: is this a gRPC server? its port is usually 4317", answer.http);
        return match answer.http {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Finding::Unauthorized(why),
            _ => Finding::WrongPlace(why),
        };
    };
    match status.code {
        Code::Ok => Finding::Fine,
        Code::Unauthenticated | Code::PermissionDenied => Finding::Unauthorized(describe(status)),
        Code::Unimplemented | Code::NotFound => {
            Finding::WrongPlace(format!("{}; {}", describe(status), no_service(signal)))
        }
        _ => Finding::Other(describe(status)),
    }
}

/// A gRPC status in one line.
fn describe(status: &Status) -> String {
    let message = one_line(&status.message);
    if message.is_empty() { status.code.name().to_owned() } else { format!("{}: {message}", status.code.name()) }
}

/// An HTTP answer in one line: the message of its `google.rpc.Status`, or the beginning of its body.
fn explain(answer: &Answer, status: Option<&Status>) -> String {
    match status.map(|status| one_line(&status.message)) {
        Some(message) if !message.is_empty() => format!("{}: {message}", answer.status),
        _ => answer.excerpt(),
    }
}

/// At most 300 characters in one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderMap;
    use http::header::{CONTENT_TYPE, RETRY_AFTER};

    use super::*;

    fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() }
    }

    fn judged(answer: &Answer) -> Outcome {
        of_http(Signal::Logs, Encoding::Protobuf, 10, answer).outcome
    }

    fn class(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Partly { .. } | Outcome::Each { .. } => "partly",
            Outcome::Later { .. } => "later",
            Outcome::Split { .. } => "split",
            Outcome::Never { .. } => "never",
            Outcome::Unauthorized { .. } => "unauthorized",
        }
    }

    #[test]
    fn every_http_status_has_its_outcome() {
        for (status, expected) in [
            (200, "accepted"),
            (202, "accepted"),
            (204, "accepted"),
            (308, "later"),
            (400, "never"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (404, "later"),
            (405, "later"),
            (408, "later"),
            (413, "split"),
            (415, "later"),
            (422, "never"),
            (429, "later"),
            (500, "later"),
            (502, "later"),
            (503, "later"),
            (504, "later"),
        ] {
            assert_eq!(class(&judged(&answer(status, ""))), expected, "{status}");
        }
    }

    #[test]
    fn a_collector_that_says_bad_request_to_a_large_one_gets_smaller_ones() {
        assert_eq!(class(&judged(&answer(400, "http: request body too large"))), "split");
        assert_eq!(class(&judged(&answer(400, "proto: illegal wireType 7"))), "never");
    }

    #[test]
    fn a_delay_is_read_from_the_header_or_from_retry_info() {
        let status =
            Status { code: Code::Unavailable, message: "busy".into(), retry_after: Some(Duration::from_secs(7)) };
        let mut busy = answer(503, status.encode(Encoding::Protobuf));
        let expected = |seconds| Outcome::Later {
            after: Some(Duration::from_secs(seconds)),
            why: "503 Service Unavailable: busy".into(),
        };
        assert_eq!(judged(&busy), expected(7));
        busy.headers.insert(RETRY_AFTER, "30".parse().unwrap());
        assert_eq!(judged(&busy), expected(30));
    }

    #[test]
    fn partial_success_is_never_sent_again_and_never_counts_more_than_was_sent() {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            for (rejected, counted) in [(3, 3), (99, 10)] {
                let partial = PartialSuccess { rejected, message: "too old".into() };
                let body = partial.encode(Signal::Logs, encoding);
                let judged = of_http(Signal::Logs, encoding, 10, &answer(200, body)).outcome;
                assert_eq!(judged, Outcome::Partly { refused: Refused::Count(counted), why: "too old".into() });
            }
        }
    }

    #[test]
    fn a_page_of_somebody_else_is_no_success() {
        let page = answer(200, "<!DOCTYPE html><html>Please sign in</html>");
        assert_eq!(class(&judged(&page)), "later");
        let mut typed = answer(200, "Welcome");
        typed.headers.insert(CONTENT_TYPE, "text/html; charset=utf-8".parse().unwrap());
        assert_eq!(class(&judged(&typed)), "later");
    }

    #[test]
    fn a_message_without_refused_records_is_a_warning() {
        let partial = PartialSuccess { rejected: 0, message: "use TLS".into() };
        let mut warned = answer(200, partial.encode(Signal::Logs, Encoding::Json));
        // The answer says its own encoding, whatever was sent.
        warned.headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        let judgement = of_http(Signal::Logs, Encoding::Protobuf, 10, &warned);
        assert_eq!(judgement, Judgement { outcome: Outcome::Accepted, warning: Some("use TLS".into()) });
    }

    #[test]
    fn a_wrong_path_says_which_option_to_look_at() {
        let Outcome::Later { why, .. } = judged(&answer(404, "404 page not found")) else { panic!("not later") };
        assert!(
            why.contains("404 page not found") && why.contains("/v1/logs") && why.contains("logs_endpoint"),
            "{why}"
        );
    }

    fn call(code: Code, message: &str, retry_after: Option<Duration>) -> CallAnswer {
        let status = Some(Status { code, message: message.into(), retry_after });
        CallAnswer { http: StatusCode::OK, headers: HeaderMap::new(), status, message: Bytes::new() }
    }

    #[test]
    fn every_grpc_code_has_its_outcome() {
        for (code, expected) in [
            (Code::Ok, "accepted"),
            (Code::Cancelled, "later"),
            (Code::Unknown, "later"),
            (Code::InvalidArgument, "never"),
            (Code::DeadlineExceeded, "later"),
            (Code::NotFound, "later"),
            (Code::AlreadyExists, "never"),
            (Code::PermissionDenied, "unauthorized"),
            (Code::ResourceExhausted, "later"),
            (Code::FailedPrecondition, "never"),
            (Code::Aborted, "later"),
            (Code::OutOfRange, "later"),
            (Code::Unimplemented, "later"),
            (Code::Internal, "later"),
            (Code::Unavailable, "later"),
            (Code::DataLoss, "later"),
            (Code::Unauthenticated, "unauthorized"),
        ] {
            let outcome = of_call(Signal::Logs, 10, &call(code, "", None)).outcome;
            assert_eq!(class(&outcome), expected, "{code:?}");
        }
    }

    #[test]
    fn an_exhausted_resource_is_split_only_if_it_is_the_size_of_the_message() {
        let outcome =
            |message, delay| class(&of_call(Signal::Logs, 10, &call(Code::ResourceExhausted, message, delay)).outcome);
        assert_eq!(outcome("grpc: received message larger than max (6000000 vs. 4194304)", None), "split");
        assert_eq!(outcome("quota of this tenant is used up", None), "later");
        assert_eq!(outcome("message too large for now", Some(Duration::from_secs(1))), "later");
        let tonic = "Error, decoded message length too large: found 6000000 bytes, the limit is: 4194304 bytes";
        assert_eq!(class(&of_call(Signal::Logs, 10, &call(Code::OutOfRange, tonic, None)).outcome), "split");
    }

    #[test]
    fn an_answer_without_grpc_status_is_judged_by_its_http_status() {
        for (status, expected) in
            [(401, "unauthorized"), (413, "split"), (404, "later"), (502, "later"), (200, "later")]
        {
            let http = StatusCode::from_u16(status).unwrap();
            let answer = CallAnswer { http, headers: HeaderMap::new(), status: None, message: Bytes::new() };
            assert_eq!(class(&of_call(Signal::Logs, 10, &answer).outcome), expected, "{status}");
        }
    }
}
