//! Real senders (`logger`, rsyslogd), and some that mean no good.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use weir_config::{Acknowledge, Document, Environment};
use weir_model::Value;
use weir_model::metrics::Number;
use weir_pipeline::health::State;
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::{Delivery, Export, Takes};
use weir_pipeline::telemetry::Telemetry;
use weir_pipeline::{Outcome, Problems};

use super::*;

fn config(yaml: &str) -> Result<SyslogConfig, Problems> {
    let node = Document::parse("test.yaml", yaml, &Environment)?;
    weir_config::read("test.yaml", &node, "syslog")
}

fn open(yaml: &str, telemetry: &Arc<Telemetry>) -> Result<Syslog, String> {
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: Arc::from("syslog"),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(10),
        resource: vec![("host.name".into(), "agent".into())],
        telemetry: telemetry.clone(),
    };
    let config = config(yaml).map_err(|problems| problems.to_string())?;
    Syslog::new(config, &context).map_err(|fault| fault.to_string())
}

/// A backend that keeps what it gets, or takes nothing.
#[derive(Clone, Default)]
struct Sink {
    payloads: Arc<Mutex<Vec<Payload>>>,
    is_away: Arc<AtomicBool>,
}

impl Export for Sink {
    type Config = SyslogConfig;

    fn new(_: SyslogConfig, _: &Context) -> Result<Self, Fault> {
        Ok(Sink::default())
    }

    fn takes(&self) -> Takes {
        Takes { ordered: true, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        if self.is_away.load(Ordering::Acquire) {
            return Outcome::Later { after: Some(Duration::from_millis(20)), why: "away".into() };
        }
        self.payloads.lock().unwrap().extend(delivery.payloads.iter().cloned());
        Outcome::Accepted
    }

    async fn check(&self) -> Result<String, Fault> {
        Ok(String::new())
    }
}

impl Sink {
    fn logs<T>(&self, each: impl FnMut(&weir_model::logs::Logs) -> Vec<T>) -> Vec<T> {
        let payloads = self.payloads.lock().unwrap();
        let logs = payloads.iter().filter_map(|payload| match payload.records() {
            Ok(Records::Logs(logs)) => Some(logs),
            _ => None,
        });
        logs.flat_map(each).collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.logs(|logs| logs.records.iter().map(|record| logs.common.value_text(record.body)).collect())
    }

    /// Host, severity, body and attributes of every record, without the sender's port.
    fn records(&self) -> Vec<String> {
        self.logs(|logs| {
            let common = &logs.common;
            let text = |record: &weir_model::logs::LogRecord| {
                let resource = common.resources[common.scopes[record.scope as usize].resource as usize];
                let host = common.find(resource.attributes, "host.name").map_or("-".into(), |v| common.value_text(v));
                let attributes = common.list(record.attributes).iter();
                let attributes: Vec<String> = attributes
                    .filter(|a| common.text(a.key) != "network.peer.port")
                    .map(|a| format!("{}={}", common.text(a.key), common.value_text(a.value)))
                    .collect();
                let body = match record.body {
                    Value::Bytes(_) => format!("0x{}", common.value_text(record.body)),
                    body => common.value_text(body),
                };
                let severity = format!("{}{}", record.severity_number, common.text(record.severity_text));
                format!("{host} {severity} {body} {}", attributes.join(" "))
            };
            logs.records.iter().map(text).collect()
        })
    }

    async fn until(&self, count: usize) {
        let begun = Instant::now();
        while self.bodies().len() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {count} records", self.bodies().len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last value of a metric's series whose only label has this value, or that has none.
    fn metric(&self, name: &str, label: &str) -> Option<u64> {
        let payloads = self.payloads.lock().unwrap();
        payloads.iter().rev().find_map(|payload| {
            let Ok(Records::Metrics(metrics)) = payload.records() else { return None };
            let table = &metrics.table;
            metrics.numbers.iter().find_map(|point| {
                let series = &table.series[point.series as usize];
                let labels = table.common.list(series.attributes);
                let fits = labels.first().map_or("", |l| match l.value {
                    Value::String(text) => table.common.text(text),
                    _ => "",
                });
                match point.value {
                    Number::Int(value)
                        if table.common.text(table.metrics[series.metric as usize].name) == name && fits == label =>
                    {
                        u64::try_from(value).ok()
                    }
                    _ => None,
                }
            })
        })
    }
}

/// A port that was free a moment ago, for TCP and UDP.
fn free_port() -> u16 {
    loop {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

struct Running {
    pipeline: Pipeline,
    telemetry: Arc<Telemetry>,
    port: u16,
    sink: Sink,
}

const EVERYTHING: &str = "{udp: '127.0.0.1:PORT', tcp: '127.0.0.1:PORT'}";

impl Running {
    async fn start(yaml: &str) -> Running {
        Running::start_within(yaml, 64 << 20).await
    }

    async fn start_within(yaml: &str, memory_bytes: usize) -> Running {
        let (port, sink) = (free_port(), Sink::default());
        let control = weir_pipeline::control::Control::default();
        let telemetry = control.telemetry().clone();
        let syslog = open(&yaml.replace("PORT", &port.to_string()), &telemetry).unwrap();
        let options = ExportOptions { queue_size: None, ..ExportOptions::default() };
        let members = vec![Member::receiver("syslog", syslog), Member::exporter("sink", options, sink.clone())];
        let acknowledge = Acknowledge::Durable;
        let plan = Plan { members, acknowledge, memory_bytes, control, ..Plan::default() };
        let pipeline = Pipeline::start(plan).await.unwrap_or_else(|error| panic!("{error}"));
        let running = Running { pipeline, telemetry, port, sink };
        // It listens in a moment.
        let begun = Instant::now();
        while yaml.contains("127.0.0.1:PORT") && !running.is_listening(yaml).await {
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running
    }

    async fn is_listening(&self, yaml: &str) -> bool {
        let udp = fs::read_to_string("/proc/self/net/udp").unwrap().contains(&format!("0100007F:{:04X} ", self.port));
        let streams = yaml.matches("127.0.0.1:PORT").count() > usize::from(yaml.contains("udp: '1"));
        (udp || !yaml.contains("udp: '1")) && (!streams || TcpStream::connect(self.address()).await.is_ok())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    async fn send(&self, bytes: &[u8]) {
        self.connect().await.write_all(bytes).await.unwrap();
    }

    /// Waits until its health says this.
    async fn until_health(&self, expected: State, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let health = self.telemetry.health.snapshot().remove("syslog").unwrap();
            let reason = health.reason.unwrap_or_default();
            if health.state == expected && words.iter().all(|word| reason.contains(word)) {
                return reason;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it stays {:?}: {reason}", health.state);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn skipped(test: &str, program: &str) -> bool {
    let is_missing =
        Command::new(program).arg("--version").output().is_err() && Command::new(program).arg("-v").output().is_err();
    if is_missing {
        eprintln!("SKIPPED: {test} needs {program}: not installed; tests/install.sh installs it");
    }
    is_missing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_logger_sends_in_every_format_and_framing_is_read() {
    if skipped("what_logger_sends", "logger") {
        return;
    }
    let running = Running::start(EVERYTHING).await;
    let port = running.port.to_string();
    let mut expected = Vec::new();
    for transport in ["--udp", "--tcp"] {
        for format in ["--rfc5424=notime,notq,nohost", "--rfc5424", "--rfc3164"] {
            for count in [None, Some("--octet-count")] {
                let message = format!("{transport} {format} {} grün", count.unwrap_or("lines"));
                let mut logger = Command::new("logger");
                logger.args([
                    "--server",
                    "127.0.0.1",
                    "--port",
                    &port,
                    transport,
                    format,
                    "-p",
                    "local0.err",
                    "-t",
                    "shop",
                ]);
                logger.args(["--id=42"]).args(count);
                let structured = format == "--rfc5424";
                if structured {
                    logger.args(["--msgid", "ORDER", "--sd-id", "zoo@123", "--sd-param", "tiger=\"hungry\""]);
                }
                assert!(logger.args(["--", &message]).status().unwrap().success());
                expected.push((message, format, transport));
            }
        }
    }
    running.sink.until(expected.len()).await;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let (records, host) = (running.sink.records(), host.trim());
    for (message, format, transport) in &expected {
        let found: Vec<&String> = records.iter().filter(|record| record.contains(message.as_str())).collect();
        assert_eq!(found.len(), 1, "{message} in {records:#?}");
        let record = found[0];
        let host = if format.contains("nohost") { "127.0.0.1" } else { host };
        assert!(record.starts_with(&format!("{host} 17err {message} ")), "{record}");
        let network = format!("network.peer.address=127.0.0.1 network.transport={}", transport.trim_start_matches('-'));
        let wanted =
            [&network, "syslog.facility=16", "syslog.severity.code=3", "syslog.appname=shop", "syslog.procid=42"];
        assert!(wanted.iter().all(|part| record.contains(*part)), "{record}");
        if *format == "--rfc5424" {
            assert!(record.contains("syslog.msgid=ORDER") && record.contains("zoo@123: {tiger: hungry}"), "{record}");
        }
        assert!(!record.contains("_parse_error") && !record.contains("cut_bytes"), "{record}");
    }
    running.pipeline.stop().await;
}

/// Certificates of an authority, of the receiver (`localhost`) and of a sender.
fn certificates(folder: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.crt"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let authority = Issuer::new(authority, authority_key);
    for name in ["receiver", "sender"] {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut certificate = CertificateParams::new(names).unwrap();
        certificate.distinguished_name.push(DnType::CommonName, name);
        let certificate = certificate.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn with_certificates(folder: &Path) -> String {
    let tls = "{udp: null, tcp: null, tls: '127.0.0.1:PORT', certificate_file: DIR/receiver.crt, key_file: DIR/receiver.key, client_ca_file: DIR/ca.crt}";
    tls.replace("DIR", &folder.display().to_string())
}

/// A child that ends with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslogd_delivers_over_tls_with_certificates_while_exporters_are_behind() {
    let drivers =
        ["/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_ossl.so", "/usr/lib/aarch64-linux-gnu/rsyslog/lmnsd_ossl.so"];
    if skipped("rsyslogd_delivers_over_tls", "rsyslogd") || skipped("rsyslogd_delivers_over_tls", "logger") {
        return;
    }
    if !drivers.iter().any(|driver| Path::new(driver).is_file()) {
        eprintln!(
            "SKIPPED: rsyslogd_delivers_over_tls needs rsyslog-openssl: not installed; tests/install.sh installs it"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    certificates(folder.path());
    let running = Running::start_within(&with_certificates(folder.path()), 256 << 10).await;
    running.sink.is_away.store(true, Ordering::Release);
    let configuration = r#"
global(workDirectory="DIR" DefaultNetstreamDriverCAFile="DIR/ca.crt"
  DefaultNetstreamDriverCertFile="DIR/sender.crt" DefaultNetstreamDriverKeyFile="DIR/sender.key")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="DIR/log" RateLimit.Interval="0")
action(type="omfwd" target="127.0.0.1" port="PORT" protocol="tcp" TCP_Framing="octet-counted"
  template="RSYSLOG_SyslogProtocol23Format" StreamDriver="ossl" StreamDriverMode="1"
  StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost" action.resumeRetryCount="-1")
"#;
    let configuration = configuration.replace("DIR", &directory).replace("PORT", &running.port.to_string());
    fs::write(folder.path().join("rsyslog.conf"), configuration).unwrap();
    let rsyslogd = Command::new("rsyslogd")
        .args(["-n", "-f", &format!("{directory}/rsyslog.conf"), "-i", &format!("{directory}/pid")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _rsyslogd = Child(rsyslogd.unwrap());
    let begun = Instant::now();
    while fs::metadata(folder.path().join("log")).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "rsyslogd does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let total = 3_000;
    let lines: String = (0..total).map(|at| format!("{at} {}\n", "x".repeat(200))).collect();
    fs::write(folder.path().join("lines"), lines).unwrap();
    let logger = Command::new("logger")
        .args([
            "-u",
            &format!("{directory}/log"),
            "-t",
            "shop",
            "-p",
            "user.warning",
            "-f",
            &format!("{directory}/lines"),
        ])
        .status();
    assert!(logger.unwrap().success());
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.sink.is_away.store(false, Ordering::Release);
    running.sink.until(total).await;
    // Other messages are rsyslogd's own.
    let ours: Vec<String> = running.sink.records().into_iter().filter(|record| record.contains("=shop")).collect();
    assert!(ours.iter().all(|record| record.contains(" 13warning ") && !record.contains("_parse_error")));
    let mut numbers: Vec<usize> =
        ours.iter().map(|record| record.split_whitespace().nth(2).unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..total).collect::<Vec<_>>());
    running.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_without_a_certificate_are_refused_and_the_others_served() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let running = Running::start(&with_certificates(folder.path())).await;
    running.send(b"<13>no TLS at all\n").await;
    let begun = Instant::now();
    while running.sink.metric("syslog.refused_connections", "no_tls").unwrap_or(0) < 2 {
        // The first one is the look whether it listens.
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    roots.add_parsable_certificates([CertificateDer::from_pem_slice(&read("ca.crt")).unwrap()]);
    let builder = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.unwrap().with_root_certificates(roots.clone())
    };
    let sender = vec![CertificateDer::from_pem_slice(&read("sender.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&read("sender.key")).unwrap();
    let good = builder().with_client_auth_cert(sender, key).unwrap();
    for (config, message) in [(builder().with_no_client_auth(), "stranger"), (good, "friend")] {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect("localhost".try_into().unwrap(), running.connect().await).await;
        // TLS 1.3 lets a client begin before the server looked at its certificate.
        if let Ok(mut stream) = stream {
            let message = format!("<13>Jan  2 03:04:05 web-1 app: {message}");
            let _ = stream.write_all(format!("{} {message}", message.len()).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
    running.sink.until(1).await;
    assert_eq!(running.sink.bodies(), ["friend"]);
    running.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_is_kept_and_said_and_the_next_sender_is_served() {
    let running = Running::start(EVERYTHING).await;
    running.send(b"99999999999 x\n").await;
    running.send(b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed\n<999>bad priority\n").await;
    running.send(b"<11>no header at all\njust a line\nERROR it burns\n").await;
    running.send(b"50 <13>1 - - - - - - half a fra").await;
    running.send(b"\xff\xfe\x01<13>\n<13>1 - h a - - - \xc3\x28\n").await;
    running.send(&[&b"<13>1 - h a - - - "[..], &[b'y'; 70_000], b"\n<13>1 - h a - - - after\n"].concat()).await;
    let mut slow = running.connect().await;
    slow.set_nodelay(true).unwrap();
    for byte in b"24 <13>1 - h slow - - - abc<14>Jan  2 03:04:05 tag: x\n" {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in [&b"<13>1 - h a - - - one\ntwo"[..], b"", b"\0", &[0xff; 60_000], &[b'<'; 2]] {
        udp.send_to(datagram, running.address()).await.unwrap();
    }
    running.sink.until(17).await;
    let mut records = running.sink.records();
    let short: Vec<String> = records
        .iter_mut()
        .map(|record| record.replace("network.peer.address=127.0.0.1 network.transport=", "").replace("syslog.", ""))
        .map(|record| record.replace(&"y".repeat(65_000), "Y").replace(&"ff".repeat(60_000), "F"))
        .collect();
    let mut short = short;
    short.sort_unstable();
    let mut expected = vec![
        "127.0.0.1 10notice 99999999999 x tcp _parse_error=no syslog line".to_owned(),
        "mymachine 18crit 'su root' failed tcp facility=4 severity.code=2 hostname=mymachine appname=su".into(),
        "127.0.0.1 10notice <999>bad priority tcp _parse_error=no syslog line".into(),
        "127.0.0.1 17err no header at all tcp facility=1 severity.code=3 _parse_error=no syslog line".into(),
        "127.0.0.1 10notice just a line tcp _parse_error=no syslog line".into(),
        "127.0.0.1 17ERROR ERROR it burns tcp _parse_error=no syslog line".into(),
        "127.0.0.1 10notice half a fra tcp facility=1 severity.code=5 log.record.cut_bytes=22".into(),
        "127.0.0.1 10notice 0xfffe013c31333e tcp log.record.invalid_text=true _parse_error=no syslog line".into(),
        "h 10notice 0x3c31333e31202d20682061202d202d202d20c328 tcp facility=1 severity.code=5 hostname=h appname=a log.record.invalid_text=true".into(),
        format!("h 10notice Y{} tcp facility=1 severity.code=5 hostname=h appname=a log.record.cut_bytes=4482", "y".repeat(518)),
        "h 10notice after tcp facility=1 severity.code=5 hostname=h appname=a".into(),
        "h 10notice abc tcp facility=1 severity.code=5 hostname=h appname=slow".into(),
        "127.0.0.1 9info x tcp facility=1 severity.code=6 appname=tag".into(),
        "h 10notice one\ntwo udp facility=1 severity.code=5 hostname=h appname=a".into(),
        "127.0.0.1 10notice \0 udp _parse_error=no syslog line".into(),
        "127.0.0.1 10notice 0xF udp log.record.invalid_text=true _parse_error=no syslog line".into(),
        "127.0.0.1 10notice << udp _parse_error=no syslog line".into(),
    ];
    expected.sort_unstable();
    assert_eq!(short, expected);
    running.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_closed_and_counted_and_silent_ones_make_room() {
    let running = Running::start("{udp: null, tcp: '127.0.0.1:PORT', max_connections: 3, idle_timeout: 500ms}").await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(running.connect().await);
    }
    let begun = Instant::now();
    while running.sink.metric("syslog.refused_connections", "too_many").unwrap_or(0) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // All are closed by the receiver, the silent ones after a while.
    for mut stream in silent {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    running.send(b"<13>Jan  2 03:04:05 h app: there is room again\n").await;
    running.sink.until(1).await;
    running.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_exporters_are_behind_tcp_senders_wait_and_nothing_is_lost() {
    let yaml = "{udp: null, tcp: '127.0.0.1:PORT', buffer_size: 64KiB}";
    let running = Running::start_within(yaml, 1 << 20).await;
    running.sink.is_away.store(true, Ordering::Release);
    let total = 40_000;
    let mut stream = running.connect().await;
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let sending = tokio::spawn({
        let written = written.clone();
        async move {
            for at in 0..total {
                let message = format!("<13>1 - web-{} app - - - {at} {}", at % 7, "x".repeat(500));
                let message = if at % 2 == 0 { format!("{} {message}", message.len()) } else { format!("{message}\n") };
                stream.write_all(message.as_bytes()).await.unwrap();
                written.fetch_add(1, Ordering::AcqRel);
            }
        }
    });
    // It comes to a halt well before the end.
    let (mut before, mut same) = (0, 0);
    while same < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = written.load(Ordering::Acquire);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        assert!(now < total, "the sender never had to wait");
    }
    running.sink.is_away.store(false, Ordering::Release);
    sending.await.unwrap();
    running.sink.until(total).await;
    running.pipeline.stop().await;
    let mut numbers: Vec<usize> =
        running.sink.bodies().iter().map(|body| body.split(' ').next().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_messages_without_room_are_counted_to_the_message_and_said() {
    let yaml = "{udp: '127.0.0.1:PORT', tcp: null, buffer_size: 64KiB}";
    let running = Running::start_within(yaml, 256 << 10).await;
    running.sink.is_away.store(true, Ordering::Release);
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let total = 3_000;
    for at in 0..total {
        let message = format!("<13>1 - h app - - - {at} {}", "x".repeat(500));
        sender.send_to(message.as_bytes(), running.address()).await.unwrap();
    }
    let reason = running.until_health(State::Unhealthy, &["UDP messages found no room"]).await;
    assert!(reason.contains("exporters are behind"), "{reason}");
    running.sink.is_away.store(false, Ordering::Release);
    running.until_health(State::Healthy, &[]).await;
    let address = running.address();
    running.pipeline.stop().await;
    assert!(UdpSocket::bind(address).await.is_ok(), "the port is free again");
    let sink = &running.sink;
    let (taken, no_room, system) = (
        sink.metric("syslog.messages", "udp").unwrap(),
        sink.metric("syslog.dropped", "no_room").unwrap(),
        sink.metric("syslog.dropped", "system").unwrap(),
    );
    let came = sink.bodies().len() as u64;
    assert!(no_room > 0);
    assert_eq!((came, taken + no_room + system), (taken, total), "{no_room} without room, {system} in the system");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_delivers_what_has_come() {
    let running = Running::start(EVERYTHING).await;
    let mut stream = running.connect().await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let total = 500;
    for at in 0..total {
        stream.write_all(format!("<13>1 - h a - - - {at}\n").as_bytes()).await.unwrap();
        udp.send_to(format!("<13>1 - h a - - - {}", total + at).as_bytes(), running.address()).await.unwrap();
    }
    running.pipeline.stop().await;
    let mut numbers: Vec<usize> = running.sink.bodies().iter().map(|body| body.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2 * total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named_and_used_once_it_is_free() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let yaml = format!("{{udp: null, tcp: '127.0.0.1:{port}'}}");
    let running = Running::start(&yaml).await;
    running.until_health(State::Unhealthy, &["tcp: ", "taken by another program"]).await;
    drop(other);
    running.until_health(State::Healthy, &[]).await;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"<13>1 - h a - - - hello\n").await.unwrap();
    running.sink.until(1).await;
    running.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_cannot_be_used_are_named_without_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let key = fs::read_to_string(folder.path().join("receiver.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for (file, words) in [
        ("receiver.key: absent", ["`key_file`", "No such file"]),
        ("receiver.crt: receiver.key", ["`certificate_file`", "no certificate in PEM"]),
        ("receiver.key: ca.crt", ["`key_file`", "no private key in PEM"]),
        ("receiver.key: sender.key", ["receiver.crt", "do not fit"]),
        ("ca.crt: sender.key", ["`client_ca_file`", "no certificate in PEM"]),
    ] {
        let (from, to) = file.split_once(": ").unwrap();
        let port = free_port().to_string();
        let yaml = with_certificates(folder.path()).replace(from, to).replace("PORT", &port);
        let running = Running::start(&yaml).await;
        let reason = running.until_health(State::Unhealthy, &words).await;
        assert!(!reason.contains(secret), "{reason}");
        running.pipeline.stop().await;
    }
}

#[test]
fn wrong_configurations_say_what_to_do() {
    for (yaml, word) in [
        ("{udp: null, tcp: null}", "all off"),
        ("tls: ':6514'", "needs `certificate_file`"),
        ("certificate_file: /x", "`tls`, which is off"),
        ("max_message_size: 479B", "480B"),
        ("max_message_size: 1GiB", "16MiB"),
        ("buffer_size: 1KiB", "`buffer_size`"),
        ("receive_buffer: 2GiB", "`receive_buffer`"),
        ("max_connections: 0", "max_connections"),
        ("listen: ':514'", "listen"),
    ] {
        let problem = open(yaml, &Arc::default()).err().unwrap_or_else(|| panic!("{yaml} was accepted"));
        assert!(problem.contains(word), "{yaml}: {problem}");
    }
}
