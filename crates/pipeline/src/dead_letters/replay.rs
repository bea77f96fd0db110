//! Sending dead letters once more.

use std::io;

use futures_util::future::join_all;

use crate::dead_letters::letter::{Id, Kept, Selection};
use crate::dead_letters::tables::{self, Outcome};
use crate::dead_letters::{Blocking, DeadLetters};

/// What became of a letter that was sent once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its records are as safe as with any source: the backend has them, or a queue on disk. The
    /// letter is removed.
    Delivered,
    /// They were refused again. The letter stays, with this reason.
    Refused {
        /// Why, in one line.
        reason: String,
    },
    /// They could not be sent. The letter stays as it is.
    Failed {
        /// Why, in one line.
        reason: String,
    },
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that were delivered and removed.
    pub done: u64,
    /// Letters of the selection that are still there.
    pub left: u64,
    /// Of those left, the ones that were refused again.
    pub refused: u64,
    /// Why one was left, in one line: the last reason heard.
    pub reason: Option<String>,
}

impl DeadLetters {
    /// Sends letters once more, oldest first, some at a time, each of them once: what is refused again
    /// while it runs, or comes new, waits for the next replay. Where none of those sent at a time could
    /// be sent at all it ends early.
    ///
    /// Letters are removed after `send` said that they were delivered, so a crash in between sends
    /// them again. A letter whose records came back meanwhile ([`DeadLetters::keep`] from the source
    /// [`crate::ledger::DEAD_LETTERS`]) stays; one whose records come back later has its source, its
    /// first time and its `times` again.
    ///
    /// Where a letter holds records that the backend may have taken before (`of` > `records`), all of
    /// them are sent.
    ///
    /// # Errors
    /// Those of the disk, or that another process has the file open; what was delivered until then
    /// may be sent again.
    pub async fn replay<F, Fut>(&self, selection: Selection, send: F) -> io::Result<Replayed>
    where
        F: Fn(Kept) -> Fut,
        Fut: Future<Output = Sent>,
    {
        // Two at a time would send everything twice.
        let _alone = self.replaying.lock().await;
        let until = self.run(Blocking::newest).await?;
        let mut replayed = Replayed::default();
        let mut after = Some(Id::FIRST);
        while let Some(from) = after {
            let wanted = selection.clone();
            let (letters, next) = self.run(move |blocking| blocking.page(&wanted, from, until)).await?;
            after = next;
            let handed_out: Vec<(Id, u64)> =
                letters.iter().map(|letter| (letter.summary.id, letter.summary.times)).collect();
            let sent = join_all(letters.into_iter().map(&send)).await;
            let none_sent = !sent.is_empty() && sent.iter().all(|sent| matches!(sent, Sent::Failed { .. }));
            self.settle(handed_out, sent, &mut replayed).await?;
            if none_sent && let Some(from) = after.take() {
                let wanted = selection.clone();
                replayed.left += self.run(move |blocking| blocking.count(&wanted, from, until)).await?;
            }
        }
        Ok(replayed)
    }

    /// Writes down what became of some letters, in one transaction.
    async fn settle(&self, letters: Vec<(Id, u64)>, sent: Vec<Sent>, replayed: &mut Replayed) -> io::Result<()> {
        let mut outcomes = Vec::with_capacity(letters.len());
        for ((id, times), sent) in letters.into_iter().zip(sent) {
            match sent {
                Sent::Delivered => outcomes.push((id, times, Outcome::Delivered)),
                Sent::Refused { reason } => {
                    replayed.reason = Some(reason.clone());
                    outcomes.push((id, times, Outcome::Refused(reason)));
                }
                Sent::Failed { reason } => {
                    replayed.left += 1;
                    replayed.reason = Some(reason);
                }
            }
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        let all = outcomes.len() as u64;
        let gone = self.run(move |blocking| blocking.settle(&outcomes)).await?;
        replayed.done += gone;
        replayed.refused += all.saturating_sub(gone);
        replayed.left += all.saturating_sub(gone);
        Ok(())
    }
}

impl Blocking {
    /// Settles letters that were handed out; gives how many are gone.
    fn settle(&self, outcomes: &[(Id, u64, Outcome)]) -> io::Result<u64> {
        let now_ms = (self.0.clock_ms)();
        let gone = self.0.store.write(false, |tables| {
            let mut gone = 0;
            for (id, times, outcome) in outcomes {
                gone += u64::from(tables.settle(*id, *times, outcome, now_ms)?);
            }
            Ok(gone)
        })?;
        Ok(gone.unwrap_or(outcomes.len() as u64))
    }

    /// How many letters of a selection lie behind `after` and up to `until`.
    fn count(&self, selection: &Selection, after: Id, until: Id) -> io::Result<u64> {
        Ok(self.0.store.read(|transaction| tables::count(transaction, selection, after, until))?.unwrap_or_default())
    }
}
