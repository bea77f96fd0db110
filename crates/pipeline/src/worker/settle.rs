//! From positions in a delivery to the parts that travelled in it.

use std::collections::BTreeMap;

use crate::outcome::Refused;
use crate::worker::part::{Because, Part, Refusal};

/// The backend took some records and refused others. What a backend names twice is refused once.
pub fn settle_partly(parts: Vec<Part>, refused: &Refused, because: &Because, keeps: bool) -> Vec<Refusal> {
    let at = match refused {
        Refused::Count(count) => return settle_count(parts, *count, because),
        Refused::Records(at) => at.iter().map(|at| (*at, because.why.clone())).collect(),
    };
    settle_each(parts, at, Vec::new(), because, keeps).0
}

/// The backend says only how many it refused.
fn settle_count(parts: Vec<Part>, count: u64, because: &Because) -> Vec<Refusal> {
    let shares = spread(count, &parts.iter().map(Part::records).collect::<Vec<_>>());
    let mut refusals = Vec::new();
    for (part, share) in parts.into_iter().zip(shares) {
        match share {
            0 => part.delivered(),
            _ => refusals.push(part.partly_refused(share, because)),
        }
    }
    refusals
}

/// Shares of `count` in proportion to the sizes, none larger than its size.
fn spread(count: u64, sizes: &[u64]) -> Vec<u64> {
    let total: u64 = sizes.iter().sum();
    let count = count.min(total);
    let share = |size: &u64| {
        let share = u128::from(count) * u128::from(*size) / u128::from(total.max(1));
        u64::try_from(share).unwrap_or(*size).min(*size)
    };
    let mut shares: Vec<u64> = sizes.iter().map(share).collect();
    // Rounding leaves less than one for each.
    let mut rest = count.saturating_sub(shares.iter().sum());
    for (share, size) in shares.iter_mut().zip(sizes) {
        let more = u64::from(*share < *size).min(rest);
        (*share, rest) = (*share + more, rest - more);
    }
    shares
}

/// Settles what the backend took; gives what it refused, and what is left to be sent again. A record
/// that a backend names twice is settled once, and one that was not sent is not there.
pub fn settle_each(
    parts: Vec<Part>,
    mut refused: Vec<(u32, String)>,
    mut later: Vec<u32>,
    because: &Because,
    keeps: bool,
) -> (Vec<Refusal>, Vec<Part>) {
    // Stable: the first reason of a record counts.
    refused.sort_by_key(|(at, _)| *at);
    refused.dedup_by_key(|(at, _)| *at);
    later.retain(|at| refused.binary_search_by_key(at, |(at, _)| *at).is_err());
    later.sort_unstable();
    later.dedup();
    let (mut refused, mut later) = (refused.iter().peekable(), later.into_iter().peekable());
    let (mut refusals, mut left, mut start) = (Vec::new(), Vec::new(), 0_u64);
    for part in parts {
        let end = start + part.records();
        // Below the number of records of one part.
        let within = |at: u32| usize::try_from(u64::from(at) - start).unwrap_or(usize::MAX);
        let mut own_refused = Vec::new();
        while let Some((at, why)) = refused.next_if(|(at, _)| u64::from(*at) < end) {
            own_refused.push((within(*at), why.as_str()));
        }
        let mut own_later = Vec::new();
        while let Some(at) = later.next_if(|at| u64::from(*at) < end) {
            own_later.push(within(at));
        }
        let (refused, again) = part.settle_each(&own_refused, &own_later, because, keeps);
        refusals.extend(refused);
        left.extend(again);
        start = end;
    }
    (refusals, left)
}

/// How many records of which sort, for a line in the log.
pub fn reasons(refusals: &[Refusal]) -> String {
    let mut reasons = BTreeMap::<&str, u64>::new();
    for refusal in refusals {
        *reasons.entry(&refusal.because.why).or_default() += refusal.records();
    }
    let records: u64 = reasons.values().sum();
    let first = reasons.iter().max_by_key(|(_, records)| **records).map_or("", |(why, _)| *why);
    match reasons.len() {
        0 | 1 => format!("{records} records are refused for good: {first}"),
        others => format!("{records} records are refused for good, for {others} reasons: {first}, ..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_refused_records_is_spread_in_proportion_and_exactly() {
        assert_eq!(spread(5, &[10, 10]), [3, 2]);
        assert_eq!(spread(1, &[3, 3, 3]), [1, 0, 0]);
        assert_eq!(spread(7, &[0, 1, 90, 9]), [0, 1, 6, 0]);
        assert_eq!(spread(1000, &[4, 6]), [4, 6]);
        assert_eq!(spread(3, &[]), [0_u64; 0]);
        for count in 0..40 {
            let sizes = [1, 7, 0, 20, 3];
            let shares = spread(count, &sizes);
            assert_eq!(shares.iter().sum::<u64>(), count.min(31));
            assert!(shares.iter().zip(sizes).all(|(share, size)| *share <= size));
        }
    }
}
