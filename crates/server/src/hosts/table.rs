//! The table of all hosts, kept in memory from what is written to the store.
//!
//! A commit costs what it changes: each series is looked up by its number, its labels are read once
//! when it is new. Rows are made anew when somebody looks, at most once per change.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use weir_metadata::{Agent, Server};

use super::host::{Host, HostSample, Published};
use super::liveness::Gap;
use super::profile::{AgentProfile, Profile};
use super::role::{self, Role};

/// Most hosts that are shown.
pub const MOST_HOSTS: usize = 10_000;

/// Most series that are remembered. Above it, those that no row shows are forgotten and looked up
/// again when they have new samples.
const MOST_SERIES: usize = 1_000_000;

/// Longest name of a host, bytes (RFC 1035 allows 253).
const LONGEST_NAME_BYTES: usize = 255;

/// How many removed names are remembered for those who follow the table.
const REMOVED_REMEMBERED: usize = 4096;

/// The labels of a series, however a store keeps them.
pub trait SeriesLabels {
    /// Name of the metric.
    fn metric(&self) -> &str;
    /// Value of a label of the series or its resource.
    fn label(&self, name: &str) -> Option<&str>;
}

/// A stored sample.
#[derive(Clone, Copy, Debug)]
pub struct Sample<L> {
    /// Number of the series in the store.
    pub series: u32,
    /// Its labels; looked at once.
    pub labels: L,
    /// When it was measured, unix milliseconds.
    pub time_ms: i64,
    /// The value; NaN ends the series.
    pub value: f64,
}

/// What a commit brought that others must do something about.
#[derive(Debug, Default)]
pub struct Applied {
    /// Names of hosts without a record among the servers.
    pub unknown: Vec<String>,
    /// Hosts that were not heard for a while and are again.
    pub gaps: Vec<(String, Gap)>,
    /// How many new hosts did not fit into the table.
    pub refused: usize,
}

/// What changed in the table.
#[derive(Debug)]
pub struct Changes {
    /// The version that the table has now; ask for changes since this one next.
    pub version: u64,
    /// Rows that are new or changed, by name.
    pub rows: Vec<Arc<Published>>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// The asker was away for too long to be told what was removed, and must begin anew.
    pub lost: bool,
}

/// Where the samples of a series go.
#[derive(Clone, Copy, Debug)]
struct Place {
    host: u32,
    /// Index of the reading plus 1; 0 = a row does not show the series.
    reading: u32,
}

/// The place of a series that belongs to no host.
const NO_HOST: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    hosts: Vec<Option<Host>>,
    /// By name, so that answers are sorted.
    by_name: BTreeMap<String, u32>,
    series: HashMap<u32, Place, RandomState>,
    removed: VecDeque<(u64, String)>,
    /// The version of the newest removal that is no longer remembered.
    removals_lost: u64,
}

/// How the names of the metrics begin in which Weir speaks of itself.
const ABOUT_WEIR: &str = "weir.";

/// The table of hosts.
#[derive(Debug, Default)]
pub struct HostTable(Mutex<Inner>);

impl HostTable {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only means that a panic happened elsewhere: every change keeps the table whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the samples of a commit. `arrived_ms` is when they arrived; `None` for samples that are
    /// read again, which then arrived when they were measured.
    pub fn apply<L: SeriesLabels>(
        &self,
        samples: impl IntoIterator<Item = Sample<L>>,
        arrived_ms: Option<i64>,
    ) -> Applied {
        let mut inner = self.inner();
        let mut applied = Applied::default();
        let mut changes: Vec<(u32, HostSample)> = Vec::new();
        for Sample { series, labels, time_ms, value } in samples {
            let place = match inner.known_place(series) {
                Some(place) => place,
                None => inner.place(series, &labels, &mut applied),
            };
            if place.host != NO_HOST {
                let reading = place.reading.checked_sub(1);
                changes.push((place.host, HostSample { series, reading, time_ms, value }));
            }
        }
        changes.sort_by_key(|(host, sample)| (*host, sample.time_ms));
        for of_host in changes.chunk_by(|one, next| one.0 == next.0) {
            let at = of_host.first().map_or(NO_HOST, |change| change.0);
            let Some(host) = inner.host_mut(at) else { continue };
            let samples: Vec<HostSample> = of_host.iter().map(|change| change.1).collect();
            let gap = host.take(&samples, arrived_ms);
            if host.id().is_empty() {
                applied.unknown.push(host.name().to_owned());
            }
            applied.gaps.extend(gap.map(|gap| (host.name().to_owned(), gap)));
        }
        applied
    }

    /// What the metadata says about a host now, `agent` being the one of its agents that was heard
    /// last; makes the row if there is none yet.
    pub fn describe(&self, server: &Server, agent: Option<&Agent>) {
        self.set_profile(&server.hostname, Profile::of(server), agent.map(AgentProfile::of).unwrap_or_default());
    }

    /// [`HostTable::describe`] in the table's own words.
    pub fn set_profile(&self, name: &str, profile: Profile, agent: AgentProfile) {
        let mut inner = self.inner();
        if let Some(host) = inner.host_named(name).and_then(|at| inner.host_mut(at)) {
            host.set_profile(profile, agent);
        }
    }

    /// Removes a host. Data that comes afterwards makes it new.
    pub fn forget(&self, name: &str) {
        let mut inner = self.inner();
        let Some(at) = inner.by_name.remove(name) else { return };
        if let Some(place) = inner.hosts.get_mut(at as usize) {
            *place = None;
        }
        inner.series.retain(|_, place| place.host != at);
        inner.version += 1;
        let version = inner.version;
        inner.removed.push_back((version, name.to_owned()));
        if inner.removed.len() > REMOVED_REMEMBERED
            && let Some((lost, _)) = inner.removed.pop_front()
        {
            inner.removals_lost = lost;
        }
    }

    /// All rows as of now, by name.
    pub fn rows(&self, now_ms: i64) -> Vec<Arc<Published>> {
        self.changes_since(0, now_ms).rows
    }

    /// The row of one host as of now.
    pub fn row(&self, name: &str, now_ms: i64) -> Option<Arc<Published>> {
        let mut inner = self.inner();
        let at = *inner.by_name.get(name)?;
        let mut version = inner.version;
        let host = inner.host_mut(at)?;
        host.refresh(now_ms, &mut version);
        let row = host.published().cloned();
        inner.version = version;
        row
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.inner().by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changed since a version; 0 asks for everything.
    pub fn changes_since(&self, version: u64, now_ms: i64) -> Changes {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut rows = Vec::new();
        for at in inner.by_name.values() {
            let Some(host) = inner.hosts.get_mut(*at as usize).and_then(Option::as_mut) else { continue };
            host.refresh(now_ms, &mut inner.version);
            rows.extend(host.published().filter(|row| row.version > version).cloned());
        }
        let gone = inner.removed.iter().filter(|(at, name)| *at > version && !inner.by_name.contains_key(name));
        let removed = if version == 0 { Vec::new() } else { gone.map(|(_, name)| name.clone()).collect() };
        let lost = version != 0 && inner.removals_lost > version;
        Changes { version: inner.version, rows, removed, lost }
    }
}

impl Inner {
    fn host_mut(&mut self, at: u32) -> Option<&mut Host> {
        self.hosts.get_mut(at as usize)?.as_mut()
    }

    /// The host of this name, made if there is room.
    fn host_named(&mut self, name: &str) -> Option<u32> {
        if let Some(at) = self.by_name.get(name) {
            return Some(*at);
        }
        if self.by_name.len() >= MOST_HOSTS || name.is_empty() || name.len() > LONGEST_NAME_BYTES {
            return None;
        }
        let at = u32::try_from(self.hosts.len()).ok().filter(|&at| at != NO_HOST)?;
        self.hosts.push(Some(Host::new(name)));
        self.by_name.insert(name.to_owned(), at);
        Some(at)
    }

    /// Where the samples of a series go, if that is remembered.
    fn known_place(&self, series: u32) -> Option<Place> {
        let place = *self.series.get(&series)?;
        let Some(reading) = place.reading.checked_sub(1) else { return Some(place) };
        // Another series may have taken the place of one that ended.
        self.hosts.get(place.host as usize)?.as_ref()?.follows(reading, series).then_some(place)
    }

    /// Finds out where the samples of a new series go, and remembers it.
    fn place(&mut self, series: u32, labels: &impl SeriesLabels, applied: &mut Applied) -> Place {
        let nowhere = Place { host: NO_HOST, reading: 0 };
        if self.series.len() >= MOST_SERIES {
            self.series.retain(|_, place| place.reading != 0);
        }
        let Some(name) = labels.label("host.name").filter(|name| !name.is_empty()) else {
            self.remember(series, nowhere);
            return nowhere;
        };
        // What Weir says of itself makes no machine of the table: a server alone watches none.
        let metric = labels.metric();
        if metric.starts_with(ABOUT_WEIR) && !self.by_name.contains_key(name) {
            return nowhere;
        }
        let Some(at) = self.host_named(name) else {
            applied.refused += 1;
            return nowhere;
        };
        let label = |name: &str| labels.label(name);
        let role = role::of(metric, &label);
        let room = self.series.len() < MOST_SERIES;
        let reading = role.filter(|_| room).and_then(|role| {
            let part = match role {
                Role::Disk(_) | Role::DiskUtilization => role::label(&label, "system.filesystem.mountpoint"),
                Role::CpuTime(_) => role::label(&label, "cpu.logical_number"),
                _ => None,
            };
            self.host_mut(at)?.follow(series, role, part.unwrap_or_default())
        });
        let place = Place { host: at, reading: reading.map_or(0, |reading| reading + 1) };
        self.remember(series, place);
        place
    }

    fn remember(&mut self, series: u32, place: Place) {
        if self.series.len() < MOST_SERIES {
            self.series.insert(series, place);
        }
    }
}
