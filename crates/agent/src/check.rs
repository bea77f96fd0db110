//! `weir check`: every integration tried for real, one line each.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use weir_model::MetricsBuilder;
use weir_pipeline::outcome::{Fault, FaultKind};
use weir_pipeline::plan::{Member, Plan};

/// What the trial of one integration found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The instance.
    pub integration: Arc<str>,
    /// What was proved, or what is wrong.
    pub result: Result<String, Fault>,
}

/// Longest time for one trial.
const LONGEST: Duration = Duration::from_secs(20);

/// Tries every integration of a plan: a collector polls once, an exporter proves address,
/// credentials and permission, a receiver opens its listeners for a moment.
pub async fn check(plan: Plan) -> Vec<Finding> {
    let mut tasks = JoinSet::new();
    let mut order = Vec::new();
    let telemetry = plan.telemetry().clone();
    for member in plan.members {
        let name = member.name().clone();
        if !matches!(member, Member::Off { .. }) {
            order.push(name.clone());
        }
        let telemetry = telemetry.clone();
        tasks.spawn(async move {
            let trial = tokio::time::timeout(LONGEST, try_member(member, telemetry));
            let result = trial.await.unwrap_or_else(|_| {
                Some(Err(Fault::new(FaultKind::TimedOut, format!("no result within {} s", LONGEST.as_secs()))))
            });
            result.map(|result| Finding { integration: name, result })
        });
    }
    let mut findings: Vec<Finding> = tasks.join_all().await.into_iter().flatten().collect();
    findings.sort_by_key(|finding| order.iter().position(|name| *name == finding.integration));
    findings
}

async fn try_member(
    member: Member,
    telemetry: Arc<weir_pipeline::telemetry::Telemetry>,
) -> Option<Result<String, Fault>> {
    match member {
        Member::Off { .. } => None,
        Member::Export { exporter, .. } => Some(exporter.check().await),
        Member::Collect { mut collector, mut builder, .. } => {
            builder.begin(weir_pipeline::schedule::unix_nanos(std::time::SystemTime::now()), 0);
            let result = collector.collect(&mut builder).await;
            Some(result.map(|()| gathered(&builder)))
        }
        Member::Receive { name, receiver } => {
            let intake = weir_pipeline::Intake::new(
                name,
                weir_pipeline::route::Paths::default(),
                telemetry,
                weir_config::Acknowledge::Durable,
            );
            let mut addresses = Vec::new();
            for mount in receiver.mounts(&intake) {
                if let Err(error) = weir_net::bind(&mount.address).await {
                    return Some(Err(Fault::new(FaultKind::Configuration, error.to_string())));
                }
                addresses.push(mount.address.to_string());
            }
            Some(Ok(match addresses.as_slice() {
                [] => "its options are right; what it finds shows when it runs".to_owned(),
                addresses => format!("can listen on {}", addresses.join(" and ")),
            }))
        }
    }
}

fn gathered(builder: &MetricsBuilder) -> String {
    match builder.len() {
        1 => "gathered 1 point".to_owned(),
        points => format!("gathered {points} points"),
    }
}
