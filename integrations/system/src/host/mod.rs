//! What this machine says about itself: CPU, memory, disks, filesystems, network, load, processes,
//! pressure and temperatures, from `/proc` and `/sys`.
//!
//! Needs no rights. Names and attributes are those of OpenTelemetry's semantic conventions 1.44
//! (`system.*`, `hw.*`; model/system/metrics.yaml); where those have none, the comment at the
//! metric says whose name it is. Each file of this folder is one area and fails on its own.
//!
//! Limits: Linux only. Limits of the container that the agent runs in are not applied: the numbers
//! are the machine's. Disk times wrap after 49.7 days of work and go on growing only while the
//! agent runs.

mod area;
mod connections;
pub(crate) mod cpu;
mod disk;
mod filesystem;
mod isolation;
mod memory;
mod network;
pub(crate) mod overall;
mod pressure;
mod temperature;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::{MetricDescription, Signal};
use weir_pipeline::role::Watching;
use weir_pipeline::{About, Collect, Context, Fault, FaultKind, Kind, MetricsBuilder};

use self::area::{Area, Points, Poll};
use self::filesystem::{AskSpace, Filesystems};
use self::temperature::Temperatures;
use crate::kernel_files::{Root, read_once};
use crate::name_filter::NameFilter;

/// What is watched, and where.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Groups that are not watched. By default all are.
    pub disable: Vec<Group>,
    /// Disks to watch, by name as in `/proc/diskstats`; `*` stands for any characters. By default
    /// all but those of `exclude_devices`.
    pub devices: Vec<String>,
    /// Disks not to watch. By default, if `devices` is empty: `loop*`, `ram*`, `zram*`, `fd*`, `sr*`.
    pub exclude_devices: Option<Vec<String>>,
    /// Mount points of filesystems to watch. By default all but those of `exclude_mounts`.
    pub mounts: Vec<String>,
    /// Mount points not to watch. By default, if `mounts` is empty, those that containers and the
    /// system make for themselves, such as `/dev/*` and `/var/lib/docker/*`.
    pub exclude_mounts: Option<Vec<String>>,
    /// Types of filesystems to watch, for example `ext4`. By default all but those of
    /// `exclude_filesystem_types`.
    pub filesystem_types: Vec<String>,
    /// Types of filesystems not to watch. By default, if `filesystem_types` is empty, those without
    /// files of people, such as `proc`, and read-only images, such as `squashfs`.
    pub exclude_filesystem_types: Option<Vec<String>>,
    /// Network interfaces to watch. By default all but those of `exclude_interfaces`.
    pub interfaces: Vec<String>,
    /// Network interfaces not to watch. By default, if `interfaces` is empty: `lo` and those of
    /// containers and virtual machines, such as `veth*` and `docker*`.
    pub exclude_interfaces: Option<Vec<String>>,
    /// Whether TCP connections are counted by state. Costs 1 to 3 ms per poll, because the kernel
    /// searches its whole table; beyond 10,000 sockets only their number is told. Default: `false`.
    pub connection_states: bool,
    /// Where the root of the watched machine is mounted. Default: `/`. An agent in a container
    /// watches its host with `/host` if the host's `/` is mounted there.
    pub root_path: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            disable: Vec::new(),
            devices: Vec::new(),
            exclude_devices: None,
            mounts: Vec::new(),
            exclude_mounts: None,
            filesystem_types: Vec::new(),
            exclude_filesystem_types: None,
            interfaces: Vec::new(),
            exclude_interfaces: None,
            connection_states: false,
            root_path: "/".to_owned(),
        }
    }
}

/// A group of metrics that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// CPU time, utilization and counts.
    Cpu,
    /// Load averages.
    Load,
    /// Memory by state.
    Memory,
    /// Swap and page faults.
    Paging,
    /// Disk operations.
    Disk,
    /// Space of filesystems.
    Filesystem,
    /// Traffic and links of network interfaces.
    Network,
    /// Sockets.
    Connections,
    /// Number of processes.
    Processes,
    /// Time since boot.
    Uptime,
    /// Pressure stall information.
    Pressure,
    /// Temperature sensors.
    Temperature,
}

impl Group {
    /// The name in configuration files.
    fn name(self) -> &'static str {
        match self {
            Group::Cpu => "cpu",
            Group::Load => "load",
            Group::Memory => "memory",
            Group::Paging => "paging",
            Group::Disk => "disk",
            Group::Filesystem => "filesystem",
            Group::Network => "network",
            Group::Connections => "connections",
            Group::Processes => "processes",
            Group::Uptime => "uptime",
            Group::Pressure => "pressure",
            Group::Temperature => "temperature",
        }
    }
}

const ABOUT: About = About {
    name: "host",
    summary: "CPU, memory, disks, filesystems, network, load, processes, pressure and temperatures of this machine",
    details: "\
Runs without being configured and needs no rights: everything comes from `/proc` and `/sys`.

Names and attributes are OpenTelemetry's (`system.*`). Fractions are from 0 to 1, sizes in bytes, times in seconds.
Counters count since the machine started. `system.cpu.utilization` appears with the second poll. What the machine
does not have (swap, sensors, pressure information) is absent, never 0; the start-up message says what is not watched
and why.

**A mount that hangs** (a dead NFS server, a stuck FUSE program) delays one poll by at most one second, once. Then
`system.filesystem.hung` is 1 for it, the error names it, and everything else is collected as usual. It is asked again
as soon as the kernel gives up or the server is back.

**In a container**, mount the host's root and say where, as `root_path: /host`
(`docker run -v /:/host:ro,rslave ...`). Mount points keep the names that they have on the host.

**Which lists count:** patterns may contain `*`. A list of things to watch replaces the built-in exclusions, so
`interfaces: [lo]` watches just `lo`.

The fields of older dashboards, from these metrics:

| field | from |
|---|---|
| `cpuUsage` (percent) | 100 x (1 - `system.cpu.utilization` of the modes `idle` and `iowait`) |
| `memoryUsage` (percent) | 100 x `system.memory.utilization` of the state `used` |
| `memoryTotal` (MiB) | `system.memory.limit` / 1048576 |
| `diskUsage` (percent) | 100 x `system.filesystem.utilization` of the mount point `/` |
| `diskTotal` (GB) | `system.filesystem.limit` of the mount point `/` / 1e9 |
| `networkThroughput` (Mbit/s) | rate of `system.network.io`, both directions, all interfaces, x 8 / 1e6 |
| `processCount` | `system.process.count` |

Limits: logical volumes and RAID devices are shown beside the disks below them, and bonds beside their interfaces, so
sums over all devices count those twice. Limits of the agent's own container are not applied.",
    sample: "\
host:
  interval: 15s
  disable: [temperature]
  exclude_mounts: [/mnt/archive, /dev, /dev/*]
  interfaces: [eth*, wlan0]
",
    metrics: METRICS,
    signals: &[Signal::Metrics],
};

const METRICS: &[MetricDescription<'static>] = &[
    cpu::TIME,
    cpu::UTILIZATION,
    cpu::LOGICAL_COUNT,
    cpu::PHYSICAL_COUNT,
    overall::LOAD_1M,
    overall::LOAD_5M,
    overall::LOAD_15M,
    memory::USAGE,
    memory::LIMIT,
    memory::UTILIZATION,
    memory::AVAILABLE,
    memory::SHARED,
    memory::SLAB_USAGE,
    memory::PAGING_USAGE,
    memory::PAGING_UTILIZATION,
    memory::PAGING_FAULTS,
    memory::PAGING_OPERATIONS,
    disk::IO,
    disk::OPERATIONS,
    disk::IO_TIME,
    disk::OPERATION_TIME,
    disk::MERGED,
    filesystem::USAGE,
    filesystem::LIMIT,
    filesystem::UTILIZATION,
    filesystem::INODES_USAGE,
    filesystem::HUNG,
    network::IO,
    network::PACKET_COUNT,
    network::PACKET_DROPPED,
    network::ERRORS,
    network::LINK_UP,
    network::LINK_SPEED,
    connections::CONNECTION_COUNT,
    overall::PROCESS_COUNT,
    overall::PROCESS_CREATED,
    overall::UPTIME,
    pressure::STALL_TIME,
    temperature::TEMPERATURE,
];

/// The host collector.
pub const KIND: Kind = Kind::collect::<Host>(ABOUT).by_default();

/// How long a poll waits for filesystems and sensors at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// More room than this is given back after a poll; only very long socket lists need it.
const LARGEST_KEPT_BUFFER_BYTES: usize = 256 << 10;

/// An area, and whether it ever worked: one that never did is "not watched" and no fault.
struct Slot {
    group: Group,
    area: Box<dyn Area>,
    worked: bool,
}

/// Watches this machine.
pub struct Host {
    root: Root,
    areas: Vec<Slot>,
    filesystems: Option<Filesystems>,
    filesystems_worked: bool,
    temperatures: Option<Temperatures>,
    buffer: Vec<u8>,
    boot_unix_nano: Option<u64>,
    longest_wait: Duration,
}

impl Host {
    fn with(config: &Config, context: &Context, ask: AskSpace) -> Result<Host, Fault> {
        if !config.root_path.starts_with('/') {
            let message = format!("`root_path` must begin with `/`, not `{}`", config.root_path);
            return Err(Fault::configuration(message));
        }
        let root = Root::new(&config.root_path);
        let on = |group| !config.disable.contains(&group);
        let types = NameFilter::new(
            &config.filesystem_types,
            config.exclude_filesystem_types.as_deref(),
            &filesystem::PSEUDO_TYPES,
        );
        let mounts = NameFilter::new(&config.mounts, config.exclude_mounts.as_deref(), &filesystem::SYSTEM_MOUNTS);
        let mut areas = areas(config, &root);
        areas.retain(|slot| on(slot.group));
        Ok(Host {
            areas,
            filesystems: on(Group::Filesystem).then(|| Filesystems::new(&root, types, mounts, ask)),
            filesystems_worked: false,
            temperatures: on(Group::Temperature).then(|| Temperatures::new(&root)),
            buffer: Vec::new(),
            boot_unix_nano: None,
            longest_wait: LONGEST_WAIT.min(context.timeout / 4),
            root,
        })
    }

    /// Everything that answers at once. Answers whether anything could be read.
    fn poll_areas(&mut self, out: &mut MetricsBuilder, faults: &mut Vec<Fault>) -> bool {
        if self.boot_unix_nano.is_none() {
            // Only once: it moves when the clock is corrected, and a start that moves looks like a reset.
            let stat = read_once(&self.root.join("proc/stat"), &mut self.buffer);
            self.boot_unix_nano = stat.ok().and_then(overall::boot_unix_nano);
        }
        let mut poll = Poll {
            points: Points::new(out, self.boot_unix_nano.unwrap_or_default()),
            buffer: &mut self.buffer,
            processes_created: None,
        };
        let mut any = self.areas.is_empty();
        for slot in &mut self.areas {
            match slot.area.poll(&mut poll) {
                Ok(()) => slot.worked = true,
                Err(fault) if slot.worked => faults.push(fault),
                Err(_) => {}
            }
            any |= slot.worked;
        }
        any
    }
}

/// The areas that answer at once, in the order in which they are polled: the CPU's first, because
/// it leaves the number of created processes behind.
fn areas(config: &Config, root: &Root) -> Vec<Slot> {
    let devices = NameFilter::new(&config.devices, config.exclude_devices.as_deref(), &disk::NOT_DISKS);
    let interfaces =
        NameFilter::new(&config.interfaces, config.exclude_interfaces.as_deref(), &network::VIRTUAL_INTERFACES);
    let areas: [(Group, Box<dyn Area>); 10] = [
        (Group::Cpu, Box::new(cpu::Cpu::new(root))),
        (Group::Load, Box::new(overall::Load::new(root))),
        (Group::Memory, Box::new(memory::Memory::new(root))),
        (Group::Paging, Box::new(memory::Paging::new(root))),
        (Group::Disk, Box::new(disk::Disks::new(root, devices))),
        (Group::Network, Box::new(network::Network::new(root, interfaces))),
        (Group::Connections, Box::new(connections::Connections::new(root, config.connection_states))),
        (Group::Processes, Box::new(overall::Processes::new(root))),
        (Group::Uptime, Box::new(overall::Uptime::new(root))),
        (Group::Pressure, Box::new(pressure::Pressure::new(root))),
    ];
    areas.into_iter().map(|(group, area)| Slot { group, area, worked: false }).collect()
}

impl Collect for Host {
    type Config = Config;

    fn new(config: Config, context: &Context) -> Result<Self, Fault> {
        Host::with(&config, context, Arc::new(filesystem::ask_kernel))
    }

    fn watching(&mut self) -> Watching {
        let mut watching = Watching::default();
        let mut note = |group: Group, found: Result<String, Fault>| match found {
            Ok(what) => {
                watching.watched.push(what);
                true
            }
            Err(fault) => {
                watching.not_watched.push((group.name().to_owned(), fault.message));
                false
            }
        };
        for slot in &mut self.areas {
            slot.worked |= note(slot.group, slot.area.watch(&mut self.buffer));
        }
        if let Some(filesystems) = &mut self.filesystems {
            self.filesystems_worked |= note(Group::Filesystem, filesystems.watch(&mut self.buffer));
        }
        if let Some(temperatures) = &mut self.temperatures {
            note(Group::Temperature, temperatures.watch());
        }
        watching
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        let mut faults = Vec::new();
        let deadline = Instant::now() + self.longest_wait;
        // What may be slow is asked first, so that it works while the rest is read.
        if let Some(filesystems) = &mut self.filesystems {
            match filesystems.begin(&mut self.buffer, out, &mut faults) {
                Ok(()) => self.filesystems_worked = true,
                Err(fault) if self.filesystems_worked => faults.push(fault),
                Err(_) => {}
            }
        }
        if let Some(temperatures) = &mut self.temperatures {
            faults.extend(temperatures.begin().err());
        }
        if !self.poll_areas(out, &mut faults) {
            let place = self.root.join("proc");
            let message = format!("nothing can be read below {}: is `root_path` right?", place.display());
            faults.push(Fault::new(FaultKind::NotFound, message));
        }
        if let Some(filesystems) = &mut self.filesystems {
            filesystems.end(deadline, out, &mut faults).await;
        }
        if let Some(temperatures) = &mut self.temperatures {
            temperatures.end(deadline, out, &mut faults).await;
        }
        self.buffer.truncate(LARGEST_KEPT_BUFFER_BYTES);
        self.buffer.shrink_to(LARGEST_KEPT_BUFFER_BYTES);
        one_fault(faults)
    }
}

/// All that went wrong in one poll as one fault, of the kind of the first.
fn one_fault(faults: Vec<Fault>) -> Result<(), Fault> {
    let Some(kind) = faults.first().map(|fault| fault.kind) else { return Ok(()) };
    let messages: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
    Err(Fault::new(kind, messages.join("; ")))
}
