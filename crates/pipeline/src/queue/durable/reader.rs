//! The reading side: entries that did not stay in memory, or came back from a worker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use weir_model::{Payload, Wire};

use crate::ledger::{Reason, Row, Totals};
use crate::memory_budget::Reservation;
use crate::queue::TakeLimits;
use crate::queue::durable::core::Core;
use crate::queue::durable::record::Place;
use crate::queue::durable::segment::{self, EntryHeader, Found, PAYLOADS_CHUNK_BYTES, Scan};
use crate::queue::durable::state::{State, UnderWay, Waiting};
use crate::queue::durable::survey::is_lost;

/// What only the reading side knows: where it stopped.
#[derive(Debug, Default)]
pub struct Reader {
    scan: Option<Scan>,
}

/// A record that was read, or could not be.
struct Read {
    header: EntryHeader,
    payload: Option<Bytes>,
    reservation: Option<Reservation>,
}

impl Core {
    /// Reads the next entries from the disk into memory, enough for one take.
    ///
    /// # Errors
    /// If the system cannot open a file at the moment.
    pub fn refill(&self, limits: TakeLimits) -> io::Result<()> {
        let mut reader = self.reader();
        self.read_returned()?;
        while let Some((place, end)) = self.next_place() {
            let scan = match reader.scan.take().filter(|scan| scan.place() == place) {
                Some(mut scan) => {
                    scan.extend(end);
                    Some(scan)
                }
                None => self.open_scan(place, end)?,
            };
            let Some(mut scan) = scan else {
                // All of it is lost; what was in it is counted when it is passed.
                self.state().read_at = Some(Place { offset: end, ..place });
                continue;
            };
            let (found, stopped) = self.read(&mut scan, limits);
            let next = stopped.unwrap_or_else(|| scan.place());
            reader.scan = stopped.is_none().then_some(scan);
            if self.take_in(found, next) {
                break;
            }
        }
        Ok(())
    }

    /// Memory for an entry that is read: the first of a take comes in whatever is left.
    fn reserve_to_read(&self, bytes: u64, must: bool) -> Result<Option<Reservation>, ()> {
        let options = self.options();
        let Some(budget) = &options.budget else { return Ok(None) };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        match budget.try_reserve(bytes) {
            None if must => Ok(Some(budget.reserve_anyway(bytes))),
            None => Err(()),
            reserved => Ok(reserved),
        }
    }

    /// Where to read on, and where that segment ends; `None` if everything was read.
    fn next_place(&self) -> Option<(Place, u64)> {
        let mut state = self.state();
        loop {
            let place = state.read_at?;
            let at = state.segments.partition_point(|segment| segment.number < place.segment);
            let is_last = at + 1 >= state.segments.len();
            let Some(segment) = state.segments.get_mut(at) else {
                state.read_at = None;
                return None;
            };
            let offset = if segment.number == place.segment { place.offset } else { 0 };
            let (number, end) = (segment.number, segment.end);
            if offset < end {
                let place = Place { segment: number, offset };
                state.read_at = Some(place);
                return Some((place, end));
            }
            let until = segment.sequences.map_or(0, |(_, last)| last.saturating_add(1));
            // What was counted in it and did not come out of it is not there.
            let lost = state.drop_unread(number, Reason::Unreadable);
            if lost > 0 {
                self.report_lost(&mut state, Place { segment: number, offset: 0 }, lost);
            }
            state.read_until = state.read_until.max(until);
            state.read_at = (!is_last).then_some(Place { segment: number.saturating_add(1), offset: 0 });
        }
    }

    /// Opens a segment at a place; `None` if the disk does not have it any more.
    fn open_scan(&self, place: Place, end: u64) -> io::Result<Option<Scan>> {
        match self.disk.open(&segment::path(&self.folder, place.segment)) {
            Ok(file) => Ok(Some(Scan::new(file, place, end, PAYLOADS_CHUNK_BYTES))),
            Err(error) if is_lost(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads entries until there is enough for one take, memory is short or the segment ends; where it
    /// has to go on if that is not where the scan is.
    fn read(&self, scan: &mut Scan, limits: TakeLimits) -> (Vec<Read>, Option<Place>) {
        let (mut found, mut records, mut bytes) = (Vec::new(), 0_usize, 0_usize);
        while records < limits.records && bytes < limits.bytes {
            match scan.find() {
                None => break,
                Some(Found::Cursor(..) | Found::Summary) => {}
                Some(Found::Damage { offset, bytes, .. }) => {
                    let segment = segment::path(&self.folder, scan.place().segment);
                    tracing::error!(segment = %segment.display(), offset, bytes, "damaged: these bytes of a queue are passed over");
                }
                Some(Found::Entry(header)) => {
                    let Ok(reservation) = self.reserve_to_read(header.stored_bytes(), found.is_empty()) else {
                        return (found, Some(header.place));
                    };
                    let payload = self.payload(scan, &header);
                    records = records.saturating_add(usize::try_from(header.records).unwrap_or(usize::MAX));
                    bytes = bytes.saturating_add(payload.as_ref().map_or(0, Bytes::len));
                    found.push(Read { header, payload, reservation });
                }
            }
        }
        (found, None)
    }

    fn payload(&self, scan: &mut Scan, header: &EntryHeader) -> Option<Bytes> {
        header.plain(scan.stored(header)?, self.options().key.as_ref())
    }

    /// Puts what was read into memory. Whether anything can be taken now.
    fn take_in(&self, found: Vec<Read>, next: Place) -> bool {
        let now_ms = (self.now_ms)();
        let mut state = self.state();
        let mut has_come = false;
        for Read { header, payload, reservation } in found {
            // Found twice, dropped meanwhile, or settled before the queue was opened.
            if header.sequence < state.read_until || state.settled_before.contains(header.sequence) {
                continue;
            }
            let Some(segment) = state.segment(header.place.segment) else { continue };
            // Known since the queue was opened, and never counted.
            if segment.damaged.contains(&header.place.offset) {
                continue;
            }
            let records = u64::from(header.records);
            let Some(row) = segment.subtract_unread(&header.origin, header.signal, records) else { continue };
            match payload {
                Some(payload) => {
                    state.make_ready(waiting(header, payload, row, now_ms, reservation));
                    has_come = true;
                }
                None => {
                    row.drop_queued(records, Reason::Unreadable);
                    state.read_until = header.sequence + 1;
                    let totals = Totals::dropped(records, Reason::Unreadable);
                    let key = (header.origin.clone(), header.signal);
                    state.add_settled(key, &totals);
                    self.report_lost(&mut state, header.place, records);
                }
            }
        }
        state.read_at = Some(next);
        has_come
    }

    fn report_lost(&self, state: &mut State, place: Place, records: u64) {
        let before = state.lost.map_or(0, |(records, _)| records);
        state.lost = Some((before + records, place));
        let segment = segment::path(&self.folder, place.segment);
        tracing::error!(segment = %segment.display(), offset = place.offset, records, "lost: the disk does not give these records back");
    }

    /// Reads entries again that came back from a worker.
    fn read_returned(&self) -> io::Result<()> {
        let returned: Vec<(u64, UnderWay)> = {
            let state = self.state();
            let entry = |sequence: &u64| Some((*sequence, state.under_way.get(sequence)?.clone()));
            state.returned.iter().filter_map(entry).collect()
        };
        for (sequence, UnderWay { place, end, origin, signal, records, row, .. }) in returned {
            let read = self.open_scan(place, end)?.and_then(|mut scan| match scan.find() {
                Some(Found::Entry(header)) if header.sequence == sequence => {
                    let payload = self.payload(&mut scan, &header)?;
                    Some((header, payload))
                }
                _ => None,
            });
            let now_ms = (self.now_ms)();
            let reservation = self.reserve_to_read(end - place.offset, true).unwrap_or_default();
            let mut state = self.state();
            match read {
                Some((header, payload)) => {
                    let again = Waiting { is_again: true, ..waiting(header, payload, row, now_ms, reservation) };
                    state.make_ready_again(again);
                }
                None => {
                    row.drop_queued(records, Reason::Unreadable);
                    state.leave(sequence);
                    state.add_settled((origin, signal), &Totals::dropped(records, Reason::Unreadable));
                    self.report_lost(&mut state, place, records);
                }
            }
        }
        Ok(())
    }
}

fn waiting(
    header: EntryHeader,
    payload: Bytes,
    row: Arc<Row>,
    now_ms: i64,
    reservation: Option<Reservation>,
) -> Waiting {
    let age = u64::try_from(now_ms.saturating_sub(header.queued_ms)).unwrap_or_default();
    let now = Instant::now();
    let wire = Wire { encoding: header.encoding, bytes: payload };
    let records = usize::try_from(header.records).unwrap_or(usize::MAX);
    Waiting {
        sequence: header.sequence,
        place: header.place,
        end: header.end(),
        payload: Payload::from_wire(header.signal, wire, records),
        row,
        queued_ms: header.queued_ms,
        since: now.checked_sub(Duration::from_millis(age)).unwrap_or(now),
        origin: header.origin,
        reservation,
        is_again: false,
    }
}
