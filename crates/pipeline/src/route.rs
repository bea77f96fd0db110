//! Routes: which exporters get the records of a source, and what is changed on the way.

use std::sync::Arc;

use weir_model::{Payload, Records, Signal};

use crate::keep::Keep;
use crate::ledger::{Reason, Row};
use crate::queue::Outlet;

/// The way from one source to one exporter for one signal.
#[derive(Debug)]
pub struct Path {
    /// The exporter.
    pub outlet: Arc<Outlet>,
    /// The row of the ledger.
    pub row: Arc<Row>,
    /// Resource attributes to set.
    pub set: Vec<(String, String)>,
    /// Condition that records must meet.
    pub keep: Option<Keep>,
}

impl Path {
    /// The payload as this exporter gets it: untouched, not even decoded, unless the route changes
    /// it; empty if the route leaves all of it out. Once it is handed on, [`Path::left_out`] counts
    /// what is missing.
    ///
    /// # Errors
    /// If it has to be decoded and cannot be.
    pub fn prepare(&self, payload: Payload) -> Result<Payload, String> {
        if self.set.is_empty() && self.keep.is_none() {
            return Ok(payload);
        }
        let mut records = payload.into_records().map_err(|error| error.to_string())?;
        if let Some(keep) = &self.keep {
            records = keep.apply(records);
        }
        if !self.set.is_empty() {
            match &mut records {
                Records::Metrics(metrics) => Arc::make_mut(&mut metrics.table).common.set_on_resources(&self.set),
                Records::Logs(logs) => logs.common.set_on_resources(&self.set),
                Records::Traces(traces) => traces.common.set_on_resources(&self.set),
            }
        }
        Ok(Payload::from_records(records))
    }

    /// Counts the records that `keep` left out.
    pub fn left_out(&self, records: u64) {
        if records > 0 {
            self.row.accept_and_drop(records, Reason::Filtered);
        }
    }
}

/// The ways of one source, by signal.
#[derive(Debug, Default)]
pub struct Paths {
    metrics: Vec<Path>,
    logs: Vec<Path>,
    traces: Vec<Path>,
}

impl Paths {
    /// The ways for a signal.
    pub fn of(&self, signal: Signal) -> &[Path] {
        match signal {
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
            Signal::Traces => &self.traces,
        }
    }

    /// Adds a way for a signal.
    pub fn add(&mut self, signal: Signal, path: Path) {
        match signal {
            Signal::Metrics => self.metrics.push(path),
            Signal::Logs => self.logs.push(path),
            Signal::Traces => self.traces.push(path),
        }
    }
}
