//! Scenarios that hold on both databases, and the two tests that run all of them.

use std::pin::Pin;

use weir_metadata::{Location, Metadata};

use crate::postgres::PostgresServer;
use crate::{credentials, records, schema};

/// A scenario gets an empty database of its own.
type Scenario = fn(Location) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All of them, by name.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("a server is created, found, changed and deleted", |at| Box::pin(records::server_life(at))),
    ("an id or a hostname is given once", |at| Box::pin(records::server_conflicts(at))),
    ("a host that is seen many times at once is one server", |at| Box::pin(records::ensure_is_race_free(at))),
    ("an agent that registers again is the same agent", |at| Box::pin(records::agent_registers_again(at))),
    ("a heartbeat is kept, and refused for an unknown agent", |at| Box::pin(records::heartbeats(at))),
    ("an agent without an id is known by its host", |at| Box::pin(records::agent_without_id(at))),
    ("a deleted agent's keys are refused", |at| Box::pin(records::deleted_agent(at))),
    ("gaps are kept, the newest 1,000 of a host", |at| Box::pin(records::gaps(at))),
    ("alerts are kept, the newest 10,000", |at| Box::pin(records::alerts(at))),
    ("a key opens by text and by pair, and nothing else does", |at| Box::pin(credentials::keys(at))),
    ("a revoked key is refused at once", |at| Box::pin(credentials::revoked_key(at))),
    ("an expired key is refused, from memory too", |at| Box::pin(credentials::expired_key(at))),
    ("an operator's own key is imported once and replaced by a new one", |at| Box::pin(credentials::imported_keys(at))),
    ("the last use of a key is written once a minute", |at| Box::pin(credentials::touched_key(at))),
    ("a token tells why it is refused", |at| Box::pin(credentials::token_states(at))),
    ("of many machines at once only as many join as the token allows", |at| {
        Box::pin(credentials::concurrent_redeems(at))
    }),
    ("a machine joins wholly or not at all", |at| Box::pin(credentials::enrolment(at))),
    ("a login token works once and for ten minutes", |at| Box::pin(credentials::login(at))),
    ("a session slides and ends", |at| Box::pin(credentials::sessions(at))),
    ("what is over is swept", |at| Box::pin(credentials::sweep(at))),
    ("what was acknowledged is there after opening again", |at| Box::pin(schema::opened_again(at))),
    ("many first starts at once agree on one schema", |at| Box::pin(schema::opened_at_once(at))),
    ("a database of a newer Weir is refused", |at| Box::pin(schema::newer(at))),
    ("a table of someone else stops the start and is left alone", |at| Box::pin(schema::foreign_table(at))),
    ("after closing every call says so", |at| Box::pin(schema::closed(at))),
];

/// Opens the database of a scenario.
pub async fn open(location: &Location) -> Metadata {
    Metadata::open(location).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all scenarios, and says at the end which ones failed.
async fn run(place: &str, mut location: impl AsyncFnMut(usize) -> Location) {
    let mut failed = Vec::new();
    for (number, (name, scenario)) in SCENARIOS.iter().enumerate() {
        if tokio::spawn(scenario(location(number).await)).await.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "{} of {} scenarios failed on {place}: {failed:#?}", failed.len(), SCENARIOS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_holds_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    run("SQLite", async |number| Location::Sqlite(folder.path().join(format!("{number}.sqlite")))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_holds_on_postgresql() {
    let Some(server) = PostgresServer::start("every_scenario_holds_on_postgresql") else { return };
    run("PostgreSQL", async |number| server.empty_database(&format!("scenario_{number}")).await).await;
}
