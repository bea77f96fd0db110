//! What a host's series say about it now.

use super::counter::increase;
use super::role::{CpuMode, Direction, Role, Space};
use super::row::HostRow;

/// A field of a row is shown while its series has samples, or lacks at most this many of its own
/// usual distances compared with the newest sample of the host.
const DISTANCES_UNTIL_GONE: i64 = 5;

/// At least this long, milliseconds: collectors of one host poll at different intervals.
const GONE_AT_LEAST_MS: i64 = 60_000;

/// Most series of one host that a row is made of. A host with more mounts and CPUs than that shows
/// what came first.
pub const READINGS_PER_HOST: usize = 8192;

/// The last sample of one series, and its rate if it is a counter.
#[derive(Clone, Debug)]
pub struct Reading {
    series: u32,
    role: Role,
    /// Mount point of a filesystem, else the number or name of a CPU.
    part: Box<str>,
    time_ms: i64,
    value: f64,
    rate: Option<f64>,
    distance_ms: i64,
}

impl Reading {
    /// A series that has no sample yet.
    pub fn new(series: u32, role: Role, part: &str) -> Self {
        Self { series, role, part: part.into(), time_ms: i64::MIN, value: f64::NAN, rate: None, distance_ms: 0 }
    }

    /// Number of its series in the store.
    pub fn series(&self) -> u32 {
        self.series
    }

    /// What it says.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The time of the last sample, unix milliseconds.
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Takes a sample; answers whether it is newer than the last. Older ones change nothing.
    /// NaN ends the series (it comes back with the next number).
    pub fn saw(&mut self, time_ms: i64, value: f64) -> bool {
        if time_ms <= self.time_ms {
            return false;
        }
        let first = self.time_ms == i64::MIN;
        let distance_ms = time_ms.saturating_sub(self.time_ms);
        self.rate = (!first && self.value.is_finite() && value.is_finite())
            // Milliseconds of one distance are far below 2^53.
            .then(|| increase(self.value, value) / (distance_ms as f64 / 1000.0));
        self.distance_ms = if first { 0 } else { distance_ms };
        (self.time_ms, self.value) = (time_ms, value);
        true
    }

    /// The value that counts, if the series still exists at `newest_ms`.
    fn now(&self, newest_ms: i64) -> Option<f64> {
        let allowed = self.distance_ms.saturating_mul(DISTANCES_UNTIL_GONE).clamp(GONE_AT_LEAST_MS, 3_600_000);
        if self.time_ms < newest_ms.saturating_sub(allowed) {
            return None;
        }
        let value = if self.role.is_counter() { self.rate? } else { self.value };
        value.is_finite().then_some(value)
    }
}

/// A sum and how many it is of.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: f64,
    count: u32,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.total += value;
        self.count += 1;
    }

    fn total(self) -> Option<f64> {
        (self.count > 0).then_some(self.total)
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.total / f64::from(self.count))
    }
}

/// Use of a filesystem or of the memory.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    utilization: Option<f64>,
    limit: Option<f64>,
    used: Option<f64>,
    free: Option<f64>,
    cached: Option<f64>,
    reserved: Option<f64>,
}

impl Usage {
    fn set(&mut self, space: Space, value: f64) {
        let place = match space {
            Space::Limit => &mut self.limit,
            Space::Used => &mut self.used,
            Space::Free => &mut self.free,
            Space::Cached => &mut self.cached,
            Space::Reserved => &mut self.reserved,
        };
        // Buffers and caches are two series of one meaning.
        *place = Some(place.filter(|_| space == Space::Cached).unwrap_or(0.0) + value);
    }

    /// The whole: as told, else what the parts add up to.
    fn total(self) -> Option<f64> {
        let parts = || {
            let sum = self.used? + self.free? + self.cached.unwrap_or(0.0) + self.reserved.unwrap_or(0.0);
            Some(sum)
        };
        self.limit.or_else(parts).filter(|&total| total > 0.0)
    }

    /// Fraction of the memory in use.
    fn of_memory(self) -> Option<f64> {
        self.utilization.or_else(|| Some(self.used? / self.total()?)).map(fraction)
    }

    /// Fraction in use as `df` shows it: what is kept for root counts neither way.
    fn of_disk(self) -> Option<f64> {
        let shown = || {
            let usable = self.used? + self.free?;
            (usable > 0.0).then(|| self.used.map(|used| used / usable)).flatten()
        };
        self.utilization.or_else(shown).map(fraction)
    }
}

/// Within 0 and 1: clocks and counters that disagree a little must not draw bars beyond their frame.
fn fraction(value: f64) -> f64 {
    value.clamp(0.0, 1.0)
}

/// CPU use out of the series of modes.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    told: Sum,
    idle: Sum,
    wait: Sum,
    idle_time: Sum,
    all_time: Sum,
}

impl Cpu {
    fn fraction(self) -> Option<f64> {
        let from_idle = || Some(1.0 - self.idle.mean()? - self.wait.mean().unwrap_or(0.0));
        let from_time = || {
            let all = self.all_time.total().filter(|&all| all > 0.0)?;
            Some(1.0 - self.idle_time.total()? / all)
        };
        from_idle().or_else(|| self.told.mean()).or_else(from_time).map(fraction)
    }
}

/// The newest values of what a row shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub(super) cpu: Option<f64>,
    cpu_count: Option<f64>,
    memory: Option<f64>,
    memory_total_bytes: Option<f64>,
    disk: Option<f64>,
    disk_total_bytes: Option<f64>,
    disk_mount: Option<String>,
    receive: Option<f64>,
    transmit: Option<f64>,
    throughput: Option<f64>,
    /// Seconds; not in the row, but in the messages of AgentOps' WebSocket.
    pub(super) latency_seconds: Option<f64>,
    load: [Option<f64>; 3],
    uptime_seconds: Option<f64>,
    process_count: Option<f64>,
    temperature_celsius: Option<f64>,
}

impl Shown {
    /// What the readings of one host say, `newest_ms` being its newest sample.
    pub fn of(readings: &[Reading], newest_ms: i64) -> Shown {
        let mut shown = Shown::default();
        let mut cpu = Cpu::default();
        let mut memory = Usage::default();
        let mut disks: Vec<(&str, Usage)> = Vec::new();
        let (mut receive, mut transmit, mut processes) = (Sum::default(), Sum::default(), Sum::default());
        for reading in readings {
            let Some(value) = reading.now(newest_ms) else { continue };
            match reading.role {
                Role::CpuUtilization(CpuMode::All) => cpu.told.add(value),
                Role::CpuUtilization(CpuMode::Idle) => cpu.idle.add(value),
                Role::CpuUtilization(CpuMode::Wait) => cpu.wait.add(value),
                Role::CpuUtilization(CpuMode::Busy) | Role::CpuTime(CpuMode::All) => {}
                Role::CpuTime(mode) => {
                    cpu.all_time.add(value);
                    if matches!(mode, CpuMode::Idle | CpuMode::Wait) {
                        cpu.idle_time.add(value);
                    }
                }
                Role::CpuCount => shown.cpu_count = Some(value),
                Role::MemoryUtilization => memory.utilization = Some(value),
                Role::Memory(space) => memory.set(space, value),
                Role::DiskUtilization => disk_of(&mut disks, &reading.part).utilization = Some(value),
                Role::Disk(space) => disk_of(&mut disks, &reading.part).set(space, value),
                Role::NetworkIo(Direction::Receive) => receive.add(value),
                Role::NetworkIo(Direction::Transmit) => transmit.add(value),
                Role::NetworkThroughput => shown.throughput = Some(value),
                Role::NetworkLatency => shown.latency_seconds = Some(value),
                Role::Load1 => set(&mut shown.load, 0, value),
                Role::Load5 => set(&mut shown.load, 1, value),
                Role::Load15 => set(&mut shown.load, 2, value),
                Role::Uptime => shown.uptime_seconds = Some(value),
                Role::ProcessCount => processes.add(value),
                Role::Temperature => shown.temperature_celsius = shown.temperature_celsius.max_number(value),
            }
        }
        shown.cpu = cpu.fraction();
        shown.cpu_count = shown.cpu_count.or_else(|| counted_cpus(readings, newest_ms));
        (shown.memory, shown.memory_total_bytes) = (memory.of_memory(), memory.total());
        (shown.receive, shown.transmit) = (receive.total(), transmit.total());
        shown.process_count = processes.total();
        shown.take_disk(&disks);
        shown
    }

    /// The disk of `/`, else the fullest.
    fn take_disk(&mut self, disks: &[(&str, Usage)]) {
        let fullest = || {
            let known = disks.iter().filter_map(|disk| Some((disk, disk.1.of_disk()?)));
            known.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(disk, _)| disk)
        };
        let root = disks.iter().find(|(mount, usage)| *mount == "/" && usage.of_disk().is_some());
        if let Some((mount, usage)) = root.or_else(fullest) {
            self.disk = usage.of_disk();
            self.disk_total_bytes = usage.total();
            self.disk_mount = Some((*mount).to_owned()).filter(|mount| !mount.is_empty());
        }
    }

    /// Writes the values into a row.
    pub fn write(&self, row: &mut HostRow) {
        row.cpu = self.cpu;
        row.cpu_count = self.cpu_count;
        row.memory = self.memory;
        row.memory_total_bytes = self.memory_total_bytes;
        row.disk = self.disk;
        row.disk_total_bytes = self.disk_total_bytes;
        row.disk_mount.clone_from(&self.disk_mount);
        row.network_receive_bytes_per_second = self.receive;
        row.network_transmit_bytes_per_second = self.transmit;
        row.network_bits_per_second = self.throughput;
        [row.load1, row.load5, row.load15] = self.load;
        row.uptime_seconds = self.uptime_seconds;
        row.process_count = self.process_count;
        row.temperature_celsius = self.temperature_celsius;
    }
}

/// The larger of what is there and a number.
trait MaxNumber {
    fn max_number(self, value: f64) -> Self;
}

impl MaxNumber for Option<f64> {
    fn max_number(self, value: f64) -> Self {
        Some(self.map_or(value, |before| before.max(value)))
    }
}

fn set<const N: usize>(values: &mut [Option<f64>; N], at: usize, value: f64) {
    if let Some(place) = values.get_mut(at) {
        *place = Some(value);
    }
}

fn disk_of<'d, 'r>(disks: &'d mut Vec<(&'r str, Usage)>, mount: &'r str) -> &'d mut Usage {
    let at = disks.iter().position(|(known, _)| *known == mount).unwrap_or_else(|| {
        disks.push((mount, Usage::default()));
        disks.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "found or pushed just now")]
    &mut disks[at].1
}

/// How many CPUs the series of CPU time are of, where nobody says it.
fn counted_cpus(readings: &[Reading], newest_ms: i64) -> Option<f64> {
    let idle = readings.iter().filter(|r| matches!(r.role, Role::CpuTime(CpuMode::Idle)) && !r.part.is_empty());
    let count = idle.filter(|r| r.now(newest_ms).is_some()).count();
    u32::try_from(count).ok().filter(|&count| count > 0).map(f64::from)
}
