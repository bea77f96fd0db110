//! Request bodies in pieces, which are sent as they are and let go one after the other.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A request body in pieces. Its length is known, so it travels with `Content-Length`. Each piece is
/// dropped when it has been sent: while a large body waits for a slow server, its memory becomes less.
#[derive(Clone, Debug, Default)]
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// A body of these pieces, one behind the other.
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
    }

    /// The pieces.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter()
    }

    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pieces as one; copies them if there are several.
    pub fn whole(mut self) -> Bytes {
        if self.0.len() > 1 {
            return Vec::from(self.0).concat().into();
        }
        self.0.pop_front().unwrap_or_default()
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        Self::new([whole])
    }
}

impl From<Pieces> for reqwest::Body {
    fn from(pieces: Pieces) -> Self {
        // One that is whole can be sent again by the client itself, where the protocol says so.
        if pieces.0.len() > 1 { reqwest::Body::wrap(pieces) } else { pieces.whole().into() }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use http::{HeaderMap, Request};

    use super::*;
    use crate::{Client, HttpOptions};

    #[tokio::test]
    async fn a_body_in_pieces_arrives_whole_and_with_its_length() {
        let echo = |headers: HeaderMap, body: Bytes| async move {
            let length = headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
            format!("{length:?} {}", String::from_utf8_lossy(&body))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(echo))).await });
        let client = Client::new(&HttpOptions::default()).unwrap();
        for pieces in [vec!["all", " ", "", "of it"], vec!["all of it"]] {
            let body = Pieces::new(pieces.into_iter().map(Bytes::from));
            let (length, whole) = (body.len(), body.clone().whole());
            let request = Request::post(&url).body(body).unwrap();
            let answer = client.send(request, 1000).await.unwrap();
            let expected = format!("{:?} {}", Some(length.to_string()), String::from_utf8_lossy(&whole));
            assert_eq!(String::from_utf8_lossy(&answer.body), expected);
        }
    }
}
