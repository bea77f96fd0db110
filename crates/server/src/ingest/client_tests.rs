//! The seeds' clients against the real router, pipeline, store and metadata.

use std::sync::Mutex;

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use weir_metadata::{NewKey, Scopes};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::DynReceive;
use weir_pipeline::{Fault, Intake, Mount, Stop};
use weir_store::{Matcher, NAME, Select, SeriesSource};

use crate::state::{Options, now_ms};
use crate::testing::{Got, TestServer, request};

/// A receiver that only hands out its way into the pipeline.
struct Doorway(Mutex<Option<tokio::sync::oneshot::Sender<Intake>>>);

impl DynReceive for Doorway {
    fn mounts(&self, intake: &Intake) -> Vec<Mount> {
        if let Some(sender) = self.0.lock().unwrap().take() {
            sender.send(intake.clone()).unwrap();
        }
        Vec::new()
    }

    fn run(self: Box<Self>, _intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            stop.wait().await;
            Ok(())
        })
    }
}

/// A server whose pipeline ends in its store.
struct Site {
    server: TestServer,
    key: String,
    pipeline: Pipeline,
}

impl Site {
    async fn start() -> Site {
        Site::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Site {
        let mut server = TestServer::with(change).await;
        let (sender, intake) = tokio::sync::oneshot::channel();
        let plan = Plan {
            members: vec![
                Member::exporter("store", ExportOptions::default(), server.app.store.exporter()),
                Member::receiver("api", Doorway(Mutex::new(Some(sender)))),
            ],
            memory_bytes: 64 << 20,
            control: server.app.control.clone(),
            ..Plan::default()
        };
        let pipeline = Pipeline::start(plan).await.unwrap();
        server.app.intake = intake.await.unwrap();
        server.router = crate::api::router(server.app.clone());
        let key = server.key("admin".parse::<Scopes>().unwrap()).await;
        Site { server, key, pipeline }
    }

    async fn post(&self, path: &str, body: &Value) -> Got {
        self.server.json(Method::POST, path, &self.key, body).await
    }

    /// Posts bytes as they are, with the content type that `curl -d` sends.
    async fn post_raw(&self, path: &str, body: impl Into<Body>) -> Got {
        let request = request(Method::POST, path)
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/x-www-form-urlencoded");
        self.server.send(request, body).await
    }

    async fn get(&self, path: &str) -> Value {
        let got = self.server.get(path, &self.key).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.text());
        got.json()
    }

    /// A key of one agent.
    async fn key_of(&self, agent: &str) -> String {
        let scopes = "ingest".parse::<Scopes>().unwrap();
        let new = NewKey { name: agent.to_owned(), scopes, agent_id: Some(agent.to_owned()), expires_ms: None };
        self.server.app.metadata.create_key(new, now_ms()).await.unwrap().1.expose().to_owned()
    }

    /// The newest value of every series of a host.
    fn stored(&self, hostname: &str) -> Vec<StoredSeries> {
        let select = Select::always(vec![Matcher::equal("host.name", hostname)]);
        let series = self.server.app.store.select(&select).unwrap().into_iter().map(|data| {
            let labels = data.series.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            StoredSeries { labels, value: data.samples.to_vec().last().unwrap().1 }
        });
        series.collect()
    }
}

struct StoredSeries {
    labels: Vec<(String, String)>,
    value: f64,
}

impl StoredSeries {
    fn has(&self, key: &str, value: &str) -> bool {
        self.labels.iter().any(|(k, v)| k == key && v == value)
    }
}

fn success(got: &Got, stored: u64) {
    assert_eq!(got.status, StatusCode::OK, "{}", got.text());
    assert_eq!(got.json(), json!({"status": "success", "stored": stored}));
}

const SEED_SERVER: &str = r#"{"hostname": "web-prod-03", "ipAddress": "10.0.1.102", "environment": "production",
    "location": "us-west-2a", "tags": ["web", "frontend", "nginx"]}"#;

#[tokio::test]
async fn agentops_calls_work_as_curl_sends_them_and_come_back_exactly() {
    let site = Site::start().await;
    let created = site.post_raw("/api/servers", SEED_SERVER).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
    let server = created.json();
    let id = server["id"].as_str().unwrap();
    assert_eq!(created.header("location"), format!("/api/servers/{id}"));
    assert_eq!((&server["ipAddress"], &server["tags"][2]), (&json!("10.0.1.102"), &json!("nginx")));
    assert_eq!((&server["status"], &server["lastSeen"]), (&json!("unknown"), &Value::Null));

    let body = json!({"serverId": id, "cpuUsage": 45.2, "memoryUsage": 68.5, "memoryTotal": 16384, "diskUsage": 45,
        "diskTotal": 500, "networkLatency": 2.3, "networkThroughput": 125.5, "processCount": 127});
    success(&site.post_raw("/api/metrics", body.to_string()).await, 8);
    let history = site.get(&format!("/api/metrics?serverId={id}&hours=1")).await;
    let mut row = history["metrics"][0].clone();
    assert!(row.as_object_mut().unwrap().remove("timestamp").is_some());
    assert_eq!(row, body);
    let by_name = site.get("/api/metrics?serverId=web-prod-03").await;
    assert_eq!(by_name["metrics"][0]["memoryTotal"].to_string(), "16384");
}

#[tokio::test]
async fn servers_are_unique_changed_and_removed() {
    let site = Site::start().await;
    let first = site.post("/api/servers", &json!({"id": "a", "hostname": "web-1"})).await;
    assert_eq!(first.status, StatusCode::CREATED);
    for taken in [json!({"hostname": "web-1"}), json!({"id": "a", "hostname": "web-2"})] {
        let got = site.post("/api/servers", &taken).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::CONFLICT, "conflict"));
    }
    let patch = json!({"location": "fra-1", "tags": ["db"]});
    let patched = site.server.json(Method::PATCH, "/api/servers/web-1", &site.key, &patch).await;
    assert_eq!((patched.status, &patched.json()["location"]), (StatusCode::OK, &json!("fra-1")));
    assert_eq!(site.get("/api/servers").await["servers"][0]["tags"], json!(["db"]));
    let deleted = site.server.json(Method::DELETE, "/api/servers/a", &site.key, &Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(site.server.get("/api/servers/a", &site.key).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_agent_registers_sends_metrics_and_reads_them_back() {
    let site = Site::start().await;
    let path = "/api/v1/agents/web-server-01/metrics";
    let body = json!({"cpu_usage": 12.3, "memory_usage": 45.6, "disk_usage": 70, "network_io": {"bytes_sent": 5, "bytes_recv": 6.5},
        "response_time": 17.25, "timestamp": naive_now(), "custom_metrics": {"queue": {"depth": 3}, "ok": true, "state": "up"}});
    let unknown = site.post(path, &body).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text().contains("POST /api/v1/agents/register"), "{}", unknown.text());

    let registration =
        json!({"agent_id": "web-server-01", "hostname": "web-1", "agent_type": "python", "anything": {"else": 1}});
    let registered = site.post("/api/v1/agents/register", &registration).await;
    assert_eq!(registered.status, StatusCode::OK);
    assert_eq!(registered.json(), json!({"status": "success", "agent_id": "web-server-01"}));
    success(&site.post(path, &body).await, 9);
    let back = site.get(&format!("{path}?hours=24")).await;
    let mut row = back["metrics"][0].clone();
    // The same instant, with its zone.
    assert_eq!(row["timestamp"], json!(format!("{}Z", body["timestamp"].as_str().unwrap())));
    row["timestamp"] = body["timestamp"].clone();
    assert_eq!(row, body);

    let alive = site.server.send(authorized(&site.key, "/api/v1/agents/web-server-01/heartbeat"), Body::empty()).await;
    assert_eq!((alive.status, &alive.json()["status"]), (StatusCode::OK, &json!("success")));
    let agent = site.get("/api/v1/agents/web-server-01").await;
    assert_eq!(agent["attributes"], json!({"anything": {"else": 1}}));
    assert!(agent["last_heartbeat_ms"].is_i64(), "{agent}");
    let lost = site.post("/api/v1/agents/nobody/heartbeat", &json!({})).await;
    assert_eq!((lost.status, lost.code().as_str()), (StatusCode::NOT_FOUND, "not_found"));
    let deleted = site.server.json(Method::DELETE, "/api/v1/agents/web-server-01", &site.key, &Value::Null).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(site.get("/api/v1/agents").await, json!({"agents": []}));
}

/// A time without zone, as Python's `datetime.utcnow().isoformat()` writes it; whole seconds.
fn naive_now() -> String {
    let text = super::time::rfc3339(now_ms() / 1000 * 1000);
    text.trim_end_matches('Z').to_owned()
}

fn authorized(key: &str, path: &str) -> http::request::Builder {
    request(Method::POST, path).header("authorization", format!("Bearer {key}"))
}

#[tokio::test]
async fn one_bad_item_stores_nothing_of_the_request() {
    let site = Site::start().await;
    site.post("/api/servers", &json!({"hostname": "web-1"})).await;
    site.post("/api/v1/agents/register", &json!({"agent_id": "a", "hostname": "web-1"})).await;
    let good = json!({"serverId": "web-1", "cpuUsage": 1});
    for (path, body, field) in [
        (
            "/api/metrics",
            json!({"metrics": [good, good, {"serverId": "web-1", "cpuUsage": "high"}]}),
            "metrics[2].cpuUsage",
        ),
        ("/api/metrics", json!([good, {"serverId": "web-1", "memoryUsage": 101}]), "[1].memoryUsage"),
        ("/api/metrics", json!([good, {"serverId": "web-1", "timestamp": "2001-01-01T00:00:00"}]), "[1].timestamp"),
        ("/api/v1/agents/a/metrics", json!([{"cpu_usage": 1}, {"error_rate": -1}]), "[1].error_rate"),
        ("/api/v1/telemetry/ingest", json!({"agent_id": "a", "timestamp": "soon", "summary": {"n": 1}}), "timestamp"),
    ] {
        let got = site.post(path, &body).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_REQUEST, "invalid_field"), "{}", got.text());
        assert_eq!(got.json()["field"], json!(field));
    }
    let unknown = site.post("/api/metrics", &json!([good, {"serverId": "nobody", "cpuUsage": 1}])).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text().contains("POST /api/servers"), "{}", unknown.text());
    assert_eq!(site.server.app.store.stats().samples, 0);
}

#[tokio::test]
async fn what_python_and_strange_clients_send_is_understood() {
    let site = Site::start().await;
    site.post("/api/servers", &json!({"hostname": "web-1"})).await;
    let bare = r#"{"serverId": "web-1", "cpuUsage": NaN, "memoryUsage": Infinity, "diskUsage": -Infinity, "diskTotal": "500"}"#;
    success(&site.post_raw("/api/metrics", bare).await, 1);
    let ahead = json!({"serverId": "web-1", "cpuUsage": 1, "timestamp": (now_ms() + 3_600_000)});
    let got = site.post("/api/metrics", &ahead).await;
    assert_eq!(got.json(), json!({"status": "success", "stored": 1, "clamped_timestamps": 1}));
    for (body, code) in
        [("", "invalid_json"), ("cpu=1", "invalid_json"), ("{\"serverId\": \"a\u{0}\"}", "invalid_json")]
    {
        let got = site.post_raw("/api/metrics", body).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_REQUEST, code), "{body:?}");
    }
    let deep = format!("{{\"serverId\": \"web-1\", \"x\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let got = site.post_raw("/api/metrics", deep).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_REQUEST, "invalid_json"));
    let large = vec![b' '; (16 << 20) + 1];
    for path in ["/api/metrics", "/api/v1/agents/a/metrics", "/api/v1/telemetry/ingest", "/api/alerts"] {
        let got = site.post_raw(path, large.clone()).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"), "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_now_is_answered_with_the_time_to_come_again() {
    let site = Site::start().await;
    site.post("/api/servers", &json!({"hostname": "web-1"})).await;
    let Site { server, key, pipeline } = site;
    pipeline.stop().await;
    let body = json!({"serverId": "web-1", "cpuUsage": 1});
    let got = server.json(Method::POST, "/api/metrics", &key, &body).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"), "{}", got.text());
    assert!(got.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn one_request_does_not_register_servers_without_end() {
    let site = Site::with(|options| options.auto_register = true).await;
    let many: Vec<Value> =
        (0..=super::targets::SERVER_LIMIT).map(|n| json!({"serverId": format!("s{n}"), "cpuUsage": 1})).collect();
    let got = site.post("/api/metrics", &json!(many)).await;
    assert_eq!((got.status, got.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"), "{}", got.text());
    assert_eq!(site.get("/api/servers").await, json!({"servers": []}));
}

#[tokio::test]
async fn with_auto_registration_data_makes_agents_and_servers_known() {
    let site = Site::with(|options| options.auto_register = true).await;
    success(&site.post("/api/v1/agents/web-7/metrics", &json!({"cpu_usage": 1})).await, 1);
    success(&site.post("/api/metrics", &json!({"serverId": "web-8", "cpuUsage": 1})).await, 1);
    let told =
        json!({"agent_id": "aws-1", "hostname": "collector", "services": {}, "summary": {"total_hourly_cost": 1}});
    success(&site.post("/api/v1/telemetry/ingest", &told).await, 1);
    let names: Vec<Value> =
        site.get("/api/servers").await["servers"].as_array().unwrap().iter().map(|s| s["hostname"].clone()).collect();
    assert_eq!(names, ["collector", "web-7", "web-8"]);
    assert_eq!(site.get("/api/v1/agents/aws-1").await["hostname"], "collector");
}

#[tokio::test]
async fn both_shapes_of_openfinops_are_metrics_and_the_body_stays_with_the_agent() {
    let site = Site::start().await;
    let registration = json!({"agent_id": "aws-1", "hostname": "collector", "cloud_provider": "aws", "region": "us-west-2",
        "config": {"services": ["ec2"], "collection_interval": 300}});
    assert_eq!(site.post("/api/v1/agents/register", &registration).await.status, StatusCode::OK);
    let flat = json!({"agent_id": "aws-1", "timestamp": now_ms() as f64 / 1000.0, "hostname": "collector", "cloud_provider": "aws",
        "region": "us-west-2", "uptime_seconds": 12.5, "services": {
            "ec2": {"total_instances": 1, "instances": [{"instance_id": "i-1", "hourly_cost": 0.096}]},
            "rds": {"service": "rds", "error": "AccessDenied"}}, "summary": {"total_hourly_cost": 0.096}});
    success(&site.post("/api/v1/telemetry/ingest", &flat).await, 5);
    let nested = json!({"agent_id": "aws-1", "timestamp": naive_now(), "events": [], "agent_health": {"status": "healthy", "uptime": 60},
        "metrics": {"virtual_machines": {"count": 2}, "aks": {"service": "aks", "error": "no permission"}}});
    success(&site.post("/api/v1/telemetry/ingest", &nested).await, 3);
    assert_eq!(site.get("/api/v1/agents/aws-1").await["heartbeat"]["telemetry"], nested);

    let stored = site.stored("collector");
    let find = |name: &str, (key, value): (&str, &str)| {
        stored.iter().find(|series| series.has(NAME, name) && series.has(key, value)).map(|series| series.value)
    };
    assert_eq!(find("finops.services.ec2.instances.hourly_cost", ("finops.resource", "i-1")), Some(0.096));
    assert_eq!(find("finops.summary.total_hourly_cost", ("cloud.region", "us-west-2")), Some(0.096));
    assert_eq!(find("finops.service.error", ("finops.service", "rds")), Some(1.0));
    assert_eq!(find("finops.service.error", ("finops.service", "aks")), Some(1.0));
    assert_eq!(find("finops.metrics.virtual_machines.count", ("host.name", "collector")), Some(2.0));
}

#[tokio::test]
async fn a_key_of_one_agent_writes_for_that_agent_alone() {
    let site = Site::start().await;
    for (id, hostname) in [("a", "web-1"), ("b", "web-2")] {
        site.post("/api/v1/agents/register", &json!({"agent_id": id, "hostname": hostname})).await;
    }
    let key = site.key_of("a").await;
    let post = async |path: &str, body: Value| site.server.json(Method::POST, path, &key, &body).await;
    for (path, body) in [
        ("/api/v1/agents/b/metrics", json!({"cpu_usage": 1})),
        ("/api/v1/agents/b/heartbeat", json!({})),
        ("/api/v1/agents/register", json!({"agent_id": "b", "hostname": "web-2"})),
        ("/api/v1/agents/register", json!({"hostname": "web-2"})),
        ("/api/v1/telemetry/ingest", json!({"agent_id": "b", "summary": {"n": 1}})),
        ("/api/metrics", json!({"serverId": "web-2", "cpuUsage": 1})),
        ("/api/metrics", json!([{"serverId": "web-1", "cpuUsage": 1}, {"serverId": "web-2", "cpuUsage": 1}])),
        ("/api/servers", json!({"hostname": "web-3"})),
        ("/api/servers", json!({"hostname": "web-1"})),
        ("/api/alerts", json!({"title": "x", "server": "web-1", "fingerprint": "of somebody else's alert"})),
    ] {
        let got = post(path, body).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"), "{path}: {}", got.text());
    }
    assert_eq!(site.server.app.store.stats().samples, 0);
    success(&post("/api/v1/agents/a/metrics", json!({"cpu_usage": 1})).await, 1);
    success(&post("/api/metrics", json!({"serverId": "web-1", "processCount": 1})).await, 1);
    assert_eq!(post("/api/v1/agents/register", json!({"hostname": "web-1"})).await.json()["agent_id"], "a");
}

/// Gauges of two resources; the second also has a point that hides its resource's host.
fn otlp_of(host: &str, other: &str, hidden: &str) -> Value {
    let now = (now_ms() * 1_000_000).to_string();
    let attribute = |host: &str| json!([{"key": "host.name", "value": {"stringValue": host}}]);
    let point = |attributes: Value| json!({"asDouble": 1.0, "timeUnixNano": now, "attributes": attributes});
    let of = |host: &str, points: Value| {
        let metric = json!({"name": "m", "gauge": {"dataPoints": points}});
        json!({"resource": {"attributes": attribute(host)}, "scopeMetrics": [{"scope": {"name": "s"}, "metrics": [metric]}]})
    };
    let plain = point(json!([]));
    json!({"resourceMetrics": [of(host, json!([plain])), of(other, json!([plain, point(attribute(hidden))]))]})
}

#[tokio::test]
async fn by_otlp_a_key_of_one_agent_writes_for_no_host_that_has_another() {
    let site = Site::start().await;
    for (id, hostname) in [("a", "web-1"), ("b", "web-2")] {
        site.post("/api/v1/agents/register", &json!({"agent_id": id, "hostname": hostname})).await;
    }
    let key = site.key_of("a").await;
    let post = async |key: &str, body: Value| {
        let request = request(Method::POST, "/v1/metrics").header("authorization", format!("Bearer {key}"));
        let got = site.server.send(request.header("content-type", "application/json"), body.to_string()).await;
        assert_eq!(got.status, StatusCode::OK, "{}", got.text());
        got.json()
    };
    // A switch that it polls has no agent; a point may not say to be of web-2 either.
    let answer = post(&key, otlp_of("web-2", "switch-1", "web-2")).await;
    assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "2", "{answer}");
    let why = answer["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert!(why.contains("belongs to the agent \"a\"") && why.contains("\"web-2\""), "{why}");
    assert_eq!((site.stored("web-2").len(), site.stored("switch-1").len()), (0, 1));
    let answer = post(&key, otlp_of("web-2", "web-2", "web-2")).await;
    assert_eq!(answer["partialSuccess"]["rejectedDataPoints"], "3", "{answer}");
    assert_eq!(post(&key, otlp_of("web-1", "web-1", "switch-1")).await, json!({}));
    assert_eq!((site.stored("web-1").len(), site.stored("switch-1").len()), (1, 1));
    // A key of no agent may send for all.
    assert_eq!(post(&site.key, otlp_of("web-2", "web-2", "switch-1")).await, json!({}));
    assert_eq!(site.stored("web-2").len(), 1);
}

#[tokio::test]
async fn alerts_of_both_shapes_are_kept_once_each() {
    let site = Site::start().await;
    let flat = json!({"source": "prometheus", "severity": "critical", "title": "High CPU Usage", "server": "web-prod-01",
        "metric": "cpu_usage", "value": 95.2, "threshold": 85.0});
    for _ in 0..2 {
        success(&site.post("/api/alerts", &flat).await, 1);
    }
    let one = |status: &str| {
        json!({"version": "4", "status": "firing", "alerts": [{"status": status, "labels": {"alertname": "Cpu"}, "annotations": {},
            "startsAt": "2026-01-01T12:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "aaaa"}]})
    };
    for status in ["firing", "resolved"] {
        success(&site.post("/api/alerts", &one(status)).await, 1);
    }
    let alerts = site.get("/api/alerts").await;
    let alerts = alerts["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 2);
    let of = |source: &str| alerts.iter().find(|alert| alert["source"] == source).unwrap();
    assert_eq!(of("alertmanager")["status"], "resolved");
    assert_eq!((&of("prometheus")["title"], &of("prometheus")["body"]), (&json!("High CPU Usage"), &flat));
    assert_eq!(site.get("/api/alerts?limit=1").await["alerts"].as_array().unwrap().len(), 1);
    assert_eq!(site.server.get("/api/alerts?limit=0", &site.key).await.code(), "invalid_field");
}

#[tokio::test]
async fn otlp_arrives_on_the_same_port_with_the_same_keys() {
    let site = Site::start().await;
    let body = json!({"resourceMetrics": [{"resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "otel-1"}}]},
        "scopeMetrics": [{"scope": {"name": "s"}, "metrics": [{"name": "m", "gauge": {"dataPoints": [
            {"timeUnixNano": (now_ms() * 1_000_000).to_string(), "asDouble": 7.5}]}}]}]}]});
    let refused = site
        .server
        .send(request(Method::POST, "/v1/metrics").header("content-type", "application/json"), body.to_string())
        .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let taken = site
        .server
        .send(authorized(&site.key, "/v1/metrics").header("content-type", "application/json"), body.to_string())
        .await;
    assert_eq!(taken.status, StatusCode::OK, "{}", taken.text());
    let stored = site.stored("otel-1");
    assert_eq!((stored.len(), stored[0].has(NAME, "m"), stored[0].value), (1, true, 7.5));
}

#[tokio::test]
async fn histories_have_bounds_and_say_what_is_wrong() {
    let site = Site::start().await;
    site.post("/api/v1/agents/register", &json!({"agent_id": "a"})).await;
    let at = |ago: i64| json!({"cpu_usage": 1, "timestamp": now_ms() - ago});
    let hour = 3_600_000;
    success(&site.post("/api/v1/agents/a/metrics", &json!([at(3 * hour), at(2 * hour + 60_000), at(60_000)])).await, 3);
    let count = async |query: &str| {
        let got = site.get(&format!("/api/v1/agents/a/metrics{query}")).await;
        got["metrics"].as_array().unwrap().len()
    };
    assert_eq!(
        (count("").await, count("?hours=1").await, count("?hours=2.5").await, count("?limit=2").await),
        (3, 1, 2, 2)
    );
    for query in ["?hours=0", "?hours=many", "?limit=0", "?limit=1000000"] {
        let got = site.server.get(&format!("/api/v1/agents/a/metrics{query}"), &site.key).await;
        assert_eq!((got.status, got.code().as_str()), (StatusCode::BAD_REQUEST, "invalid_field"), "{query}");
    }
    assert_eq!(site.server.get("/api/v1/agents/b/metrics", &site.key).await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.server.get("/api/metrics", &site.key).await.json()["field"], "serverId");
}

#[test]
fn the_document_shows_bodies_and_answers_of_every_route_and_only_schemas_that_exist() {
    let document = crate::api::document();
    let document = serde_json::to_value(&document).unwrap();
    for (path, method) in [
        ("/api/metrics", "post"),
        ("/api/v1/agents/register", "post"),
        ("/api/v1/agents/{id}/heartbeat", "post"),
        ("/api/v1/agents/{id}/metrics", "post"),
        ("/api/v1/telemetry/ingest", "post"),
        ("/api/servers", "post"),
        ("/api/servers/{id}", "patch"),
        ("/api/alerts", "post"),
    ] {
        let operation = &document["paths"][path][method];
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert!(body.is_object(), "{method} {path}: {operation}");
        assert!(operation["operationId"].as_str().is_some_and(|id| id.len() > 8), "{method} {path}");
        for status in ["400", "401", "403", "413", "415", "429", "503"] {
            assert!(operation["responses"][status].is_object(), "{method} {path} says nothing about {status}");
        }
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is named and missing");
    }
    assert_eq!(schemas["ServerMetrics"]["properties"]["cpuUsage"]["maximum"], json!(100));
    assert_eq!(schemas["ServerRecord"]["required"].as_array().unwrap().len(), 9);
}
