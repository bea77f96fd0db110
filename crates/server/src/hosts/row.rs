//! A row of the table of hosts, as the dashboard gets it.

use serde::Serialize;
use utoipa::ToSchema;

/// How a host is doing, by when its data came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Data came within the last 2.5 intervals.
    Up,
    /// Data came within the last 5 intervals or 15 s.
    Late,
    /// No data for longer.
    Down,
    /// There never was any data.
    #[default]
    Unknown,
}

/// Which program reports a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reporter {
    /// Weir's own agent.
    Weir,
    /// A client of AgentOps' API (`POST /api/metrics`).
    Agentops,
    /// A client of the agent monitor's API (`POST /api/v1/agents/{id}/metrics`).
    AgentMonitor,
    /// An OpenFinOps agent (`POST /api/v1/telemetry/ingest`).
    Openfinops,
    /// Anything else: OpenTelemetry.
    #[default]
    Otlp,
}

impl Reporter {
    /// The reporter by its word in the metadata; `None` for words that are none.
    pub fn of_name(name: &str) -> Option<Reporter> {
        Some(match name {
            "weir" => Reporter::Weir,
            "agentops" => Reporter::Agentops,
            "agent_monitor" => Reporter::AgentMonitor,
            "openfinops" => Reporter::Openfinops,
            "otlp" => Reporter::Otlp,
            _ => return None,
        })
    }
}

/// One machine. What is not known is `null`, never 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct HostRow {
    /// The resource attribute `host.name` of its data.
    #[schema(example = "web-1")]
    pub name: String,
    /// Its id among the servers.
    pub id: String,
    /// How it is doing.
    pub status: Status,
    /// When data came last, unix milliseconds.
    pub last_seen_ms: Option<i64>,
    /// Since when it has this status, unix milliseconds.
    pub status_since_ms: Option<i64>,
    /// Usual time between its data, seconds.
    pub interval_seconds: Option<f64>,
    /// Which program reports it.
    pub kind: Reporter,
    /// Environment, as a person gave it.
    #[schema(example = "production")]
    pub environment: Option<String>,
    /// Location, as a person gave it.
    pub location: Option<String>,
    /// Its IP address.
    pub ip_address: Option<String>,
    /// Tags: words, or `key=value`.
    pub tags: Vec<String>,
    /// Operating system.
    pub os: Option<String>,
    /// Version of the agent that reports it.
    pub agent_version: Option<String>,
    /// Fraction of all CPUs in use, 0 to 1; waiting for disks does not count as use.
    pub cpu: Option<f64>,
    /// Logical CPUs.
    pub cpu_count: Option<f64>,
    /// Fraction of the memory in use, 0 to 1.
    pub memory: Option<f64>,
    /// Memory, bytes.
    pub memory_total_bytes: Option<f64>,
    /// Fraction of the filesystem `disk_mount` in use, 0 to 1.
    pub disk: Option<f64>,
    /// Size of the filesystem `disk_mount`, bytes.
    pub disk_total_bytes: Option<f64>,
    /// The filesystem that is shown: `/`, else the fullest.
    #[schema(example = "/")]
    pub disk_mount: Option<String>,
    /// Received by all physical interfaces, bytes per second.
    pub network_receive_bytes_per_second: Option<f64>,
    /// Transmitted by all physical interfaces, bytes per second.
    pub network_transmit_bytes_per_second: Option<f64>,
    /// Both directions, bits per second, of clients that send only this one figure.
    pub network_bits_per_second: Option<f64>,
    /// Load average over 1 minute.
    pub load1: Option<f64>,
    /// Load average over 5 minutes.
    pub load5: Option<f64>,
    /// Load average over 15 minutes.
    pub load15: Option<f64>,
    /// Time since the machine started, seconds.
    pub uptime_seconds: Option<f64>,
    /// Processes.
    pub process_count: Option<f64>,
    /// The hottest sensor, degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// Mean CPU use per minute over the last hour, 60 values from 0 to 1, oldest first; `null` is a minute without data.
    pub sparkline: Vec<Option<f32>>,
    /// Start of the last minute of `sparkline`, unix milliseconds.
    pub sparkline_end_ms: i64,
}
