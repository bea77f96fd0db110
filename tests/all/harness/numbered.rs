//! Numbered log records, which are recognised wherever they turn up.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};

/// One record on one of its ways into Weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numbered {
    /// Who made it.
    pub source: u16,
    /// Its number, from 1.
    pub number: u64,
    /// Which time it was sent; of a line of a file, when it was read (unix nanoseconds).
    pub attempt: u64,
}

impl Numbered {
    /// The record as a text of this many bytes.
    fn text(self, bytes: usize) -> String {
        let Numbered { source, number, attempt } = self;
        padded(format!("s{source} n{number} a{attempt}"), bytes)
    }
}

fn padded(mut text: String, bytes: usize) -> String {
    text.push(' ');
    while text.len() < bytes {
        text.push_str(&format!("{:08x}", text.len().wrapping_mul(2_654_435_761)));
    }
    text
}

/// A line of a file, without its end.
pub fn line(source: u16, number: u64, bytes: usize) -> String {
    padded(format!("s{source} n{number}"), bytes)
}

/// A request with these records, each of this many bytes.
pub fn request(records: &[Numbered], bytes: usize) -> ExportLogsServiceRequest {
    let one = |record: &Numbered| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000 + record.number,
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::StringValue(record.text(bytes))) }),
        ..LogRecord::default()
    };
    let log_records = records.iter().map(one).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

/// The records of a request, in its order.
pub fn numbered(request: &ExportLogsServiceRequest) -> Vec<Numbered> {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.flat_map(|scope| &scope.log_records).map(read).collect()
}

fn read(record: &LogRecord) -> Numbered {
    let Some(Value::StringValue(text)) = record.body.as_ref().and_then(|body| body.value.as_ref()) else {
        panic!("a record without a text: {record:?}");
    };
    let mut words = text.split(' ');
    let mut number = |prefix: char| words.next()?.strip_prefix(prefix)?.parse::<u64>().ok();
    let read = || {
        let (source, counted) = (u16::try_from(number('s')?).ok()?, number('n')?);
        Some(Numbered { source, number: counted, attempt: number('a').unwrap_or(record.observed_time_unix_nano) })
    };
    let mut read = read;
    read().unwrap_or_else(|| panic!("nobody sent this: {text:?}"))
}
