//! What a server answered, for those who do not see the answer: an exporter turns it into an outcome,
//! and whoever keeps the records that were refused wants its words too.

use std::cell::RefCell;

use http::StatusCode;

use crate::client::Answer;

/// The longest excerpt, in bytes.
pub const EXCERPT_LIMIT_BYTES: usize = 1024;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerNote {
    /// The HTTP status.
    pub status: u16,
    /// The status of a gRPC call, for example `INVALID_ARGUMENT (3)`; the HTTP status of such an answer is always 200.
    pub grpc_status: Option<String>,
    /// The beginning of the body, at most [`EXCERPT_LIMIT_BYTES`]; empty where only the head was read.
    pub excerpt: String,
}

tokio::task_local! {
    static NOTE: RefCell<Option<AnswerNote>>;
}

/// Runs `work`, and gives what the last request that it made through a [`Client`](crate::Client) was
/// answered; `None` if none was. Requests of tasks that it spawns are not seen.
pub async fn watch<T>(work: impl Future<Output = T>) -> (T, Option<AnswerNote>) {
    NOTE.scope(RefCell::new(None), async {
        let output = work.await;
        (output, NOTE.with(|note| note.borrow_mut().take()))
    })
    .await
}

/// What [`watch`] would give now.
pub fn last() -> Option<AnswerNote> {
    NOTE.try_with(|note| note.borrow().clone()).ok().flatten()
}

/// A gRPC call failed with this status and these words (its `grpc-message`).
pub fn call_failed(http: StatusCode, grpc_status: String, message: &str) {
    let excerpt = beginning(message.as_bytes());
    put(|| Some(AnswerNote { status: http.as_u16(), grpc_status: Some(grpc_status), excerpt }));
}

/// Of several requests this is the answer that decided what became of the records: [`watch`] gives it.
pub fn decided_by(answer: AnswerNote) {
    put(|| Some(answer));
}

fn put(note: impl FnOnce() -> Option<AnswerNote>) {
    // Nobody watches: nothing to do.
    let _ = NOTE.try_with(|place| *place.borrow_mut() = note());
}

/// A request begins: what an earlier one was answered says nothing about it.
pub(crate) fn begins() {
    put(|| None);
}

/// The head of an answer came.
pub(crate) fn head(status: StatusCode) {
    put(|| Some(AnswerNote { status: status.as_u16(), grpc_status: None, excerpt: String::new() }));
}

/// A whole answer came.
pub(crate) fn answer(answer: &Answer) {
    let excerpt = beginning(&answer.body);
    put(|| Some(AnswerNote { status: answer.status.as_u16(), grpc_status: None, excerpt }));
}

/// The beginning of a body as text, cut between two characters; what is no UTF-8 is replaced.
fn beginning(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body.get(..EXCERPT_LIMIT_BYTES).unwrap_or(body)).into_owned();
    if body.len() > EXCERPT_LIMIT_BYTES || text.len() > EXCERPT_LIMIT_BYTES {
        // A character that the cut took apart became a replacement, which is longer than its rest.
        let cut = text.floor_char_boundary(EXCERPT_LIMIT_BYTES);
        text.truncate(cut);
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        answer(&Answer { status, headers: http::HeaderMap::new(), body: body.as_bytes().to_vec().into() });
    }

    #[tokio::test]
    async fn the_last_answer_is_noted_and_only_by_those_who_watch() {
        answered(500, "nobody watches");
        let ((), note) = watch(async {
            answered(400, "first");
            begins();
            answered(422, "second");
        })
        .await;
        assert_eq!(note, Some(AnswerNote { status: 422, grpc_status: None, excerpt: "second".into() }));
        assert_eq!(watch(async {}).await.1, None, "nothing is left of an earlier one");
    }

    #[tokio::test]
    async fn a_request_without_an_answer_leaves_no_note_of_the_one_before() {
        let ((), note) = watch(async {
            answered(400, "first");
            begins();
        })
        .await;
        assert_eq!(note, None);
    }

    #[tokio::test]
    async fn of_several_answers_the_one_that_decided_can_be_given() {
        let ((), note) = watch(async {
            answered(413, "too large");
            let refusal = last();
            answered(200, "taken");
            decided_by(refusal.unwrap());
        })
        .await;
        assert_eq!(note, Some(AnswerNote { status: 413, grpc_status: None, excerpt: "too large".into() }));
        assert_eq!(last(), None, "nobody watches");
    }

    #[tokio::test]
    async fn a_call_that_failed_is_noted_with_its_own_status_and_words() {
        let ((), note) = watch(async {
            head(StatusCode::OK);
            call_failed(StatusCode::OK, "INVALID_ARGUMENT (3)".to_owned(), "the field is of another type");
        })
        .await;
        let note = note.unwrap();
        assert_eq!((note.status, note.grpc_status.as_deref()), (200, Some("INVALID_ARGUMENT (3)")));
        assert_eq!(note.excerpt, "the field is of another type");
    }

    #[tokio::test]
    async fn notes_of_futures_that_run_side_by_side_do_not_mix() {
        let one = watch(async {
            answered(401, "one");
            tokio::task::yield_now().await;
        });
        let two = watch(async {
            answered(402, "two");
            tokio::task::yield_now().await;
        });
        let ((_, one), (_, two)) = tokio::join!(one, two);
        assert_eq!((one.map(|note| note.status), two.map(|note| note.status)), (Some(401), Some(402)));
    }

    #[test]
    fn an_excerpt_is_at_most_one_kib_whole_characters_and_says_what_is_no_text() {
        assert_eq!(beginning(b"short"), "short");
        for shift in 0..4 {
            let long = format!("{}{}", "x".repeat(shift), "\u{20ac}".repeat(1000));
            let excerpt = beginning(long.as_bytes());
            assert!(
                excerpt.len() <= EXCERPT_LIMIT_BYTES && excerpt.len() > EXCERPT_LIMIT_BYTES - 4,
                "{}",
                excerpt.len()
            );
            assert!(long.starts_with(&excerpt));
        }
        assert_eq!(beginning(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert!(beginning(&[0xff; 4096]).len() <= EXCERPT_LIMIT_BYTES);
    }
}
