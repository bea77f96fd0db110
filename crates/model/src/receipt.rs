//! Receipts: how a source learns what became of its batch.
//!
//! One receipt per source batch, settled once. Splitting it for a fan-out waits for all parts and
//! the worst verdict wins; dropping it unsettled counts as [`Verdict::Retry`], so a panic or a
//! forgotten path can never lose data. "Dropped on purpose" is an explicit verdict with a counter.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

/// What became of a batch; the larger one wins when parts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Every destination has it, or it was left out on purpose and counted.
    Delivered,
    /// A destination refused it for good; the source need not send it again.
    Refused,
    /// It may not have arrived: the source must send it again.
    Retry,
}

impl Verdict {
    fn from_rank(rank: u8) -> Self {
        match rank {
            0 => Verdict::Delivered,
            1 => Verdict::Refused,
            _ => Verdict::Retry,
        }
    }
}

/// What a source hears in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The worst verdict of all parts.
    pub verdict: Verdict,
    /// How many records the strictest destination refused for good. Where batches of several
    /// sources travelled as one, this may count records of the others: bound it by your own.
    pub refused_records: u64,
    /// Why, in the words of that destination.
    pub reason: Option<String>,
}

type Done = Box<dyn FnOnce(Settled) + Send + Sync>;

struct Shared {
    worst: AtomicU8,
    refused: Mutex<Option<(u64, String)>>,
    withdrawn: Arc<AtomicBool>,
    done: Option<Done>,
}

impl Drop for Shared {
    // The last part to be settled or dropped tells the source.
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            let refused = self.refused.get_mut().map(Option::take).unwrap_or_default();
            let (refused_records, reason) = refused.map_or((0, None), |(records, why)| (records, Some(why)));
            done(Settled { verdict: Verdict::from_rank(*self.worst.get_mut()), refused_records, reason });
        }
    }
}

/// One part of a source's claim to know what became of its batch.
#[must_use = "dropping a receipt tells the source to send its batch again"]
pub struct Receipt {
    parts: Vec<Arc<Shared>>,
    settled: bool,
}

/// The source's side of a receipt: lets it say that it no longer waits.
#[derive(Clone, Debug)]
pub struct Claim {
    withdrawn: Arc<AtomicBool>,
}

impl Claim {
    /// The source gave up waiting and will send the batch again: whoever still holds it need not
    /// deliver it, so that an outage does not fill the queues with copies.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
    }
}

impl Receipt {
    /// A receipt that calls `done` once with the worst verdict of all its parts.
    pub fn new(done: impl FnOnce(Settled) + Send + Sync + 'static) -> Self {
        Self::with_claim(done).0
    }

    /// A receipt, and the handle with which its source can withdraw.
    pub fn with_claim(done: impl FnOnce(Settled) + Send + Sync + 'static) -> (Self, Claim) {
        let withdrawn = Arc::new(AtomicBool::new(false));
        let shared = Shared {
            worst: AtomicU8::new(0),
            refused: Mutex::new(None),
            withdrawn: withdrawn.clone(),
            done: Some(Box::new(done)),
        };
        (Self { parts: vec![Arc::new(shared)], settled: false }, Claim { withdrawn })
    }

    /// A receipt of which nobody hears the end, and the handle with which its source can still withdraw
    /// the batch: it was told that its batch was taken already.
    pub fn unheard() -> (Self, Claim) {
        let withdrawn = Arc::new(AtomicBool::new(false));
        let shared =
            Shared { worst: AtomicU8::new(0), refused: Mutex::new(None), withdrawn: withdrawn.clone(), done: None };
        (Self { parts: vec![Arc::new(shared)], settled: false }, Claim { withdrawn })
    }

    /// A receipt that nobody waits for: the source cannot send again (a poll of the machine).
    pub fn unclaimed() -> Self {
        Self { parts: Vec::new(), settled: false }
    }

    /// Another part for a fan-out; the source hears when all parts are settled.
    pub fn split(&self) -> Receipt {
        Receipt { parts: self.parts.clone(), settled: false }
    }

    /// One receipt for several batches that travel on as one; settling it settles all.
    pub fn merge(receipts: impl IntoIterator<Item = Receipt>) -> Receipt {
        let mut parts = Vec::new();
        for mut receipt in receipts {
            receipt.settled = true;
            parts.append(&mut receipt.parts);
        }
        Receipt { parts, settled: false }
    }

    /// Says what became of this part.
    pub fn settle(mut self, verdict: Verdict) {
        self.put(verdict);
    }

    /// Says that a destination refused records of this part for good, and why.
    pub fn refuse(mut self, records: u64, why: &str) {
        for part in &self.parts {
            // A poisoned lock means that a thread died while writing two words: the verdict stands.
            if let Ok(mut refused) = part.refused.lock()
                && refused.as_ref().is_none_or(|(most, _)| *most < records)
            {
                *refused = Some((records, why.to_owned()));
            }
        }
        self.put(Verdict::Refused);
    }

    /// Whether every source behind this receipt gave up waiting and will send again. Never true
    /// for an unclaimed receipt.
    pub fn is_withdrawn(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.withdrawn.load(Ordering::Acquire))
    }

    /// Whether every source behind this receipt hears what becomes of its batch, and can act on it.
    pub fn is_claimed(&self) -> bool {
        !self.parts.is_empty() && self.parts.iter().all(|part| part.done.is_some())
    }

    fn put(&mut self, verdict: Verdict) {
        if !self.settled {
            self.settled = true;
            for part in &self.parts {
                part.worst.fetch_max(verdict as u8, Ordering::AcqRel);
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.put(Verdict::Retry);
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt").field("sources", &self.parts.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Heard = Arc<Mutex<Vec<Verdict>>>;

    fn receipt() -> (Receipt, Heard) {
        let heard: Heard = Arc::default();
        let sink = heard.clone();
        (Receipt::new(move |verdict| sink.lock().unwrap().push(verdict.verdict)), heard)
    }

    fn heard(heard: &Heard) -> Vec<Verdict> {
        heard.lock().unwrap().clone()
    }

    #[test]
    fn a_source_hears_its_verdict_exactly_once() {
        let (receipt, said) = receipt();
        receipt.settle(Verdict::Delivered);
        assert_eq!(heard(&said), [Verdict::Delivered]);
    }

    #[test]
    fn dropping_an_unsettled_receipt_means_retry() {
        let (receipt, said) = receipt();
        drop(receipt);
        assert_eq!(heard(&said), [Verdict::Retry]);
    }

    #[test]
    fn a_panic_while_holding_a_receipt_means_retry() {
        let (receipt, said) = receipt();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = receipt;
            panic!("an exporter's bug");
        }));
        assert!(result.is_err());
        assert_eq!(heard(&said), [Verdict::Retry]);
    }

    #[test]
    fn a_fan_out_waits_for_all_and_the_worst_wins_in_any_order() {
        use Verdict::{Delivered, Refused, Retry};
        for (first, second, worst) in [
            (Delivered, Delivered, Delivered),
            (Delivered, Refused, Refused),
            (Refused, Delivered, Refused),
            (Retry, Refused, Retry),
            (Refused, Retry, Retry),
        ] {
            let (receipt, said) = receipt();
            let other = receipt.split();
            receipt.settle(first);
            assert!(heard(&said).is_empty(), "must wait for the second part");
            other.settle(second);
            assert_eq!(heard(&said), [worst]);
        }
    }

    #[test]
    fn a_refusal_names_the_most_refused_records_and_the_reason() {
        let said: Arc<Mutex<Option<Settled>>> = Arc::default();
        let sink = said.clone();
        let receipt = Receipt::new(move |settled| *sink.lock().unwrap() = Some(settled));
        let (other, third) = (receipt.split(), receipt.split());
        receipt.refuse(2, "too old");
        other.refuse(5, "no name");
        third.settle(Verdict::Delivered);
        let expected = Settled { verdict: Verdict::Refused, refused_records: 5, reason: Some("no name".into()) };
        assert_eq!(said.lock().unwrap().take(), Some(expected));
    }

    #[test]
    fn settling_a_merged_receipt_settles_every_source() {
        let ((a, a_said), (b, b_said)) = (receipt(), receipt());
        let merged = Receipt::merge([a, b]);
        assert!(heard(&a_said).is_empty() && heard(&b_said).is_empty());
        merged.settle(Verdict::Refused);
        assert_eq!(heard(&a_said), [Verdict::Refused]);
        assert_eq!(heard(&b_said), [Verdict::Refused]);
    }

    #[test]
    fn dropping_a_merged_receipt_means_retry_for_every_source() {
        let ((a, a_said), (b, b_said)) = (receipt(), receipt());
        drop(Receipt::merge([a, b]));
        assert_eq!(heard(&a_said), [Verdict::Retry]);
        assert_eq!(heard(&b_said), [Verdict::Retry]);
    }

    #[test]
    fn merged_parts_count_as_withdrawn_only_when_every_source_withdrew() {
        let (a, claim_a) = Receipt::with_claim(|_| {});
        let (b, claim_b) = Receipt::with_claim(|_| {});
        let merged = Receipt::merge([a, b]);
        claim_a.withdraw();
        assert!(!merged.is_withdrawn());
        claim_b.withdraw();
        assert!(merged.is_withdrawn());
        assert!(!Receipt::unclaimed().is_withdrawn());
        merged.settle(Verdict::Retry);
    }

    #[test]
    fn only_a_receipt_whose_end_every_source_hears_is_claimed() {
        let (claimed, said) = receipt();
        assert!(claimed.is_claimed() && claimed.split().is_claimed());
        assert!(!Receipt::unclaimed().is_claimed());
        let (unheard, claim) = Receipt::unheard();
        assert!(!unheard.is_claimed());
        claim.withdraw();
        assert!(unheard.is_withdrawn(), "it can be withdrawn all the same");
        let merged = Receipt::merge([claimed, unheard]);
        assert!(!merged.is_claimed(), "one of the two would never hear of a refusal");
        merged.settle(Verdict::Delivered);
        assert_eq!(heard(&said), [Verdict::Retry], "the split that was dropped");
    }

    #[test]
    fn parts_settled_on_many_threads_are_heard_once() {
        let (receipt, said) = receipt();
        std::thread::scope(|scope| {
            for at in 0..8 {
                let part = receipt.split();
                scope.spawn(move || part.settle(if at == 3 { Verdict::Refused } else { Verdict::Delivered }));
            }
            receipt.settle(Verdict::Delivered);
        });
        assert_eq!(heard(&said), [Verdict::Refused]);
    }
}
