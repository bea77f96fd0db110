//! Connections of a listener: how many there are at once, and how long each may say nothing.
//!
//! Neither axum nor hyper have such limits by themselves: somebody who opens connections and leaves
//! them, or sends a byte now and then ("slowloris"), would take all file descriptors of the process.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tower::ServiceExt;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; more wait until one ends.
    pub connections: usize,
    /// Longest time for the head of a request, and between two requests of a connection. Default: 75 s,
    /// longer than agents wait between two heartbeats.
    pub head: Duration,
    /// Longest time in which nothing of a body comes, and in which nothing of an answer is taken. Default: 30 s.
    pub stall: Duration,
    /// How long a stopping server waits for requests that it has begun to answer. Default: 3 s.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: most_connections(),
            head: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(3),
        }
    }
}

/// File descriptors that everything but connections needs: files of the store, databases, exporters.
const OTHER_FILES: u64 = 256;

/// Three quarters of the files that this process may open, less what others need. The soft limit, often
/// 1,024 for the sake of select(2) that nobody here calls, is raised to the hard one first.
fn most_connections() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const USUAL: (u64, u64) = (1024, 1024);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or(USUAL);
    // More than this many connections are never served well.
    let wanted = hard.min(65_536);
    let files = if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    usize::try_from(files.saturating_sub(OTHER_FILES) / 4 * 3).unwrap_or(usize::MAX).clamp(16, 16_384)
}

/// Accepts connections and serves them until `stop` resolves; then finishes what has begun.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let (stopping, stopped) = watch::channel(());
    // Dropped at the end: what is not done by then is cut off.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            next = accept(&listener, &places) => next,
            () = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        let (router, stopped) = (router.clone(), stopped.clone());
        connections.spawn(async move {
            connection(stream, peer, router, stopped, limits).await;
            drop(place);
        });
    }
    drop((listener, stopping));
    let all = async { while connections.join_next().await.is_some() {} };
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(limits.drain, all).await;
}

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<tokio::sync::OwnedSemaphorePermit>) {
    // The semaphore is never closed, so that there is a permit always.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
                // Those are about a client that went away meanwhile; all others about this process, such
                // as too many open files, and pass.
                if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopped: watch::Receiver<()>,
    limits: Limits,
) {
    // Small answers must not wait for more bytes; a failure only costs latency.
    let _ = stream.set_nodelay(true);
    // Who takes nothing of an answer is dropped by the kernel (tcp(7), TCP_USER_TIMEOUT); without it, later.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall));
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = asked.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut request = request.map(|body| Body::new(Patient { body, stall: limits.stall, waiting: None }));
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.stall).enable_connect_protocol();
    let mut served = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    // hyper's own clock begins when it knows which HTTP is spoken, which somebody may never say.
    let mut first_request = pin!(sleep(limits.head));
    let (mut is_early, mut is_stopping) = (true, false);
    loop {
        tokio::select! {
            // How a connection broke off is the other end's business: what it asked was answered by then, or not.
            _ = served.as_mut() => return,
            () = &mut first_request, if is_early => match has_asked.load(Ordering::Relaxed) {
                true => is_early = false,
                false => return,
            },
            _ = stopped.changed(), if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// A body that ends with an error when nothing of it comes for too long.
struct Patient {
    body: Incoming,
    stall: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(stall)));
        waiting.as_mut().poll(context).map(|()| {
            let message = format!("nothing of it came for {} s", stall.as_secs());
            Some(Err(axum::Error::new(std::io::Error::new(std::io::ErrorKind::TimedOut, message))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::routing::any;
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    fn short() -> Limits {
        Limits { connections: 100, head: SOON, stall: SOON, drain: SOON }
    }

    async fn answer(request: Request) -> (StatusCode, String) {
        match crate::read_body(&request.headers().clone(), request.into_body(), 1 << 20).await {
            Ok(body) => (StatusCode::OK, format!("{} bytes", body.len())),
            Err(error) => (error.status(), error.to_string()),
        }
    }

    async fn server(limits: Limits) -> (SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", any(answer)).route("/never", any(std::future::pending::<()>));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        (address, stop, tokio::spawn(serve(listener, router, stopped, limits)))
    }

    /// All that the server says until it closes the connection.
    async fn to_the_end(address: SocketAddr, sent: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // A reset is an end too.
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await.expect("the connection is closed");
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn who_opens_a_connection_and_says_nothing_or_half_a_head_is_dropped() {
        let (address, _stop, _) = server(short()).await;
        // `P` may become `POST`, or the preface of HTTP/2.
        for sent in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: a\r\n"] {
            let said = to_the_end(address, sent).await;
            assert!(!said.contains(" 200 "), "{sent:?}: {said}");
        }
        let said = to_the_end(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(said.contains(" 200 "), "an idle connection ends after its last request: {said}");
    }

    #[tokio::test]
    async fn a_body_that_stops_in_the_middle_is_told_why() {
        let (address, _stop, _) = server(short()).await;
        let said = to_the_end(address, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").await;
        assert!(said.starts_with("HTTP/1.1 400") && said.contains("nothing of it came for"), "{said}");
    }

    #[tokio::test]
    async fn a_slow_body_that_goes_on_is_read_to_its_end() {
        let limits = Limits { stall: Duration::from_secs(5), ..short() };
        let (address, _stop, _) = server(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..5 {
            sleep(SOON / 2).await;
            stream.write_all(b"x").await.unwrap();
        }
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("5 bytes"), "longer than a head may take: {said}");
    }

    #[tokio::test]
    async fn above_the_bound_a_connection_waits_until_another_ends() {
        let limits = Limits { connections: 1, head: LONG, ..short() };
        let (address, _stop, _) = server(limits).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let waiting = tokio::spawn(to_the_end(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        sleep(SOON).await;
        assert!(!waiting.is_finished(), "there was no place");
        drop(idle);
        assert!(waiting.await.unwrap().contains(" 200 "));
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_at_once_and_cuts_off_what_hangs() {
        let (address, stop, done) = server(Limits { head: LONG, drain: LONG, ..short() }).await;
        let _idle = TcpStream::connect(address).await.unwrap();
        to_the_end(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        drop(stop);
        tokio::time::timeout(LONG / 2, done).await.expect("nobody waits for an idle connection").unwrap();

        let (address, stop, done) = server(Limits { head: LONG, ..short() }).await;
        let hanging = tokio::spawn(to_the_end(address, "GET /never HTTP/1.1\r\nhost: a\r\n\r\n"));
        sleep(SOON / 3).await;
        drop(stop);
        tokio::time::timeout(LONG / 2, done).await.expect("at most the time to drain").unwrap();
        assert_eq!(hanging.await.unwrap(), "");
    }
}
