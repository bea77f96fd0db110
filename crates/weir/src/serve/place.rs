//! Where a server keeps its data, and how its settings and options come together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use weir_config::{Server, SocketAddress};
use weir_metadata::Location;

/// The port of the dashboard and of every API.
const PORT: u16 = 8088;

/// The file in the data folder that says where the running server is reached.
const ADDRESS: &str = "address";

/// Makes the data folder, for its owner alone, and proves that it can be written.
///
/// # Errors
/// One line with cause and remedy.
pub fn prepare(folder: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;
    let shown = folder.display();
    let explain = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "{shown} cannot be written by this user; give it to this user, or choose another folder with --data"
            )
        }
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            format!("{shown} is not a folder; choose another place with --data")
        }
        std::io::ErrorKind::StorageFull => {
            format!("the disk of {shown} is full; free some space, or choose another folder with --data")
        }
        std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("{shown} lies on a filesystem that is mounted read-only; choose another folder with --data")
        }
        _ => format!("cannot use {shown} for data: {error}; choose another folder with --data"),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(explain)?;
    let trial = folder.join(".trial");
    // As large as what opening needs at least, so that a full disk is found out here and said.
    std::fs::write(&trial, vec![0; 64 << 10]).map_err(|error| {
        // What was written of it must not keep the disk full.
        let _ = std::fs::remove_file(&trial);
        explain(error)
    })?;
    std::fs::remove_file(&trial).map_err(explain)
}

/// Where the metadata lies.
///
/// # Errors
/// If the configured address is not one of PostgreSQL.
pub fn metadata_location(folder: &Path, settings: &Server) -> Result<Location, String> {
    match &settings.metadata {
        Some(url) => Location::parse(url.expose()).map_err(|error| format!("server.metadata: {error}")),
        None => Ok(Location::Sqlite(folder.join("metadata.sqlite"))),
    }
}

/// The address to listen on.
pub fn listen(named: Option<&SocketAddress>, settings: &Server) -> SocketAddress {
    named.or(settings.listen.as_ref()).cloned().unwrap_or_else(|| SocketAddress::new(None, PORT))
}

/// Whether only this machine reaches a listener.
pub fn is_loopback(address: &SocketAddress) -> bool {
    match address.host() {
        None => false,
        Some("localhost") => true,
        Some(host) => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

/// The address under which others reach the server, without a slash at its end.
pub fn public_url(listen: &SocketAddress, settings: &Server) -> String {
    if let Some(url) = &settings.public_url {
        return url.to_string().trim_end_matches('/').to_owned();
    }
    let host = match listen.host() {
        None | Some("0.0.0.0" | "::") => own_address().to_string(),
        Some(host) => host.to_owned(),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("http://{host}:{}", listen.port())
}

/// The address of this machine on the way to everybody else; loopback where there is no way.
fn own_address() -> IpAddr {
    // Connecting a UDP socket sends nothing: it asks the routing table. 192.0.2.1 and 2001:db8::1 are
    // nobody (RFC 5737, RFC 3849).
    let towards = |own: IpAddr, nobody: IpAddr| -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((own, 0))?;
        socket.connect((nobody, 9))?;
        socket.local_addr().map(|address| address.ip())
    };
    let nobody = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        .or_else(|_| towards(Ipv6Addr::UNSPECIFIED.into(), nobody.into()))
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Leaves a note in the data folder where the server is reached, for `weir login` and `weir tokens`.
///
/// # Errors
/// What the operating system said.
pub fn note_address(folder: &Path, url: &str) -> std::io::Result<()> {
    std::fs::write(folder.join(ADDRESS), url)
}

/// Where the server of a data folder is reached; `None` if none ever ran on it.
pub fn noted_address(folder: &Path) -> Option<String> {
    std::fs::read_to_string(folder.join(ADDRESS)).ok().map(|url| url.trim().to_owned())
}

/// Free bytes of the folder's filesystem, for people.
pub fn free_gibibytes(folder: &Path) -> Option<f64> {
    let space = nix::sys::statvfs::statvfs(folder).ok()?;
    let bytes = space.blocks_available() as f64 * space.fragment_size() as f64;
    Some(bytes / f64::from(1_u32 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_count_as_this_machine_alone() {
        for (address, expected) in [
            ("127.0.0.1:8088", true),
            ("[::1]:1", true),
            ("localhost:1", true),
            (":8088", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(is_loopback(&address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named_with_the_remedy() {
        let file = std::env::temp_dir().join(format!("weir-place-{}", std::process::id()));
        std::fs::write(&file, "x").unwrap();
        let error = prepare(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("is not a folder") && error.contains("--data"), "{error}");
    }

    #[test]
    fn links_carry_the_address_that_others_can_reach() {
        let url = |listen: &str| public_url(&listen.parse().unwrap(), &Server::default());
        assert_eq!(url("10.0.0.5:8088"), "http://10.0.0.5:8088");
        assert_eq!(url("[::1]:8088"), "http://[::1]:8088");
        assert!(!url(":8088").contains("0.0.0.0"));
    }
}
