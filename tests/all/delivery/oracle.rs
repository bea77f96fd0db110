//! What was sent and what of it was acknowledged, against what arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::harness::numbered::Numbered;

/// How records came into Weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In requests.
    Network,
    /// As lines of a file: whatever stands there is to arrive, and may be read twice.
    File,
}

/// What one source sent.
#[derive(Debug)]
pub struct Sent {
    source: u16,
    way: Way,
    /// Of every number, from 1.
    fates: Mutex<Vec<Fate>>,
}

/// What became of a record where it came from.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    attempts: u64,
    is_acknowledged: bool,
}

impl Sent {
    /// Of a source that sends requests.
    pub fn over_the_network(source: u16) -> Sent {
        Sent { source, way: Way::Network, fates: Mutex::default() }
    }

    /// Of a file.
    pub fn in_a_file(source: u16) -> Sent {
        Sent { source, way: Way::File, fates: Mutex::default() }
    }

    fn fates<T>(&self, see: impl FnOnce(&mut Vec<Fate>) -> T) -> T {
        see(&mut self.fates.lock().expect("nobody panics with it"))
    }

    /// The next records, on their first way.
    pub fn next(&self, how_many: usize) -> Vec<Numbered> {
        self.fates(|fates| {
            let first = fates.len() as u64 + 1;
            fates.resize(fates.len() + how_many, Fate { attempts: 1, is_acknowledged: self.way == Way::File });
            let numbers = first..first + how_many as u64;
            numbers.map(|number| Numbered { source: self.source, number, attempt: 1 }).collect()
        })
    }

    /// The same records once more.
    pub fn again(&self, records: &[Numbered]) -> Vec<Numbered> {
        self.fates(|fates| {
            let again = |record: &Numbered| {
                let fate = &mut fates[record.number as usize - 1];
                fate.attempts += 1;
                Numbered { attempt: fate.attempts, ..*record }
            };
            records.iter().map(again).collect()
        })
    }

    /// They were answered with success.
    pub fn acknowledge(&self, records: &[Numbered]) {
        self.fates(|fates| records.iter().for_each(|record| fates[record.number as usize - 1].is_acknowledged = true));
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.fates(|fates| fates.len() as u64)
    }

    /// How many of them are to arrive.
    pub fn acknowledged(&self) -> u64 {
        self.fates(|fates| fates.iter().filter(|fate| fate.is_acknowledged).count() as u64)
    }
}

/// What arrived of some sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records.
    pub records: u64,
    /// Records, where one that was sent or read again counts again.
    pub distinct: u64,
    /// Arrivals of what had arrived before on the same way: what Weir delivered again.
    pub repeats: u64,
}

/// That everything acknowledged arrived, and nothing that was never sent.
pub fn check(backend: &str, arrivals: &[Numbered], sent: &[&Sent]) -> Found {
    let mut found = Found::default();
    for sent in sent {
        let own: Vec<Numbered> = arrivals.iter().filter(|arrival| arrival.source == sent.source).copied().collect();
        let distinct: BTreeSet<Numbered> = own.iter().copied().collect();
        let numbers: BTreeSet<u64> = own.iter().map(|arrival| arrival.number).collect();
        let fates = sent.fates(|fates| fates.clone());
        let source = sent.source;
        let numbered = (1..).zip(&fates).filter(|(number, fate)| fate.is_acknowledged && !numbers.contains(number));
        let lost: Vec<u64> = numbered.map(|(number, _)| number).collect();
        let some = &lost[..lost.len().min(20)];
        assert!(lost.is_empty(), "{backend}: source {source}: {} acknowledged records are lost: {some:?}", lost.len());
        for arrival in &distinct {
            let fate = arrival.number.checked_sub(1).and_then(|at| fates.get(at as usize));
            let is_sent = |fate: &Fate| sent.way == Way::File || arrival.attempt <= fate.attempts;
            assert!(fate.is_some_and(is_sent), "{backend}: nobody sent {arrival:?}");
        }
        found.records += numbers.len() as u64;
        found.distinct += distinct.len() as u64;
        found.repeats += (own.len() - distinct.len()) as u64;
    }
    let known: BTreeSet<u16> = sent.iter().map(|sent| sent.source).collect();
    let unknown = arrivals.iter().find(|arrival| !known.contains(&arrival.source));
    assert_eq!(unknown, None, "{backend}: nobody sent this");
    found
}

/// That the records of every source arrived in the order in which they were sent, repeats left out.
pub fn check_order(backend: &str, arrivals: &[Numbered]) {
    let mut last: BTreeMap<u16, u64> = BTreeMap::new();
    let mut seen: BTreeSet<(u16, u64)> = BTreeSet::new();
    for arrival in arrivals {
        if !seen.insert((arrival.source, arrival.number)) {
            continue;
        }
        let before = last.insert(arrival.source, arrival.number).unwrap_or(0);
        assert!(before < arrival.number, "{backend}: {arrival:?} came after number {before}");
    }
}

/// How many arrivals had arrived before on the same way, for each kill after which they came again. A kill is
/// how many arrivals there were when it was done.
pub fn repeats(backend: &str, arrivals: &[Numbered], kills: &[usize]) -> Vec<usize> {
    let mut last = BTreeMap::new();
    let mut repeats = vec![0; kills.len()];
    for (at, arrival) in arrivals.iter().enumerate() {
        let Some(before) = last.insert(*arrival, at) else { continue };
        let kill = kills.partition_point(|kill| *kill <= before);
        assert!(
            kills.get(kill).is_some_and(|kill| *kill <= at),
            "{backend}: {arrival:?} arrived twice, at {before} and {at}, without a kill between"
        );
        repeats[kill] += 1;
    }
    repeats
}
