//! The journal's export format (systemd.io/JOURNAL_EXPORT_FORMATS): entries of fields, `NAME=value` and a
//! line end, or, where the value is no plain text, `NAME`, a line end, its length in 64 bits with the
//! little end first, the value and a line end. An empty line ends an entry.

/// Most bytes of a field's name; the journal allows 64.
const LONGEST_NAME: usize = 256;

/// Most fields that are kept of an entry; the journal allows 1024.
const MOST_FIELDS: usize = 1024;

/// Most bytes that are kept of all fields of an entry.
const MOST_ENTRY_BYTES: usize = 4 << 20;

/// One entry of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its fields in the order of the journal; names may repeat.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Bytes of values that were left out because of their length.
    pub cut_bytes: u64,
}

impl Entry {
    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of a field, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Where it stands in the journal.
    pub fn cursor(&self) -> Option<&str> {
        self.text("__CURSOR")
    }
}

/// What came is not in the export format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journalctl printed what is not the journal's export format: {0}")]
pub struct Malformed(&'static str);

#[derive(Debug)]
enum State {
    /// Reading a name, or the line end that ends the entry.
    Name(Vec<u8>),
    /// Reading a value up to its line end.
    Text(Field),
    /// Reading the length of a value.
    Length(String, [u8; 8], usize),
    /// Reading so many bytes of a value.
    Bytes(Field, u64),
    /// Reading the line end behind a value of known length.
    End(Field),
}

#[derive(Debug)]
struct Field {
    name: String,
    value: Vec<u8>,
}

/// Reads entries from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    most_value_bytes: usize,
    state: State,
    entry: Entry,
    entry_bytes: usize,
}

impl Decoder {
    /// A decoder that keeps so many bytes of a value.
    pub fn new(most_value_bytes: usize) -> Self {
        Decoder { most_value_bytes, state: State::Name(Vec::new()), entry: Entry::default(), entry_bytes: 0 }
    }

    /// Reads a piece; whole entries are appended.
    ///
    /// # Errors
    /// If it is not in the format. The decoder is of no use then.
    pub fn feed(&mut self, mut piece: &[u8], entries: &mut Vec<Entry>) -> Result<(), Malformed> {
        while !piece.is_empty() {
            let state = std::mem::replace(&mut self.state, State::Name(Vec::new()));
            (self.state, piece) = match state {
                State::Name(name) => self.name(name, piece, entries)?,
                State::Text(field) => self.text(field, piece),
                State::Length(name, length, have) => self.length(name, length, have, piece),
                State::Bytes(field, left) => self.bytes(field, left, piece),
                State::End(field) => {
                    let piece = piece.strip_prefix(b"\n").ok_or(Malformed("no line end behind a value"))?;
                    self.keep(field);
                    (State::Name(Vec::new()), piece)
                }
            };
        }
        Ok(())
    }

    fn name<'a>(
        &mut self,
        mut name: Vec<u8>,
        piece: &'a [u8],
        entries: &mut Vec<Entry>,
    ) -> Result<(State, &'a [u8]), Malformed> {
        let end = memchr::memchr2(b'=', b'\n', piece);
        let (more, rest) = piece.split_at_checked(end.unwrap_or(piece.len())).unwrap_or((piece, &[]));
        name.extend_from_slice(more);
        if name.len() > LONGEST_NAME {
            return Err(Malformed("a field's name is too long"));
        }
        let Some((end, rest)) = rest.split_first() else { return Ok((State::Name(name), rest)) };
        if *end == b'\n' && name.is_empty() {
            let entry = std::mem::take(&mut self.entry);
            self.entry_bytes = 0;
            if !entry.fields.is_empty() {
                entries.push(entry);
            }
            return Ok((State::Name(name), rest));
        }
        let name = String::from_utf8(name).map_err(|_| Malformed("a field's name is no text"))?;
        let state =
            if *end == b'=' { State::Text(Field { name, value: Vec::new() }) } else { State::Length(name, [0; 8], 0) };
        Ok((state, rest))
    }

    fn text<'a>(&mut self, mut field: Field, piece: &'a [u8]) -> (State, &'a [u8]) {
        let end = memchr::memchr(b'\n', piece);
        let (more, rest) = piece.split_at_checked(end.unwrap_or(piece.len())).unwrap_or((piece, &[]));
        self.extend(&mut field, more);
        match rest.split_first() {
            Some((_, rest)) => {
                self.keep(field);
                (State::Name(Vec::new()), rest)
            }
            None => (State::Text(field), rest),
        }
    }

    fn length<'a>(&self, name: String, mut length: [u8; 8], have: usize, piece: &'a [u8]) -> (State, &'a [u8]) {
        let (mut have, mut piece) = (have, piece);
        while let (Some(place), Some((byte, rest))) = (length.get_mut(have), piece.split_first()) {
            *place = *byte;
            (have, piece) = (have + 1, rest);
        }
        if have < length.len() {
            return (State::Length(name, length, have), piece);
        }
        (self.bytes_or_end(Field { name, value: Vec::new() }, u64::from_le_bytes(length)), piece)
    }

    fn bytes_or_end(&self, field: Field, left: u64) -> State {
        if left == 0 { State::End(field) } else { State::Bytes(field, left) }
    }

    fn bytes<'a>(&mut self, mut field: Field, left: u64, piece: &'a [u8]) -> (State, &'a [u8]) {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let (more, rest) = piece.split_at_checked(take).unwrap_or((piece, &[]));
        self.extend(&mut field, more);
        (self.bytes_or_end(field, left.saturating_sub(more.len() as u64)), rest)
    }

    /// Keeps what there is room for; the rest is counted.
    fn extend(&mut self, field: &mut Field, more: &[u8]) {
        let room = self.most_value_bytes.saturating_sub(field.value.len());
        let room = room.min(MOST_ENTRY_BYTES.saturating_sub(self.entry_bytes));
        let kept = more.get(..room).unwrap_or(more);
        field.value.extend_from_slice(kept);
        self.entry_bytes += kept.len();
        self.entry.cut_bytes += (more.len() - kept.len()) as u64;
    }

    fn keep(&mut self, field: Field) {
        if self.entry.fields.len() < MOST_FIELDS {
            self.entry.fields.push((field.name, field.value));
        } else {
            self.entry.cut_bytes += field.value.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]], most: usize) -> Result<Vec<Entry>, Malformed> {
        let (mut decoder, mut entries) = (Decoder::new(most), Vec::new());
        for piece in pieces {
            decoder.feed(piece, &mut entries)?;
        }
        Ok(entries)
    }

    /// Writes an entry as the specification says.
    fn written(fields: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in fields {
            out.extend_from_slice(name.as_bytes());
            if value.iter().any(|byte| *byte < b' ') || std::str::from_utf8(value).is_err() {
                out.push(b'\n');
                out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                out.push(b'=');
            }
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }

    #[test]
    fn text_bytes_repeated_and_empty_fields_are_read() {
        let text =
            b"__CURSOR=c;1\nMESSAGE\n\x05\0\0\0\0\0\0\0a\nb\xff=\nX=1=2\nX=\nE\n\0\0\0\0\0\0\0\0\n\n\nMESSAGE=b\n\n";
        let entries = read(&[text], 100).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].cursor(), Some("c;1"));
        assert_eq!(entries[0].get("MESSAGE"), Some(&b"a\nb\xff="[..]));
        let x: Vec<&[u8]> = entries[0].fields.iter().filter(|f| f.0 == "X").map(|f| f.1.as_slice()).collect();
        assert_eq!(x, [&b"1=2"[..], b""]);
        assert_eq!(entries[0].get("E"), Some(&b""[..]));
        assert_eq!(entries[1].text("MESSAGE"), Some("b"));
    }

    #[test]
    fn long_values_are_cut_and_counted_and_a_huge_length_takes_no_memory() {
        let entries = read(&[b"A=123456789\nB\n\x09\0\0\0\0\0\0\x00123456789\nC=1\n\n"], 4).unwrap();
        assert_eq!(entries[0].fields, [("A", "1234"), ("B", "1234"), ("C", "1")].map(|(n, v)| (n.into(), v.into())));
        assert_eq!(entries[0].cut_bytes, 10);
        let mut decoder = Decoder::new(4);
        decoder.feed(b"A\n\xff\xff\xff\xff\xff\xff\xff\xff", &mut Vec::new()).unwrap();
        for _ in 0..100 {
            decoder.feed(&[b'x'; 65_536], &mut Vec::new()).unwrap();
        }
        assert_eq!((decoder.entry_bytes, decoder.entry.cut_bytes), (4, 6_553_596));
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        assert!(read(&[b"A\n\x01\0\0\0\0\0\0\0xy\n"], 9).is_err());
        assert!(read(&[&[b'a'; 300]], 9).is_err());
        assert!(read(&[b"\xff\xff=1\n"], 9).is_err());
    }

    proptest! {
        #[test]
        fn entries_survive_being_written_and_cut_into_pieces_anywhere(
            entries in prop::collection::vec(
                prop::collection::vec(("[A-Z_]{1,9}", prop::collection::vec(any::<u8>(), 0..20)), 1..5), 1..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let bytes: Vec<u8> = entries.iter().flat_map(|fields| written(fields)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let expected: Vec<Entry> = entries.into_iter().map(|fields| Entry { fields, cut_bytes: 0 }).collect();
            prop_assert_eq!(read(&pieces, 100).unwrap(), expected);
        }

        #[test]
        fn no_bytes_crash_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&bytes], 10);
        }
    }
}
