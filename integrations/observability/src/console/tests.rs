//! Golden output: what people see, character by character.

use std::time::Duration;

use weir_model::common::{Attribute, Resource, Scope};
use weir_model::logs::{LogRecord, Logs};
use weir_model::metrics::{Distribution, HistogramPoint, SummaryPoint};
use weir_model::traces::{Span, Status, Traces};
use weir_model::{MetricDescription, MetricsBuilder, Payload, Records, Value};
use weir_pipeline::MetricKind::{Counter, Gauge, Histogram, Summary, UpDownCounter};
use weir_pipeline::{MetricKind, Open, Opened};

use super::*;

/// 2025-01-07T12:03:10Z.
const NOON: u64 = 1_736_251_390_000_000_000;
const SECOND: u64 = 1_000_000_000;
const GIB: f64 = 1_073_741_824.0;

const WIDE: Style = Style { width: 100, cut: true, color: false, unicode: true, max_lines: 40 };

fn metric(name: &'static str, unit: &'static str, kind: MetricKind) -> MetricDescription<'static> {
    MetricDescription { name, unit, kind, help: "" }
}

fn machine() -> MetricsBuilder {
    MetricsBuilder::new("host", vec![("host.name".into(), "web-prod-01".into())])
}

/// One poll of a machine; counters have grown for `seconds` since an earlier one.
fn poll(out: &mut MetricsBuilder, seconds: f64) -> Payload {
    out.begin(NOON + Duration::from_secs_f64(seconds).as_nanos() as u64, 1);
    let modes =
        [("user", 0.18), ("system", 0.041), ("nice", 0.0), ("idle", 0.753), ("iowait", 0.013), ("interrupt", 0.013)];
    for (mode, share) in modes {
        for core in ["0", "1"] {
            let labels = [("cpu.mode", mode), ("cpu.logical_number", core)];
            out.record(&metric("system.cpu.time", "s", Counter), &labels, 1000.0 + share * seconds);
        }
    }
    for (name, load) in [("1m", 0.42), ("5m", 0.51), ("15m", 0.6)] {
        let name: &'static str = match name {
            "1m" => "system.cpu.load_average.1m",
            "5m" => "system.cpu.load_average.5m",
            _ => "system.cpu.load_average.15m",
        };
        out.record(&metric(name, "{thread}", Gauge), &[], load);
    }
    out.record(&metric("system.memory.limit", "By", UpDownCounter), &[], 31.3 * GIB);
    out.record(&metric("system.memory.linux.available", "By", UpDownCounter), &[], 19.2 * GIB);
    for (state, bytes) in [("used", 0.0), ("free", 2.0 * GIB)] {
        out.record(&metric("system.paging.usage", "By", UpDownCounter), &[("system.paging.state", state)], bytes);
    }
    for (mount, used, free) in [("/", 81.2e9, 157.6e9), ("/var/lib/postgresql", 921e9, 79e9)] {
        for (state, bytes) in [("used", used), ("free", free), ("reserved", 13e9)] {
            let labels = [("system.filesystem.mountpoint", mount), ("system.filesystem.state", state)];
            out.record(&metric("system.filesystem.usage", "By", UpDownCounter), &labels, bytes);
        }
    }
    out.record(&metric("system.filesystem.hung", "1", Gauge), &[("system.filesystem.mountpoint", "/mnt/nfs")], 1_u64);
    for (direction, rate) in [("read", 1.2e6), ("write", 340e3)] {
        let labels = [("system.device", "vda"), ("disk.io.direction", direction)];
        out.record(&metric("system.disk.io", "By", Counter), &labels, 5e9 + rate * seconds);
    }
    for (device, receive, transmit) in [("eth0", 12.3e3, 2.1e3), ("lo", 5e9, 5e9), ("wg0", 0.0, 0.0)] {
        for (direction, rate) in [("receive", receive), ("transmit", transmit)] {
            let labels = [("network.interface.name", device), ("network.io.direction", direction)];
            out.record(&metric("system.network.io", "By", Counter), &labels, rate * seconds);
        }
    }
    out.record(&metric("system.process.count", "{process}", UpDownCounter), &[], 142_u64);
    out.record(&metric("system.uptime", "s", Gauge), &[], 3.0 * 86_400.0 + 4.0 * 3600.0 + 12.0);
    out.record(&metric("hw.temperature", "Cel", Gauge), &[("hw.id", "cpu")], 54.0);
    Payload::from_records(Records::Metrics(out.finish()))
}

fn delivery(payload: Payload) -> Delivery {
    Delivery { signal: payload.signal(), payloads: vec![payload], id: 1 }
}

fn state() -> State {
    State::new(TimeZone::UTC)
}

fn shown(payload: Payload, state: &mut State, style: &Style) -> String {
    render(&delivery(payload), state, style, NOON + 60 * SECOND).unwrap()
}

/// The second of two polls ten seconds apart.
fn machine_shown(style: &Style) -> String {
    let (mut out, mut state) = (machine(), state());
    shown(poll(&mut out, 0.0), &mut state, style);
    below(shown(poll(&mut out, 10.0), &mut state, style))
}

/// What stands below the empty line after what was shown before.
fn below(text: String) -> String {
    text.strip_prefix('\n').unwrap().to_owned()
}

/// Series of a service: counters, a long name, a histogram and a summary.
fn service(out: &mut MetricsBuilder, seconds: u64) -> Payload {
    out.begin(NOON + seconds * SECOND, 1);
    let labels = [("http.route", "/cart"), ("http.response.status_code", "200")];
    out.record(&metric("http.server.requests", "{request}", Counter), &labels, 1_234_500 + 32 * seconds);
    out.record(&metric("process.memory.usage", "By", UpDownCounter), &[], 187.4 * 1_048_576.0);
    out.record(&metric("jvm.cpu.recent_utilization", "1", Gauge), &[], 0.0421);
    let long = [("queue", "orders-with-a-very-long-name-that-does-not-fit-into-any-terminal-of-this-world")];
    out.record(&metric("messaging.queue.depth", "{message}", Gauge), &long, 17_u64);
    let distribution =
        Distribution { count: 120, sum: Some(3.2), min: Some(0.0012), max: Some(1.7), ..Distribution::default() };
    let point = HistogramPoint { distribution, explicit_bounds: vec![1.0], bucket_counts: vec![119, 1] };
    out.record_histogram(&metric("http.server.request.duration", "s", Histogram), &[], point);
    let point =
        SummaryPoint { count: 7, sum: 1.0, quantiles: vec![(0.5, 0.012), (0.99, 0.4)], ..SummaryPoint::default() };
    out.record_summary(&metric("gc.pause", "s", Summary), &[], point);
    Payload::from_records(Records::Metrics(out.finish()))
}

fn service_shown(style: &Style) -> String {
    let mut out = MetricsBuilder::new("io.opentelemetry.tomcat", vec![("service.name".into(), "shop".into())]);
    let mut state = state();
    shown(service(&mut out, 0), &mut state, style);
    below(shown(service(&mut out, 10), &mut state, style))
}

fn logs() -> Payload {
    let mut logs = Logs::default();
    for service in ["nginx", "shop"] {
        let attributes = logs.common.add_texts([("service.name", service)]);
        let resource = u32::try_from(logs.common.resources.len()).unwrap();
        logs.common.resources.push(Resource { attributes, ..Resource::default() });
        logs.common.scopes.push(Scope { resource, ..Scope::default() });
    }
    let records = [
        (0, NOON + 123_000_000, 9, "GET /cart 200", vec![("user_agent", "curl/8.5")]),
        (0, NOON + 151_000_000, 13, "upstream is slow", vec![]),
        (
            1,
            NOON + 200_000_000,
            17,
            "payment failed\n  at pay.rs:12",
            vec![("order.id", "4711"), ("error.type", "timeout")],
        ),
        (1, NOON - 86_400 * SECOND, 5, "cache warmed \u{1b}[31mred", vec![]),
        (1, 0, 0, "no time, no severity", vec![]),
    ];
    for (scope, time_unix_nano, severity_number, body, pairs) in records {
        let start = logs.common.attributes.len();
        for (key, value) in pairs {
            let key = logs.common.arena.add(key.as_bytes());
            let value = Value::String(logs.common.arena.add(value.as_bytes()));
            logs.common.attributes.push(Attribute { key, value });
        }
        let attributes = logs.common.attributes_since(start);
        let body = Value::String(logs.common.arena.add(body.as_bytes()));
        logs.records.push(LogRecord {
            scope,
            time_unix_nano,
            severity_number,
            body,
            attributes,
            ..LogRecord::default()
        });
    }
    Payload::from_records(Records::Logs(logs))
}

fn spans() -> Payload {
    let mut traces = Traces::default();
    let attributes = traces.common.add_texts([("service.name", "shop")]);
    traces.common.resources.push(Resource { attributes, ..Resource::default() });
    traces.common.scopes.push(Scope::default());
    for (name, milliseconds, status) in
        [("GET /cart", 12.34, None), ("SELECT orders", 0.8, Some((1, ""))), ("POST /pay", 1500.0, Some((2, "timeout")))]
    {
        let name = traces.common.arena.add(name.as_bytes());
        let status =
            status.map(|(code, text): (i32, &str)| Status { code, message: traces.common.arena.add(text.as_bytes()) });
        let end = NOON + (milliseconds * 1e6) as u64;
        traces.spans.push(Span {
            name,
            status,
            start_time_unix_nano: NOON,
            end_time_unix_nano: end,
            ..Span::default()
        });
    }
    Payload::from_records(Records::Traces(traces))
}

#[test]
fn a_machine_is_a_block_with_rates_since_the_poll_before() {
    let expected =
        "  12:03:20  web-prod-01                                                                    37 series
    cpu               ·········▃  23.4 %   user 18.0   system 4.1   iowait 1.3   load 0.42 0.51 0.60
    memory            ███▉······  38.7 %   12.1 of 31.3 GiB   available 19.2 GiB   swap 0 of 2.0 GiB
    disk /            ███▍······  34.0 %   81.2 of 252 GB
    disk /var/lib/p…  █████████▎  92.1 %   0.92 of 1.0 TB
    disk /mnt/nfs                          does not answer
    disk vda                               read 1.2 MB/s    write 340 kB/s
    net eth0                               in 12.3 kB/s   out 2.1 kB/s
    net wg0                                in 0 B/s       out 0 B/s
    uptime                                 3 d 4 h   processes 142   hottest sensor 54.0 °C
";
    assert_eq!(machine_shown(&WIDE), expected);
}

#[test]
fn a_first_poll_shows_what_needs_no_difference_and_invents_nothing() {
    let first = shown(poll(&mut machine(), 0.0), &mut state(), &WIDE);
    assert!(first.contains("    cpu               measuring…           load 0.42 0.51 0.60\n"), "{first}");
    assert!(!first.contains("user") && !first.contains("vda") && !first.contains("eth0"), "{first}");
}

#[test]
fn a_narrow_terminal_gets_one_line_each_without_what_matters_less() {
    let lines =
        |width: usize| -> Vec<String> { machine_shown(&Style { width, ..WIDE }).lines().map(str::to_owned).collect() };
    for width in [60, 80, 100] {
        assert_eq!(lines(width).len(), 10, "{width}");
    }
    assert_eq!(
        lines(80)[1..3].join("\n"),
        "    cpu             ·········▃  23.4 %   user 18.0   system 4.1   load 0.42
    memory          ███▉······  38.7 %   12.1 of 31.3 GiB   swap 0 of 2.0 GiB"
    );
    assert_eq!(
        lines(60)[1..3].join("\n"),
        "    cpu            23.4 %   user 18.0   load 0.42
    memory         38.7 %   12.1 of 31.3 GiB   swap 0.0 %"
    );
}

/// One poll of Weir about itself.
fn own(out: &mut MetricsBuilder, seconds: u64, dropped: u64, difference: i64, healthy: i64) -> Payload {
    out.begin(NOON + seconds * SECOND, 1);
    let row = [("weir.source", "host"), ("weir.exporter", "loki"), ("weir.signal", "logs")];
    for (name, records) in [("accepted", 12_040_u64), ("delivered", 12_000), ("queued", 30), ("in_flight", 10)] {
        let name: &'static str = match name {
            "accepted" => "weir.ledger.accepted",
            "delivered" => "weir.ledger.delivered",
            "queued" => "weir.ledger.queued",
            _ => "weir.ledger.in_flight",
        };
        out.record(&metric(name, "{record}", Counter), &row, records);
    }
    let [source, exporter, signal] = row;
    if dropped > 0 {
        let labels = [source, exporter, signal, ("weir.reason", "queue_full")];
        out.record(&metric("weir.ledger.dropped", "{record}", Counter), &labels, dropped);
    }
    out.record(&metric("weir.ledger.difference", "{record}", Gauge), &row, difference);
    out.record(&metric("weir.integration.healthy", "1", Gauge), &[("weir.integration", "loki")], healthy);
    for (name, seconds) in [("host", 0.0009), ("internal", 0.5)] {
        out.record(&metric("weir.poll.duration", "s", Gauge), &[("weir.integration", name)], seconds);
    }
    Payload::from_records(Records::Metrics(out.finish()))
}

fn weir() -> MetricsBuilder {
    MetricsBuilder::new("internal", vec![("host.name".into(), "web-prod-01".into())])
}

#[test]
fn weir_itself_is_the_last_line_of_its_machines_block() {
    let (mut out, mut state) = (weir(), state());
    shown(poll(&mut machine(), 0.0), &mut state, &WIDE);
    assert_eq!(
        shown(own(&mut out, 1, 0, 0, 1), &mut state, &WIDE),
        "    weir              all well   delivered 12 000   under way 40   dropped 0   the ledger adds up\n"
    );
    let other = MetricsBuilder::new("internal", vec![("host.name".into(), "db-01".into())]);
    let text = shown(own(&mut { other }, 1, 0, 0, 1), &mut state, &Style { cut: false, ..WIDE });
    let line = "    weir       all well   accepted 12 040   delivered 12 000   under way 40   dropped 0   \
                the ledger adds up   longest poll 900 µs\n";
    assert_eq!(text, format!("\n  12:03:11  db-01\n{line}"), "another machine's has its own heading");
}

#[test]
fn every_trouble_of_weir_is_one_line_and_old_drops_are_none() {
    let (mut out, mut state) = (weir(), state());
    let expected = "  12:03:10  web-prod-01
    weir       3 troubles   accepted 12 040   delivered 12 000   under way 40   dropped 1   poll 900 µs
               1 record from host to loki dropped so far: queue full
               the ledger from host to loki is off by -2 records: an error of Weir, please report it
               loki is unhealthy: `weir check` says why
";
    assert_eq!(shown(own(&mut out, 0, 1, -2, 0), &mut state, &Style { width: 110, ..WIDE }), expected);
    let later = shown(own(&mut out, 10, 1, 0, 1), &mut state, &WIDE);
    assert!(later.contains("all well") && later.contains("dropped 1") && !later.contains("loki"), "{later}");
    let worse = shown(own(&mut out, 20, 4, 0, 1), &mut state, &WIDE);
    assert!(worse.contains("1 trouble ") && worse.contains("4 records from host to loki"), "{worse}");
}

#[test]
fn busy_processors_are_a_chart_of_the_last_polls_and_a_bar_in_plain_characters() {
    let (mut out, mut state) = (machine(), state());
    let texts: Vec<String> = (0..14).map(|at| shown(poll(&mut out, f64::from(at) * 10.0), &mut state, &WIDE)).collect();
    assert!(texts[3].contains("    cpu               ·······▃▃▃  23.4 %"), "{}", texts[3]);
    assert!(texts[13].contains("    cpu               ▃▃▃▃▃▃▃▃▃▃  23.4 %"), "{}", texts[13]);
}

#[test]
fn without_a_terminal_there_is_nothing_but_plain_characters_in_the_block() {
    let plain = machine_shown(&Style { unicode: false, cut: false, ..WIDE });
    assert!(plain.contains("    cpu               ##........  23.4 %   user 18.0"), "{plain}");
    assert!(plain.is_ascii() && plain.contains("hottest sensor 54.0 C"), "{plain}");
}

#[test]
fn red_means_above_ninety_percent_or_no_answer_and_nothing_else() {
    let colored = machine_shown(&Style { color: true, ..WIDE });
    let red: Vec<&str> = colored.lines().filter(|line| line.contains("\u{1b}[31m")).collect();
    assert_eq!(red.len(), 2, "{colored}");
    assert!(red[0].contains("92.1 %") && red[1].contains("does not answer"), "{colored}");
    let mut bare = colored.clone();
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m"] {
        bare = bare.replace(code, "");
    }
    assert_eq!(bare, machine_shown(&WIDE), "colours move nothing");
}

#[test]
fn two_machines_in_one_delivery_keep_their_own_rates() {
    let mut other = MetricsBuilder::new("host", vec![("host.name".into(), "db-01".into())]);
    let (mut one, mut state) = (machine(), state());
    let both = |one: Payload, other: Payload| Delivery { signal: one.signal(), payloads: vec![one, other], id: 1 };
    render(&both(poll(&mut one, 0.0), poll(&mut other, 0.0)), &mut state, &WIDE, NOON).unwrap();
    let text = render(&both(poll(&mut one, 10.0), poll(&mut other, 20.0)), &mut state, &WIDE, NOON).unwrap();
    assert_eq!(text.matches("in 12.3 kB/s").count(), 2, "{text}");
    assert!(text.contains("web-prod-01") && text.contains("db-01"), "{text}");
}

#[test]
fn other_series_are_one_aligned_line_each() {
    let expected = "  12:03:20  shop  io.opentelemetry.tomcat
    http.server.requests{http.route=/cart,http.r…  1 234 820 requests   32/s
    process.memory.usage                                 187 MiB
    jvm.cpu.recent_utilization                           4.2 %
    messaging.queue.depth{queue=orders-with-a-ve…         17 messages
    http.server.request.duration                         120 values   mean 26.7 ms  min 1.2 ms  max…
    gc.pause                                               7 values   p50 12.0 ms  p99 400 ms
";
    assert_eq!(service_shown(&WIDE), expected);
}

#[test]
fn hardware_that_is_no_machine_stays_in_the_list() {
    let mut out = MetricsBuilder::new("snmp", vec![("host.name".into(), "switch-7".into())]);
    out.begin(NOON, 1);
    out.record(&metric("hw.network.up", "1", UpDownCounter), &[("hw.id", "ge-0/0/1")], 1_u64);
    let expected = "  12:03:10  switch-7  snmp\n    hw.network.up{hw.id=ge-0/0/1}  1\n";
    assert_eq!(shown(Payload::from_records(Records::Metrics(out.finish())), &mut state(), &WIDE), expected);
}

#[test]
fn nothing_is_cut_where_nobody_can_widen_the_window() {
    let whole = service_shown(&Style { cut: false, ..WIDE });
    assert!(whole.contains("does-not-fit-into-any-terminal-of-this-world}  17 messages"), "{whole}");
    assert!(whole.contains("max 1.7 s"), "{whole}");
}

#[test]
fn lines_beyond_the_limit_are_counted() {
    let text = service_shown(&Style { max_lines: 2, ..WIDE });
    assert!(text.ends_with("    … and 4 more series (console: max_lines)\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("    ") && !line.contains("more")).count(), 2, "{text}");
    let text = shown(logs(), &mut state(), &Style { max_lines: 1, ..WIDE });
    assert!(text.ends_with("… and 4 more log records (console: max_lines)\n"), "{text}");
    let text = shown(spans(), &mut state(), &Style { max_lines: 0, ..WIDE });
    assert_eq!(text, "    … and 3 more spans (console: max_lines)\n");
}

#[test]
fn logs_are_one_line_each_and_cannot_steer_the_terminal() {
    let expected = "  12:03:10.123  INFO   nginx  GET /cart 200  user_agent=curl/8.5
  12:03:10.151  WARN   nginx  upstream is slow
  12:03:10.200  ERROR  shop   payment failed⏎  at pay.rs:12  order.id=4711 error.type=timeout
  2025-01-06 12:03:10.000  DEBUG  shop   cache warmed \\u{1b}[31mred
                       shop   no time, no severity
";
    assert_eq!(shown(logs(), &mut state(), &WIDE), expected);
    let colored = shown(logs(), &mut state(), &Style { color: true, ..WIDE });
    assert!(colored.contains("\u{1b}[31mERROR\u{1b}[0m") && colored.contains("\u{1b}[33mWARN\u{1b}[0m"), "{colored}");
}

#[test]
fn spans_show_length_and_outcome() {
    let expected = "  12:03:10.000  shop  GET /cart        12.3 ms
  12:03:10.000  shop  SELECT orders     800 µs  ok
  12:03:10.000  shop  POST /pay          1.5 s  error  timeout
";
    assert_eq!(shown(spans(), &mut state(), &WIDE), expected);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    use unicode_width::UnicodeWidthStr;
    for width in 40..130 {
        let style = Style { width, ..WIDE };
        let pages = [
            machine_shown(&style),
            service_shown(&style),
            shown(logs(), &mut state(), &style),
            shown(spans(), &mut state(), &style),
            shown(own(&mut weir(), 0, 1, -2, 0), &mut state(), &style),
        ];
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.width() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn times_are_those_of_the_zone() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let text = shown(spans(), &mut State::new(zone), &WIDE);
    assert!(text.starts_with("  14:03:10.000"), "{text}");
}

#[test]
fn json_is_one_object_per_record_and_line() {
    let both = Delivery {
        signal: Signal::Metrics,
        payloads: vec![service(&mut machine(), 0), service(&mut machine(), 1)],
        id: 1,
    };
    let lines = json_lines(&both).unwrap();
    let objects: Vec<serde_json::Value> =
        std::str::from_utf8(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), both.len());
    assert_eq!(objects[0]["name"], "http.server.requests");
    assert_eq!(objects[0]["resource"]["host.name"], "web-prod-01");
}

fn surroundings(is_terminal: bool) -> Surroundings {
    Surroundings { is_terminal, terminal_width: Some(120), columns: None, no_color: false, utf8: true }
}

#[test]
fn colour_width_and_limits_follow_terminal_environment_and_options() {
    let config = Config::default();
    let style = surroundings(true).style(&config);
    assert_eq!((style.width, style.cut, style.color, style.unicode, style.max_lines), (120, true, true, true, 40));
    let style = surroundings(false).style(&config);
    assert_eq!((style.cut, style.color, style.unicode, style.max_lines), (false, false, false, usize::MAX));
    assert!(!Surroundings { no_color: true, ..surroundings(true) }.style(&config).color);
    assert!(!Surroundings { utf8: false, ..surroundings(true) }.style(&config).unicode);
    assert_eq!(Surroundings { columns: Some(72), ..surroundings(true) }.style(&config).width, 72);
    assert_eq!(Surroundings { terminal_width: None, ..surroundings(false) }.style(&config).width, 100);
    let always = Config { color: Color::Always, max_lines: Some(0), ..Config::default() };
    let style = surroundings(false).style(&always);
    assert_eq!((style.color, style.max_lines), (true, usize::MAX));
    assert!(!surroundings(true).style(&Config { color: Color::Never, ..Config::default() }).color);
}

#[test]
fn a_closed_pipe_is_for_good_and_a_full_disk_is_not() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    let error = writer.write_all(b"x").unwrap_err();
    assert!(matches!(judge(&error), Outcome::Never { why } if why.contains("nobody reads")));
    assert!(matches!(judge(&io::ErrorKind::StorageFull.into()), Outcome::Later { .. }));
}

fn open(block: &str) -> Result<Opened, String> {
    let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("integrations:\n{indented}");
    let settings =
        weir_config::Settings::parse("weir.yaml", &text, &weir_config::Environment).map_err(|p| p.to_string())?;
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: "console".into(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        resource: Vec::new(),
        telemetry: Default::default(),
    };
    KIND.open(Open { file: "weir.yaml", block: &settings.integrations[0], context: &context })
        .map_err(|p| p.to_string())
}

#[tokio::test]
async fn the_sample_opens_takes_everything_in_order_and_its_check_is_always_fine() {
    let Opened::Export(_, exporter) = open(ABOUT.sample).unwrap() else { panic!("not an exporter") };
    assert!(exporter.takes().ordered);
    assert_eq!(exporter.takes().signals, Signal::ALL);
    assert!(exporter.check().await.unwrap().contains("standard output"));
    assert!(open("console: {fromat: json}").err().unwrap().contains("format"));
}
