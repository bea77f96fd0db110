//! The columns of a row, and the reasons for which records are dropped.

use std::collections::BTreeMap;

/// Why records were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The backend refused them for good.
    Refused,
    /// The exporter's queue was full, and they could not wait at their source.
    QueueFull,
    /// They could not be delivered within `retry_max_age` or `retry_attempts`.
    Expired,
    /// Their sender gave up waiting and sends them again.
    Withdrawn,
    /// Weir was stopped before they could be delivered.
    Stopped,
    /// No route leads to an exporter that takes their signal.
    NoRoute,
    /// A route's `keep` left them out.
    Filtered,
    /// They give no point in the temporality that the backend wants (the first of a series).
    Temporality,
    /// They cannot be encoded for the backend.
    NotEncodable,
    /// The disk failed before their queue had them on it; their source sends them again if it can.
    NotStored,
    /// Their queue has them no more: the disk cannot read them, or gives back other bytes.
    Unreadable,
    /// The memory of the process was used up, and they could not wait at their source.
    MemoryFull,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 12] = [
        Reason::Refused,
        Reason::QueueFull,
        Reason::Expired,
        Reason::Withdrawn,
        Reason::Stopped,
        Reason::NoRoute,
        Reason::Filtered,
        Reason::Temporality,
        Reason::NotEncodable,
        Reason::NotStored,
        Reason::Unreadable,
        Reason::MemoryFull,
    ];

    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Refused => "refused",
            Reason::QueueFull => "queue_full",
            Reason::Expired => "expired",
            Reason::Withdrawn => "withdrawn",
            Reason::Stopped => "stopped",
            Reason::NoRoute => "no_route",
            Reason::Filtered => "filtered",
            Reason::Temporality => "temporality",
            Reason::NotEncodable => "not_encodable",
            Reason::NotStored => "not_stored",
            Reason::Unreadable => "unreadable",
            Reason::MemoryFull => "memory_full",
        }
    }

    /// The reason of a name; `None` for one of a later version.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// The columns of one row, in records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken from the source for this exporter.
    pub accepted: u64,
    /// The exporter's backend has them.
    pub delivered: u64,
    /// Waiting in the exporter's queue.
    pub queued: u64,
    /// In a request under way, or waiting to be sent again.
    pub in_flight: u64,
    /// Refused for good and kept as dead letters. What is replayed is accepted anew, from the source
    /// [`DEAD_LETTERS`](crate::ledger::DEAD_LETTERS).
    pub dead_lettered: u64,
    /// Not delivered, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl Counts {
    /// All dropped records.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// What does not add up: 0 unless Weir has an error.
    pub fn difference(&self) -> i128 {
        let kept = [self.delivered, self.queued, self.in_flight, self.dead_lettered, self.dropped_total()];
        i128::from(self.accepted) - kept.into_iter().map(i128::from).sum::<i128>()
    }
}
