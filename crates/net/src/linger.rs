//! Answers that come before the end of a request reach whoever still sends it.
//!
//! A server that refuses a request because of its head (too large, wrong key) answers without reading
//! the body. Closing the connection then makes the kernel reset it, because bytes are left unread, and
//! the client sees a broken connection instead of the reason (RFC 9112 §9.6). So what is left of a body
//! that nobody wants is read and thrown away, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use http::header::EXPECT;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

/// Most bytes that are read to be thrown away.
const MOST_BYTES: usize = 64 << 20;

/// Longest time for which they are read.
const LONGEST: Duration = Duration::from_secs(10);

/// A body of which the rest is read when it is dropped.
struct Lingering {
    body: Body,
    ended: bool,
}

/// Makes the rest of the body be read when nobody wants it any more.
pub async fn linger(request: Request) -> Request {
    // Who waits for `100 Continue` has not sent anything yet, and need not.
    if request.headers().contains_key(EXPECT) {
        return request;
    }
    request.map(|body| if body.is_end_stream() { body } else { Body::new(Lingering { body, ended: false }) })
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.ended = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        let body = std::mem::take(&mut self.body);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // Ends by itself, within the bounds: nobody has to wait for it.
            drop(runtime.spawn(tokio::time::timeout(LONGEST, discard(body))));
        }
    }
}

async fn discard(mut body: Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn server() -> TcpStream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refuse = async |_: Request| (StatusCode::PAYLOAD_TOO_LARGE, "too large, and this is why");
        tokio::spawn(crate::serve(listener, Router::new().fallback(refuse), std::future::pending()));
        TcpStream::connect(address).await.unwrap()
    }

    async fn answer(connection: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains("this is why") {
            let length = connection.read(&mut part).await.unwrap();
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..length]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_sends_everything_before_it_reads_learns_why_it_is_refused_and_goes_on() {
        let mut connection = server().await;
        let length = 16 << 20;
        for _ in 0..2 {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            connection.write_all(head.as_bytes()).await.unwrap();
            connection.write_all(&vec![b'x'; length]).await.expect("the server reads on");
            assert!(answer(&mut connection).await.starts_with("HTTP/1.1 413"));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_asks_before_it_sends_is_not_asked_to_send() {
        let mut connection = server().await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        assert!(answer(&mut connection).await.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_body_without_end_is_cut_off() {
        let mut connection = server().await;
        connection.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while sent < 2 * MOST_BYTES {
            let chunk = [b"100000\r\n", block.as_slice(), b"\r\n"].concat();
            if connection.write_all(&chunk).await.is_err() {
                return;
            }
            sent += block.len();
        }
        panic!("it took {sent} bytes that nobody wants");
    }
}
