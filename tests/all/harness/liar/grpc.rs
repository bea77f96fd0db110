//! The same backend over gRPC: its own words for the same faults, and the faults that only gRPC has.
//!
//! Sources: grpc `doc/PROTOCOL-HTTP2.md` and `doc/statuscodes.md`, googleapis `google/rpc/error_details.proto`,
//! opentelemetry-proto `docs/specification.md`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{After, Ending, Fault, Mark, NAMED, Shared, decompressed, end, refusal, value_of};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

const OK: u16 = 0;
const RESOURCE_EXHAUSTED: u16 = 8;
const OUT_OF_RANGE: u16 = 11;

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// What is done with a call.
enum Act {
    /// This status, with a delay to wait for.
    Refuse(u16, String, Option<u64>),
    /// Success with this message.
    Succeed(Vec<u8>),
    /// A proxy answers, which knows nothing of gRPC.
    Proxy(Response<()>, &'static str),
    /// The beginning of an answer, then this.
    Break(Vec<u8>, Break),
}

enum Break {
    /// Of the whole connection.
    Connection(Ending),
    /// `RST_STREAM`: of this call alone.
    Call,
    /// The call ends in good order, without a status.
    WithoutStatus,
}

/// Serves a connection whose client speaks HTTP/2.
pub(super) async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let own = std::os::fd::AsFd::as_fd(&connection).try_clone_to_owned().expect("a second handle");
    let own = std::net::TcpStream::from(own);
    let Ok(mut calls) = h2::server::handshake(connection).await else { return };
    // A call says how the connection ends.
    let (sender, mut endings) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            biased;
            Some(ending) = endings.recv() => {
                drop(calls);
                return end(TcpStream::from_std(own).expect("a socket"), ending).await;
            }
            call = calls.accept() => {
                let Some(Ok((request, respond))) = call else { return };
                tokio::spawn(answer(request, respond, shared.clone(), sender.clone()));
            }
        }
    }
}

/// The message of a call, decompressed.
async fn read(request: Request<RecvStream>) -> Option<Bytes> {
    let encoding = request.headers().get("grpc-encoding").map(|value| value.to_str().expect("a name").to_owned());
    let (mut body, mut whole) = (request.into_body(), BytesMut::new());
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        body.flow_control().release_capacity(data.len()).ok()?;
        whole.extend_from_slice(&data);
    }
    let prefix: Vec<u8> = whole.split_to(PREFIX_BYTES.min(whole.len())).to_vec();
    let [flag, length @ ..] = prefix.as_slice() else { panic!("an empty call") };
    assert_eq!(length, (whole.len() as u32).to_be_bytes(), "a unary call has one whole message");
    Some(if *flag == 1 { decompressed(&encoding.expect("named"), whole.freeze()) } else { whole.freeze() })
}

/// One call.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    endings: mpsc::UnboundedSender<Ending>,
) {
    let fault = shared.fault();
    if fault == Fault::ResetInRequest {
        shared.see(|seen| seen.faulted += 1);
        // The connection may have ended already.
        let _ = endings.send(Ending::Reset);
        return;
    }
    let Some(message) = read(request).await else { return };
    let marks = Mark::all_in(&message);
    let act = if marks.is_empty() {
        Act::Succeed(Vec::new())
    } else {
        shared.see(|seen| seen.requests.push(Instant::now()));
        act(&shared, fault, &marks)
    };
    // Whoever has gone misses its answer.
    let _ = play(act, &mut respond, &endings).await;
}

fn prefixed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&[0][..]);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

fn begun() -> Response<()> {
    Response::builder().header("content-type", "application/grpc+proto").body(()).expect("headers")
}

/// The headers or trailers of a status.
fn status(code: u16, message: &str, after: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(code));
    headers.insert("grpc-message", HeaderValue::from_str(message).expect("printable ASCII"));
    if let Some(seconds) = after {
        let delay = Delay { seconds: seconds.try_into().expect("few") };
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let status = Status { code: code.into(), message: message.to_owned(), details: vec![any] };
        let details = STANDARD_NO_PAD.encode(status.encode_to_vec());
        headers.insert("grpc-status-details-bin", HeaderValue::try_from(details).expect("ASCII"));
    }
    headers
}

async fn play(
    act: Act,
    respond: &mut SendResponse<Bytes>,
    endings: &mpsc::UnboundedSender<Ending>,
) -> Result<(), h2::Error> {
    match act {
        Act::Refuse(code, message, after) => {
            let mut response = begun();
            response.headers_mut().extend(status(code, &message, after));
            respond.send_response(response, true)?;
        }
        Act::Succeed(message) => {
            let mut stream = respond.send_response(begun(), false)?;
            stream.send_data(prefixed(&message), false)?;
            stream.send_trailers(status(OK, "", None))?;
        }
        Act::Proxy(response, body) => {
            respond.send_response(response, false)?.send_data(Bytes::from_static(body.as_bytes()), true)?;
        }
        Act::Break(bytes, how) => {
            let is_silent = bytes.is_empty() && !matches!(how, Break::WithoutStatus);
            let stream = if is_silent { None } else { Some(respond.send_response(begun(), false)?) };
            if let Some(mut stream) = stream {
                let ends = matches!(how, Break::WithoutStatus);
                stream.send_data(bytes.into(), ends)?;
                match how {
                    Break::Connection(Ending::Trickle) => loop {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        stream.send_data(Bytes::from_static(b"."), false)?;
                    },
                    // What was written before goes out first.
                    Break::Call => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        stream.send_reset(Reason::INTERNAL_ERROR);
                    }
                    _ => {}
                }
            }
            match how {
                Break::Connection(Ending::Stall) => tokio::time::sleep(Duration::from_secs(30)).await,
                Break::Connection(ending) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    // The connection may have ended already.
                    let _ = endings.send(ending);
                }
                Break::Call | Break::WithoutStatus => {}
            }
        }
    }
    Ok(())
}

/// What to do with a call with records, and to remember of it.
fn act(shared: &Shared, fault: Fault, marks: &[Mark]) -> Act {
    let taken = |marks: &[Mark]| shared.arrived(marks, |arrivals| arrivals.answered += 1);
    let success = || {
        taken(marks);
        Act::Succeed(Vec::new())
    };
    let has_bad = marks.iter().any(|mark| mark.is_bad());
    let is_met = match fault {
        Fault::None => false,
        Fault::TooLarge(most) => marks.len() > most,
        Fault::Refuses(_) | Fault::Names => has_bad,
        _ => true,
    };
    if !is_met {
        return success();
    }
    shared.see(|seen| seen.faulted += 1);
    if fault.loses_answers() {
        shared.arrived(marks, |arrivals| arrivals.unanswered += 1);
    }
    // The prefix of a message that never comes whole.
    let half = || vec![0, 0, 1, 0x86, 0xa0, b'.'];
    match fault {
        Fault::None => success(),
        Fault::Code(code, after) => Act::Refuse(code, "not now".to_owned(), after),
        Fault::Refuses(code) => Act::Refuse(code, refusal(code), None),
        // tonic says it in another way than grpc-go, grpc-java and grpc-core.
        Fault::TooLarge(most) if marks.iter().any(|mark| mark.signal == b'l') => {
            let words = format!(
                "Error, decoded message length too large: found {} bytes, the limit is: {most} bytes",
                marks.len()
            );
            Act::Refuse(OUT_OF_RANGE, words, None)
        }
        Fault::TooLarge(_) => Act::Refuse(RESOURCE_EXHAUSTED, refusal(RESOURCE_EXHAUSTED), None),
        Fault::Names => {
            let (bad, good): (Vec<Mark>, Vec<Mark>) = marks.iter().partition(|mark| mark.is_bad());
            taken(&good);
            // The answers of all signals have the same bytes.
            let partial = ExportLogsPartialSuccess {
                rejected_log_records: bad.len().try_into().expect("few"),
                error_message: NAMED.to_owned(),
            };
            Act::Succeed(ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec())
        }
        Fault::Status(code, after) => {
            let mut response = Response::builder().status(code).header("content-type", "text/plain");
            if let Some(after) = after {
                response = response.header("retry-after", value_of(after));
            }
            Act::Proxy(response.body(()).expect("headers"), "not now")
        }
        Fault::Page => {
            let response = Response::builder().header("content-type", "text/html; charset=utf-8").body(());
            Act::Proxy(response.expect("headers"), "<!DOCTYPE html><html><body>Please sign in</body></html>")
        }
        Fault::OtherProtocol => Act::Break(Vec::new(), Break::Connection(Ending::OtherProtocol)),
        Fault::ResetInRequest => Act::Break(Vec::new(), Break::Connection(Ending::Reset)),
        Fault::ResetInAnswer => Act::Break(half(), Break::Connection(Ending::Reset)),
        Fault::PartialAnswer => Act::Break(half(), Break::Connection(Ending::Close)),
        Fault::NoAnswer => Act::Break(Vec::new(), Break::Connection(Ending::Close)),
        Fault::CallReset => Act::Break(half(), Break::Call),
        Fault::NoStatus => Act::Break(prefixed(&[]).to_vec(), Break::WithoutStatus),
        Fault::Stall => Act::Break(Vec::new(), Break::Connection(Ending::Stall)),
        Fault::Trickle => Act::Break(half(), Break::Connection(Ending::Trickle)),
    }
}

/// The delay that a fault asks for.
pub(super) fn asked(fault: Fault) -> Option<Duration> {
    match fault {
        Fault::Status(_, Some(After::Seconds(seconds))) | Fault::Code(_, Some(seconds)) => {
            Some(Duration::from_secs(seconds))
        }
        // A date has no fractions of a second.
        Fault::Status(_, Some(After::Date(seconds))) => Some(Duration::from_secs(seconds - 1)),
        _ => None,
    }
}
