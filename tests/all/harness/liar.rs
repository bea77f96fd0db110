//! A backend of any HTTP protocol, or of OTLP over gRPC, that answers late, wrong, half or not at all.
//!
//! It knows records by a mark in their text, so it needs to know nothing of how an exporter encodes
//! them. Of protocols it knows what a success must look like where an empty body is none, and how they
//! name the records that they refuse; one that is not listed has neither.

mod grpc;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_net::Compression;

/// The mark of a record: stands once in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The round in which it was sent.
    pub round: u8,
    /// First letter of its signal.
    pub signal: u8,
    /// Its number, from 0.
    pub number: u32,
}

/// Bytes of a mark: `qRRsNNNNNz`.
const MARK_BYTES: usize = 10;

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q{:02}{}{:05}z", self.round, char::from(self.signal), self.number)
    }
}

impl Mark {
    fn read(bytes: &[u8]) -> Option<Mark> {
        let [b'q', round @ .., b'z'] = bytes else { return None };
        let number = |digits: &[u8]| -> Option<u32> {
            digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
        };
        let signal = *round.get(2).filter(|signal| b"mlt".contains(signal))?;
        Some(Mark { round: u8::try_from(number(&round[..2])?).ok()?, signal, number: number(&round[3..])? })
    }

    /// The marks in a text, each once, in their order.
    pub fn all_in(text: &[u8]) -> Vec<Mark> {
        let mut seen = BTreeSet::new();
        text.windows(MARK_BYTES).filter_map(Mark::read).filter(|mark| seen.insert(*mark)).collect()
    }

    /// Whether a backend that refuses some records refuses this one.
    pub fn is_bad(self) -> bool {
        self.number % 61 == 5
    }
}

/// How long it asks to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// `Retry-After: SECONDS`.
    Seconds(u64),
    /// `Retry-After: DATE`, so many seconds away.
    Date(u64),
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It answers this to everything.
    Status(u16, Option<After>),
    /// It answers this status of gRPC to everything, and asks to wait for so many seconds (`RetryInfo`).
    Code(u16, Option<u64>),
    /// It answers 413 (over gRPC its own words) to more records than that at once.
    TooLarge(usize),
    /// It answers this status (of HTTP, or of gRPC) to every request with a bad record, and does not say which it is.
    Refuses(u16),
    /// It names the bad records in the way of its protocol, and takes the others if that has it so.
    Names,
    /// A proxy in front of it answers 200 with a page of its own.
    Page,
    /// Something else listens at its port.
    OtherProtocol,
    /// The connection is reset while the request is sent.
    ResetInRequest,
    /// It takes the records; the connection is reset in the middle of the answer.
    ResetInAnswer,
    /// It takes the records; the connection is closed in the middle of the answer.
    PartialAnswer,
    /// It takes the records; the connection is closed without an answer.
    NoAnswer,
    /// It takes the records; the call is reset in the middle of the answer, and the connection stays. Only gRPC.
    CallReset,
    /// It takes the records, and its answer ends without a status. Only gRPC.
    NoStatus,
    /// It takes the records and does not answer for 30 s.
    Stall,
    /// It takes the records; its answer comes byte by byte and would take hours.
    Trickle,
}

impl Fault {
    /// Whether records may be there although no answer came.
    pub fn loses_answers(self) -> bool {
        use Fault::{CallReset, NoAnswer, NoStatus, PartialAnswer, ResetInAnswer, Stall, Trickle};
        matches!(self, ResetInAnswer | PartialAnswer | NoAnswer | CallReset | NoStatus | Stall | Trickle)
    }

    /// How long it asks to be left alone.
    pub fn asks_for(self) -> Option<Duration> {
        grpc::asked(self)
    }
}

/// What it has seen of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Times it was taken and the whole answer was sent.
    pub answered: u32,
    /// Times it was taken and no answer was sent, or a part of one.
    pub unanswered: u32,
    /// Times it was swallowed by something else.
    pub swallowed: u32,
}

#[derive(Default)]
struct Seen {
    arrivals: BTreeMap<Mark, Arrivals>,
    /// Requests with records that met the fault of now.
    faulted: u64,
    /// When a request with records came under the fault of now, and after it.
    requests: Vec<Instant>,
}

struct Shared {
    fault: Mutex<Fault>,
    seen: Mutex<Seen>,
}

/// The backend; its tasks end with the runtime of the test.
pub struct Liar {
    port: u16,
    shared: Arc<Shared>,
}

/// A request, its body decompressed.
struct Request {
    path: String,
    content_type: String,
    body: Bytes,
}

/// What is sent back.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// What is done with a request.
enum Act {
    Answer(Reply),
    /// Some bytes, then this.
    Break(Vec<u8>, Ending),
}

enum Ending {
    OtherProtocol,
    Reset,
    Close,
    Stall,
    Trickle,
}

impl Reply {
    fn new(status: u16, body: impl Into<Bytes>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into() }
    }

    fn json(status: u16, body: &serde_json::Value) -> Reply {
        Reply { headers: vec![("content-type", "application/json".into())], ..Reply::new(status, body.to_string()) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} Somehow\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = format!("{text}\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A page of an error: longer than what is kept of it.
pub fn long_answer() -> String {
    let mut text = "the records were looked at and a field of one has the wrong type".to_owned();
    while text.len() < 3000 {
        text.push_str(&format!("; detail {}", text.len()));
    }
    text
}

/// What it says with a status that refuses records.
pub fn refusal(status: u16) -> String {
    // RESOURCE_EXHAUSTED is about the size if the words say so.
    if status == 8 { "grpc: received message larger than max (6000000 vs. 4194304)".to_owned() } else { long_answer() }
}

/// What a backend says of a record that it names.
pub const NAMED: &str = "the field is of another type";

/// A protocol that says more than a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// The bulk API of Elasticsearch.
    Bulk,
    /// OTLP over HTTP, binary.
    Otlp,
    /// The write API of InfluxDB 2.
    Lines,
    /// Prometheus remote write 2, which this backend does not speak.
    RemoteWrite2,
    /// Another one.
    Other,
}

impl Request {
    fn protocol(&self) -> Protocol {
        let path = self.path.split('?').next().unwrap_or_default();
        match path {
            _ if path.ends_with("/_bulk") => Protocol::Bulk,
            "/v1/logs" | "/v1/metrics" | "/v1/traces" if self.content_type == "application/x-protobuf" => {
                Protocol::Otlp
            }
            _ if path.ends_with("/api/v2/write") => Protocol::Lines,
            _ if self.content_type.contains("io.prometheus.write.v2") => Protocol::RemoteWrite2,
            _ => Protocol::Other,
        }
    }

    fn success(&self) -> Reply {
        match self.protocol() {
            Protocol::Bulk => Reply::json(200, &json!({"took": 1, "errors": false, "items": []})),
            Protocol::RemoteWrite2 => Reply::new(415, "remote write 1 only"),
            Protocol::Otlp | Protocol::Lines | Protocol::Other => Reply::new(200, ""),
        }
    }

    /// An answer that names the bad records, and the records that were taken; `None` where the protocol has none.
    fn names(&self, marks: &[Mark]) -> Option<(Reply, Vec<Mark>)> {
        let good = marks.iter().copied().filter(|mark| !mark.is_bad()).collect();
        match self.protocol() {
            Protocol::Bulk => {
                let documents = self.body.split(|byte| *byte == b'\n').skip(1).step_by(2);
                let item = |document: &[u8]| match Mark::all_in(document).iter().any(|mark| mark.is_bad()) {
                    true => {
                        json!({"create": {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": NAMED}}})
                    }
                    false => json!({"create": {"status": 201}}),
                };
                let items: Vec<_> = documents.filter(|document| !document.is_empty()).map(item).collect();
                Some((Reply::json(200, &json!({"took": 1, "errors": true, "items": items})), good))
            }
            Protocol::Otlp => {
                // The answers of all signals have the same bytes.
                let rejected = i64::try_from(marks.iter().filter(|mark| mark.is_bad()).count()).expect("few");
                let partial =
                    ExportLogsPartialSuccess { rejected_log_records: rejected, error_message: NAMED.to_owned() };
                let body = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
                let headers = vec![("content-type", "application/x-protobuf".to_owned())];
                Some((Reply { headers, ..Reply::new(200, body) }, good))
            }
            Protocol::Lines => {
                let text = String::from_utf8_lossy(&self.body);
                let bad = text.lines().filter(|line| Mark::all_in(line.as_bytes()).iter().any(|mark| mark.is_bad()));
                let said: Vec<String> = bad.map(|line| format!("unable to parse '{line}': {NAMED}")).collect();
                let message = said.join("\n");
                Some((Reply::json(400, &json!({"code": "invalid", "message": message})), Vec::new()))
            }
            Protocol::RemoteWrite2 | Protocol::Other => None,
        }
    }

    /// Whether exporters of its protocol can tell a page of somebody else from a success.
    fn has_bodies(&self) -> bool {
        self.protocol() != Protocol::Other || self.content_type == "application/x-protobuf"
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("nobody panics with it")
    }

    fn see<T>(&self, see: impl FnOnce(&mut Seen) -> T) -> T {
        see(&mut self.seen.lock().expect("nobody panics with it"))
    }

    fn arrived(&self, marks: &[Mark], count: impl Fn(&mut Arrivals)) {
        self.see(|seen| marks.iter().for_each(|mark| count(seen.arrivals.entry(*mark).or_default())));
    }

    /// What to do with a request with records, and to remember of it.
    fn act(&self, fault: Fault, request: &Request, marks: &[Mark]) -> Act {
        let taken = |marks: &[Mark]| self.arrived(marks, |arrivals| arrivals.answered += 1);
        let success = || {
            let reply = request.success();
            if reply.status < 300 {
                taken(marks);
            }
            Act::Answer(reply)
        };
        let has_bad = marks.iter().any(|mark| mark.is_bad());
        let is_met = match fault {
            Fault::None => false,
            Fault::TooLarge(most) => marks.len() > most,
            Fault::Refuses(_) => has_bad,
            Fault::Names => has_bad && request.names(marks).is_some(),
            _ => true,
        };
        // A version of the protocol is settled before anything else.
        if !is_met || request.protocol() == Protocol::RemoteWrite2 {
            return success();
        }
        self.see(|seen| seen.faulted += 1);
        if fault.loses_answers() {
            self.arrived(marks, |arrivals| arrivals.unanswered += 1);
        }
        let begun = || b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nit is".to_vec();
        match fault {
            Fault::None => success(),
            Fault::Status(status, after) => {
                let mut reply = Reply::new(status, "not now");
                reply.headers.extend(after.map(|after| ("retry-after", value_of(after))));
                Act::Answer(reply)
            }
            Fault::TooLarge(_) => Act::Answer(Reply::new(413, "too many records at once")),
            Fault::Refuses(status) => Act::Answer(Reply::new(status, refusal(status))),
            Fault::Names => {
                let (reply, good) = request.names(marks).expect("it is met");
                taken(&good);
                Act::Answer(reply)
            }
            Fault::Page => {
                if !request.has_bodies() {
                    self.arrived(marks, |arrivals| arrivals.swallowed += 1);
                }
                let page = "<!DOCTYPE html><html><body>Please sign in to the network</body></html>";
                let headers = vec![("content-type", "text/html; charset=utf-8".to_owned())];
                Act::Answer(Reply { headers, ..Reply::new(200, page) })
            }
            Fault::OtherProtocol => Act::Break(Vec::new(), Ending::OtherProtocol),
            Fault::Code(..) | Fault::CallReset | Fault::NoStatus => panic!("{fault:?} is one of gRPC"),
            Fault::ResetInRequest => Act::Break(Vec::new(), Ending::Reset),
            Fault::ResetInAnswer => Act::Break(begun(), Ending::Reset),
            Fault::PartialAnswer => Act::Break(begun(), Ending::Close),
            Fault::NoAnswer => Act::Break(Vec::new(), Ending::Close),
            Fault::Stall => Act::Break(Vec::new(), Ending::Stall),
            Fault::Trickle => Act::Break(begun(), Ending::Trickle),
        }
    }
}

fn value_of(after: After) -> String {
    match after {
        After::Seconds(seconds) => seconds.to_string(),
        After::Date(seconds) => {
            let at = jiff::Timestamp::now() + Duration::from_secs(seconds);
            at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
        }
    }
}

/// Reads a head: the lines before the empty one. `None` when the connection ends.
async fn read_head(connection: &mut TcpStream, buffer: &mut BytesMut) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
        .unwrap_or_default()
}

fn decompressed(encoding: &str, body: Bytes) -> Bytes {
    if encoding == "snappy" {
        return snap::raw::Decoder::new().decompress_vec(&body).expect("a Snappy block").into();
    }
    let compression = Compression::from_header(encoding).unwrap_or_else(|| panic!("content-encoding {encoding}"));
    compression.decompress(body, 64 << 20).unwrap_or_else(|error| panic!("content-encoding {encoding}: {error}"))
}

async fn serve(mut connection: TcpStream, shared: Arc<Shared>) {
    // The preface of HTTP/2 begins so (RFC 9113 §3.4), and no request of HTTP/1.
    let mut first = [0; 4];
    if connection.peek(&mut first).await.is_ok_and(|count| count == first.len()) && first == *b"PRI " {
        return grpc::serve(connection, shared).await;
    }
    let mut buffer = BytesMut::new();
    while let Some(head) = read_head(&mut connection, &mut buffer).await {
        let fault = shared.fault();
        if fault == Fault::ResetInRequest && !head.starts_with("GET") {
            shared.see(|seen| seen.faulted += 1);
            return end(connection, Ending::Reset).await;
        }
        // Whoever sends in pieces is told so: no exporter does.
        let Ok(length) = header(&head, "content-length").parse::<usize>() else {
            let reply =
                if head.starts_with("GET") { Reply::new(404, "") } else { Reply::new(411, "say how long it is") };
            if connection.write_all(&reply.bytes()).await.is_err() {
                return;
            }
            continue;
        };
        while buffer.len() < length {
            if connection.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = decompressed(header(&head, "content-encoding"), buffer.split_to(length).freeze());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let request = Request { path, content_type: header(&head, "content-type").to_owned(), body };
        let marks = Mark::all_in(&request.body);
        // What is no record (a registration, a check) has nothing to do with it.
        if marks.is_empty() {
            if connection.write_all(&Reply::new(404, "").bytes()).await.is_err() {
                return;
            }
            continue;
        }
        shared.see(|seen| seen.requests.push(Instant::now()));
        match shared.act(fault, &request, &marks) {
            Act::Answer(reply) => {
                if connection.write_all(&reply.bytes()).await.is_err() {
                    return;
                }
            }
            Act::Break(bytes, ending) => {
                if connection.write_all(&bytes).await.is_ok() {
                    end(connection, ending).await;
                }
                return;
            }
        }
    }
}

async fn end(mut connection: TcpStream, ending: Ending) {
    match ending {
        Ending::Close => {}
        // Whoever has gone misses it.
        Ending::OtherProtocol => drop(connection.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await),
        Ending::Reset => {
            // What was written before goes out first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.set_zero_linger().expect("a socket");
        }
        Ending::Stall => {
            let mut byte = [0];
            let _ = tokio::time::timeout(Duration::from_secs(30), connection.read(&mut byte)).await;
        }
        Ending::Trickle => {
            while connection.write_all(b".").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Liar {
    /// Starts to listen on a free port of all addresses, since samples name several hosts.
    pub async fn start() -> Liar {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { fault: Mutex::new(Fault::None), seen: Mutex::default() });
        let of_all = shared.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, of_all.clone()));
            }
        });
        Liar { port, shared }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Behaves like this from now on.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().expect("nobody panics with it") = fault;
        if fault != Fault::None {
            self.shared.see(|seen| (seen.faulted, seen.requests) = (0, Vec::new()));
        }
    }

    /// How many requests met the last fault.
    pub fn faulted(&self) -> u64 {
        self.shared.see(|seen| seen.faulted)
    }

    /// When requests with records came since the last fault began.
    pub fn requests(&self) -> Vec<Instant> {
        self.shared.see(|seen| seen.requests.clone())
    }

    /// What it has seen of a record.
    pub fn arrivals(&self, mark: Mark) -> Arrivals {
        self.shared.see(|seen| seen.arrivals.get(&mark).copied().unwrap_or_default())
    }

    /// Every record that it has seen in any way.
    pub fn all(&self) -> Vec<Mark> {
        self.shared.see(|seen| seen.arrivals.keys().copied().collect())
    }
}
