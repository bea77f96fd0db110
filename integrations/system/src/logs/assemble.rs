//! From chunks of bytes to records: lines are split, cut at the limit, and joined where several
//! belong together.

use std::sync::Arc;

use super::encoding::{Decoded, Encoding};
use super::multiline::{Multiline, State};
use super::parse::container::Container;

/// How the lines of a file become records.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How the file writes characters.
    pub encoding: Encoding,
    /// Which lines belong together; `None` = every line is a record.
    pub multiline: Option<Arc<Multiline>>,
    /// What container runtimes wrap around lines; their partial lines belong together.
    pub container: Option<Container>,
    /// Longest record in bytes; what is beyond is left out and counted.
    pub max_bytes: usize,
}

/// A record: its bytes lie in the assembler until it is given more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    start: usize,
    end: usize,
    /// Bytes of the file that it stands for, its line end and what was left out included.
    pub consumed: u64,
    /// Bytes that were left out.
    pub cut: u64,
}

/// How many bytes before a position are remembered to recognise it again.
pub const GUARD_BYTES: usize = 64;

/// Splits and joins. Feed it with [`Assembler::push`], then take records until there are none.
#[derive(Debug)]
pub struct Assembler {
    shape: Shape,
    buffer: Vec<u8>,
    /// Where the line begins whose end is being looked for.
    line: usize,
    /// Up to where no line end lies behind `line`.
    scanned: usize,
    /// Bytes of that line that were left out.
    skipped: u64,
    /// Whether the rest of that line is left out as it comes.
    skipping: bool,
    group: Option<Group>,
    state: State,
    /// Whether the line before goes on in the next one.
    partial: bool,
    guard: Vec<u8>,
    /// From where on the buffer holds what the file holds, without holes.
    guard_from: usize,
}

/// Lines that belong together, so far.
#[derive(Clone, Copy, Debug)]
struct Group {
    record: Record,
    /// Nothing more can be added.
    closed: bool,
}

impl Assembler {
    /// An assembler at the beginning of a line.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            buffer: Vec::new(),
            line: 0,
            scanned: 0,
            skipped: 0,
            skipping: false,
            group: None,
            state: State::default(),
            partial: false,
            guard: Vec::new(),
            guard_from: 0,
        }
    }

    /// Takes the next bytes of the file: a multiple of the encoding's width. Everything that was
    /// complete has been taken out before.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        if !self.skipping {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        let Some(end) = self.shape.encoding.line_end(bytes, 0) else {
            self.skipped += bytes.len() as u64;
            return;
        };
        // The line end itself is kept: it ends the line whose beginning is in the buffer.
        let kept = end - self.shape.encoding.width();
        self.skipped += kept as u64;
        self.skipping = false;
        self.buffer.extend_from_slice(bytes.get(kept..).unwrap_or_default());
    }

    /// The next record that is complete.
    pub fn next(&mut self) -> Option<Record> {
        loop {
            if self.group.is_some_and(|group| group.closed) {
                return self.take_group();
            }
            let Some(end) = self.shape.encoding.line_end(&self.buffer, self.scanned) else {
                self.scanned = self.buffer.len();
                self.limit();
                return None;
            };
            if let Some(record) = self.line_ends(end, self.shape.encoding.width()) {
                return Some(record);
            }
        }
    }

    /// A record that time or the end of the file makes complete: what is joined so far, and with
    /// `unfinished` also a line that has no end. Ask until there are none.
    pub fn flush(&mut self, unfinished: bool) -> Option<Record> {
        if unfinished && !self.group.is_some_and(|group| group.closed) && self.has_unfinished_line() {
            self.skipping = false;
            let ended = self.line_ends(self.buffer.len(), 0);
            if let Some(group) = self.group.as_mut() {
                group.closed = true;
            }
            return ended.or_else(|| self.take_group());
        }
        self.take_group()
    }

    /// Whether a line has begun and not ended.
    pub fn has_unfinished_line(&self) -> bool {
        self.line < self.buffer.len() || self.skipped > 0
    }

    /// Whether complete lines wait for more that belongs to them.
    pub fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// The bytes of a record.
    pub fn bytes(&self, record: Record) -> &[u8] {
        let bytes = self.buffer.get(record.start..record.end).unwrap_or_default();
        if record.cut > 0 && self.shape.encoding == Encoding::Utf8 { without_torn_character(bytes) } else { bytes }
    }

    /// The last bytes before everything that has not been taken out: at most [`GUARD_BYTES`].
    pub fn guard(&mut self) -> &[u8] {
        self.compact();
        &self.guard
    }

    /// Bytes per unit of the encoding.
    pub fn width(&self) -> usize {
        self.shape.encoding.width()
    }

    /// Gives back memory that an idle file does not need.
    pub fn rest(&mut self) {
        self.compact();
        self.buffer.shrink_to(0);
    }

    /// Bytes held.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// A line ends, with a line end of so many bytes.
    fn line_ends(&mut self, end: usize, line_end: usize) -> Option<Record> {
        let (start, skipped) = (self.line, std::mem::take(&mut self.skipped));
        (self.line, self.scanned) = (end, end);
        let longer = (end - start).saturating_sub(self.shape.max_bytes + line_end);
        let kept = if longer > 0 { start + self.shape.max_bytes } else { end };
        let cut = skipped + longer as u64;
        let record = Record { start, end: kept, consumed: (end - start) as u64 + skipped, cut };
        if cut > 0 {
            self.guard_from = end;
        }
        if self.shape.multiline.is_none() && self.shape.container.is_none() {
            return Some(record);
        }
        self.join(record)
    }

    /// Adds a line to its group; gives the group before it if the line begins a new one.
    fn join(&mut self, line: Record) -> Option<Record> {
        let goes_on = self.goes_on(line);
        let closed = line.cut > 0;
        let room = self.shape.max_bytes;
        match self.group.as_mut().filter(|group| goes_on && line.end - group.record.start <= room) {
            Some(group) => {
                group.record.end = line.end;
                group.record.consumed += line.consumed;
                group.record.cut += line.cut;
                group.closed = closed;
                None
            }
            None => self.group.replace(Group { record: line, closed }).map(|group| group.record),
        }
    }

    /// Whether a line belongs to what is before it.
    fn goes_on(&mut self, line: Record) -> bool {
        let bytes = self.buffer.get(line.start..line.end).unwrap_or_default();
        let text = match self.shape.encoding.decode(bytes) {
            Decoded::Text(text) => text,
            Decoded::Bytes(_, text) => text.into(),
        };
        let Some(container) = self.shape.container else {
            return self.shape.multiline.as_ref().is_some_and(|mode| !mode.begins(&text, &mut self.state));
        };
        let Some(line) = container.unwrap(&text) else {
            self.partial = false;
            return false;
        };
        if std::mem::replace(&mut self.partial, line.is_partial) {
            return true;
        }
        self.shape.multiline.as_ref().is_some_and(|mode| !mode.begins(&line.content, &mut self.state))
            // Without joining rules only the pieces of one line belong together.
            && self.group.is_some()
    }

    fn take_group(&mut self) -> Option<Record> {
        self.group.take().map(|group| group.record)
    }

    /// Stops keeping a line that is longer than the limit.
    fn limit(&mut self) {
        let most = self.line + self.shape.max_bytes;
        if self.buffer.len() > most {
            self.skipped += (self.buffer.len() - most) as u64;
            self.buffer.truncate(most);
            self.scanned = most;
            self.skipping = true;
        }
    }

    /// Forgets what was taken out, but for the guard.
    fn compact(&mut self) {
        let kept = self.group.map_or(self.line, |group| group.record.start);
        if kept == 0 {
            return;
        }
        if self.guard_from > 0 {
            self.guard.clear();
        }
        let from = self.guard_from.min(kept).max(kept.saturating_sub(GUARD_BYTES));
        self.guard.extend_from_slice(self.buffer.get(from..kept).unwrap_or_default());
        let surplus = self.guard.len().saturating_sub(GUARD_BYTES);
        self.guard.drain(..surplus);
        self.buffer.drain(..kept);
        self.line -= kept;
        self.scanned -= kept;
        self.guard_from = self.guard_from.saturating_sub(kept);
        if let Some(group) = self.group.as_mut() {
            group.record.start -= kept;
            group.record.end -= kept;
        }
    }
}

/// The bytes without the beginning of a character that the limit tore apart.
fn without_torn_character(bytes: &[u8]) -> &[u8] {
    let line_end = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    for back in 1..=3 {
        let Some(at) = line_end.len().checked_sub(back) else { break };
        let Some(byte) = line_end.get(at) else { break };
        let length = match byte {
            0x00..=0x7f => break,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0.. => 4,
            // A continuation: its beginning lies further back.
            _ => continue,
        };
        return if length > back { line_end.get(..at).unwrap_or_default() } else { line_end };
    }
    line_end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(max_bytes: usize) -> Shape {
        Shape { encoding: Encoding::Utf8, multiline: None, container: None, max_bytes }
    }

    /// Records of a file that comes in these chunks, and the bytes that they stand for.
    fn records(shape: Shape, chunks: &[&[u8]]) -> (Vec<(Vec<u8>, u64)>, u64) {
        let mut assembler = Assembler::new(shape);
        let (mut records, mut consumed) = (Vec::new(), 0);
        let mut keep = |assembler: &Assembler, record: Record| {
            records.push((assembler.bytes(record).to_vec(), record.cut));
            consumed += record.consumed;
        };
        for chunk in chunks {
            assembler.push(chunk);
            while let Some(record) = assembler.next() {
                keep(&assembler, record);
            }
        }
        while let Some(record) = assembler.flush(true) {
            keep(&assembler, record);
        }
        (records, consumed)
    }

    /// The plainest way to say what lines are.
    fn reference(bytes: &[u8], max_bytes: usize) -> Vec<(Vec<u8>, u64)> {
        bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                let kept = &text[..text.len().min(max_bytes)];
                (kept.to_vec(), (text.len() - kept.len()) as u64)
            })
            .collect()
    }

    fn without_line_end((bytes, cut): (Vec<u8>, u64)) -> (Vec<u8>, u64) {
        (bytes.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(bytes), cut)
    }

    proptest! {
        #[test]
        fn any_chunks_give_the_lines_of_the_whole_and_every_byte_is_accounted_for(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'\r'), 32_u8..127], 0..400),
            cuts in prop::collection::vec(0_usize..400, 0..12),
            max_bytes in 1_usize..40,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (found, consumed) = records(shape(max_bytes), &chunks);
            prop_assert_eq!(consumed, bytes.len() as u64);
            let found: Vec<_> = found.into_iter().map(without_line_end).collect();
            prop_assert_eq!(found, reference(&bytes, max_bytes));
        }

        #[test]
        fn the_guard_is_what_stands_before_the_position_in_the_file(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), 32_u8..127], 0..400),
            chunk in 1_usize..50,
            joined in any::<bool>(),
        ) {
            let multiline = joined.then(|| Arc::new(Multiline::Indent));
            let mut assembler = Assembler::new(Shape { multiline, ..shape(30) });
            let mut position = 0_usize;
            for chunk in bytes.chunks(chunk) {
                assembler.push(chunk);
                while let Some(record) = assembler.next() {
                    position += usize::try_from(record.consumed).unwrap();
                }
                let guard = assembler.guard().to_vec();
                prop_assert!(bytes[..position].ends_with(&guard), "{:?} at {}", guard, position);
            }
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_cut_at_a_character_and_says_how_much_is_missing() {
        let (found, consumed) = records(shape(4), &["abcß".as_bytes(), b"xyz", b"uvw\nok\n"]);
        assert_eq!(found[0].0, b"abc");
        assert!(found[0].1 >= 6, "{found:?}");
        assert_eq!(found[1], (b"ok\n".to_vec(), 0));
        assert_eq!(consumed, 15);
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut assembler = Assembler::new(shape(1_000));
        for _ in 0..1_000 {
            assembler.push(&[b'x'; 10_000]);
            assert_eq!(assembler.next(), None);
        }
        assert!(assembler.held_bytes() < 40_000, "{}", assembler.held_bytes());
        let record = assembler.flush(true).unwrap();
        assert_eq!((assembler.bytes(record).len(), record.consumed), (1_000, 10_000_000));
    }

    #[test]
    fn pieces_of_a_containers_line_are_joined() {
        let cri = Shape { container: Some(Container::Cri), ..shape(1_000) };
        let text =
            b"2026-01-02T03:04:05Z stdout P he\n2026-01-02T03:04:05Z stdout F llo\n2026-01-02T03:04:05Z stdout F b\n";
        let (found, _) = records(cri, &[text]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn joined_lines_longer_than_the_limit_become_several_records_without_loss() {
        let indent = Shape { multiline: Some(Arc::new(Multiline::Indent)), ..shape(8) };
        let (found, consumed) = records(indent, &[b"a\n bcd\n efg\n hij\nk\n"]);
        let all: Vec<u8> = found.iter().flat_map(|record| record.0.clone()).collect();
        assert_eq!(all, b"a\n bcd\n efg\n hij\nk\n");
        assert_eq!((found.len(), consumed), (4, 19));
    }
}
