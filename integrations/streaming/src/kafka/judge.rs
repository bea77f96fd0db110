//! What a delivery report means. Every error code of librdkafka is in exactly one class:
//!
//! | class | codes | what becomes of the records |
//! |---|---|---|
//! | refused | `INVALID_RECORD`, `INVALID_TIMESTAMP`, `UNSUPPORTED_FOR_MESSAGE_FORMAT` | refused for good |
//! | too large | `MSG_SIZE_TOO_LARGE`, `RECORD_LIST_TOO_LARGE`, `INVALID_MSG_SIZE` | halved; a single record is refused |
//! | unauthorized | `TOPIC_`, `CLUSTER_`, `TRANSACTIONAL_ID_`, `DELEGATION_TOKEN_AUTHORIZATION_FAILED`, `SASL_AUTHENTICATION_FAILED`, `UNSUPPORTED_SASL_MECHANISM`, `ILLEGAL_SASL_STATE`, `SECURITY_DISABLED`, `DELEGATION_TOKEN_EXPIRED`, `_AUTHENTICATION`, and a timeout after one of these | sent again, slowly |
//! | later | every other code: transport, timeouts, leaders that move, too few replicas, unknown topics, full queues, quotas, storage errors, corruption on the way (`CORRUPT_MESSAGE`), fatal errors of the idempotent producer, and codes that are not known yet | sent again |
//!
//! `DUPLICATE_SEQUENCE_NUMBER` never gets here: librdkafka reports such a message as written, which it is.

use rdkafka::types::RDKafkaErrorCode as Code;
use weir_pipeline::Outcome;

use super::voice::Trouble;

/// What one message's delivery report means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Refused,
    TooLarge,
    Unauthorized,
    Later,
}

/// The class of an error.
pub(super) fn class(code: Code) -> Class {
    match code {
        Code::InvalidRecord | Code::InvalidTimestamp | Code::UnsupportedForMessageFormat => Class::Refused,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => Class::TooLarge,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed
        | Code::DelegationTokenExpired
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::Authentication => Class::Unauthorized,
        _ => Class::Later,
    }
}

/// Whether a message that failed this way may have been written all the same.
pub(super) fn may_be_written(code: Code) -> bool {
    matches!(code, Code::MessageTimedOut | Code::RequestTimedOut | Code::NotEnoughReplicasAfterAppend | Code::Fatal)
}

/// What a code means for people, and what to do.
fn words(code: Code, topic: &str) -> String {
    match code {
        Code::MessageTimedOut => "not delivered in time".to_owned(),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            format!("topic `{topic}` is not there; create it, or set auto.create.topics.enable on the brokers")
        }
        Code::TopicAuthorizationFailed => {
            format!("writing to topic `{topic}` is not allowed; give the user that right")
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            format!(
                "topic `{topic}` takes no messages of this size; lower max_message_size, or raise max.message.bytes there"
            )
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            format!("topic `{topic}` has too few replicas in sync")
        }
        code => format!("topic `{topic}`: {code}"),
    }
}

/// A message that was not written, or not known to be.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// Positions of its records in the delivery.
    pub positions: Vec<u32>,
    /// Why.
    pub code: Code,
    /// What it was sent to.
    pub topic: String,
}

/// The outcome of a delivery of `records` records: of its messages `failures` were not written, and
/// `refused` were not even sent. All others were written.
pub(super) fn outcome(
    records: usize,
    failures: &[Failure],
    mut refused: Vec<(u32, String)>,
    trouble: Option<&Trouble>,
) -> Outcome {
    if failures.is_empty() && refused.is_empty() {
        return Outcome::Accepted;
    }
    let mut later = Vec::new();
    let mut classes = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    for failure in failures {
        let mut class = class(failure.code);
        let mut why = words(failure.code, &failure.topic);
        // A message that waits for a connection times out; why there was none is said elsewhere.
        match trouble {
            Some(trouble) if failure.code == Code::MessageTimedOut => {
                why = format!("{why}: {}", trouble.reason);
                if self::class(trouble.code) == Class::Unauthorized {
                    class = Class::Unauthorized;
                }
            }
            // librdkafka looks for a topic for 30 s before it says that there is none.
            None if failure.code == Code::MessageTimedOut => {
                why =
                    format!("{why}: does topic `{}` have a leader, and is it there? `weir check` tells", failure.topic);
            }
            _ => {}
        }
        if class == Class::TooLarge && failure.positions.len() < 2 {
            class = Class::Refused;
        }
        match class {
            Class::Refused => refused.extend(failure.positions.iter().map(|position| (*position, why.clone()))),
            Class::TooLarge | Class::Unauthorized | Class::Later => later.extend_from_slice(&failure.positions),
        }
        classes.push(class);
        if !reasons.contains(&why) {
            reasons.push(why);
        }
    }
    for (_, why) in &refused {
        if !reasons.contains(why) {
            reasons.push(why.clone());
        }
    }
    let why = shortened(&reasons);
    let all_are = |wanted: Class| classes.iter().all(|class| *class == wanted);
    if later.len() < records || !refused.is_empty() {
        later.sort_unstable();
        return Outcome::Each { refused, later, after: None, why };
    }
    match () {
        () if all_are(Class::TooLarge) => Outcome::Split { why },
        () if all_are(Class::Unauthorized) => Outcome::Unauthorized { why },
        () => Outcome::Later { after: None, why },
    }
}

/// The first reasons, and how many more there are.
fn shortened(reasons: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = reasons.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match reasons.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(positions: &[u32], code: Code) -> Failure {
        Failure { positions: positions.to_vec(), code, topic: "t".to_owned() }
    }

    #[test]
    fn what_was_written_is_never_sent_again() {
        assert_eq!(outcome(3, &[], Vec::new(), None), Outcome::Accepted);
        let mixed = [
            failure(&[0, 1], Code::NotEnoughReplicas),
            failure(&[2], Code::InvalidRecord),
            failure(&[3], Code::MessageSizeTooLarge),
            failure(&[4, 5], Code::MessageSizeTooLarge),
        ];
        let Outcome::Each { refused, later, .. } = outcome(9, &mixed, Vec::new(), None) else { panic!("one by one") };
        assert_eq!(refused.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(later, [0, 1, 4, 5]);
    }

    #[test]
    fn a_delivery_that_failed_as_a_whole_fails_in_one_way() {
        let too_large = [failure(&[0, 1], Code::MessageSizeTooLarge)];
        assert!(matches!(outcome(2, &too_large, Vec::new(), None), Outcome::Split { .. }));
        let forbidden = [failure(&[0, 1], Code::TopicAuthorizationFailed)];
        assert!(matches!(outcome(2, &forbidden, Vec::new(), None), Outcome::Unauthorized { .. }));
        let both = [failure(&[0], Code::TopicAuthorizationFailed), failure(&[1], Code::RequestTimedOut)];
        assert!(matches!(outcome(2, &both, Vec::new(), None), Outcome::Later { .. }));
    }

    #[test]
    fn a_timeout_names_the_broker_and_is_as_bad_as_its_cause() {
        let timed_out = [failure(&[0], Code::MessageTimedOut)];
        let away = Trouble { code: Code::BrokerTransportFailure, reason: "10.0.0.5:9092: refused".to_owned() };
        let Outcome::Later { why, .. } = outcome(1, &timed_out, Vec::new(), Some(&away)) else { panic!("later") };
        assert!(why.contains("10.0.0.5:9092"), "{why}");
        let Outcome::Later { why, .. } = outcome(1, &timed_out, Vec::new(), None) else { panic!("later") };
        assert!(why.contains(&format!("topic `{}`", timed_out[0].topic)), "{why}");
        let wrong = Trouble { code: Code::Authentication, reason: "10.0.0.5:9092: invalid".to_owned() };
        assert!(matches!(outcome(1, &timed_out, Vec::new(), Some(&wrong)), Outcome::Unauthorized { .. }));
    }
}
