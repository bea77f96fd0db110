//! Keeps the table of hosts: from the store's last hour at the start, then from every commit.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use weir_metadata::Agent;
use weir_store::{Committed, MatchOp, Matcher, NAME, ReadError, Select, Series, SeriesSource};

use super::liveness::Gap;
use super::table::{Applied, Sample, SeriesLabels};
use crate::state::{State, now_ms};

/// What is read from the store at the start: what a row's sparkline shows.
const HISTORY_MS: i64 = 3_600_000;

/// What is read again before the last commit that was seen, when some were missed.
const OVERLAP_MS: i64 = 60_000;

/// Commits with more samples than this are taken by a thread that may block.
const SMALL_COMMIT_SAMPLES: usize = 4096;

/// Notes that may wait for the metadata database.
const NOTES_WAITING: usize = 4096;

/// The metrics of which a row shows the history: the others only say that the host lives.
const SHOWN_METRICS: &str = r"system\..*|network\..*|hw\.temperature";

impl SeriesLabels for &Series {
    fn metric(&self) -> &str {
        self.labels.name()
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }
}

/// What the metadata database must be told.
enum Note {
    /// A host that may have no record.
    Host(String),
    /// A host that was not heard for a while.
    Gap(String, Gap),
}

/// Keeps the table until it is dropped.
pub async fn run(state: &Arc<State>) {
    let (notes, waiting) = channel(NOTES_WAITING);
    tokio::join!(follow(state, notes), keep_notes(state, waiting));
}

async fn follow(state: &Arc<State>, notes: Sender<Note>) {
    // First of all, so that nothing is missed between reading and listening.
    let mut committed = state.store.subscribe();
    if let Err(error) = describe_all(state).await {
        tracing::warn!("the table of hosts begins without names and tags: {error}");
    }
    let mut seen_ms = now_ms();
    pass_on(&notes, read_back(state, seen_ms - HISTORY_MS).await).await;
    loop {
        match committed.recv().await {
            Ok(commit) => {
                seen_ms = now_ms();
                pass_on(&notes, apply(state, commit, seen_ms).await).await;
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!("{missed} commits came faster than the table of hosts takes them; they are read again");
                pass_on(&notes, read_back(state, seen_ms - OVERLAP_MS).await).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Takes a commit that just arrived.
async fn apply(state: &Arc<State>, commit: Arc<Committed>, arrived_ms: i64) -> Applied {
    let is_small = commit.samples.len() <= SMALL_COMMIT_SAMPLES;
    let take = move |state: &State| {
        let samples = commit.samples.iter().map(|(series, time_ms, value)| sample(series, *time_ms, *value));
        state.hosts.apply(samples, Some(arrived_ms))
    };
    if is_small { take(state) } else { on_a_thread(state, take).await }
}

fn sample(series: &Series, time_ms: i64, value: f64) -> Sample<&Series> {
    Sample { series: series.id, labels: series, time_ms, value }
}

/// Runs something on a thread that may block.
async fn on_a_thread<T: Default + Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> T + Send + 'static,
) -> T {
    let state = state.clone();
    tokio::task::spawn_blocking(move || work(&state)).await.unwrap_or_else(|error| {
        tracing::error!("a part of the table of hosts is missing until the next data: {error}");
        T::default()
    })
}

/// Reads what is stored since a time. What is known already changes nothing.
async fn read_back(state: &Arc<State>, from_ms: i64) -> Applied {
    on_a_thread(state, move |state| {
        let mut all = Applied::default();
        match read_hosts(state, from_ms, &mut all) {
            Ok(()) => {}
            Err(error) => tracing::error!("the table of hosts begins without history: {error}"),
        }
        all
    })
    .await
}

fn read_hosts(state: &State, from_ms: i64, all: &mut Applied) -> Result<(), ReadError> {
    let select = |matchers| Select { matchers, start_ms: from_ms, end_ms: i64::MAX };
    for name in state.store.label_values("host.name", &select(Vec::new()))? {
        let of_host = Matcher::equal("host.name", name);
        let shown = Matcher::new(NAME, MatchOp::Matches, SHOWN_METRICS);
        let history = state.store.select(&select(vec![of_host.clone(), shown]))?;
        let history = history
            .iter()
            .flat_map(|data| data.samples.iter().map(|(time_ms, value)| sample(&data.series, time_ms, value)));
        let applied = state.hosts.apply(history, None);
        let others = Matcher::new(NAME, MatchOp::NotMatches, SHOWN_METRICS);
        let newest = state.store.last(&select(vec![of_host, others]))?;
        let newest = newest.iter().map(|(series, time_ms, value)| sample(series, *time_ms, *value));
        for applied in [applied, state.hosts.apply(newest, None)] {
            all.unknown.extend(applied.unknown);
            all.refused += applied.refused;
            // Gaps of the past were noted when they ended.
        }
    }
    Ok(())
}

/// Rows of all servers, with what their agents say.
async fn describe_all(state: &State) -> Result<(), weir_metadata::MetadataError> {
    let mut agents: HashMap<String, Agent> = HashMap::new();
    for agent in state.metadata.agents().await? {
        let newer = agents.get(&agent.hostname).is_none_or(|known| known.last_heartbeat_ms <= agent.last_heartbeat_ms);
        if newer {
            agents.insert(agent.hostname.clone(), agent);
        }
    }
    for server in state.metadata.servers().await? {
        state.hosts.describe(&server, agents.get(&server.hostname));
    }
    Ok(())
}

async fn pass_on(notes: &Sender<Note>, applied: Applied) {
    if applied.refused > 0 {
        tracing::warn!(
            "{} series belong to hosts that are not shown: there are {} already, or their names are longer than 255 bytes",
            applied.refused,
            super::table::MOST_HOSTS
        );
    }
    for name in applied.unknown {
        // A host that is not noted now is noted with its next data.
        let _ = notes.try_send(Note::Host(name));
    }
    for (name, gap) in applied.gaps {
        // Ends only with the server.
        let _ = notes.send(Note::Gap(name, gap)).await;
    }
}

async fn keep_notes(state: &State, mut waiting: Receiver<Note>) {
    while let Some(note) = waiting.recv().await {
        let (name, kept) = match note {
            Note::Host(name) => {
                let kept = ensure_record(state, &name).await;
                (name, kept)
            }
            Note::Gap(name, gap) => {
                let kept = state.metadata.record_gap(&name, gap.from_ms, gap.to_ms).await;
                (name, kept)
            }
        };
        if let Err(error) = kept {
            tracing::warn!("a note about the host {name:?} was not kept: {error}");
        }
    }
}

/// Makes the record of a host that is known by its data alone.
async fn ensure_record(state: &State, name: &str) -> Result<(), weir_metadata::MetadataError> {
    if state.hosts.row(name, now_ms()).is_none_or(|row| !row.row.id.is_empty()) {
        return Ok(());
    }
    // Who reports it is not known from data: whoever registers says it.
    let server = state.metadata.ensure_server(name, None, now_ms()).await?;
    let agents = state.metadata.agents_by_hostname(name).await?;
    state.hosts.describe(&server, agents.first());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_model::MetricsBuilder;
    use weir_model::build::{Kind, metric};
    use weir_model::metrics::{Metrics, NumberPoint};

    use super::*;
    use crate::hosts::row::Status;
    use crate::testing::TestServer;

    /// Samples of the CPU use of a host.
    fn cpu(host: &str, samples: &[(i64, f64)]) -> Metrics {
        let mut out = MetricsBuilder::new("test", vec![("host.name".into(), host.into())]);
        for (time_ms, value) in samples {
            let time_unix_nano = u64::try_from(*time_ms).unwrap() * 1_000_000;
            let point = NumberPoint { time_unix_nano, value: (*value).into(), ..Default::default() };
            out.record_point(&metric("system.cpu.utilization", "1", Kind::Gauge, ""), &[], point);
        }
        out.finish()
    }

    async fn until(is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
    }

    #[tokio::test]
    async fn stored_data_is_there_after_a_start_and_a_new_host_gets_a_record() {
        let server = TestServer::start().await;
        let state = server.app.state.clone();
        let now = now_ms();
        let history: Vec<(i64, f64)> = (0..20).rev().map(|back| (now - back * 60_000, 0.5)).collect();
        state.store.append(&cpu("old", &history)).await.unwrap();
        let feeding = state.clone();
        let task = tokio::spawn(async move { run(&feeding).await });
        until(|| state.hosts.row("old", now_ms()).is_some_and(|row| !row.row.id.is_empty())).await;
        let row = state.hosts.row("old", now).unwrap().row.clone();
        assert_eq!((row.status, row.cpu, row.interval_seconds), (Status::Up, Some(0.5), Some(60.0)));
        assert_eq!(row.sparkline.iter().flatten().count(), 20);
        let server_record = state.metadata.server_by_hostname("old").await.unwrap().unwrap();
        assert_eq!(server_record.id, row.id);
        state.store.append(&cpu("new", &[(now_ms(), 0.25)])).await.unwrap();
        until(|| state.hosts.row("new", now_ms()).is_some_and(|row| !row.row.id.is_empty())).await;
        assert_eq!(state.hosts.row("new", now_ms()).unwrap().row.cpu, Some(0.25));
        task.abort();
    }

    #[tokio::test]
    async fn a_table_that_lagged_behind_the_store_recovers() {
        let server = TestServer::start().await;
        let state = server.app.state.clone();
        let mut feeding = Box::pin(run(&state));
        let first = async {
            state.store.append(&cpu("first", &[(now_ms(), 0.5)])).await.unwrap();
            until(|| state.hosts.len() == 1).await;
        };
        tokio::select! {
            () = &mut feeding => panic!("the feed ended"),
            () = first => {}
        }
        // The table stands still now, and misses more commits than wait for it.
        for number in 0..200 {
            state.store.append(&cpu(&format!("h{number}"), &[(now_ms(), 0.25)])).await.unwrap();
        }
        assert_eq!(state.hosts.len(), 1);
        tokio::select! {
            () = &mut feeding => panic!("the feed ended"),
            () = until(|| state.hosts.len() == 201) => {}
        }
        assert!(state.hosts.rows(now_ms()).iter().all(|row| row.row.status == Status::Up));
    }

    #[tokio::test]
    async fn a_gap_is_kept_once_with_when_data_stopped_and_came_again() {
        let server = TestServer::start().await;
        let state = server.app.state.clone();
        let feeding = state.clone();
        let task = tokio::spawn(async move { run(&feeding).await });
        // Data every 400 ms; then nothing for more than two and a half times as long; then data again.
        let mut stopped = 0;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            stopped = now_ms();
            state.store.append(&cpu("h", &[(stopped, 0.5)])).await.unwrap();
        }
        until(|| state.hosts.row("h", now_ms()).is_some_and(|row| !row.row.id.is_empty())).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..3 {
            state.store.append(&cpu("h", &[(now_ms(), 0.5)])).await.unwrap();
        }
        let after = now_ms();
        let gaps = async {
            loop {
                let gaps = state.metadata.gaps("h", 0, i64::MAX).await.unwrap();
                if !gaps.is_empty() {
                    return gaps;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let gaps = tokio::time::timeout(Duration::from_secs(20), gaps).await.unwrap();
        assert_eq!(gaps.len(), 1);
        assert!(gaps[0].from_ms >= stopped && gaps[0].to_ms - gaps[0].from_ms >= 1000 && gaps[0].to_ms <= after + 5000);
        task.abort();
    }
}
