//! Letting go of what is old, or too much. A little at a time, so that others come to the head in between.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::head::{Gone, Head};
use crate::labels::Interner;

/// So many series are looked after while nobody else comes to the head.
const SERIES_PER_LOCK: usize = 4096;

fn read(head: &RwLock<Head>) -> RwLockReadGuard<'_, Head> {
    head.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(head: &RwLock<Head>) -> RwLockWriteGuard<'_, Head> {
    head.write().unwrap_or_else(PoisonError::into_inner)
}

/// Changes these series, then forgets what no series shares any more. How many samples went.
///
/// Only the thread that owns the interner changes the head, so what was seen under one lock is true under the next.
fn each(
    head: &RwLock<Head>,
    interner: &mut Interner,
    ids: &[u32],
    change: impl Fn(&mut Head, &[u32]) -> Gone,
) -> usize {
    if ids.is_empty() {
        return 0;
    }
    let mut samples = 0;
    for ids in ids.chunks(SERIES_PER_LOCK) {
        let gone = change(&mut write(head), ids);
        samples += gone.samples;
        // Freed here, without the lock.
        drop(gone);
    }
    interner.sweep();
    let span = read(head).measure_span();
    let mut head = write(head);
    head.set_span(span);
    head.set_shared_bytes(interner.bytes());
    samples
}

/// Lets go of everything older than a time. How many samples went.
pub fn drop_before(head: &RwLock<Head>, interner: &mut Interner, time_ms: i64) -> usize {
    let ids = read(head).series_before(time_ms);
    each(head, interner, &ids, |head, ids| head.drop_before(ids, time_ms))
}

/// Lets go of the oldest until at most `bytes` are held. How many samples went.
pub fn evict(head: &RwLock<Head>, interner: &mut Interner, bytes: usize, now_ms: i64) -> usize {
    let excess = |head: &Head| (head.bytes() > bytes).then(|| head.bytes() - bytes);
    let Some(too_much) = excess(&read(head)) else { return 0 };
    let cut_ms = read(head).age_that_frees(too_much, now_ms);
    let mut gone = drop_before(head, interner, cut_ms);
    // Comes to this when memory is full of series rather than of samples.
    loop {
        let ids = {
            let head = read(head);
            excess(&head).map_or_else(Vec::new, |too_much| head.quietest_series(too_much))
        };
        if ids.is_empty() {
            return gone;
        }
        gone += each(head, interner, &ids, Head::remove);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::MetricKind;
    use crate::record::Definition;
    use crate::replay::SeriesMaker;

    /// A series whose label `n` has this value.
    fn push(head: &mut Head, maker: &mut SeriesMaker, n: &str, time_ms: i64, value: u64) {
        let own = vec![("__name__", "m"), ("n", n)];
        let definition =
            Definition { id: 0, kind: MetricKind::Gauge, unit: "1", description: "", shared: Vec::new(), own };
        let hash = maker.hasher.all(definition.own.iter().copied());
        let known = head.find(hash, |series| series.labels.are::<&str, &str>(&[], &definition.own)).cloned();
        let series = known.unwrap_or_else(|| maker.make(&definition, hash).unwrap());
        head.push(&series, time_ms, value);
    }

    fn filled(series: u32, samples: i64) -> (RwLock<Head>, SeriesMaker) {
        let (mut head, mut maker) = (Head::new(i64::MAX), SeriesMaker::default());
        for n in 0..series {
            for time in 0..samples {
                let value = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ time.cast_unsigned();
                push(&mut head, &mut maker, &n.to_string(), 1000 + time, value);
            }
        }
        head.set_shared_bytes(maker.interner.bytes());
        (RwLock::new(head), maker)
    }

    #[test]
    fn the_oldest_samples_go_first_and_as_many_as_needed() {
        let (head, mut maker) = filled(10, 2400);
        let bound = read(&head).bytes() * 2 / 3;
        let gone = evict(&head, &mut maker.interner, bound, 1000 + 2400);
        let head = read(&head);
        assert!(head.bytes() <= bound, "{} > {bound}", head.bytes());
        assert_eq!(head.samples() + gone, 24_000);
        assert_eq!(head.len(), 10);
        assert_eq!(head.newest_ms(), Some(3399));
        // Not much more than needed went.
        assert!(gone < 24_000 / 2, "{gone}");
        assert!(head.oldest_ms() > Some(1240));
        assert_eq!(head.measure_span(), head.oldest_ms().zip(head.newest_ms()));
    }

    #[test]
    fn memory_full_of_series_of_one_time_is_bounded_too() {
        let (head, mut maker) = filled(1000, 1);
        let bound = read(&head).bytes() / 2;
        evict(&head, &mut maker.interner, bound, 5000);
        let head = read(&head);
        assert!(head.bytes() <= bound);
        assert!(head.len() > 300, "{} of 1000 are left in half of the memory", head.len());
        assert_eq!(head.len(), head.index().all().len());
    }

    #[test]
    fn text_that_goes_with_its_series_counts_so_that_no_more_goes_than_needed() {
        let (mut head, mut maker) = (Head::new(i64::MAX), SeriesMaker::default());
        // Nearly all memory is the text of labels.
        for n in 0..1000 {
            push(&mut head, &mut maker, &format!("{n}{}", "x".repeat(5000)), 1000 + n, 7);
        }
        head.set_shared_bytes(maker.interner.bytes());
        let (bound, head) = (head.bytes() / 10 * 9, RwLock::new(head));
        let gone = evict(&head, &mut maker.interner, bound, 5000);
        assert!((100..130).contains(&gone), "{gone} of 1000 went for a tenth of the memory");
        assert!(read(&head).bytes() <= bound);
    }

    #[test]
    fn processes_that_come_and_go_do_not_grow_memory() {
        let (head, mut maker) = (RwLock::new(Head::new(3_600_000)), SeriesMaker::default());
        let mut held = Vec::new();
        // Six hours of 5 hosts with 20 new processes a minute each; an hour is kept.
        for minute in 0..6 * 60i64 {
            for n in 0..100 {
                let pid = (minute * 100 + n).to_string();
                push(&mut write(&head), &mut maker, &pid, minute * 60_000, 7);
            }
            drop_before(&head, &mut maker.interner, (minute - 60) * 60_000);
            held.push(read(&head).bytes());
        }
        assert_eq!(read(&head).len(), 61 * 100);
        let (early, late) = (held[120], held.iter().skip(120).max().unwrap());
        assert!(*late <= early + early / 4, "{early} bytes after two hours, {late} later");
    }

    #[test]
    fn counted_bytes_return_to_nothing_with_the_last_series() {
        let (head, mut maker) = filled(50, 300);
        drop_before(&head, &mut maker.interner, i64::MAX);
        let head = read(&head);
        assert_eq!((head.len(), head.samples(), head.sample_bytes()), (0, 0, 0));
        assert_eq!((head.oldest_ms(), head.newest_ms()), (None, None));
        assert!(head.bytes() < 1000, "{}", head.bytes());
    }
}
