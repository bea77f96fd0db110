//! Listeners that say clearly why they cannot listen.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use weir_config::SocketAddress;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program listens there.
    #[error("{address} is taken by another program; stop it or choose another address")]
    Taken {
        /// The address.
        address: String,
    },
    /// The port needs a right that this user does not have.
    #[error(
        "{address} needs a right that this user does not have; choose a port above 1023 or run with CAP_NET_BIND_SERVICE"
    )]
    Forbidden {
        /// The address.
        address: String,
    },
    /// Everything else.
    #[error("cannot listen on {address}: {error}")]
    Other {
        /// The address.
        address: String,
        /// What the operating system said.
        error: std::io::Error,
    },
}

/// Opens a TCP listener.
///
/// # Errors
/// [`ListenError`] with address and remedy.
pub async fn bind(address: &SocketAddress) -> Result<TcpListener, ListenError> {
    let host = address.host().unwrap_or("0.0.0.0");
    TcpListener::bind((host, address.port())).await.map_err(|error| {
        let address = address.to_string();
        match error.kind() {
            std::io::ErrorKind::AddrInUse => ListenError::Taken { address },
            std::io::ErrorKind::PermissionDenied => ListenError::Forbidden { address },
            _ => ListenError::Other { address, error },
        }
    })
}

/// How long a stopping server waits for requests that it has begun to answer.
const DRAIN: Duration = Duration::from_secs(3);

/// Serves a router until `stop` resolves, then finishes the requests it has begun, at most 3 s.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    let router = router.layer(axum::middleware::map_request(crate::linger::linger));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        // The receiver below is dropped only when the server has ended already.
        let _ = stopping.send(());
    };
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Small answers must not wait for more bytes; a failure only costs latency.
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, service).with_graceful_shutdown(stop);
    tokio::select! {
        // axum's serve never returns an error: it retries failed accepts by itself.
        _ = server => {}
        () = async { let _ = stopped.await; tokio::time::sleep(DRAIN).await } => {}
    }
}
