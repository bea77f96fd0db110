//! Against a real Prometheus, whose address stands in `WEIR_TEST_PROMETHEUS`, for example
//! `http://127.0.0.1:9090`. It must run with `--web.enable-remote-write-receiver` and (before 3.0)
//! `--enable-feature=native-histograms`; its data is best thrown away afterwards.

use std::time::SystemTime;

use super::*;

const VARIABLE: &str = "WEIR_TEST_PROMETHEUS";

fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap() * MS
}

/// Series and values that the server has for a query, as [`values`] shows them.
async fn query(server: &str, query: &str) -> BTreeMap<String, f64> {
    let encoded: String =
        reqwest::Url::parse_with_params(&format!("{server}/api/v1/query"), [("query", query)]).unwrap().into();
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = encoded.parse().unwrap();
    let client = Client::new(&HttpOptions::default()).unwrap();
    let answer = client.send(request, ANSWER_LIMIT_BYTES).await.unwrap();
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["status"], "success", "{json}");
    let result = json["data"]["result"].as_array().unwrap();
    let one = |item: &serde_json::Value| {
        let labels: BTreeMap<String, String> = serde_json::from_value(item["metric"].clone()).unwrap();
        let value = item["value"][1].as_str().map_or(f64::NAN, |text| text.parse().unwrap());
        (text_of(&labels.into_iter().collect::<Vec<_>>()), value)
    };
    result.iter().map(one).collect()
}

/// Sends until it is neither "later at once" nor refused by an old version.
async fn send(exporter: &OverHttp<Prometheus>, records: &Delivery) -> Outcome {
    let first = exporter.export(records).await;
    match first {
        Outcome::Later { after, .. } if after == Some(Duration::ZERO) => exporter.export(records).await,
        other => other,
    }
}

fn exponential(time_unix_nano: u64) -> Metrics {
    let mut metrics = raw(Data::ExponentialHistogram(Temporality::Cumulative), &[("job", "live-native")]);
    metrics.exponential.push(ExponentialPoint {
        distribution: Distribution { count: 9, sum: Some(4.0), time_unix_nano, ..Distribution::default() },
        scale: 2,
        zero_count: 1,
        positive: Some(Buckets { offset: 1, counts: vec![3, 0, 0, 0, 1] }),
        negative: Some(Buckets { offset: -4, counts: vec![4] }),
        ..ExponentialPoint::default()
    });
    metrics
}

#[tokio::test]
#[ignore = "needs a Prometheus at WEIR_TEST_PROMETHEUS"]
async fn a_real_prometheus_has_what_was_sent() {
    let server = std::env::var(VARIABLE).expect(VARIABLE);
    for protocol in [Protocol::Auto, Protocol::V1] {
        // A job of its own for each run and version: a server keeps the samples of earlier ones.
        let job = format!("live-{protocol:?}-{}", now_unix_nano());
        let config = Config { endpoint: Some(server.parse().unwrap()), protocol, ..Config::default() };
        let exporter = OverHttp::<Prometheus>::new(config.clone(), &HttpOptions::default(), &context()).unwrap();
        println!("{protocol:?}: {}", exporter.check().await.unwrap());

        let resource = vec![("service.name".to_owned(), job.clone()), ("os.type".to_owned(), "linux".to_owned())];
        let time = now_unix_nano();
        let mut own = MetricsBuilder::new("app", resource.clone());
        own.begin(time, time - 60_000 * MS);
        let mut scraped = MetricsBuilder::new("prometheus_scrape", resource.clone());
        scraped.begin(time, 0);
        let text = include_bytes!("../../../../../crates/model/tests/fixtures/prometheus.txt");
        weir_model::exposition::parse_text(text, &mut scraped).unwrap();
        let records = delivery([every_kind_into(own), scraped.finish()]);
        let outcome = send(&exporter, &records).await;
        assert_eq!(outcome, Outcome::Accepted);

        let reference = Prometheus::new(Config { protocol: Protocol::V1, ..config }, &context()).unwrap();
        let flat = flat_v1(&sent_v1(&reference, &records));
        let expected = values(&flat);
        let found = query(&server, &format!("{{job=\"{job}\"}}")).await;
        assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
        for (series, value) in &found {
            assert!(*value == expected[series.as_str()] || value.is_nan(), "{series}: {value}");
        }
        println!("{protocol:?}: {} series are there with their values", found.len());

        let mut ended = MetricsBuilder::new("app", resource);
        ended.begin(time + 1000 * MS, 0);
        let end = NumberPoint { time_unix_nano: time + MS, flags: NO_RECORDED_VALUE, ..NumberPoint::default() };
        ended.record_point(&HEAT, &[], end);
        assert_eq!(send(&exporter, &delivery([ended.finish()])).await, Outcome::Accepted);
        let heat = query(&server, &format!("heat_celsius{{job=\"{job}\"}}")).await;
        assert!(heat.is_empty(), "the series ended: {heat:?}");

        let late = |times: &[u64]| {
            let mut metrics = raw(Data::Gauge, &[("job", &job)]);
            for at in times {
                metrics
                    .numbers
                    .push(NumberPoint { time_unix_nano: time - at * 1000 * MS, ..number(Number::Int(1), 0) });
            }
            delivery([metrics])
        };
        assert_eq!(send(&exporter, &late(&[1])).await, Outcome::Accepted);
        println!("{protocol:?}: one old of two: {:?}", send(&exporter, &late(&[9, 0])).await);
        let alone = send(&exporter, &late(&[9])).await;
        println!("{protocol:?}: the old one alone: {alone:?}");
        assert!(matches!(alone, Outcome::Never { .. }), "{alone:?}");

        let native = send(&exporter, &delivery([exponential(now_unix_nano())])).await;
        println!(
            "{protocol:?}: native histogram: {native:?}, {:?}",
            query(&server, "histogram_sum(x{job=\"live-native\"})").await
        );
    }
}
