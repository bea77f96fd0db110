//! Finds the records that a backend refuses where its answer does not say which: the delivery is halved
//! until single records are left, and the good halves are delivered.
//!
//! What is wrong with one record is not wrong with the others; what is wrong with all of them (a wrong
//! path, a table that is not there) would cost two requests per record. So after [`MOST_REFUSALS`] refusals
//! without a single acceptance the pieces that are left are sent once more each, whole. If all of them
//! are refused too, the answer was meant for all; if one is taken, the search goes on.

use std::collections::VecDeque;

/// Refusals without an acceptance after which pieces are not halved any more.
pub const MOST_REFUSALS: u32 = 32;

/// The pieces of one delivery, and why those were refused of which it is not known yet what to do.
#[derive(Debug)]
pub struct Bisection<Piece, Why> {
    waiting: VecDeque<Piece>,
    suspects: Vec<(Piece, Why)>,
    refusals: u32,
    is_any_taken: bool,
}

impl<Piece, Why> Bisection<Piece, Why> {
    /// A delivery in one piece.
    pub fn new(whole: Piece) -> Self {
        Self { waiting: VecDeque::from([whole]), suspects: Vec::new(), refusals: 0, is_any_taken: false }
    }

    /// The next piece to send: in the order of the records.
    pub fn next(&mut self) -> Option<Piece> {
        self.waiting.pop_front()
    }

    /// Whether the backend took anything of this delivery.
    pub fn is_any_taken(&self) -> bool {
        self.is_any_taken
    }

    /// The backend took something: so what it refused before was not meant for all.
    pub fn taken(&mut self) {
        self.is_any_taken = true;
        self.waiting.extend(self.suspects.drain(..).map(|(piece, _)| piece));
    }

    /// A piece was refused. Gives it back if it is refused for good; else its halves, which `halve`
    /// makes where there are two, are sent.
    pub fn refused(
        &mut self,
        piece: Piece,
        why: Why,
        halve: impl FnOnce(Piece) -> Result<(Piece, Piece), Piece>,
    ) -> Option<(Piece, Why)> {
        self.refusals = self.refusals.saturating_add(1);
        self.halved(piece, why, halve)
    }

    /// A piece was too large. As [`Bisection::refused`], but halves of it may well be taken: only what
    /// cannot be halved counts as a refusal.
    pub fn too_large(
        &mut self,
        piece: Piece,
        why: Why,
        halve: impl FnOnce(Piece) -> Result<(Piece, Piece), Piece>,
    ) -> Option<(Piece, Why)> {
        let refused = self.halved(piece, why, halve);
        self.refusals = self.refusals.saturating_add(u32::from(refused.is_some()));
        refused
    }

    fn halved(
        &mut self,
        piece: Piece,
        why: Why,
        halve: impl FnOnce(Piece) -> Result<(Piece, Piece), Piece>,
    ) -> Option<(Piece, Why)> {
        if self.refusals >= MOST_REFUSALS && !self.is_any_taken {
            self.suspects.push((piece, why));
            return None;
        }
        match halve(piece) {
            Ok((first, second)) => {
                self.waiting.push_front(second);
                self.waiting.push_front(first);
                None
            }
            Err(piece) => Some((piece, why)),
        }
    }

    /// What is refused for good at the end, because nothing was taken.
    pub fn into_suspects(self) -> Vec<(Piece, Why)> {
        self.suspects
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn halve(piece: Range<u32>) -> Result<(Range<u32>, Range<u32>), Range<u32>> {
        let middle = piece.start + (piece.end - piece.start) / 2;
        if piece.len() < 2 { Err(piece) } else { Ok((piece.start..middle, middle..piece.end)) }
    }

    /// Requests, what was taken in order, and what was refused.
    fn search(records: u32, is_bad: impl Fn(u32) -> bool) -> (u32, Vec<u32>, Vec<u32>) {
        let (mut requests, mut taken, mut refused) = (0, Vec::new(), Vec::new());
        let mut pieces = Bisection::new(0..records);
        while let Some(piece) = pieces.next() {
            requests += 1;
            if piece.clone().any(&is_bad) {
                refused.extend(pieces.refused(piece, (), halve).into_iter().flat_map(|(piece, ())| piece));
            } else {
                pieces.taken();
                taken.extend(piece);
            }
        }
        refused.extend(pieces.into_suspects().into_iter().flat_map(|(piece, ())| piece));
        (requests, taken, refused)
    }

    #[test]
    fn exactly_the_bad_records_are_refused_and_the_good_ones_stay_in_order() {
        let (requests, taken, refused) = search(1000, |record| record % 333 == 7);
        assert_eq!(refused, [7, 340, 673]);
        assert!(taken.is_sorted() && taken.len() == 997);
        assert!(requests < 80, "{requests}");
    }

    #[test]
    fn many_bad_records_at_the_beginning_do_not_condemn_the_good_ones_after_them() {
        for bad in [1, 20, 33, 100, 4000] {
            let (_, taken, refused) = search(8192, |record| record < bad);
            assert_eq!((refused.len(), taken.len()), (bad as usize, 8192 - bad as usize), "of {bad}");
        }
    }

    #[test]
    fn an_answer_that_is_meant_for_all_does_not_cost_a_request_per_record() {
        let (requests, taken, refused) = search(8192, |_| true);
        assert_eq!((taken.len(), refused.len()), (0, 8192));
        assert!(requests <= MOST_REFUSALS + 13, "{requests}");
    }

    #[test]
    fn a_backend_that_calls_everything_too_large_is_asked_a_bounded_number_of_times() {
        let (mut requests, mut refused) = (0, 0);
        let mut pieces = Bisection::new(0..4096);
        while let Some(piece) = pieces.next() {
            requests += 1;
            refused += pieces.too_large(piece, (), halve).map_or(0, |(piece, ())| piece.len());
        }
        refused += pieces.into_suspects().iter().map(|(piece, ())| piece.len()).sum::<usize>();
        assert_eq!(refused, 4096);
        assert!(requests <= 3 * MOST_REFUSALS, "{requests}");
    }
}
