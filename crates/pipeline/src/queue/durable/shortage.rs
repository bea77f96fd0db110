//! Why a queue takes nothing at the moment, in words for people.

use std::fmt;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The queue has reached its own bound, in bytes.
    Bound(u64),
    /// All queues together have reached theirs, in bytes.
    SharedBound(u64),
    /// The file system has less free space than what is left to others, in bytes.
    Reserve(u64),
    /// The file system is full.
    Full,
    /// The disk fails.
    Disk(String),
    /// Too much waits for the disk already.
    Slow,
    /// The memory of the process is used up, in bytes.
    Memory(usize),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |bytes: u64| match bytes {
            less if less < 1 << 20 => format!("{less} bytes"),
            more => format!("{} MiB", more >> 20),
        };
        match self {
            Shortage::Bound(limit) => write!(f, "the queue is full: its {} on disk are used", amount(*limit)),
            Shortage::SharedBound(limit) => {
                write!(f, "the queues are full: the {} of all queues on disk are used", amount(*limit))
            }
            Shortage::Reserve(reserve) => {
                write!(f, "the disk is nearly full: the last {} are left to others; free space", amount(*reserve))
            }
            Shortage::Full => f.write_str("the disk is full; free space"),
            Shortage::Disk(error) => write!(f, "the disk fails: {error}; look at the system's log"),
            Shortage::Slow => f.write_str("the disk is slower than the sources; they wait for it"),
            Shortage::Memory(limit) => {
                write!(f, "memory is used up: {} wait in the process", amount(*limit as u64))
            }
        }
    }
}
