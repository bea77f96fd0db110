//! Ready-made commands.

use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{CommandConfig, CommandLine, Format};
use super::sample::{ValueConfig, ValueKind};

/// Commands whose output is known, so that a name is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// NVIDIA GPUs through `nvidia-smi`: utilization, memory, temperature, power and clocks.
    NvidiaSmi,
}

/// A column of `nvidia-smi` that is a number: its name there, and what becomes of it.
struct Column {
    query: &'static str,
    name: &'static str,
    unit: &'static str,
    kind: ValueKind,
    scale: f64,
    description: &'static str,
}

/// Names and units as in the OpenTelemetry semantic conventions for hardware; `nvidia-smi` prints
/// percent, MiB, W, degrees Celsius and MHz (`nvidia-smi --help-query-gpu`).
const NVIDIA_COLUMNS: [Column; 8] = [
    Column {
        query: "utilization.gpu",
        name: "hw.gpu.utilization",
        unit: "1",
        kind: ValueKind::Gauge,
        scale: 0.01,
        description: "Share of time in which the GPU computed.",
    },
    Column {
        query: "utilization.memory",
        name: "hw.gpu.memory.utilization",
        unit: "1",
        kind: ValueKind::Gauge,
        scale: 0.01,
        description: "Share of time in which the memory was read or written.",
    },
    Column {
        query: "memory.used",
        name: "hw.gpu.memory.usage",
        unit: "By",
        kind: ValueKind::UpDownCounter,
        scale: MEBIBYTE,
        description: "GPU memory in use.",
    },
    Column {
        query: "memory.total",
        name: "hw.gpu.memory.limit",
        unit: "By",
        kind: ValueKind::UpDownCounter,
        scale: MEBIBYTE,
        description: "Size of the GPU memory.",
    },
    Column {
        query: "temperature.gpu",
        name: "hw.temperature",
        unit: "Cel",
        kind: ValueKind::Gauge,
        scale: 1.0,
        description: "Temperature of the GPU.",
    },
    Column {
        query: "power.draw",
        name: "hw.power",
        unit: "W",
        kind: ValueKind::Gauge,
        scale: 1.0,
        description: "Power that the whole board draws.",
    },
    Column {
        query: "clocks.sm",
        name: "hw.gpu.clock.sm",
        unit: "Hz",
        kind: ValueKind::Gauge,
        scale: MEGAHERTZ,
        description: "Clock of the streaming multiprocessors.",
    },
    Column {
        query: "clocks.mem",
        name: "hw.gpu.clock.memory",
        unit: "Hz",
        kind: ValueKind::Gauge,
        scale: MEGAHERTZ,
        description: "Clock of the memory.",
    },
];

const MEBIBYTE: f64 = 1_048_576.0;
const MEGAHERTZ: f64 = 1_000_000.0;

/// Columns of `nvidia-smi` that become labels.
const NVIDIA_LABELS: [(&str, &str); 3] = [("index", "index"), ("uuid", "hw.id"), ("name", "hw.name")];

impl Preset {
    /// The name of a command that gives none.
    pub(super) fn name(self) -> &'static str {
        match self {
            Preset::NvidiaSmi => "nvidia_smi",
        }
    }

    /// Fills in whatever the configuration leaves open.
    pub(super) fn apply(self, config: &mut CommandConfig) {
        match self {
            Preset::NvidiaSmi => nvidia_smi(config),
        }
    }
}

fn nvidia_smi(config: &mut CommandConfig) {
    let query: Vec<&str> =
        NVIDIA_LABELS.iter().map(|label| label.0).chain(NVIDIA_COLUMNS.iter().map(|column| column.query)).collect();
    let query = format!("--query-gpu={}", query.join(","));
    let format = "--format=csv,noheader,nounits".to_owned();
    config.command.get_or_insert_with(|| CommandLine::Words(vec!["nvidia-smi".into(), query, format]));
    config.format.get_or_insert(Format::Csv);
    if config.columns.is_empty() {
        let labels = NVIDIA_LABELS.iter().map(|label| label.1);
        config.columns = labels.chain(NVIDIA_COLUMNS.iter().map(|column| column.query)).map(str::to_owned).collect();
        config.label_columns = NVIDIA_LABELS.iter().map(|label| label.1.to_owned()).collect();
    }
    config.labels.entry("hw.type".into()).or_insert_with(|| "gpu".into());
    if config.metrics.is_empty() {
        config.metrics = NVIDIA_COLUMNS.iter().map(|column| (column.query.to_owned(), column.value())).collect();
    }
}

impl Column {
    fn value(&self) -> ValueConfig {
        ValueConfig {
            name: Some(self.name.into()),
            unit: self.unit.into(),
            kind: self.kind,
            scale: self.scale,
            description: self.description.into(),
        }
    }
}
