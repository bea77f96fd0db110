//! Text of a batch: one buffer, and ranges into it.

use bytes::Bytes;

/// A range of bytes in an [`Arena`]. The empty range needs no arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text {
    start: u32,
    length: u32,
}

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text { start: 0, length: 0 };

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.length as usize
    }

    /// Whether it has no bytes.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

/// The bytes that the [`Text`]s of one batch point into.
///
/// A batch decoded from the wire keeps the received buffer as its base, so decoding copies no
/// text. What is added afterwards goes into a second buffer behind it.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    base: Bytes,
    added: Vec<u8>,
}

/// The batch holds 4 GiB of text, more than its 32-bit ranges can address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a batch can hold at most 4 GiB of text")]
pub struct ArenaFull;

impl Arena {
    /// An arena over a received buffer.
    ///
    /// # Errors
    /// [`ArenaFull`] if the buffer is larger than 32-bit ranges can address.
    pub fn over(base: Bytes) -> Result<Self, ArenaFull> {
        u32::try_from(base.len()).map_err(|_| ArenaFull)?;
        Ok(Self { base, added: Vec::new() })
    }

    /// The range of the base buffer from `start` to `end`. Out of bounds gives the empty text.
    pub fn slice(&self, start: usize, end: usize) -> Text {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(to)) if end <= self.base.len() && start < to => Text { start, length: to - start },
            _ => Text::EMPTY,
        }
    }

    /// Adds bytes and gives their range. Text beyond 4 GiB is refused as the empty text: every
    /// input is bounded far below that by the receivers' limits.
    pub fn add(&mut self, bytes: &[u8]) -> Text {
        if bytes.is_empty() {
            return Text::EMPTY;
        }
        let start = self.base.len().saturating_add(self.added.len());
        match (u32::try_from(start), u32::try_from(bytes.len()), u32::try_from(start.saturating_add(bytes.len()))) {
            (Ok(start), Ok(length), Ok(_)) => {
                self.added.extend_from_slice(bytes);
                Text { start, length }
            }
            _ => Text::EMPTY,
        }
    }

    /// The bytes of a range.
    pub fn bytes(&self, text: Text) -> &[u8] {
        let start = text.start as usize;
        let (buffer, start) = match start.checked_sub(self.base.len()) {
            Some(start) => (self.added.as_slice(), start),
            None => (self.base.as_ref(), start),
        };
        buffer.get(start..start + text.length as usize).unwrap_or_default()
    }

    /// The text of a range. Decoders check UTF-8 before they hand out a text, so the fallback to
    /// the valid beginning is never seen for text fields; ids and byte values use [`Arena::bytes`].
    pub fn text(&self, text: Text) -> &str {
        let bytes = self.bytes(text);
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                std::str::from_utf8(valid).unwrap_or_default()
            }
        }
    }

    /// Gives back the room that was kept for more text.
    pub fn shrink_to_fit(&mut self) {
        self.added.shrink_to_fit();
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.base.len() + self.added.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_added_behind_a_received_buffer_reads_back_from_both() {
        let mut arena = Arena::over(Bytes::from_static(b"hello world")).unwrap();
        let world = arena.slice(6, 11);
        let more = arena.add("größer".as_bytes());
        assert_eq!(arena.text(world), "world");
        assert_eq!(arena.text(more), "größer");
        assert_eq!(arena.text(Text::EMPTY), "");
    }

    #[test]
    fn a_range_outside_the_buffer_is_empty_and_never_panics() {
        let arena = Arena::over(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(arena.slice(2, 9), Text::EMPTY);
        assert_eq!(arena.slice(3, 1), Text::EMPTY);
        assert_eq!(Arena::default().text(Text { start: 7, length: 9 }), "");
    }
}
