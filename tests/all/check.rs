//! `weir check` against a right target, a wrong port, a wrong path and a wrong key: four clearly
//! different answers.

use crate::harness::capture::Capture;
use crate::harness::peers::{Peer, peer};
use crate::harness::prometheus::Prometheus;
use crate::harness::weir::{Agent, ConfigFile, run, said};
use crate::harness::{free_port, seconds, wait_for};

/// Exit code and the line about an integration.
fn check(name: &str, options: &str) -> (i32, String) {
    let config = ConfigFile::new(&format!(
        "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  {name}: {options}\n"
    ));
    let output = run(&["check", "--config", config.path()]);
    let text = said(&output);
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
    let line = line.unwrap_or_else(|| panic!("no line about {name}:\n{text}"));
    println!("{line}");
    (output.status.code().expect("not killed"), line.to_owned())
}

/// Checks the four answers about one integration: right, wrong port, wrong path, wrong key.
fn assert_four_answers(name: &str, options: [&str; 4], wrong_port: u16) {
    let [right, port, path, key] = options.map(|options| check(name, options));
    assert!(right.0 == 0 && right.1.starts_with("ok"), "{right:?}");
    for wrong in [&port, &path, &key] {
        assert!(wrong.0 == 1 && wrong.1.starts_with("FAIL"), "{wrong:?}");
        assert!(!wrong.1.contains("guessed-key"), "the key is printed: {wrong:?}");
    }
    assert!(port.1.contains(&wrong_port.to_string()) && port.1.contains("is the server running"), "{port:?}");
    assert!(path.1.contains("404") && path.1.contains("path"), "{path:?}");
    assert!(key.1.contains("credentials"), "{key:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_four_answers_of_prometheus_apart() {
    let Some(program) = peer(Peer::Prometheus2) else { return };
    // The bcrypt hash of the password below.
    let users = "basic_auth_users: {weir: \"$2b$04$abcdefghijklmnopqrstuugQ/a6oYYBPBNqPPanR.owUrf6Ly3cU6\"}\n";
    let web = ConfigFile::new(users);
    let prometheus =
        Prometheus::start(&program, "scrape_configs: []\n", &[&format!("--web.config.file={}", web.path())]).await;
    let closed = free_port();
    let options = |address: &str, path: &str, password: &str| {
        format!("{{endpoint: \"http://{address}/{path}\", username: weir, password: \"{password}\"}}")
    };
    let options = [
        options(&prometheus.address, "api/v1/write", "right key"),
        options(&format!("127.0.0.1:{closed}"), "api/v1/write", "right key"),
        options(&prometheus.address, "api/v1/wright", "right key"),
        options(&prometheus.address, "api/v1/write", "guessed-key"),
    ];
    wait_until_checked("prometheus", &options[0]).await;
    assert_four_answers("prometheus", options.each_ref().map(String::as_str), closed);
}

/// The server may still be getting ready.
async fn wait_until_checked(name: &str, options: &str) {
    wait_for(&format!("{name} is ready"), seconds(30), async || (check(name, options).0 == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_four_answers_of_otlp_apart() {
    let capture = Capture::start().await;
    let (grpc, http, closed) = (free_port(), free_port(), free_port());
    let receiver = format!(
        "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
         otlp_receiver: {{grpc: \"127.0.0.1:{grpc}\", http: \"127.0.0.1:{http}\", bearer_token: right-key}}\n{}",
        capture.exporter("otlp")
    );
    let _receiver = Agent::start("receiving weir", &receiver);
    let options = |port: u16, path: &str, key: &str| {
        format!("{{endpoint: \"http://127.0.0.1:{port}{path}\", bearer_token: \"{key}\", timeout: 5s}}")
    };
    let over_http = [
        options(http, "", "right-key"),
        options(closed, "", "right-key"),
        options(http, "/somewhere", "right-key"),
        options(http, "", "guessed-key"),
    ];
    wait_until_checked("otlp", &over_http[0]).await;
    assert_four_answers("otlp", over_http.each_ref().map(String::as_str), closed);
    // gRPC has no path; the others must be as clear.
    let over_grpc = |port: u16, key: &str| {
        check(
            "otlp",
            &format!("{{protocol: grpc, endpoint: \"http://127.0.0.1:{port}\", bearer_token: \"{key}\", timeout: 5s}}"),
        )
    };
    assert_eq!(over_grpc(grpc, "right-key").0, 0);
    let (code, line) = over_grpc(closed, "right-key");
    assert!(code == 1 && line.contains(&closed.to_string()) && line.contains("is the server running"), "{line}");
    let (code, line) = over_grpc(grpc, "guessed-key");
    assert!(code == 1 && line.contains("credentials") && !line.contains("guessed-key"), "{line}");
    assert!(
        capture.requests("/v1/metrics").iter().all(|request| request.body.len() < 1024),
        "a check sends no user data"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_four_answers_of_a_scrape_target_apart() {
    let Some(program) = peer(Peer::Prometheus2) else { return };
    let users = "basic_auth_users: {weir: \"$2b$04$abcdefghijklmnopqrstuugQ/a6oYYBPBNqPPanR.owUrf6Ly3cU6\"}\n";
    let web = ConfigFile::new(users);
    let prometheus =
        Prometheus::start(&program, "scrape_configs: []\n", &[&format!("--web.config.file={}", web.path())]).await;
    let closed = free_port();
    let options = |address: &str, path: &str, password: &str| {
        format!("{{targets: [\"http://{address}/{path}\"], username: weir, password: \"{password}\"}}")
    };
    let options = [
        options(&prometheus.address, "metrics", "right key"),
        options(&format!("127.0.0.1:{closed}"), "metrics", "right key"),
        options(&prometheus.address, "metricz", "right key"),
        options(&prometheus.address, "metrics", "guessed-key"),
    ];
    wait_until_checked("prometheus_scrape", &options[0]).await;
    assert_four_answers("prometheus_scrape", options.each_ref().map(String::as_str), closed);
}
