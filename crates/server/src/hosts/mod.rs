//! The live table of machines, and what charts ask of the store.
//!
//! - [`table`]: all hosts; [`host`]: one, with what the metadata says (`profile`); [`row`]: what is given out
//! - [`role`]: which series says what; `readings`: from series to the values of a row
//! - [`liveness`]: up, late or down; `sparkline`: the last hour
//! - [`feed`]: keeps the table from what the store commits
//! - [`series`]: charts; `counter`: how much a counter grew; [`detail`]: processes and probes of one host

mod counter;
pub mod detail;
pub mod feed;
pub mod host;
pub mod liveness;
mod profile;
mod readings;
pub mod role;
pub mod row;
pub mod series;
mod sparkline;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;

/// The names that an attribute had before, newest first: the Collector's hostmetricsreceiver (0.149)
/// sends the oldest ones.
pub fn older_names(name: &str) -> &'static [&'static str] {
    match name {
        "cpu.mode" => &["system.cpu.state", "state"],
        "cpu.logical_number" => &["system.cpu.logical_number", "cpu"],
        "system.memory.state" | "system.filesystem.state" | "system.paging.state" => &["state"],
        "system.filesystem.mountpoint" => &["mountpoint"],
        "system.filesystem.type" => &["type"],
        "system.filesystem.mode" => &["mode"],
        "system.device" => &["device"],
        "network.interface.name" => &["system.device", "device"],
        "network.io.direction" => &["system.network.direction", "direction"],
        "disk.io.direction" => &["system.disk.direction", "direction"],
        "process.cpu.mode" => &["cpu.mode", "state"],
        _ => &[],
    }
}
