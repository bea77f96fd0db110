//! Every exporter against a backend that lies: nothing is lost, what is refused is a dead letter and
//! nothing else is, and the ledger is exact. An exporter runs it by being in the list of integrations,
//! with the sample of its page.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::harness::lasting::{Lasting, Row};
use crate::harness::liar::{After, Fault, Liar, Mark, NAMED, refusal};
use crate::harness::relay::{gauges, logs};
use crate::harness::weir::run;
use crate::harness::{http, seconds, wait_for};

/// Records of each signal that are sent in a round: more than some exporters put into one request.
pub(super) const RECORDS: u32 = 130;

/// Records in a request to the agent.
const AT_ONCE: usize = 65;

/// Longest time for one request of an exporter: long enough for a busy machine.
const TIMEOUT: &str = "3s";

/// Longest time for one round. Credentials that are refused are tried again after 30 s.
const LONGEST_ROUND: Duration = seconds(90);

/// What a round proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The fault passes, and everything arrives.
    Passes,
    /// It stays, and everything arrives all the same.
    Stays,
    /// It stays, and the bad records become dead letters, each alone.
    DeadLetters,
    /// As before, but the answer says only how many or in which words.
    Named,
}

/// What a backend does over HTTP.
const ROUNDS: [(Fault, Then); 17] = [
    (Fault::None, Then::Stays),
    (Fault::Status(500, None), Then::Passes),
    (Fault::Status(429, Some(After::Seconds(3))), Then::Passes),
    (Fault::Status(503, Some(After::Date(4))), Then::Passes),
    (Fault::OtherProtocol, Then::Passes),
    (Fault::Page, Then::Passes),
    (Fault::ResetInRequest, Then::Passes),
    (Fault::NoAnswer, Then::Passes),
    (Fault::PartialAnswer, Then::Passes),
    (Fault::ResetInAnswer, Then::Passes),
    (Fault::Stall, Then::Passes),
    (Fault::Trickle, Then::Passes),
    (Fault::TooLarge(7), Then::Stays),
    (Fault::Refuses(400), Then::DeadLetters),
    (Fault::Refuses(413), Then::DeadLetters),
    (Fault::Names, Then::Named),
    // The last one, since it takes half a minute.
    (Fault::Status(401, None), Then::Passes),
];

/// The same over gRPC, with its own statuses (grpc `doc/statuscodes.md`).
const GRPC_ROUNDS: [(Fault, Then); 23] = [
    (Fault::None, Then::Stays),
    (Fault::Code(14, None), Then::Passes),
    (Fault::Code(14, Some(3)), Then::Passes),
    // RESOURCE_EXHAUSTED: without a `RetryInfo` too it is no fault of the records.
    (Fault::Code(8, Some(3)), Then::Passes),
    (Fault::Code(8, None), Then::Passes),
    (Fault::Code(13, None), Then::Passes),
    // A proxy that speaks no gRPC.
    (Fault::Status(503, Some(After::Seconds(3))), Then::Passes),
    (Fault::Page, Then::Passes),
    (Fault::OtherProtocol, Then::Passes),
    (Fault::ResetInRequest, Then::Passes),
    (Fault::NoAnswer, Then::Passes),
    (Fault::PartialAnswer, Then::Passes),
    (Fault::ResetInAnswer, Then::Passes),
    (Fault::CallReset, Then::Passes),
    (Fault::NoStatus, Then::Passes),
    (Fault::Stall, Then::Passes),
    (Fault::Trickle, Then::Passes),
    (Fault::TooLarge(7), Then::Stays),
    // INVALID_ARGUMENT, and a single record that is too large.
    (Fault::Refuses(3), Then::DeadLetters),
    (Fault::Refuses(8), Then::DeadLetters),
    (Fault::Names, Then::Named),
    // PERMISSION_DENIED and UNAUTHENTICATED, the last ones, since each takes half a minute.
    (Fault::Code(7, None), Then::Passes),
    (Fault::Code(16, None), Then::Passes),
];

/// Name and number of a status of gRPC, as a dead letter says it.
fn grpc_status(code: u16) -> &'static str {
    match code {
        3 => "INVALID_ARGUMENT (3)",
        8 => "RESOURCE_EXHAUSTED (8)",
        other => panic!("{other} refuses no records"),
    }
}

/// An exporter of the list, and its sample.
struct Exporter {
    name: String,
    sample: String,
}

impl Exporter {
    /// The exporter for OTLP, told to use gRPC.
    fn over_grpc(&self) -> Exporter {
        let name = format!("{}/grpc", self.name);
        let sample = self.sample.replacen(&format!("{}:", self.name), &format!("{name}:"), 1);
        Exporter { name, sample: format!("{}\n    protocol: grpc\n", sample.trim_end()) }
    }

    /// The exporter for any address, told what a success looks like.
    fn strict(&self) -> Exporter {
        let name = format!("{}/strict", self.name);
        let sample = self.sample.replacen(&format!("{}:", self.name), &format!("{name}:"), 1);
        let option = "        encoding: json\n";
        assert!(sample.contains(option), "{sample}");
        Exporter { name, sample: sample.replace(option, &format!("{option}        success: {{body: '^$'}}\n")) }
    }
}

/// All exporters, as the program shows them.
fn exporters() -> Vec<Exporter> {
    let said = |arguments: &[&str]| String::from_utf8(run(arguments).stdout).expect("text");
    let list = said(&["integrations", "list"]);
    let names = list.lines().skip_while(|line| *line != "export").skip(1).take_while(|line| line.starts_with("  "));
    let exporter = |line: &str| {
        let name = line.split_whitespace().next().expect("a name").to_owned();
        let page = said(&["integrations", "show", &name]);
        let (_, sample) =
            page.split_once("\n```yaml\nintegrations:\n").unwrap_or_else(|| panic!("no sample of {name}"));
        let sample = sample.split_once("\n```").expect("it ends").0.to_owned() + "\n";
        Exporter { name, sample }
    };
    let found: Vec<Exporter> = names.map(exporter).collect();
    assert!(found.len() >= 8, "{list}");
    found
}

/// Whether an exporter sends to an address that stands in its sample as a URL.
fn has_url(sample: &str) -> bool {
    sample.contains("://")
}

/// The sample with every URL on this port, its variables filled, and its patience cut short.
fn aimed(sample: &str, port: u16) -> String {
    let mut text = String::new();
    for line in sample.lines() {
        let option = line.trim_start().split(':').next().unwrap_or_default();
        let indent = &line[..line.len() - line.trim_start().len()];
        match option {
            // Only the age ends the attempts, and nothing waits for company.
            "retry_attempts" | "retry_max_age" | "flush_interval" => {}
            "timeout" => text.push_str(&format!("{indent}timeout: {TIMEOUT}\n")),
            _ => text.push_str(&format!("{}\n", on_port(&without_variables(line), port))),
        }
    }
    if !text.contains("timeout:") {
        text.push_str(&format!("    timeout: {TIMEOUT}\n"));
    }
    text + "    retry_delay: 50ms\n    retry_max_delay: 300ms\n"
}

/// A line with the scheme and host of its URL replaced.
fn on_port(line: &str, port: u16) -> String {
    let Some(at) = line.find("://") else { return line.to_owned() };
    let begin = line[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
    let behind = &line[at + 3..];
    let end = behind.find(['/', '"', '\'', ' ', ']']).unwrap_or(behind.len());
    format!("{}http://127.0.0.1:{port}{}", &line[..begin], &behind[end..])
}

fn without_variables(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("${") {
        text.push_str(before);
        text.push_str("a-secret");
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// Name of a signal and its letter in marks.
pub(super) const SIGNALS: [(&str, u8); 3] = [("metrics", b'm'), ("logs", b'l'), ("traces", b't')];

/// A request with these records of one signal.
fn request(signal: &str, marks: &[Mark]) -> Json {
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
    let texts: Vec<String> = marks.iter().map(Mark::to_string).collect();
    match signal {
        "logs" => logs(texts.into_iter().map(|text| (now, text, [].as_slice()))),
        "metrics" => {
            let pairs: Vec<[(&str, &str); 1]> = texts.iter().map(|text| [("id", text.as_str())]).collect();
            gauges(pairs.iter().map(|pair| ("lie.detector", pair.as_slice(), now, 1.5)))
        }
        _ => {
            let spans = texts.iter().enumerate().map(|(at, text)| {
                json!({"traceId": format!("{:032x}", now), "spanId": format!("{:016x}", now + at as u64), "name": text,
                       "startTimeUnixNano": now.to_string(), "endTimeUnixNano": (now + 1).to_string()})
            });
            json!({"resourceSpans": [{"scopeSpans": [{"spans": spans.collect::<Vec<Json>>()}]}]})
        }
    }
}

/// Sends one round's records of a signal to an agent, which takes them.
pub(super) async fn send(agent: &Lasting, round: u8, signal: (&str, u8)) -> Vec<Mark> {
    let marks: Vec<Mark> = (0..RECORDS).map(|number| Mark { round, signal: signal.1, number }).collect();
    for some in marks.chunks(AT_ONCE) {
        let body = Bytes::from(request(signal.0, some).to_string());
        let answer = http::post(&format!("{}/v1/{}", agent.url(), signal.0), "application/json", body).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.excerpt());
    }
    marks
}

/// An exporter at work.
struct Subject {
    name: String,
    agent: Lasting,
    liar: Liar,
    is_grpc: bool,
    /// The signals that it takes.
    signals: Vec<(&'static str, u8)>,
    /// Records of these that were sent.
    accepted: u64,
    dead_lettered: u64,
}

impl Subject {
    async fn start(exporter: Exporter) -> Subject {
        let liar = Liar::start().await;
        let mut agent = Lasting::new();
        agent.configure("", &aimed(&exporter.sample, liar.port()));
        agent.start().await;
        let is_grpc = exporter.name.ends_with("/grpc");
        let (name, signals) = (exporter.name, SIGNALS.to_vec());
        let mut subject = Subject { name, agent, liar, is_grpc, signals, accepted: 0, dead_lettered: 0 };
        // Which signals it takes, its ledger shows.
        for signal in SIGNALS {
            send(&subject.agent, 99, signal).await;
        }
        let name = subject.name.clone();
        let rows = wait_for(&format!("{name}: the first records arrive"), LONGEST_ROUND, async || {
            let rows: Vec<Json> = subject.agent.ledger().into_iter().filter(|row| row["exporter"] == *name).collect();
            Some(rows).filter(|rows| !rows.is_empty() && Row::of(rows).waiting == 0)
        })
        .await;
        subject.signals.retain(|signal| rows.iter().any(|row| row["signal"] == signal.0));
        subject.accepted = subject.signals.len() as u64 * u64::from(RECORDS);
        assert_eq!(subject.row(), Row::all_delivered(subject.accepted), "{name}: {rows:?}");
        subject
    }

    /// Everything that came from the sender, in the ledger.
    fn row(&self) -> Row {
        let rows = self.agent.ledger();
        Row::of(rows.iter().filter(|row| row["exporter"] == *self.name && row["source"] == "otlp_receiver"))
    }

    /// Waits until all these were answered with success.
    async fn wait_until_taken(&self, what: &str, marks: &[Mark], fault: Fault) {
        let is_there = |mark: &Mark| {
            let seen = self.liar.arrivals(*mark);
            let is_swallowed = fault == Fault::Page && seen.swallowed > 0 && !self.name.ends_with("/strict");
            // The head of the answer said that it was taken: who minds the rest sends again, who does not may not.
            // That of gRPC says nothing.
            let is_begun = !self.is_grpc
                && matches!(fault, Fault::PartialAnswer | Fault::ResetInAnswer | Fault::Trickle)
                && seen.unanswered > 0;
            seen.answered > 0 || is_swallowed || is_begun
        };
        wait_for(&format!("{what}: everything arrives"), LONGEST_ROUND, async || {
            marks.iter().all(is_there).then_some(())
        })
        .await;
    }

    async fn drained(&self, what: &str) -> Row {
        wait_for(&format!("{what}: nothing waits"), LONGEST_ROUND, async || {
            Some(self.row()).filter(|row| row.waiting == 0)
        })
        .await
    }

    /// One round; what is to be said about it.
    async fn meets(&mut self, round: u8, fault: Fault, then: Then) -> String {
        let (begun, what) = (Instant::now(), format!("{} with {fault:?}", self.name));
        self.liar.set(fault);
        let mut marks = Vec::new();
        for signal in self.signals.clone() {
            marks.extend(send(&self.agent, round, signal).await);
        }
        if then == Then::Passes {
            wait_for(&format!("{what}: it is met"), LONGEST_ROUND, async || (self.liar.faulted() > 0).then_some(()))
                .await;
            self.asks_for_time(&what, fault).await;
            self.liar.set(Fault::None);
        }
        let row = self.drained(&what).await;
        let has_met = self.liar.faulted() > 0;
        let expects_letters = has_met && matches!(then, Then::DeadLetters | Then::Named);
        let (bad, good): (Vec<Mark>, Vec<Mark>) = marks.iter().partition(|mark| expects_letters && mark.is_bad());
        self.wait_until_taken(&what, &good, fault).await;
        self.accepted += marks.len() as u64;
        self.dead_lettered += bad.len() as u64;
        let expected = Row {
            accepted: self.accepted,
            delivered: self.accepted - self.dead_lettered,
            dead_lettered: self.dead_lettered,
            ..Row::default()
        };
        assert_eq!(row, expected, "{what}: {:?}\n{}", self.letters(), self.agent.process().stderr());
        if expects_letters {
            self.assert_letters(&what, fault, then, &bad);
            self.replay(&what, &bad).await;
        } else {
            assert_eq!(self.letters(), Vec::<Json>::new(), "{what}");
        }
        let (duplicates, swallowed) = self.assert_counts(&what, fault, then, &marks);
        let (met, took) = (self.liar.faulted(), begun.elapsed().as_secs_f64());
        let met =
            if has_met || fault == Fault::None { met.to_string() } else { "never, its protocol has none".to_owned() };
        let swallowed = match swallowed {
            0 => String::new(),
            count if self.name.ends_with("/strict") => format!(", {count} swallowed and sent again"),
            count => format!(", {count} taken for delivered"),
        };
        format!(
            "  {fault:?}: met {met}, {duplicates} records twice{swallowed}, {} dead letters, {took:.1} s\n",
            bad.len()
        )
    }

    /// That nobody asks before the time is over that the backend asked for.
    async fn asks_for_time(&self, what: &str, fault: Fault) {
        let Some(wait) = fault.asks_for() else { return };
        let first = *self.liar.requests().first().expect("it is met");
        self.liar.set(Fault::None);
        let after = wait_for(&format!("{what}: it is asked again"), LONGEST_ROUND, async || {
            self.liar.requests().into_iter().map(|at| at - first).find(|after| *after >= wait)
        })
        .await;
        // Requests that were under way when it began to ask come all the same.
        let soon = seconds(1);
        let hasty: Vec<Duration> = self.liar.requests().into_iter().map(|at| at - first).collect();
        let hasty: Vec<&Duration> = hasty.iter().filter(|after| (soon..wait).contains(*after)).collect();
        assert!(hasty.is_empty(), "{what}: asked again after {hasty:?}");
        println!("{what}: asked again after {after:?}");
    }

    /// That every record was taken once, and again only where an answer was lost.
    fn assert_counts(&self, what: &str, fault: Fault, then: Then, marks: &[Mark]) -> (u32, u32) {
        let (mut duplicates, mut swallowed) = (0, 0);
        for mark in marks {
            let seen = self.liar.arrivals(*mark);
            // A dead letter of several records is replayed with the good ones among them.
            let most = if then == Then::Named { 2 } else { 1 };
            assert!(
                seen.answered <= most,
                "{what}: {mark} was taken {} times, although the answer arrived",
                seen.answered
            );
            assert!(fault.loses_answers() || seen.unanswered == 0, "{what}: {mark}: {seen:?}");
            duplicates += (seen.answered + seen.unanswered).saturating_sub(1);
            swallowed += seen.swallowed;
        }
        (duplicates, swallowed)
    }

    /// All dead letters, as they are listed.
    fn letters(&self) -> Vec<Json> {
        let page = self.agent.json(&["dead-letters", "list", "--json", "--limit", "1000"]);
        page["dead_letters"].as_array().expect("a list").clone()
    }

    /// That the dead letters hold the bad records, and say why.
    fn assert_letters(&self, what: &str, fault: Fault, then: Then, bad: &[Mark]) {
        let letters = self.letters();
        let mut found = Vec::new();
        for letter in &letters {
            let shown = self.agent.json(&["dead-letters", "show", letter["id"].as_str().expect("an id")]);
            let marks = Mark::all_in(shown["payload"].to_string().as_bytes());
            let text = |name: &str| letter[name].as_str().unwrap_or_else(|| panic!("{what}: no {name} in {letter}"));
            assert_eq!((text("exporter"), text("source")), (self.name.as_str(), "otlp_receiver"), "{what}");
            assert_eq!(letter["of"], marks.len(), "{what}: {letter}");
            if let Fault::Refuses(status) = fault {
                if self.is_grpc {
                    assert_eq!((text("grpc_status"), &letter["status"]), (grpc_status(status), &Json::Null), "{what}");
                } else {
                    assert_eq!(letter["status"], status, "{what}: {letter}");
                }
                let kept: String = refusal(status).chars().take(1024).collect();
                assert_eq!(text("answer"), kept, "{what}");
                let words: String = kept.chars().take(60).collect();
                // A status that says everything needs no words of the backend.
                assert!(status == 413 || text("reason").contains(&words), "{what}: {letter}");
            }
            if then == Then::Named {
                assert!(text("reason").contains(NAMED), "{what}: {letter}");
            }
            // Where the answer says only how many, what is kept holds the good ones too.
            let is_exact = letter["of"] == letter["records"];
            assert!(is_exact || then == Then::Named, "{what}: {letter}");
            found.extend(marks.into_iter().filter(|mark| is_exact || mark.is_bad()));
        }
        let records: u64 = letters.iter().map(|letter| letter["records"].as_u64().expect("a number")).sum();
        found.sort_unstable();
        let mut expected = bad.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{what}: exactly the bad records are dead letters: {letters:?}");
        assert_eq!(records, bad.len() as u64, "{what}: {letters:?}");
    }

    /// The backend is mended, and what it refused is handed to it again.
    async fn replay(&mut self, what: &str, bad: &[Mark]) {
        let faulted = self.liar.faulted();
        self.liar.set(Fault::None);
        let said = self.agent.says(&["dead-letters", "replay", "--all"]);
        assert!(said.contains("handed on again"), "{what}: {said}");
        self.wait_until_taken(&format!("{what}, replayed"), bad, Fault::None).await;
        wait_for(&format!("{what}: no dead letter is left"), LONGEST_ROUND, async || {
            self.letters().is_empty().then_some(())
        })
        .await;
        assert!(faulted > 0, "{what}");
    }
}

async fn meets_every_fault(exporter: Exporter) -> String {
    let mut subject = Subject::start(exporter).await;
    let mut said = format!("{}:\n", subject.name);
    let rounds: &[(Fault, Then)] = if subject.is_grpc { &GRPC_ROUNDS } else { &ROUNDS };
    for (round, (fault, then)) in (0..).zip(rounds.iter().copied()) {
        said.push_str(&subject.meets(round, fault, then).await);
    }
    let unknown: Vec<Mark> = subject.liar.all().into_iter().filter(|mark| mark.number >= RECORDS).collect();
    assert_eq!(unknown, [], "nobody sent these");
    let log = subject.agent.stop().await;
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    let row = subject.row();
    assert_eq!(row.accepted, subject.accepted, "also after a stop");
    said
}

/// Exporters that send to no URL, and what tries their faults instead.
const OWN_TESTS: [(&str, &str); 3] = [("kafka", "faults_kafka.rs"), ("file", "local.rs"), ("console", "local.rs")];

#[test]
fn every_exporter_delivers_everything_through_every_fault_and_keeps_what_is_refused() {
    let only = std::env::var("WEIR_TEST_EXPORTER").ok();
    let mut exporters = exporters();
    let named = |name| exporters.iter().find(|exporter| exporter.name == name).expect("it is in the list");
    let variants = [named("otlp").over_grpc(), named("webhook").strict()];
    exporters.extend(variants);
    let exporters = exporters.into_iter().filter(|exporter| only.as_ref().is_none_or(|only| *only == exporter.name));
    let (with_url, others): (Vec<Exporter>, Vec<Exporter>) = exporters.partition(|exporter| has_url(&exporter.sample));
    for exporter in others {
        let tests = OWN_TESTS.iter().find(|(name, _)| *name == exporter.name);
        let (name, tests) =
            tests.unwrap_or_else(|| panic!("{} sends to no URL; what tries its faults?", exporter.name));
        println!("{name} sends to no URL: {tests}");
    }
    // Each has a runtime of its own, whose second thread is the backend's: the first one waits for commands.
    let meets = |exporter: Exporter| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(meets_every_fault(exporter))
    };
    let all: Vec<_> = with_url.into_iter().map(|exporter| std::thread::spawn(move || meets(exporter))).collect();
    let ended: Vec<_> = all.into_iter().map(std::thread::JoinHandle::join).collect();
    ended.iter().flatten().for_each(|said| print!("{said}"));
    let failed = ended.iter().filter(|ended| ended.is_err()).count();
    assert_eq!(failed, 0, "exporters failed, see above");
}
