//! From OTLP over HTTP to OTLP over HTTP, through the peer's durable queue.

use super::peers::{Contender, Place};
use super::{Measured, measure, settle};
use crate::load::{self, BATCH, CONNECTIONS};
use crate::process::{Peer, listens};
use crate::sink::Sink;

/// Rounds up to what all connections send together.
pub fn whole_batches(records: u64) -> u64 {
    records.next_multiple_of((BATCH * CONNECTIONS) as u64)
}

/// Starts a peer and warms it up. Gives it with the first id that is free.
pub fn started(contender: &Contender, place: &Place, sink: &Sink, warm_up: u64) -> Result<(Peer, u64), String> {
    let Some(program) = contender.find() else { return Err("SKIPPED: not installed".into()) };
    let peer = contender.start(&program, place, sink.port);
    if !listens(place.listen, || peer.runs()) {
        return Err(format!("FAILED: it does not listen: {}", contender.last_words()));
    }
    let warm_up = whole_batches(warm_up);
    load::send(place.listen, warm_up, 0);
    settle(sink, &peer, warm_up);
    if sink.counts().0 < warm_up / 2 {
        return Err(format!("FAILED: it does not relay: {}", contender.last_words()));
    }
    Ok((peer, warm_up))
}

/// One run of one peer.
pub fn round(contender: &Contender, records: u64) -> Result<Measured, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, first) = started(contender, &place, &sink, (records / 10).max(20_000))?;
    let records = whole_batches(records);
    measure(&peer, &place, &sink, first..first + records, || load::send(place.listen, records, first).in_doubt)
}
