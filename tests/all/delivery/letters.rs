//! Dead letters of real backends: what they hold, and that they arrive when the backend is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::lasting::{Lasting, Row};
use crate::harness::{http, seconds, wait_for};

/// An agent with this exporter, its block as it stands below `integrations:`.
pub async fn agent(exporter: &str) -> Lasting {
    let mut agent = Lasting::new();
    agent.configure("", &exporter.lines().map(|line| format!("  {line}\n")).collect::<String>());
    agent.start().await;
    agent
}

/// Hands a request to an agent, which has it on its disk then.
pub async fn send(agent: &Lasting, signal: &str, request: &Json) {
    let answer = http::post(&format!("{}/v1/{signal}", agent.url()), "application/json", request.to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.excerpt());
}

/// What became of everything that was handed to it, when nothing waits any more.
pub async fn drained(agent: &Lasting, longest: Duration) -> Row {
    wait_for("nothing waits", longest, async || {
        let rows = agent.ledger();
        let row = Row::of(rows.iter().filter(|row| row["source"] == "otlp_receiver"));
        Some(row).filter(|row| row.accepted > 0 && row.waiting == 0)
    })
    .await
}

/// All dead letters, as they are listed.
pub fn list(agent: &Lasting) -> Vec<Json> {
    let page = agent.json(&["dead-letters", "list", "--json", "--limit", "1000"]);
    page["dead_letters"].as_array().expect("a list").clone()
}

/// Every text and time of the records in the dead letters, each letter holding nothing but refused
/// records, and each saying `why`.
pub fn texts(agent: &Lasting, why: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for letter in list(agent) {
        assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{letter}");
        assert_eq!(letter["of"], letter["records"], "good records among the refused: {letter}");
        let shown = agent.json(&["dead-letters", "show", letter["id"].as_str().expect("an id")]);
        collect(&shown["payload"], &mut found);
    }
    found
}

fn collect(value: &Json, found: &mut BTreeSet<String>) {
    match value {
        Json::String(text) => drop(found.insert(text.clone())),
        Json::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Json::Object(members) => members.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// Records in all dead letters.
pub fn records(agent: &Lasting) -> u64 {
    list(agent).iter().map(|letter| letter["records"].as_u64().expect("a number")).sum()
}

/// Replays all dead letters, which are refused once more and stay.
pub async fn replay_in_vain(agent: &Lasting, expected: u64) {
    let output = agent.run(&["dead-letters", "replay", "--all"]);
    println!("{}", crate::harness::weir::said(&output).trim());
    // They are handed to a queue, whose exporter refuses them a moment later.
    let mut times = 0;
    wait_for("they are refused again", seconds(30), async || {
        let letters = list(agent);
        times = letters.iter().map(|letter| letter["times"].as_u64().expect("a number")).min().unwrap_or(0);
        (times >= 2 && records(agent) == expected).then_some(())
    })
    .await;
}

/// Replays all dead letters, and waits until none is left.
pub async fn replay(agent: &Lasting) {
    let said = agent.says(&["dead-letters", "replay", "--all"]);
    assert!(said.contains("handed on again"), "{said}");
    wait_for("no dead letter is left", seconds(30), async || list(agent).is_empty().then_some(())).await;
}
