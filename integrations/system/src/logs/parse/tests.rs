//! Lines as real programs write them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

fn clock() -> Clock {
    let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
    Clock { zone: TimeZone::UTC, now_unix_nano: u64::try_from(now.as_nanosecond()).unwrap() }
}

fn parser(grammar: Grammar) -> Parser {
    Parser {
        container: None,
        grammar,
        severity_field: None,
        time_field: None,
        time_format: TimeFormat::Auto,
        message_field: None,
    }
}

fn text(field: &Field<'_>) -> String {
    match field {
        Field::Null => "null".into(),
        Field::List(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(",")),
        Field::Bytes(bytes) => format!("{bytes:?}"),
        Field::Map(map) => {
            format!("{{{}}}", map.iter().map(|(k, v)| format!("{k}:{}", text(v))).collect::<Vec<_>>().join(","))
        }
        Field::Text(text) => format!("'{text}'"),
        scalar => scalar.scalar().unwrap().into_owned(),
    }
}

/// `time|severity word|body|key=value key=value`, and the error.
fn shown(line: &Line<'_>) -> String {
    let time = match line.time_unix_nano {
        0 => "-".to_owned(),
        time => Timestamp::from_nanosecond(i128::from(time)).unwrap().to_string(),
    };
    let attributes: Vec<String> = line.attributes.iter().map(|(key, field)| format!("{key}={}", text(field))).collect();
    let error = line.error.map(|error| format!("|{error}")).unwrap_or_default();
    format!(
        "{time}|{} {}|{}|{}{error}",
        line.severity_number,
        line.severity_text,
        line.body.as_deref().unwrap_or("-"),
        attributes.join(" ")
    )
}

fn read(parser: &Parser, line: &str) -> String {
    shown(&parser.parse(line, &clock()))
}

#[test]
fn raw_lines_give_time_and_level_and_stay_whole() {
    let raw = parser(Grammar::Raw);
    assert_eq!(read(&raw, "2026-01-02 03:04:05,678 WARN  [main] x"), "2026-01-02T03:04:05.678Z|13 WARN|-|");
    assert_eq!(read(&raw, "[2026-01-02T03:04:05Z] hello"), "2026-01-02T03:04:05Z|0 |-|");
    assert_eq!(read(&raw, "no time, no level"), "-|0 |-|");
}

#[test]
fn json_keeps_every_member_and_moves_what_has_a_place() {
    let json = parser(Grammar::Json);
    for (line, expected) in [
        (
            r#"{"time":"2026-01-02T03:04:05.1Z","level":"error","msg":"no \"stock\"","n":3,"f":1.5,"ok":true,"x":null}"#,
            "2026-01-02T03:04:05.1Z|17 error|no \"stock\"|n=3 f=1.5 ok=true x=null",
        ),
        (r#"{"a":{"b":[1,"2",{}]},"a":1}"#, "-|0 |-|a=1"),
        (r#"{"a":{"b":[1,"2",{}]}}"#, "-|0 |-|a={b:[1,'2',{}]}"),
        (r#"{"level":30,"time":1531171074631,"msg":"hi"}"#, "-|9 30|hi|time=1531171074631"),
        (
            r#"{"big":18446744073709551615,"int":9007199254740993}"#,
            "-|0 |-|big='18446744073709551615' int=9007199254740993",
        ),
        (r#"{"level":"odd","time":"yesterday"}"#, "-|0 |-|level='odd' time='yesterday'"),
        ("not json ERROR", "-|17 ERROR|-||no JSON"),
        ("[1]", "-|0 |-||no JSON object"),
        (r#"{"a":1} x"#, "-|0 |-||no JSON"),
    ] {
        assert_eq!(read(&json, line), expected, "{line}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
    assert!(read(&json, &deep).ends_with("no JSON"));
    let line = json
        .parse(r#"{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","msg":"x"}"#, &clock());
    assert_eq!((line.trace_id.unwrap()[0], line.span_id.unwrap()[7]), (0x4b, 0xb7));
}

#[test]
fn configured_fields_and_time_formats_win_over_the_usual_ones() {
    let own = Parser {
        severity_field: Some("prio".into()),
        time_field: Some("at".into()),
        time_format: TimeFormat::named("unix_ms").unwrap(),
        message_field: Some("text".into()),
        ..parser(Grammar::Json)
    };
    let line = r#"{"prio":"warn","level":"error","at":1767323045123,"text":"hi","msg":"x"}"#;
    assert_eq!(read(&own, line), "2026-01-02T03:04:05.123Z|13 warn|hi|level='error' msg='x'");
}

#[test]
fn logfmt_reads_quotes_escapes_flags_and_numbers() {
    let logfmt = parser(Grammar::Logfmt);
    for (line, expected) in [
        (
            r#"time=2026-01-02T03:04:05Z level=info msg="a \"b\"\n" n=5 f=0.25 zip=01234 flag empty= neg=-3"#,
            "2026-01-02T03:04:05Z|9 info|a \"b\"\n|n=5 f=0.25 zip='01234' flag=true empty='' neg=-3",
        ),
        ("just words", "-|0 |-||no logfmt: no `key=value`"),
        ("a=\"open", "-|0 |-||no logfmt: a quote is not closed"),
        ("=x", "-|0 |-||no logfmt: a value has no name"),
    ] {
        assert_eq!(read(&logfmt, line), expected, "{line}");
    }
}

#[test]
fn syslog_reads_both_standards_and_what_rsyslog_writes_into_files() {
    let syslog = parser(Grammar::Syslog);
    for (line, expected) in [
        // RFC 5424, section 6.5, examples 1 and 4.
        (
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8",
            "2003-10-11T22:14:15.003Z|18 crit|'su root' failed for lonvick on /dev/pts/8|syslog.facility=4 syslog.severity.code=2 syslog.hostname='mymachine.example.com' syslog.appname='su' syslog.msgid='ID47'",
        ),
        (
            r#"<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="App\"l\]ication"][x@1]"#,
            r#"2003-10-11T22:14:15.003Z|10 notice||syslog.facility=20 syslog.severity.code=5 syslog.hostname='host' syslog.appname='evntslog' syslog.msgid='ID47' syslog.structured_data={exampleSDID@32473:{iut:'3',eventSource:'App"l]ication'},x@1:{}}"#,
        ),
        // RFC 3164, section 5.4, example 1, and lines of rsyslogd.
        (
            "<34>Jan  1 22:14:15 mymachine su: 'su root' failed",
            "2026-01-01T22:14:15Z|18 crit|'su root' failed|syslog.facility=4 syslog.severity.code=2 syslog.hostname='mymachine' syslog.appname='su'",
        ),
        (
            "2026-01-02T03:04:05.123456+00:00 web-1 sshd[812]: Accepted publickey for root",
            "2026-01-02T03:04:05.123456Z|0 |Accepted publickey for root|syslog.hostname='web-1' syslog.appname='sshd' syslog.procid='812'",
        ),
        (
            "Jan  2 03:04:05 web-1 kernel: [    1.23] ERROR: x",
            "2026-01-02T03:04:05Z|17 ERROR|[    1.23] ERROR: x|syslog.hostname='web-1' syslog.appname='kernel'",
        ),
        (
            "Jan  2 03:04:05 web-1 last message repeated 3 times",
            "2026-01-02T03:04:05Z|0 |last message repeated 3 times|syslog.hostname='web-1'",
        ),
        ("<192>Jan  2 03:04:05 h t: x", "-|0 |-||no syslog line"),
        ("<34>1 x", "-|0 |-||no syslog line"),
        ("", "-|0 |-||no syslog line"),
    ] {
        assert_eq!(read(&syslog, line), expected, "{line}");
    }
}

#[test]
fn access_logs_of_nginx_and_apache_are_read_with_all_that_breaks_naive_parsers() {
    let access = parser(Grammar::Access);
    for (line, expected) in [
        (
            r#"192.168.33.1 - - [02/Jan/2026:03:04:05 +0000] "GET /a/b?x=1&y HTTP/1.1" 200 612 "-" "Mozilla/5.0 (X11)""#,
            "2026-01-02T03:04:05Z|9 |-|client.address='192.168.33.1' http.request.method='GET' url.path='/a/b' url.query='x=1&y' network.protocol.version='1.1' http.response.status_code=200 http.response.body.size=612 user_agent.original='Mozilla/5.0 (X11)'",
        ),
        (
            r#"::1 - bob [02/Jan/2026:03:04:05 +0100] "POST / HTTP/2.0" 503 - "http://a/\"b\"" "x\x22y""#,
            r#"2026-01-02T02:04:05Z|17 |-|client.address='::1' user.name='bob' http.request.method='POST' url.path='/' network.protocol.version='2.0' http.response.status_code=503 http.request.header.referer='http://a/"b"' user_agent.original='x"y'"#,
        ),
        (
            r#"10.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "\x16\x03\x01\xff" 400 157 "-" "-""#,
            r"2026-01-02T03:04:05Z|13 |-|client.address='10.0.0.1' http.request.original='\x16\x03\x01\xff' http.response.status_code=400 http.response.body.size=157",
        ),
        (
            r#"10.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "-" 408 -"#,
            "2026-01-02T03:04:05Z|13 |-|client.address='10.0.0.1' http.response.status_code=408",
        ),
        (
            r#"www.example.org:80 10.0.0.1 - frank [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.0" 200 5"#,
            "2026-01-02T03:04:05Z|9 |-|server.address='www.example.org' client.address='10.0.0.1' user.name='frank' http.request.method='GET' url.path='/' network.protocol.version='1.0' http.response.status_code=200 http.response.body.size=5",
        ),
        ("nonsense", "-|0 |-||no access log line"),
        (r#"a - - [02/Jan/2026:03:04:05 +0000] "open 200 1"#, "-|0 |-||no access log line"),
    ] {
        assert_eq!(read(&access, line), expected, "{line}");
    }
}

#[test]
fn nginx_error_lines_give_level_message_and_context() {
    let nginx = parser(Grammar::NginxError);
    let line = r#"2026/01/02 03:04:05 [error] 12#13: *14 open() "/x" failed (2: No such file), client: 10.0.0.1, server: _, request: "GET /x HTTP/1.1", host: "a""#;
    let expected = r#"2026-01-02T03:04:05Z|17 error|open() "/x" failed (2: No such file), client: 10.0.0.1, server: _, request: "GET /x HTTP/1.1", host: "a"|process.pid=12 thread.id=13 nginx.connection=14 client.address='10.0.0.1' server.address='_' http.request.original='GET /x HTTP/1.1' http.request.header.host='a'"#;
    assert_eq!(read(&nginx, line), expected);
    let line = "2026/01/02 03:04:05 [notice] 1#1: signal process started";
    assert_eq!(read(&nginx, line), "2026-01-02T03:04:05Z|10 notice|signal process started|process.pid=1 thread.id=1");
    assert!(read(&nginx, "2026/01/02 03:04:05 x").ends_with("no line of nginx's error log"));
}

#[test]
fn containers_lines_are_unwrapped_joined_and_read_by_the_format_of_their_content() {
    let cri = Parser { container: Some(Container::Cri), ..parser(Grammar::Raw) };
    assert_eq!(
        read(&cri, "2026-01-02T03:04:05.5Z stderr F ERROR x"),
        "2026-01-02T03:04:05.5Z|17 ERROR|ERROR x|log.iostream='stderr'"
    );
    let pieces = "2026-01-02T03:04:05Z stdout P he\n2026-01-02T03:04:06Z stdout F llo";
    assert_eq!(read(&cri, pieces), "2026-01-02T03:04:05Z|0 |hello|log.iostream='stdout'");
    assert_eq!(read(&cri, "2026-01-02T03:04:05Z stdout F"), "2026-01-02T03:04:05Z|0 ||log.iostream='stdout'");
    assert!(read(&cri, "2026-01-02T03:04:05Z elsewhere F x").ends_with("no line of a container's log"));
    let docker = Parser { container: Some(Container::Docker), ..parser(Grammar::Json) };
    let line =
        r#"{"log":"{\"level\":\"warn\",\"msg\":\"hi\"}\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}"#;
    assert_eq!(read(&docker, line), "2026-01-02T03:04:05.123456789Z|13 warn|hi|log.iostream='stdout'");
    let pieces = "{\"log\":\"{\\\"msg\\\":\",\"stream\":\"stdout\",\"time\":\"\"}\n{\"log\":\"\\\"a\\\"}\\r\\n\",\"stream\":\"stdout\",\"time\":\"\"}";
    assert_eq!(read(&docker, pieces), "-|0 |a|log.iostream='stdout'");
}

#[test]
fn own_patterns_name_attributes_and_move_what_has_a_place() {
    let regex = Regex::new(r"^(?<time>\S+ \S+) (?<level>\w+) \[(?<thread>[^\]]*)\] (?<message>.*)$").unwrap();
    let line = "2026-01-02 03:04:05 WARN [main] hello";
    assert_eq!(read(&parser(Grammar::Regex(regex)), line), "2026-01-02T03:04:05Z|13 WARN|hello|thread='main'");
    let grok = |text: &str| GrokPattern::new(text, [("SHOP", "shop-%{INT}")]);
    let pattern =
        grok("%{IPORHOST:client} %{WORD:method} %{NUMBER:ms:float} %{INT:size:int} %{SHOP:shop} %{GREEDYDATA:message}");
    let grok_parser = parser(Grammar::Grok(pattern.unwrap()));
    assert_eq!(
        read(&grok_parser, "10.0.0.1 GET 1.5 300 shop-7 all good"),
        "-|0 |all good|client='10.0.0.1' method='GET' ms=1.5 shop='shop-7' size=300"
    );
    assert_eq!(read(&grok_parser, "nothing like it"), "-|0 |-||the pattern does not match");
    assert!(grok("%{NOSUCH:x}").unwrap_err().contains("NOSUCH"));
    assert!(grok("(?<=x)%{INT:n}").unwrap_err().contains("look-around"));
}

#[test]
fn every_standard_pattern_of_everyday_compiles_on_the_linear_engine() {
    for name in [
        "COMBINEDAPACHELOG",
        "COMMONAPACHELOG",
        "SYSLOGBASE",
        "SYSLOGLINE",
        "TIMESTAMP_ISO8601",
        "HTTPDATE",
        "IP",
        "IPV6",
        "URI",
        "UUID",
        "MAC",
        "PATH",
        "QS",
        "NUMBER",
        "BASE16NUM",
        "LOGLEVEL",
        "HOSTPORT",
        "WINPATH",
        "DATESTAMP",
        "HTTPD_ERRORLOG",
        "POSTGRESQL",
        "REDISLOG",
        "HAPROXYHTTP",
        "CISCOTIMESTAMP",
        "JAVASTACKTRACEPART",
        "CRON_ACTION",
        "S3_ACCESS_LOG",
        "ELB_ACCESS_LOG",
        "EMAILADDRESS",
    ] {
        let pattern = GrokPattern::new(&format!("%{{{name}:x}}"), []);
        assert!(pattern.is_ok(), "{name}: {}", pattern.unwrap_err());
    }
    let combined = parser(Grammar::Grok(GrokPattern::new("^%{COMBINEDAPACHELOG}$", []).unwrap()));
    let line = r#"10.0.0.1 - bob [02/Jan/2026:03:04:05 +0000] "GET /x HTTP/1.1" 200 612 "-" "curl/8""#;
    let read = read(&combined, line);
    assert!(read.contains("clientip='10.0.0.1'") && read.contains("response='200'"), "{read}");
}
