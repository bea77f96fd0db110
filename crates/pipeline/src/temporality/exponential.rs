//! Arithmetic of exponential buckets (OpenTelemetry data model, "Exponential Scale" and
//! "Exponential Buckets"): bucket `i` of scale `s` lies in bucket `i >> 1` of scale `s - 1`.

use std::borrow::Cow;

use weir_model::metrics::{Buckets, ExponentialPoint};

/// Most buckets of each sign that a sum of deltas holds; beyond, its resolution is halved. Twice
/// what SDKs keep by default (160), so that what one SDK sends always fits.
const MAX_BUCKETS: i64 = 320;

/// Buckets at a scale that is not finer than theirs.
pub(super) fn downscale(buckets: &Option<Buckets>, from: i32, to: i32) -> Option<Cow<'_, Buckets>> {
    let buckets = buckets.as_ref()?;
    let shift = shift(from, to);
    if shift == 0 {
        return Some(Cow::Borrowed(buckets));
    }
    let offset = buckets.offset >> shift.min(31);
    let mut counts: Vec<u64> = Vec::new();
    for (index, count) in indexed(buckets) {
        // Never before the offset, because indices grow.
        let at = usize::try_from((index >> shift) - i64::from(offset)).unwrap_or(0);
        if counts.len() <= at {
            counts.resize(at + 1, 0);
        }
        if let Some(slot) = counts.get_mut(at) {
            *slot = slot.saturating_add(count);
        }
    }
    Some(Cow::Owned(Buckets { offset, counts }))
}

/// `now - before` at the same scale; `None` where a bucket fell.
pub(super) fn subtract(now: Option<Cow<'_, Buckets>>, before: Option<Cow<'_, Buckets>>) -> Option<Option<Buckets>> {
    let Some(before) = before else { return Some(now.map(Cow::into_owned)) };
    let mut left = now.map(Cow::into_owned);
    for (index, count) in indexed(&before).filter(|&(_, count)| count > 0) {
        let slot = left.as_mut().and_then(|left| slot(left, index))?;
        *slot = slot.checked_sub(count)?;
    }
    Some(left)
}

/// The sum of both at the same scale.
pub(super) fn add(a: Option<Cow<'_, Buckets>>, b: Option<Cow<'_, Buckets>>) -> Option<Buckets> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (one, other) => return one.or(other).map(Cow::into_owned),
    };
    let Some((low, high)) = union(span(&a), span(&b)) else { return Some(a.into_owned()) };
    let offset = i32::try_from(low).unwrap_or(i32::MAX);
    let length = usize::try_from(high - low + 1).unwrap_or(0);
    let mut sum = Buckets { offset, counts: vec![0; length] };
    for (index, count) in indexed(&a).chain(indexed(&b)) {
        if let Some(slot) = slot(&mut sum, index) {
            *slot = slot.saturating_add(count);
        }
    }
    Some(sum)
}

/// The finest scale at which the sum of both has at most [`MAX_BUCKETS`] of each sign; `None` where
/// there is none (a scale that no SDK sends).
pub(super) fn fitting_scale(a: &ExponentialPoint, b: &ExponentialPoint) -> Option<i32> {
    let mut scale = a.scale.min(b.scale);
    let signs = [(&a.positive, &b.positive), (&a.negative, &b.negative)];
    for (of_a, of_b) in signs {
        let at = |buckets: &Option<Buckets>, from: i32| {
            let (low, high) = span(buckets.as_ref()?)?;
            let shift = shift(from, scale);
            Some((low >> shift, high >> shift))
        };
        let Some((mut low, mut high)) = union(at(of_a, a.scale), at(of_b, b.scale)) else { continue };
        while high - low >= MAX_BUCKETS {
            (low, high) = (low >> 1, high >> 1);
            scale = scale.checked_sub(1)?;
        }
    }
    Some(scale)
}

/// How many bits of an index go. Indices have 33 bits at most, so 63 makes them 0 or -1.
fn shift(from: i32, to: i32) -> u32 {
    u32::try_from(i64::from(from) - i64::from(to)).unwrap_or(0).min(63)
}

fn indexed(buckets: &Buckets) -> impl Iterator<Item = (i64, u64)> + '_ {
    (i64::from(buckets.offset)..).zip(buckets.counts.iter().copied())
}

/// The first and the last index that count something.
fn span(buckets: &Buckets) -> Option<(i64, i64)> {
    let mut used = indexed(buckets).filter(|&(_, count)| count > 0).map(|(index, _)| index);
    let low = used.next()?;
    Some((low, used.last().unwrap_or(low)))
}

fn union(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}

fn slot(buckets: &mut Buckets, index: i64) -> Option<&mut u64> {
    let at = usize::try_from(index - i64::from(buckets.offset)).ok()?;
    buckets.counts.get_mut(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(offset: i32, counts: &[u64]) -> Option<Buckets> {
        Some(Buckets { offset, counts: counts.to_vec() })
    }

    fn owned(buckets: &Option<Buckets>, from: i32, to: i32) -> Option<Buckets> {
        downscale(buckets, from, to).map(Cow::into_owned)
    }

    #[test]
    fn halving_the_resolution_merges_neighbours_by_floor() {
        // Indices -3, -2, -1, 0, 1 become -2, -1, -1, 0, 0.
        assert_eq!(owned(&buckets(-3, &[1, 2, 3, 4, 5]), 4, 3), buckets(-2, &[1, 5, 9]));
        assert_eq!(owned(&buckets(-3, &[1, 2, 3, 4, 5]), 4, 4), buckets(-3, &[1, 2, 3, 4, 5]));
        assert_eq!(owned(&None, 4, 3), None);
    }

    #[test]
    fn scales_and_offsets_at_the_ends_of_their_types_neither_panic_nor_fill_the_memory() {
        let far = ExponentialPoint { scale: i32::MAX, positive: buckets(i32::MAX, &[1, 1]), ..Default::default() };
        let near = |scale| ExponentialPoint { scale, positive: buckets(i32::MIN, &[1]), ..Default::default() };
        assert_eq!(fitting_scale(&far, &near(i32::MIN)), None, "nothing is coarser");
        let near = near(i32::MIN + 64);
        let scale = fitting_scale(&far, &near).expect("64 times coarser is enough");
        let sum = add(downscale(&far.positive, far.scale, scale), downscale(&near.positive, near.scale, scale));
        let sum = sum.expect("both have buckets");
        assert!(sum.counts.len() <= MAX_BUCKETS as usize);
        assert_eq!(sum.counts.iter().sum::<u64>(), 3);
    }

    #[test]
    fn a_bucket_that_fell_or_vanished_has_no_difference() {
        let at = |b: &Option<Buckets>| b.clone().map(Cow::Owned);
        assert_eq!(subtract(at(&buckets(0, &[1])), at(&buckets(0, &[2]))), None);
        assert_eq!(subtract(at(&buckets(0, &[1])), at(&buckets(5, &[2]))), None);
        assert_eq!(subtract(None, at(&buckets(0, &[2]))), None);
        assert_eq!(subtract(None, at(&buckets(0, &[0, 0]))), Some(None));
        assert_eq!(subtract(at(&buckets(0, &[3, 4])), at(&buckets(1, &[1]))), Some(buckets(0, &[3, 3])));
    }

    fn any_buckets() -> impl Strategy<Value = Option<Buckets>> {
        proptest::option::of((-2000_i32..2000, proptest::collection::vec(0_u64..5, 0..40)))
            .prop_map(|given| given.map(|(offset, counts)| Buckets { offset, counts }))
    }

    /// Counts by index without the empty buckets, at a coarser scale: computed the slow way.
    fn by_index(buckets: &Option<Buckets>, shift: u32) -> std::collections::BTreeMap<i64, u64> {
        let mut out = std::collections::BTreeMap::new();
        for (at, count) in
            buckets.iter().flat_map(|b| b.counts.iter().enumerate().map(|(i, c)| (b.offset as i64 + i as i64, *c)))
        {
            if count > 0 {
                *out.entry(at.div_euclid(1 << shift)).or_default() += count;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn sums_hold_every_value_of_both_and_their_difference_gives_one_back(
            a in any_buckets(), b in any_buckets(), a_scale in -4_i32..8, b_scale in -4_i32..8,
        ) {
            let point = |positive: &Option<Buckets>, scale| ExponentialPoint { scale, positive: positive.clone(), ..Default::default() };
            let scale = fitting_scale(&point(&a, a_scale), &point(&b, b_scale)).expect("scales are moderate");
            let (a_shift, b_shift) = ((a_scale - scale) as u32, (b_scale - scale) as u32);
            let sum = add(downscale(&a, a_scale, scale), downscale(&b, b_scale, scale));
            let mut expected = by_index(&a, a_shift);
            for (at, count) in by_index(&b, b_shift) {
                *expected.entry(at).or_default() += count;
            }
            prop_assert_eq!(by_index(&sum, 0), expected);
            let back = subtract(sum.map(Cow::Owned), downscale(&a, a_scale, scale)).expect("nothing fell");
            prop_assert_eq!(by_index(&back, 0), by_index(&b, b_shift));
        }
    }
}
