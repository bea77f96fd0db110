//! Keeping, listing, dropping, replaying, exporting.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::ledger::DEAD_LETTERS;

static NOW_MS: AtomicI64 = AtomicI64::new(1_760_000_000_000);

fn in_memory() -> DeadLetters {
    DeadLetters::in_memory(Limits::default())
}

fn sink() -> Scope {
    Scope { exporter: Some("sink".into()), ..Scope::default() }
}

fn page(letters: &DeadLetters, filter: Filter) -> Page {
    letters.blocking().list(&Filter { limit: 1000, ..filter }).unwrap()
}

fn ids(letters: &DeadLetters) -> Vec<Id> {
    all(letters).iter().rev().map(|letter| letter.id).collect()
}

/// The number of a log record's letter.
fn number_of(kept: &Kept) -> u32 {
    let stored = kept.clone().into_stored().unwrap();
    stored.payload["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"]["stringValue"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn who_never_has_a_dead_letter_has_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::open(folder.path(), Limits::default());
    letters.blocking().load().unwrap();
    assert_eq!(page(&letters, Filter::default()), Page::default());
    assert_eq!(letters.blocking().get(Id::LAST).unwrap(), None);
    assert_eq!(letters.blocking().drop(&Selection::All).unwrap(), 0);
    assert_eq!(letters.blocking().expire().unwrap(), 0);
    assert_eq!(numbers(&letters), [0; 0]);
    assert!(letters.counts().is_empty());
    letters.blocking().keep(&[]).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    letters.blocking().keep(&refused(0..1)).unwrap();
    let file = std::fs::metadata(folder.path().join(FILE_NAME)).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600, "records may be confidential");
}

#[tokio::test]
async fn a_letter_is_found_with_everything_after_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::open(folder.path(), Limits::default());
    letters.keep(refused(7..8)).await.unwrap();
    letters.keep(vec![letter("sink", "scrape", points(0..4), 2)]).await.unwrap();
    drop(letters);

    let letters = DeadLetters::open(folder.path(), Limits::default());
    assert!(letters.counts().is_empty(), "no file is touched before the first use");
    letters.load().await.unwrap();
    assert_eq!(letters.counts(), BTreeMap::from([("sink".to_owned(), 2)]));
    let listed = all(&letters);
    assert_eq!(
        (listed[0].source.as_str(), listed[0].signal, listed[0].records, listed[0].of),
        ("scrape", Signal::Metrics, 2, 4)
    );
    let stored = letters.get(listed[1].id).await.unwrap().unwrap();
    assert_eq!(stored.summary, listed[1]);
    assert_eq!(letters.bytes(), listed.iter().map(|letter| letter.bytes).sum::<u64>());

    let mut json = serde_json::to_value(&stored).unwrap();
    let payload = json["payload"].take();
    let (id, first_ms, bytes) = (stored.summary.id.to_string(), stored.summary.first_ms, stored.summary.bytes);
    let expected = json!({"id": id, "exporter": "sink", "source": "app", "signal": "logs", "records": 1, "of": 1,
        "reason": "mapper_parsing_exception", "status": 400, "answer": "{\"error\":\"failed to parse\"}",
        "first_ms": first_ms, "last_ms": first_ms, "times": 1, "bytes": bytes, "payload": null});
    assert_eq!(json, expected);
    let record = &payload["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!((&record["body"]["stringValue"], &record["severityText"]), (&json!("7"), &json!("ERROR")));
    assert_eq!(payload["resourceLogs"][0]["resource"], shared());
}

#[test]
fn a_record_that_is_refused_again_is_counted_and_not_stored_twice() {
    let letters = in_memory();
    letters.blocking().keep(&refused(0..3)).unwrap();
    let before = page(&letters, Filter::default());
    let mut again = refused(1..2);
    again[0].reason = "another reason".into();
    again[0].status = None;
    letters.blocking().keep(&again).unwrap();
    let after = page(&letters, Filter::default());
    assert_eq!(after.total, 3);
    let changed: Vec<_> = before.letters.iter().zip(&after.letters).filter(|(a, b)| a != b).collect();
    let [(old, new)] = changed[..] else { panic!("one letter changes: {changed:?}") };
    assert_eq!((new.id, new.first_ms, new.times), (old.id, old.first_ms, 2));
    assert_eq!((new.reason.as_str(), new.status), ("another reason", None));
    assert_eq!(after.bytes, after.letters.iter().map(|letter| letter.bytes).sum::<u64>());

    // Another exporter, another source: other letters.
    letters.blocking().keep(&[letter("other", "app", logs(1..2), 1), letter("sink", "other", logs(1..2), 1)]).unwrap();
    assert_eq!(page(&letters, Filter::default()).total, 5);
}

#[test]
fn the_oldest_letters_make_room_counted_and_the_newest_stays_however_large() {
    let letters = in_memory();
    letters.blocking().keep(&refused(0..100)).unwrap();
    let bytes = letters.bytes();
    letters.set_limits(Limits { bytes: bytes / 2, ..Limits::default() });
    letters.blocking().keep(&refused(100..120)).unwrap();
    let left = numbers(&letters);
    assert!(letters.bytes() <= bytes / 2 && letters.bytes() > bytes / 2 - 1000, "{} of {bytes}", letters.bytes());
    assert_eq!(*left, *(120 - left.len() as u32..120).collect::<Vec<_>>(), "the newest ones");
    assert_eq!(letters.evicted() as usize, 120 - left.len());

    letters.set_limits(Limits { bytes: 10, ..Limits::default() });
    letters.blocking().keep(&[letter("sink", "app", logs(0..5000), 1)]).unwrap();
    assert_eq!(letters.counts()["sink"], 1);
    assert_eq!(all(&letters)[0].of, 5000);
}

#[test]
fn letters_expire_by_their_last_refusal() {
    let age = Duration::from_secs(1000);
    let letters =
        DeadLetters::new(Store::in_memory(), Limits { age, ..Limits::default() }, || NOW_MS.load(Ordering::SeqCst));
    letters.blocking().keep(&refused(0..2)).unwrap();
    NOW_MS.fetch_add(600_000, Ordering::SeqCst);
    letters.blocking().keep(&refused(1..3)).unwrap();
    NOW_MS.fetch_add(600_000, Ordering::SeqCst);
    assert_eq!(letters.blocking().expire().unwrap(), 1, "the one that was not refused again");
    assert_eq!(numbers(&letters), [1, 2]);
    NOW_MS.fetch_add(600_000, Ordering::SeqCst);
    letters.blocking().keep(&refused(9..10)).unwrap();
    assert_eq!(numbers(&letters), [9], "keeping removes what is too old too");
    assert_eq!(letters.expired(), 3);
}

#[test]
fn pages_follow_each_other_while_new_letters_come_and_old_ones_go() {
    let letters = in_memory();
    letters.blocking().keep(&refused(0..250)).unwrap();
    let expected: Vec<Id> = ids(&letters).into_iter().rev().collect();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = letters.blocking().list(&Filter { before, limit: 40, ..Filter::default() }).unwrap();
        let Some(last) = page.letters.last() else { break };
        before = Some(last.id);
        seen.extend(page.letters.iter().map(|letter| letter.id));
        letters.blocking().drop(&Selection::Ids(vec![seen[0]])).unwrap();
        let at = 1000 + seen.len() as u32;
        letters.blocking().keep(&refused(at..at + 3)).unwrap();
    }
    assert_eq!(seen, expected, "each letter that was there once, newest first");
}

#[test]
fn lists_are_filtered_and_their_totals_with_them() {
    let letters = in_memory();
    let some = [
        letter("a", "app", logs(0..3), 3),
        letter("a", "scrape", points(0..4), 4),
        letter("b", "app", logs(0..2), 2),
        letter("b", "app", spans(0..1), 1),
    ];
    letters.blocking().keep(&some).unwrap();
    assert_eq!(letters.counts(), BTreeMap::from([("a".into(), 7), ("b".into(), 3)]));
    let check = |scope: Scope, expected: usize| {
        let page = page(&letters, Filter { scope: scope.clone(), ..Filter::default() });
        let mut exported = 0;
        let count = |_: &str| {
            exported += 1;
            Ok(())
        };
        assert_eq!(letters.blocking().export(&Selection::Of(scope), count).unwrap(), expected as u64);
        assert_eq!(exported, expected);
        assert_eq!((page.letters.len(), page.total), (expected, expected as u64));
        assert_eq!(page.bytes, page.letters.iter().map(|letter| letter.bytes).sum::<u64>());
    };
    check(Scope::default(), 10);
    let of = |exporter: &str| Scope { exporter: Some(exporter.into()), ..Scope::default() };
    check(of("a"), 7);
    check(Scope { source: Some("app".into()), ..Scope::default() }, 6);
    check(Scope { signal: Some(Signal::Logs), ..of("b") }, 2);
    check(of("nobody"), 0);
    let logs_of_b = Scope { signal: Some(Signal::Logs), ..of("b") };
    assert_eq!(letters.blocking().drop(&Selection::Of(logs_of_b)).unwrap(), 2);
    check(of("b"), 1);
    check(of("a"), 7);
}

#[test]
fn what_is_dropped_is_gone_and_the_rest_stays() {
    let letters = in_memory();
    letters.blocking().keep(&refused(0..10)).unwrap();
    letters.blocking().keep(&[letter("other", "app", logs(20..25), 5)]).unwrap();
    let two: Vec<Id> = ids(&letters)[2..4].to_vec();
    let wanted = [two.clone(), two.clone(), vec![Id::LAST]].concat();
    assert_eq!(letters.blocking().drop(&Selection::Ids(wanted)).unwrap(), 2);
    assert_eq!(numbers(&letters), [0, 1, 4, 5, 6, 7, 8, 9, 20, 21, 22, 23, 24]);
    assert_eq!(letters.blocking().get(two[0]).unwrap(), None);
    assert_eq!(letters.blocking().drop(&Selection::Of(sink())).unwrap(), 8);
    assert_eq!(letters.counts(), BTreeMap::from([("other".into(), 5)]));
    assert_eq!(letters.blocking().drop(&Selection::All).unwrap(), 5);
    assert_eq!((letters.counts(), letters.bytes()), (BTreeMap::new(), 0));

    letters.blocking().keep(&refused(2..3)).unwrap();
    assert_eq!(all(&letters)[0].times, 1, "what was dropped is forgotten");
    assert!(!two.contains(&ids(&letters)[0]), "no id is given twice");
}

#[test]
fn more_letters_than_one_transaction_removes_are_dropped_and_the_file_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::open(folder.path(), Limits::default());
    let count = LETTERS_AT_A_TIME as u32 * 2 + 7;
    let large = "x".repeat(1000);
    let mut refused = refused(0..count);
    refused[0].answer = Some(large);
    letters.blocking().keep(&refused).unwrap();
    let path = folder.path().join(FILE_NAME);
    let full = std::fs::metadata(&path).unwrap().len();
    assert!(full <= 3 * letters.bytes(), "{full} bytes for {} of letters", letters.bytes());
    assert_eq!(letters.blocking().drop(&Selection::Of(sink())).unwrap(), u64::from(count));
    let empty = std::fs::metadata(&path).unwrap().len();
    assert!(empty < full / 4, "{empty} of {full} bytes are left");
    letters.blocking().keep(&refused[..1]).unwrap();
    assert_eq!(letters.counts()["sink"], u64::from(count));
}

#[tokio::test]
async fn a_replay_removes_what_arrives_and_keeps_what_does_not_each_sent_once() {
    let letters = in_memory();
    letters.keep(refused(0..200)).await.unwrap();
    let sent = Mutex::new(Vec::new());
    let replayed = letters
        .replay(Selection::Of(sink()), |kept| {
            let (sent, letters) = (&sent, &letters);
            async move {
                let number = number_of(&kept);
                sent.lock().unwrap().push(number);
                // What comes new while it runs waits for the next replay.
                letters.keep(refused(1000 + number..1001 + number)).await.unwrap();
                match number % 10 {
                    3 => Sent::Refused { reason: "still bad".into() },
                    7 => Sent::Failed { reason: "no room".into() },
                    _ => Sent::Delivered,
                }
            }
        })
        .await
        .unwrap();
    assert_eq!(sent.into_inner().unwrap(), (0..200).collect::<Vec<_>>(), "oldest first, each once");
    assert_eq!((replayed.done, replayed.left, replayed.refused), (160, 40, 20));
    assert_eq!(replayed.reason.as_deref(), Some("no room"));
    let left: Vec<u32> = numbers(&letters).into_iter().filter(|number| *number < 1000).collect();
    assert_eq!(left, (0..200).filter(|number| matches!(number % 10, 3 | 7)).collect::<Vec<_>>());
    for letter in all(&letters).iter().filter(|letter| letter.times > 1) {
        assert_eq!((letter.times, letter.reason.as_str()), (2, "still bad"));
    }
    assert_eq!(all(&letters).iter().filter(|letter| letter.times == 2).count(), 20);
}

#[tokio::test]
async fn a_replay_ends_early_where_nothing_can_be_sent_and_says_what_is_left() {
    let letters = in_memory();
    letters.keep(refused(0..500)).await.unwrap();
    let wanted: Vec<Id> = ids(&letters)[..300].to_vec();
    for (selection, left) in [(Selection::All, 500), (Selection::Of(sink()), 500), (Selection::Ids(wanted), 300)] {
        let sent = AtomicI64::new(0);
        let replayed = letters
            .replay(selection, |_| {
                sent.fetch_add(1, Ordering::SeqCst);
                async { Sent::Failed { reason: "the queue is full".into() } }
            })
            .await
            .unwrap();
        assert_eq!((replayed.done, replayed.left, replayed.refused), (0, left, 0));
        assert_eq!(sent.load(Ordering::SeqCst), PAGE_LETTERS as i64);
    }
    assert_eq!(letters.counts()["sink"], 500);
}

#[tokio::test]
async fn a_replayed_record_that_comes_back_before_its_letter_is_removed_stays() {
    let letters = in_memory();
    letters.keep(refused(0..3)).await.unwrap();
    let before = ids(&letters);
    let replayed = letters
        .replay(Selection::All, |kept| {
            let letters = &letters;
            async move {
                // A queue on disk has it, and the backend refuses it before the receipt is heard.
                if number_of(&kept) == 1 {
                    letters.keep(vec![letter("sink", DEAD_LETTERS, kept.payload, 1)]).await.unwrap();
                }
                Sent::Delivered
            }
        })
        .await
        .unwrap();
    assert_eq!((replayed.done, replayed.left, replayed.refused), (2, 1, 1));
    let [left] = &all(&letters)[..] else { panic!("one letter is left") };
    assert_eq!((left.id, left.times, left.source.as_str()), (before[1], 2, "app"));
}

#[tokio::test]
async fn a_replayed_record_that_comes_back_later_has_its_source_and_its_times_again() {
    let letters = in_memory();
    letters.keep(refused(0..2)).await.unwrap();
    let first = all(&letters);
    let came = Mutex::new(Vec::new());
    let send = |kept: Kept| {
        came.lock().unwrap().push(kept.payload);
        async { Sent::Delivered }
    };
    assert_eq!(letters.replay(Selection::All, send).await.unwrap().done, 2);
    assert!(letters.counts().is_empty());
    let payload = came.lock().unwrap().remove(0);
    letters.keep(vec![letter("sink", DEAD_LETTERS, payload, 1)]).await.unwrap();
    let [back] = &all(&letters)[..] else { panic!("one letter came back") };
    assert_eq!((back.source.as_str(), back.times, back.first_ms), ("app", 2, first[1].first_ms));
    assert!(back.id > first[0].id);

    // What was never a letter keeps the source that it comes from.
    letters.keep(vec![letter("sink", DEAD_LETTERS, logs(50..51), 1)]).await.unwrap();
    assert_eq!(all(&letters)[0].source, DEAD_LETTERS);
}

#[test]
fn exported_lines_are_requests_that_can_be_received_again() {
    let letters = in_memory();
    let some =
        [letter("a", "app", logs(0..2), 2), letter("b", "x\n\"y", points(0..1), 1), letter("b", "app", spans(0..5), 2)];
    letters.blocking().keep(&some).unwrap();
    let mut lines = Vec::new();
    let visit = |line: &str| {
        lines.push(line.to_owned());
        Ok(())
    };
    assert_eq!(letters.blocking().export(&Selection::All, visit).unwrap(), 4);
    for (line, letter) in lines.iter().zip(all(&letters).iter().rev()) {
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["weir.dead_letter"], serde_json::to_value(letter).unwrap());
        let received = otlp::accept(letter.signal, Encoding::Json, line.clone().into()).unwrap();
        assert_eq!(received.len() as u64, letter.of);
        let stored = letters.blocking().get(letter.id).unwrap().unwrap();
        let again =
            serde_json::from_slice::<serde_json::Value>(&otlp::encode_json(received.records().unwrap())).unwrap();
        assert_eq!(again, stored.payload);
    }
    let stopped = letters.blocking().export(&Selection::All, |_| Err(io::Error::from(ErrorKind::BrokenPipe)));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_record_nested_as_deeply_as_otlp_allows_can_be_kept_looked_at_and_exported() {
    let mut body = json!({"stringValue": "core"});
    for _ in 0..48 {
        body = json!({"arrayValue": {"values": [body]}});
    }
    let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": body}]}]}]});
    let letters = in_memory();
    letters.blocking().keep(&[letter("sink", "app", payload(Signal::Logs, &request), 1)]).unwrap();
    let stored = letters.blocking().get(ids(&letters)[0]).unwrap().unwrap();
    assert!(stored.payload.to_string().contains("core"));
    letters
        .blocking()
        .export(&Selection::All, |line| {
            assert_eq!(otlp::accept(Signal::Logs, Encoding::Json, line.to_owned().into()).unwrap().len(), 1);
            Ok(())
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_exporters_keep_letters_at_once_and_all_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::open(folder.path(), Limits::default());
    let tasks: Vec<_> = (0..8_u32)
        .map(|exporter| {
            let letters = letters.clone();
            tokio::spawn(async move {
                for at in (0..50).step_by(5) {
                    let one = letter(&format!("sink-{exporter}"), "app", logs(at..at + 5), 5);
                    letters.keep(vec![one]).await.unwrap();
                    letters.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(letters.counts().values().copied().collect::<Vec<_>>(), [50; 8]);
    let distinct: BTreeSet<Id> = ids(&letters).into_iter().collect();
    assert_eq!(distinct.len(), 400);
}
