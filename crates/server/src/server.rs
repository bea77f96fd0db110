//! The server as a member of the pipeline.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use weir_pipeline::role::DynReceive;
use weir_pipeline::{Fault, Intake, Mount, Stop};

use crate::error::ApiError;
use crate::ingest::agents;
use crate::state::{App, State};

/// The HTTP API as a receiver.
pub struct Api(pub Arc<State>);

impl DynReceive for Api {
    fn mounts(&self, intake: &Intake) -> Vec<Mount> {
        let app = App { state: self.0.clone(), intake: intake.clone() };
        vec![Mount { address: self.0.options.listen.clone(), router: crate::api::router(app) }]
    }

    fn run(self: Box<Self>, _intake: Intake, stop: Stop) -> BoxFuture<'static, Result<(), Fault>> {
        let state = self.0;
        Box::pin(async move {
            tokio::select! {
                () = Background(state).run() => {}
                () = stop.wait() => {}
            }
            Ok(())
        })
    }
}

/// What the server does besides answering: keeps the table of hosts, notes gaps, removes what expired.
pub struct Background(pub Arc<State>);

impl Background {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let table = crate::hosts::feed::run(&self.0);
        let sweep = crate::auth::session::sweep(&self.0);
        tokio::join!(table, sweep);
    }
}

/// Takes what the agent in the same process says, which other agents say over HTTP: `registration`
/// makes it known, `heartbeat` tells how it feels.
///
/// # Errors
/// What is wrong with them, or the metadata database failed.
pub async fn take_own(state: &State, registration: Value, heartbeat: Value) -> Result<(), ApiError> {
    let agent = agents::store(state, agents::registration(&registration)?).await?;
    agents::take_heartbeat(state, &agent.id, heartbeat).await
}
