//! The table of hosts, and one host.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use weir_metadata::Agent;
use weir_store::ReadError;

use super::path::PathText;
use crate::error::{ApiError, Code, ErrorBody};
use crate::hosts::detail::{self, Fact, Probe, Processes};
use crate::hosts::host::Published;
use crate::hosts::row::{HostRow, Status};
use crate::state::{App, State as Shared, now_ms};

/// All hosts.
#[derive(Serialize, ToSchema)]
pub struct Hosts {
    /// The server's time, unix milliseconds.
    now_ms: i64,
    /// The hosts by name.
    hosts: Vec<HostRow>,
}

/// All hosts, by name.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "hosts", responses(
    (status = 200, description = "The hosts.", body = Hosts),
))]
pub async fn list(State(app): State<App>) -> Response {
    let now_ms = now_ms();
    let mut body = format!("{{\"now_ms\":{now_ms},\"hosts\":");
    write_rows(&app.hosts.rows(now_ms), &mut body);
    body.push('}');
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Writes rows as a JSON list: their text is there already.
pub(crate) fn write_rows(rows: &[Arc<Published>], out: &mut String) {
    out.reserve(rows.iter().map(|row| row.json.len() + 1).sum::<usize>() + 2);
    out.push('[');
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&row.json);
    }
    out.push(']');
}

/// A time without data.
#[derive(Serialize, ToSchema)]
pub struct Disconnected {
    /// When data came last before it, unix milliseconds.
    from_ms: i64,
    /// When data came again, unix milliseconds; `null` while it lasts.
    to_ms: Option<i64>,
}

/// What one integration of the host's agent watches.
#[derive(Serialize, ToSchema)]
pub struct WatchedBy {
    /// Name of the integration.
    #[schema(example = "host")]
    name: String,
    /// What it watches, in words.
    watched: Vec<String>,
    /// What it does not watch.
    not_watched: Vec<NotWatched>,
}

/// Something that is not watched.
#[derive(Serialize, ToSchema)]
pub struct NotWatched {
    /// What.
    #[schema(example = "temperatures")]
    what: String,
    /// Why.
    why: String,
}

/// The agent that reports a host.
#[derive(Serialize, ToSchema)]
pub struct HostAgent {
    /// Its id.
    id: String,
    /// Its type, as it says.
    agent_type: Option<String>,
    /// Its version.
    version: Option<String>,
    /// When it registered, unix milliseconds.
    registered_ms: i64,
    /// When it gave a sign of life last, unix milliseconds.
    last_heartbeat_ms: Option<i64>,
}

/// Everything about a host.
#[derive(Serialize, ToSchema)]
pub struct HostDetail {
    /// Its row.
    host: HostRow,
    /// What is known about the machine.
    facts: Vec<Fact>,
    /// When no data came, oldest first.
    disconnected: Vec<Disconnected>,
    /// What its agent watches, and what not.
    integrations: Vec<WatchedBy>,
    /// The agent that was heard last.
    agent: Option<HostAgent>,
}

/// One host.
#[utoipa::path(get, path = "/api/v1/hosts/{name}", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host.")), responses(
    (status = 200, description = "The host.", body = HostDetail),
    (status = 404, description = "There is no host of this name.", body = ErrorBody),
    (status = 503, description = "It cannot be read now.", body = ErrorBody),
))]
pub async fn get(State(app): State<App>, PathText(name): PathText) -> Result<axum::Json<HostDetail>, ApiError> {
    let now_ms = now_ms();
    let host = found(&app, &name, now_ms)?.row.clone();
    let gaps = app.metadata.gaps(&name, i64::MIN, i64::MAX).await?;
    let mut disconnected: Vec<Disconnected> =
        gaps.iter().map(|gap| Disconnected { from_ms: gap.from_ms, to_ms: Some(gap.to_ms) }).collect();
    if let (Status::Late | Status::Down, Some(from_ms)) = (host.status, host.last_seen_ms) {
        disconnected.push(Disconnected { from_ms, to_ms: None });
    }
    let agent = app.metadata.agents_by_hostname(&name).await?.into_iter().next();
    let last_seen_ms = host.last_seen_ms.unwrap_or(now_ms);
    let mut facts = reading(&app, move |state| detail::facts(&state.store, &name, last_seen_ms)).await?;
    facts.extend(agent.iter().flat_map(told_facts));
    let integrations = agent.iter().flat_map(integrations).collect();
    let agent = agent.map(|agent| HostAgent {
        id: agent.id,
        agent_type: agent.agent_type,
        version: agent.version,
        registered_ms: agent.registered_ms,
        last_heartbeat_ms: agent.last_heartbeat_ms,
    });
    Ok(axum::Json(HostDetail { host, facts, disconnected, integrations, agent }))
}

/// The processes of a host, as of the last poll.
#[utoipa::path(get, path = "/api/v1/hosts/{name}/processes", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host.")), responses(
    (status = 200, description = "The processes that its agent reports, the busiest first.", body = Processes),
    (status = 404, description = "There is no host of this name.", body = ErrorBody),
    (status = 503, description = "They cannot be read now.", body = ErrorBody),
))]
pub async fn processes(State(app): State<App>, PathText(name): PathText) -> Result<axum::Json<Processes>, ApiError> {
    let now_ms = now_ms();
    let cpu_count = found(&app, &name, now_ms)?.row.cpu_count;
    let processes = reading(&app, move |state| detail::processes(&state.store, &name, cpu_count, now_ms)).await?;
    Ok(axum::Json(processes))
}

/// What a host's agent probes.
#[derive(Serialize, ToSchema)]
pub struct Probes {
    /// The targets by name, each as of its last probe.
    probes: Vec<Probe>,
}

/// What a host's agent probes: web servers, ports, certificates, names.
#[utoipa::path(get, path = "/api/v1/hosts/{name}/probes", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host.")), responses(
    (status = 200, description = "The targets.", body = Probes),
    (status = 404, description = "There is no host of this name.", body = ErrorBody),
    (status = 503, description = "They cannot be read now.", body = ErrorBody),
))]
pub async fn probes(State(app): State<App>, PathText(name): PathText) -> Result<axum::Json<Probes>, ApiError> {
    let now_ms = now_ms();
    found(&app, &name, now_ms)?;
    let probes = reading(&app, move |state| detail::probes(&state.store, &name, now_ms)).await?;
    Ok(axum::Json(Probes { probes }))
}

/// Forgets a host: its row, record and gaps. What it measured stays until it is too old; data that
/// comes later makes the host new.
#[utoipa::path(delete, path = "/api/v1/hosts/{name}", tag = "hosts",
    params(("name" = String, Path, description = "Name of the host.")), responses(
    (status = 204, description = "It is forgotten."),
    (status = 404, description = "There is no host of this name.", body = ErrorBody),
    (status = 503, description = "It cannot be forgotten now.", body = ErrorBody),
))]
pub async fn delete(State(app): State<App>, PathText(name): PathText) -> Result<StatusCode, ApiError> {
    let server = app.metadata.server_by_hostname(&name).await?;
    if server.is_none() {
        found(&app, &name, now_ms())?;
    }
    if let Some(server) = server {
        app.metadata.delete_server(&server.id).await?;
    }
    app.hosts.forget(&name);
    Ok(StatusCode::NO_CONTENT)
}

fn found(app: &App, name: &str, now_ms: i64) -> Result<Arc<Published>, ApiError> {
    app.hosts.row(name, now_ms).ok_or_else(|| {
        let shown: String = name.chars().take(100).collect();
        ApiError::new(Code::NotFound, format!("there is no host {shown:?}; GET /api/v1/hosts tells all"))
    })
}

/// Reads from the store on a thread that may block.
pub(crate) async fn reading<T: Send + 'static>(
    app: &App,
    read: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ApiError> {
    let state = app.state.clone();
    match tokio::task::spawn_blocking(move || read(&state)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApiError::new(Code::InvalidField, error.to_string())),
        Err(error) => {
            tracing::error!("reading from the store was cut short: {error}");
            Err(ApiError::new(Code::Internal, "the answer could not be made; the server's log says why"))
        }
    }
}

/// What the last heartbeat, else the registration, says about the machine.
fn told_facts(agent: &Agent) -> Vec<Fact> {
    let system = [&agent.heartbeat, &agent.attributes].into_iter().find_map(|told| told.get("system")?.as_object());
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let facts = system.into_iter().flatten().filter_map(|(name, value)| Some((name, text(value)?)));
    facts.map(|(name, value)| Fact { name: name.clone(), value }).collect()
}

/// What the last heartbeat says about the agent's integrations.
fn integrations(agent: &Agent) -> Vec<WatchedBy> {
    let list = agent.heartbeat.get("integrations").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(watched_by).collect()
}

fn watched_by(told: &Value) -> Option<WatchedBy> {
    let texts = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let not_watched = told.get("not_watched").and_then(Value::as_array).into_iter().flatten();
    let not_watched = not_watched.filter_map(|item| {
        let text = |key| Some(item.get(key)?.as_str()?.to_owned());
        Some(NotWatched { what: text("what")?, why: text("why")? })
    });
    Some(WatchedBy {
        name: told.get("name")?.as_str()?.to_owned(),
        watched: texts(told.get("watched")),
        not_watched: not_watched.collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::json;
    use weir_metadata::{NewAgent, Scopes};
    use weir_model::MetricsBuilder;
    use weir_model::build::{Kind, metric};
    use weir_pipeline::plan::Member;

    use super::*;
    use crate::hosts::tests::collectors;
    use crate::testing::{TestServer, request};

    /// A server whose table follows its store.
    async fn followed() -> (TestServer, String, String) {
        let server = TestServer::start().await;
        let state = server.app.state.clone();
        tokio::spawn(async move { crate::hosts::feed::run(&state).await });
        let (reader, admin) = (server.key(Scopes::READ).await, server.key(Scopes::ADMIN).await);
        (server, reader, admin)
    }

    /// Polls collectors of this machine as host `this`, and stores what they measure.
    async fn poll(server: &TestServer, members: &mut [Member]) {
        for member in members {
            let Member::Collect { collector, builder, .. } = member else { continue };
            builder.begin(u64::try_from(now_ms()).unwrap() * 1_000_000, 0);
            collector.collect(builder).await.ok();
            server.app.store.append(&builder.finish()).await.unwrap();
        }
    }

    async fn until_there(server: &TestServer, name: &str) {
        let there = async {
            while server.app.hosts.row(name, now_ms()).is_none_or(|row| row.row.id.is_empty()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), there).await.expect("a row in time");
    }

    #[tokio::test]
    async fn processes_are_those_of_the_last_poll_in_cores_the_busiest_first() {
        let (server, reader, _) = followed().await;
        let text = "integrations: {host: {interval: 1s}, process: {top: 5}, console: {enabled: false}}\n";
        let mut members = collectors(text);
        poll(&server, &mut members).await;
        // Something to measure: this thread works.
        let until = std::time::Instant::now() + Duration::from_millis(700);
        while std::time::Instant::now() < until {
            std::hint::black_box(until.elapsed());
        }
        poll(&server, &mut members).await;
        until_there(&server, "this").await;
        let got = server.get("/api/v1/hosts/this/processes", &reader).await;
        assert_eq!(got.status, 200, "{}", got.text());
        let answer = got.json();
        assert!(answer["at_ms"].as_i64().is_some_and(|at_ms| now_ms() - at_ms < 10_000));
        let processes = answer["processes"].as_array().unwrap();
        let own = processes.iter().find(|process| process["pid"] == std::process::id()).expect("this process is busy");
        assert!(own["memory_bytes"].as_f64().unwrap() > 1e6 && own["threads"].as_f64().unwrap() >= 1.0, "{own}");
        assert!(own["cpu"].as_f64().unwrap() > 0.05, "it worked: {own}");
        assert!(own["user"].is_string() && own["name"].as_str().unwrap().starts_with("weir_server"), "{own}");
        let cpu: Vec<f64> = processes.iter().map(|process| process["cpu"].as_f64().unwrap_or(0.0)).collect();
        assert!(cpu.is_sorted_by(|one, next| one >= next), "{cpu:?}");
    }

    #[tokio::test]
    async fn processes_of_the_opentelemetry_collector_count_by_their_cpu_time() {
        let (server, reader, _) = followed().await;
        let now = now_ms();
        for (at, seconds) in [(now - 10_000, 100.0), (now, 105.0)] {
            let resource = [("host.name", "otel"), ("process.pid", "42"), ("process.executable.name", "nginx")];
            let resource = resource.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            let mut out = MetricsBuilder::new("test", resource);
            out.begin(u64::try_from(at).unwrap() * 1_000_000, 0);
            let time = metric("process.cpu.time", "s", Kind::Counter, "");
            for (state, share) in [("user", 1.0), ("system", 0.5), ("wait", 9.0)] {
                out.record(&time, &[("state", state)], seconds * share);
            }
            out.record(&metric("process.memory.usage", "By", Kind::UpDownCounter, ""), &[], 1e6);
            server.app.store.append(&out.finish()).await.unwrap();
        }
        until_there(&server, "otel").await;
        let answer = server.get("/api/v1/hosts/otel/processes", &reader).await.json();
        let wanted =
            json!({"pid": 42, "name": "nginx", "user": null, "cpu": 0.75, "memory_bytes": 1e6, "threads": null});
        assert_eq!(answer, json!({"at_ms": now, "processes": [wanted]}));
    }

    #[tokio::test]
    async fn probes_tell_success_and_why_not() {
        let (server, reader, _) = followed().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (open, closed) = (listener.local_addr().unwrap(), "127.0.0.1:1");
        let text = format!(
            "integrations: {{probe: {{targets: [{{tcp: '{open}'}}, {{tcp: '{closed}', name: shut}}]}}, \
             host: {{enabled: false}}, console: {{enabled: false}}}}\n"
        );
        let mut members = collectors(&text);
        poll(&server, &mut members).await;
        until_there(&server, "this").await;
        let answer = server.get("/api/v1/hosts/this/probes", &reader).await.json();
        let (good, bad) = (&answer["probes"][0], &answer["probes"][1]);
        assert_eq!(
            (&good["target"], &good["type"], &good["success"]),
            (&json!(open.to_string()), &json!("tcp"), &json!(true))
        );
        assert!(good["duration_ms"].as_f64().is_some_and(|duration| duration > 0.0) && good["error"].is_null());
        assert_eq!(
            (&bad["target"], &bad["success"], &bad["error"]),
            (&json!("shut"), &json!(false), &json!("refused"))
        );
        assert_eq!(answer["probes"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_host_is_listed_described_and_forgotten() {
        let (server, reader, admin) = followed().await;
        let empty = server.get("/api/v1/hosts", &reader).await.json();
        assert_eq!(empty["hosts"], json!([]));
        let new = NewAgent {
            id: Some("a-1".into()),
            hostname: "web-1".into(),
            version: Some("1.2".into()),
            ..NewAgent::default()
        };
        server.app.metadata.register_agent(new, now_ms()).await.unwrap();
        let heartbeat = json!({"system": {"os": "Debian 13", "cpu_count": 4}, "interval_seconds": 1, "integrations": [
            {"name": "host", "watched": ["2 disks"], "not_watched": [{"what": "temperatures", "why": "no sensors"}]}]});
        server.app.metadata.heartbeat("a-1", now_ms(), &heartbeat).await.unwrap();
        let resource = [("host.name", "web-1"), ("os.type", "linux"), ("service.name", "x")];
        let resource = resource.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let mut out = MetricsBuilder::new("test", resource);
        let seen = now_ms() - 60_000;
        out.begin(u64::try_from(seen).unwrap() * 1_000_000, 0);
        out.record(&metric("system.cpu.utilization", "1", Kind::Gauge, ""), &[], 0.5);
        server.app.store.append(&out.finish()).await.unwrap();
        until_there(&server, "web-1").await;
        server.app.metadata.record_gap("web-1", 1000, 2000).await.unwrap();
        let list = server.get("/api/v1/hosts", &reader).await;
        assert_eq!(list.header("content-type"), "application/json");
        let row = list.json()["hosts"][0].clone();
        assert_eq!(
            (&row["name"], &row["os"], &row["agent_version"]),
            (&json!("web-1"), &json!("Debian 13"), &json!("1.2"))
        );
        let detail = server.get("/api/v1/hosts/web-1", &reader).await.json();
        let facts = json!([{"name": "os.type", "value": "linux"}, {"name": "cpu_count", "value": "4"}, {"name": "os", "value": "Debian 13"}]);
        assert_eq!(detail["facts"], facts);
        assert_eq!(detail["disconnected"][0], json!({"from_ms": 1000, "to_ms": 2000}));
        assert_eq!(detail["integrations"], heartbeat["integrations"]);
        assert_eq!(detail["agent"]["id"], "a-1");
        assert_eq!(server.get("/api/v1/hosts/web-2", &reader).await.status, 404);
        let delete = |key: &str| request(Method::DELETE, "/api/v1/hosts/web-1").header("x-api-key", key.to_owned());
        assert_eq!(server.send(delete(&reader), "").await.status, 403);
        assert_eq!(server.send(delete(&admin), "").await.status, 204);
        assert_eq!(server.send(delete(&admin), "").await.status, 404);
        assert_eq!(server.get("/api/v1/hosts", &reader).await.json()["hosts"], json!([]));
    }
}
