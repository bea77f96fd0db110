//! Batches on their way into the pipeline: several at once, and none before another that was read
//! before it.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Sleep;
use weir_model::Payload;
use weir_pipeline::{Answer, Intake};

/// Hands a batch in, once.
type Offer = Box<dyn Fn(Payload) -> BoxFuture<'static, Answer> + Send>;

/// Batches that are under way, with what is to be remembered once they are taken.
///
/// A batch that is not taken is offered again later. What was read after it is withdrawn meanwhile
/// and goes behind it, so that it arrives in order, apart from what was taken in the same moment.
pub(crate) struct Window<P> {
    offer: Offer,
    name: Arc<str>,
    attempts: VecDeque<Attempt<P>>,
    /// When what waits is offered again.
    again: Option<Pin<Box<Sleep>>>,
    /// After a batch was not taken they are offered one by one, until one is.
    one_by_one: bool,
    is_closed: bool,
}

struct Attempt<P> {
    /// Until they are taken.
    logs: Option<Payload>,
    positions: P,
    state: State,
}

enum State {
    /// It is to be offered (again) when those before it are taken.
    Waits,
    Offered(BoxFuture<'static, Answer>),
    Taken,
}

impl<P: Unpin> Window<P> {
    /// A window into the pipeline, for the instance `name`.
    pub(crate) fn new(intake: Intake, name: Arc<str>) -> Self {
        let offer = move |logs| -> BoxFuture<'static, Answer> {
            let intake = intake.clone();
            Box::pin(async move { intake.offer(logs).await })
        };
        Self::with(Box::new(offer), name)
    }

    fn with(offer: Offer, name: Arc<str>) -> Self {
        Window { offer, name, attempts: VecDeque::new(), again: None, one_by_one: false, is_closed: false }
    }

    /// How many batches are under way.
    pub(crate) fn len(&self) -> usize {
        self.attempts.len()
    }

    /// Whether a batch waits because it was not taken.
    pub(crate) fn is_full(&self) -> bool {
        self.attempts.iter().any(|attempt| matches!(attempt.state, State::Waits))
    }

    /// Adds a batch. Without records only the order of its positions counts.
    pub(crate) fn push(&mut self, logs: Option<Payload>, positions: P) {
        let state = match &logs {
            None => State::Taken,
            Some(_) if self.is_full() => State::Waits,
            Some(logs) => State::Offered((self.offer)(logs.clone())),
        };
        self.attempts.push_back(Attempt { logs, positions, state });
    }

    /// What was not taken is not offered again; what is under way still gets its answer.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// The positions of the oldest batch, once it is taken, and of those behind it that are taken too, in
    /// order. `None` if there is none or, when closed, if it was not taken. It may be dropped at any time.
    pub(crate) async fn next(&mut self) -> Option<Vec<P>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<P>>> {
        if self.again.as_mut().is_some_and(|again| again.as_mut().poll(context).is_ready()) {
            self.again = None;
        }
        self.poll_attempts(context);
        match self.attempts.front().map(|attempt| &attempt.state) {
            Some(State::Taken) => {
                let taken = self.attempts.iter().take_while(|attempt| matches!(attempt.state, State::Taken)).count();
                Poll::Ready(Some(self.attempts.drain(..taken).map(|attempt| attempt.positions).collect()))
            }
            None => Poll::Ready(None),
            Some(State::Waits) if self.is_closed => Poll::Ready(None),
            Some(_) => Poll::Pending,
        }
    }

    /// Offers and asks, in order.
    fn poll_attempts(&mut self, context: &mut Context<'_>) {
        for at in 0..self.attempts.len() {
            let Some(Attempt { logs, state, .. }) = self.attempts.get_mut(at) else { return };
            if matches!(state, State::Waits) {
                if self.is_closed || self.again.is_some() {
                    return;
                }
                *state = logs.clone().map_or(State::Taken, |logs| State::Offered((self.offer)(logs)));
            }
            let State::Offered(offered) = state else { continue };
            match offered.as_mut().poll(context) {
                Poll::Pending if self.one_by_one => return,
                Poll::Pending => {}
                Poll::Ready(Answer::Later { after, .. }) => {
                    self.withdraw_from(at);
                    let again = self.again.insert(Box::pin(tokio::time::sleep(after)));
                    // It is asked so that it wakes this task; if it is over already, it is asked again.
                    if again.as_mut().poll(context).is_ready() {
                        context.waker().wake_by_ref();
                    }
                    return;
                }
                Poll::Ready(answer) => {
                    if let Answer::Refused { records, why } = answer {
                        // They are counted in the ledger; reading goes on.
                        tracing::warn!("{}: {records} records are refused: {why}", self.name);
                    }
                    (*state, *logs) = (State::Taken, None);
                    self.one_by_one = false;
                }
            }
        }
    }

    /// A batch was not taken: it and all that is behind it, and not taken yet, is offered again.
    fn withdraw_from(&mut self, at: usize) {
        self.one_by_one = true;
        for attempt in self.attempts.iter_mut().skip(at).filter(|attempt| !matches!(attempt.state, State::Taken)) {
            attempt.state = State::Waits;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use weir_model::Records;
    use weir_model::logs::Logs;

    use super::*;

    fn batch() -> Payload {
        Payload::from_records(Records::Logs(Logs::default()))
    }

    /// Takes what is still wanted when its time comes; answers what it is told to.
    fn sink(answers: impl Fn(u64) -> (u64, bool) + Send + 'static) -> (Offer, Arc<Mutex<Vec<u64>>>) {
        let (taken, offers): (Arc<Mutex<Vec<u64>>>, AtomicU64) = Default::default();
        let log = taken.clone();
        let offer: Offer = Box::new(move |_| {
            let offer = offers.fetch_add(1, Ordering::Relaxed);
            let (polls, takes) = answers(offer);
            let log = log.clone();
            Box::pin(async move {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
                if !takes {
                    return Answer::Later { after: Duration::from_millis(1), why: "full".into() };
                }
                log.lock().unwrap().push(offer);
                Answer::Stored
            })
        });
        (offer, taken)
    }

    #[tokio::test]
    async fn nothing_overtakes_a_batch_that_was_not_taken() {
        // The first is not taken, after a while; those behind it would be, later on.
        let (offer, taken) = sink(|offer| if offer == 0 { (2, false) } else { (4, true) });
        let mut window = Window::with(offer, Arc::from("logs"));
        for number in 0..4 {
            window.push(Some(batch()), number);
        }
        assert!(!window.is_full());
        let mut order = Vec::new();
        while let Some(numbers) = window.next().await {
            order.extend(numbers);
        }
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(*taken.lock().unwrap(), [4, 5, 6, 7], "the first offers were withdrawn, and these came in order");
    }

    #[tokio::test]
    async fn those_that_wait_are_tried_one_by_one_until_one_is_taken() {
        let (offer, taken) = sink(|offer| (0, offer >= 3));
        let mut window = Window::with(offer, Arc::from("logs"));
        for number in 0..4 {
            window.push(Some(batch()), number);
        }
        window.push(None, 4);
        let mut order = Vec::new();
        while let Some(numbers) = window.next().await {
            order.extend(numbers);
        }
        assert_eq!(order, [0, 1, 2, 3, 4]);
        // Four were made when they were added, of which only the first was asked.
        assert_eq!(*taken.lock().unwrap(), [4, 5, 6, 7]);
        assert_eq!(window.len(), 0);
    }

    #[tokio::test]
    async fn once_closed_nothing_is_offered_again_and_what_is_under_way_is_heard() {
        let (offer, taken) = sink(|offer| (3, offer == 0));
        let mut window = Window::with(offer, Arc::from("logs"));
        for number in 0..3 {
            window.push(Some(batch()), number);
        }
        window.close();
        assert_eq!(window.next().await, Some(vec![0]));
        assert_eq!(window.next().await, None);
        assert!(window.is_full());
        assert_eq!(*taken.lock().unwrap(), [0]);
    }
}
