//! Probes against servers on loopback, well-behaved and not.

use std::net::SocketAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, rdata::A};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use weir_config::{Document, Environment};
use weir_model::metrics::Metrics;

use super::*;

fn open_within(yaml: &str, timeout: Duration) -> Result<Probe, String> {
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: Arc::from("probe"),
        interval: Duration::from_secs(30),
        timeout,
        resource: Vec::new(),
        telemetry: Arc::default(),
    };
    let node = Document::parse("test.yaml", yaml, &Environment).map_err(|problems| problems.to_string())?;
    let config = weir_config::read("test.yaml", &node, "probe").map_err(|problems| problems.to_string())?;
    Probe::new(config, &context).map_err(|fault| fault.to_string())
}

fn open(yaml: &str) -> Result<Probe, String> {
    open_within(yaml, Duration::from_secs(30))
}

/// Points as metric, labels, number.
struct Points(Vec<Point>);

type Point = (String, Vec<(String, String)>, f64);

impl Points {
    fn of(metrics: &Metrics) -> Self {
        let table = &metrics.table;
        let point = |point: weir_model::metrics::NumberPoint| {
            let metric = table.metric_of(point.series).unwrap();
            let attributes = table.common.list(table.series[point.series as usize].attributes);
            let label =
                |a: &weir_model::Attribute| (table.common.text(a.key).to_owned(), table.common.value_text(a.value));
            (
                table.common.text(metric.name).to_owned(),
                attributes.iter().map(label).collect(),
                point.value.as_f64().unwrap(),
            )
        };
        Self(metrics.numbers.iter().map(point).collect())
    }

    /// The only value of a metric with this label.
    fn find(&self, metric: &str, label: (&str, &str)) -> Option<f64> {
        let has =
            |labels: &[(String, String)]| labels.iter().any(|(key, value)| (key.as_str(), value.as_str()) == label);
        let mut found = self.0.iter().filter(|(name, labels, _)| name == metric && has(labels));
        let value = found.next().map(|point| point.2);
        assert!(found.next().is_none(), "{metric} comes twice with {label:?}");
        value
    }

    /// Of the target with this name.
    fn get(&self, metric: &str, target: &str) -> Option<f64> {
        self.find(metric, ("probe.name", target))
    }

    /// Why the target failed; `None` if it did not.
    fn error_type(&self, target: &str) -> Option<String> {
        let mut failed = self.0.iter().filter(|(name, labels, _)| {
            name == "probe_error" && labels.contains(&("probe.name".to_owned(), target.to_owned()))
        });
        let error =
            failed.next().map(|(_, labels, _)| labels.iter().find(|(key, _)| key == "error.type").unwrap().1.clone());
        assert_eq!(self.get("probe_success", target), Some(if error.is_some() { 0.0 } else { 1.0 }));
        error
    }
}

async fn poll(probe: &mut Probe) -> (Points, Result<(), Fault>) {
    let mut out = MetricsBuilder::new("probe", Vec::new());
    out.begin(1_000, 1);
    let result = probe.collect(&mut out).await;
    (Points::of(&out.finish()), result)
}

/// Probes one target named `t`.
async fn probe(target: &str) -> Points {
    probe_with("", target).await
}

async fn probe_with(options: &str, target: &str) -> Points {
    let mut probe = open(&format!("{options}\ntargets: [{{name: t, {target}}}]")).unwrap();
    let (points, result) = poll(&mut probe).await;
    assert_eq!(result, Ok(()));
    points
}

/// A server that does `serve` with every connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads the head of a request.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A server that sends `answer`, and then closes or hangs.
async fn answering(answer: impl Into<String>, then_hangs: bool) -> SocketAddr {
    let answer: Arc<str> = answer.into().into();
    server(move |mut stream| {
        let answer = answer.clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if then_hangs {
                std::future::pending::<()>().await;
            }
        }
    })
    .await
}

/// Keeps the connection open and says nothing.
async fn hang(stream: TcpStream) {
    std::future::pending::<()>().await;
    drop(stream);
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_web_server_that_answers_is_measured_phase_by_phase() {
    let port = answering(ok("all ok here"), false).await.port();
    let points =
        probe(&format!("http: 'http://user:hunter2@localhost:{port}/health?token=hunter2', expect_body: ok")).await;
    assert_eq!(points.error_type("t"), None);
    for phase in ["resolve", "connect", "processing", "transfer"] {
        assert!(
            points.find("probe_http_duration_seconds", ("phase", phase)).is_some_and(|time| time >= 0.0),
            "{phase}"
        );
    }
    assert_eq!(points.find("probe_http_duration_seconds", ("phase", "tls")), None);
    assert_eq!(points.get("probe_http_status_code", "t"), Some(200.0));
    assert_eq!(points.get("probe_ip_protocol", "t"), Some(4.0));
    assert_eq!(points.find("httpcheck.status", ("http.status_class", "2xx")), Some(1.0));
    assert_eq!(points.find("httpcheck.status", ("http.status_class", "5xx")), Some(0.0));
    assert!(points.get("probe_dns_lookup_time_seconds", "t").is_some());
    let seconds = points.get("probe_duration_seconds", "t").unwrap();
    assert!((points.get("httpcheck.duration", "t").unwrap() - seconds * 1000.0).abs() < 1e-6);
    let labels = &points.0.iter().find(|point| point.0 == "probe_success").unwrap().1;
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let url = format!("url.full=http://localhost:{port}/health");
    let port = format!("server.port={port}");
    assert_eq!(labels, ["probe.name=t", "probe.type=http", "server.address=localhost", port.as_str(), url.as_str()]);
}

#[tokio::test]
async fn credentials_and_headers_go_to_the_configured_server_only() {
    let (sender, mut heads) = mpsc::unbounded_channel();
    let other_sender = sender.clone();
    let other = server(move |mut stream| {
        let sender = other_sender.clone();
        async move {
            sender.send(read_head(&mut stream).await).unwrap();
            let _ = stream.write_all(ok("").as_bytes()).await;
        }
    })
    .await;
    let first = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            let head = read_head(&mut stream).await;
            let location = if head.starts_with("GET /a") { "/b?x=1".to_owned() } else { format!("http://{other}/c") };
            sender.send(head).unwrap();
            let _ = stream
                .write_all(
                    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
                )
                .await;
        }
    })
    .await;
    let points = probe(&format!("http: 'http://us%40er:pass@{first}/a', headers: {{X-Key: secret}}")).await;
    assert_eq!(points.error_type("t"), None);
    assert_eq!(points.get("probe_http_redirects", "t"), Some(2.0));
    for path in ["/a", "/b?x=1"] {
        let head = heads.recv().await.unwrap().to_lowercase();
        assert!(head.starts_with(&format!("get {path} http/1.1")), "{head}");
        // us@er:pass
        assert!(head.contains("authorization: basic dxnazxi6cgfzcw==") && head.contains("x-key: secret"), "{head}");
        assert!(head.contains(&format!("host: {first}\r\n")), "{head}");
    }
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /c ") && !head.contains("authorization") && !head.contains("x-key"), "{head}");
}

#[tokio::test]
async fn redirects_are_followed_five_times_and_not_to_other_schemes() {
    let endless = answering("HTTP/1.1 301 Moved\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n", false).await;
    let points = probe(&format!("http: 'http://{endless}'")).await;
    assert_eq!(points.error_type("t").as_deref(), Some("status"));
    assert_eq!(points.get("probe_http_redirects", "t"), Some(5.0));
    assert_eq!(
        probe(&format!("http: 'http://{endless}', follow_redirects: false, expect_status: [301]"))
            .await
            .error_type("t"),
        None
    );
    let file =
        answering("HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", false).await;
    assert_eq!(probe(&format!("http: 'http://{file}'")).await.error_type("t").as_deref(), Some("status"));
}

#[tokio::test]
async fn every_way_to_fail_has_its_error_type() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let wrong_status = answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", false).await;
    let wrong_body = answering(ok("maintenance"), false).await;
    let no_http = answering("SSH-2.0-OpenSSH_9.6\r\n", false).await;
    let closes = answering("", false).await;
    let talks_first = server(|mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await;
        hang(stream).await;
    })
    .await;
    let cut = answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", false).await;
    for (target, error) in [
        (format!("http: 'http://{closed}'"), "refused"),
        (format!("tcp: '{closed}'"), "refused"),
        ("tcp: 'no-such-host.invalid:80', timeout: 20s".to_owned(), "dns"),
        (format!("http: 'http://{wrong_status}'"), "status"),
        (format!("http: 'http://{wrong_body}', expect_body: healthy"), "body"),
        (format!("http: 'http://{wrong_body}', max_body: 10B"), "body_too_large"),
        (format!("http: 'http://{no_http}'"), "other"),
        (format!("http: 'http://{closes}'"), "other"),
        (format!("http: 'http://{cut}'"), "other"),
        (format!("tls: '{talks_first}'"), "tls"),
        (format!("http: 'https://{talks_first}'"), "tls"),
        ("tcp: '127.0.0.1:1', ip_version: 6".to_owned(), "refused"),
    ] {
        let points = probe(&target).await;
        assert_eq!(points.error_type("t").as_deref(), Some(error), "{target}");
    }
    let points = probe(&format!("http: 'http://{wrong_status}'")).await;
    assert_eq!(points.get("probe_http_status_code", "t"), Some(503.0));
    assert_eq!(points.find("httpcheck.error", ("error.type", "status")), Some(1.0));
    assert_eq!(probe(&format!("http: 'http://{wrong_status}', expect_status: [200, 503]")).await.error_type("t"), None);
}

#[tokio::test]
async fn targets_that_hang_or_never_end_are_cut_and_do_not_delay_the_others() {
    let after_accept = server(hang).await;
    let mid_body = answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", true).await;
    let endless_body = server(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
    })
    .await;
    let endless_head = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
    })
    .await;
    let fine = answering(ok(""), false).await;
    let yaml = format!(
        "targets:
        - {{name: hangs, http: 'http://{after_accept}', timeout: 400ms}}
        - {{name: hangs_tls, tls: '{after_accept}', timeout: 400ms}}
        - {{name: mid_body, http: 'http://{mid_body}', timeout: 400ms}}
        - {{name: endless_body, http: 'http://{endless_body}'}}
        - {{name: endless_head, http: 'http://{endless_head}'}}
        - {{name: fine, http: 'http://{fine}'}}"
    );
    let started = Instant::now();
    let (points, result) = poll(&mut open(&yaml).unwrap()).await;
    assert_eq!(result, Ok(()));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    for (target, error) in [
        ("hangs", Some("timeout")),
        ("hangs_tls", Some("timeout")),
        ("mid_body", Some("timeout")),
        ("endless_body", Some("body_too_large")),
        ("endless_head", Some("other")),
        ("fine", None),
    ] {
        assert_eq!(points.error_type(target).as_deref(), error, "{target}");
    }
    assert!(points.get("probe_duration_seconds", "fine").unwrap() < 0.35);
    assert_eq!(
        points.get("probe_http_status_code", "mid_body"),
        Some(200.0),
        "what was measured before the timeout is kept"
    );
}

#[tokio::test]
async fn a_crowd_that_hangs_is_asked_last_and_whoever_is_left_out_is_named() {
    let hangs = server(hang).await;
    let fine = answering(ok(""), false).await;
    let crowd: String =
        (0..6).map(|at| format!("- {{name: h{at}, http: 'http://{hangs}', timeout: 700ms}}\n")).collect();
    let yaml = format!("max_concurrent: 2\ntargets:\n{crowd}- {{name: fine, http: 'http://{fine}'}}");
    let mut probe = open_within(&yaml, Duration::from_secs(2)).unwrap();
    let started = Instant::now();
    let (_, first) = poll(&mut probe).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let fault = first.unwrap_err();
    assert_eq!(fault.kind, FaultKind::TimedOut);
    assert!(fault.message.contains("not asked: h"), "{}", fault.message);
    let (points, _) = poll(&mut probe).await;
    assert_eq!(points.error_type("fine"), None, "those that did not fail are asked first");
}

/// A TLS server on loopback with a certificate of its own making, valid until the first of January of `year`.
async fn tls_server(year: i32) -> (SocketAddr, tempfile::NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    parameters.not_before = date_time_ymd(2000, 1, 1);
    parameters.not_after = date_time_ymd(year, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(ok("ok").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    (address, file)
}

/// 2099-01-01 and 2001-01-01, unix seconds.
const IN_2099: f64 = 4_070_908_800.0;
const IN_2001: f64 = 978_307_200.0;

#[tokio::test]
async fn the_expiry_of_a_certificate_is_reported_whether_it_is_trusted_or_not() {
    let (address, certificate) = tls_server(2099).await;
    let trusted = format!("ca_file: {}", certificate.path().display());
    for (options, target, error) in [
        ("", format!("tls: '{address}'"), Some("tls")),
        ("", format!("tls: '{address}', tls_skip_verify: true"), None),
        ("", format!("http: 'https://{address}'"), Some("tls")),
        ("", format!("http: 'https://{address}', tls_skip_verify: true"), None),
        (trusted.as_str(), format!("tls: '{address}'"), None),
        (trusted.as_str(), format!("tls: '{address}', server_name: other.example"), Some("tls")),
        (trusted.as_str(), format!("http: 'https://localhost:{}', expect_body: ok", address.port()), None),
    ] {
        let points = probe_with(options, &target).await;
        assert_eq!(points.error_type("t").as_deref(), error, "{options} {target}");
        assert_eq!(points.get("probe_ssl_earliest_cert_expiry", "t"), Some(IN_2099), "{options} {target}");
        let handshake = points.find("probe_http_duration_seconds", ("phase", "tls"));
        assert_eq!(handshake.is_some(), target.starts_with("http") && error.is_none(), "{options} {target}");
    }
}

#[tokio::test]
async fn an_expired_certificate_fails_and_still_says_when_it_expired() {
    let (address, certificate) = tls_server(2001).await;
    let trusted = format!("ca_file: {}", certificate.path().display());
    for (target, error) in
        [(format!("tls: '{address}'"), Some("tls")), (format!("tls: '{address}', tls_skip_verify: true"), None)]
    {
        let points = probe_with(&trusted, &target).await;
        assert_eq!(points.error_type("t").as_deref(), error, "{target}");
        assert_eq!(points.get("probe_ssl_earliest_cert_expiry", "t"), Some(IN_2001), "{target}");
    }
}

#[tokio::test]
async fn a_ca_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (path, text) in
        [(file.path().display().to_string(), "no PEM certificate"), ("/no/such/file".to_owned(), "No such file")]
    {
        let mut probe = open(&format!("ca_file: {path}\ntargets: [{{tls: 'localhost:1'}}]")).unwrap();
        let fault = poll(&mut probe).await.1.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Configuration);
        assert!(fault.message.contains(text) && fault.message.contains(&path), "{}", fault.message);
    }
}

/// What the DNS server of the tests does with a question for a name.
fn dns_answer(question: &Message) -> Option<Message> {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_queries(question.queries.clone());
    let name = question.queries[0].name().clone();
    let record = || Record::from_rdata(name.clone(), 60, RData::A(A::new(192, 0, 2, 1)));
    match name.to_utf8().as_str() {
        "here.test." => drop(answer.add_answer(record())),
        "empty.test." => {}
        "silent.test." => return None,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    Some(answer)
}

/// A DNS server on loopback. Before each right answer it sends garbage and the answer to another
/// question; answers for `here.test` over UDP are truncated if `truncates`.
async fn dns_server(truncates: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut packet = [0_u8; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let question = Message::from_vec(&packet[..length]).unwrap();
            assert!(question.metadata.message_type == MessageType::Query && question.metadata.recursion_desired);
            let Some(mut answer) = dns_answer(&question) else { continue };
            socket.send_to(b"garbage", peer).await.unwrap();
            let mut other = answer.clone();
            other.metadata.id = other.metadata.id.wrapping_add(1);
            other.metadata.response_code = ResponseCode::ServFail;
            socket.send_to(&other.to_vec().unwrap(), peer).await.unwrap();
            if truncates {
                answer.metadata.truncation = true;
                answer.answers.clear();
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let answer = dns_answer(&Message::from_vec(&packet).unwrap()).unwrap().to_vec().unwrap();
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn dns_servers_are_asked_and_their_codes_are_labels() {
    for truncates in [false, true] {
        let server = dns_server(truncates).await;
        let points = probe(&format!("dns: here.test, server: '{server}'")).await;
        assert_eq!(points.error_type("t"), None, "truncates: {truncates}");
        assert_eq!(points.find("probe_dns_answer_rrs", ("dns.response_code", "NOERROR")), Some(1.0));
        assert!(points.find("probe_dns_lookup_time_seconds", ("dns.record_type", "A")).is_some());
    }
    let server = dns_server(false).await;
    for (target, code, error) in [
        ("dns: gone.test", Some("NXDOMAIN"), "dns"),
        ("dns: empty.test", Some("NOERROR"), "dns"),
        ("dns: here.test, record: AAAA", Some("NOERROR"), "dns"),
        ("dns: silent.test, timeout: 300ms", None, "timeout"),
    ] {
        let points = probe(&format!("{target}, server: '{server}'")).await;
        assert_eq!(points.error_type("t").as_deref(), Some(error), "{target}");
        if let Some(code) = code {
            assert_eq!(points.find("probe_dns_answer_rrs", ("dns.response_code", code)), Some(0.0), "{target}");
        }
    }
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(probe(&format!("dns: here.test, server: '{closed}'")).await.error_type("t").as_deref(), Some("refused"));
}

#[tokio::test]
async fn hosts_reply_to_pings_over_both_versions_of_ip_each_to_its_own() {
    let many: String = (1..=30)
        .map(|at| format!("- {{name: v4-{at}, icmp: 127.0.0.{at}}}\n- {{name: v6-{at}, icmp: '::1'}}\n"))
        .collect();
    let mut probe = open(&format!("targets:\n{many}")).unwrap();
    for _ in 0..2 {
        let (points, result) = poll(&mut probe).await;
        if let Err(fault) = result {
            assert_eq!(fault.kind, FaultKind::Permission, "{}", fault.message);
            assert_eq!(points.error_type("v4-1").as_deref(), Some("permission"));
            eprintln!("SKIPPED: this user may not ping: {}", fault.message);
            return;
        }
        for at in 1..=30 {
            for version in [4, 6] {
                let name = format!("v{version}-{at}");
                assert_eq!(points.error_type(&name), None, "{name}");
                assert!(
                    points.get("probe_icmp_rtt_seconds", &name).is_some_and(|time| time > 0.0 && time < 5.0),
                    "{name}"
                );
                assert_eq!(points.get("probe_ip_protocol", &name), Some(f64::from(version)));
            }
        }
    }
}

#[test]
fn missing_rights_are_a_fault_with_the_remedy() {
    let fault = faults(&["10.0.0.1".to_owned()], &[]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Permission);
    assert!(fault.message.starts_with("cannot ping 10.0.0.1: ICMP needs"), "{}", fault.message);
    let many: Vec<String> = (0..100).map(|at| format!("h{at}")).collect();
    let message = faults(&many, &[]).unwrap_err().message;
    assert!(message.starts_with("cannot ping h0, h1, h2, h3, h4 and 95 more: "), "{message}");
    assert!(fault.message.contains("net.ipv4.ping_group_range") && fault.message.contains("CAP_NET_RAW"));
}

#[test]
fn the_own_sample_is_understood_and_tells_what_it_watches() {
    let node = Document::parse("sample", ABOUT.sample, &Environment).unwrap();
    let config: ProbeConfig = weir_config::read("sample", node.get("probe").unwrap(), "probe").unwrap();
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: Arc::from("probe"),
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
        resource: Vec::new(),
        telemetry: Arc::default(),
    };
    let mut probe = Probe::new(config, &context).unwrap();
    assert_eq!(
        probe.watching().watched,
        [
            "http https://example.com/health",
            "tcp db.example.com:5432",
            "tls example.com:443",
            "dns example.com",
            "icmp 10.0.0.1"
        ]
    );
}

#[test]
fn configurations_that_cannot_work_are_refused_with_the_remedy() {
    for (yaml, text) in [
        ("targets: []", "no `targets` are listed"),
        ("targets: [{name: a}]", "targets[0]: exactly one of http, tcp, tls, dns and icmp must be given, found 0"),
        ("targets: [{icmp: a, tcp: 'a:1'}]", "found 2"),
        (
            "targets: [{tcp: 'a:1', expect_status: [200]}]",
            "`expect_status` means something only with http, not with tcp",
        ),
        ("targets: [{icmp: a}, {icmp: a}]", "targets[1]: there are two icmp targets `a`: give each its own `name`"),
        ("targets: [{tcp: ':80'}]", "`tcp` needs a host"),
        ("targets: [{dns: 'a..b'}]", "`a..b` is no DNS name"),
        ("targets: [{icmp: a, timeout: 60s}]", "its `timeout` of 1m is longer than the poll's of 30s"),
        ("targets: [{icmp: a, ip_version: 5}]", "`ip_version` is 4 or 6"),
        ("targets: [{http: 'http://a', expect_status: [20]}]", "20 is no HTTP status"),
        ("targets: [{http: 'ftp://a'}]", "must start with"),
        ("targets: [{htp: 'http://a'}]", "htp"),
    ] {
        let error = open(yaml).unwrap_err();
        assert!(error.contains(text), "{yaml}: {error}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let probe = open("targets: [{http: 'http://user:hunter2@a/', headers: {X-Key: hunter2}}]").unwrap();
    let shown = format!("{probe:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
