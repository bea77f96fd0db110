//! The server is killed again and again while several clients write: what it answered 200 for is
//! there after every start, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use weir_net::{Answer, Client, HttpOptions, TransportError};

use crate::harness::server::{ADMIN_KEY, Options, Server};
use crate::harness::{seconds, wait_for};

/// How often it is killed.
const ROUNDS: usize = 50;

/// How long all of it may take.
const LONGEST: Duration = seconds(90);

/// The server is killed this long after the writers began, at a moment that nobody chose.
const KILLED_AFTER_MS: (u64, u64) = (20, 250);

/// How a writer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// `POST /api/metrics`, several samples at once.
    AgentOps,
    /// OTLP over HTTP.
    Otlp,
}

/// What a client does with samples that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Sends them again, as agents do: they may have been stored all the same.
    SendsAgain,
    /// Goes on with the next.
    GoesOn,
}

/// A numbered sample: its time, unix milliseconds, and its value.
type Sample = (i64, u64);

/// One client, writing for a host of its own.
struct Writer {
    host: String,
    path: Path,
    then: Then,
    url: String,
    client: Client,
    /// Number and time of the last sample.
    last: Sample,
    /// What got no answer and is sent again.
    pending: Vec<Sample>,
    /// What was answered with 200.
    acknowledged: BTreeMap<i64, u64>,
    /// What was sent and never answered.
    unanswered: BTreeMap<i64, u64>,
}

impl Writer {
    fn new(server: &Server, number: usize, path: Path, then: Then) -> Writer {
        Writer {
            host: format!("writer-{number}"),
            path,
            then,
            url: server.url(),
            client: Client::new(&HttpOptions::default()).expect("a plain client"),
            last: (0, 0),
            pending: Vec::new(),
            acknowledged: BTreeMap::new(),
            unanswered: BTreeMap::new(),
        }
    }

    /// The next samples, each later than the one before.
    fn next(&mut self) -> Vec<Sample> {
        let how_many = if self.path == Path::AgentOps { 3 } else { 1 };
        let mut samples = Vec::new();
        for _ in 0..how_many {
            self.last = (jiff::Timestamp::now().as_millisecond().max(self.last.0 + 1), self.last.1 + 1);
            samples.push(self.last);
        }
        samples
    }

    /// Writes until the server is gone.
    async fn write(mut self) -> Writer {
        loop {
            let samples = if self.pending.is_empty() { self.next() } else { std::mem::take(&mut self.pending) };
            let answer = self.send(&samples).await;
            if let Ok(answer) = &answer {
                assert!(matches!(answer.status.as_u16(), 200 | 503), "{}: {}", self.host, answer.excerpt());
            }
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                for sample in &samples {
                    self.unanswered.remove(&sample.0);
                }
                self.acknowledged.extend(samples);
                continue;
            }
            self.unanswered.extend(samples.iter().copied());
            if self.then == Then::SendsAgain {
                self.pending = samples;
            }
            if answer.is_err() {
                return self;
            }
        }
    }

    async fn send(&self, samples: &[Sample]) -> Result<Answer, TransportError> {
        let (path, body) = match self.path {
            Path::AgentOps => ("/api/metrics", self.agentops(samples)),
            Path::Otlp => ("/v1/metrics", self.otlp(samples)),
        };
        let request = http::Request::post(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {ADMIN_KEY}"))
            .header("content-type", "application/json")
            .body(Bytes::from(body.to_string()))
            .expect("a request");
        self.client.send(request, 1 << 20).await
    }

    fn agentops(&self, samples: &[Sample]) -> Json {
        let one = |(time_ms, value): &Sample| {
            let time = jiff::Timestamp::from_millisecond(*time_ms).expect("a time");
            json!({"serverId": self.host, "timestamp": time.to_string(), "number": value})
        };
        samples.iter().map(one).collect()
    }

    fn otlp(&self, samples: &[Sample]) -> Json {
        let points: Vec<Json> = samples
            .iter()
            .map(|(time_ms, value)| json!({"timeUnixNano": format!("{time_ms}000000"), "asInt": value.to_string()}))
            .collect();
        json!({"resourceMetrics": [{
            "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": self.host}}]},
            "scopeMetrics": [{"metrics": [{"name": "custom.number", "gauge": {"dataPoints": points}}]}],
        }]})
    }

    /// Checks what is stored of this writer; how many samples, and how many of them without an answer.
    async fn check(&self, server: &Server, round: usize) -> (usize, usize) {
        let path = format!("/api/metrics?serverId={}&hours=24&limit=100000", self.host);
        let answer = server.get(&path).await;
        let mut stored = BTreeMap::new();
        for row in answer["metrics"].as_array().expect("a list") {
            let time: jiff::Timestamp = row["timestamp"].as_str().expect("a time").parse().expect("RFC 3339");
            let value = row["custom"]["number"].as_u64().unwrap_or_else(|| panic!("no number: {row}"));
            let twice = stored.insert(time.as_millisecond(), value);
            assert_eq!(twice, None, "round {round}, {}: {time} is there twice", self.host);
        }
        let lost: Vec<_> = self.acknowledged.iter().filter(|(time, value)| stored.get(time) != Some(value)).collect();
        assert!(lost.is_empty(), "round {round}, {}: lost {} acknowledged samples: {lost:?}", self.host, lost.len());
        let values: BTreeSet<u64> = stored.values().copied().collect();
        assert_eq!(values.len(), stored.len(), "round {round}, {}: a sample is there at two times", self.host);
        let extra: Vec<_> = stored.iter().filter(|(time, _)| !self.acknowledged.contains_key(time)).collect();
        for (time, value) in &extra {
            assert_eq!(self.unanswered.get(time), Some(*value), "round {round}, {}: nobody sent this", self.host);
        }
        (stored.len(), extra.len())
    }
}

/// Moments that differ from run to run: the seed is printed, so that a run can be had again.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond().unsigned_abs());
        println!("WEIR_TEST_SEED={seed}");
        Chance(seed | 1)
    }

    /// From `least` to `most` (xorshift64, Marsaglia 2003).
    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        least + self.0 % (most - least + 1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_once_after_every_one_of_50_kills() {
    let begun = Instant::now();
    // Weir's own metrics would be among the samples that are counted.
    let config = "integrations:\n  internal: {enabled: false}\n".to_owned();
    let mut server = Server::start(Options { config: Some(config), ..Options::default() }).await;
    let mut writers: Vec<Writer> = [
        (Path::AgentOps, Then::SendsAgain),
        (Path::AgentOps, Then::GoesOn),
        (Path::Otlp, Then::SendsAgain),
        (Path::Otlp, Then::SendsAgain),
        (Path::Otlp, Then::GoesOn),
    ]
    .into_iter()
    .enumerate()
    .map(|(number, (path, then))| Writer::new(&server, number, path, then))
    .collect();
    for writer in &writers {
        server.post("/api/servers", &json!({"hostname": writer.host})).await;
    }
    let mut chance = Chance::new();
    let (mut slowest_start, mut found_without_answer, mut stored) = (Duration::ZERO, 0, 0);
    for round in 1..=ROUNDS {
        let running: Vec<_> = writers.drain(..).map(|writer| tokio::spawn(writer.write())).collect();
        tokio::time::sleep(Duration::from_millis(chance.between(KILLED_AFTER_MS))).await;
        server.kill().await;
        for task in running {
            writers.push(task.await.expect("the writer does not panic"));
        }
        let started = Instant::now();
        server.restart().await;
        slowest_start = slowest_start.max(started.elapsed());
        (stored, found_without_answer) = (0, 0);
        for writer in &writers {
            let (all, extra) = writer.check(&server, round).await;
            (stored, found_without_answer) = (stored + all, found_without_answer + extra);
        }
        // What a row cannot show: the same sample twice in the store.
        let counted = server.get("/api/v1/status").await["store"]["samples"].as_u64();
        assert_eq!(
            counted,
            Some(stored as u64),
            "round {round}: the store holds samples that nobody sent, or one twice"
        );
    }
    let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged.len()).sum();
    let without_answer: usize = writers.iter().map(|writer| writer.unanswered.len()).sum();
    println!(
        "{ROUNDS} kills in {:?}: {acknowledged} samples acknowledged, {stored} stored; of {without_answer} that never \
         got an answer {found_without_answer} are there; slowest start {slowest_start:?}",
        begun.elapsed()
    );
    for writer in &writers {
        assert!(writer.acknowledged.len() >= ROUNDS, "{} hardly wrote: {}", writer.host, writer.acknowledged.len());
    }
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_servers_that_were_answered_survive_a_kill() {
    let mut server = Server::start(Options::default()).await;
    let server_record = server.post("/api/servers", &json!({"hostname": "web-1", "tags": ["a"]})).await;
    let key = server.new_key(&["read"]).await;
    server.kill().await;
    server.restart().await;
    let id = server_record["id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/api/servers/{id}")).await["hostname"], "web-1");
    let hosts = wait_for("its row", seconds(5), async || {
        let answer = server.ask(http::Method::GET, "/api/v1/hosts", &key, &Json::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.excerpt());
        let hosts: Json = serde_json::from_slice(&answer.body).expect("JSON");
        hosts["hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|host| host["name"] == "web-1")).then_some(hosts)
    })
    .await;
    assert_eq!(hosts["hosts"][0]["status"], "unknown", "{hosts}");
}
