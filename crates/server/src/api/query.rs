//! Lines for charts.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use weir_store::{Labels, Matcher, ReadError, Select, SeriesSource};

use super::hosts::reading;
use crate::body::{self, SMALL_LIMIT_BYTES};
use crate::error::{ApiError, Code, ErrorBody};
use crate::hosts::older_names;
use crate::hosts::role::label;
use crate::hosts::series::{Aggregate, Combined, MOST_STEPS, Steps, line};
use crate::ingest::json::{self, Object};
use crate::state::App;

/// Most queries of one request.
const MOST_QUERIES: usize = 40;

/// Most lines of one query.
const MOST_LINES: usize = 500;

/// Most labels in `match` and `by`.
const MOST_LABELS: usize = 32;

/// Longest name or value, bytes.
const TEXT_LIMIT_BYTES: usize = 1024;

/// What is asked.
#[derive(Serialize, ToSchema)]
pub struct QueryBody {
    /// Start, unix milliseconds.
    pub from_ms: i64,
    /// End, unix milliseconds.
    pub to_ms: i64,
    /// Length of a step, milliseconds; at most 3,000 steps.
    pub step_ms: i64,
    /// At most 40.
    pub queries: Vec<Query>,
}

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Query {
    /// Chosen by the asker; comes back with the result.
    #[schema(example = "cpu")]
    pub id: String,
    /// Name of the metric.
    #[schema(example = "system.cpu.utilization")]
    pub metric: String,
    /// Labels that the series must have. Labels of the host's resource count too; of labels that had
    /// another name in older versions of OpenTelemetry, either name may be stored.
    pub r#match: BTreeMap<String, String>,
    /// A line for each combination of the values of these labels; without it one line.
    pub by: Vec<String>,
    /// Whether the series are counters of which the growth per second is wanted.
    pub rate: bool,
    /// How the series of one line become one: `avg` (default), `sum`, `max`, `min`.
    #[schema(example = "avg")]
    pub aggregate: String,
}

/// The lines.
#[derive(Serialize, ToSchema)]
pub struct QueryAnswer {
    /// As asked.
    from_ms: i64,
    /// As asked.
    to_ms: i64,
    /// As asked.
    step_ms: i64,
    /// Start of each step, unix milliseconds: multiples of the step.
    times_ms: Vec<i64>,
    /// In the order of the queries.
    results: Vec<QueryResult>,
}

/// The lines of one query.
#[derive(Serialize, ToSchema)]
pub struct QueryResult {
    /// As asked.
    id: String,
    /// Unit of the metric (UCUM); of a rate with `/s`. Empty if no series is found or none is known.
    #[schema(example = "By/s")]
    unit: String,
    /// The lines, sorted by their labels.
    series: Vec<Line>,
}

/// A line: one value per step, `null` where there is none.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Line {
    /// The labels of `by`, those that the series have.
    labels: BTreeMap<String, String>,
    /// Means.
    values: Vec<Option<f64>>,
    /// The smallest sample of each step.
    min: Vec<Option<f64>>,
    /// The largest sample of each step.
    max: Vec<Option<f64>>,
}

/// Lines for charts. A step has the mean, smallest and largest of its samples. It is `null` where
/// samples are missing; where they are only rarer than the steps, the last one is repeated.
#[utoipa::path(post, path = "/api/v1/query", tag = "hosts", request_body(content = QueryBody, example = json!({
    "from_ms": 1_760_000_000_000_i64, "to_ms": 1_760_003_600_000_i64, "step_ms": 15000, "queries": [{
        "id": "network", "metric": "system.network.io", "match": {"host.name": "web-1"},
        "by": ["network.io.direction"], "rate": true, "aggregate": "sum"}]
})), responses(
    (status = 200, description = "The lines.", body = QueryAnswer),
    (status = 400, description = "A field is wrong, or more is asked than is answered at once.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
))]
pub async fn query(State(app): State<App>, request: Request) -> Result<axum::Json<QueryAnswer>, ApiError> {
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let asked = Asked::read(&json::parse(&body)?)?;
    let answer = reading(&app, move |state| Ok(asked.answer(&state.store))).await?;
    Ok(axum::Json(answer?))
}

/// A request that makes sense.
#[derive(Debug)]
pub(crate) struct Asked {
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
    pub(crate) steps: Steps,
    pub(crate) queries: Vec<(Query, Aggregate)>,
}

impl Asked {
    pub(crate) fn read(body: &Value) -> Result<Asked, ApiError> {
        let object = Object::of(body, "")?;
        let [from_ms, to_ms, step_ms] = ["from_ms", "to_ms", "step_ms"].map(|key| integer(&object, key));
        let (from_ms, to_ms, step_ms) = (from_ms?, to_ms?, step_ms?);
        if step_ms < 1 {
            return Err(ApiError::field("step_ms", "a whole number of at least 1", &step_ms.to_string()));
        }
        if to_ms <= from_ms {
            return Err(ApiError::field("to_ms", "a time after from_ms", &to_ms.to_string()));
        }
        let steps = Steps::new(from_ms, to_ms, step_ms).ok_or_else(|| {
            let enough = (to_ms.saturating_sub(from_ms) / (MOST_STEPS as i64 - 1)).saturating_add(1);
            let expected = format!("at most {MOST_STEPS} steps, so at least {enough} for this time");
            ApiError::field("step_ms", expected, &step_ms.to_string())
        })?;
        let queries = match object.value("queries") {
            Some(Value::Array(queries)) if queries.len() <= MOST_QUERIES => queries,
            Some(Value::Array(queries)) => {
                let expected = format!("at most {MOST_QUERIES} queries");
                return Err(ApiError::field("queries", expected, &queries.len().to_string()));
            }
            other => return Err(json::wrong("queries", "a list of queries", other.unwrap_or(&Value::Null))),
        };
        let read = |(at, value): (usize, &Value)| Query::read(value, &format!("queries[{at}]"));
        let queries = queries.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Asked { from_ms, to_ms, step_ms, steps, queries })
    }

    fn answer(&self, source: &dyn SeriesSource) -> Result<QueryAnswer, ApiError> {
        let results = self.queries.iter().enumerate().map(|(at, (query, aggregate))| {
            let path = format!("queries[{at}]");
            query.answer(*aggregate, self.steps, source, &path)
        });
        Ok(QueryAnswer {
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            step_ms: self.step_ms,
            times_ms: self.steps.times_ms(),
            results: results.collect::<Result<_, _>>()?,
        })
    }
}

fn integer(object: &Object<'_>, key: &str) -> Result<i64, ApiError> {
    let value = object.value(key).unwrap_or(&Value::Null);
    value.as_i64().ok_or_else(|| json::wrong(&object.path_of(key), "a whole number", value))
}

impl Query {
    fn read(value: &Value, path: &str) -> Result<(Query, Aggregate), ApiError> {
        let object = Object::of(value, path)?;
        let needed = |key: &str| {
            let missing = || ApiError::field(object.path_of(key), "a text", "nothing");
            object.text(key, TEXT_LIMIT_BYTES)?.ok_or_else(missing)
        };
        let rate = match object.value("rate") {
            None => false,
            Some(Value::Bool(rate)) => *rate,
            Some(other) => return Err(json::wrong(&object.path_of("rate"), "true or false", other)),
        };
        let name = object.text("aggregate", TEXT_LIMIT_BYTES)?.unwrap_or_else(|| "avg".to_owned());
        let aggregate = Aggregate::of_name(&name).ok_or_else(|| {
            ApiError::field(object.path_of("aggregate"), "sum, avg, max or min", &format!("{name:?}"))
        })?;
        let query = Query {
            id: needed("id")?,
            metric: needed("metric")?,
            r#match: labels(&object)?,
            by: object.texts("by", TEXT_LIMIT_BYTES, MOST_LABELS)?.unwrap_or_default(),
            rate,
            aggregate: name,
        };
        Ok((query, aggregate))
    }

    /// The labels that the store itself compares: those that never had another name.
    fn select(&self, steps: Steps) -> Select {
        let plain = self.r#match.iter().filter(|(name, _)| older_names(name).is_empty());
        let mut matchers = vec![Matcher::name(&self.metric)];
        matchers.extend(plain.map(|(name, value)| Matcher::equal(name, value)));
        Select { matchers, start_ms: steps.needs_from_ms(self.rate), end_ms: steps.needs_to_ms() - 1 }
    }

    fn fits(&self, labels: &Labels) -> bool {
        let of = |name: &str| label(&|name| labels.get(name), name);
        let mut renamed = self.r#match.iter().filter(|(name, _)| !older_names(name).is_empty());
        renamed.all(|(name, value)| of(name) == Some(value))
    }

    fn answer(
        &self,
        aggregate: Aggregate,
        steps: Steps,
        source: &dyn SeriesSource,
        path: &str,
    ) -> Result<QueryResult, ApiError> {
        let unreadable = |error: ReadError| ApiError::new(Code::InvalidField, format!("{path}: {error}"));
        let mut found = source.select(&self.select(steps)).map_err(unreadable)?;
        found.retain(|data| self.fits(&data.series.labels));
        let unit = found.first().map(|data| data.series.info.unit.to_string()).unwrap_or_default();
        let mut lines: BTreeMap<BTreeMap<String, String>, Combined> = BTreeMap::new();
        for data in found {
            let of = |name: &String| {
                let labels = &data.series.labels;
                Some((name.clone(), label(&|name| labels.get(name), name)?.to_owned()))
            };
            let key: BTreeMap<String, String> = self.by.iter().filter_map(of).collect();
            if lines.len() >= MOST_LINES && !lines.contains_key(&key) {
                return Err(too_many_lines(path));
            }
            let combined = lines.entry(key).or_insert_with(|| Combined::new(aggregate, steps));
            combined.add(&line(steps, self.rate, &data.samples.to_vec()));
        }
        let unit = if self.rate && !unit.is_empty() { format!("{unit}/s") } else { unit };
        let series = lines.into_iter().map(|(labels, combined)| Line::of(labels, combined)).collect();
        Ok(QueryResult { id: self.id.clone(), unit, series })
    }
}

fn too_many_lines(path: &str) -> ApiError {
    let expected = format!("labels that make at most {MOST_LINES} lines");
    ApiError::field(format!("{path}.by"), expected, "more; add labels to `match` or take some out of `by`")
}

fn labels(object: &Object<'_>) -> Result<BTreeMap<String, String>, ApiError> {
    let empty = Map::new();
    let path = object.path_of("match");
    let map = match object.value("match") {
        None => &empty,
        Some(Value::Object(map)) if map.len() <= MOST_LABELS => map,
        Some(other) => return Err(json::wrong(&path, &format!("an object of at most {MOST_LABELS} labels"), other)),
    };
    let text = |(name, value): (&String, &Value)| match value.as_str() {
        _ if name.len() > TEXT_LIMIT_BYTES => {
            let expected = format!("names of at most {TEXT_LIMIT_BYTES} bytes");
            Err(ApiError::field(&path, expected, &format!("{} bytes", name.len())))
        }
        Some(text) if text.len() <= TEXT_LIMIT_BYTES => Ok((name.clone(), text.to_owned())),
        _ => {
            let path = format!("{path}.{}", json::shown_name(name));
            Err(json::wrong(&path, &format!("a text of at most {TEXT_LIMIT_BYTES} bytes"), value))
        }
    };
    map.iter().map(text).collect()
}

impl Line {
    fn of(labels: BTreeMap<String, String>, combined: Combined) -> Line {
        let mut line = Line { labels, values: Vec::new(), min: Vec::new(), max: Vec::new() };
        for band in combined.line() {
            // A sum beyond the largest number is none.
            let finite = |value: f64| Some(value).filter(|value| value.is_finite());
            line.values.push(band.and_then(|band| finite(band.mean)));
            line.min.push(band.and_then(|band| finite(band.min)));
            line.max.push(band.and_then(|band| finite(band.max)));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(body: Value) -> String {
        Asked::read(&body).unwrap_err().body().message.clone()
    }

    fn body(query: Value) -> Value {
        json!({"from_ms": 0, "to_ms": 60_000, "step_ms": 10_000, "queries": [query]})
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_path() {
        assert_eq!(message(json!({})), "from_ms: expected a whole number, found nothing");
        let times =
            |from: i64, to: i64, step: i64| json!({"from_ms": from, "to_ms": to, "step_ms": step, "queries": []});
        assert_eq!(message(times(5, 5, 1)), "to_ms: expected a time after from_ms, found 5");
        assert_eq!(message(times(0, 5, 0)), "step_ms: expected a whole number of at least 1, found 0");
        let steps = message(times(0, 3_000_001, 1000));
        assert_eq!(steps, "step_ms: expected at most 3000 steps, so at least 1001 for this time, found 1000");
        assert!(Asked::read(&times(0, 3_000_001, 1001)).is_ok());
        assert!(Asked::read(&times(i64::MIN, i64::MAX, i64::MAX)).is_err());
        let id = json!({"id": "a", "metric": "m"});
        let many = json!({"from_ms": 0, "to_ms": 1, "step_ms": 1, "queries": vec![id; 41]});
        assert_eq!(message(many), "queries: expected at most 40 queries, found 41");
        for (query, wanted) in [
            (json!({"id": "a"}), "queries[0].metric: expected a text, found nothing"),
            (json!(5), "queries[0]: expected an object, found 5"),
            (json!({"id": "a", "metric": "m", "rate": 1}), "queries[0].rate: expected true or false, found 1"),
            (
                json!({"id": "a", "metric": "m", "aggregate": "p99"}),
                "queries[0].aggregate: expected sum, avg, max or min, found \"p99\"",
            ),
            (
                json!({"id": "a", "metric": "m", "match": {"k": 5}}),
                "queries[0].match.k: expected a text of at most 1024 bytes, found 5",
            ),
            (
                json!({"id": "a", "metric": "m", "match": {"k".repeat(1025): "v"}}),
                "queries[0].match: expected names of at most 1024 bytes, found 1025 bytes",
            ),
        ] {
            assert_eq!(message(body(query)), wanted);
        }
    }

    use http::Method;
    use weir_metadata::Scopes;
    use weir_model::MetricsBuilder;
    use weir_model::build::{Kind, metric};
    use weir_model::metrics::NumberPoint;

    use crate::state::now_ms;
    use crate::testing::TestServer;

    /// A time that the store keeps, at a multiple of ten seconds.
    fn start_ms() -> i64 {
        (now_ms() - 600_000) / 10_000 * 10_000
    }

    /// Host, metric, labels, unix milliseconds, value.
    type Point<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], i64, f64);

    struct Stored {
        server: TestServer,
        key: String,
    }

    impl Stored {
        /// Stores points.
        async fn new(points: &[Point<'_>]) -> Stored {
            let server = TestServer::start().await;
            for (host, name, labels, time_ms, value) in points {
                let mut out = MetricsBuilder::new("test", vec![("host.name".into(), (*host).into())]);
                let kind = if name.ends_with(".io") { Kind::Counter } else { Kind::Gauge };
                let time_unix_nano = u64::try_from(*time_ms).unwrap() * 1_000_000;
                let point = NumberPoint { time_unix_nano, value: (*value).into(), ..Default::default() };
                out.record_point(&metric(name, "By", kind, ""), labels, point);
                server.app.store.append(&out.finish()).await.unwrap();
            }
            let key = server.key(Scopes::READ).await;
            Stored { server, key }
        }

        async fn ask(&self, from_ms: i64, to_ms: i64, query: Value) -> Value {
            let body = json!({"from_ms": from_ms, "to_ms": to_ms, "step_ms": 10_000, "queries": [query]});
            let got = self.server.json(Method::POST, "/api/v1/query", &self.key, &body).await;
            assert_eq!(got.status, 200, "{}", got.text());
            got.json()
        }
    }

    #[tokio::test]
    async fn rates_by_direction_survive_a_reset_and_show_the_gap() {
        let start = start_ms();
        let eth = |direction| [("network.interface.name", "eth0"), ("network.io.direction", direction)];
        let (receive, transmit) = (eth("receive"), eth("transmit"));
        let mut points: Vec<Point<'_>> = Vec::new();
        for (at, value) in [(0, 1000.0), (1, 2000.0), (2, 4000.0), (3, 500.0), (6, 800.0)] {
            points.push(("web-1", "system.network.io", &receive, start + at * 10_000, value));
            points.push(("web-1", "system.network.io", &transmit, start + at * 10_000, value * 2.0));
            points.push(("other", "system.network.io", &transmit, start + at * 10_000, 1.0));
        }
        let stored = Stored::new(&points).await;
        let query = json!({"id": "n", "metric": "system.network.io", "match": {"host.name": "web-1"},
            "by": ["network.io.direction"], "rate": true, "aggregate": "sum"});
        let answer = stored.ask(start, start + 70_000, query).await;
        assert_eq!(answer["times_ms"], json!((0..7).map(|at| start + at * 10_000).collect::<Vec<_>>()));
        let result = &answer["results"][0];
        assert_eq!((&result["id"], &result["unit"]), (&json!("n"), &json!("By/s")));
        let line = &result["series"][0];
        assert_eq!(line["labels"], json!({"network.io.direction": "receive"}));
        assert_eq!(line["values"], json!([null, 100.0, 200.0, 50.0, null, null, 10.0]));
        assert_eq!(result["series"][1]["values"], json!([null, 200.0, 400.0, 100.0, null, null, 20.0]));
        assert_eq!(result["series"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn either_name_of_a_label_is_found_and_answers_under_the_name_that_was_asked() {
        let start = start_ms();
        let stored = Stored::new(&[
            ("new", "system.memory.usage", &[("system.memory.state", "used")], start, 1.0),
            ("old", "system.memory.usage", &[("state", "used")], start, 3.0),
            ("old", "system.memory.usage", &[("state", "free")], start, 100.0),
        ])
        .await;
        let query = json!({"id": "m", "metric": "system.memory.usage", "match": {"system.memory.state": "used"},
            "by": ["host.name", "system.memory.state"]});
        let answer = stored.ask(start, start + 10_000, query).await;
        let series = answer["results"][0]["series"].as_array().unwrap().clone();
        let line = |host: &str, value: f64| {
            let labels = json!({"host.name": host, "system.memory.state": "used"});
            json!({"labels": labels, "values": [value], "min": [value], "max": [value]})
        };
        assert_eq!(series, [line("new", 1.0), line("old", 3.0)]);
    }

    #[tokio::test]
    async fn series_are_aggregated_with_their_band_and_nothing_found_is_no_line() {
        let start = start_ms();
        let stored = Stored::new(&[
            ("a", "m", &[], start, 1.0),
            ("a", "m", &[], start + 5_000, 3.0),
            ("b", "m", &[], start, 10.0),
        ])
        .await;
        let ask = |aggregate: &str| json!({"id": "m", "metric": "m", "aggregate": aggregate});
        for (aggregate, value, min, max) in
            [("sum", 12.0, 11.0, 13.0), ("avg", 6.0, 5.5, 6.5), ("max", 10.0, 10.0, 10.0), ("min", 2.0, 1.0, 3.0)]
        {
            let answer = stored.ask(start, start + 10_000, ask(aggregate)).await;
            let line = &answer["results"][0]["series"][0];
            assert_eq!(line, &json!({"labels": {}, "values": [value], "min": [min], "max": [max]}), "{aggregate}");
        }
        let answer = stored.ask(start, start + 10_000, json!({"id": "x", "metric": "none"})).await;
        assert_eq!(answer["results"][0], json!({"id": "x", "unit": "", "series": []}));
    }

    #[tokio::test]
    async fn more_lines_than_a_chart_can_show_are_refused() {
        let start = start_ms();
        let server = TestServer::start().await;
        let mut out = MetricsBuilder::new("test", vec![("host.name".into(), "h".into())]);
        out.begin(u64::try_from(start).unwrap() * 1_000_000, 0);
        for number in 0..=MOST_LINES {
            out.record(&metric("m", "1", Kind::Gauge, ""), &[("n", &number.to_string())], 1.0);
        }
        server.app.store.append(&out.finish()).await.unwrap();
        let key = server.key(Scopes::READ).await;
        let body = json!({"from_ms": start, "to_ms": start + 10_000, "step_ms": 10_000,
            "queries": [{"id": "m", "metric": "m", "by": ["n"]}]});
        let got = server.json(Method::POST, "/api/v1/query", &key, &body).await;
        assert_eq!(
            (got.status.as_u16(), got.json()["field"].as_str().unwrap().to_owned()),
            (400, "queries[0].by".to_owned())
        );
    }
}
