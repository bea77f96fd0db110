//! Targets that misbehave: each is one way in which the other side of a network can be wrong.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How a target behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing listens there.
    Absent,
    /// Takes the connection and never says a word.
    Silent,
    /// Closes the connection at once.
    Closes,
    /// Answers bytes that are no protocol.
    Garbage,
    /// Begins a proper answer and breaks off in the middle of the body.
    BreaksOff,
    /// One byte of the answer every 200 ms.
    Trickles,
    /// An answer without an end.
    Endless,
    /// Any status, with this body.
    Answers(u16, &'static str),
}

/// All ways to misbehave.
pub const ALL: &[Behaviour] = &[
    Behaviour::Absent,
    Behaviour::Silent,
    Behaviour::Closes,
    Behaviour::Garbage,
    Behaviour::BreaksOff,
    Behaviour::Trickles,
    Behaviour::Endless,
    Behaviour::Answers(200, "<html><body>Please log in</body></html>"),
    Behaviour::Answers(400, "no"),
    Behaviour::Answers(401, "who are you"),
    Behaviour::Answers(404, "not here"),
    Behaviour::Answers(413, "too much"),
    Behaviour::Answers(429, "slow down"),
    Behaviour::Answers(500, "broken"),
    Behaviour::Answers(503, "later"),
];

/// A target on a port of every loopback address, gone when dropped.
pub struct Target {
    /// Its port.
    pub port: u16,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Target {
    /// Opens a target.
    pub async fn open(behaviour: Behaviour) -> Target {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        if behaviour == Behaviour::Absent {
            return Target { port, task: None };
        }
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, behaviour));
            }
        });
        Target { port, task: Some(task) }
    }
}

async fn answer(mut stream: TcpStream, behaviour: Behaviour) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n";
    // What the client thinks of all this is the test's business: write errors are its right.
    let _ = match behaviour {
        Behaviour::Absent | Behaviour::Closes => Ok(()),
        Behaviour::Silent => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        }
        Behaviour::Garbage => stream.write_all(&[0xff; 64]).await,
        Behaviour::BreaksOff => {
            read_request(&mut stream).await;
            stream.write_all(format!("{head}content-length: 1000\r\n\r\nthe beginning").as_bytes()).await
        }
        Behaviour::Trickles => {
            read_request(&mut stream).await;
            for byte in format!("{head}content-length: 1000\r\n\r\n").bytes().chain(std::iter::repeat_n(b'x', 1000)) {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        }
        Behaviour::Endless => {
            read_request(&mut stream).await;
            let _ = stream.write_all(format!("{head}\r\n").as_bytes()).await;
            let chunk = vec![b'1'; 64 << 10];
            for _ in 0..(1_usize << 30) / chunk.len() {
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            Ok(())
        }
        Behaviour::Answers(status, body) => {
            // Answers every request of a connection that is kept open.
            while read_request(&mut stream).await {
                let extra = if status == 429 { "retry-after: 7\r\n" } else { "" };
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: text/html\r\n{extra}content-length: {length}\r\n\r\n{body}"
                );
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Ok(())
        }
    };
}

/// Reads one request; false when the client has closed the connection.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read) = stream.read(&mut buffer).await else { return false };
        if read == 0 {
            return false;
        }
        seen.extend_from_slice(&buffer[..read]);
        let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if seen.len() >= end + 4 + length.unwrap_or(0) {
            return true;
        }
    }
}
