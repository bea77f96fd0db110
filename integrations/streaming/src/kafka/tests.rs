//! Both directions against librdkafka's own mock cluster, which speaks the protocol over real sockets and
//! answers with every error one asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Answer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value as Json, json};
use weir_config::Acknowledge;
use weir_model::{Encoding, Payload, Records, Signal, Value, otlp};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::{Delivery, Export, Receive, Takes};
use weir_pipeline::{Context, Fault, FaultKind, Outcome};

use super::consumer::KafkaConsumer;
use super::exporter::Kafka;

fn context(name: &str) -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: Arc::from(name),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

/// A mock cluster; the calls to it wait for its threads.
struct Brokers(MockCluster<'static, DefaultProducerContext>);

impl Brokers {
    fn start(topics: &[(&str, i32)]) -> Brokers {
        let cluster = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).unwrap();
        }
        Brokers(cluster)
    }

    fn exporter(&self, options: Json) -> Kafka {
        exporter(&self.0.bootstrap_servers(), options).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// All messages of a topic, partition by partition.
    fn messages(&self, topic: &str) -> Vec<Kept> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .set("group.id", "reader")
            .create()
            .unwrap();
        let wait = Duration::from_secs(10);
        let metadata = consumer.fetch_metadata(Some(topic), wait).unwrap();
        let (mut list, mut count) = (TopicPartitionList::new(), 0);
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), wait).unwrap();
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
            count += high - low;
        }
        consumer.assign(&list).unwrap();
        let mut found = Vec::new();
        for _ in 0..count {
            let message = consumer.poll(wait).unwrap_or_else(|| panic!("{} of {count} messages", found.len()));
            found.push(Kept::of(&message.unwrap()));
        }
        found
    }

    /// The offset that the group `weir` has committed for the first partition of a topic.
    fn committed(&self, topic: &str) -> Offset {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.0.bootstrap_servers())
            .set("group.id", "weir")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let committed = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
        committed.find_partition(topic, 0).unwrap().offset()
    }

    fn write(&self, topic: &str, messages: &[(&str, Option<&[u8]>)]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.0.bootstrap_servers()).create().unwrap();
        for (key, body) in messages {
            let record = BaseRecord::to(topic).key(*key).partition(0);
            let record = match body {
                Some(body) => record.payload(*body),
                None => record,
            };
            producer.send(record).unwrap_or_else(|(error, _)| panic!("{error}"));
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    }
}

#[derive(Debug)]
struct Kept {
    key: Option<String>,
    body: Vec<u8>,
    partition: i32,
    headers: BTreeMap<String, String>,
}

impl Kept {
    fn of(message: &BorrowedMessage<'_>) -> Kept {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().map_or_else(BTreeMap::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect()
        });
        Kept {
            key: message.key().map(text),
            body: message.payload().unwrap_or_default().to_vec(),
            partition: message.partition(),
            headers,
        }
    }
}

fn exporter(brokers: &str, mut options: Json) -> Result<Kafka, Fault> {
    options["brokers"] = json!([brokers]);
    Kafka::new(serde_json::from_value(options).unwrap(), &context("kafka"))
}

fn logs(bodies: impl IntoIterator<Item = (String, String)>) -> Payload {
    let resources: Vec<Json> = bodies
        .into_iter()
        .map(|(host, body)| {
            json!({"resource": {"attributes": [{"key": "host.name", "value": {"stringValue": host}}]},
                   "scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": body}}]}]})
        })
        .collect();
    request(Signal::Logs, &json!({ "resourceLogs": resources }))
}

/// A payload as a receiver of OTLP/JSON makes it.
fn request(signal: Signal, json: &Json) -> Payload {
    otlp::accept(signal, Encoding::Json, Bytes::from(json.to_string())).unwrap()
}

fn lines(count: usize, size: usize) -> Payload {
    logs((0..count).map(|at| ("web-1".to_owned(), format!("{at:04} {}", "x".repeat(size)))))
}

fn delivery(payloads: Vec<Payload>) -> Delivery {
    Delivery { signal: payloads[0].signal(), payloads, id: 1 }
}

fn bodies(request: &ExportLogsServiceRequest) -> Vec<String> {
    let records = request.resource_logs.iter().flat_map(|it| &it.scope_logs).flat_map(|it| &it.log_records);
    records.map(|record| format!("{:?}", record.body)).collect()
}

fn decoded(messages: &[Kept]) -> Vec<String> {
    messages.iter().flat_map(|it| bodies(&ExportLogsServiceRequest::decode(&it.body[..]).unwrap())).collect()
}

fn spans() -> Payload {
    let span = |trace: &str, name: &str| {
        json!({"traceId": trace.repeat(32), "spanId": "0102030405060708", "name": name,
               "startTimeUnixNano": "1", "endTimeUnixNano": "2"})
    };
    let all: Vec<Json> = (0..30).map(|at| span(["a", "b", "c"][at % 3], &format!("span {at}"))).collect();
    request(Signal::Traces, &json!({"resourceSpans": [{"scopeSpans": [{"spans": all}]}]}))
}

fn gauges() -> Payload {
    let point = json!({"timeUnixNano": "5", "asDouble": 1.5});
    let metric = json!({"name": "load", "gauge": {"dataPoints": [point]}});
    request(Signal::Metrics, &json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_signals_arrive_in_their_topics_in_both_encodings() {
    let brokers = Brokers::start(&[("m", 1), ("l", 1), ("t", 1)]);
    for encoding in ["otlp_proto", "json"] {
        let kafka =
            brokers.exporter(json!({"topic": "m", "logs_topic": "l", "traces_topic": "t", "encoding": encoding}));
        for payload in [gauges(), lines(3, 0), spans()] {
            assert_eq!(kafka.export(&delivery(vec![payload])).await, Outcome::Accepted);
        }
    }
    for (topic, signal) in [("m", Signal::Metrics), ("l", Signal::Logs), ("t", Signal::Traces)] {
        let found = brokers.messages(topic);
        assert_eq!(found[0].headers["content-type"], "application/x-protobuf");
        assert_eq!(found[1].headers["content-type"], "application/json");
        assert!(found.iter().all(|it| it.headers["signal"] == signal.name() && it.key.is_none()), "{found:?}");
        // An independent decoder reads both, and the same.
        match signal {
            Signal::Metrics => same::<ExportMetricsServiceRequest>(&found),
            Signal::Logs => same::<ExportLogsServiceRequest>(&found),
            Signal::Traces => same::<ExportTraceServiceRequest>(&found),
        }
    }
}

fn same<M>(found: &[Kept])
where
    M: prost::Message + Default + serde::de::DeserializeOwned,
{
    let (protobuf, json) =
        (M::decode(&found[0].body[..]).unwrap(), serde_json::from_slice::<M>(&found[1].body).unwrap());
    assert_eq!(protobuf.encode_to_vec(), json.encode_to_vec());
    assert!(protobuf.encoded_len() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_one_key_share_a_partition_and_none_is_lost_by_the_grouping() {
    let brokers = Brokers::start(&[("l", 8), ("t", 8)]);
    let by_host = brokers.exporter(json!({"logs_topic": "l", "partition_key": "hostname"}));
    let payload = || logs((0..40).map(|at| (format!("web-{}", at % 4), format!("line {at}"))));
    assert_eq!(by_host.export(&delivery(vec![payload(), payload()])).await, Outcome::Accepted);
    let found = brokers.messages("l");
    let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for message in &found {
        partitions.entry(message.key.clone().unwrap()).or_default().insert(message.partition);
    }
    assert_eq!(partitions.keys().collect::<Vec<_>>(), ["web-0", "web-1", "web-2", "web-3"]);
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "{partitions:?}");
    let all = decoded(&found);
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (80, 40));

    let by_trace = brokers.exporter(json!({"traces_topic": "t", "partition_key": "trace_id"}));
    assert_eq!(by_trace.export(&delivery(vec![spans()])).await, Outcome::Accepted);
    let found = brokers.messages("t");
    assert_eq!(found.iter().filter_map(|it| it.key.clone()).collect::<BTreeSet<_>>().len(), 3);
    for message in found {
        let request = ExportTraceServiceRequest::decode(&message.body[..]).unwrap();
        let spans: Vec<_> = request.resource_spans[0].scope_spans[0].spans.iter().collect();
        assert_eq!(spans.len(), 10);
        let key = message.key.unwrap();
        assert!(spans.iter().all(|it| it.trace_id.iter().map(|b| format!("{b:02x}")).collect::<String>() == key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_split_and_one_record_that_is_too_large_is_refused_alone() {
    let brokers = Brokers::start(&[("l", 1)]);
    let kafka = brokers.exporter(json!({"logs_topic": "l", "max_message_size": "20KB"}));
    let large = logs((0..9).map(|at| ("a".to_owned(), if at == 4 { "y".repeat(30_000) } else { "x".repeat(6000) })));
    let outcome = kafka.export(&delivery(vec![lines(2, 1), large])).await;
    let Outcome::Each { refused, later, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(later, [0_u32; 0]);
    assert_eq!(refused.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [6], "counted over both payloads");
    assert!(refused[0].1.contains("max_message_size"), "{}", refused[0].1);
    let found = brokers.messages("l");
    assert!(found.iter().all(|it| it.body.len() <= 20_000));
    assert_eq!(decoded(&found).len(), 10);
}

/// What an answer of the broker to a delivery of three records makes of it.
async fn answered(errors: &[Answer]) -> Outcome {
    let brokers = Brokers::start(&[("l", 1)]);
    let kafka =
        brokers.exporter(json!({"logs_topic": "l", "timeout": "3s", "options": {"retries": "0"}, "idempotent": false}));
    brokers.0.request_errors(RDKafkaApiKey::Produce, errors);
    kafka.export(&delivery(vec![lines(3, 0)])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_class_of_error_of_a_broker_is_one_outcome() {
    let forbidden = answered(&[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]).await;
    assert!(matches!(&forbidden, Outcome::Unauthorized { why } if why.contains("`l`")), "{forbidden:?}");
    let invalid = answered(&[Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD]).await;
    assert!(
        matches!(&invalid, Outcome::Each { refused, later, .. } if refused.len() == 3 && later.is_empty()),
        "{invalid:?}"
    );
    let large = answered(&[Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]).await;
    assert!(matches!(&large, Outcome::Split { why } if why.contains("max_message_size")), "{large:?}");
    let disk = answered(&[Answer::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR]).await;
    assert!(matches!(disk, Outcome::Later { .. }), "{disk:?}");
    // What librdkafka tries again itself within the attempt is no error at all.
    let brokers = Brokers::start(&[("l", 1)]);
    let kafka = brokers.exporter(json!({"logs_topic": "l"}));
    let passing = [Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Answer::RD_KAFKA_RESP_ERR__TRANSPORT];
    brokers.0.request_errors(RDKafkaApiKey::Produce, &passing);
    assert_eq!(kafka.export(&delivery(vec![lines(3, 0)])).await, Outcome::Accepted);
    assert_eq!(decoded(&brokers.messages("l")).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_means_later_with_its_address() {
    let kafka = exporter("127.0.0.1:1", json!({"timeout": "2s"})).unwrap();
    let begun = Instant::now();
    let outcome = kafka.export(&delivery(vec![lines(1, 0)])).await;
    let Outcome::Later { why, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("127.0.0.1:1") && why.contains("refused"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let fault = kafka.check().await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.message.contains("127.0.0.1:1"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_given_up_takes_back_what_was_not_sent() {
    let brokers = Brokers::start(&[("l", 1)]);
    let kafka = brokers.exporter(json!({"logs_topic": "l"}));
    assert_eq!(kafka.export(&delivery(vec![lines(1, 0)])).await, Outcome::Accepted);
    brokers.0.broker_down(-1).unwrap();
    let seven = delivery(vec![lines(7, 0)]);
    assert!(tokio::time::timeout(Duration::from_secs(1), kafka.export(&seven)).await.is_err(), "nobody could answer");
    brokers.0.broker_up(-1).unwrap();
    assert_eq!(kafka.export(&delivery(vec![lines(2, 0)])).await, Outcome::Accepted);
    let found = decoded(&brokers.messages("l"));
    assert_eq!(found.len(), 3, "the seven were never written: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_looks_at_the_topics_and_writes_nothing() {
    let brokers = Brokers::start(&[("l", 3), ("t", 1)]);
    let kafka = brokers.exporter(json!({"logs_topic": "l", "traces_topic": "t", "signals": ["logs", "traces"]}));
    let found = kafka.check().await.unwrap();
    assert!(found.contains("`l` (3 partitions)") && found.contains("1 brokers"), "{found}");
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers.0.bootstrap_servers()).create().unwrap();
    assert_eq!(consumer.fetch_watermarks("l", 0, Duration::from_secs(5)).unwrap(), (0, 0));
    brokers.0.topic_error("t", Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    assert_eq!(kafka.check().await.unwrap_err().kind, FaultKind::Unauthorized);
}

/// Why an exporter does not take these options.
fn refused(options: Json) -> String {
    exporter("a:1", options).err().unwrap().message
}

#[test]
fn options_that_make_no_sense_are_refused_with_what_to_do() {
    assert!(refused(json!({"acks": "leader"})).contains("idempotent: false"));
    assert!(refused(json!({"logs_topic": "a b"})).contains("logs_topic"));
    assert!(refused(json!({"max_message_size": "10B"})).contains("1KiB"));
    assert!(refused(json!({"timeout": "1h"})).contains("240 s"));
    assert!(refused(json!({"options": {"transactional.id": "x"}})).contains("transactional.id"));
}

/// A backend that keeps the bodies of log records and counts the rest; it can be away.
#[derive(Clone, Default)]
struct Sink {
    bodies: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
    others: Arc<AtomicUsize>,
    is_away: Arc<AtomicBool>,
    /// Batches with this word are not taken.
    stuck_on: Arc<Mutex<Option<String>>>,
}

impl Export for Sink {
    type Config = super::exporter::Config;

    fn new(_: Self::Config, _: &Context) -> Result<Self, Fault> {
        Ok(Sink::default())
    }

    fn takes(&self) -> Takes {
        Takes::EVERYTHING
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let later = || Outcome::Later { after: Some(Duration::from_millis(50)), why: "away".into() };
        if self.is_away.load(Ordering::Acquire) {
            return later();
        }
        let (mut bodies, mut errors) = (Vec::new(), Vec::new());
        for payload in &delivery.payloads {
            let Records::Logs(logs) = payload.records().unwrap() else {
                self.others.fetch_add(payload.len(), Ordering::AcqRel);
                continue;
            };
            for record in &logs.records {
                let body = logs.common.value_text(record.body);
                if let Some(Value::String(why)) = logs.common.find(record.attributes, "error.message") {
                    errors.push(format!("{body}: {}", logs.common.text(why)));
                }
                bodies.push(body);
            }
        }
        let stuck_on = self.stuck_on.lock().unwrap().clone();
        if stuck_on.is_some_and(|word| bodies.iter().any(|body| body.contains(&word))) {
            return later();
        }
        self.bodies.lock().unwrap().append(&mut bodies);
        self.errors.lock().unwrap().append(&mut errors);
        Outcome::Accepted
    }

    async fn check(&self) -> Result<String, Fault> {
        Ok(String::new())
    }
}

impl Sink {
    async fn has(&self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let bodies = self.bodies.lock().unwrap().clone();
            if bodies.len() >= count {
                return bodies;
            }
            assert!(begun.elapsed() < Duration::from_secs(40), "{} of {count} log records", bodies.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn consume(brokers: &Brokers, sink: &Sink, mut options: Json) -> Pipeline {
    options["brokers"] = json!([brokers.0.bootstrap_servers()]);
    let consumer = KafkaConsumer::new(serde_json::from_value(options).unwrap(), &context("kafka_consumer"));
    let consumer = consumer.unwrap_or_else(|fault| panic!("{fault}"));
    // One delivery per batch, many at once: a stuck one holds up nobody.
    let options = ExportOptions { batch_size: 1, max_in_flight: 64, ..ExportOptions::default() };
    let members = vec![Member::receiver("kafka_consumer", consumer), Member::exporter("sink", options, sink.clone())];
    let plan = Plan { members, acknowledge: Acknowledge::Durable, memory_bytes: 64 << 20, ..Plan::default() };
    Pipeline::start(plan).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_become_records_and_what_cannot_be_decoded_is_kept_and_blocks_nothing() {
    let brokers = Brokers::start(&[("otlp_logs", 1)]);
    let good = lines(1, 0).to_protobuf().unwrap();
    let json = gauges().to_json().unwrap();
    let messages: [(&str, Option<&[u8]>); 6] = [
        ("a", Some(&good)),
        ("a", Some(b"\xff\x00 broken")),
        ("a", None),
        ("a", Some(b"")),
        ("a", Some(&json)),
        ("a", Some(&good)),
    ];
    brokers.write("otlp_logs", &messages);
    let sink = Sink::default();
    let options = json!({"topics": ["otlp_logs"], "encoding": "otlp_proto"});
    let pipeline = consume(&brokers, &sink, options).await;
    let found = sink.has(4).await;
    pipeline.stop().await;
    assert_eq!(found.iter().filter(|body| body.starts_with("0000")).count(), 2, "{found:?}");
    assert!(found.iter().any(|body| body == "ff002062726f6b656e"), "as bytes: {found:?}");
    let errors = sink.errors.lock().unwrap().clone();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|error| error.contains("it is no OTLP request for logs")), "{errors:?}");
}

// The mock cluster lets nobody join a group again that its last member has left, so the second life of a member
// is a test against a real broker (`tests/all/kafka.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_has_committed_everything_that_was_taken() {
    let brokers = Brokers::start(&[("app", 1)]);
    let texts: Vec<String> = (0..500).map(|at| format!("line {at}")).collect();
    let messages: Vec<(&str, Option<&[u8]>)> = texts.iter().map(|text| ("k", Some(text.as_bytes()))).collect();
    brokers.write("app", &messages);
    let sink = Sink::default();
    let options = json!({"topics": ["^ap+$"], "encoding": "text"});
    let pipeline = consume(&brokers, &sink, options).await;
    sink.has(500).await;
    pipeline.stop().await;
    assert_eq!(sink.bodies.lock().unwrap().clone(), texts, "in order, none twice");
    assert_eq!(brokers.committed("app"), Offset::Offset(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_never_pass_a_record_that_is_not_taken() {
    let brokers = Brokers::start(&[("otlp_logs", 1)]);
    let messages: Vec<Bytes> =
        (0..20).map(|at| logs([("a".to_owned(), format!("message {at}."))]).to_protobuf().unwrap()).collect();
    let messages: Vec<(&str, Option<&[u8]>)> = messages.iter().map(|body| ("k", Some(&body[..]))).collect();
    brokers.write("otlp_logs", &messages);
    let sink = Sink::default();
    *sink.stuck_on.lock().unwrap() = Some("message 5.".to_owned());
    let options = json!({"topics": ["otlp_logs"], "encoding": "otlp_proto"});
    let pipeline = consume(&brokers, &sink, options).await;
    assert_eq!(sink.has(19).await.len(), 19, "the others go on");
    // Twice as long as a commit may wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(brokers.committed("otlp_logs"), Offset::Offset(5));
    pipeline.stop().await;
    assert_eq!(brokers.committed("otlp_logs"), Offset::Offset(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_taken_fetches_no_more_than_its_share_and_loses_nothing() {
    let brokers = Brokers::start(&[("big", 1)]);
    // The mock cluster keeps 5 MB.
    let texts: Vec<String> = (0..200).map(|at| format!("{at:03} {}", "x".repeat(20_000))).collect();
    let messages: Vec<(&str, Option<&[u8]>)> = texts.iter().map(|text| ("k", Some(text.as_bytes()))).collect();
    brokers.write("big", &messages);
    let sink = Sink::default();
    sink.is_away.store(true, Ordering::Release);
    let options = json!({"topics": ["big"], "encoding": "text", "buffer_size": "1MiB"});
    let pipeline = consume(&brokers, &sink, options).await;
    let held = || pipeline.telemetry().ledger.snapshot().iter().map(|(_, counts)| counts.accepted).max().unwrap_or(0);
    let begun = Instant::now();
    while held() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing arrives");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(held() < 120, "{} records of 20 kB with a share of 1 MiB", held());
    sink.is_away.store(false, Ordering::Release);
    let found = sink.has(200).await;
    pipeline.stop().await;
    let numbers: Vec<&str> = found.iter().map(|body| &body[..3]).collect();
    assert_eq!(numbers.len(), 200);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 200);
}
