//! An agent between a sender of OTLP, which the test is, and one exporter.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::http::send;
use super::weir::Agent;
use super::{free_port, wait_for};

/// A running agent that takes OTLP/JSON and sends to one exporter.
pub struct Relay {
    /// The agent.
    pub agent: Agent,
    url: String,
}

/// The answer to a request of the test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Records that were refused for good.
    pub rejected: u64,
    /// Why.
    pub message: String,
}

impl Relay {
    /// Starts it with the block of an exporter, as it stands below `integrations:`, and a queue in memory.
    /// It answers when records are `delivered`, or `queued`.
    pub async fn start(exporter: &str, answers_when: &str) -> Relay {
        let acknowledge = if answers_when == "delivered" { "durable" } else { "queued" };
        let port = free_port();
        let block: String = exporter.lines().map(|line| format!("  {line}\n")).collect();
        let agent = Agent::start(
            "weir",
            &format!(
                "delivery: {{queue: memory, acknowledge: {acknowledge}}}\nintegrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
                 otlp_receiver: {{http: \"127.0.0.1:{port}\", grpc: \"127.0.0.1:{}\"}}\n{block}",
                free_port()
            ),
        );
        let address = format!("127.0.0.1:{port}");
        wait_for("the agent listens", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        Relay { agent, url: format!("http://{address}") }
    }

    /// Sends a request once; `None` if it is to be sent again.
    pub async fn send_once(&self, signal: &str, request: &Json) -> Option<Reply> {
        let body = Bytes::from(serde_json::to_vec(request).expect("JSON"));
        let request = http::Request::post(format!("{}/v1/{signal}", self.url));
        let request = request.header("content-type", "application/json").body(body).expect("a good address");
        let answer = send(request).await.ok()?;
        if answer.status.as_u16() == 503 || answer.status.as_u16() == 429 {
            return None;
        }
        assert!(answer.status.is_success(), "{}", answer.excerpt());
        let answer: Json = serde_json::from_slice(&answer.body).expect("JSON");
        let partial = &answer["partialSuccess"];
        let rejected = ["rejectedLogRecords", "rejectedDataPoints", "rejectedSpans"].iter().find_map(|name| {
            let number = &partial[name];
            number.as_u64().or_else(|| number.as_str()?.parse().ok())
        });
        let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
        Some(Reply { rejected: rejected.unwrap_or(0), message })
    }

    /// Sends a request again and again until it is taken, as every OpenTelemetry SDK does.
    pub async fn send(&self, signal: &str, request: &Json) -> Reply {
        wait_for("the agent takes a request", Duration::from_secs(120), async || self.send_once(signal, request).await)
            .await
    }
}

/// Attributes that are texts.
pub type Texts<'a> = &'a [(&'a str, &'a str)];

/// Name, attributes, time in unix nanoseconds and value of a gauge.
pub type Gauge<'a> = (&'a str, Texts<'a>, u64, f64);

/// Log records as a request: time in unix nanoseconds, body and attributes.
pub fn logs<'a>(records: impl IntoIterator<Item = (u64, String, Texts<'a>)>) -> Json {
    let records: Vec<Json> = records
        .into_iter()
        .map(|(time, body, attributes)| {
            json!({"timeUnixNano": time.to_string(), "body": {"stringValue": body}, "severityNumber": 9,
                   "attributes": texts(attributes)})
        })
        .collect();
    json!({"resourceLogs": [{"resource": {"attributes": texts(&[("host.name", "web-1")])},
                             "scopeLogs": [{"scope": {"name": "test"}, "logRecords": records}]}]})
}

/// Gauges as a request.
pub fn gauges<'a>(points: impl IntoIterator<Item = Gauge<'a>>) -> Json {
    let metrics: Vec<Json> = points
        .into_iter()
        .map(|(name, attributes, time, value)| {
            let value = if value.is_nan() { json!("NaN") } else { json!(value) };
            let point = json!({"timeUnixNano": time.to_string(), "asDouble": value, "attributes": texts(attributes)});
            json!({"name": name, "gauge": {"dataPoints": [point]}})
        })
        .collect();
    json!({"resourceMetrics": [{"resource": {"attributes": texts(&[("host.name", "web-1")])},
                                "scopeMetrics": [{"scope": {"name": "test"}, "metrics": metrics}]}]})
}

fn texts(pairs: Texts<'_>) -> Json {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}
