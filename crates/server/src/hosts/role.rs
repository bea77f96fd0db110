//! Which series of a host says what about it.
//!
//! Names are those of OpenTelemetry's semantic conventions. The Collector's hostmetricsreceiver
//! (0.149) still sends the attribute names of before 1.0 of the system conventions: both spellings
//! count.

use super::older_names;

/// What a CPU does in a mode, as far as a row cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMode {
    /// The series has no mode: it is the use itself.
    All,
    /// Nothing.
    Idle,
    /// Nothing, because it waits for a disk.
    Wait,
    /// Work.
    Busy,
}

/// What memory or space is used for, as far as a row cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The whole.
    Limit,
    /// In use.
    Used,
    /// Not in use.
    Free,
    /// Buffers and page cache (`system.memory.usage` of the Collector adds up with them).
    Cached,
    /// Kept for root.
    Reserved,
}

/// The direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the host.
    Receive,
    /// Out of the host.
    Transmit,
}

/// What one series says about its host. The mount point of filesystems is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `system.cpu.utilization`.
    CpuUtilization(CpuMode),
    /// `system.cpu.time`, a counter.
    CpuTime(CpuMode),
    /// `system.cpu.logical.count`.
    CpuCount,
    /// `system.memory.utilization` of the state `used`.
    MemoryUtilization,
    /// `system.memory.usage` and `system.memory.limit`.
    Memory(Space),
    /// `system.filesystem.utilization`.
    DiskUtilization,
    /// `system.filesystem.usage` and `system.filesystem.limit`.
    Disk(Space),
    /// `system.network.io`, a counter.
    NetworkIo(Direction),
    /// `network.throughput`.
    NetworkThroughput,
    /// `network.latency`.
    NetworkLatency,
    /// `system.cpu.load_average.1m`.
    Load1,
    /// `system.cpu.load_average.5m`.
    Load5,
    /// `system.cpu.load_average.15m`.
    Load15,
    /// `system.uptime`.
    Uptime,
    /// `system.process.count`; the Collector's `system.processes.count`, a series per state.
    ProcessCount,
    /// `hw.temperature`.
    Temperature,
}

impl Role {
    /// Whether its series only grows, so that its rate is what counts.
    pub fn is_counter(self) -> bool {
        matches!(self, Role::CpuTime(_) | Role::NetworkIo(_))
    }

    /// How well the interval can be learnt from it: what every client sends with every poll is best.
    pub fn rank_as_reference(self) -> u8 {
        match self {
            Role::CpuUtilization(CpuMode::All | CpuMode::Idle) => 3,
            Role::CpuTime(CpuMode::Idle) => 2,
            Role::MemoryUtilization | Role::Memory(Space::Used) => 1,
            _ => 0,
        }
    }
}

/// Reads a label of a series by its present name or an older one.
pub fn label<'a>(labels: &dyn Fn(&str) -> Option<&'a str>, name: &str) -> Option<&'a str> {
    labels(name).or_else(|| older_names(name).iter().find_map(|older| labels(older)))
}

/// What a series says about its host; `None` if a row does not show it.
pub fn of<'a>(metric: &str, labels: &dyn Fn(&str) -> Option<&'a str>) -> Option<Role> {
    Some(match metric {
        "system.cpu.utilization" => Role::CpuUtilization(cpu_mode(labels)),
        "system.cpu.time" => Role::CpuTime(cpu_mode(labels)),
        "system.cpu.logical.count" => Role::CpuCount,
        "system.memory.utilization" if label(labels, "system.memory.state") == Some("used") => Role::MemoryUtilization,
        "system.memory.limit" => Role::Memory(Space::Limit),
        "system.memory.usage" => Role::Memory(space(label(labels, "system.memory.state"))?),
        "system.filesystem.utilization" => {
            let state = label(labels, "system.filesystem.state");
            state.is_none_or(|state| state == "used").then_some(Role::DiskUtilization)?
        }
        "system.filesystem.limit" => Role::Disk(Space::Limit),
        "system.filesystem.usage" => Role::Disk(space(label(labels, "system.filesystem.state"))?),
        "system.network.io" => network_io(labels)?,
        "network.throughput" => Role::NetworkThroughput,
        "network.latency" => Role::NetworkLatency,
        "system.cpu.load_average.1m" => Role::Load1,
        "system.cpu.load_average.5m" => Role::Load5,
        "system.cpu.load_average.15m" => Role::Load15,
        "system.uptime" => Role::Uptime,
        "system.process.count" | "system.processes.count" => Role::ProcessCount,
        "hw.temperature" => Role::Temperature,
        _ => return None,
    })
}

fn cpu_mode<'a>(labels: &dyn Fn(&str) -> Option<&'a str>) -> CpuMode {
    match label(labels, "cpu.mode") {
        None => CpuMode::All,
        Some("idle") => CpuMode::Idle,
        Some("iowait" | "wait") => CpuMode::Wait,
        Some(_) => CpuMode::Busy,
    }
}

fn space(state: Option<&str>) -> Option<Space> {
    Some(match state? {
        "used" => Space::Used,
        "free" => Space::Free,
        "buffered" | "buffers" | "cached" => Space::Cached,
        "reserved" => Space::Reserved,
        _ => return None,
    })
}

/// Beginnings of names of interfaces whose traffic is that of another one, or of none: the ones
/// that Weir's own collector leaves out too.
const VIRTUAL_INTERFACES: [&str; 11] =
    ["veth", "docker", "br-", "virbr", "vnet", "cali", "cni", "flannel", "lxc", "ifb", "dummy"];

fn network_io<'a>(labels: &dyn Fn(&str) -> Option<&'a str>) -> Option<Role> {
    let interface = label(labels, "network.interface.name").unwrap_or_default();
    if interface == "lo" || VIRTUAL_INTERFACES.iter().any(|virtual_one| interface.starts_with(virtual_one)) {
        return None;
    }
    match label(labels, "network.io.direction")? {
        "receive" => Some(Role::NetworkIo(Direction::Receive)),
        "transmit" => Some(Role::NetworkIo(Direction::Transmit)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(metric: &str, labels: &[(&str, &'static str)]) -> Option<Role> {
        of(metric, &|name| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn present_and_older_attribute_names_mean_the_same() {
        for (metric, present, older, wanted) in [
            ("system.cpu.utilization", ("cpu.mode", "idle"), ("state", "idle"), Role::CpuUtilization(CpuMode::Idle)),
            ("system.cpu.time", ("cpu.mode", "iowait"), ("state", "wait"), Role::CpuTime(CpuMode::Wait)),
            ("system.memory.usage", ("system.memory.state", "used"), ("state", "used"), Role::Memory(Space::Used)),
            (
                "system.memory.usage",
                ("system.memory.state", "buffers"),
                ("state", "buffered"),
                Role::Memory(Space::Cached),
            ),
            (
                "system.filesystem.usage",
                ("system.filesystem.state", "free"),
                ("state", "free"),
                Role::Disk(Space::Free),
            ),
            (
                "system.network.io",
                ("network.io.direction", "transmit"),
                ("direction", "transmit"),
                Role::NetworkIo(Direction::Transmit),
            ),
        ] {
            assert_eq!(role(metric, &[present]), Some(wanted), "{metric} {present:?}");
            assert_eq!(role(metric, &[older]), Some(wanted), "{metric} {older:?}");
        }
    }

    #[test]
    fn loopback_and_virtual_interfaces_are_no_traffic_of_the_host() {
        let of_interface = |key, name| role("system.network.io", &[(key, name), ("direction", "receive")]);
        assert_eq!(of_interface("device", "lo"), None);
        assert_eq!(of_interface("network.interface.name", "veth12ab"), None);
        assert_eq!(of_interface("device", "eth0"), Some(Role::NetworkIo(Direction::Receive)));
    }

    #[test]
    fn only_used_memory_is_use() {
        assert_eq!(role("system.memory.utilization", &[("system.memory.state", "free")]), None);
        assert_eq!(role("system.memory.usage", &[("state", "slab_reclaimable")]), None);
        assert_eq!(role("system.filesystem.utilization", &[]), Some(Role::DiskUtilization));
        assert_eq!(role("process.memory.usage", &[]), None);
    }
}
