//! Rules that count records and read numbers from them.
//!
//! They see every record once, before anything is sampled or sent; what they counted is cumulative
//! and starts anew with the agent, so a lost report changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexSet};
use weir_model::build::metric;
use weir_model::metrics::{Distribution, HistogramPoint, Metrics};
use weir_pipeline::MetricKind::{Counter, Histogram};
use weir_pipeline::{Context, MetricDescription, MetricsBuilder};

use super::config::RuleConfig;
use super::parse::line::{Field, Line};

pub(super) const EVENTS: MetricDescription<'static> =
    metric("log.events", "{event}", Counter, "Records that match a rule, by rule, level and file.");
pub(super) const VALUE: MetricDescription<'static> =
    metric("log.event.value", "1", Histogram, "Numbers that a rule reads from records, in the rule's unit.");

/// Bounds of histograms that configure none (OpenTelemetry SDK, explicit bucket aggregation).
const BOUNDS: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];

/// Texts that mean trouble whatever wrote them, and the rule that counts them.
const ALARMS: [(&str, &str); 6] = [
    ("out_of_memory", "Out of memory: Killed process"),
    ("segfault", "segfault at "),
    ("io_error", "I/O error"),
    ("stack_trace", r"Traceback \(most recent call last\)"),
    ("stack_trace", "Exception in thread "),
    ("stack_trace", r"(?m)^Caused by: "),
];

/// Rule names of what is counted without a pattern.
const SEVERITY: &str = "severity";
const SERVER_ERROR: &str = "http_5xx";

/// Series of built-in rules altogether.
const BUILTIN_SERIES: usize = 1_000;

/// All rules of an instance, and what they have counted.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    alarms: Option<RegexSet>,
    builtin: HashMap<Key, Counts>,
    builder: MetricsBuilder,
    start_unix_nano: u64,
}

#[derive(Debug)]
struct Rule {
    name: String,
    regex: Regex,
    value: Option<String>,
    unit: String,
    bounds: Vec<f64>,
    labels: Vec<String>,
    max_series: usize,
    series: HashMap<Key, Counts>,
}

/// What tells the series of a rule apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    rule: &'static str,
    level: &'static str,
    /// Empty for what is beyond the limit of series.
    file: Arc<str>,
    labels: Vec<String>,
}

#[derive(Debug, Default)]
struct Counts {
    events: u64,
    values: u64,
    sum: f64,
    buckets: Vec<u64>,
}

impl Rules {
    /// The rules of a configuration.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(rules: &[RuleConfig], builtin: bool, context: &Context) -> Result<Self, String> {
        let rules = rules.iter().enumerate().map(|(at, rule)| Rule::new(rule, at)).collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = rules
            .iter()
            .enumerate()
            .find_map(|(at, rule)| rules.iter().skip(at + 1).any(|other| other.name == rule.name).then_some(&rule.name))
        {
            return Err(format!("two `patterns` are named `{name}`: give each its own name"));
        }
        let alarms = RegexSet::new(ALARMS.iter().map(|alarm| alarm.1)).map_err(|error| error.to_string())?;
        Ok(Self {
            rules,
            alarms: builtin.then_some(alarms),
            builtin: HashMap::new(),
            builder: MetricsBuilder::new("logs", context.resource.clone()),
            start_unix_nano: 0,
        })
    }

    /// Looks at a record.
    pub fn see(&mut self, text: &str, line: &Line<'_>, file: &Arc<str>) {
        let level = level(line.severity_number);
        if let Some(alarms) = &self.alarms {
            let mut count = |rule: &'static str| {
                let key = Key { rule, level, file: file.clone(), labels: Vec::new() };
                counts_of(&mut self.builtin, key, BUILTIN_SERIES).events += 1;
            };
            if line.severity_number >= 13 {
                count(SEVERITY);
            }
            if matches!(line.get("http.response.status_code"), Some(Field::Int(500..=599))) {
                count(SERVER_ERROR);
            }
            if alarms.is_match(text) {
                let mut last = "";
                for rule in alarms.matches(text).iter().filter_map(|at| ALARMS.get(at)).map(|alarm| alarm.0) {
                    if rule != last {
                        count(rule);
                    }
                    last = rule;
                }
            }
        }
        for rule in &mut self.rules {
            rule.see(text, level, file);
        }
    }

    /// Everything counted so far, plus what `more` records.
    pub fn report(&mut self, now_unix_nano: u64, more: impl FnOnce(&mut MetricsBuilder)) -> Metrics {
        if self.start_unix_nano == 0 {
            self.start_unix_nano = now_unix_nano;
        }
        self.builder.begin(now_unix_nano, self.start_unix_nano);
        more(&mut self.builder);
        for (key, counts) in &self.builtin {
            record_events(&mut self.builder, key.rule, key, &[], counts);
        }
        for rule in &self.rules {
            for (key, counts) in &rule.series {
                record_events(&mut self.builder, &rule.name, key, &rule.labels, counts);
                rule.record_values(key, counts, &mut self.builder, self.start_unix_nano);
            }
        }
        self.builder.finish()
    }

    /// From when on is counted, unix nanoseconds.
    pub fn starts(&mut self, now_unix_nano: u64) {
        self.start_unix_nano = now_unix_nano;
    }
}

impl Rule {
    fn new(config: &RuleConfig, at: usize) -> Result<Self, String> {
        if config.name.is_empty() {
            return Err(format!("patterns[{at}] has no `name`: its metrics carry it"));
        }
        let name = &config.name;
        let regex = Regex::new(&config.regex).map_err(|error| format!("pattern `{name}`: {error}"))?;
        if config.regex.is_empty() || regex.is_match("") {
            return Err(format!("pattern `{name}`: its `regex` matches every record: write what must be there"));
        }
        let groups: Vec<&str> = regex.capture_names().flatten().collect();
        if let Some(missing) = config.labels.iter().chain(&config.value).find(|group| !groups.contains(&group.as_str()))
        {
            return Err(format!("pattern `{name}`: its `regex` has no group `(?<{missing}>...)`"));
        }
        let bounds = if config.buckets.is_empty() { BOUNDS.to_vec() } else { config.buckets.clone() };
        if bounds.iter().any(|bound| !bound.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
            return Err(format!("pattern `{name}`: `buckets` must be numbers in rising order"));
        }
        Ok(Rule {
            name: name.clone(),
            value: config.value.clone(),
            unit: config.unit.clone(),
            bounds,
            labels: config.labels.clone(),
            max_series: config.max_series.max(1),
            series: HashMap::new(),
            regex,
        })
    }

    fn see(&mut self, text: &str, level: &'static str, file: &Arc<str>) {
        if self.value.is_none() && self.labels.is_empty() {
            if self.regex.is_match(text) {
                let key = Key { rule: "", level, file: file.clone(), labels: Vec::new() };
                counts_of(&mut self.series, key, self.max_series).events += 1;
            }
            return;
        }
        let Some(found) = self.regex.captures(text) else { return };
        let group = |name: &String| found.name(name).map_or("", |group| group.as_str());
        let labels = self.labels.iter().map(|name| group(name).to_owned()).collect();
        let key = Key { rule: "", level, file: file.clone(), labels };
        let value = self.value.as_ref().and_then(|name| group(name).parse::<f64>().ok()).filter(|v| v.is_finite());
        let counts = counts_of(&mut self.series, key, self.max_series);
        counts.events += 1;
        if let Some(value) = value {
            counts.buckets.resize(self.bounds.len() + 1, 0);
            let bucket = self.bounds.partition_point(|bound| *bound < value);
            if let Some(bucket) = counts.buckets.get_mut(bucket) {
                *bucket += 1;
            }
            counts.values += 1;
            counts.sum += value;
        }
    }

    fn record_values(&self, key: &Key, counts: &Counts, out: &mut MetricsBuilder, start_time_unix_nano: u64) {
        if counts.values == 0 {
            return;
        }
        let distribution = Distribution {
            start_time_unix_nano,
            count: counts.values,
            sum: Some(counts.sum),
            ..Distribution::default()
        };
        let point = HistogramPoint {
            distribution,
            explicit_bounds: self.bounds.clone(),
            bucket_counts: counts.buckets.clone(),
        };
        let description = MetricDescription { unit: &self.unit, ..VALUE };
        out.record_histogram(&description, &labels_of(&self.name, key, &self.labels), point);
    }
}

/// The counts of a series, or those of everything beyond the limit.
fn counts_of(series: &mut HashMap<Key, Counts>, key: Key, most: usize) -> &mut Counts {
    if series.len() >= most && !series.contains_key(&key) {
        let rest = Key { rule: key.rule, level: "", file: Arc::from(""), labels: Vec::new() };
        return series.entry(rest).or_default();
    }
    series.entry(key).or_default()
}

fn record_events(out: &mut MetricsBuilder, rule: &str, key: &Key, names: &[String], counts: &Counts) {
    out.record(&EVENTS, &labels_of(rule, key, names), counts.events);
}

fn labels_of<'a>(rule: &'a str, key: &'a Key, names: &'a [String]) -> Vec<(&'a str, &'a str)> {
    if key.file.is_empty() {
        return vec![("rule", rule), ("otel.metric.overflow", "true")];
    }
    let mut labels = vec![("rule", rule), ("level", key.level), ("file", &*key.file)];
    labels.extend(names.iter().zip(&key.labels).map(|(name, value)| (name.as_str(), value.as_str())));
    labels
}

/// The name of the range that a severity number lies in (OpenTelemetry logs data model).
fn level(severity_number: i32) -> &'static str {
    match severity_number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => "unset",
    }
}
