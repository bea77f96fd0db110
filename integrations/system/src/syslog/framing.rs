//! Where messages begin and end in a stream of bytes (RFC 6587, section 3.4; RFC 5425, section 4.3).
//!
//! Both ways are told apart message by message: a count is digits, a blank and the `<` of a priority.
//! Lines that begin with a number are lines, and so are counts that no message has.

/// The largest count that is believed; a larger one is a line of text.
const LARGEST_COUNT: u64 = 16 << 20;

/// Digits of that count.
const MOST_DIGITS: usize = 8;

/// A message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, without line end.
    pub bytes: Vec<u8>,
    /// Bytes that are missing: they were too many, or the connection ended before they came.
    pub cut: u64,
}

impl Frame {
    /// A whole message, of which so many bytes are kept.
    pub fn of(bytes: &[u8], most_bytes: usize) -> Frame {
        let mut frame = Frame::default();
        frame.extend(bytes, most_bytes);
        frame.without_half_a_character()
    }

    fn extend(&mut self, more: &[u8], most_bytes: usize) {
        let kept = more.get(..most_bytes.saturating_sub(self.bytes.len())).unwrap_or(more);
        self.bytes.extend_from_slice(kept);
        self.cut += (more.len() - kept.len()) as u64;
    }

    /// A cut never leaves a half character at the end: the message would be no text for it.
    fn without_half_a_character(mut self) -> Frame {
        if self.cut > 0
            && let Err(error) = std::str::from_utf8(&self.bytes)
            && error.error_len().is_none()
        {
            self.cut += (self.bytes.len() - error.valid_up_to()) as u64;
            self.bytes.truncate(error.valid_up_to());
        }
        self
    }
}

#[derive(Debug)]
enum State {
    /// Between two messages.
    Between,
    /// Digits that may be a count, perhaps with the blank behind them.
    Count(Vec<u8>),
    /// So many bytes of a message are still to come.
    Counted(Frame, u64),
    /// A line whose end is still to come.
    Line(Frame),
}

/// Finds messages in pieces of any size. It holds the bytes of one message at most.
#[derive(Debug)]
pub struct Framing {
    most_bytes: usize,
    state: State,
}

impl Framing {
    /// Messages of which so many bytes are kept.
    pub fn new(most_bytes: usize) -> Self {
        Framing { most_bytes, state: State::Between }
    }

    /// Reads a piece; whole messages are appended. Empty lines are left out.
    pub fn feed(&mut self, mut piece: &[u8], frames: &mut Vec<Frame>) {
        while let Some(first) = piece.first() {
            let state = std::mem::replace(&mut self.state, State::Between);
            (self.state, piece) = match state {
                State::Between => match first {
                    b'\n' | 0 => (State::Between, piece.get(1..).unwrap_or_default()),
                    b'1'..=b'9' => (State::Count(Vec::new()), piece),
                    _ => (State::Line(Frame::default()), piece),
                },
                State::Count(text) => self.count(text, *first, piece),
                State::Counted(frame, left) => self.counted(frame, left, piece, frames),
                State::Line(frame) => self.line(frame, piece, frames),
            };
        }
    }

    /// Takes a byte of what may be a count, or leaves it where it is known what it is.
    fn count<'a>(&self, mut text: Vec<u8>, byte: u8, piece: &'a [u8]) -> (State, &'a [u8]) {
        let has_blank = text.last() == Some(&b' ');
        let goes_on = match byte {
            b'0'..=b'9' => !has_blank && text.len() < MOST_DIGITS,
            b' ' => !has_blank,
            _ => false,
        };
        if goes_on {
            text.push(byte);
            return (State::Count(text), piece.get(1..).unwrap_or_default());
        }
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse::<u64>().ok());
        let count = number.filter(|count| byte == b'<' && has_blank && *count <= LARGEST_COUNT);
        let state = match count {
            Some(count) => State::Counted(Frame::default(), count),
            None => State::Line(Frame::of(&text, self.most_bytes)),
        };
        (state, piece)
    }

    fn counted<'a>(&self, mut frame: Frame, left: u64, piece: &'a [u8], frames: &mut Vec<Frame>) -> (State, &'a [u8]) {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let (more, rest) = piece.split_at_checked(take).unwrap_or((piece, &[]));
        frame.extend(more, self.most_bytes);
        let left = left.saturating_sub(more.len() as u64);
        if left > 0 {
            return (State::Counted(frame, left), rest);
        }
        push(frame, frames);
        (State::Between, rest)
    }

    fn line<'a>(&self, mut frame: Frame, piece: &'a [u8], frames: &mut Vec<Frame>) -> (State, &'a [u8]) {
        let end = memchr::memchr2(b'\n', 0, piece);
        let (more, rest) = piece.split_at_checked(end.unwrap_or(piece.len())).unwrap_or((piece, &[]));
        frame.extend(more, self.most_bytes);
        if end.is_none() {
            return (State::Line(frame), rest);
        }
        push(frame, frames);
        (State::Between, rest.get(1..).unwrap_or_default())
    }

    /// The connection ended: what is there of a message is one, and it says what is missing.
    pub fn finish(&mut self) -> Option<Frame> {
        let frame = match std::mem::replace(&mut self.state, State::Between) {
            State::Between => return None,
            State::Count(text) => Frame::of(&text, self.most_bytes),
            State::Counted(mut frame, left) => {
                frame.cut += left;
                frame
            }
            State::Line(frame) => frame,
        };
        let mut frames = Vec::new();
        push(frame, &mut frames);
        frames.pop()
    }
}

fn push(frame: Frame, frames: &mut Vec<Frame>) {
    if frame.cut > 0 || !matches!(frame.bytes.as_slice(), b"" | b"\r") {
        frames.push(frame.without_half_a_character());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]], most: usize) -> Vec<(String, u64)> {
        let (mut framing, mut frames) = (Framing::new(most), Vec::new());
        for piece in pieces {
            framing.feed(piece, &mut frames);
        }
        frames.extend(framing.finish());
        frames.into_iter().map(|frame| (String::from_utf8_lossy(&frame.bytes).into_owned(), frame.cut)).collect()
    }

    fn texts(bytes: &[u8]) -> Vec<String> {
        read(&[bytes], 100).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn counts_and_lines_are_told_apart_message_by_message() {
        assert_eq!(texts(b"<1>a\n<2>b\r\n\n\r\n<3>c\0<4>d"), ["<1>a", "<2>b\r", "<3>c", "<4>d"]);
        assert_eq!(texts(b"6 <1>a\nb6 <2>cd\n"), ["<1>a\nb", "<2>cd\n"]);
        assert_eq!(texts(b"4 <1>a<2>b\n4 <3>c\n\n5 <4>de"), ["<1>a", "<2>b", "<3>c", "<4>de"]);
        assert_eq!(texts(b"5 apples\n2026-01-02 x\n12\n7 \n1 <\n"), ["5 apples", "2026-01-02 x", "12", "7 ", "<"]);
    }

    #[test]
    fn counts_that_no_message_has_are_lines_of_text() {
        assert_eq!(texts(b"99999999999 x\n<1>a\n"), ["99999999999 x", "<1>a"]);
        assert_eq!(texts(b"99999999 <1>a\n<2>b\n"), ["99999999 <1>a", "<2>b"]);
        assert_eq!(texts(b"12345678901234567890 <1>a\n"), ["12345678901234567890 <1>a"]);
        assert_eq!(texts(b"0 <1>a\n-1 <2>b\n4  <3>c\n"), ["0 <1>a", "-1 <2>b", "4  <3>c"]);
    }

    #[test]
    fn long_messages_are_cut_at_a_character_and_the_next_one_is_whole() {
        let long = "<1>ä23456789".as_bytes();
        let counted = [format!("{} ", long.len()).as_bytes(), long, b"4 <2>b"].concat();
        let line = [long, b"\n<2>b\n"].concat();
        for bytes in [counted, line] {
            assert_eq!(read(&[&bytes], 6), [("<1>ä2".into(), 7), ("<2>b".into(), 0)]);
            assert_eq!(read(&[&bytes], 4), [("<1>".into(), 10), ("<2>b".into(), 0)]);
        }
    }

    #[test]
    fn the_end_of_a_connection_leaves_what_came_and_says_what_is_missing() {
        assert_eq!(read(&[b"10 <1>abc"], 100), [("<1>abc".into(), 4)]);
        assert_eq!(read(&[b"10 "], 100), [("10 ".into(), 0)]);
        assert_eq!(read(&[b"<1>abc"], 100), [("<1>abc".into(), 0)]);
        assert_eq!(read(&[b""], 100), []);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages(
            bytes in prop::collection::vec(prop::sample::select(b"<>1 09\n\0ab\r\xff".as_slice()), 0..200),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            most in 1_usize..20,
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces, most), read(&[&bytes], most));
        }

        #[test]
        fn what_is_counted_comes_back_byte_for_byte(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..6),
        ) {
            let messages: Vec<Vec<u8>> = messages.into_iter().map(|message| [b"<1>", &message[..]].concat()).collect();
            let stream: Vec<u8> =
                messages.iter().flat_map(|message| [format!("{} ", message.len()).as_bytes(), message].concat()).collect();
            let (mut framing, mut frames) = (Framing::new(100), Vec::new());
            framing.feed(&stream, &mut frames);
            let bytes: Vec<Vec<u8>> = frames.into_iter().map(|frame| frame.bytes).collect();
            prop_assert_eq!(bytes, messages);
        }
    }
}
