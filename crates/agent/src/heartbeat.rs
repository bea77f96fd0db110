//! The signs of life of an agent: what one says, and when the next one is due.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use weir_config::Settings;
use weir_pipeline::Watching;
use weir_pipeline::backoff::Backoff;
use weir_pipeline::health::State;
use weir_pipeline::telemetry::Telemetry;

use crate::system_information::{SystemInformation, system_information};

/// The body of a heartbeat: what machine this is, what every integration watches and how it feels,
/// and the time between two polls, from which the server learns what "late" means.
pub fn heartbeat_body(settings: &Settings, watching: &[(Arc<str>, Watching)], telemetry: &Telemetry) -> Value {
    body(&system_information(), settings.agent.interval.into(), watching, telemetry)
}

pub(crate) fn body(
    system: &SystemInformation,
    interval: Duration,
    watching: &[(Arc<str>, Watching)],
    telemetry: &Telemetry,
) -> Value {
    let mut health = telemetry.health.snapshot();
    let nothing = Watching::default();
    let mut integrations = Vec::new();
    for (name, watching) in watching {
        integrations.push(integration(name, watching, health.remove(name)));
    }
    // Receivers and exporters watch nothing, but they feel something.
    for (name, health) in health {
        integrations.push(integration(&name, &nothing, Some(health)));
    }
    json!({
        "system": system,
        "agent_version": env!("CARGO_PKG_VERSION"),
        "interval_seconds": interval.as_secs_f64(),
        "integrations": integrations,
    })
}

fn integration(name: &str, watching: &Watching, health: Option<weir_pipeline::health::Health>) -> Value {
    let not_watched: Vec<Value> =
        watching.not_watched.iter().map(|(what, why)| json!({"what": what, "why": why})).collect();
    let mut integration = Map::new();
    integration.insert("name".to_owned(), json!(name));
    integration.insert("watched".to_owned(), json!(watching.watched));
    integration.insert("not_watched".to_owned(), json!(not_watched));
    if let Some(health) = health {
        integration.insert("health".to_owned(), json!(health.state.name()));
        if let (State::Unhealthy, Some(reason)) = (health.state, health.reason) {
            integration.insert("health_reason".to_owned(), json!(reason));
        }
    }
    Value::Object(integration)
}

/// What came of one request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is registered under this id.
    Registered(String),
    /// The heartbeat was taken.
    Alive,
    /// The server does not know this agent, or no more.
    Unknown,
    /// The key is not accepted.
    Unauthorized {
        /// Why, in the server's words.
        why: String,
        /// Whether the key file holds another key by now.
        key_changed: bool,
    },
    /// No answer, or one that says "not now".
    Failed {
        /// The delay that the server asked for.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
}

/// Times between requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two heartbeats.
    pub interval: Duration,
    /// Bound of the first delay after a failure; it doubles.
    pub first_retry: Duration,
    /// Longest delay after a failure.
    pub longest_retry: Duration,
    /// Delay after a key was refused.
    pub refused: Duration,
}

/// The shortest time between two heartbeats, whatever is configured.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

impl Pace {
    /// The pace with this time between two heartbeats, at least 1 s.
    pub(crate) fn new(interval: Duration) -> Pace {
        let interval = interval.max(SHORTEST_INTERVAL);
        let minute = Duration::from_secs(60);
        Pace { interval, first_retry: Duration::from_secs(1), longest_retry: minute, refused: minute.max(interval) }
    }
}

/// How things stand with the server, as far as the log has said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    New,
    Well,
    Unreachable,
    Unauthorized,
    Unknown,
}

/// Decides what follows from each answer: how long to wait, and what the log says. It is said once
/// that something is wrong and once that it is well again, however many attempts there are.
#[derive(Debug)]
pub(crate) struct Rhythm {
    pace: Pace,
    backoff: Backoff,
    standing: Standing,
    agent_id: Option<String>,
}

impl Rhythm {
    pub(crate) fn new(pace: Pace) -> Rhythm {
        let backoff = Backoff::new(pace.first_retry, pace.longest_retry);
        Rhythm { pace, backoff, standing: Standing::New, agent_id: None }
    }

    /// The id under which heartbeats go; none while the agent has to register.
    pub(crate) fn agent_id(&self) -> Option<&str> {
        self.agent_id.as_deref()
    }

    /// The delay until the next request, and the line for the log if there is news.
    pub(crate) fn next(&mut self, step: Step, place: &str) -> (Duration, Option<String>) {
        match step {
            Step::Registered(id) => {
                self.agent_id = Some(id);
                (Duration::ZERO, None)
            }
            Step::Alive => {
                self.backoff = Backoff::new(self.pace.first_retry, self.pace.longest_retry);
                let id = self.agent_id.clone().unwrap_or_default();
                let news = match self.change(Standing::Well) {
                    Some(Standing::New) => Some(format!("registered at the Weir server {place} as {id}")),
                    Some(_) => Some(format!("the Weir server {place} hears this agent again, as {id}")),
                    None => None,
                };
                (self.pace.interval, news)
            }
            Step::Unknown => {
                self.agent_id = None;
                let news = self.change(Standing::Unknown);
                let line = format!("the Weir server {place} does not know this agent any more: it registers again");
                (self.backoff.next(None), news.map(|_| line))
            }
            // The new key deserves an attempt at once, but not one after the other without end.
            Step::Unauthorized { key_changed: true, .. } => (self.backoff.next(None), None),
            Step::Unauthorized { why, key_changed: false } => {
                let news = self.change(Standing::Unauthorized);
                let line = format!(
                    "the Weir server {place} refuses the key of this agent ({why}): `weir join {place} TOKEN` fetches a new one; it is tried again every {} s",
                    self.pace.refused.as_secs()
                );
                (self.pace.refused, news.map(|_| line))
            }
            Step::Failed { after, why } => {
                let news = self.change(Standing::Unreachable);
                let line = format!("cannot reach the Weir server {place}: {why}; it is tried again until it answers");
                (self.backoff.next(after), news.map(|_| line))
            }
        }
    }

    /// How things stood before, if that is another way than now.
    fn change(&mut self, to: Standing) -> Option<Standing> {
        let before = std::mem::replace(&mut self.standing, to);
        (before != to).then_some(before)
    }

    /// Whether things are well, which decides the level of a line in the log.
    pub(crate) fn is_well(&self) -> bool {
        self.standing == Standing::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Step {
        Step::Failed { after: None, why: "refused".into() }
    }

    #[test]
    fn a_body_names_every_integration_once_with_its_health_and_reason() {
        let telemetry = Telemetry::default();
        telemetry.health.healthy(&"host".into());
        telemetry.health.unhealthy(&"weir".into(), "no answer");
        let watching = Watching {
            watched: vec!["2 disks".into()],
            not_watched: vec![("temperatures".into(), "no sensors".into())],
        };
        let system = SystemInformation { cpu_count: Some(4), ..SystemInformation::default() };
        let body = super::body(&system, Duration::from_secs(10), &[("host".into(), watching)], &telemetry);
        assert_eq!(
            body,
            json!({
                "system": {"cpu_count": 4},
                "agent_version": env!("CARGO_PKG_VERSION"),
                "interval_seconds": 10.0,
                "integrations": [
                    {"name": "host", "watched": ["2 disks"],
                     "not_watched": [{"what": "temperatures", "why": "no sensors"}], "health": "healthy"},
                    {"name": "weir", "watched": [], "not_watched": [], "health": "unhealthy",
                     "health_reason": "no answer"},
                ],
            })
        );
    }

    #[test]
    fn each_change_is_said_once_and_repetitions_never() {
        let mut rhythm = Rhythm::new(Pace::new(Duration::from_secs(30)));
        let mut said = Vec::new();
        let refused = || Step::Unauthorized { why: "401".into(), key_changed: false };
        let registered = || Step::Registered("web-1".into());
        for step in [
            failed(),
            failed(),
            registered(),
            Step::Alive,
            Step::Alive,
            failed(),
            failed(),
            Step::Alive,
            Step::Unknown,
            registered(),
            Step::Alive,
            refused(),
            refused(),
        ] {
            said.extend(rhythm.next(step, "http://server:8088").1);
        }
        let beginnings: Vec<&str> = said.iter().map(|line| line.get(..12).unwrap()).collect();
        assert_eq!(beginnings.len(), 7, "{said:#?}");
        assert!(said[0].starts_with("cannot reach") && said[1].contains("hears this agent again"), "{said:#?}");
        assert!(said[4].contains("does not know") && said[6].contains("weir join"), "{said:#?}");
        assert!(said.get(3).is_some_and(|line| line.contains("as web-1")), "{said:#?}");
    }

    #[test]
    fn delays_follow_the_server_and_never_become_a_storm() {
        let mut rhythm = Rhythm::new(Pace::new(Duration::from_secs(30)));
        let asked = Step::Failed { after: Some(Duration::from_secs(17)), why: "503".into() };
        assert!(rhythm.next(asked, "x").0 >= Duration::from_secs(17));
        let waited: Duration = (0..40).map(|_| rhythm.next(Step::Unknown, "x").0).sum();
        assert!(waited > Duration::from_secs(120), "40 rounds of an unknown agent took only {waited:?}");
        assert_eq!(rhythm.next(Step::Alive, "x").0, Duration::from_secs(30));
        let refused = Step::Unauthorized { why: "401".into(), key_changed: false };
        assert_eq!(rhythm.next(refused, "x").0, Duration::from_secs(60));
        assert_eq!(Pace::new(Duration::ZERO).interval, SHORTEST_INTERVAL);
    }
}
