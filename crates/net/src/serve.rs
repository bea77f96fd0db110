//! Listeners that say clearly why they cannot listen.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use weir_config::SocketAddress;

use crate::connection::Limits;

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
    /// No network interface has this address.
    #[error(
        "{address} is not an address of this machine; choose one that `ip address` shows, or only a port, such as :{port}, for all"
    )]
    NotHere {
        /// The address.
        address: String,
        /// Its port.
        port: u16,
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
    let port = address.port();
    let bound = match address.host() {
        Some(host) => TcpListener::bind((host, port)).await,
        None => everywhere(port).await,
    };
    bound.map_err(|error| {
        let address = address.to_string();
        match error.kind() {
            std::io::ErrorKind::AddrInUse => ListenError::Taken { address },
            std::io::ErrorKind::PermissionDenied => ListenError::Forbidden { address },
            std::io::ErrorKind::AddrNotAvailable => ListenError::NotHere { address, port },
            _ => ListenError::Other { address, error },
        }
    })
}

/// Listens on all interfaces, for IPv6 and IPv4; for IPv4 alone where the machine has no IPv6.
async fn everywhere(port: u16) -> std::io::Result<TcpListener> {
    match both_versions(port) {
        Err(error) if !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// One socket for both, whatever the system's default is (ipv6(7), IPV6_V6ONLY).
fn both_versions(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    // As tokio does: connections of a server that just ended do not keep its port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Serves a router until `stop` resolves, then finishes the requests it has begun, at most 3 s.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    let router = router.layer(axum::middleware::map_request(crate::linger::linger));
    crate::connection::serve(listener, router, stop, Limits::default()).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_port_without_a_host_is_reached_by_ipv4_and_by_ipv6() {
        let listener = bind(&":0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let taken = bind(&SocketAddress::new(None, port)).await.unwrap_err();
        assert!(matches!(taken, ListenError::Taken { .. }), "{taken}");
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            eprintln!("SKIPPED: this machine has no IPv6");
            return;
        }
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
    }
}
