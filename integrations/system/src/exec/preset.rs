//! Ready-made commands.

use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::build::metric;
use weir_pipeline::MetricDescription;
use weir_pipeline::MetricKind::{Gauge, UpDownCounter};

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
    scale: f64,
    metric: MetricDescription<'static>,
}

// Names and units as in the OpenTelemetry semantic conventions for hardware, which have no clocks.
pub(super) const UTILIZATION: MetricDescription<'static> =
    metric("hw.gpu.utilization", "1", Gauge, "Share of time in which the GPU computed.");
pub(super) const MEMORY_UTILIZATION: MetricDescription<'static> =
    metric("hw.gpu.memory.utilization", "1", Gauge, "Share of time in which the GPU memory was read or written.");
pub(super) const MEMORY_USAGE: MetricDescription<'static> =
    metric("hw.gpu.memory.usage", "By", UpDownCounter, "GPU memory in use.");
pub(super) const MEMORY_LIMIT: MetricDescription<'static> =
    metric("hw.gpu.memory.limit", "By", UpDownCounter, "Size of the GPU memory.");
pub(super) const TEMPERATURE: MetricDescription<'static> =
    metric("hw.temperature", "Cel", Gauge, "Temperature of the GPU.");
pub(super) const POWER: MetricDescription<'static> =
    metric("hw.power", "W", Gauge, "Power that the GPU's board draws.");
pub(super) const CLOCK_SM: MetricDescription<'static> =
    metric("hw.gpu.clock.sm", "Hz", Gauge, "Clock of the GPU's streaming multiprocessors.");
pub(super) const CLOCK_MEMORY: MetricDescription<'static> =
    metric("hw.gpu.clock.memory", "Hz", Gauge, "Clock of the GPU's memory.");

/// `nvidia-smi` prints percent, MiB, degrees Celsius, W and MHz (`nvidia-smi --help-query-gpu`).
const NVIDIA_COLUMNS: [Column; 8] = [
    Column { query: "utilization.gpu", scale: 0.01, metric: UTILIZATION },
    Column { query: "utilization.memory", scale: 0.01, metric: MEMORY_UTILIZATION },
    Column { query: "memory.used", scale: MEBIBYTE, metric: MEMORY_USAGE },
    Column { query: "memory.total", scale: MEBIBYTE, metric: MEMORY_LIMIT },
    Column { query: "temperature.gpu", scale: 1.0, metric: TEMPERATURE },
    Column { query: "power.draw", scale: 1.0, metric: POWER },
    Column { query: "clocks.sm", scale: MEGAHERTZ, metric: CLOCK_SM },
    Column { query: "clocks.mem", scale: MEGAHERTZ, metric: CLOCK_MEMORY },
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
            name: Some(self.metric.name.into()),
            unit: self.metric.unit.into(),
            kind: if self.metric.kind == UpDownCounter { ValueKind::UpDownCounter } else { ValueKind::Gauge },
            scale: self.scale,
            description: self.metric.help.into(),
        }
    }
}
