//! OTLP over HTTP and gRPC, on the server's own port.
//!
//! The key of one agent may send for its own host, and for what has no agent of its own: devices
//! that it polls, containers, applications that send through it. Records that claim to be of a host
//! with another agent are refused, and named in `partial_success`; the others are stored.

use std::collections::HashSet;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use weir_model::common::Common;
use weir_model::metrics::Metrics;
use weir_model::{Payload, Records};
use weir_observability::OtlpSink;
use weir_pipeline::Answer;

use super::targets::{self, SERVER_LIMIT};
use crate::auth::{self, Caller};
use crate::body::INGEST_LIMIT_BYTES;
use crate::error::ApiError;
use crate::state::App;

/// The attribute by which records belong to a host.
const HOST_NAME: &str = "host.name";

/// Payloads above this many bytes take longer to decode than others should wait.
const APART_ABOVE_BYTES: usize = 64 << 10;

/// The paths of OTLP; they need the scope `ingest`.
pub fn router(app: &App) -> Router<App> {
    let sender = app.clone();
    let sink_of = move |extensions: &http::Extensions| {
        let agent_id = extensions.get::<Caller>().and_then(|caller| caller.agent_id.clone());
        Sender { app: sender.clone(), agent_id }
    };
    weir_observability::otlp_routes(sink_of, INGEST_LIMIT_BYTES)
        .route_layer(from_fn_with_state((app.clone(), auth::Scope::Ingest), auth::require))
        .with_state(())
}

/// Who sends a request.
struct Sender {
    app: App,
    /// The only agent that it may speak for; `None`: any.
    agent_id: Option<String>,
}

impl OtlpSink for Sender {
    async fn offer(&self, payload: Payload) -> Answer {
        let Some(own) = &self.agent_id else { return self.app.intake.offer(payload).await };
        match self.of_others(own, &payload).await {
            Ok(others) if others.is_empty() => self.app.intake.offer(payload).await,
            Ok(others) => self.offer_without(payload, own, others).await,
            Err(error) => Answer::Later { after: Duration::from_secs(2), why: error.body().message.clone() },
        }
    }
}

impl Sender {
    /// The hosts of a payload that have another agent.
    async fn of_others(&self, own: &str, payload: &Payload) -> Result<HashSet<String>, ApiError> {
        let hosts = hosts_apart(payload.clone()).await?;
        let own_host = self.app.metadata.agent(own).await?.map(|agent| agent.hostname);
        let mut others = HashSet::new();
        for (at, host) in hosts.into_iter().filter(|host| Some(host) != own_host.as_ref()).enumerate() {
            // Nobody relays for so many; each is looked up.
            if at >= SERVER_LIMIT || targets::is_of_another(&self.app, own, &host).await? {
                others.insert(host);
            }
        }
        Ok(others)
    }

    async fn offer_without(&self, payload: Payload, own: &str, others: HashSet<String>) -> Answer {
        let sent = payload.len() as u64;
        let why = refusal(own, &others);
        tracing::debug!("{why}");
        let kept = match payload.into_records() {
            Ok(Records::Metrics(metrics)) => without(metrics, &others),
            // Records of the other signals are not told apart by host anywhere.
            _ => return Answer::Refused { records: sent, why },
        };
        let refused = sent.saturating_sub(kept.len() as u64);
        if kept.is_empty() {
            return Answer::Refused { records: refused, why };
        }
        match self.app.intake.offer(Payload::from_records(Records::Metrics(kept))).await {
            Answer::Stored if refused > 0 => Answer::Refused { records: refused, why },
            Answer::Refused { records, why: other } if refused > 0 => {
                Answer::Refused { records: records + refused, why: format!("{why}; {other}") }
            }
            other => other,
        }
    }
}

fn refusal(own: &str, others: &HashSet<String>) -> String {
    let first = others.iter().min().map_or("", String::as_str);
    let more = if others.len() > 1 { format!(" and {} others", others.len() - 1) } else { String::new() };
    format!("this key belongs to the agent {own:?} and may not write for {first:?}{more}, the host of another agent")
}

/// As [`hosts`], without holding up other requests.
async fn hosts_apart(payload: Payload) -> Result<HashSet<String>, ApiError> {
    if payload.size_bytes() <= APART_ABOVE_BYTES {
        return hosts(&payload);
    }
    let found = tokio::task::spawn_blocking(move || hosts(&payload)).await;
    found.unwrap_or_else(|_| Err(ApiError::unavailable("the server is being stopped")))
}

/// All hosts that a payload names, wherever: an attribute of a point hides that of its resource.
fn hosts(payload: &Payload) -> Result<HashSet<String>, ApiError> {
    let common = match payload.records() {
        Ok(Records::Metrics(metrics)) => &metrics.table.common,
        Ok(Records::Logs(logs)) => &logs.common,
        Ok(Records::Traces(traces)) => &traces.common,
        // What was accepted can be decoded.
        Err(error) => return Err(ApiError::unavailable(error.to_string())),
    };
    let named = common.attributes.iter().filter(|attribute| common.text(attribute.key) == HOST_NAME);
    Ok(named.map(|attribute| common.value_text(attribute.value)).collect())
}

/// The points that belong to none of these hosts.
fn without(mut metrics: Metrics, hosts: &HashSet<String>) -> Metrics {
    let table = &metrics.table;
    let names = |common: &Common, attributes| {
        let named = common.list(attributes).iter().filter(|attribute| common.text(attribute.key) == HOST_NAME);
        named.into_iter().any(|attribute| hosts.contains(&common.value_text(attribute.value)))
    };
    let is_refused = |series: u32| {
        let common = &table.common;
        let own = table.series.get(series as usize).is_some_and(|series| names(common, series.attributes));
        let scope = table.metric_of(series).and_then(|metric| common.scopes.get(metric.scope as usize));
        let resource = scope.and_then(|scope| common.resources.get(scope.resource as usize));
        own || resource.is_some_and(|resource| names(common, resource.attributes))
    };
    let refused: Vec<bool> =
        (0..table.series.len()).map(|at| is_refused(u32::try_from(at).unwrap_or(u32::MAX))).collect();
    let keeps = |series: u32| !refused.get(series as usize).copied().unwrap_or(true);
    let mut numbers = weir_model::metrics::Numbers::default();
    metrics.numbers.iter().filter(|point| keeps(point.series)).for_each(|point| numbers.push(point));
    metrics.numbers = numbers;
    metrics.histograms.retain(|point| keeps(point.distribution.series));
    metrics.exponential.retain(|point| keeps(point.distribution.series));
    metrics.summaries.retain(|point| keeps(point.series));
    // They point at points by their index.
    metrics.exemplars.clear();
    metrics
}
