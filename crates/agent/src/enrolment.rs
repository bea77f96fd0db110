//! Joining a Weir server: a token becomes a key of this machine's own, and the key and the
//! configuration become files.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use weir_config::{Block, Endpoint, Secret, Settings};
use weir_net::{Answer, Client, HttpOptions};
use weir_observability::weir::{Greeting, greet, place};
use weir_pipeline::{Fault, FaultKind};

use crate::load::{host_name, read_settings};
use crate::registration::{agent_id_file, explanation, json_request, registration_body};
use crate::system_information::{address_towards, system_information};

/// Longest time for one request while somebody waits in front of a terminal.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

/// A server that answered as one.
pub struct Enrolment {
    client: Client,
    endpoint: Endpoint,
    /// What the server said about itself.
    pub greeting: Greeting,
    /// How far this machine's clock is ahead of the server's, in whole seconds; the header `Date`
    /// has no finer ones. `None` where the server does not tell.
    pub clock_ahead_seconds: Option<i64>,
}

/// What a server gave in exchange for a token.
pub struct Enrolled {
    /// The id under which the server knows this agent.
    pub agent_id: String,
    /// The key of this agent alone.
    pub key: Secret,
}

impl Enrolment {
    /// Makes sure that a Weir server is at an address.
    ///
    /// # Errors
    /// The one cause: unknown name, nobody listens, no answer in time, another program.
    pub async fn begin(endpoint: Endpoint) -> Result<Enrolment, Fault> {
        let http = HttpOptions { timeout: REQUEST_TIMEOUT.into(), ..HttpOptions::default() };
        let client = Client::new(&http).map_err(Fault::configuration)?;
        let greeting = greet(&client, &endpoint).await?;
        let clock_ahead_seconds = greeting.date.as_deref().and_then(|date| ahead_seconds(date, SystemTime::now()));
        Ok(Enrolment { client, endpoint, greeting, clock_ahead_seconds })
    }

    /// Exchanges a token for a key.
    ///
    /// # Errors
    /// What is wrong with the token, or why the server does not answer.
    pub async fn enrol(&self, token: &Secret, files: &JoinFiles) -> Result<Enrolled, Fault> {
        let mut system = system_information();
        if let Some(address) = address_towards(&self.endpoint).await {
            system.ip_address = Some(address);
        }
        let mut body = registration_body(&files.name, &files.name, &files.tags, &system);
        body.insert("token".to_owned(), json!(token.expose()));
        let mut request =
            json_request(&self.endpoint, &["enroll"], &Value::Object(body)).map_err(Fault::configuration)?;
        if let Some(key) = files.present_key() {
            request.headers_mut().insert(AUTHORIZATION, key);
        }
        let answer = self.client.send(request, ANSWER_LIMIT_BYTES).await?;
        let fields: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if !answer.status.is_success() {
            return Err(refusal(&answer, &fields, &place(&self.endpoint)));
        }
        let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let key = text("key").ok_or_else(|| {
            let message = format!("{} took the token but answered without a key", place(&self.endpoint));
            Fault::new(FaultKind::Decode, message)
        })?;
        Ok(Enrolled { agent_id: text("agent_id").unwrap_or(&files.name).to_owned(), key: Secret::new(key) })
    }
}

/// How far `now` is ahead of an HTTP date (RFC 9110 §5.6.7).
fn ahead_seconds(date: &str, now: SystemTime) -> Option<i64> {
    let server = httpdate::parse_http_date(date).ok()?;
    match now.duration_since(server) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok(),
        Err(behind) => i64::try_from(behind.duration().as_secs()).ok().map(|seconds| -seconds),
    }
}

/// The one cause and the one remedy of an enrolment that was refused.
fn refusal(answer: &Answer, fields: &Value, place: &str) -> Fault {
    let new = "make a new one on the server with `weir tokens create`, or in its dashboard";
    let code = fields.get("code").and_then(Value::as_str).unwrap_or_default();
    let (kind, message) = match (answer.status.as_u16(), code) {
        (_, "token_unknown") => {
            let message = format!("{place} does not know this token: check that all of it was copied, or {new}");
            (FaultKind::Unauthorized, message)
        }
        (_, "token_used_up") => {
            (FaultKind::Unauthorized, format!("this token has been used as often as it may be: {new}"))
        }
        (_, "token_expired") => (FaultKind::Unauthorized, format!("this token has expired: {new}")),
        (_, "token_revoked") => (FaultKind::Unauthorized, format!("this token has been revoked: {new}")),
        (429, _) => {
            let after = weir_net::retry_after(&answer.headers, SystemTime::now()).unwrap_or(Duration::from_secs(60));
            let message = format!(
                "{place} refuses attempts from this address for now, because too many failed: try again in {} s",
                after.as_secs()
            );
            (FaultKind::Other, message)
        }
        (404 | 405, _) => (
            FaultKind::NotFound,
            format!("{place} is a Weir server that does not take agents: is it an older version?"),
        ),
        _ => (FaultKind::Other, format!("{place} refuses to take this machine: {}", explanation(answer))),
    };
    Fault::new(kind, message)
}

/// What the configuration still lacks after the key is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    /// All of it: there is no file yet.
    File,
    /// Nothing: it names this server and the key's file.
    Nothing,
    /// Lines that its owner has to add; an existing file is never changed.
    Lines(String),
}

/// Which files a machine joins with. An existing configuration is read and kept.
#[derive(Debug)]
pub struct JoinFiles {
    /// The configuration.
    pub config: PathBuf,
    /// Where the key goes.
    pub key_file: PathBuf,
    /// The name under which this machine appears.
    pub name: String,
    /// The exporter of the configuration that sends to this server.
    pub exporter: String,
    tags: std::collections::BTreeMap<String, String>,
    missing: Missing,
    own_name: Option<String>,
    endpoint: Endpoint,
}

/// Whether the configuration is complete after [`JoinFiles::write`].
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// The agent can be started with it.
    Complete,
    /// The lines that are missing in an existing file, and where they belong.
    Lines(String),
}

impl JoinFiles {
    /// Looks what is there, before a token is spent.
    ///
    /// # Errors
    /// If an existing configuration cannot be read, is wrong, or has another name.
    pub fn examine(config: &Path, endpoint: Endpoint, name: Option<&str>) -> Result<JoinFiles, Fault> {
        let own_name = name.map(check_name).transpose()?;
        let config = &std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        let folder = config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = config.display().to_string();
        let text = match std::fs::read_to_string(config) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                let message =
                    format!("cannot read {file}: {error}; run as the user that owns it, or name another with --config");
                return Err(Fault::new(FaultKind::Permission, message));
            }
        };
        let mut files = JoinFiles {
            config: config.to_owned(),
            key_file: folder.join("weir.key"),
            name: own_name.clone().unwrap_or_else(host_name),
            exporter: "weir".to_owned(),
            tags: Default::default(),
            missing: Missing::File,
            own_name,
            endpoint,
        };
        if let Some(text) = text {
            files.read(&file, &text)?;
        }
        Ok(files)
    }

    /// Takes over what an existing configuration says.
    fn read(&mut self, file: &str, text: &str) -> Result<(), Fault> {
        let (settings, problems) = read_settings(file, text);
        if !problems.is_empty() {
            let message = format!("{file} exists and has problems; nothing was changed:\n{problems}");
            return Err(Fault::configuration(message));
        }
        match (&settings.agent.name, &self.own_name) {
            (Some(there), Some(wanted)) if there != wanted => {
                let message =
                    format!("{file} says `agent.name: {there}`: leave out --name, or change the name in the file");
                return Err(Fault::configuration(message));
            }
            (None, Some(wanted)) if *wanted != host_name() => {
                let message = format!(
                    "{file} exists and has no `agent.name`: add `agent: {{name: {wanted}}}` to it first, or leave out --name"
                );
                return Err(Fault::configuration(message));
            }
            (Some(there), _) => self.name.clone_from(there),
            (None, _) => {}
        }
        self.tags.clone_from(&settings.agent.tags);
        self.missing = if crate::agent_config_json::is_agent_config(text) {
            Missing::Lines(format!("  \"api_key\": \"${{file:{}}}\"", self.key_file.display()))
        } else {
            self.missing_in(&settings)
        };
        Ok(())
    }

    fn missing_in(&mut self, settings: &Settings) -> Missing {
        let blocks: Vec<&Block> = settings.integrations.iter().filter(|block| block.kind == "weir").collect();
        let same = blocks.iter().find(|block| block.enabled && leads_to(block, &self.endpoint));
        if let Some(block) = same {
            self.exporter.clone_from(&block.name);
            if let Some(file) = block.node.get("api_key_file").and_then(|node| node.as_str()) {
                self.key_file = PathBuf::from(file);
                return Missing::Nothing;
            }
            let instead = if block.node.get("api_key").is_some() { " instead of `api_key`" } else { "" };
            return Missing::Lines(format!(
                "below `{}`{instead}:\n    api_key_file: {}",
                block.path(),
                quoted(&self.key_file.display().to_string())
            ));
        }
        let mut name = "weir".to_owned();
        if !blocks.is_empty() {
            // Another server's key must not be overwritten.
            let host: String = place(&self.endpoint).chars().skip_while(|c| *c != '/').collect();
            let host: String = host
                .trim_matches('/')
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
                .collect();
            self.key_file.set_file_name(format!("weir-{host}.key"));
            name = format!("weir/{host}");
        }
        let (endpoint, key_file) = (place(&self.endpoint), self.key_file.display().to_string());
        Missing::Lines(format!(
            "below `integrations`:\n  {name}:\n    endpoint: {}\n    api_key_file: {}",
            quoted(&endpoint),
            quoted(&key_file)
        ))
    }

    /// The key that this machine has for this very server: it proves that the agent that runs here is its own.
    fn present_key(&self) -> Option<HeaderValue> {
        if self.missing != Missing::Nothing {
            return None;
        }
        let key = std::fs::read_to_string(&self.key_file).ok()?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Stores key, id and configuration. The key's file is replaced in one step and only its owner
    /// can read it.
    ///
    /// # Errors
    /// Which file cannot be written.
    pub fn write(&self, enrolled: &Enrolled) -> Result<Written, Fault> {
        let failed = |file: &Path, error: std::io::Error| {
            let message = format!(
                "cannot write {}: {error}; run as a user that may, or name another place with --config",
                file.display()
            );
            Fault::new(FaultKind::Permission, message)
        };
        make_folder(&self.key_file).map_err(|error| failed(&self.key_file, error))?;
        let key = format!("{}\n", enrolled.key.expose());
        replace(&self.key_file, key.as_bytes()).map_err(|error| failed(&self.key_file, error))?;
        let id_file = agent_id_file(&self.key_file);
        let id = if enrolled.agent_id == self.name {
            match std::fs::remove_file(&id_file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            replace(&id_file, format!("{}\n", enrolled.agent_id).as_bytes())
        };
        id.map_err(|error| failed(&id_file, error))?;
        match &self.missing {
            Missing::Nothing => Ok(Written::Complete),
            Missing::Lines(lines) => Ok(Written::Lines(lines.clone())),
            Missing::File => {
                make_folder(&self.config)
                    .and_then(|()| {
                        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&self.config)?;
                        file.write_all(self.new_config().as_bytes())?;
                        file.sync_all()
                    })
                    .map_err(|error| failed(&self.config, error))?;
                Ok(Written::Complete)
            }
        }
    }

    fn new_config(&self) -> String {
        let agent =
            self.own_name.as_deref().map(|name| format!("agent:\n  name: {}\n", quoted(name))).unwrap_or_default();
        format!(
            "# Written by `weir join`. What else can stand here: `weir integrations`, `weir config schema`.\n\
             {agent}integrations:\n  process: {{}}\n  weir:\n    endpoint: {}\n    api_key_file: {}\n",
            quoted(&place(&self.endpoint)),
            quoted(&self.key_file.display().to_string())
        )
    }
}

/// A text in double quotes as YAML and JSON read it; `$${` is a plain `${`.
fn quoted(text: &str) -> String {
    json!(text.replace("${", "$${")).to_string()
}

/// Names appear in tables, addresses and file names.
fn check_name(name: &str) -> Result<String, Fault> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 253 || name.chars().any(|c| c.is_control() || c == '/') {
        let message = "--name: expected 1 to 253 characters without `/` and control characters, such as web-1";
        return Err(Fault::configuration(message));
    }
    Ok(name.to_owned())
}

/// Whether a block sends to a server; without an address it sends to this machine's own.
fn leads_to(block: &Block, endpoint: &Endpoint) -> bool {
    let written = block.node.get("endpoint").and_then(|node| node.as_str()).unwrap_or("http://localhost:8088");
    written.parse::<Endpoint>().is_ok_and(|written| place(&written) == place(endpoint))
}

/// The folder of a file. A new one in a home is for its owner alone, as that of other programs.
fn make_folder(file: &Path) -> std::io::Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let mode = if folder.starts_with("/etc") { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Replaces a file in one step by one that only its owner can read.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new.{}", std::process::id()));
    let new = file.with_file_name(name);
    // A rest of an attempt that was killed may be there, with other rights.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut open| {
            open.write_all(content)?;
            open.sync_all()
        });
    written.and_then(|()| std::fs::rename(&new, file)).inspect_err(|_| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests;
