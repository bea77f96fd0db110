//! What the table keeps of one host.

use std::sync::Arc;

use super::liveness::{Gap, Liveness};
use super::profile::{AgentProfile, Profile};
use super::readings::{READINGS_PER_HOST, Reading, Shown};
use super::role::Role;
use super::row::HostRow;
use super::sparkline::Sparkline;

/// A row as it is given out: once as text, so that it is written once, however many look at it.
#[derive(Debug)]
pub struct Published {
    /// Grows with every change of any row.
    pub version: u64,
    /// The version of the newest row that new data made, not only time or metadata.
    pub data_version: u64,
    /// The row.
    pub row: HostRow,
    /// The row as JSON.
    pub json: String,
    /// Time of the newest sample, unix milliseconds.
    pub newest_ms: Option<i64>,
    /// Network latency, seconds: not in the row, but in AgentOps' messages.
    pub latency_seconds: Option<f64>,
}

/// A sample of one series of the host.
#[derive(Clone, Copy, Debug)]
pub struct HostSample {
    /// Number of the series in the store.
    pub series: u32,
    /// Index of the reading, if a row shows the series.
    pub reading: Option<u32>,
    /// When it was measured, unix milliseconds.
    pub time_ms: i64,
    /// The value; NaN ends the series.
    pub value: f64,
}

/// The series that the interval is learnt from.
#[derive(Clone, Copy, Debug)]
struct Reference {
    series: u32,
    rank: u8,
    time_ms: i64,
}

/// Another series becomes the reference when this one has no sample for so long, milliseconds.
const REFERENCE_GONE_MS: i64 = 600_000;

/// Below this many, no place of an ended series is taken.
const FEW_READINGS: usize = 256;

/// A series without a sample for so long ended, milliseconds.
const READING_ENDED_MS: i64 = 3_600_000;

/// One host.
#[derive(Debug)]
pub struct Host {
    name: String,
    profile: Profile,
    agent: AgentProfile,
    liveness: Liveness,
    reference: Option<Reference>,
    readings: Vec<Reading>,
    shown: Shown,
    sparkline: Sparkline,
    new_data: bool,
    data_version: u64,
    dirty: bool,
    changes_at_ms: Option<i64>,
    published: Option<Arc<Published>>,
}

impl Host {
    /// A host without data.
    pub fn new(name: &str) -> Host {
        Host {
            name: name.to_owned(),
            profile: Profile::default(),
            agent: AgentProfile::default(),
            liveness: Liveness::default(),
            reference: None,
            readings: Vec::new(),
            shown: Shown::default(),
            sparkline: Sparkline::default(),
            new_data: false,
            data_version: 0,
            dirty: true,
            changes_at_ms: None,
            published: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id among the servers; empty while it has no record.
    pub fn id(&self) -> &str {
        &self.profile.id
    }

    /// What the metadata says now.
    pub fn set_profile(&mut self, profile: Profile, agent: AgentProfile) {
        if self.profile != profile || self.agent != agent {
            self.liveness.announce(agent.interval_ms);
            (self.profile, self.agent) = (profile, agent);
            self.dirty = true;
        }
    }

    /// Begins to follow a series, in the place of one that ended long ago where there is one; `None`
    /// if there are too many already.
    pub fn follow(&mut self, series: u32, role: Role, part: &str) -> Option<u32> {
        let reading = Reading::new(series, role, part);
        if self.readings.len() >= FEW_READINGS {
            let ended_ms = self.liveness.newest_ms().unwrap_or(i64::MIN).saturating_sub(READING_ENDED_MS);
            let ended = |reading: &Reading| reading.time_ms() > i64::MIN && reading.time_ms() < ended_ms;
            if let Some(at) = self.readings.iter().position(ended) {
                if let Some(place) = self.readings.get_mut(at) {
                    *place = reading;
                }
                return u32::try_from(at).ok();
            }
        }
        if self.readings.len() >= READINGS_PER_HOST {
            return None;
        }
        self.readings.push(reading);
        u32::try_from(self.readings.len() - 1).ok()
    }

    /// Whether the reading at this index still is of this series.
    pub fn follows(&self, reading: u32, series: u32) -> bool {
        self.readings.get(reading as usize).is_some_and(|reading| reading.series() == series)
    }

    /// Takes samples, sorted by time, that arrived at `arrived_ms`, or of which that is not known:
    /// then each arrived when it was measured. Answers the gap that ended with them.
    pub fn take(&mut self, samples: &[HostSample], arrived_ms: Option<i64>) -> Option<Gap> {
        let mut gap = None;
        for poll in samples.chunk_by(|one, next| one.time_ms == next.time_ms) {
            let Some(time_ms) = poll.first().map(|sample| sample.time_ms) else { continue };
            let now_ms = arrived_ms.unwrap_or(time_ms);
            let (mut by_reference, mut shown_changed) = (false, false);
            for sample in poll {
                let role = self.read(sample);
                shown_changed |= role.is_some();
                by_reference |= self.refer(sample, role.map_or(0, Role::rank_as_reference));
            }
            gap = self.liveness.saw(time_ms, now_ms, by_reference).or(gap);
            if shown_changed {
                self.show(time_ms, now_ms);
            }
            self.dirty = true;
        }
        gap
    }

    /// Takes one sample; answers its role if it is newer than what was known.
    fn read(&mut self, sample: &HostSample) -> Option<Role> {
        let reading = self.readings.get_mut(sample.reading? as usize)?;
        reading.saw(sample.time_ms, sample.value).then(|| reading.role())
    }

    /// Whether the interval is learnt from this sample's series.
    fn refer(&mut self, sample: &HostSample, rank: u8) -> bool {
        match &mut self.reference {
            Some(reference) if reference.series == sample.series => {
                reference.time_ms = reference.time_ms.max(sample.time_ms);
                true
            }
            Some(reference)
                if rank <= reference.rank && sample.time_ms.saturating_sub(reference.time_ms) < REFERENCE_GONE_MS =>
            {
                false
            }
            before => {
                // A better series usually comes from the same poll: what was learnt stays.
                if before.as_ref().is_none_or(|reference| rank <= reference.rank) {
                    self.liveness.learn_anew();
                }
                *before = Some(Reference { series: sample.series, rank, time_ms: sample.time_ms });
                true
            }
        }
    }

    fn show(&mut self, time_ms: i64, now_ms: i64) {
        let newest_ms = self.readings.iter().map(Reading::time_ms).max().unwrap_or(time_ms);
        self.shown = Shown::of(&self.readings, newest_ms);
        self.new_data = true;
        if let Some(cpu) = self.shown.cpu
            && time_ms == newest_ms
        {
            self.sparkline.add(time_ms.min(now_ms), cpu);
        }
    }

    /// Makes the row anew where data, metadata or time changed it; `version` is asked for the next
    /// number then.
    pub fn refresh(&mut self, now_ms: i64, version: &mut u64) {
        if !self.dirty && self.changes_at_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        *version += 1;
        if std::mem::take(&mut self.new_data) {
            self.data_version = *version;
        }
        let row = self.row(now_ms);
        // A row holds text and numbers alone, which JSON always can write.
        let json = serde_json::to_string(&row).unwrap_or_default();
        self.published = Some(Arc::new(Published {
            version: *version,
            data_version: self.data_version,
            row,
            json,
            newest_ms: self.liveness.newest_ms(),
            latency_seconds: self.shown.latency_seconds,
        }));
        self.dirty = false;
        self.changes_at_ms = self.liveness.changes_at_ms(now_ms);
    }

    /// The row as of the last [`Host::refresh`].
    pub fn published(&self) -> Option<&Arc<Published>> {
        self.published.as_ref()
    }

    fn row(&self, now_ms: i64) -> HostRow {
        let (status, status_since_ms) = self.liveness.status(now_ms);
        let (sparkline, sparkline_end_ms) = self.sparkline.hour(now_ms);
        let (profile, agent) = (&self.profile, &self.agent);
        let mut row = HostRow {
            name: self.name.clone(),
            id: profile.id.clone(),
            status,
            last_seen_ms: self.liveness.last_seen_ms(),
            status_since_ms,
            // Intervals are far below 2^53 ms.
            interval_seconds: self.liveness.interval_ms().map(|ms| ms as f64 / 1000.0),
            kind: profile.kind,
            environment: profile.environment.clone(),
            location: profile.location.clone(),
            ip_address: profile.ip_address.clone().or_else(|| agent.ip_address.clone()),
            tags: profile.tags_with(agent),
            os: agent.os.clone(),
            agent_version: agent.version.clone(),
            sparkline,
            sparkline_end_ms,
            ..HostRow::default()
        };
        self.shown.write(&mut row);
        row
    }
}
