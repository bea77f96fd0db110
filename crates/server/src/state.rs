//! What all requests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weir_metadata::Metadata;
use weir_pipeline::control::Control;
use weir_pipeline::telemetry::Telemetry;
use weir_pipeline::{Intake, Watching};
use weir_store::Store;

use crate::api::websocket::AlertFeed;
use crate::auth::limit::Limiter;
use crate::hosts::table::HostTable;

/// How the server was told to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the listener, as configured.
    pub listen: weir_config::SocketAddress,
    /// Address under which others reach the server, without a slash at its end, for links.
    pub public_url: String,
    /// Folder of the stored data, shown to people.
    pub data_folder: PathBuf,
    /// How long metrics are kept.
    pub retention: Duration,
    /// Whether programs on this machine may send without a key.
    pub keyless_loopback: bool,
    /// Whether metrics of an agent that never registered make it known.
    pub auto_register: bool,
    /// Name of the machine that the server runs on.
    pub host_name: String,
    /// What this machine's own collectors watch, and what not.
    pub watching: Vec<(Arc<str>, Watching)>,
}

/// What all requests share.
pub struct State {
    /// How the server runs.
    pub options: Options,
    /// When it started, unix milliseconds.
    pub started_ms: i64,
    /// The stored telemetry.
    pub store: Store,
    /// Servers, agents, keys.
    pub metadata: Metadata,
    /// Ledger and health of the pipeline that the server is part of.
    pub telemetry: Arc<Telemetry>,
    /// What the pipeline shows, and what can be asked of it.
    pub control: Control,
    /// The live table of hosts.
    pub hosts: HostTable,
    /// Alerts as they come, for those who listen at the WebSocket.
    pub alert_feed: AlertFeed,
    /// Failed attempts to sign in, by address.
    pub limiter: Limiter,
}

impl State {
    /// The state of a server that is about to start.
    pub fn new(options: Options, store: Store, metadata: Metadata, control: Control) -> Arc<State> {
        Arc::new(State {
            options,
            started_ms: now_ms(),
            store,
            metadata,
            telemetry: control.telemetry().clone(),
            control,
            hosts: HostTable::default(),
            alert_feed: AlertFeed::default(),
            limiter: Limiter::default(),
        })
    }
}

/// What a handler gets: the shared state, and the way into the pipeline.
#[derive(Clone)]
pub struct App {
    /// The shared state.
    pub state: Arc<State>,
    /// Where received records go.
    pub intake: Intake,
}

impl std::ops::Deref for App {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// The TCP peer of a request.
pub type Peer = axum::extract::ConnectInfo<SocketAddr>;

/// Now, unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
