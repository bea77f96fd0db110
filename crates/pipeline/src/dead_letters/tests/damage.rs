//! Crashes, failing disks and damaged files.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

fn set(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    numbers.into_iter().collect()
}

#[test]
fn whatever_the_disk_loses_when_the_machine_dies_what_was_acknowledged_is_there_and_nothing_else() {
    let given = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in given.map_or(0..100, |seed| seed..seed + 1) {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::new(ErrorKind::Other, true);
        let letters = on_faulty_disk(folder.path(), &faults);
        letters.blocking().keep(&refused(0..3)).unwrap();
        let (mut acknowledged, mut tried) = (set(0..3), set(0..3));
        faults.fail_after(random.i64(0..150));
        for at in 1..15 {
            let some = at * 10..at * 10 + random.u32(1..8);
            tried.extend(some.clone());
            if letters.blocking().keep(&refused(some.clone())).is_err() {
                break;
            }
            acknowledged.extend(some);
        }
        faults.fail_after(0);
        letters.blocking.0.store.crash();
        faults.lose_unsynced(&folder.path().join(FILE_NAME), &mut random);

        let letters = DeadLetters::open(folder.path(), Limits::default());
        let found = set(numbers(&letters));
        assert!(acknowledged.is_subset(&found), "WEIR_SEED={seed}: {acknowledged:?} are not all in {found:?}");
        assert!(found.is_subset(&tried), "WEIR_SEED={seed}: {found:?}");
        assert_eq!(all(&letters).len(), found.len(), "WEIR_SEED={seed}");
        assert_eq!(letters.counts().values().sum::<u64>(), found.len() as u64, "WEIR_SEED={seed}");
        assert_eq!(letters.bytes(), all(&letters).iter().map(|letter| letter.bytes).sum::<u64>(), "WEIR_SEED={seed}");
        assert!(letters.trouble().is_none(), "WEIR_SEED={seed}: nothing was set aside");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "WEIR_SEED={seed}: nothing was set aside");
    }
}

#[test]
fn a_full_disk_refuses_letters_whole_and_takes_them_once_there_is_room() {
    let mut errors = 0;
    for after in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::new(ErrorKind::StorageFull, false);
        let letters = on_faulty_disk(folder.path(), &faults);
        letters.blocking().keep(&refused(0..5)).unwrap();
        faults.fail_after(after);
        let failed = letters.blocking().keep(&refused(5..100));
        if let Err(error) = &failed {
            errors += 1;
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert!(error.to_string().contains(FILE_NAME), "{error}");
            assert!(letters.trouble().is_some());
        }
        faults.fail_after(i64::MAX);
        let found = set(numbers(&letters));
        let whole = found == set(0..100);
        assert!(whole || failed.is_err() && found == set(0..5), "all of it or nothing, after {after} operations");
        letters.blocking().keep(&refused(5..100)).unwrap();
        assert_eq!(set(numbers(&letters)), set(0..100));
        assert!(letters.trouble().is_none());
    }
    assert!(errors > 10 && errors < 60, "{errors}: some are refused, and some fit");
}

#[test]
fn a_disk_that_is_full_from_the_start_leaves_no_file_that_hurts_later() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::new(ErrorKind::StorageFull, false);
    let letters = on_faulty_disk(folder.path(), &faults);
    for after in 0..40 {
        faults.fail_after(after);
        if letters.blocking().keep(&refused(0..1)).is_ok() {
            break;
        }
    }
    faults.fail_after(i64::MAX);
    letters.blocking().keep(&refused(0..1)).unwrap();
    assert_eq!(numbers(&letters), [0]);
    drop(letters);
    let letters = DeadLetters::open(folder.path(), Limits::default());
    assert_eq!(numbers(&letters), [0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was set aside");
}

#[test]
fn a_damaged_file_is_repaired_or_set_aside_and_never_refused() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::open(folder.path(), Limits::default());
    for at in 0..10 {
        letters.blocking().keep(&refused(at * 10..at * 10 + 10)).unwrap();
    }
    letters.blocking().drop(&Selection::Ids(all(&letters)[30..50].iter().map(|letter| letter.id).collect())).unwrap();
    let written = set(numbers(&letters));
    drop(letters);
    let intact = std::fs::read(folder.path().join(FILE_NAME)).unwrap();

    let (mut lost, mut kept) = (0, 0);
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = intact.clone();
        match seed % 4 {
            // One bit; a run of noise; a lost page; an end that is missing.
            0 => bytes[random.usize(..intact.len())] ^= 1 << random.u8(0..8),
            1 => {
                let from = random.usize(..intact.len() - 512);
                random.fill(&mut bytes[from..from + 512]);
            }
            2 => {
                let from = random.usize(..intact.len() / 4096) * 4096;
                bytes[from..from + 4096].fill(0);
            }
            _ => bytes.truncate(random.usize(..intact.len())),
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
        let letters = DeadLetters::open(folder.path(), Limits::default());
        letters.blocking().load().unwrap();
        let found = set(numbers(&letters));
        assert!(found.is_subset(&written), "case {seed}: nothing is invented");
        letters.blocking().keep(&refused(500..510)).unwrap();
        assert!(set(500..510).is_subset(&set(numbers(&letters))), "case {seed}");
        assert_eq!(all(&letters).len() as u64, letters.counts()["sink"], "case {seed}");
        letters.blocking().drop(&Selection::All).unwrap();
        let aside = letters.set_aside();
        assert_eq!(aside.is_some(), std::fs::read_dir(folder.path()).unwrap().count() == 2, "case {seed}");
        assert!(aside.is_none_or(|aside| std::fs::metadata(aside).is_ok()), "case {seed}: a person can look at it");
        if found == written { kept += 1 } else { lost += 1 }
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept: the damage hit both what is used and what is free");
}

#[test]
fn no_second_process_opens_the_file_and_the_error_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let first = DeadLetters::open(folder.path(), Limits::default());
    first.blocking().keep(&refused(0..1)).unwrap();
    let second = DeadLetters::open(folder.path(), Limits::default());
    let error = second.blocking().load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("ask the running agent"), "{error}");
    assert!(error.to_string().contains(FILE_NAME), "{error}");
    drop(first);
    second.blocking().load().unwrap();
    assert_eq!(numbers(&second), [0]);
}

const CHILD: &str = "WEIR_DEAD_LETTERS_CHILD";

/// Keeps letters for ever and says so after each; a process of its own, of which the test below makes many.
#[test]
#[ignore = "the child process of another test"]
fn a_child_that_keeps_letters() {
    let folder = std::env::var_os(CHILD).expect("the folder");
    let letters = DeadLetters::open(Path::new(&folder), Limits::default());
    let from = set(numbers(&letters)).last().map_or(0, |last| last + 1);
    for at in (from..).step_by(5) {
        letters.blocking().keep(&refused(at..at + 5)).unwrap();
        writeln!(io::stdout(), "kept {at}").unwrap();
    }
}

#[test]
fn what_was_kept_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(9);
    let mut acknowledged = BTreeSet::new();
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dead_letters::tests::damage::a_child_that_keeps_letters", "--ignored", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut enough = random.usize(1..40);
        // Killed in the middle of whatever it does after so many letters; what it still says counts.
        while let Some(Ok(line)) = lines.next() {
            let Some((_, at)) = line.split_once("kept ") else { continue };
            let at: u32 = at.trim().parse().unwrap();
            acknowledged.extend(at..at + 5);
            enough = enough.saturating_sub(1);
            if enough == 0 {
                std::thread::park_timeout(Duration::from_micros(random.u64(0..3_000)));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let letters = DeadLetters::open(folder.path(), Limits::default());
        let found = set(numbers(&letters));
        assert!(acknowledged.is_subset(&found), "round {round}");
        assert!(found.len() <= acknowledged.len() + 5 * (round + 1), "round {round}");
        assert!(found.len().is_multiple_of(5), "round {round}: letters of one call are all there or none");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was set aside");
}
