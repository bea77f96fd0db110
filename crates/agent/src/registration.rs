//! An agent at its Weir server: registers, then sends a heartbeat at its interval. Whatever the
//! server answers, the pipeline goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use weir_config::{Block, Endpoint};
use weir_net::{Answer, Client, HttpOptions, StatusClass};
use weir_observability::weir::{Config, Key, place};
use weir_pipeline::telemetry::Telemetry;
use weir_pipeline::{Fault, Watching};

use crate::heartbeat::{self, Pace, Rhythm, Step};
use crate::load::Loaded;
use crate::system_information::{SystemInformation, address_towards, system_information};

/// The largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

/// The longest time for one request, whatever the exporter allows its batches.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// The Weir servers that an agent reports to: one for each `weir` exporter of its configuration.
pub struct Registration {
    servers: Vec<Server>,
}

/// The tasks that report; dropped, they end.
#[must_use = "the reports end when this is dropped"]
pub struct Heartbeats(JoinSet<()>);

impl Heartbeats {
    /// How many servers are reported to.
    pub fn servers(&self) -> usize {
        self.0.len()
    }
}

impl Registration {
    /// The servers of a configuration; none is fine.
    ///
    /// # Errors
    /// If a key file cannot be read or the HTTP options make no sense.
    pub fn of(loaded: &Loaded) -> Result<Registration, Fault> {
        let blocks = loaded.settings.integrations.iter().filter(|block| block.kind == "weir" && block.enabled);
        let servers = blocks.map(|block| Server::new(block, loaded)).collect::<Result<Vec<Server>, Fault>>()?;
        Ok(Registration { servers })
    }

    /// Begins to report. `watching` is what the plan found before it was started.
    pub fn start(self, watching: Vec<(Arc<str>, Watching)>, telemetry: &Arc<Telemetry>) -> Heartbeats {
        let watching: Arc<[(Arc<str>, Watching)]> = watching.into();
        let mut tasks = JoinSet::new();
        for server in self.servers {
            tasks.spawn(server.run(watching.clone(), telemetry.clone()));
        }
        Heartbeats(tasks)
    }
}

/// One server, and what this agent is there.
struct Server {
    endpoint: Endpoint,
    place: String,
    key: Key,
    client: Client,
    /// The id to register with.
    agent_id: String,
    host_name: String,
    tags: BTreeMap<String, String>,
    /// Time between two polls.
    interval: Duration,
    pace: Pace,
}

impl Server {
    fn new(block: &Block, loaded: &Loaded) -> Result<Server, Fault> {
        let (config, mut http) = options(block, &loaded.source.name())?;
        http.timeout = Duration::from(http.timeout).min(LONGEST_REQUEST).into();
        let endpoint = config.endpoint()?;
        let settings = &loaded.settings.agent;
        let given = config.api_key_file.as_deref().map(given_agent_id).transpose()?.flatten();
        Ok(Server {
            place: place(&endpoint),
            endpoint,
            key: Key::new(&config)?,
            client: Client::new(&http).map_err(Fault::configuration)?,
            agent_id: given.unwrap_or_else(|| loaded.host_name.clone()),
            host_name: loaded.host_name.clone(),
            tags: settings.tags.clone(),
            interval: settings.interval.into(),
            pace: Pace::new(settings.heartbeat_interval.into()),
        })
    }

    async fn run(self, watching: Arc<[(Arc<str>, Watching)]>, telemetry: Arc<Telemetry>) {
        let mut rhythm = Rhythm::new(self.pace);
        loop {
            let system = self.system().await;
            let step = match rhythm.agent_id().map(str::to_owned) {
                None => self.register(&system).await,
                Some(id) => {
                    let body = heartbeat::body(&system, self.interval, &watching, &telemetry);
                    self.heartbeat(&id, &body).await
                }
            };
            let (delay, news) = rhythm.next(step, &self.place);
            match news {
                Some(line) if rhythm.is_well() => tracing::info!("{line}"),
                Some(line) => tracing::warn!("{line}"),
                None => {}
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn system(&self) -> SystemInformation {
        let mut system = system_information();
        if let Some(address) = address_towards(&self.endpoint).await {
            system.ip_address = Some(address);
        }
        system
    }

    async fn register(&self, system: &SystemInformation) -> Step {
        let body = registration_body(&self.agent_id, &self.host_name, &self.tags, system);
        match self.post(&["register"], &Value::Object(body)).await {
            Ok(answer) => {
                let id = answer.get("agent_id").and_then(Value::as_str).unwrap_or(&self.agent_id);
                Step::Registered(id.to_owned())
            }
            Err(Step::Unknown) => Step::Failed {
                after: None,
                why: "it answers, but takes no agents: is it a Weir server of this version?".to_owned(),
            },
            Err(step) => step,
        }
    }

    async fn heartbeat(&self, id: &str, body: &Value) -> Step {
        match self.post(&[id, "heartbeat"], body).await {
            Ok(_) => Step::Alive,
            Err(step) => step,
        }
    }

    /// Sends a body below `/api/v1/agents`; the answer's JSON, or what is wrong.
    async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Step> {
        let failed = |why: String| Step::Failed { after: None, why };
        let mut request = json_request(&self.endpoint, path, body).map_err(failed)?;
        self.key.authorize(request.headers_mut());
        let answer = self.client.send(request, ANSWER_LIMIT_BYTES).await.map_err(|error| failed(error.message))?;
        match (StatusClass::of(answer.status), serde_json::from_slice::<Value>(&answer.body)) {
            (StatusClass::Success, Ok(Value::Object(fields))) => Ok(Value::Object(fields)),
            (StatusClass::Success, _) => Err(failed("it answers, but not as a Weir server".to_owned())),
            (StatusClass::Unauthorized, _) => Err(self.refused(&answer)),
            _ if answer.status.as_u16() == 404 => Err(Step::Unknown),
            _ => Err(Step::Failed {
                after: weir_net::retry_after(&answer.headers, SystemTime::now()),
                why: format!("it answers {}", explanation(&answer)),
            }),
        }
    }

    fn refused(&self, answer: &Answer) -> Step {
        match self.key.reread() {
            Ok(key_changed) => Step::Unauthorized { why: explanation(answer), key_changed },
            Err(fault) => Step::Unauthorized { why: format!("{}; {fault}", explanation(answer)), key_changed: false },
        }
    }
}

/// What this machine's agent says of itself to a server in the same process, which it needs no key for.
pub fn own_registration(settings: &weir_config::Settings, host_name: &str) -> Value {
    Value::Object(registration_body(host_name, host_name, &settings.agent.tags, &system_information()))
}

/// What an agent says of itself when it registers or joins.
pub(crate) fn registration_body(
    agent_id: &str,
    host_name: &str,
    tags: &BTreeMap<String, String>,
    system: &SystemInformation,
) -> Map<String, Value> {
    let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let capabilities: Vec<&str> = crate::kinds().iter().map(weir_pipeline::Kind::name).collect();
    let fields = [
        ("agent_id", json!(agent_id)),
        ("hostname", json!(host_name)),
        ("agent_type", json!("weir")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("tags", json!(tags)),
        ("system", json!(system)),
        ("capabilities", json!(capabilities)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A POST below `/api/v1/agents` of a server; the parts of the path are escaped.
pub(crate) fn json_request(endpoint: &Endpoint, path: &[&str], body: &Value) -> Result<Request<Bytes>, String> {
    let mut url = endpoint.join("/api/v1/agents");
    // Addresses without a host alone refuse this, and an `Endpoint` has one.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.extend(path);
    }
    let mut request = Request::new(Bytes::from(body.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.as_str().parse().map_err(|error| format!("the address cannot be used: {error}"))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// An answer in one line: the message of Weir's error shape, else its beginning.
pub(crate) fn explanation(answer: &Answer) -> String {
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    match body.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str) {
        Some(message) => format!("{}: {message}", answer.status),
        None => answer.excerpt(),
    }
}

/// The exporter's own options and those of its HTTP client, out of its block.
fn options(block: &Block, file: &str) -> Result<(Config, HttpOptions), Fault> {
    fn part<T: weir_pipeline::Config>(block: &Block, file: &str) -> Result<T, Fault> {
        let names = weir_config::property_names::<T>();
        let (mine, _) = block.node.split(&names.iter().map(String::as_str).collect::<Vec<_>>());
        weir_config::read(file, &mine, &block.path()).map_err(|problems| Fault::configuration(problems.to_string()))
    }
    Ok((part(block, file)?, part(block, file)?))
}

/// Where the id stands that a server gave to this agent instead of the one it asked for.
pub(crate) fn agent_id_file(key_file: &Path) -> PathBuf {
    key_file.with_extension("agent_id")
}

fn given_agent_id(key_file: &Path) -> Result<Option<String>, Fault> {
    let file = agent_id_file(key_file);
    match std::fs::read_to_string(&file) {
        Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message =
                format!("cannot read this agent's id from {}: {error}; join the server again", file.display());
            Err(Fault::configuration(message))
        }
    }
}

#[cfg(test)]
mod tests;
