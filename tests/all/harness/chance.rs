//! Numbers that differ from run to run.

/// A generator whose seed is printed, so that a run can be had again with `WEIR_TEST_SEED`.
pub struct Chance(u64);

impl Chance {
    /// A new one.
    pub fn new() -> Chance {
        let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| jiff::Timestamp::now().as_microsecond().unsigned_abs());
        println!("WEIR_TEST_SEED={seed}");
        Chance(seed | 1)
    }

    /// From `least` to `most` (xorshift64, Marsaglia 2003).
    pub fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        least + self.0 % (most - least + 1)
    }
}
