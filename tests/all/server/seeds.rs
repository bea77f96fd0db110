//! The clients of the specifications that Weir's server stands in for, as they are printed there.
//! They send no key: the server listens on loopback, and so do they.

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use serde_json::{Value as Json, json};

use crate::harness::http::{get, post};
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::server::{Options, Server};
use crate::harness::weir::said;
use crate::harness::{free_port, seconds, wait_for};

/// Both requests of AgentOps' guide.
const AGENTOPS: &str = include_str!("../../peers/seed_agentops.sh");

/// The server of the guide, with the id that the guide's metrics are for.
fn agentops_server() -> Json {
    json!({"id": "server-uuid", "hostname": "web-prod-03", "ipAddress": "10.0.1.102", "environment": "production",
        "location": "us-west-2a", "tags": ["web", "frontend", "nginx"]})
}

/// Runs a peer to its end without proxies; its output, which must be a success.
fn run(command: &mut Command) -> Output {
    let output = command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    output
}

/// Runs a script of `tests/peers`; the lines that it printed.
fn python(python: &Path, script: &str, arguments: &[&str]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let output = run(Command::new(python).arg(script).args(arguments));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn parsed(line: &str) -> Json {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// That all fields of `part` are in `whole`. Numbers may differ behind the 12th digit: they come back
/// rounded, so that 45.2 percent are no 45.20000000000001.
fn assert_contains(whole: &Json, part: &Json) {
    for (field, wanted) in part.as_object().expect("an object") {
        let found = &whole[field];
        let same = match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => (found - wanted).abs() <= wanted.abs() * 1e-12,
            _ => found == wanted,
        };
        assert!(same, "{field}: {found} instead of {wanted} in {whole}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agentops_curl_examples_are_taken_and_come_back_in_the_same_units() {
    let Some(curl) = peer(Peer::Curl) else { return };
    let server = Server::start(Options::default()).await;
    let registered = run(Command::new(&curl)
        .args(["-sS", "-X", "POST", "-H", "Content-Type: application/json", "-w", "\n%{http_code}", "-d"])
        .arg(agentops_server().to_string())
        .arg(format!("{}/api/servers", server.url())));
    let registered = String::from_utf8_lossy(&registered.stdout).into_owned();
    let (record, status) = registered.rsplit_once('\n').expect("the status in a line of its own");
    assert_eq!(status, "201", "{record}");
    assert_contains(&parsed(record), &agentops_server());

    let script = AGENTOPS.replace("http://your-agentops-url", &server.url());
    assert_eq!(script.matches(&server.url()).count(), 3, "the comment and both examples");
    let output = run(Command::new("sh").arg("-e").arg("-c").arg(&script));
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(answers, r#"{"status":"success","stored":1}{"status":"success","stored":8}"#);

    let metrics = server.get("/api/metrics?serverId=server-uuid&hours=1").await;
    let [metrics] = metrics["metrics"].as_array().expect("a list").as_slice() else { panic!("not one: {metrics}") };
    let sent = json!({"serverId": "server-uuid", "cpuUsage": 45.2, "memoryUsage": 68.5, "memoryTotal": 16384,
        "diskUsage": 45.0, "diskTotal": 500, "networkLatency": 2.3, "networkThroughput": 125.5, "processCount": 127});
    assert_contains(metrics, &sent);
    assert_eq!(metrics.as_object().expect("an object").len(), 10, "the fields sent and the time: {metrics}");

    let alerts = server.get("/api/alerts").await;
    let [alert] = alerts["alerts"].as_array().expect("a list").as_slice() else { panic!("not one: {alerts}") };
    let sent = json!({"source": "prometheus", "severity": "critical", "title": "High CPU Usage",
        "server": "web-prod-01", "metric": "cpu_usage", "value": 95.2, "threshold": 85.0});
    assert_contains(&alert["body"], &sent);
    assert_eq!((&alert["title"], &alert["severity"]), (&json!("High CPU Usage"), &json!("critical")));

    let server_now = server.get("/api/servers/web-prod-03").await;
    assert_eq!((&server_now["status"], &server_now["id"]), (&json!("up"), &json!("server-uuid")));
    let row = server.host("web-prod-03").await.expect("a row of the dashboard");
    assert_eq!(row["kind"], "agentops");
    for (field, wanted) in [("cpu", 0.452), ("memory", 0.685), ("disk", 0.45), ("network_bits_per_second", 125.5e6)] {
        let found = row[field].as_f64().unwrap_or_else(|| panic!("no {field}: {row}"));
        assert!((found - wanted).abs() < wanted * 1e-9, "{field}: {found} instead of {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_of_alertmanager_are_kept_one_by_one_and_the_same_alert_is_not_kept_twice() {
    let server = Server::start(Options::default()).await;
    let alert = |status: &str, fingerprint: &str, name: &str| {
        json!({"status": status, "labels": {"alertname": name, "severity": "page", "instance": "web-1:9100"},
            "annotations": {"summary": format!("{name} on web-1")}, "startsAt": "2026-01-01T12:00:00.123Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://prometheus/graph", "fingerprint": fingerprint})
    };
    // Newer versions add keys; the status of the group says nothing about a single alert.
    let envelope = |alerts: Json| {
        json!({"version": "4", "groupKey": "{}:{alertname=\"a\"}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "weir", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "routeLabels": {},
            "externalURL": "http://alertmanager:9093", "notification_reason": "new", "alerts": alerts})
    };
    let both =
        json!([alert("firing", "14b29f1e6a0d2c33", "HighLoad"), alert("resolved", "3f1c5a7788990011", "DiskFull")]);
    let answer = server.ask(Method::POST, "/api/alerts", "", &envelope(both)).await;
    assert_eq!(
        (answer.status.as_u16(), parsed(&String::from_utf8_lossy(&answer.body))),
        (200, json!({"status": "success", "stored": 2}))
    );
    // Alertmanager repeats what still fires.
    let again = server
        .ask(Method::POST, "/api/alerts", "", &envelope(json!([alert("firing", "14b29f1e6a0d2c33", "HighLoad")])))
        .await;
    assert_eq!(again.status, 200);

    let alerts = server.get("/api/alerts").await;
    let mut kept: Vec<(&str, &str, &str)> = alerts["alerts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|alert| {
            let text = |field: &str| alert[field].as_str().unwrap_or_else(|| panic!("no {field}: {alert}"));
            assert_eq!(alert["severity"], "page");
            (text("fingerprint"), text("status"), text("title"))
        })
        .collect();
    kept.sort_unstable();
    assert_eq!(
        kept,
        [("14b29f1e6a0d2c33", "firing", "HighLoad on web-1"), ("3f1c5a7788990011", "resolved", "DiskFull on web-1")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_alertmanager_delivers_an_alert_and_its_end() {
    let Some(program) = peer(Peer::Alertmanager) else { return };
    let server = Server::start(Options::default()).await;
    let config = server.folder().join("alertmanager.yml");
    let text = format!(
        "route: {{receiver: weir, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: weir, webhook_configs: [{{url: \"{}/api/alerts\", send_resolved: true}}]}}]\n",
        server.url()
    );
    std::fs::write(&config, text).expect("writable");
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.path={}", server.folder().join("alertmanager").display()));
    command.args([&format!("--web.listen-address={address}"), "--cluster.listen-address=", "--log.level=warn"]);
    let _alertmanager = Process::start("alertmanager", &mut command);
    let ready = format!("http://{address}/-/ready");
    wait_for("Alertmanager is ready", seconds(20), async || get(&ready).await).await;

    let now = jiff::Timestamp::now();
    let labels = json!({"alertname": "HighLoad", "severity": "page", "instance": "web-1:9100"});
    let mut alert =
        json!({"labels": labels, "annotations": {"summary": "Load is high on web-1"}, "startsAt": now.to_string()});
    let mut fingerprint = None;
    for status in ["firing", "resolved"] {
        let url = format!("http://{address}/api/v2/alerts");
        let answer = post(&url, "application/json", json!([alert]).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.excerpt());
        let kept = wait_for(&format!("the alert is {status}"), seconds(20), async || {
            let alerts = server.get("/api/alerts").await;
            let alerts = alerts["alerts"].as_array().expect("a list").clone();
            alerts.iter().any(|alert| alert["status"] == status).then_some(alerts)
        })
        .await;
        let [kept] = kept.as_slice() else { panic!("one alert is kept more than once: {kept:#?}") };
        assert_eq!((&kept["title"], &kept["severity"]), (&json!("Load is high on web-1"), &json!("page")));
        let known = fingerprint.get_or_insert_with(|| kept["fingerprint"].clone());
        assert_eq!(*known, kept["fingerprint"], "it is the same alert");
        alert["endsAt"] = json!(now.to_string());
    }
}

/// Unix milliseconds of what Python's `isoformat` prints for UTC.
fn unix_ms(text: &str) -> i64 {
    let time: jiff::Timestamp = format!("{}Z", text.trim_end_matches('Z')).parse().expect("a time");
    time.as_millisecond()
}

/// A number of `/proc/meminfo`, in bytes.
fn memory_bytes(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number");
    kibibytes * 1024.0
}

/// Bytes received and sent by all interfaces.
fn network_bytes() -> [f64; 2] {
    let text = std::fs::read_to_string("/proc/net/dev").expect("Linux");
    let rows = text.lines().skip(2).map(|line| {
        let numbers: Vec<f64> = line
            .split_once(':')
            .expect("an interface")
            .1
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        [numbers[0], numbers[8]]
    });
    rows.fold([0.0; 2], |sum, row| [sum[0] + row[0], sum[1] + row[1]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_monitors_python_client_is_told_success_and_reads_back_what_it_sent() {
    let Some(program) = peer(Peer::PythonClients) else { return };
    let server = Server::start(Options::default()).await;
    let registered = json!({"agent_id": "web-server-01", "hostname": "web-01"});
    let answer = server.ask(Method::POST, "/api/v1/agents/register", "", &registered).await;
    assert_eq!(answer.status, 200);
    let network_before = network_bytes();
    let lines = python(&program, "seed_agent_monitor.py", &[&server.url(), "web-server-01"]);
    let network_after = network_bytes();
    let [first, second, sent] = lines.as_slice() else { panic!("not three lines: {lines:#?}") };
    for line in [first, second] {
        assert!(line.starts_with("Metrics sent: True at "), "{lines:#?}");
    }

    let sent = parsed(sent);
    let history = server.get("/api/v1/agents/web-server-01/metrics?hours=24").await;
    let history = history["metrics"].as_array().expect("a list");
    assert_eq!(history.len(), 2, "{history:#?}");
    for (found, sent) in history.iter().zip(sent["sent"].as_array().expect("both")) {
        let mut sent = sent.clone();
        let sent_at = sent.as_object_mut().expect("an object").remove("timestamp").expect("a time");
        let times = [&found["timestamp"], &sent_at].map(|time| unix_ms(time.as_str().expect("text")));
        assert_eq!(times[0], times[1], "{found}");
        assert_contains(found, &sent);
    }

    // What the kernel says, not what psutil made of it.
    let number = |field: &str| history[0][field].as_f64().unwrap_or_else(|| panic!("no {field}: {}", history[0]));
    let memory = 100.0 * (1.0 - memory_bytes("MemAvailable") / memory_bytes("MemTotal"));
    let space = nix::sys::statvfs::statvfs("/").expect("a filesystem");
    let used = (space.blocks() - space.blocks_free()) as f64;
    let disk = 100.0 * used / (used + space.blocks_available() as f64);
    let cpu = sent["cpu_of_proc_stat"].as_f64().expect("a number");
    for (field, wanted, tolerance) in
        [("memory_usage", memory, 10.0), ("disk_usage", disk, 2.0), ("cpu_usage", cpu, 15.0)]
    {
        println!("{field}: {} here, {wanted:.1} of the kernel", number(field));
        assert!((number(field) - wanted).abs() <= tolerance, "{field}: {} and not {wanted}", number(field));
    }
    assert!((0.0..5000.0).contains(&number("response_time")), "{}", history[0]);
    for (field, at) in [("bytes_recv", 0), ("bytes_sent", 1)] {
        let found = history[0]["network_io"][field].as_f64().expect("a number");
        // Interfaces of other tests come and go meanwhile, and their bytes with them.
        let others = 64.0 * 1024.0 * 1024.0;
        let range = network_before[at] - others..=network_after[at] + others;
        assert!(range.contains(&found), "{field}: {found} not within {range:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openfinops_agents_register_and_deliver_in_both_shapes_of_their_bodies() {
    let Some(program) = peer(Peer::PythonClients) else { return };
    let server = Server::start(Options::default()).await;
    let lines = python(&program, "seed_openfinops.py", &[&server.url()]);
    let wanted = [
        json!({"healthy": true}),
        json!({"agent_id": "aws-agent-1", "registered": true, "sent": true}),
        json!({"agent_id": "generic-telemetry-1", "registered": true, "sent": true}),
    ];
    assert_eq!(lines.iter().map(|line| parsed(line)).collect::<Vec<_>>(), wanted);

    let aws = server.get("/api/v1/agents/aws-agent-1").await;
    assert_eq!(
        (&aws["hostname"], &aws["version"], &aws["status"]),
        (&json!("finops-collector-1"), &json!("1.0.0"), &json!("up"))
    );
    assert_eq!(aws["attributes"]["config"]["collection_interval"], 300);
    let instances = &aws["heartbeat"]["telemetry"]["services"]["ec2"]["instances"];
    assert_eq!(instances[0]["instance_id"], "i-0a1b2c3d", "the body is kept: {aws}");
    let row = server.host("finops-collector-1").await.expect("a row of the dashboard");
    assert_eq!((&row["kind"], &row["location"]), (&json!("openfinops"), &json!("us-west-2")));
    let generic = server.get("/api/v1/agents/generic-telemetry-1").await;
    assert_eq!(
        (&generic["hostname"], &generic["attributes"]["capabilities"]),
        (&json!("onprem-1"), &json!(["system_monitoring"]))
    );

    let (aws, onprem) = ("finops-collector-1", "onprem-1");
    let found = by_resource(&server, "finops.services.ec2.instances.hourly_cost", aws).await;
    assert_eq!(found, pairs(&[("i-0a1b2c3d", 0.096), ("i-4e5f6071", 0.17)]));
    let found = by_resource(&server, "finops.services.rds.databases.connections", aws).await;
    assert_eq!(found, pairs(&[("orders", 7.0)]));
    assert_eq!(by_resource(&server, "finops.summary.total_hourly_cost", aws).await, pairs(&[("", 0.458)]));
    // A service that could not be read has an error, and no count of its resources.
    assert_eq!(latest(&server, "finops.service.error", aws, "finops.service").await, pairs(&[("eks", 1.0)]));
    assert_eq!(by_resource(&server, "finops.services.eks.total_clusters", aws).await, []);

    let gpus = "finops.metrics.collectors.gpu_cluster.data.gpu_metrics";
    let found = by_resource(&server, &format!("{gpus}.gpu_utilization"), onprem).await;
    assert_eq!(found, pairs(&[("0", 91.0), ("1", 3.5)]));
    let found = by_resource(&server, &format!("{gpus}.memory_used_mb"), onprem).await;
    assert_eq!(found, pairs(&[("0", 40960.0)]), "NaN is no value");
    let found = latest(&server, "finops.service.error", onprem, "finops.service").await;
    assert_eq!(found, pairs(&[("docker_metrics", 1.0)]));
}

fn pairs(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// The newest value of each series of a metric, by the resource that it belongs to.
async fn by_resource(server: &Server, metric: &str, host: &str) -> Vec<(String, f64)> {
    latest(server, metric, host, "finops.resource").await
}

/// The newest value of a metric of a host, for each value of a label.
async fn latest(server: &Server, metric: &str, host: &str, label: &str) -> Vec<(String, f64)> {
    let now_ms = server.get("/api/v1/status").await["now_ms"].as_i64().expect("a time");
    let answer = server
        .post(
            "/api/v1/query",
            &json!({"from_ms": now_ms - 60_000, "to_ms": now_ms + 1000, "step_ms": 1000, "queries": [{"id": "a",
                "metric": metric, "match": {"host.name": host}, "by": [label], "rate": false, "aggregate": "max"}]}),
        )
        .await;
    let lines = answer["results"][0]["series"].as_array().expect("lines");
    lines
        .iter()
        .map(|line| {
            let values = line["values"].as_array().expect("values");
            let newest = values.iter().rev().find_map(Json::as_f64).unwrap_or_else(|| panic!("no value: {line}"));
            (line["labels"][label].as_str().unwrap_or_default().to_owned(), newest)
        })
        .collect()
}
