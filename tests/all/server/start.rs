//! What a person sees who starts a server, and what an agent does with the agent monitor's own
//! configuration.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value as Json, json};

use crate::harness::process::Process;
use crate::harness::server::{Options, Server};
use crate::harness::weir::{assert_calm, command};
use crate::harness::{seconds, wait_for};

/// How long after the start of `weir up` its own machine is a live row.
const FIRST_ROW: Duration = seconds(10);

/// The introduction, row by row: a title and its lines.
struct Introduction(Vec<(String, String)>);

impl Introduction {
    /// Waits until all of it is there.
    async fn of(server: &Server) -> Introduction {
        let text = wait_for("the introduction", FIRST_ROW, async || {
            let text = server.stderr();
            text.contains("stop with Ctrl-C").then_some(text)
        })
        .await;
        println!("{text}");
        let mut rows: Vec<(String, String)> = Vec::new();
        // Two columns before the titles, 14 for them; two more where a line goes on.
        for line in text.lines().filter(|line| line.starts_with("  ") && line.len() > 16) {
            let (title, words) = (line[2..16].trim(), &line[16..]);
            match rows.last_mut() {
                Some((_, before)) if title.is_empty() && words.starts_with("  ") => {
                    before.push_str(&format!(" {}", words.trim()));
                }
                Some((before, _)) if title.is_empty() => {
                    let title = before.clone();
                    rows.push((title, words.to_owned()));
                }
                _ => rows.push((title.to_owned(), words.to_owned())),
            }
        }
        Introduction(rows)
    }

    fn lines(&self, title: &str) -> Vec<&str> {
        let lines = self.0.iter().filter(|(of, _)| of == title).map(|(_, line)| line.as_str());
        let lines: Vec<&str> = lines.collect();
        assert!(!lines.is_empty(), "nothing about `{title}`");
        lines
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weir_up_shows_this_machine_within_10_seconds_and_says_what_it_does() {
    let begun = Instant::now();
    let mut server = Server::launch(Options { command: "up", host: "0.0.0.0".to_owned(), ..Options::default() });
    server.ready().await;
    let ready = begun.elapsed();
    let own = server.get("/api/v1/status").await;
    let name = own["host_name"].as_str().expect("a name");
    let row = wait_for("its own row", FIRST_ROW, async || {
        let row = server.host(name).await?;
        let known = |field: &str| !row[field].is_null();
        (row["status"] == "up" && known("cpu") && known("memory") && known("disk")).then_some(row)
    })
    .await;
    println!("ready {ready:?} and its own row live {:?} after the start: {row}", begun.elapsed());
    assert!(begun.elapsed() < FIRST_ROW, "{:?}", begun.elapsed());
    assert_eq!(row["kind"], "weir");

    let said = Introduction::of(&server).await;
    assert!(said.lines("watching").iter().any(|line| line.starts_with("host:")), "{:?}", said.0);
    assert!(said.lines("watching").iter().any(|line| line.starts_with("process:")), "{:?}", said.0);
    for line in said.lines("not watching") {
        assert!(line.split_once(": ").is_some_and(|(_, why)| !why.is_empty()), "no reason: {line}");
    }
    let watched = server.get("/api/v1/status").await["watching"].clone();
    assert!(watched.as_array().is_some_and(|all| all.iter().any(|one| one["integration"] == "host")), "{watched}");

    let data = server.data();
    assert!(said.lines("data")[0].starts_with(data.to_str().expect("a plain name")), "{:?}", said.lines("data"));
    assert!(said.lines("data")[0].contains("24 h"), "{:?}", said.lines("data"));

    let public = own["public_url"].as_str().expect("an address").to_owned();
    assert!(!public.contains("0.0.0.0"), "nobody can open {public}");
    let token = said.lines("dashboard")[0].strip_prefix(&format!("{public}/#t=")).expect("a link").to_owned();
    assert!(said.lines("dashboard")[1].contains("weir login"));
    let signed_in = server.ask(Method::POST, "/api/v1/login", "", &json!({"token": token})).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.excerpt());

    let line = said.lines("add a machine")[0];
    let path = line.strip_prefix(&format!("curl -fsSL {public}")).and_then(|rest| rest.strip_suffix(" | sh"));
    let script = server.ask(Method::GET, path.expect("the command"), "", &Json::Null).await;
    let script = String::from_utf8_lossy(&script.body);
    assert!(script.starts_with("#!/bin/sh") && script.contains("join"), "{script}");

    let page = server.ask(Method::GET, "/", "", &Json::Null).await;
    assert!(page.status.is_success() && page.body.starts_with(b"<!"), "{}", page.excerpt());
    let (status, took) = server.stop().await;
    println!("ended {took:?} after Ctrl-C");
    assert!(status.success(), "{status}: {}", server.stderr());
    assert_calm(&server.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_the_same_time_all_start() {
    let up = || Server::launch(Options { command: "up", ..Options::default() });
    let mut servers: Vec<Server> = (0..4).map(|_| up()).collect();
    let mut with_the_usual_ports = 0;
    for server in &mut servers {
        server.ready().await;
        let receiving = Introduction::of(server).await.lines("receiving").concat();
        let has_them = receiving.contains("127.0.0.1:4317, 127.0.0.1:4318");
        assert!(has_them || receiving.contains("OTLP on the server's port alone: 127.0.0.1:431"), "{receiving}");
        with_the_usual_ports += usize::from(has_them);
    }
    assert!(with_the_usual_ports <= 1, "{with_the_usual_ports} servers have the same ports");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_loopback_says_how_others_could_join() {
    let server = Server::start(Options::default()).await;
    let said = Introduction::of(&server).await;
    assert!(said.lines("dashboard")[0].starts_with(&format!("{}/#t=", server.url())), "{:?}", said.0);
    assert!(said.lines("add a machine")[0].contains("--listen :8088"), "{:?}", said.0);
    assert_eq!(server.get("/api/v1/hosts").await["hosts"], json!([]), "it watches although nobody said so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_is_there_after_a_stop_and_a_start() {
    let mut server = Server::start(Options::default()).await;
    server.post("/api/servers", &json!({"hostname": "web-1"})).await;
    server.post("/api/metrics", &json!({"serverId": "web-1", "cpuUsage": 45.2})).await;
    let before = server.get("/api/metrics?serverId=web-1").await;
    assert!(server.stop().await.0.success(), "{}", server.stderr());
    server.restart().await;
    assert_eq!(server.get("/api/metrics?serverId=web-1").await, before);
    assert_eq!(before["metrics"][0]["cpuUsage"], 45.2);
}

/// The file of the agent monitor's guide, but for the address.
fn guides_config(url: &str) -> String {
    format!(
        r#"{{
  "agent_id": "web-server-01",
  "monitor_server": "{url}",
  "metrics_interval": 30,
  "heartbeat_interval": 60
}}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_monitors_own_configuration_makes_this_machine_report() {
    let server = Server::start(Options::default()).await;
    let config = server.folder().join("config.json");
    std::fs::write(&config, guides_config(&server.url())).expect("writable");
    let mut agent = Process::start("agent", command().args(["agent", "--config"]).arg(&config));
    let begun = Instant::now();
    let found = wait_for("its metrics", seconds(15), async || {
        assert!(agent.ended().is_none(), "it ended: {}", agent.stderr());
        let path = "/api/v1/agents/web-server-01/metrics?hours=24";
        let answer = server.ask(Method::GET, path, crate::harness::server::ADMIN_KEY, &Json::Null).await;
        let answer: Json = serde_json::from_slice(&answer.body).ok()?;
        let newest = answer["metrics"].as_array()?.last()?.clone();
        let known = ["cpu_usage", "memory_usage", "disk_usage"].iter().all(|field| newest[field].is_number());
        known.then_some(newest)
    })
    .await;
    println!("its metrics after {:?}: {found}", begun.elapsed());
    for field in ["cpu_usage", "memory_usage", "disk_usage"] {
        let percent = found[field].as_f64().expect("a number");
        assert!((0.0..=100.0).contains(&percent), "{field}: {percent}");
    }
    let memory = found["memory_usage"].as_f64().expect("a number");
    let apart = (memory - used_memory_percent()).abs();
    assert!(apart < 25.0, "{memory} % of the memory is used, /proc says {}", used_memory_percent());

    let agents = server.get("/api/v1/agents").await;
    let own = agents["agents"].as_array().expect("a list").iter().find(|agent| agent["id"] == "web-server-01");
    let own = own.unwrap_or_else(|| panic!("it is not registered: {agents}"));
    assert_eq!((&own["hostname"], &own["status"]), (&json!("web-server-01"), &json!("up")), "{own}");
    assert!(server.host("web-server-01").await.is_some());
    assert_calm(&agent.stderr());
}

/// Memory in use, percent: what is not available for new programs.
fn used_memory_percent() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let number = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    };
    100.0 * (1.0 - number("MemAvailable:") / number("MemTotal:"))
}
