//! What an answer must be to count as a success, for receivers that say more than a status, and for networks
//! where something else may answer.

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_net::Answer;
use weir_pipeline::Outcome;

/// What an answer must be to count as a success.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SuccessConfig {
    /// The statuses of a success, such as `[200, 409]`. Default: 200 to 299.
    #[schemars(inner(range(min = 200, max = 599)))]
    statuses: Vec<u16>,
    /// A regular expression that the body of a success has, such as `"ok": *true`. Default: any body, also none.
    body: Option<String>,
}

/// The same, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct Success {
    statuses: Vec<u16>,
    body: Option<Regex>,
}

impl Success {
    /// # Errors
    /// Which option makes no sense, in a sentence.
    pub(super) fn new(config: SuccessConfig) -> Result<Self, String> {
        if let Some(status) = config.statuses.iter().find(|status| !(200..=599).contains(*status)) {
            return Err(format!(
                "`success.statuses`: {status} is no status of an answer; write numbers from 200 to 599"
            ));
        }
        let body = config.body.map(|text| Regex::new(&text)).transpose();
        let body = body.map_err(|error| format!("`success.body` is no regular expression: {error}"))?;
        Ok(Self { statuses: config.statuses, body })
    }

    /// Whether the answer is a success; else why a status that means one is none, if that is so.
    pub(super) fn of(&self, answer: &Answer) -> Result<bool, String> {
        let status = answer.status.as_u16();
        let is_named = self.statuses.contains(&status);
        if !is_named && !answer.status.is_success() {
            return Ok(false);
        }
        if !is_named && !self.statuses.is_empty() {
            return Err(format!("{} is none of `success.statuses`: does something else answer?", answer.excerpt()));
        }
        let has_words = |words: &Regex| words.is_match(&String::from_utf8_lossy(&answer.body));
        if !self.body.as_ref().is_none_or(has_words) {
            return Err(format!("{} does not match `success.body`: does something else answer?", answer.excerpt()));
        }
        Ok(true)
    }

    /// The outcome of a status that is a success or would be one without these options; `None` for the others.
    /// Whatever answered so may not be the receiver, so nothing is refused for good.
    pub(super) fn judge(&self, answer: &Answer) -> Option<Outcome> {
        match self.of(answer) {
            Ok(is_success) => is_success.then_some(Outcome::Accepted),
            Err(why) => Some(Outcome::Later { after: None, why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn success(yaml: &str) -> Success {
        Success::new(serde_json::from_str(yaml).unwrap()).unwrap()
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() }
    }

    #[test]
    fn without_options_every_2xx_is_a_success_and_nothing_else() {
        for (status, expected) in [(200, Ok(true)), (204, Ok(true)), (302, Ok(false)), (500, Ok(false))] {
            assert_eq!(Success::default().of(&answer(status, "<html>")), expected, "{status}");
        }
    }

    #[test]
    fn statuses_replace_the_2xx() {
        let success = success(r#"{"statuses": [200, 409]}"#);
        assert_eq!(success.of(&answer(409, "seen before")), Ok(true));
        assert_eq!(success.of(&answer(400, "")), Ok(false), "judged as ever");
        let why = success.of(&answer(204, "")).unwrap_err();
        assert!(why.contains("204 No Content") && why.contains("`success.statuses`"), "{why}");
    }

    #[test]
    fn the_body_is_looked_at_in_successes_alone() {
        let success = success(r#"{"body": "\"ok\": *true"}"#);
        assert_eq!(success.of(&answer(200, r#"{"ok": true}"#)), Ok(true));
        assert_eq!(success.of(&answer(503, "busy")), Ok(false));
        for other in ["<html>Please sign in</html>", r#"{"ok": false, "error": "no such project"}"#, ""] {
            let outcome = success.judge(&answer(200, other));
            assert!(matches!(&outcome, Some(Outcome::Later { after: None, why }) if why.contains("`success.body`")));
        }
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let refused = |json: &str| Success::new(serde_json::from_str(json).unwrap()).unwrap_err();
        assert!(refused(r#"{"statuses": [200, 20]}"#).contains("20 is no status"));
        assert!(refused(r#"{"body": "(ok"}"#).contains("`success.body` is no regular expression"));
    }
}
