//! Scrapes of targets on loopback, good and bad.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tokio::io::AsyncWriteExt;
use weir_model::metrics::{Metrics, Number};
use weir_net::Compression;

use super::*;

const NOW: u64 = 1_700_000_000_000_000_000;
const GOOD: &str = "# TYPE jobs_total counter\njobs_total{job=\"inner\"} 3\nheat 1.5\n";

fn context(timeout: Duration) -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: "prometheus_scrape".into(),
        interval: Duration::from_secs(60),
        timeout,
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

fn collector(configure: impl FnOnce(&mut Config)) -> PrometheusScrape {
    let mut config = Config::default();
    configure(&mut config);
    PrometheusScrape::new(config, &context(Duration::from_secs(10))).unwrap()
}

fn address(text: impl Into<String>) -> StaticTarget {
    StaticTarget::Address(text.into())
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn serve_text(body: &'static str) -> String {
    serve(Router::new().route("/metrics", get(move || async move { body }))).await
}

/// One poll: its fault, and its points as `instance name{labels} value`.
async fn poll(collector: &mut PrometheusScrape, at: u64) -> (Option<Fault>, Vec<String>) {
    let mut out = MetricsBuilder::new("prometheus_scrape", Vec::new());
    out.begin(NOW + at, 1);
    let result = collector.collect(&mut out).await;
    (result.err(), lines(&out.finish()))
}

fn lines(metrics: &Metrics) -> Vec<String> {
    let (table, common) = (&metrics.table, &metrics.table.common);
    let text = |attributes, key: &str| common.find(attributes, key).map(|v| common.value_text(v)).unwrap_or_default();
    let mut lines: Vec<String> = metrics
        .numbers
        .iter()
        .map(|point| {
            let metric = table.metric_of(point.series).unwrap();
            let labels: Vec<String> = common
                .list(table.series[point.series as usize].attributes)
                .iter()
                .map(|a| format!("{}={}", common.text(a.key), common.value_text(a.value)))
                .collect();
            let resource = common.resources[common.scopes[metric.scope as usize].resource as usize].attributes;
            let value = match point.value {
                Number::None => {
                    assert_eq!(point.flags, NO_RECORDED_VALUE);
                    "ended".to_owned()
                }
                value => value.as_f64().unwrap().to_string(),
            };
            let instance = text(resource, "service.instance.id");
            format!("{instance} {}{{{}}} {value}", common.text(metric.name), labels.join(","))
        })
        .filter(|line| {
            !line.contains("scrape_duration_seconds{} 0") && !line.contains("scrape_duration_seconds{team=a} 0")
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_target_is_scraped_and_reported_with_its_identity() {
    let target = serve_text(GOOD).await;
    let mut collector = collector(|config| {
        let labels = BTreeMap::from([("team".into(), "a".into())]);
        config.targets = vec![StaticTarget::Labelled(target::LabelledTarget { url: target.clone(), labels })];
    });
    let (fault, lines) = poll(&mut collector, 0).await;
    assert_eq!(fault, None);
    let expected: Vec<String> = [
        "heat{team=a} 1.5",
        "jobs_total{exported_job=inner,team=a} 3",
        "scrape_samples_post_metric_relabeling{team=a} 2",
        "scrape_samples_scraped{team=a} 2",
        "scrape_series_added{team=a} 2",
        "up{team=a} 1",
    ]
    .iter()
    .map(|line| format!("{target} {line}"))
    .collect();
    assert_eq!(lines, expected);
    assert_eq!(collector.watching().watched, ["1 target"]);
    let (_, lines) = poll(&mut collector, 1).await;
    assert!(lines.contains(&format!("{target} scrape_series_added{{team=a}} 0")), "{lines:?}");
}

#[tokio::test]
async fn targets_that_are_down_slow_huge_or_no_targets_fail_alone_and_are_named() {
    let good = serve_text(GOOD).await;
    let broken = serve_text("good 1\nbad\n").await;
    let page = serve(Router::new().route("/metrics", get(|| async { axum_html() }))).await;
    let missing = serve(Router::new()).await;
    let locked = serve(Router::new().route("/metrics", get(|| async { http::StatusCode::UNAUTHORIZED }))).await;
    let huge = serve(Router::new().route("/metrics", get(|| async { endless() }))).await;
    let slow = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let dripping = dripping().await;
    let mut collector = collector(|config| {
        config.targets = [&good, &broken, &page, &missing, &locked, &huge, &slow, &dripping].map(address).to_vec();
        config.targets.push(address("127.0.0.1:1"));
        config.scrape_timeout = Some(weir_config::Duration::from_millis(700));
        config.body_limit = ByteSize::from_mebibytes(4);
    });
    let begun = Instant::now();
    let mut out = MetricsBuilder::new("prometheus_scrape", Vec::new());
    out.begin(NOW, 1);
    let fault = collector.collect(&mut out).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "targets that hang are waited for together");
    let lines = lines(&out.finish());
    assert!(
        lines.contains(&format!("{good} up{{}} 1")) && lines.contains(&format!("{good} heat{{}} 1.5")),
        "{lines:?}"
    );
    let down = lines.iter().filter(|line| line.ends_with("up{} 0")).count();
    assert_eq!(down, 8, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("good{}")), "nothing of a scrape with a wrong line is kept");
    assert!(fault.message.starts_with("8 of 9 targets failed: "), "{fault}");
    assert!(fault.message.ends_with("; and 3 more"), "{fault}");
    assert_eq!(fault.kind, FaultKind::Other);
}

fn axum_html() -> ([(http::HeaderName, &'static str); 1], &'static str) {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], "<html>hello</html>")
}

/// 1 GiB of metrics, if somebody reads it.
fn endless() -> Body {
    let chunk = Bytes::from("a_metric_with_a_long_name 1\n".repeat(2400));
    let chunks = (1_usize << 30) / chunk.len();
    Body::from_stream(futures_util::stream::iter((0..chunks).map(move |_| Ok::<_, std::io::Error>(chunk.clone()))))
}

/// Sends a byte now and then and never ends.
async fn dripping() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100000\r\n\r\n";
                stream.write_all(head).await.unwrap();
                while stream.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn every_failure_says_what_it_is_and_has_its_kind() {
    let page = serve(Router::new().route("/metrics", get(|| async { axum_html() }))).await;
    let huge = serve(Router::new().route("/metrics", get(|| async { endless() }))).await;
    let slow = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let moved =
        serve(Router::new().route("/metrics", get(|| async { axum::response::Redirect::permanent("/other") }))).await;
    let json =
        serve(Router::new().route("/metrics", get(|| async { ([(CONTENT_TYPE, "application/json")], "{}") }))).await;
    let cut = serve(Router::new().route(
        "/metrics",
        get(|| async { ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0")], "a 1\n") }),
    ))
    .await;
    for (target, kind, part) in [
        (serve_text("good 1\nbad\n").await, FaultKind::Decode, "line 2: expected a value"),
        (page, FaultKind::NotFound, "web page"),
        (serve(Router::new()).await, FaultKind::NotFound, "404 Not Found: check `metrics_path`"),
        (huge, FaultKind::TooLarge, "larger than `body_limit`, 1MiB, and was cut off"),
        (slow, FaultKind::TimedOut, "no answer within 0."),
        (moved, FaultKind::NotFound, "redirects to `/other`"),
        (json, FaultKind::Decode, "application/json"),
        (cut, FaultKind::Decode, "it was cut off"),
        ("127.0.0.1:1".to_owned(), FaultKind::Unreachable, "refuses the connection"),
        (serve_text("a 1\nb 1\nc 1\nd 1\n").await, FaultKind::TooLarge, "line 4: there are more than 3 samples"),
    ] {
        let mut collector = collector(|config| {
            config.targets = vec![address(&target)];
            config.scrape_timeout = Some(weir_config::Duration::from_millis(300));
            config.body_limit = ByteSize::from_mebibytes(1);
            config.sample_limit = Some(3);
        });
        let (fault, lines) = poll(&mut collector, 0).await;
        let fault = fault.expect(part);
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(part), "{fault}");
        assert!(fault.message.contains(&format!("1 of 1 targets failed: http://{target}/metrics: ")), "{fault}");
        assert!(lines.contains(&format!("{target} up{{}} 0")), "{lines:?}");
    }
}

#[tokio::test]
async fn more_targets_than_slots_are_all_scraped_and_a_hanging_one_costs_its_own_time_only() {
    let slow = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let mut targets = vec![address(&slow)];
    for _ in 0..6 {
        targets.push(address(serve_text(GOOD).await));
    }
    let mut collector = collector(|config| {
        config.targets = targets;
        config.concurrency = 2;
        config.scrape_timeout = Some(weir_config::Duration::from_millis(400));
    });
    let (fault, lines) = poll(&mut collector, 0).await;
    assert!(fault.unwrap().message.starts_with("1 of 7 targets failed"));
    assert_eq!(lines.iter().filter(|line| line.ends_with("up{} 1")).count(), 6);
}

#[tokio::test]
async fn a_request_asks_for_what_is_understood_and_shows_the_credentials() {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let kept = seen.clone();
    let target = serve(Router::new().route(
        "/probe",
        get(move |headers: HeaderMap, uri: http::Uri| async move {
            assert_eq!(uri.query(), Some("module=http"));
            kept.lock().unwrap().push(headers);
            let body = Compression::Gzip.compress(Bytes::from_static(b"a 1\n# EOF\n")).unwrap();
            let types = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_ENCODING, "gzip"), (CONTENT_TYPE, types)], body)
        }),
    ))
    .await;
    let mut collector = collector(|config| {
        config.targets = vec![address(format!("http://{target}/probe?module=http"))];
        config.bearer_token = Some(Secret::new("hunter2"));
        config.headers.insert("x-key".into(), Secret::new("k"));
    });
    let (fault, lines) = poll(&mut collector, 0).await;
    assert_eq!(fault, None);
    assert!(lines.contains(&format!("{target} a{{}} 1")), "{lines:?}");
    let headers = seen.lock().unwrap().pop().unwrap();
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert_eq!(headers["x-key"], "k");
    assert_eq!(headers["accept-encoding"], "gzip");
    let seconds: f64 = headers["x-prometheus-scrape-timeout-seconds"].to_str().unwrap().parse().unwrap();
    assert!((8.0..=9.0).contains(&seconds), "{seconds}");
    assert_eq!(headers["host"], target.as_str());
    assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text;version=1.0.0,text/plain"));
}

#[tokio::test]
async fn a_bomb_stops_at_the_limit_after_decompression_too() {
    let target = serve(Router::new().route(
        "/metrics",
        get(|| async {
            let body = Compression::Gzip.compress(Bytes::from("a 1\n".repeat(1 << 20))).unwrap();
            ([(CONTENT_ENCODING, "gzip"), (CONTENT_TYPE, "text/plain")], body)
        }),
    ))
    .await;
    let mut collector = collector(|config| {
        config.targets = vec![address(&target)];
        config.body_limit = ByteSize::from_mebibytes(1);
    });
    let (fault, _) = poll(&mut collector, 0).await;
    assert_eq!(fault.unwrap().kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn series_end_when_they_or_their_scrape_are_gone_and_begin_again() {
    let answers = ["a 1\nb 1\n", "a 2\n", "!", "a 3\n"];
    let at = Arc::new(AtomicUsize::new(0));
    let target = serve(Router::new().route(
        "/metrics",
        get(move || {
            let answer = answers[at.fetch_add(1, Ordering::Relaxed).min(3)];
            async move { answer }
        }),
    ))
    .await;
    let mut collector = collector(|config| config.targets = vec![address(&target)]);
    let mut seen = Vec::new();
    for at in 0..4 {
        let lines = poll(&mut collector, at).await.1;
        let strip = |line: &String| line.strip_prefix(&format!("{target} ")).map(str::to_owned);
        let own = lines.iter().filter_map(strip).filter(|line| !line.starts_with("scrape_"));
        seen.push(own.collect::<Vec<String>>());
    }
    assert_eq!(seen[0], ["a{} 1", "b{} 1", "up{} 1"]);
    assert_eq!(seen[1], ["a{} 2", "b{} ended", "up{} 1"]);
    assert_eq!(seen[2], ["a{} ended", "up{} 0"], "a failed scrape ends all series, and only once");
    assert_eq!(seen[3], ["a{} 3", "up{} 1"]);
}

#[tokio::test]
async fn files_of_targets_are_followed_and_a_broken_one_keeps_its_targets() {
    let folder = std::env::temp_dir().join(format!("weir-targets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (json, yaml) = (folder.join("a.json"), folder.join("b.yaml"));
    let (first, second) = (serve_text("one 1\n").await, serve_text("two 2\n").await);
    let other_path = serve(Router::new().route("/other", get(|| async { "three 3\n" }))).await;
    std::fs::write(&json, format!("[{{\"targets\":[\"{first}\"],\"labels\":{{\"job\":\"x\",\"team\":\"a\"}}}}]"))
        .unwrap();
    let mut collector = collector(|config| {
        config.target_files = vec![folder.join("*.json").display().to_string(), yaml.display().to_string()];
    });
    let (fault, lines) = poll(&mut collector, 0).await;
    assert!(fault.unwrap().message.contains("b.yaml"), "a file that is named but missing is told");
    assert!(lines.contains(&format!("{first} one{{team=a}} 1")), "{lines:?}");

    let groups = format!(
        "- targets: [\"{second}\"]\n- targets: [\"{other_path}\"]\n  labels: {{__metrics_path__: /other, __meta_x: y, version: 1.10}}\n"
    );
    std::fs::write(&yaml, groups).unwrap();
    std::fs::write(&json, "[{\"targets\": [").unwrap();
    let (fault, lines) = poll(&mut collector, 1).await;
    let fault = fault.unwrap();
    assert!(fault.message.contains("a.json") && fault.message.contains("stay as they were"), "{fault}");
    assert!(lines.contains(&format!("{first} one{{team=a}} 1")), "{lines:?}");
    assert!(lines.contains(&format!("{second} two{{}} 2")), "{lines:?}");
    assert!(lines.contains(&format!("{other_path} three{{version=1.10}} 3")), "{lines:?}");

    std::fs::remove_file(&json).unwrap();
    let (fault, lines) = poll(&mut collector, 2).await;
    assert_eq!(fault, None);
    for series in ["one", "up", "scrape_series_added", "scrape_samples_scraped"] {
        assert!(lines.contains(&format!("{first} {series}{{team=a}} ended")), "{series}: {lines:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn targets_are_read_with_their_defaults() {
    let defaults = Defaults { job: "j".into(), scheme: Scheme::Https, path: "/metrics".into() };
    let made = |text: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Target::new(text, &labels, &defaults)
    };
    let target = made("localhost:9100", &[("instance", "me"), ("__param_a", "b c")]).unwrap();
    assert_eq!(target.url.as_str(), "https://localhost:9100/metrics?a=b+c");
    assert_eq!(target.place, "https://localhost:9100/metrics");
    assert_eq!(target.resource()[1], ("service.instance.id", "me"));
    assert_eq!(made("http://user:hunter2@[::1]/x", &[]).unwrap().place, "http://[::1]:80/x");
    assert_eq!(made("http://[::1]/x", &[]).unwrap().resource()[2], ("server.address", "::1"));
    for text in ["", "a b", "ftp://x", "http://", "user:hunter2@ho st"] {
        let error = made(text, &[]).unwrap_err();
        assert!(error.contains("is no target") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn configurations_that_make_no_sense_are_refused_with_a_remedy() {
    let refused = |configure: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        configure(&mut config);
        PrometheusScrape::new(config, &context(Duration::from_secs(10))).err().unwrap().message
    };
    assert!(refused(&|_| {}).contains("add `targets`"));
    assert!(
        refused(&|config| config.targets = vec![address("a:1"), address("http://a:1/x")])
            .contains("give one of them a label")
    );
    assert!(refused(&|config| config.target_files = vec!["/etc/*/a.json".into()]).contains("one `*`"));
    let timeout = refused(&|config| {
        config.targets = vec![address("a:1")];
        config.scrape_timeout = Some(weir_config::Duration::from_secs(10));
    });
    assert!(timeout.contains("at most 9s"), "{timeout}");
    assert_eq!(
        (job_of("prometheus_scrape").as_str(), job_of("prometheus_scrape/db").as_str()),
        ("prometheus_scrape", "db")
    );
}

/// Against real targets whose addresses stand in `WEIR_TEST_TARGETS`, separated by commas.
#[tokio::test]
#[ignore = "needs targets in WEIR_TEST_TARGETS, for example 127.0.0.1:9100"]
async fn real_targets_are_scraped_without_a_fault() {
    let addresses = std::env::var("WEIR_TEST_TARGETS").expect("WEIR_TEST_TARGETS");
    let mut collector = collector(|config| config.targets = addresses.split(',').map(address).collect());
    for at in 0..2 {
        let (fault, lines) = poll(&mut collector, at).await;
        assert_eq!(fault, None);
        for target in addresses.split(',') {
            assert!(lines.contains(&format!("{target} up{{}} 1")));
            let own = |line: &&String| line.starts_with(target) && line.contains(" scrape_");
            println!("{:?}", lines.iter().filter(own).collect::<Vec<_>>());
        }
    }
}
