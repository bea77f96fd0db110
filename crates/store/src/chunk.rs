//! Samples of one series, compressed: delta-of-delta times and XORed values.
//!
//! The scheme is that of "Gorilla: A Fast, Scalable, In-Memory Time Series Database" (VLDB 2015,
//! section 4.1) with the widths that Prometheus uses for milliseconds (`tsdb/chunkenc/xor.go`).
//! First and last time and the number of samples stand beside the bits.

use std::sync::Arc;

/// Samples per chunk, at most.
pub const CHUNK_SAMPLES: u16 = 240;

/// A time in unix milliseconds and the bits of a value. Bits, because NaNs have meanings.
pub type Sample = (i64, u64);

/// A chunk that is complete. Cloning shares the bits.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Time of the first sample, unix milliseconds.
    pub first_ms: i64,
    /// Time of the last sample, unix milliseconds.
    pub last_ms: i64,
    /// How many samples.
    pub count: u16,
    bits: Arc<[u8]>,
}

/// Bytes that an [`Arc`] holds besides its content.
pub const ARC_BYTES: usize = 2 * size_of::<usize>();

impl Chunk {
    /// Compresses samples that ascend in time. `None` without samples.
    pub fn of(samples: &[Sample]) -> Option<Chunk> {
        let mut encoder = Encoder::default();
        for (time, value) in samples {
            encoder.push(*time, *value);
        }
        encoder.chunk()
    }

    /// Bytes on the heap, not counting the chunk itself.
    pub fn heap_bytes(&self) -> usize {
        self.bits.len() + ARC_BYTES
    }

    /// Whether a time lies within.
    pub fn spans(&self, time_ms: i64) -> bool {
        (self.first_ms..=self.last_ms).contains(&time_ms)
    }

    /// The samples in order.
    pub fn samples(&self) -> Decoder<'_> {
        Decoder::new(&self.bits, self.first_ms, self.count)
    }

    /// The bits of the value at a time.
    pub fn at(&self, time_ms: i64) -> Option<u64> {
        self.samples().find(|(time, _)| *time >= time_ms).filter(|(time, _)| *time == time_ms).map(|(_, value)| value)
    }
}

/// Decodes any bits and encodes what comes out again, for fuzzing. Whether the same samples come back.
#[doc(hidden)]
pub fn decode_and_encode(bits: &[u8], first_ms: i64, count: u16) -> bool {
    let mut samples: Vec<Sample> = Decoder::new(bits, first_ms, count).collect();
    samples.truncate(usize::from(CHUNK_SAMPLES));
    let again = Chunk::of(&samples);
    again.is_none_or(|chunk| chunk.samples().eq(samples.iter().copied()))
}

/// A chunk that grows at its end.
#[derive(Debug, Default)]
pub struct Encoder {
    bits: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    free: u8,
    count: u16,
    first_ms: i64,
    last_ms: i64,
    delta: i64,
    value: u64,
    leading: u8,
    significant: u8,
}

/// Lengths of the delta-of-delta and the prefixes that announce them: prefix, its length, length.
const TIME_WIDTHS: [(u64, u8, u8); 3] = [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)];

impl Encoder {
    /// How many samples.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Time of the first sample; 0 without samples.
    pub fn first_ms(&self) -> i64 {
        self.first_ms
    }

    /// Time of the last sample; 0 without samples.
    pub fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// Bits of the last value; 0 without samples.
    pub fn last_value(&self) -> u64 {
        self.value
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bits.capacity()
    }

    /// A copy of what is there, as a chunk. `None` without samples.
    pub fn chunk(&self) -> Option<Chunk> {
        if self.count == 0 {
            return None;
        }
        let bits = Arc::from(self.bits.as_slice());
        Some(Chunk { first_ms: self.first_ms, last_ms: self.last_ms, count: self.count, bits })
    }

    /// Adds a sample that is newer than all others.
    pub fn push(&mut self, time_ms: i64, value: u64) {
        if self.count == 0 {
            self.first_ms = time_ms;
            self.put(value, 64);
            // No window of significant bits to reuse yet.
            self.significant = 0;
        } else {
            // Wrapping both ways: a time however strange is decoded to itself.
            let delta = time_ms.wrapping_sub(self.last_ms);
            self.put_time(delta.wrapping_sub(self.delta));
            self.delta = delta;
            self.put_value(self.value ^ value);
        }
        self.last_ms = time_ms;
        self.value = value;
        self.count = self.count.saturating_add(1);
    }

    fn put_time(&mut self, change: i64) {
        if change == 0 {
            return self.put(0, 1);
        }
        for (prefix, prefix_length, width) in TIME_WIDTHS {
            let half = 1i64 << (width - 1);
            if (-half..half).contains(&change) {
                self.put(prefix, prefix_length);
                return self.put(change.cast_unsigned(), width);
            }
        }
        self.put(0b1111, 4);
        self.put(change.cast_unsigned(), 64);
    }

    fn put_value(&mut self, difference: u64) {
        if difference == 0 {
            return self.put(0, 1);
        }
        // At most 64, so they fit; the leading zeros have five bits in the format.
        let leading = difference.leading_zeros().min(31) as u8;
        let trailing = difference.trailing_zeros() as u8;
        let window_trailing = 64u8.saturating_sub(self.leading + self.significant);
        if self.significant > 0 && leading >= self.leading && trailing >= window_trailing {
            self.put(0b10, 2);
            return self.put(difference >> window_trailing, self.significant);
        }
        let significant = 64 - leading - trailing;
        self.put(0b11, 2);
        self.put(u64::from(leading), 5);
        // 64 has no room in six bits and is written as 0, which is never needed.
        self.put(u64::from(significant & 63), 6);
        self.put(difference >> trailing, significant);
        (self.leading, self.significant) = (leading, significant);
    }

    /// Appends the lowest `width` bits, the highest first.
    fn put(&mut self, bits: u64, width: u8) {
        let mut left = width;
        while left > 0 {
            if self.free == 0 {
                if self.bits.len() == self.bits.capacity() {
                    // By a quarter: every series has an open chunk, and doubling would leave a third of it unused.
                    self.bits.reserve_exact((self.bits.len() / 4).max(16));
                }
                self.bits.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (bits >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = self.bits.last_mut() {
                // At most eight bits wide.
                *last |= (part << (self.free - take)) as u8;
            }
            self.free -= take;
            left -= take;
        }
    }
}

/// Reads samples back. Bits that end too early end the samples.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bits: &'a [u8],
    /// The next bit.
    at: usize,
    left: u16,
    begun: bool,
    time_ms: i64,
    delta: i64,
    value: u64,
    leading: u8,
    significant: u8,
}

impl<'a> Decoder<'a> {
    fn new(bits: &'a [u8], first_ms: i64, count: u16) -> Self {
        Self {
            bits,
            at: 0,
            left: count,
            begun: false,
            time_ms: first_ms,
            delta: 0,
            value: 0,
            leading: 0,
            significant: 0,
        }
    }

    fn take(&mut self, width: u8) -> Option<u64> {
        let mut bits = 0u64;
        let mut left = width;
        while left > 0 {
            let byte = *self.bits.get(self.at / 8)?;
            // Below eight.
            let used = (self.at % 8) as u8;
            let take = left.min(8 - used);
            let part = (u64::from(byte) >> (8 - used - take)) & ((1 << take) - 1);
            bits = (bits << take) | part;
            self.at += usize::from(take);
            left -= take;
        }
        Some(bits)
    }

    fn take_time(&mut self) -> Option<i64> {
        if self.take(1)? == 0 {
            return Some(0);
        }
        for (_, _, width) in TIME_WIDTHS {
            if self.take(1)? == 0 {
                let unused = 64 - width;
                // Shifting up and down again extends the sign.
                return Some((self.take(width)? << unused).cast_signed() >> unused);
            }
        }
        self.take(64).map(u64::cast_signed)
    }

    fn take_difference(&mut self) -> Option<u64> {
        if self.take(1)? == 0 {
            return Some(0);
        }
        if self.take(1)? == 1 {
            self.leading = u8::try_from(self.take(5)?).ok()?;
            let significant = u8::try_from(self.take(6)?).ok()?;
            self.significant = if significant == 0 { 64 } else { significant };
        }
        let trailing = 64u8.checked_sub(self.leading.checked_add(self.significant)?)?;
        Some(self.take(self.significant)?.checked_shl(u32::from(trailing)).unwrap_or_default())
    }

    fn read(&mut self) -> Option<Sample> {
        if self.begun {
            self.delta = self.delta.wrapping_add(self.take_time()?);
            self.time_ms = self.time_ms.wrapping_add(self.delta);
            self.value ^= self.take_difference()?;
        } else {
            self.begun = true;
            self.value = self.take(64)?;
        }
        Some((self.time_ms, self.value))
    }
}

impl Iterator for Decoder<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.left = self.left.checked_sub(1)?;
        let sample = self.read();
        if sample.is_none() {
            self.left = 0;
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(samples: &[Sample]) -> Chunk {
        let chunk = Chunk::of(samples).unwrap();
        assert_eq!(chunk.samples().collect::<Vec<_>>(), samples);
        chunk
    }

    #[test]
    fn a_counter_at_a_steady_pace_costs_less_than_three_bytes_per_sample() {
        let samples: Vec<Sample> =
            (0..240i64).map(|at| (1_700_000_000_000 + at * 15_000, ((at * 3) as f64).to_bits())).collect();
        assert!(round_trip(&samples).bits.len() < 3 * 240);
    }

    #[test]
    fn a_value_that_stays_costs_two_bits_per_sample() {
        let samples: Vec<Sample> = (0..240).map(|at| (at * 15_000, 1.5f64.to_bits())).collect();
        assert!(round_trip(&samples).bits.len() <= 8 + 3 + 240 / 4 + 1);
    }

    #[test]
    fn every_delta_at_the_edges_of_the_widths_is_decoded_to_itself() {
        let mut samples = vec![(0i64, 0u64)];
        let mut time = 0i64;
        for width in [13, 14, 16, 17, 19, 20, 40] {
            for step in [(1i64 << width) - 1, 1 << width, (1 << width) + 1, 1] {
                time += step;
                samples.push((time, time as u64));
            }
        }
        round_trip(&samples);
    }

    proptest! {
        #[test]
        fn any_samples_come_back_bit_for_bit(
            start in any::<i64>(),
            steps in prop::collection::vec((prop_oneof![1i64..100_000, any::<i64>()], prop_oneof![any::<u64>(), (0u64..100).prop_map(|v| (v as f64).to_bits())]), 1..300),
        ) {
            let mut time = start;
            let samples: Vec<Sample> = steps.iter().map(|(step, value)| { time = time.wrapping_add(*step); (time, *value) }).collect();
            round_trip(&samples);
        }

        #[test]
        fn bits_that_end_anywhere_or_are_wrong_never_panic(bits in prop::collection::vec(any::<u8>(), 0..200), count in 0u16..400) {
            let found = Decoder::new(&bits, 0, count).count();
            prop_assert!(found <= usize::from(count));
        }
    }
}
