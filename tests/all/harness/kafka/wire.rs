//! The wire between a client and a broker, which can stall, break and trickle when records are written.
//!
//! It passes requests and answers on as whole frames (Kafka protocol guide, "Protocol Primitives"), so it knows
//! which are about records: requests with the API key of Produce, and the answers to them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The API key of Produce.
const PRODUCE: [u8; 2] = [0, 0];

/// How long a wire stalls before it breaks.
const STALL: Duration = Duration::from_secs(30);

/// Time between two bytes of a trickle.
const TRICKLE: Duration = Duration::from_millis(100);

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// Nothing.
    None,
    /// It is reset in the middle of a request.
    ResetInRequest,
    /// The broker has written; it is reset in the middle of the answer.
    ResetInAnswer,
    /// The broker has written; it is closed before the answer.
    NoAnswer,
    /// Requests do not get through for 30 s, and then it breaks.
    StallRequest,
    /// The broker has written; the answer does not get through for 30 s, and then it breaks.
    StallAnswer,
    /// Requests get through byte by byte, and not to their end.
    TrickleRequest,
    /// The broker has written; the answer gets through byte by byte.
    TrickleAnswer,
}

impl WireFault {
    /// Whether the broker writes although no answer gets through.
    pub fn loses_answers(self) -> bool {
        use WireFault::{NoAnswer, ResetInAnswer, StallAnswer, TrickleAnswer};
        matches!(self, ResetInAnswer | NoAnswer | StallAnswer | TrickleAnswer)
    }
}

struct Shared {
    fault: Mutex<WireFault>,
    faulted: Mutex<u64>,
}

impl Shared {
    fn fault(&self) -> WireFault {
        *self.fault.lock().expect("nobody panics with it")
    }
}

/// The wire; its tasks end with the runtime of the test.
pub struct Wire {
    shared: Arc<Shared>,
}

impl Wire {
    /// Listens on a port and passes everything on to another one.
    pub async fn start(port: u16, broker: u16) -> Wire {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let shared = Arc::new(Shared { fault: Mutex::new(WireFault::None), faulted: Mutex::new(0) });
        let of_all = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, broker, of_all.clone()));
            }
        });
        Wire { shared }
    }

    /// Behaves like this from now on.
    pub fn set(&self, fault: WireFault) {
        *self.shared.fault.lock().expect("nobody panics with it") = fault;
        if fault != WireFault::None {
            *self.shared.faulted.lock().expect("nobody panics with it") = 0;
        }
    }

    /// How many requests with records met the last fault.
    pub fn faulted(&self) -> u64 {
        *self.shared.faulted.lock().expect("nobody panics with it")
    }
}

/// How a direction of a connection ends.
enum End {
    Closed,
    Reset,
}

/// The next frame with its length; `None` at the end.
async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame.as_slice().try_into().expect("four bytes"));
    frame.resize(4 + usize::try_from(length).expect("it fits"), 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

/// The bytes one by one, as long as the fault lasts.
async fn trickle(shared: &Shared, frame: &[u8], to: &mut (impl AsyncWrite + Unpin)) {
    let fault = shared.fault();
    for byte in frame {
        if shared.fault() != fault || to.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(TRICKLE).await;
    }
}

/// Nothing, as long as the fault lasts.
async fn stall(shared: &Shared) {
    let (fault, begun) = (shared.fault(), tokio::time::Instant::now());
    while shared.fault() == fault && begun.elapsed() < STALL {
        tokio::time::sleep(TRICKLE).await;
    }
}

/// Passes requests on until the connection ends or breaks.
async fn requests(
    shared: &Shared,
    hit: &Mutex<BTreeSet<[u8; 4]>>,
    mut client: impl AsyncRead + Unpin,
    mut broker: impl AsyncWrite + Unpin,
) -> End {
    while let Some(frame) = read_frame(&mut client).await {
        let fault = shared.fault();
        if frame.get(4..6) == Some(&PRODUCE[..]) && fault != WireFault::None {
            *shared.faulted.lock().expect("nobody panics with it") += 1;
            match fault {
                WireFault::ResetInRequest => {
                    // The broker may have gone.
                    let _ = broker.write_all(&frame[..frame.len() / 2]).await;
                    return End::Reset;
                }
                WireFault::StallRequest => {
                    stall(shared).await;
                    return End::Closed;
                }
                WireFault::TrickleRequest => {
                    trickle(shared, &frame[..frame.len() - 1], &mut broker).await;
                    return End::Closed;
                }
                _ => {
                    let correlation = frame[8..12].try_into().expect("four bytes");
                    hit.lock().expect("nobody panics with it").insert(correlation);
                }
            }
        }
        if broker.write_all(&frame).await.is_err() {
            break;
        }
    }
    End::Closed
}

/// Passes answers on until the connection ends or breaks.
async fn answers(
    shared: &Shared,
    hit: &Mutex<BTreeSet<[u8; 4]>>,
    mut broker: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
) -> End {
    while let Some(frame) = read_frame(&mut broker).await {
        let correlation: [u8; 4] = frame[4..8].try_into().expect("four bytes");
        let is_hit = hit.lock().expect("nobody panics with it").remove(&correlation);
        match shared.fault() {
            WireFault::ResetInAnswer if is_hit => {
                // The client may have gone.
                let _ = client.write_all(&frame[..frame.len() / 2]).await;
                return End::Reset;
            }
            WireFault::NoAnswer if is_hit => return End::Closed,
            WireFault::StallAnswer if is_hit => {
                stall(shared).await;
                return End::Closed;
            }
            WireFault::TrickleAnswer if is_hit => {
                trickle(shared, &frame, &mut client).await;
                return End::Closed;
            }
            _ => {}
        }
        if client.write_all(&frame).await.is_err() {
            break;
        }
    }
    End::Closed
}

async fn pass(mut client: TcpStream, broker: u16, shared: Arc<Shared>) {
    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
    // Correlation ids of requests whose answer does not get through well.
    let hit = Mutex::new(BTreeSet::new());
    let end = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        tokio::select! {
            end = requests(&shared, &hit, from_client, to_broker) => end,
            end = answers(&shared, &hit, from_broker, to_client) => end,
        }
    };
    if let End::Reset = end {
        // What was written before goes out first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.set_zero_linger().expect("a socket");
    }
}
