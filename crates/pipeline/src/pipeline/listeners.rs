//! Ports that receivers share, each with one router.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_config::SocketAddress;

use crate::memory_budget::{self, MemoryBudget};
use crate::pipeline::StartError;
use crate::role::Mount;

/// The routes of a receiver, and which start of it they belong to.
pub struct Mounted<'a> {
    /// Its instance name.
    pub name: Arc<str>,
    /// Differs after every restart of it.
    pub generation: u64,
    /// Its routes.
    pub mounts: &'a [Mount],
}

/// All ports that are listened on.
pub struct Listeners {
    budget: Arc<MemoryBudget>,
    open: BTreeMap<String, Open>,
    /// Servers of routers that were replaced: they finish their requests.
    serving: JoinSet<()>,
}

/// Serves a request within the memory of the process.
async fn within_memory(State(budget): State<Arc<MemoryBudget>>, request: Request, next: Next) -> Response {
    memory_budget::within(budget, next.run(request)).await
}

/// A port that is listened on.
struct Open {
    /// Kept beside the one that serves: while routers change, connections wait in its backlog.
    socket: std::net::TcpListener,
    owners: Vec<(Arc<str>, u64)>,
    stop: CancellationToken,
}

/// A port as it is to be.
struct Place {
    address: SocketAddress,
    owners: Vec<(Arc<str>, u64)>,
    router: Router,
}

/// What [`Listeners::prepare`] found and opened.
pub struct Prepared {
    places: BTreeMap<String, Place>,
    sockets: BTreeMap<String, std::net::TcpListener>,
}

impl Place {
    /// Adds a receiver's routes to the listener of their address. Two receivers of one kind answer
    /// the same paths, so they cannot share one.
    fn share(places: &mut BTreeMap<String, Place>, mounted: &Mounted<'_>, mount: &Mount) -> Result<(), StartError> {
        let owner = (mounted.name.clone(), mounted.generation);
        let router = mount.router.clone();
        let Some(place) = places.get_mut(&mount.address.to_string()) else {
            let place = Place { address: mount.address.clone(), owners: vec![owner], router };
            places.insert(mount.address.to_string(), place);
            return Ok(());
        };
        let kind = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        if let Some((other, _)) = place.owners.iter().find(|(other, _)| kind(other) == kind(&mounted.name)) {
            let reason = format!("{} is already used by {other}; give it another port", mount.address);
            return Err(StartError { integration: mounted.name.clone(), reason });
        }
        // The first one's answer to unknown paths stays; a listener has room for one.
        place.router = std::mem::take(&mut place.router).merge(router.reset_fallback());
        place.owners.push(owner);
        Ok(())
    }

    fn first_owner(&self) -> Arc<str> {
        self.owners.first().map_or_else(|| Arc::from("listener"), |(name, _)| name.clone())
    }
}

impl Listeners {
    /// None yet. What requests bring is within the budget.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        Self { budget, open: BTreeMap::new(), serving: JoinSet::new() }
    }

    /// Opens the ports that are new.
    ///
    /// # Errors
    /// [`StartError`] for the first that cannot be opened, or shared.
    pub async fn prepare(&self, receivers: &[Mounted<'_>]) -> Result<Prepared, StartError> {
        let mut places = BTreeMap::new();
        for receiver in receivers {
            for mount in receiver.mounts {
                Place::share(&mut places, receiver, mount)?;
            }
        }
        let mut sockets = BTreeMap::new();
        for (address, place) in &places {
            let failed = |reason: String| StartError { integration: place.first_owner(), reason };
            let socket = match self.open.get(address) {
                Some(open) => open.socket.try_clone(),
                None => {
                    let listener = weir_net::bind(&place.address).await.map_err(|error| failed(error.to_string()))?;
                    listener.into_std()
                }
            };
            sockets.insert(
                address.clone(),
                socket.map_err(|error| failed(format!("cannot listen on {address}: {error}")))?,
            );
        }
        Ok(Prepared { places, sockets })
    }

    /// Serves what was prepared, and nothing else. Routers that stay the same are not touched;
    /// requests under way are finished.
    pub fn commit(&mut self, prepared: Prepared) {
        let Prepared { places, mut sockets } = prepared;
        self.open.retain(|address, open| {
            let stays = places.contains_key(address);
            if !stays {
                open.stop.cancel();
            }
            stays
        });
        for (address, place) in places {
            if self.open.get(&address).is_some_and(|open| open.owners == place.owners) {
                continue;
            }
            let Some(socket) = sockets.remove(&address) else { continue };
            if let Some(before) = self.open.remove(&address) {
                before.stop.cancel();
            }
            if let Err(error) = self.serve(&address, place, socket) {
                tracing::error!("cannot go on listening on {address}: {error}; restart Weir");
            }
        }
        while self.serving.try_join_next().is_some() {}
    }

    fn serve(&mut self, address: &str, place: Place, socket: std::net::TcpListener) -> std::io::Result<()> {
        let listener = TcpListener::from_std(socket.try_clone()?)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let router = place.router.layer(from_fn_with_state(self.budget.clone(), within_memory));
        self.serving.spawn(weir_net::serve(listener, router, stopped));
        self.open.insert(address.to_owned(), Open { socket, owners: place.owners, stop });
        Ok(())
    }

    /// Takes no more connections; requests under way are finished.
    pub fn stop(&mut self) {
        for (_, open) in std::mem::take(&mut self.open) {
            open.stop.cancel();
        }
    }

    /// Waits until every request is finished.
    pub async fn ended(&mut self) {
        while self.serving.join_next().await.is_some() {}
    }

    /// Ends them as they are.
    pub fn abort(&mut self) {
        self.serving.abort_all();
    }
}
