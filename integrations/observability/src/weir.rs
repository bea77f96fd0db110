//! Sends to a Weir server: OTLP over HTTP with the key that the server gave to this machine.
//!
//! The records travel as the exporter `otlp` sends them; what is different is the key, which may
//! stand in a file that another program replaces, and that answers are known to be Weir's.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{Endpoint, Secret};
use weir_model::{Encoding, Signal};
use weir_net::{Answer, Client, Compression};
use weir_pipeline::role::ANSWER_LIMIT_BYTES;
use weir_pipeline::{About, Context, Delivery, Fault, FaultKind, HttpExport, Kind, Outcome, Takes};

use crate::otlp;

/// Options of `weir`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the Weir server, by default `http://localhost:8088`.
    pub endpoint: Option<Endpoint>,
    /// Key with the scope `ingest`. A server on this machine may need none.
    pub api_key: Option<Secret>,
    /// File that holds the key instead of `api_key`; read at the start, and again when the server refuses the key.
    pub api_key_file: Option<PathBuf>,
    /// Compression of requests: `zstd` (the default), `gzip` or `none`.
    pub compression: Compression,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: None, api_key: None, api_key_file: None, compression: Compression::Zstd }
    }
}

impl Config {
    /// The address in effect.
    ///
    /// # Errors
    /// If it holds a user or a password, which Weir does not use.
    pub fn endpoint(&self) -> Result<Endpoint, Fault> {
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => "http://localhost:8088".parse().map_err(|error| Fault::configuration(format!("{error}")))?,
        };
        if !endpoint.url().username().is_empty() || endpoint.url().password().is_some() {
            let message = "`endpoint`: a Weir server knows no user and password; write the key into `api_key`";
            return Err(Fault::configuration(message));
        }
        Ok(endpoint)
    }
}

const ABOUT: About = About {
    name: "weir",
    summary: "Sends metrics, logs and traces to a Weir server, and reports there as an agent",
    details: "\
**What it does.** It sends everything to a Weir server as OTLP over HTTP (binary protobuf). What Weir received as OTLP goes on byte for byte.
The server answers only when the records are on its disk. With this block `weir agent` also registers at the server and reports every
`agent.heartbeat_interval` (30 s) what machine this is, what it watches, what it does not watch and why, and how its integrations feel.

**What it needs.** The address of the server and a key. `weir join URL TOKEN` does all of it: it fetches a key of this machine's own, stores it
in a file that only its owner can read, and writes this block. By hand:

    weir:
      endpoint: http://server:8088
      api_key_file: /etc/weir/weir.key

A key needs the scope `ingest`. A server that listens only on a loopback address takes records of its own machine without a key.

**The key file** holds the key and nothing else; white space around it does not count. It is read again when the server refuses the key, so
that a key can be replaced without a restart. The agent is known to the server by `agent.name`, else by the host name; if the server gave it
another id when it joined, that id stands beside the key, in a file that ends in `.agent_id`.

**Limits.** A server that cannot be reached is tried again with growing delays until `retry_max_age` (1 h); until then the records wait in memory.
When the queue is full, the sources wait.

**Troubleshooting.** `weir check` tells apart: nobody listens at the address, something else than Weir does, the key is missing, it is wrong or
revoked, and it may not send data. After `401` the machine can be joined again: `weir join URL TOKEN`.",
    sample: "\
weir:
  endpoint: http://server:8088
  api_key: \"${WEIR_API_KEY}\"
",
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `weir`.
pub const KIND: Kind = Kind::http_export::<Weir>(ABOUT);

/// The key that requests carry.
#[derive(Debug)]
pub struct Key {
    file: Option<PathBuf>,
    header: RwLock<Option<HeaderValue>>,
}

impl Key {
    /// The key of a configuration; its file is read.
    ///
    /// # Errors
    /// If it is given twice, its file cannot be read, or it cannot be a key.
    pub fn new(config: &Config) -> Result<Self, Fault> {
        let header = match (&config.api_key, &config.api_key_file) {
            (Some(_), Some(_)) => {
                return Err(Fault::configuration("`api_key` and `api_key_file` exclude each other; keep one of them"));
            }
            (Some(key), None) => Some(header_of("`api_key`", key.expose())?),
            (None, Some(file)) => Some(read(file)?),
            (None, None) => None,
        };
        Ok(Self { file: config.api_key_file.clone(), header: RwLock::new(header) })
    }

    /// Adds the key to a request.
    pub fn authorize(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.header.read().unwrap_or_else(PoisonError::into_inner).clone() {
            headers.insert(AUTHORIZATION, value);
        }
    }

    /// Whether there is a key at all.
    pub fn is_given(&self) -> bool {
        self.header.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Reads the file again after the server refused the key; whether it holds another key now.
    ///
    /// # Errors
    /// If the file cannot be read any more; the key stays.
    pub fn reread(&self) -> Result<bool, Fault> {
        let Some(file) = &self.file else { return Ok(false) };
        let new = read(file)?;
        let mut header = self.header.write().unwrap_or_else(PoisonError::into_inner);
        let has_changed = header.as_ref() != Some(&new);
        *header = Some(new);
        Ok(has_changed)
    }
}

fn read(file: &std::path::Path) -> Result<HeaderValue, Fault> {
    let place = format!("`api_key_file` {}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "`weir join URL TOKEN` fetches a key",
            std::io::ErrorKind::PermissionDenied => "only its owner can read it: run as that user, or join again",
            _ => "is it the right file?",
        };
        Fault::configuration(format!("{place} cannot be read: {error}; {hint}"))
    })?;
    header_of(&place, text.trim())
}

fn header_of(place: &str, key: &str) -> Result<HeaderValue, Fault> {
    if key.is_empty() {
        return Err(Fault::configuration(format!("{place} is empty; `weir join URL TOKEN` fetches a key")));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
        Fault::configuration(format!("{place} holds a character that no key has; it must hold the key alone"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a Weir server says about itself before anybody shows a key.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its version.
    pub version: String,
    /// Its clock, as it stands in the header `Date` (RFC 9110 §6.6.1).
    pub date: Option<String>,
}

/// An address for people: as in the configuration, without a slash at its end.
pub fn place(endpoint: &Endpoint) -> String {
    endpoint.to_string().trim_end_matches('/').to_owned()
}

/// Asks whether a Weir server is at an address.
///
/// # Errors
/// Whether nobody answers there, something else does, or the server is in trouble.
pub async fn greet(client: &Client, endpoint: &Endpoint) -> Result<Greeting, Fault> {
    let place = place(endpoint);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri(&endpoint.join("/health")).map_err(Fault::configuration)?;
    let answer = client.send(request, ANSWER_LIMIT_BYTES).await.map_err(|error| match error.kind {
        weir_net::TransportKind::TooLarge | weir_net::TransportKind::Other => {
            Fault::new(FaultKind::NotFound, format!("{}; is there a Weir server at {place}?", error.message))
        }
        _ => error.into(),
    })?;
    let version = || {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        body.get("uptime_seconds")?;
        body.get("version")?.as_str().map(str::to_owned)
    };
    match (answer.status, version()) {
        (StatusCode::OK, Some(version)) => {
            let date = answer.headers.get(DATE).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(Greeting { version, date })
        }
        (status, _) if matches!(status.as_u16(), 429 | 500..=599) => {
            Err(Fault::new(FaultKind::Other, format!("{place} cannot answer now: {}", answer.excerpt())))
        }
        _ => Err(Fault::new(FaultKind::NotFound, not_weir(&place, answer.status))),
    }
}

fn not_weir(place: &str, status: StatusCode) -> String {
    format!(
        "{place} answers ({status}), but not as a Weir server: check host and port (Weir's own port is 8088) and whether a proxy is in between"
    )
}

fn uri(url: &reqwest::Url) -> Result<http::Uri, String> {
    url.as_str().parse().map_err(|error| format!("the address cannot be used: {error}"))
}

/// Sends to a Weir server.
pub struct Weir {
    endpoint: Endpoint,
    place: String,
    key: Key,
    compression: Compression,
}

impl HttpExport for Weir {
    type Config = Config;

    fn new(config: Config, _context: &Context) -> Result<Self, Fault> {
        let endpoint = config.endpoint()?;
        let key = Key::new(&config)?;
        Ok(Self { place: place(&endpoint), endpoint, key, compression: config.compression })
    }

    fn takes(&self) -> Takes {
        Takes::EVERYTHING
    }

    fn encode(&self, delivery: &Delivery) -> Result<Request<Bytes>, Outcome> {
        let pieces = otlp::protobufs(&delivery.payloads)
            .map_err(|error| Outcome::Never { why: format!("the records cannot be encoded: {error}") })?;
        self.request(delivery.signal, pieces).map_err(|why| Outcome::Later { after: None, why })
    }

    fn judge(&self, delivery: &Delivery, answer: &Answer) -> Outcome {
        if answer.status == StatusCode::NOT_FOUND
            || answer.status == StatusCode::METHOD_NOT_ALLOWED
            || otlp::is_page(answer)
        {
            return Outcome::Later { after: None, why: not_weir(&self.place, answer.status) };
        }
        let sent_records = u64::try_from(delivery.len()).unwrap_or(u64::MAX);
        let judgement = otlp::of_http(delivery.signal, Encoding::Protobuf, sent_records, answer);
        match judgement.outcome {
            Outcome::Unauthorized { why } => self.refused(answer.status, &why),
            outcome => outcome,
        }
    }

    async fn check(&self, client: &Client) -> Result<String, Fault> {
        let greeting = greet(client, &self.endpoint).await?;
        let request = self.request(Signal::Metrics, Vec::new()).map_err(Fault::configuration)?;
        let answer = client.send(request, ANSWER_LIMIT_BYTES).await?;
        let place = &self.place;
        match answer.status.as_u16() {
            _ if otlp::is_page(&answer) => Err(Fault::new(FaultKind::NotFound, not_weir(place, answer.status))),
            200..=299 => Ok(format!("Weir {} at {place} takes metrics, logs and traces", greeting.version)),
            401 | 403 => Err(Fault::new(FaultKind::Unauthorized, self.why_refused(answer.status, &message(&answer)))),
            404 | 405 => Err(Fault::new(FaultKind::NotFound, not_weir(place, answer.status))),
            _ => {
                let message = format!("{place} refuses an empty test request: {}", answer.excerpt());
                Err(Fault::new(FaultKind::Other, message))
            }
        }
    }
}

impl Weir {
    fn request(&self, signal: Signal, pieces: Vec<Bytes>) -> Result<Request<Bytes>, String> {
        let whole = match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => only,
            Err(pieces) => pieces.concat().into(),
        };
        let body = self.compression.compress(whole);
        let mut request = Request::new(body.map_err(|error| format!("the request cannot be compressed: {error}"))?);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri(&self.endpoint.join(otlp::http_path(signal)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(otlp::PROTOBUF_TYPE));
        if let Some(name) = self.compression.header() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        self.key.authorize(headers);
        Ok(request)
    }

    /// A refused key may have been replaced in its file meanwhile.
    fn refused(&self, status: StatusCode, why: &str) -> Outcome {
        match self.key.reread() {
            Ok(true) => {
                let why =
                    format!("{}; the key file holds another one now, which is tried next", self.place_refuses(why));
                Outcome::Later { after: None, why }
            }
            Ok(false) => Outcome::Unauthorized { why: self.why_refused(status, why) },
            Err(fault) => Outcome::Unauthorized { why: format!("{}; {fault}", self.place_refuses(why)) },
        }
    }

    fn place_refuses(&self, why: &str) -> String {
        format!("{} refuses the key ({why})", self.place)
    }

    fn why_refused(&self, status: StatusCode, why: &str) -> String {
        let place = &self.place;
        if !self.key.is_given() {
            return format!(
                "{place} wants a key ({why}): run `weir join URL TOKEN`, or write a key into `api_key` or `api_key_file`"
            );
        }
        if status == StatusCode::FORBIDDEN {
            return format!("{place} knows the key, but it may not send data ({why}): use one with the scope `ingest`");
        }
        format!(
            "{}: it may be revoked or belong to another server; `weir join URL TOKEN` fetches a new one",
            self.place_refuses(why)
        )
    }
}

/// The words of Weir's error shape, else the beginning of the answer.
fn message(answer: &Answer) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let message = body.as_ref().and_then(|body| body.get("message")).and_then(serde_json::Value::as_str);
    message.map_or_else(|| answer.excerpt(), |message| format!("{}: {message}", answer.status))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::Router;
    use axum::extract::Request as Incoming;
    use axum::response::{IntoResponse, Response};
    use axum::routing::{get, post};
    use tokio::net::TcpListener;
    use weir_config::{Environment, Settings};
    use weir_model::{MetricsBuilder, Payload, Records};
    use weir_pipeline::role::DynExport;
    use weir_pipeline::{MetricDescription, MetricKind, Open, Opened};

    use super::*;

    /// Path, headers and decompressed body of a request.
    type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

    const HEALTH: &str = r#"{"status":"ok","version":"9.9.9","uptime_seconds":3}"#;

    fn error(status: u16, code: &str, message: &str) -> Response {
        let body = serde_json::json!({"status": "error", "code": code, "message": message}).to_string();
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }

    /// A server after the contract that takes one key.
    async fn server(right_key: &'static str) -> (SocketAddr, Seen) {
        let seen: Seen = Arc::default();
        let sink = seen.clone();
        let ingest = move |request: Incoming| {
            let sink = sink.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let encoding = parts.headers.get(CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap());
                let body = Compression::from_header(encoding).unwrap().decompress(body, 1 << 20).unwrap();
                let key = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
                match key.as_deref().and_then(|key| key.strip_prefix("Bearer ")) {
                    Some("read-only") => error(403, "forbidden", "the key has no scope ingest"),
                    Some(key) if key == right_key => {
                        sink.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
                        ([(CONTENT_TYPE, otlp::PROTOBUF_TYPE)], "").into_response()
                    }
                    _ => error(401, "unauthorized", "a valid key is needed"),
                }
            }
        };
        let router = Router::new()
            .route("/health", get(|| async { ([(CONTENT_TYPE, "application/json")], HEALTH) }))
            .route("/v1/{signal}", post(ingest));
        (serve(router).await, seen)
    }

    async fn serve(router: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(weir_net::serve(listener, router, std::future::pending()));
        address
    }

    fn open(options: &str) -> Result<Box<dyn DynExport>, String> {
        let indented = options.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let text = format!("integrations:\n  weir:\n{indented}");
        let settings = Settings::parse("test.yaml", &text, &Environment).map_err(|problems| problems.to_string())?;
        let context = Context {
            data_folder: std::env::temp_dir().into(),
            name: "weir".into(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            resource: Vec::new(),
            telemetry: Arc::default(),
        };
        match KIND.open(Open { file: "test.yaml", block: &settings.integrations[0], context: &context }) {
            Ok(Opened::Export(_, exporter)) => Ok(exporter),
            Ok(_) => panic!("not an exporter"),
            Err(problems) => Err(problems.to_string()),
        }
    }

    fn delivery() -> Delivery {
        let mut builder = MetricsBuilder::new("test", Vec::new());
        builder.begin(1_700_000_000_000_000_000, 0);
        let metric = MetricDescription { name: "test", unit: "1", kind: MetricKind::Gauge, help: "A test." };
        builder.record(&metric, &[], 1.0);
        let payload = Payload::from_records(Records::Metrics(builder.finish()));
        Delivery { signal: Signal::Metrics, payloads: vec![payload], id: 1 }
    }

    #[tokio::test]
    async fn records_arrive_compressed_with_the_key_and_unchanged() {
        let (address, seen) = server("weir_a_b").await;
        for compression in ["zstd", "gzip", "none"] {
            let options = format!("endpoint: http://{address}/\napi_key: weir_a_b\ncompression: {compression}");
            assert_eq!(open(&options).unwrap().export(&delivery()).await, Outcome::Accepted);
        }
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let expected = otlp::protobufs(&delivery().payloads).unwrap().concat();
        for (path, headers, body) in &seen {
            assert_eq!((path.as_str(), body.as_ref()), ("/v1/metrics", expected.as_slice()));
            assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
        }
        let encodings: Vec<Option<&HeaderValue>> =
            seen.iter().map(|(_, headers, _)| headers.get(CONTENT_ENCODING)).collect();
        assert_eq!(encodings, [Some(&HeaderValue::from_static("zstd")), Some(&HeaderValue::from_static("gzip")), None]);
    }

    #[tokio::test]
    async fn a_replaced_key_file_is_read_again_when_the_server_refuses_the_key() {
        let (address, seen) = server("new").await;
        let folder = std::env::temp_dir().join(format!("weir-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("weir.key");
        std::fs::write(&file, "old\n").unwrap();
        let exporter = open(&format!("endpoint: http://{address}\napi_key_file: {}", file.display())).unwrap();
        assert!(matches!(exporter.export(&delivery()).await, Outcome::Unauthorized { .. }));
        std::fs::write(&file, "new\n").unwrap();
        assert!(matches!(exporter.export(&delivery()).await, Outcome::Later { after: None, .. }));
        assert_eq!(exporter.export(&delivery()).await, Outcome::Accepted);
        assert_eq!(seen.lock().unwrap().len(), 1);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_check_tells_apart_what_can_be_wrong_and_sends_no_records() {
        let (address, seen) = server("right").await;
        let page = serve(Router::new().fallback(|| async { axum::response::Html("<html>welcome</html>") })).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let check = async |options: String| open(&options).unwrap().check().await;

        let fine = check(format!("endpoint: http://{address}\napi_key: right")).await.unwrap();
        assert!(fine.contains("Weir 9.9.9") && fine.contains(&address.to_string()), "{fine}");
        assert!(seen.lock().unwrap().iter().all(|(_, _, body)| body.is_empty()), "an empty request alone was sent");
        for (options, kind, words) in [
            (format!("endpoint: http://{address}\napi_key: hunter2"), FaultKind::Unauthorized, "refuses the key"),
            (format!("endpoint: http://{address}"), FaultKind::Unauthorized, "wants a key"),
            (format!("endpoint: http://{address}\napi_key: read-only"), FaultKind::Unauthorized, "scope `ingest`"),
            (format!("endpoint: http://{page}\napi_key: hunter2"), FaultKind::NotFound, "not as a Weir server"),
            (format!("endpoint: http://{nobody}\napi_key: hunter2"), FaultKind::Unreachable, "refuses the connection"),
        ] {
            let fault = check(options.clone()).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{options}: {fault}");
            assert!(fault.message.contains(words) && !fault.message.contains("hunter2"), "{options}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_page_that_answers_everything_is_not_taken_for_a_server() {
        let page = serve(Router::new().fallback(|| async { axum::response::Html("<html>welcome</html>") })).await;
        let outcome = open(&format!("endpoint: http://{page}")).unwrap().export(&delivery()).await;
        assert!(matches!(&outcome, Outcome::Later { why, .. } if why.contains("not as a Weir server")), "{outcome:?}");
    }

    #[test]
    fn wrong_options_are_named_without_their_secrets() {
        for (options, words) in [
            ("api_key: hunter2\napi_key_file: /etc/weir/weir.key", "exclude each other"),
            ("api_key: \"hunter2\\n\"", "no key has"),
            ("api_key_file: /nowhere/weir.key", "/nowhere/weir.key"),
            ("endpoint: http://me:hunter2@server:8088", "knows no user"),
            ("endpiont: http://server:8088", "endpoint"),
        ] {
            let error = open(options).err().unwrap_or_else(|| panic!("{options} was taken"));
            assert!(error.contains(words) && !error.contains("hunter2"), "{options}: {error}");
        }
    }
}
