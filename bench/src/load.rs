//! The load: log records over OTLP/HTTP, each with an id of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Records in one request.
pub const BATCH: usize = 512;
/// Connections, each sending one request after the other.
pub const CONNECTIONS: usize = 4;
/// Bytes of a record's body.
pub const BODY: usize = 300;
/// What stands before the 12 digits of an id.
pub const MARK: &[u8] = b"record-id=";

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
        body.truncate(BODY);
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
    /// Wall time.
    pub elapsed: Duration,
}

/// Sends records (a multiple of a batch per connection), their ids from `first_id` on, and sends
/// again what is not taken.
pub fn send(port: u16, records: u64, first_id: u64) -> Sent {
    let first = (first_id as usize).div_ceil(BATCH);
    let begun = Instant::now();
    let per_connection = (records as usize).div_ceil(BATCH * CONNECTIONS);
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            std::thread::spawn(move || one_connection(port, first + connection * per_connection, per_connection))
        })
        .collect();
    let acknowledged = threads.into_iter().map(|thread| thread.join().expect("a sender does not panic")).sum();
    Sent { acknowledged, elapsed: begun.elapsed() }
}

fn one_connection(port: u16, first: usize, batches: usize) -> u64 {
    let Request { mut bytes, ids } = request();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the peer listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut acknowledged = 0;
    for batch in first..first + batches {
        for (at, place) in ids.iter().enumerate() {
            bytes[*place..*place + 12].copy_from_slice(format!("{:012}", batch * BATCH + at).as_bytes());
        }
        loop {
            stream.write_all(head.as_bytes()).expect("the peer takes the head");
            stream.write_all(&bytes).expect("the peer takes the body");
            match answer(&mut stream) {
                200 => break,
                429 | 503 => std::thread::sleep(Duration::from_millis(20)),
                status => panic!("the peer answers {status}"),
            }
        }
        acknowledged += BATCH as u64;
    }
    acknowledged
}

/// Reads one answer and gives its status.
fn answer(stream: &mut TcpStream) -> u16 {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).expect("the peer answers");
        assert!(read > 0, "the peer closed the connection");
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = memchr::memmem::find(&seen, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if seen.len() >= end + 4 + length.unwrap_or(0) {
            return head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        }
    }
}
