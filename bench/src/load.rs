//! The load: log records over OTLP/HTTP, each with an id of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Records in one request.
pub const BATCH: usize = 512;
/// Connections, each sending one request after the other.
pub const CONNECTIONS: usize = 4;
/// Bytes of a record's body.
pub const BODY: usize = 300;
/// What stands before the 12 digits of an id.
pub const MARK: &[u8] = b"record-id=";
/// What every body and every line ends with: without it a record is damaged.
pub const END: &[u8] = b"=end";
/// How long a request may take before the connection is given up, longer than any stall of a sink.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// How long nothing may listen.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);

/// One request: its bytes, and where in them the ids stand.
struct Request {
    bytes: Vec<u8>,
    ids: Vec<usize>,
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(number: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(content.len(), out);
    out.extend_from_slice(content);
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    let (mut any, mut pair) = (Vec::new(), Vec::new());
    field(1, value.as_bytes(), &mut any);
    field(1, key.as_bytes(), &mut pair);
    field(2, &any, &mut pair);
    pair
}

/// An `ExportLogsServiceRequest` with one resource, one scope and [`BATCH`] records of a body of
/// [`BODY`] bytes and three attributes (opentelemetry-proto 1.9, logs.proto).
fn request() -> Request {
    let mut records = Vec::new();
    for at in 0..BATCH {
        let mut record = vec![1 << 3 | 1];
        record.extend(1_760_000_000_000_000_000_u64.to_le_bytes());
        record.extend([2 << 3, 9]);
        field(3, b"INFO", &mut record);
        let mut body = format!("record-id={:012} GET /api/v1/orders/{at:06} ", 0);
        while body.len() < BODY {
            body.push_str("the quick brown fox jumps over the lazy dog ");
        }
        body.truncate(BODY - END.len());
        body.push_str("=end");
        let mut any = Vec::new();
        field(1, body.as_bytes(), &mut any);
        field(5, &any, &mut record);
        for (key, value) in
            [("http.request.method", "GET"), ("url.path", "/api/v1/orders"), ("http.response.status_code", "200")]
        {
            field(6, &attribute(key, value), &mut record);
        }
        field(2, &record, &mut records);
    }
    let (mut scope, mut scope_logs) = (Vec::new(), Vec::new());
    field(1, b"bench", &mut scope);
    field(1, &scope, &mut scope_logs);
    scope_logs.extend(records);
    let (mut resource, mut resource_logs, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    field(1, &attribute("service.name", "bench"), &mut resource);
    field(1, &resource, &mut resource_logs);
    field(2, &scope_logs, &mut resource_logs);
    field(1, &resource_logs, &mut bytes);
    let ids = memchr::memmem::find_iter(&bytes, MARK).map(|at| at + MARK.len()).collect();
    Request { bytes, ids }
}

/// How a load went.
pub struct Sent {
    /// Records that were answered with success.
    pub acknowledged: u64,
    /// Requests whose answer never came and that were sent again: their records may rightly arrive twice.
    pub in_doubt: u64,
    /// Wall time.
    pub elapsed: Duration,
}

/// Sends records (a multiple of a batch per connection), their ids from `first_id` on, as fast as
/// they are taken, and sends again what is not taken.
pub fn send(port: u16, records: u64, first_id: u64) -> Sent {
    send_paced(port, records, first_id, None, &Arc::default())
}

/// As [`send`], at most `per_second` records, counting what is answered in `acknowledged` at once.
pub fn send_paced(
    port: u16,
    records: u64,
    first_id: u64,
    per_second: Option<u64>,
    acknowledged: &Arc<AtomicU64>,
) -> Sent {
    let first = (first_id as usize).div_ceil(BATCH);
    let begun = Instant::now();
    let per_connection = (records as usize).div_ceil(BATCH * CONNECTIONS);
    let pause = per_second.map_or(0.0, |rate| (BATCH * CONNECTIONS) as f64 / rate as f64);
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let acknowledged = acknowledged.clone();
            let first = first + connection * per_connection;
            std::thread::spawn(move || {
                one_connection(port, first..first + per_connection, Duration::from_secs_f64(pause), &acknowledged)
            })
        })
        .collect();
    let in_doubt = threads.into_iter().map(|thread| thread.join().expect("a sender does not panic")).sum();
    let acknowledged = (per_connection * BATCH * CONNECTIONS) as u64;
    Sent { acknowledged, in_doubt, elapsed: begun.elapsed() }
}

/// Sends batches until every one is acknowledged; gives how many requests were in doubt.
fn one_connection(port: u16, batches: std::ops::Range<usize>, pause: Duration, acknowledged: &AtomicU64) -> u64 {
    let Request { mut bytes, ids } = request();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    let mut stream = connect(port);
    let mut in_doubt = 0;
    let mut due = Instant::now();
    for batch in batches {
        for (at, place) in ids.iter().enumerate() {
            bytes[*place..*place + 12].copy_from_slice(format!("{:012}", batch * BATCH + at).as_bytes());
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pause;
        loop {
            match exchange(&mut stream, head.as_bytes(), &bytes) {
                Ok(200..=204) => break,
                Ok(429 | 503) => std::thread::sleep(Duration::from_millis(20)),
                Ok(status) => panic!("the peer answers {status}"),
                Err(_) => {
                    in_doubt += 1;
                    std::thread::sleep(Duration::from_millis(100));
                    stream = connect(port);
                }
            }
        }
        acknowledged.fetch_add(BATCH as u64, Ordering::Relaxed);
    }
    in_doubt
}

fn connect(port: u16) -> TcpStream {
    let begun = Instant::now();
    // A peer that was killed is back soon.
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > RESTART_TIMEOUT => panic!("the peer does not listen: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("a socket option");
    stream
}

fn exchange(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<u16> {
    stream.write_all(head)?;
    stream.write_all(body)?;
    answer(stream)
}

/// Reads one answer and gives its status.
fn answer(stream: &mut TcpStream) -> io::Result<u16> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if seen.len() >= end + 4 + length.unwrap_or(0) {
            return Ok(head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0));
        }
    }
}
