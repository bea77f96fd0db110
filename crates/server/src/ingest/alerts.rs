//! Alerts of other systems: AgentOps' flat body and Alertmanager's version 4 envelope.

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use weir_metadata::Alert;

use super::json::{self, Object, Range};
use super::time;
use crate::error::{ApiError, Code};

/// Alerts of one request, at most.
const ALERT_LIMIT: usize = 1000;
const TEXT_LIMIT_BYTES: usize = 1024;
/// Memory of what is said of a group as a whole, which is kept with each of its alerts: together at most.
const GROUP_LIMIT_BYTES: usize = 16 << 20;

/// An alert as AgentOps' clients post it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FlatAlert {
    /// Who sends it; by default `api`.
    #[schema(example = "prometheus")]
    pub source: Option<String>,
    /// How bad it is, in the source's words.
    #[schema(example = "critical")]
    pub severity: Option<String>,
    /// One line for people.
    #[schema(example = "High CPU Usage")]
    pub title: String,
    /// Id or hostname of the server that it is about.
    #[schema(example = "web-prod-01")]
    pub server: Option<String>,
    /// What was measured.
    #[schema(example = "cpu_usage")]
    pub metric: Option<String>,
    /// The value of that.
    #[schema(example = 95.2)]
    pub value: Option<f64>,
    /// The value that it should not cross.
    #[schema(example = 85.0)]
    pub threshold: Option<f64>,
    /// `firing` (the default) or `resolved`.
    pub status: Option<String>,
}

/// What Alertmanager posts to a webhook (version 4); keys that are not named here are kept.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertmanagerEnvelope {
    /// Version of the envelope.
    #[schema(example = "4")]
    pub version: String,
    /// The alerts of the group.
    pub alerts: Vec<AlertmanagerAlert>,
    /// How many alerts of the group are missing here, because of `max_alerts`.
    pub truncated_alerts: Option<u64>,
}

/// One alert of Alertmanager.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertmanagerAlert {
    /// `firing` or `resolved`.
    #[schema(example = "firing")]
    pub status: String,
    /// Names and values that tell it apart, `alertname` and `severity` among them.
    #[schema(value_type = Object)]
    pub labels: Map<String, Value>,
    /// Texts for people, such as `summary`.
    #[schema(value_type = Object)]
    pub annotations: Map<String, Value>,
    /// When it began, RFC 3339.
    pub starts_at: String,
    /// When it ended; the year 1 while it fires.
    pub ends_at: String,
    /// The rule that made it.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// Hash of its labels.
    pub fingerprint: String,
}

/// The bodies of `POST /api/alerts`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AlertBody {
    /// AgentOps' flat body.
    Flat(FlatAlert),
    /// Several of them.
    Many(Vec<FlatAlert>),
    /// Alertmanager's envelope.
    Alertmanager(AlertmanagerEnvelope),
}

/// A stored alert.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AlertRecord {
    /// Its id: the same alert that comes again replaces the one before.
    pub id: String,
    /// When it came last, RFC 3339.
    pub received_at: String,
    /// Who sent it.
    pub source: String,
    /// In the source's words.
    pub severity: Option<String>,
    /// One line for people.
    pub title: String,
    /// The server that it is about, as the source named it.
    pub server: Option<String>,
    /// `firing` or `resolved`.
    pub status: Option<String>,
    /// What the source recognises it by.
    pub fingerprint: Option<String>,
    /// All of it as it came.
    #[schema(value_type = Object)]
    pub body: Value,
}

impl From<Alert> for AlertRecord {
    fn from(alert: Alert) -> Self {
        Self {
            id: alert.id,
            received_at: time::rfc3339(alert.received_ms),
            source: alert.source,
            severity: alert.severity,
            title: alert.title,
            server: alert.server,
            status: alert.status,
            fingerprint: alert.fingerprint,
            body: alert.body,
        }
    }
}

/// The alerts of a body.
///
/// # Errors
/// 400 with the field's path; then none is taken.
pub fn read(body: &Value, now_ms: i64) -> Result<Vec<Alert>, ApiError> {
    let list = match body {
        Value::Array(list) => bounded(list)?,
        Value::Object(map) => match map.get("alerts") {
            Some(Value::Array(list)) => return envelope(&Object { map, path: "" }, bounded(list)?, now_ms),
            Some(other) => return Err(json::wrong("alerts", "a list of alerts", other)),
            None => return Ok(vec![flat(&Object { map, path: "" }, now_ms)?]),
        },
        _ => return Err(json::wrong("body", "an alert, a list of alerts or Alertmanager's envelope", body)),
    };
    let one = |(at, item): (usize, &Value)| flat(&Object::of(item, &format!("[{at}]"))?, now_ms);
    list.iter().enumerate().map(one).collect()
}

fn bounded(list: &[Value]) -> Result<&[Value], ApiError> {
    if list.len() <= ALERT_LIMIT {
        return Ok(list);
    }
    let message = format!("{} alerts are too many for one request; send at most {ALERT_LIMIT}", list.len());
    Err(ApiError::new(Code::TooLarge, message))
}

/// Hash of texts that tell one alert from another: 32 hexadecimal digits.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length, so that ("ab", "c") is not ("a", "bc").
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn flat(object: &Object<'_>, now_ms: i64) -> Result<Alert, ApiError> {
    let text = |key| object.text(key, TEXT_LIMIT_BYTES);
    let missing = || ApiError::field(object.path_of("title"), "one line that says what is wrong", "nothing");
    let title = text("title")?.ok_or_else(missing)?;
    let source = text("source")?.unwrap_or_else(|| "api".to_owned());
    let (server, metric) = (text("server")?, text("metric")?);
    for number in ["value", "threshold"] {
        object.number(number, Range::Any)?;
    }
    let fingerprint = match text("fingerprint")? {
        Some(fingerprint) => fingerprint,
        None => hash(&[&source, server.as_deref().unwrap_or(""), metric.as_deref().unwrap_or(""), &title]),
    };
    Ok(Alert {
        id: hash(&[&source, &fingerprint]),
        received_ms: now_ms,
        severity: text("severity")?,
        status: Some(text("status")?.unwrap_or_else(|| "firing".to_owned())),
        title,
        server,
        fingerprint: Some(fingerprint),
        source,
        body: json::without_nul(Value::Object(object.map.clone())),
    })
}

/// Each alert's own status counts: a group that fires may hold some that are resolved.
fn envelope(group: &Object<'_>, list: &[Value], now_ms: i64) -> Result<Vec<Alert>, ApiError> {
    let truncated = group.number("truncatedAlerts", Range::NotNegative)?.unwrap_or(0.0);
    if truncated > 0.0 {
        let receiver = group.text("receiver", TEXT_LIMIT_BYTES)?.unwrap_or_default();
        tracing::warn!("Alertmanager left out {truncated} alerts of a group for {receiver:?}; raise its `max_alerts`");
    }
    let about = group.map.iter().filter(|(key, _)| *key != "alerts");
    let about = Value::Object(about.map(|(key, value)| (key.clone(), value.clone())).collect());
    if json::memory_bytes(&about).saturating_mul(list.len()) > GROUP_LIMIT_BYTES {
        let message = format!(
            "what is said of the group is kept with each of its {} alerts, and is too large for that; \
             lower Alertmanager's `max_alerts` or shorten the common annotations",
            list.len()
        );
        return Err(ApiError::new(Code::TooLarge, message));
    }
    let one = |(at, item): (usize, &Value)| member(item, &format!("alerts[{at}]"), &about, now_ms);
    list.iter().enumerate().map(one).collect()
}

fn member(item: &Value, path: &str, group: &Value, now_ms: i64) -> Result<Alert, ApiError> {
    let object = Object::of(item, path)?;
    let empty = Map::new();
    let part = |key: &str| match object.value(key) {
        None => Ok(&empty),
        Some(Value::Object(map)) => Ok(map),
        Some(other) => Err(json::wrong(&object.path_of(key), "an object of texts", other)),
    };
    let (labels, annotations) = (part("labels")?, part("annotations")?);
    let label = |key: &str| Object { map: labels, path: &object.path_of("labels") }.text(key, TEXT_LIMIT_BYTES);
    // Annotations are for people and may have several lines; the title is the first.
    let annotation =
        |key: &str| annotations.get(key).and_then(Value::as_str).and_then(|text| text.trim().lines().next());
    let name = label("alertname")?;
    let title = annotation("summary")
        .filter(|text| !text.is_empty())
        .map(|text| text.chars().take(TEXT_LIMIT_BYTES / 4).collect());
    let Some(title) = title.or(name) else {
        let expected = "the labels of an alert, `alertname` among them";
        return Err(ApiError::field(object.path_of("labels"), expected, "none"));
    };
    let status = object.text("status", TEXT_LIMIT_BYTES)?.unwrap_or_else(|| "firing".to_owned());
    let starts_at = object.text("startsAt", TEXT_LIMIT_BYTES)?.unwrap_or_default();
    let fingerprint = match object.text("fingerprint", TEXT_LIMIT_BYTES)? {
        Some(fingerprint) => fingerprint,
        None => hash(&[&Value::Object(labels.clone()).to_string()]),
    };
    let server = [label("instance")?, label("host")?, label("hostname")?].into_iter().flatten().next();
    let mut body = item.clone();
    if let Value::Object(map) = &mut body {
        map.insert("group".to_owned(), group.clone());
    }
    Ok(Alert {
        id: hash(&["alertmanager", &fingerprint, &starts_at]),
        received_ms: now_ms,
        source: "alertmanager".to_owned(),
        severity: label("severity")?,
        title: title.replace('\0', "\u{fffd}"),
        // A target of Prometheus is `host:port`.
        server: server.map(|server| match server.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
            _ => server,
        }),
        status: Some(status),
        fingerprint: Some(fingerprint),
        body: json::without_nul(body),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_seeds_alert_is_taken_and_the_same_one_again_has_the_same_id() {
        let body = json!({"source": "prometheus", "severity": "critical", "title": "High CPU Usage", "server": "web-prod-01",
            "metric": "cpu_usage", "value": 95.2, "threshold": 85.0});
        let alerts = read(&body, 5).unwrap();
        let alert = &alerts[0];
        assert_eq!((alert.source.as_str(), alert.severity.as_deref()), ("prometheus", Some("critical")));
        assert_eq!((alert.server.as_deref(), alert.status.as_deref()), (Some("web-prod-01"), Some("firing")));
        assert_eq!(alert.body, body);
        let mut again = body.clone();
        again["value"] = json!(99);
        assert_eq!(read(&again, 6).unwrap()[0].id, alert.id);
        again["server"] = json!("web-prod-02");
        assert_ne!(read(&again, 6).unwrap()[0].id, alert.id);
    }

    #[test]
    fn alertmanagers_envelope_is_one_alert_per_element_with_its_own_status() {
        let body = json!({"version": "4", "groupKey": "{}:{alertname=\"Cpu\"}", "truncatedAlerts": 0, "status": "firing",
            "receiver": "weir", "groupLabels": {"alertname": "Cpu"}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://am:9093", "notification_reason": "new", "alerts": [
                {"status": "firing", "labels": {"alertname": "Cpu", "severity": "critical", "instance": "web-1:9100"},
                 "annotations": {"summary": "CPU is high\nsince noon"}, "startsAt": "2026-01-01T12:00:00Z",
                 "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p", "fingerprint": "aaaa"},
                {"status": "resolved", "labels": {"alertname": "Cpu", "host": "web-2"}, "annotations": {},
                 "startsAt": "2026-01-01T11:00:00Z", "endsAt": "2026-01-01T11:30:00Z", "generatorURL": "", "fingerprint": "bbbb"}]});
        let alerts = read(&body, 5).unwrap();
        assert_eq!(alerts.len(), 2);
        assert_eq!((alerts[0].title.as_str(), alerts[0].server.as_deref()), ("CPU is high", Some("web-1")));
        assert_eq!((alerts[0].severity.as_deref(), alerts[0].fingerprint.as_deref()), (Some("critical"), Some("aaaa")));
        assert_eq!((alerts[1].title.as_str(), alerts[1].status.as_deref()), ("Cpu", Some("resolved")));
        assert_eq!(alerts[1].server.as_deref(), Some("web-2"));
        assert_eq!(alerts[0].body["group"]["notification_reason"], "new");
        assert_eq!(read(&body, 9).unwrap()[0].id, alerts[0].id);
        assert_eq!(read(&json!({"version": "4", "alerts": []}), 9).unwrap(), []);
    }

    #[test]
    fn one_bad_alert_refuses_all_and_names_its_path() {
        let good = json!({"title": "a"});
        for (body, field) in [
            (json!([good, {"source": "x"}]), "[1].title"),
            (json!([good, {"title": "x", "value": "high"}]), "[1].value"),
            (json!({"alerts": [{"labels": {"alertname": "a"}}, {"labels": []}]}), "alerts[1].labels"),
            (json!({"alerts": [{}]}), "alerts[0].labels"),
            (json!({"alerts": {}}), "alerts"),
            (json!(5), "body"),
        ] {
            assert_eq!(read(&body, 5).unwrap_err().body().field.as_deref(), Some(field), "{body}");
        }
        assert!(read(&Value::Array(vec![good; ALERT_LIMIT + 1]), 5).is_err());
    }

    #[test]
    fn a_group_is_not_multiplied_beyond_measure() {
        let envelope = |texts: usize, alerts: usize| {
            let alert = json!({"labels": {"alertname": "a"}});
            json!({"commonAnnotations": {"description": "x".repeat(texts)}, "alerts": vec![alert; alerts]})
        };
        // A long description, and as many alerts as a request may have.
        assert_eq!(read(&envelope(8 << 10, ALERT_LIMIT), 5).unwrap().len(), ALERT_LIMIT);
        assert_eq!(read(&envelope(512 << 10, 1), 5).unwrap().len(), 1);
        let error = read(&envelope(512 << 10, ALERT_LIMIT), 5).unwrap_err();
        assert_eq!(error.body().code, Code::TooLarge);
        assert!(error.body().message.contains("max_alerts"));
    }

    #[test]
    fn nul_characters_are_never_stored() {
        let body = json!({"title": "a", "note": "x\u{0}y"});
        assert_eq!(read(&body, 5).unwrap()[0].body["note"], "x\u{fffd}y");
        assert!(read(&json!({"title": "a\u{0}"}), 5).is_err());
        let body = json!({"alerts": [{"labels": {"alertname": "a"}, "annotations": {"summary": "x\u{0}"}}]});
        assert_eq!(read(&body, 5).unwrap()[0].title, "x\u{fffd}");
    }
}
