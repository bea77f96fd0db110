//! What the store says about itself.

/// Numbers about the store. Bytes are counted, not measured: what the allocator adds is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series that are held.
    pub series: usize,
    /// Samples that are held. One that was replaced counts until its neighbours go.
    pub samples: usize,
    /// Bytes in memory.
    pub memory_bytes: usize,
    /// Of these, bytes that series cost: labels, text, tables, index.
    pub series_bytes: usize,
    /// Of these, bytes that samples cost.
    pub sample_bytes: usize,
    /// Bytes of the log.
    pub disk_bytes: u64,
    /// Time of the oldest sample, unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Time of the newest sample, unix milliseconds.
    pub newest_ms: Option<i64>,
    /// Samples that came again with the same time and value.
    pub duplicates: u64,
    /// Points that were older than the retention, or far ahead of the clock, when they came.
    pub outside: u64,
    /// Samples that went before their time because memory or the log was full.
    pub evicted: u64,
    /// Places in the log that were damaged when it was read.
    pub damaged_records: u64,
    /// Samples that were whole in the log, but whose series was described only in a damaged place.
    pub orphaned: u64,
    /// How often the disk was waited for.
    pub syncs: u64,
}

impl Stats {
    /// Bytes per series, on average.
    pub fn bytes_per_series(&self) -> f64 {
        self.series_bytes as f64 / self.series.max(1) as f64
    }

    /// Bytes per sample, on average.
    pub fn bytes_per_sample(&self) -> f64 {
        self.sample_bytes as f64 / self.samples.max(1) as f64
    }
}
