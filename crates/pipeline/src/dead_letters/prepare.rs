//! Letters made ready to be stored: one per refused record.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use weir_model::{DecodeError, Encoding, Payload, Records, Signal, Wire, otlp};

use crate::dead_letters::Letter;
use crate::dead_letters::letter::Head;

/// Reasons and answers are cut behind so many bytes.
const TEXT_BYTES: usize = 1024;

/// A decoded batch is cut into so many parts at a time. Each part copies all text of what it is cut
/// from and is then written anew without the rest of it, so that n records cost n log n, not n².
const PARTS: usize = 16;

/// By what a record is known again: the beginning of a SHA-256.
pub(super) type Key = [u8; 16];

/// A letter that only needs an id and its times.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// `first_ms`, `last_ms` and `times` are set where it is stored.
    pub head: Head,
    /// An OTLP export request.
    pub payload: Bytes,
    /// Same exporter, signal and payload.
    pub key: Key,
}

/// The letters of records that travelled together: one per record where all of them were refused,
/// else one for all.
pub(super) fn prepare(letter: &Letter) -> Vec<Prepared> {
    let of = letter.payload.len();
    let refused = letter.refused.min(of as u64);
    if of == 0 {
        return Vec::new();
    }
    if refused == of as u64
        && of > 1
        && let Ok(singles) = singles(&letter.payload)
    {
        return singles.into_iter().map(|payload| prepared(letter, payload, false, 1, 1)).collect();
    }
    let (payload, json) = whole(&letter.payload);
    vec![prepared(letter, payload, json, refused, of as u64)]
}

fn prepared(letter: &Letter, payload: Bytes, json: bool, records: u64, of: u64) -> Prepared {
    let signal = letter.payload.signal();
    let head = Head {
        exporter: letter.exporter.to_string(),
        source: letter.source.to_string(),
        signal: signal.name().to_owned(),
        json,
        records,
        of,
        reason: cut(&letter.reason),
        status: letter.status,
        grpc_status: letter.grpc_status.clone(),
        answer: letter.answer.as_deref().map(cut),
        first_ms: 0,
        last_ms: 0,
        times: 1,
        payload_bytes: payload.len() as u64,
    };
    let key = key(&letter.exporter, signal.name(), &payload);
    Prepared { head, payload, key }
}

/// By what the records of an exporter are known again.
pub(super) fn key(exporter: &str, signal: &str, payload: &[u8]) -> Key {
    let mut context = Context::new(&SHA256);
    for part in [exporter.as_bytes(), signal.as_bytes(), payload] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    key
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

/// The payload as protobuf, or as it came where it cannot be read; and whether that is JSON.
fn whole(payload: &Payload) -> (Bytes, bool) {
    match (payload.to_protobuf(), payload.wire()) {
        (Ok(bytes), _) => (bytes, false),
        // Payloads are checked when they are received, so this is an error of Weir; a person may
        // still read the bytes.
        (Err(_), Some(Wire { encoding, bytes })) => (bytes.clone(), *encoding == Encoding::Json),
        (Err(_), None) => (Bytes::new(), false),
    }
}

/// An OTLP request per record.
fn singles(payload: &Payload) -> Result<Vec<Bytes>, DecodeError> {
    let mut out = Vec::with_capacity(payload.len());
    cut_apart(payload.signal(), payload.records()?, &mut out)?;
    Ok(out)
}

fn cut_apart(signal: Signal, records: &Records, out: &mut Vec<Bytes>) -> Result<(), DecodeError> {
    let length = records.len();
    let step = length.div_ceil(PARTS).max(1);
    for from in (0..length).step_by(step) {
        let part = otlp::encode_protobuf(&records.select(|at| (from..from + step).contains(&at)));
        if step == 1 {
            out.push(part);
        } else {
            let wire = Wire { encoding: Encoding::Protobuf, bytes: part };
            cut_apart(signal, &otlp::decode(signal, &wire)?, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::tests::{letter, logs, points, spans};

    #[test]
    fn every_record_of_a_refused_batch_becomes_one_letter_of_its_own() {
        for count in [1, 2, 15, 16, 17, 255, 300] {
            for payload in [logs(0..count), points(0..count), spans(0..count)] {
                let prepared = prepare(&letter("sink", "app", payload, u64::from(count)));
                assert_eq!(prepared.len(), count as usize);
                let keys: std::collections::BTreeSet<Key> = prepared.iter().map(|one| one.key).collect();
                assert_eq!(keys.len(), count as usize, "no record twice");
                for one in prepared {
                    assert_eq!((one.head.records, one.head.of, one.head.json), (1, 1, false));
                    let signal = one.head.signal().unwrap();
                    assert_eq!(otlp::accept(signal, Encoding::Protobuf, one.payload).unwrap().len(), 1);
                }
            }
        }
    }

    #[test]
    fn a_record_is_known_again_whatever_it_travelled_with() {
        for make in [logs, points, spans] {
            let many = prepare(&letter("sink", "app", make(0..300), 300));
            let alone = prepare(&letter("sink", "app", make(217..218), 1));
            assert_eq!(many.iter().filter(|one| one.key == alone[0].key).count(), 1);
        }
    }

    #[test]
    fn where_the_backend_did_not_say_which_all_stay_together() {
        let prepared = prepare(&letter("sink", "app", logs(0..10), 3));
        assert_eq!(prepared.len(), 1);
        assert_eq!((prepared[0].head.records, prepared[0].head.of), (3, 10));
    }

    #[test]
    fn long_answers_are_cut_between_characters() {
        let mut long = letter("sink", "app", logs(0..1), 1);
        long.answer = Some(format!("x{}", "é".repeat(2000)));
        let answer = prepare(&long).remove(0).head.answer.unwrap();
        assert_eq!(answer.len(), 1023, "1 KiB would cut a character");
        assert!(answer.ends_with('é'));
    }
}
