//! `weir up` and `weir server`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use weir_agent::{Loaded, Program, Source};
use weir_config::{QueueKind, Secret, Settings, SocketAddress};
use weir_metadata::{Metadata, NewToken, Scopes};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::plan::Member;
use weir_server::{Api, Options, State};
use weir_store::Store;

use super::place;
use crate::agent::runtime;
use crate::introduction::{self, Watched};
use crate::running::{self, Origin, Running, StopSignals};
use crate::{WRONG_CONFIGURATION, say};

/// Options of a server.
#[derive(Args)]
pub struct Arguments {
    /// Folder of the stored data; by default /var/lib/weir as root, else ~/.local/share/weir
    #[arg(long, value_name = "DIR", env = "WEIR_DATA")]
    data: Option<PathBuf>,
    /// Address of the dashboard and the APIs: `127.0.0.1:8088`, or `:8088` for all interfaces
    #[arg(long, value_name = "ADDRESS", env = "WEIR_LISTEN")]
    listen: Option<SocketAddress>,
    /// Configuration file; without it /etc/weir/weir.yaml, or what needs none
    #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
}

/// What runs beside the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// This machine's agent: `weir up`.
    WithAgent,
    /// Nothing: `weir server`.
    Alone,
}

/// How long a printed login link and the token of the printed command are good.
const JOIN_TOKEN_SECONDS: i64 = 24 * 3600;
const JOIN_TOKEN_USES: i64 = 10;

/// The integration that receives on the ports where SDKs send without configuration.
const OTLP_RECEIVER: &str = "otlp_receiver";

/// Runs a server until it is told to stop.
pub fn run(arguments: &Arguments, serve: Serve) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match start(arguments, serve).await {
            Ok(running) => running.until_stopped().await,
            Err(Failure::Configuration(text)) => {
                say::note(&text);
                ExitCode::from(WRONG_CONFIGURATION)
            }
            Err(Failure::Told(text)) => {
                say::note(&format!("weir: {text}"));
                ExitCode::FAILURE
            }
        }
    });
    // A thread that hangs in a dead mount must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Why a server does not start, for people.
enum Failure {
    /// The configuration cannot be used.
    Configuration(String),
    /// Anything else.
    Told(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Told(text)
    }
}

fn origin(arguments: &Arguments, serve: Serve, otlp: bool) -> Origin {
    let program = if serve == Serve::WithAgent { Program::Up { otlp } } else { Program::Server };
    Origin { source: Source::find(arguments.config.as_deref()), program, data: arguments.data.clone() }
}

fn load(arguments: &Arguments, serve: Serve, otlp: bool) -> Result<Loaded, Failure> {
    let Origin { source, program, data } = origin(arguments, serve, otlp);
    weir_agent::load(source, program, data.as_deref()).map_err(|error| Failure::Configuration(error.to_string()))
}

async fn start(arguments: &Arguments, serve: Serve) -> Result<Serving, Failure> {
    let signals = StopSignals::install().map_err(|_| "cannot listen for Ctrl-C".to_owned())?;
    let loaded = load(arguments, serve, true)?;
    let opened = Opened::new(&loaded).await?;
    let is_asked_for = loaded.settings.integrations.iter().any(|block| block.kind == OTLP_RECEIVER);
    let begun = match begin(arguments, &opened, loaded, origin(arguments, serve, true)).await {
        // Another collector may have the ports that nobody asked for: then it keeps them, and the
        // server's own port takes OTLP all the same.
        Err(running::Failure::Start(error)) if !is_asked_for && *error.integration == *OTLP_RECEIVER => {
            let origin = origin(arguments, serve, false);
            begin(arguments, &opened, load(arguments, serve, false)?, origin).await.map(|mut begun| {
                begun.rows.push(("receiving", format!("OTLP on the server's port alone: {}", error.reason)));
                begun
            })
        }
        begun => begun,
    };
    let Begun { running, state, rows, own } = begun.map_err(|failure| match failure {
        running::Failure::Configuration(text) => Failure::Configuration(text),
        running::Failure::Start(error) if &*error.integration == "api" => {
            Failure::Told(format!("{} (--listen)", error.reason))
        }
        running::Failure::Start(error) => Failure::Told(error.to_string()),
    })?;
    let folder = &state.options.data_folder;
    place::note_address(folder, &state.options.public_url).map_err(|error| format!("{}: {error}", folder.display()))?;
    if serve == Serve::WithAgent {
        tokio::spawn(own_heartbeat(state.clone(), own));
    }
    say::note(&introduction(serve, &state, rows).await?);
    Ok(Serving { running, signals, state })
}

/// What is open as long as the server runs.
struct Opened {
    store: Store,
    retention: Duration,
    metadata: Metadata,
}

impl Opened {
    async fn new(loaded: &Loaded) -> Result<Opened, String> {
        let (settings, folder) = (&loaded.settings.server, &loaded.data_folder);
        place::prepare(folder)?;
        let location = place::metadata_location(folder, settings)?;
        let mut options = weir_store::Options::default();
        options.retention = settings.retention.map_or(options.retention, Into::into);
        let retention = options.retention;
        // The store goes first: it holds the lock that keeps a second server away from the folder.
        let store = Store::open(&folder.join("store"), options).map_err(|error| error.to_string())?;
        let metadata = Metadata::open(&location).await.map_err(|error| error.to_string())?;
        admin_key(&metadata).await?;
        Ok(Opened { store, retention, metadata })
    }
}

/// This machine's own agent.
struct Own {
    settings: Settings,
    host_name: String,
    watched: Watched,
}

/// A server whose listeners are open.
struct Begun {
    running: Running,
    state: Arc<State>,
    rows: Vec<introduction::Row>,
    own: Own,
}

async fn begin(
    arguments: &Arguments,
    opened: &Opened,
    mut loaded: Loaded,
    origin: Origin,
) -> Result<Begun, running::Failure> {
    let watched = loaded.plan.watching();
    let settings = &loaded.settings.server;
    let listen = place::listen(arguments.listen.as_ref(), settings);
    let options = Options {
        public_url: place::public_url(&listen, settings),
        data_folder: loaded.data_folder.clone(),
        retention: opened.retention,
        keyless_loopback: settings.keyless_loopback.unwrap_or_else(|| place::is_loopback(&listen)),
        auto_register: settings.auto_register,
        host_name: loaded.host_name.clone(),
        watching: watched.clone(),
        listen,
    };
    let (store, control) = (opened.store.clone(), loaded.plan.control.clone());
    let state = State::new(options, store.clone(), opened.metadata.clone(), control);
    // The store is on the disk itself, and who sends to it waits for that.
    let in_memory = ExportOptions { queue: Some(QueueKind::Memory), ..ExportOptions::default() };
    loaded.plan.members.push(Member::exporter("store", in_memory, store.exporter()));
    loaded.plan.members.push(Member::receiver("api", Api(state.clone())));
    if let Some(storage) = &mut loaded.plan.storage {
        storage.is_wanted = true;
    }
    let rows = introduction::rows(&loaded, &watched);
    let own = Own { settings: loaded.settings.clone(), host_name: loaded.host_name.clone(), watched: watched.clone() };
    let running = Running::start(loaded, watched, origin).await?;
    Ok(Begun { running, state, rows, own })
}

struct Serving {
    running: Running,
    signals: StopSignals,
    state: Arc<State>,
}

impl Serving {
    async fn until_stopped(mut self) -> ExitCode {
        let code = self.running.run_to_the_end(&mut self.signals).await;
        self.state.store.close();
        self.state.metadata.close().await;
        code
    }
}

/// The first key of automation, from the environment.
async fn admin_key(metadata: &Metadata) -> Result<(), String> {
    let Some(text) = std::env::var_os("WEIR_ADMIN_KEY") else { return Ok(()) };
    let text = text.into_string().map_err(|_| "WEIR_ADMIN_KEY is not text".to_owned())?;
    metadata
        .import_key(&Secret::new(text), Scopes::ADMIN, "WEIR_ADMIN_KEY", weir_server::now_ms())
        .await
        .map(|_| ())
        .map_err(|error| format!("WEIR_ADMIN_KEY: {error}"))
}

/// This machine's own agent says what other agents say over HTTP, without HTTP.
async fn own_heartbeat(state: Arc<State>, Own { settings, host_name, watched }: Own) {
    let mut tick = tokio::time::interval(settings.agent.heartbeat_interval.into());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let registration = weir_agent::own_registration(&settings, &host_name);
        let heartbeat = weir_agent::heartbeat_body(&settings, &watched, &state.telemetry);
        if let Err(error) = weir_server::take_own(&state, registration, heartbeat).await {
            tracing::warn!("this machine's own sign of life was not stored: {error}");
        }
    }
}

async fn introduction(serve: Serve, state: &State, mut rows: Vec<introduction::Row>) -> Result<String, String> {
    let options = &state.options;
    let what = if serve == Serve::WithAgent { "server and agent" } else { "server" };
    let headline = format!("weir {}  {what} on {}", env!("CARGO_PKG_VERSION"), options.host_name);
    rows.push(("data", data(&options.data_folder, options.retention)));
    rows.push(("keys", keys(options)));
    let link = weir_server::auth::session::login_link(state).await.map_err(|error| error.to_string())?;
    rows.push(("dashboard", link));
    rows.push(("", "this link signs in once, within 10 minutes; `weir login` prints another".to_owned()));
    if !place::is_loopback(&options.listen) {
        let now = weir_server::now_ms();
        let new = NewToken {
            name: "printed at start".to_owned(),
            uses: JOIN_TOKEN_USES,
            expires_ms: now + JOIN_TOKEN_SECONDS * 1000,
        };
        let (_, token) = state.metadata.create_token(new, now).await.map_err(|error| error.to_string())?;
        rows.push(("add a machine", weir_server::join_command(&options.public_url, &token)));
        rows.push(("", "for 10 machines, within 24 hours; `weir tokens create` makes more".to_owned()));
    } else {
        rows.push((
            "add a machine",
            "only this machine reaches a loopback address; start with `--listen :8088`".to_owned(),
        ));
    }
    let mut text = introduction::text(&headline, &rows);
    text.push_str("\n  stop with Ctrl-C\n");
    Ok(text)
}

fn data(folder: &Path, retention: Duration) -> String {
    let free = place::free_gibibytes(folder).map(|free| format!(" ({free:.1} GiB free)")).unwrap_or_default();
    let hours = retention.as_secs().div_ceil(3600);
    format!("{}{free}, metrics are kept for {hours} h", folder.display())
}

fn keys(options: &Options) -> String {
    match (options.keyless_loopback, place::is_loopback(&options.listen)) {
        (true, true) => "programs on this machine send without one; everything else needs one".to_owned(),
        (true, false) => {
            "programs on this machine send without one, as configured; everything else needs one".to_owned()
        }
        (false, _) => "everything needs one: `weir keys create NAME --scope ingest`".to_owned(),
    }
}
