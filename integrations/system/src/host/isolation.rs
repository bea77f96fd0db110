//! Questions to the kernel that may never be answered (a dead network mount, a stuck sensor): each
//! runs on a thread of its own, and whoever asks waits only so long.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Most threads that wait for answers at the same time.
const MOST_OUTSTANDING: usize = 64;

/// Questions under way, at most one of each name.
pub(super) struct Isolation<T> {
    outstanding: HashMap<String, Question>,
    /// Questions that wait for one of the threads.
    waiting: Vec<(String, Work<T>)>,
    /// Questions that the system gave no thread for.
    not_asked: Vec<String>,
    sender: mpsc::UnboundedSender<(String, T)>,
    answers: mpsc::UnboundedReceiver<(String, T)>,
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// One question that is not answered yet.
struct Question {
    since: Instant,
    /// Whether this poll asked it; older ones are not waited for.
    fresh: bool,
}

impl<T: Send + 'static> Isolation<T> {
    /// No questions yet.
    pub(super) fn new() -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Isolation { outstanding: HashMap::new(), waiting: Vec::new(), not_asked: Vec::new(), sender, answers }
    }

    /// Begins a poll: answers that came too late for theirs are dropped, so that those questions
    /// can be asked again.
    pub(super) fn begin(&mut self) {
        while let Ok((name, _)) = self.answers.try_recv() {
            self.outstanding.remove(&name);
        }
        for question in self.outstanding.values_mut() {
            question.fresh = false;
        }
        self.waiting.clear();
        self.not_asked.clear();
    }

    /// Asks on a thread of its own, unless the same question is still open.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn ask(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        if self.outstanding.contains_key(name) {
            return Ok(());
        }
        if self.outstanding.len() >= MOST_OUTSTANDING {
            self.waiting.push((name.to_owned(), Box::new(work)));
            return Ok(());
        }
        self.start(name.to_owned(), Box::new(work))
    }

    fn start(&mut self, name: String, work: Work<T>) -> io::Result<()> {
        let (sender, answer_name) = (self.sender.clone(), name.clone());
        let answer = move || {
            // Nobody listens any more when the collector was stopped meanwhile.
            let _ = sender.send((answer_name, work()));
        };
        std::thread::Builder::new().name("weir-host".to_owned()).stack_size(128 << 10).spawn(answer)?;
        self.outstanding.insert(name, Question { since: Instant::now(), fresh: true });
        Ok(())
    }

    /// The next answer to a question of this poll; `None` once there are all or the time is over.
    pub(super) async fn next(&mut self, deadline: Instant) -> Option<(String, T)> {
        while self.outstanding.values().any(|question| question.fresh) {
            let answer = tokio::time::timeout_at(deadline.into(), self.answers.recv()).await;
            let (name, answer) = answer.ok().flatten()?;
            let question = self.outstanding.remove(&name);
            if let Some((name, work)) = self.waiting.pop()
                && self.start(name.clone(), work).is_err()
            {
                self.not_asked.push(name);
            }
            // An old question that is answered only now: what it says may be long over.
            if question.is_some_and(|question| question.fresh) {
                return Some((name, answer));
            }
        }
        None
    }

    /// Questions of this poll for which there was no thread, because too many others hang.
    pub(super) fn not_asked(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(|(name, _)| name).chain(&self.not_asked).map(String::as_str)
    }

    /// For how long a question is open.
    pub(super) fn open_for(&self, name: &str) -> Option<Duration> {
        self.outstanding.get(name).map(|question| question.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn one_question_without_answer_delays_the_others_only_once() {
        let mut isolation = Isolation::new();
        let (release, hang) = channel::<()>();
        isolation.begin();
        isolation.ask("hung", move || hang.recv().map_or(0, |()| 1)).unwrap();
        isolation.ask("quick", || 2).unwrap();
        assert_eq!(isolation.next(soon()).await, Some(("quick".to_owned(), 2)));
        assert_eq!(isolation.next(soon()).await, None);
        assert!(isolation.open_for("hung").is_some() && isolation.open_for("quick").is_none());

        isolation.begin();
        isolation.ask("hung", || unreachable!("it is still open")).unwrap();
        let before = Instant::now();
        assert_eq!(isolation.next(before + Duration::from_secs(60)).await, None, "it is not waited for again");
        assert!(before.elapsed() < Duration::from_secs(30));

        release.send(()).unwrap();
        while isolation.open_for("hung").is_some() {
            tokio::task::yield_now().await;
            isolation.begin();
        }
        isolation.ask("hung", || 3).unwrap();
        let answer = isolation.next(Instant::now() + Duration::from_secs(60)).await;
        assert_eq!(answer, Some(("hung".to_owned(), 3)), "it is asked again, and the late answer is not used");
    }

    #[tokio::test]
    async fn open_questions_are_bounded() {
        let mut isolation = Isolation::new();
        let mut releases = Vec::new();
        for at in 0..MOST_OUTSTANDING {
            let (release, hang) = channel::<()>();
            releases.push(release);
            isolation
                .ask(&at.to_string(), move || {
                    let _ = hang.recv();
                })
                .unwrap();
        }
        isolation.ask("one more", || ()).unwrap();
        assert_eq!(isolation.next(soon()).await, None);
        assert_eq!(isolation.not_asked().collect::<Vec<_>>(), ["one more"]);

        releases.truncate(MOST_OUTSTANDING - 1);
        while let Some((name, ())) = isolation.next(Instant::now() + Duration::from_secs(60)).await {
            if name == "one more" {
                return;
            }
        }
        panic!("the question that waited is asked as soon as there is a thread");
    }
}
