//! From a file: lines of 300 bytes are appended, the peer follows, the sink counts.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;

use super::peers::{Contender, Place};
use super::{Measured, measure, settle};
use crate::load::{END, MARK};
use crate::process::Peer;
use crate::sink::Sink;

/// Bytes of a line without its line end.
pub const LINE: usize = 300;
/// Lines that are written at once.
const CHUNK: u64 = 4096;

/// Starts a peer on a file and lets it read the first lines. Gives it with the file and the first id that is free.
pub fn started(contender: &Contender, place: &Place, sink: &Sink, warm_up: u64) -> Result<(Peer, File, u64), String> {
    let Some(program) = contender.find() else { return Err("SKIPPED: not installed".into()) };
    let mut file = File::create(&place.file).map_err(|error| format!("the log file cannot be made: {error}"))?;
    append(&mut file, 0..warm_up).map_err(|error| format!("the log file cannot be written: {error}"))?;
    let peer = contender.start(&program, place, sink.port);
    settle(sink, &peer, warm_up);
    if sink.counts().0 < warm_up / 2 {
        return Err(format!("FAILED: it does not read the file: {}", contender.last_words()));
    }
    Ok((peer, file, warm_up))
}

/// One run of one peer.
pub fn round(contender: &Contender, records: u64) -> Result<Measured, String> {
    let (place, sink) = (Place::new(), Sink::start());
    let (peer, mut file, first) = started(contender, &place, &sink, (records / 10).max(20_000))?;
    let ids = first..first + records;
    measure(&peer, &place, &sink, ids.clone(), || {
        append(&mut file, ids).expect("the log file can be written");
        0
    })
}

/// Appends the lines of these ids, the same ones in every run.
pub fn append(file: &mut File, ids: Range<u64>) -> io::Result<()> {
    let mut line = format!("2026-11-21T12:00:00.000Z INFO {}", String::from_utf8_lossy(MARK));
    let id_at = line.len();
    line.push_str("000000000000 GET /api/v1/orders 200 ");
    while line.len() < LINE {
        line.push_str("the quick brown fox jumps over the lazy dog ");
    }
    line.truncate(LINE - END.len());
    let mut line = line.into_bytes();
    line.extend_from_slice(END);
    line.push(b'\n');
    let mut chunk = Vec::with_capacity(line.len() * CHUNK as usize);
    for first in ids.clone().step_by(CHUNK as usize) {
        chunk.clear();
        for id in first..(first + CHUNK).min(ids.end) {
            line[id_at..id_at + 12].copy_from_slice(format!("{id:012}").as_bytes());
            chunk.extend_from_slice(&line);
        }
        file.write_all(&chunk)?;
    }
    Ok(())
}
