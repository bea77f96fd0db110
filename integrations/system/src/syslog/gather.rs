//! Messages on their way to the intake: gathered to batches, offered until they are taken, and bounded.
//!
//! Whoever receives messages takes room for them first and keeps it until their batch is taken. So a full
//! intake stops the reading of streams, and lets UDP messages find no room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::tz::TimeZone;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use weir_model::Payload;
use weir_pipeline::health::Board;
use weir_pipeline::{Answer, Intake, Stop};

use super::config::Settings;
use super::framing::Frame;
use super::message::{self, Peer};
use crate::logs::parse::time::Clock;
use crate::logs::record::Gathered;

/// Most records and bytes of a batch, and how long the first one waits for others.
const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 512 << 10;
const BATCH_WAIT: Duration = Duration::from_millis(100);

/// Batches that are under way at once. Several are needed where an answer means delivery.
const WINDOW: usize = 8;

/// How often it is tried again to hand in after the intake was full.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a message takes besides its bytes.
const FRAME_OVERHEAD_BYTES: usize = 128;

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages over UDP, TCP and TLS.
    pub udp: AtomicU64,
    /// The same over TCP.
    pub tcp: AtomicU64,
    /// The same over TLS.
    pub tls: AtomicU64,
    /// Messages in no format of syslog.
    pub unreadable: AtomicU64,
    /// Messages that were cut.
    pub cut: AtomicU64,
    /// UDP messages for which there was no room.
    pub no_room: AtomicU64,
    /// UDP messages that the system dropped.
    pub kernel: AtomicU64,
    /// Messages that were not taken before the stop.
    pub stopped: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// Connections beyond the limit.
    pub too_many: AtomicU64,
    /// Connections over TLS that were not agreed on.
    pub handshakes: AtomicU64,
}

impl Counts {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// A counter now.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Messages of a transport.
    pub fn received(&self, transport: &str) -> &AtomicU64 {
        match transport {
            "udp" => &self.udp,
            "tls" => &self.tls,
            _ => &self.tcp,
        }
    }
}

/// What keeps the receiver from its work, by part: its health is all of it.
#[derive(Debug)]
pub struct Troubles {
    /// Where health is told.
    pub board: Arc<Board>,
    /// The instance.
    pub name: Arc<str>,
    /// What is wrong now.
    pub now: Mutex<BTreeMap<&'static str, String>>,
}

impl Troubles {
    /// A part has this trouble, or none any more.
    pub fn set(&self, part: &'static str, trouble: Option<String>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match trouble {
            Some(trouble) => now.insert(part, trouble.clone()) != Some(trouble),
            None => now.remove(part).is_some(),
        };
        if !changed {
            return;
        }
        if now.is_empty() {
            self.board.healthy(&self.name);
        } else {
            let all: Vec<&str> = now.values().map(String::as_str).collect();
            self.board.unhealthy(&self.name, &all.join("; "));
        }
    }
}

/// Messages of one sender, and the room that they take.
#[derive(Debug)]
pub struct Received {
    peer: Peer,
    frames: Vec<Frame>,
    observed_unix_nano: u64,
    room: OwnedSemaphorePermit,
}

/// Where messages are handed in. Clones share the room.
#[derive(Clone, Debug)]
pub struct Inlet {
    sender: mpsc::UnboundedSender<Received>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    counts: Arc<Counts>,
}

impl Inlet {
    /// An inlet with room for so many bytes.
    pub fn new(sender: mpsc::UnboundedSender<Received>, room_bytes: u32, counts: Arc<Counts>) -> Self {
        let room = Arc::new(Semaphore::new(usize::try_from(room_bytes).unwrap_or(Semaphore::MAX_PERMITS)));
        Inlet { sender, room, room_bytes, counts }
    }

    /// Waits for room, and hands messages in.
    pub async fn put(&self, peer: &Peer, frames: Vec<Frame>) {
        let taking = self.room.clone().acquire_many_owned(self.needed(&frames));
        // Room is never closed.
        if let Ok(room) = taking.await {
            self.hand_on(peer, frames, room);
        }
    }

    /// Hands a message in if there is room; whether there was.
    pub fn try_put(&self, peer: &Peer, frame: Frame) -> bool {
        let frames = vec![frame];
        match self.room.clone().try_acquire_many_owned(self.needed(&frames)) {
            Ok(room) => {
                self.hand_on(peer, frames, room);
                true
            }
            Err(_) => false,
        }
    }

    fn needed(&self, frames: &[Frame]) -> u32 {
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len() + FRAME_OVERHEAD_BYTES).sum();
        // What is larger than all the room waits for all of it.
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes)
    }

    fn hand_on(&self, peer: &Peer, frames: Vec<Frame>, room: OwnedSemaphorePermit) {
        Counts::add(self.counts.received(peer.transport), frames.len() as u64);
        let received = Received { peer: peer.clone(), frames, observed_unix_nano: unix_nano(), room };
        // The other end lives as long as there are inlets.
        drop(self.sender.send(received));
    }
}

/// Now, in unix nanoseconds.
pub fn unix_nano() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Gathers messages and hands them in.
pub struct Gathering {
    settings: Arc<Settings>,
    intake: Intake,
    stop: Stop,
    counts: Arc<Counts>,
    name: Arc<str>,
    full: Arc<AtomicUsize>,
    zone: TimeZone,
    gathered: Gathered,
    rooms: Vec<OwnedSemaphorePermit>,
    /// How much room that is.
    taken_bytes: usize,
    since: Option<Instant>,
}

impl Gathering {
    /// Gathers for an intake.
    pub fn new(settings: Arc<Settings>, intake: Intake, stop: Stop, counts: Arc<Counts>, name: Arc<str>) -> Self {
        let gathered = Gathered::new("syslog", &settings.resource);
        let (full, zone) = (Arc::default(), TimeZone::system());
        let (rooms, taken_bytes, since) = (Vec::new(), 0, None);
        Gathering { settings, intake, stop, counts, name, full, zone, gathered, rooms, taken_bytes, since }
    }

    /// Works until all inlets are gone, and everything was offered.
    pub async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Received>) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || self.since.is_some() || !under_way.is_empty() {
            let is_full = self.full.load(Ordering::Acquire) > 0;
            let may_hand_in = under_way.len() < WINDOW && !is_full;
            let due = self.due(is_open);
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && may_hand_in => {
                    under_way.extend(self.hand_in());
                }
                received = receiver.recv(), if is_open && !self.is_batch() => match received {
                    Some(received) => self.add(received),
                    None => is_open = false,
                },
                () = tokio::time::sleep(LOOK_AGAIN), if is_full => {}
            }
        }
    }

    fn is_batch(&self) -> bool {
        // Where there is little room, waiting for company would only hold senders up.
        let is_much = self.taken_bytes >= usize::try_from(self.settings.buffer_bytes / 4).unwrap_or(usize::MAX);
        is_much || self.gathered.len() >= BATCH_RECORDS || self.gathered.size_bytes() >= BATCH_BYTES
    }

    /// When what is gathered is handed in.
    fn due(&self, is_open: bool) -> Option<Instant> {
        self.since.map(|since| if self.is_batch() || !is_open { since } else { since + BATCH_WAIT })
    }

    fn add(&mut self, received: Received) {
        let Received { peer, frames, observed_unix_nano, room } = received;
        let clock = Clock { zone: self.zone.clone(), now_unix_nano: observed_unix_nano };
        for frame in &frames {
            let odd = message::gather(frame, &peer, self.settings.host_from_message, &clock, &mut self.gathered);
            Counts::add(&self.counts.unreadable, u64::from(odd.is_unreadable));
            Counts::add(&self.counts.cut, u64::from(odd.is_cut));
        }
        self.taken_bytes += room.num_permits();
        self.rooms.push(room);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Offers what is gathered until it is taken, and gives its room back then.
    fn hand_in(&mut self) -> Option<BoxFuture<'static, ()>> {
        (self.since, self.taken_bytes) = (None, 0);
        let empty = Gathered::new("syslog", &self.settings.resource);
        let rooms = std::mem::take(&mut self.rooms);
        let logs = std::mem::replace(&mut self.gathered, empty).finish()?;
        let (intake, stop, full, name) = (self.intake.clone(), self.stop.clone(), self.full.clone(), self.name.clone());
        let counts = self.counts.clone();
        Some(Box::pin(async move {
            let records = logs.len() as u64;
            if !taken(&intake, &stop, &full, &name, logs).await {
                // Syslog knows no answer: nobody sends them again.
                Counts::add(&counts.stopped, records);
                tracing::warn!("{name}: {records} messages are lost: no exporter took them before the stop");
            }
            drop(rooms);
        }))
    }
}

/// Offers a batch again and again until it is taken; whether it was before the stop. Meanwhile `full`
/// counts it.
async fn taken(intake: &Intake, stop: &Stop, full: &AtomicUsize, name: &str, logs: Payload) -> bool {
    loop {
        let after = match intake.offer(logs.clone()).await {
            Answer::Stored => return true,
            Answer::Refused { records, why } => {
                // They are counted in the ledger; reading goes on.
                tracing::warn!("{name}: {records} records are refused: {why}");
                return true;
            }
            Answer::Later { after, .. } => after,
        };
        full.fetch_add(1, Ordering::AcqRel);
        let stopped = tokio::select! {
            () = stop.wait() => true,
            () = tokio::time::sleep(after) => false,
        };
        full.fetch_sub(1, Ordering::AcqRel);
        if stopped {
            return false;
        }
    }
}
