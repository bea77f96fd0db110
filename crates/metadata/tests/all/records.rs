//! Servers, agents, gaps and alerts.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};
use weir_metadata::{Alert, Gap, Location, Metadata, MetadataError, NewAgent, NewKey, NewServer, Scopes, ServerPatch};

use crate::suite::open;

fn new_server(hostname: &str) -> NewServer {
    NewServer { hostname: hostname.to_owned(), ..NewServer::default() }
}

pub async fn server_life(location: Location) {
    let metadata = open(&location).await;
    let web = NewServer {
        id: Some("srv-1".to_owned()),
        ip_address: Some("10.0.0.5".to_owned()),
        environment: Some("production".to_owned()),
        tags: vec!["web".to_owned(), "team=\"core\" ü".to_owned()],
        kind: Some("agentops".to_owned()),
        facts: json!({"cores": 8, "nested": [1.5, null]}),
        ..new_server("web-1")
    };
    let created = metadata.create_server(web, 1_000).await.expect("creates");
    assert_eq!((created.id.as_str(), created.created_ms, &created.location), ("srv-1", 1_000, &None));
    let other = metadata.create_server(new_server("srv-1"), 2_000).await.expect("creates");
    assert_eq!(other.id.len(), 36, "a UUID");

    assert_eq!(metadata.server("srv-1").await, Ok(Some(created.clone())));
    assert_eq!(metadata.server("web-1").await, Ok(None));
    assert_eq!(metadata.server_by_hostname("web-1").await, Ok(Some(created.clone())));
    assert_eq!(metadata.find_server("web-1").await, Ok(Some(created.clone())));
    assert_eq!(metadata.find_server("srv-1").await, Ok(Some(created.clone())), "an id wins over a name");
    let names: Vec<_> = metadata.servers().await.expect("lists").into_iter().map(|server| server.hostname).collect();
    assert_eq!(names, ["srv-1", "web-1"]);

    let patch = ServerPatch {
        hostname: Some("web-2".to_owned()),
        environment: Some(None),
        location: Some(Some("fra-1".to_owned())),
        ..ServerPatch::default()
    };
    let changed = metadata.update_server("srv-1", patch).await.expect("changes");
    assert_eq!((changed.hostname.as_str(), &changed.environment), ("web-2", &None));
    assert_eq!((changed.location.as_deref(), changed.ip_address.as_deref()), (Some("fra-1"), Some("10.0.0.5")));
    assert_eq!((&changed.tags, &changed.facts, changed.created_ms), (&created.tags, &created.facts, 1_000));
    assert_eq!(metadata.server("srv-1").await, Ok(Some(changed)));

    metadata.record_gap("web-2", 1, 2).await.expect("records");
    metadata.delete_server("srv-1").await.expect("deletes");
    assert_eq!(metadata.server("srv-1").await, Ok(None));
    assert_eq!(metadata.gaps("web-2", 0, 10).await, Ok(vec![]));
    let gone = MetadataError::NotFound { what: "server", id: "srv-1".to_owned() };
    assert_eq!(metadata.delete_server("srv-1").await, Err(gone.clone()));
    assert_eq!(metadata.update_server("srv-1", ServerPatch::default()).await, Err(gone));
}

pub async fn server_conflicts(location: Location) {
    let metadata = open(&location).await;
    let with_id = |id: &str, hostname| NewServer { id: Some(id.to_owned()), ..new_server(hostname) };
    metadata.create_server(with_id("a", "web-1"), 0).await.expect("creates");
    metadata.create_server(with_id("b", "web-2"), 0).await.expect("creates");
    let conflict = |what, value: &str| MetadataError::Conflict { what, value: value.to_owned() };
    let refused = metadata.create_server(with_id("a", "web-3"), 0).await;
    assert_eq!(refused, Err(conflict("id", "a")));
    let refused = metadata.create_server(new_server("web-1"), 0).await;
    assert_eq!(refused, Err(conflict("hostname", "web-1")));
    let rename = |name: &str| ServerPatch { hostname: Some(name.to_owned()), ..ServerPatch::default() };
    assert_eq!(metadata.update_server("b", rename("web-1")).await, Err(conflict("hostname", "web-1")));
    assert!(metadata.update_server("b", rename("web-2")).await.is_ok(), "its own name is no conflict");
    let names: Vec<_> = metadata.servers().await.expect("lists").into_iter().map(|server| server.hostname).collect();
    assert_eq!(names, ["web-1", "web-2"]);
}

pub async fn ensure_is_race_free(location: Location) {
    let metadata = open(&location).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let metadata = metadata.clone();
            tokio::spawn(async move { metadata.ensure_server("web-1", Some("otlp"), 5).await.expect("ensures").id })
        })
        .collect();
    let mut ids = HashSet::new();
    for task in tasks {
        ids.insert(task.await.expect("no panic"));
    }
    assert_eq!((ids.len(), metadata.servers().await.expect("lists").len()), (1, 1));

    let first = metadata.ensure_server("web-2", None, 6).await.expect("ensures");
    assert_eq!(first.kind, None);
    let named = metadata.ensure_server("web-2", Some("weir"), 7).await.expect("ensures");
    assert_eq!((named.id, named.created_ms, named.kind.as_deref()), (first.id, 6, Some("weir")));
    let kept = metadata.ensure_server("web-2", Some("otlp"), 8).await.expect("ensures");
    assert_eq!(kept.kind.as_deref(), Some("weir"));
}

fn new_agent(id: Option<&str>, hostname: &str) -> NewAgent {
    NewAgent { id: id.map(str::to_owned), hostname: hostname.to_owned(), ..NewAgent::default() }
}

pub async fn agent_registers_again(location: Location) {
    let metadata = open(&location).await;
    let attributes = Map::from_iter([("region".to_owned(), json!("eu")), ("config".to_owned(), json!({"a": [1]}))]);
    let first = NewAgent {
        agent_type: Some("aws".to_owned()),
        version: Some("1.0".to_owned()),
        tags: vec!["blue".to_owned()],
        attributes: attributes.clone(),
        ..new_agent(Some("a1"), "web-1")
    };
    let registered = metadata.register_agent(first, 1_000).await.expect("registers");
    assert_eq!((registered.registered_ms, &registered.attributes), (1_000, &Json::Object(attributes)));
    assert_eq!((registered.last_heartbeat_ms, &registered.heartbeat), (None, &Json::Null));
    metadata.heartbeat("a1", 1_500, &json!({"interval_seconds": 30})).await.expect("a heartbeat");

    let second = NewAgent { version: Some("1.1".to_owned()), ..new_agent(Some("a1"), "web-2") };
    let again = metadata.register_agent(second, 2_000).await.expect("registers");
    assert_eq!((again.hostname.as_str(), again.version.as_deref()), ("web-2", Some("1.1")));
    assert_eq!((again.registered_ms, again.agent_type.as_deref()), (1_000, Some("aws")));
    assert_eq!((again.last_heartbeat_ms, again.interval_seconds), (Some(1_500), Some(30.0)));
    assert_eq!(again.attributes, json!({}));
    assert_eq!(metadata.agent("a1").await, Ok(Some(again.clone())));
    metadata.register_agent(new_agent(Some("a0"), "web-2"), 1_600).await.expect("registers");
    let ids = |agents: Vec<weir_metadata::Agent>| agents.into_iter().map(|agent| agent.id).collect::<Vec<_>>();
    assert_eq!(ids(metadata.agents().await.expect("lists")), ["a0", "a1"]);
    assert_eq!(ids(metadata.agents_by_hostname("web-2").await.expect("lists")), ["a0", "a1"], "heard last first");
    assert_eq!(metadata.agents_by_hostname("web-1").await, Ok(vec![]));
}

pub async fn heartbeats(location: Location) {
    let metadata = open(&location).await;
    let unknown = metadata.heartbeat("nobody", 1, &Json::Null).await;
    assert_eq!(unknown, Err(MetadataError::NotFound { what: "agent", id: "nobody".to_owned() }));
    metadata.register_agent(new_agent(Some("a1"), "web-1"), 1).await.expect("registers");
    let body = json!({"status": "ok", "interval_seconds": 0.5, "agent_version": "2.0", "system": {"cpu_count": 2}});
    metadata.heartbeat("a1", 2, &body).await.expect("a heartbeat");
    let agent = metadata.agent("a1").await.expect("reads").expect("is there");
    assert_eq!((agent.last_heartbeat_ms, agent.interval_seconds, agent.heartbeat), (Some(2), Some(0.5), body));
    assert_eq!(agent.version.as_deref(), Some("2.0"));
    metadata.heartbeat("a1", 3, &json!({"interval_seconds": -1})).await.expect("a heartbeat");
    let agent = metadata.agent("a1").await.expect("reads").expect("is there");
    assert_eq!((agent.last_heartbeat_ms, agent.interval_seconds), (Some(3), Some(0.5)), "nonsense is not believed");
}

pub async fn agent_without_id(location: Location) {
    // Two processes; and many rounds, because the connections of the first ones open one by one.
    let processes = [open(&location).await, open(&location).await];
    let mut ids = HashSet::new();
    for round in 0..20 {
        let tasks: Vec<_> = (0..8)
            .map(|number: usize| {
                let (metadata, agent) = (processes[number % 2].clone(), new_agent(None, &format!("web-{round}")));
                tokio::spawn(async move { metadata.register_agent(agent, 1).await.expect("registers").id })
            })
            .collect();
        for task in tasks {
            ids.insert(task.await.expect("no panic"));
        }
    }
    assert_eq!(ids.len(), 20, "one agent a host");
}

pub async fn deleted_agent(location: Location) {
    let metadata = open(&location).await;
    metadata.register_agent(new_agent(Some("a1"), "web-1"), 1).await.expect("registers");
    let new = |agent: Option<&str>| NewKey {
        name: "k".to_owned(),
        scopes: Scopes::INGEST,
        agent_id: agent.map(str::to_owned),
        expires_ms: None,
    };
    let (_, own) = metadata.create_key(new(Some("a1")), 2).await.expect("creates");
    let (_, other) = metadata.create_key(new(None), 2).await.expect("creates");
    assert!(metadata.verify_key(own.expose(), 3).await.expect("verifies").is_some());
    metadata.delete_agent("a1", 4).await.expect("deletes");
    assert_eq!(metadata.agent("a1").await, Ok(None));
    assert_eq!(metadata.verify_key(own.expose(), 5).await, Ok(None));
    assert!(metadata.verify_key(other.expose(), 5).await.expect("verifies").is_some());
    let again = metadata.delete_agent("a1", 6).await;
    assert_eq!(again, Err(MetadataError::NotFound { what: "agent", id: "a1".to_owned() }));
}

pub async fn gaps(location: Location) {
    let metadata = open(&location).await;
    let recorded = async |from_ms, to_ms| metadata.record_gap("web-1", from_ms, to_ms).await;
    recorded(10, 20).await.expect("records");
    recorded(30, 40).await.expect("records");
    recorded(30, 50).await.expect("grows");
    recorded(30, 45).await.expect("never shrinks");
    metadata.record_gap("web-2", 10, 20).await.expect("records");
    assert!(matches!(recorded(5, 4).await, Err(MetadataError::Invalid { .. })));
    let (first, second) = (Gap { from_ms: 10, to_ms: 20 }, Gap { from_ms: 30, to_ms: 50 });
    assert_eq!(metadata.gaps("web-1", 0, 100).await, Ok(vec![first, second]));
    assert_eq!(metadata.gaps("web-1", 20, 29).await, Ok(vec![first]));
    assert_eq!(metadata.gaps("web-1", 21, 29).await, Ok(vec![]));
    assert_eq!(metadata.gaps("web-1", 35, 36).await, Ok(vec![second]));
    for number in 0..1_000 {
        recorded(1_000 + number, 1_000 + number).await.expect("records");
    }
    let kept = metadata.gaps("web-1", 0, i64::MAX).await.expect("lists");
    assert_eq!((kept.len(), kept.first().map(|gap| gap.from_ms)), (1_000, Some(1_000)));
    assert_eq!(metadata.gaps("web-2", 0, 100).await, Ok(vec![first]), "another host keeps its own");
}

fn alert(number: i64) -> Alert {
    Alert {
        id: format!("alert-{number:06}"),
        received_ms: number,
        source: "alertmanager".to_owned(),
        severity: Some("critical".to_owned()),
        title: format!("disk of web-{number} is full"),
        server: None,
        status: Some("firing".to_owned()),
        fingerprint: Some("f00d".to_owned()),
        body: json!({"labels": {"alertname": "DiskFull"}, "value": 0.97}),
    }
}

async fn listed(metadata: &Metadata, limit: u32, before_ms: i64) -> Vec<i64> {
    let alerts = metadata.list_alerts(limit, before_ms).await.expect("lists");
    alerts.into_iter().map(|alert| alert.received_ms).collect()
}

pub async fn alerts(location: Location) {
    let metadata = open(&location).await;
    metadata.store_alerts(vec![]).await.expect("nothing to store");
    metadata.store_alerts(vec![alert(1), alert(2), alert(3)]).await.expect("stores");
    assert_eq!(metadata.list_alerts(1, 2).await, Ok(vec![alert(1)]));
    assert_eq!(listed(&metadata, 2, i64::MAX).await, [3, 2]);
    assert_eq!(listed(&metadata, 9, 3).await, [2, 1]);

    let resolved = Alert { status: Some("resolved".to_owned()), received_ms: 4, ..alert(1) };
    metadata.store_alerts(vec![resolved.clone()]).await.expect("replaces");
    assert_eq!(metadata.list_alerts(1, i64::MAX).await, Ok(vec![resolved]));
    assert_eq!(listed(&metadata, 9, i64::MAX).await, [4, 3, 2]);

    // The last ones came in the same millisecond: the bound holds for them too.
    let many = (10..10_015).map(|number| Alert { received_ms: number.max(10_000), ..alert(number) }).collect();
    metadata.store_alerts(many).await.expect("stores");
    assert_eq!(metadata.list_alerts(20_000, i64::MAX).await.expect("lists").len(), 10_000);
    assert_eq!(listed(&metadata, 2, i64::MAX).await, [10_014, 10_013]);
}
