//! What the seeds' clients send, as metrics.
//!
//! A request is validated as a whole, becomes one batch, and is stored as a whole: what one wrong
//! item refuses, refuses all of it.

pub mod agent_monitor;
pub mod agentops;
pub mod agents;
pub mod alerts;
#[doc(hidden)]
pub mod bodies;
pub mod custom;
pub mod fields;
pub mod history;
pub mod json;
pub mod openfinops;
pub mod otlp;
pub(crate) mod targets;
pub mod time;

#[cfg(test)]
mod client_tests;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use weir_model::build::MetricsBuilder;
use weir_model::metrics::Metrics;
use weir_model::{Payload, Records};
use weir_pipeline::Answer;

use crate::error::{ApiError, Code};
use crate::state::{App, State, now_ms};

/// Items of one request, at most.
const ITEM_LIMIT: usize = 100_000;

/// The answer to what was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stored {
    /// Always `success`.
    #[schema(example = "success")]
    pub status: &'static str,
    /// How many values were stored, one for every field that had one; for alerts, how many alerts.
    #[schema(example = 8)]
    pub stored: u64,
    /// How many timestamps lay more than 5 minutes in the future and were set to the server's time; absent if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamped_timestamps: Option<u64>,
}

impl Stored {
    pub(crate) fn new(stored: u64, clamped: u64) -> Self {
        Self { status: "success", stored, clamped_timestamps: Some(clamped).filter(|clamped| *clamped > 0) }
    }
}

/// Hands metrics to the pipeline and waits until they are stored. Answers how many values there were.
///
/// # Errors
/// 503 when they could not be stored now, 400 when the store refuses them.
pub async fn offer(app: &App, metrics: Metrics) -> Result<u64, ApiError> {
    let count = metrics.len() as u64;
    judged(app.intake.offer(Payload::from_records(Records::Metrics(metrics))).await, count)
}

fn judged(answer: Answer, count: u64) -> Result<u64, ApiError> {
    match answer {
        Answer::Stored => Ok(count),
        Answer::Refused { records, why } => {
            Err(ApiError::new(Code::InvalidField, format!("{records} of {count} values were refused: {why}")))
        }
        Answer::Later { after, why } => {
            Err(ApiError::new(Code::Unavailable, format!("nothing is known to be stored: {why}")).after(after))
        }
    }
}

/// A builder for the metrics of one request.
fn builder(scope: &str) -> MetricsBuilder {
    MetricsBuilder::new(scope, Vec::new())
}

/// The objects of a body and their paths: the body itself, the elements of a list, or of a list below `metrics`.
fn items(body: &Value) -> Result<Vec<(String, &Value)>, ApiError> {
    let (list, name) = match body {
        Value::Array(list) => (list, ""),
        Value::Object(map) => match map.get("metrics") {
            Some(Value::Array(list)) => (list, "metrics"),
            _ => return Ok(vec![(String::new(), body)]),
        },
        _ => return Err(json::wrong("body", "an object or a list of objects", body)),
    };
    if list.len() > ITEM_LIMIT {
        let message = format!("{} items are too many for one request; send at most {ITEM_LIMIT}", list.len());
        return Err(ApiError::new(Code::TooLarge, message));
    }
    Ok(list.iter().enumerate().map(|(at, item)| (format!("{name}[{at}]"), item)).collect())
}

/// Called for every item of a request, by its index: lets other requests have their turn now and then.
async fn let_others_run(at: usize) {
    const ITEMS_AT_A_TIME: usize = 128;
    if at % ITEMS_AT_A_TIME == ITEMS_AT_A_TIME - 1 {
        tokio::task::yield_now().await;
    }
}

/// The clock of a request.
fn clock(state: &State) -> time::Clock {
    let retention_ms = i64::try_from(state.options.retention.as_millis()).unwrap_or(i64::MAX);
    time::Clock { now_ms: now_ms(), retention_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn success_is_answered_only_for_what_is_stored() {
        assert_eq!(judged(Answer::Stored, 7).unwrap(), 7);
        let refused = judged(Answer::Refused { records: 2, why: "too old".to_owned() }, 7).unwrap_err();
        assert_eq!(refused.body().message, "2 of 7 values were refused: too old");
        let later = Answer::Later { after: Duration::from_secs(2), why: "the queue of store is full".to_owned() };
        assert_eq!(judged(later, 7).unwrap_err().body().code, Code::Unavailable);
    }

    #[test]
    fn one_object_a_list_and_a_wrapped_list_are_items_with_paths() {
        let paths = |body: Value| -> Vec<String> { items(&body).unwrap().into_iter().map(|(path, _)| path).collect() };
        assert_eq!(paths(json!({"cpuUsage": 1})), [""]);
        assert_eq!(paths(json!([{}, {}])), ["[0]", "[1]"]);
        assert_eq!(paths(json!({"metrics": [{}, 5]})), ["metrics[0]", "metrics[1]"]);
        assert!(items(&json!("text")).is_err());
        assert!(items(&Value::Array(vec![Value::Null; ITEM_LIMIT + 1])).is_err());
    }

    #[test]
    fn the_answer_has_no_field_that_says_nothing() {
        assert_eq!(serde_json::to_value(Stored::new(3, 0)).unwrap(), json!({"status": "success", "stored": 3}));
        let flagged = serde_json::to_value(Stored::new(3, 1)).unwrap();
        assert_eq!(flagged, json!({"status": "success", "stored": 3, "clamped_timestamps": 1}));
    }
}
