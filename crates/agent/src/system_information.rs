//! What machine this is, in the words of a heartbeat's `system`.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use weir_config::Endpoint;

/// What machine this is. What cannot be found out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SystemInformation {
    /// Name and version of the operating system, such as `Debian GNU/Linux 13 (trixie)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Kernel and its release, such as `Linux 6.12.8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Type of CPU as the kernel names it, such as `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// CPUs that are online.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<u64>,
    /// Memory of the machine in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Seconds since the machine was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// The machine's own address, as others see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
}

/// What this machine says about itself now; its address is that of the route to other networks.
pub fn system_information() -> SystemInformation {
    let uname = nix::sys::utsname::uname().ok();
    let kernel = uname.as_ref().map(|name| {
        format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()).trim().to_owned()
    });
    // os-release(5): the second file stands in where the first is missing.
    let os_release = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"));
    SystemInformation {
        os: os_release.as_deref().and_then(pretty_name),
        kernel,
        architecture: uname.map(|name| name.machine().to_string_lossy().into_owned()),
        cpu_count: sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().and_then(|count| u64::try_from(count).ok()),
        memory_bytes: read("/proc/meminfo").as_deref().and_then(memory_total_bytes),
        uptime_seconds: read("/proc/uptime").as_deref().and_then(whole_seconds),
        ip_address: address_to_other_networks(),
    }
}

fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(file).ok()
}

/// `PRETTY_NAME` of os-release(5), which may be quoted as in a shell.
fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?;
    let unquoted = value.trim().trim_matches(|c| c == '"' || c == '\'');
    let mut text = String::with_capacity(unquoted.len());
    let mut characters = unquoted.chars();
    while let Some(character) = characters.next() {
        // A backslash takes the meaning from what follows it.
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    Some(text).filter(|text| !text.is_empty())
}

/// `MemTotal` of proc_meminfo(5), which counts in KiB.
fn memory_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The first number of proc_uptime(5), without its fraction.
fn whole_seconds(uptime: &str) -> Option<u64> {
    uptime.split(['.', ' ']).next()?.parse().ok()
}

/// The address that packets to other networks carry. Nothing is sent: a datagram socket that is
/// connected to an address for documentation (RFC 5737, RFC 3849) only asks the routing table.
fn address_to_other_networks() -> Option<IpAddr> {
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")].into_iter().find_map(|(own, other)| {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(other).ok()?;
        usable(socket.local_addr().ok()?.ip())
    })
}

/// The longest time for finding the address of a server's name.
const LOOK_UP: Duration = Duration::from_secs(2);

/// The address that packets to a server carry; `None` where the server is this machine itself, or
/// cannot be found.
pub(crate) async fn address_towards(server: &Endpoint) -> Option<IpAddr> {
    let host = server.url().host_str()?.trim_matches(['[', ']']).to_owned();
    let port = server.url().port_or_known_default()?;
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((host, port))).await.ok()?.ok()?;
    for address in found {
        let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let Ok(socket) = UdpSocket::bind(own) else { continue };
        if socket.connect(address).is_err() {
            continue;
        }
        if let Some(address) = socket.local_addr().ok().and_then(|address| usable(address.ip())) {
            return Some(address);
        }
    }
    None
}

/// An address under which others can mean this machine.
fn usable(address: IpAddr) -> Option<IpAddr> {
    Some(address).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_operating_system_is_read_with_and_without_quotes() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
        assert_eq!(pretty_name(debian).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("ID=arch\nPRETTY_NAME=Arch\\ Linux\n").as_deref(), Some("Arch Linux"));
        assert_eq!(pretty_name("PRETTY_NAME='The \\$5 OS'").as_deref(), Some("The $5 OS"));
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"\""), None);
    }

    #[test]
    fn memory_and_uptime_are_read_in_their_units() {
        let meminfo = "MemTotal:       16384256 kB\nMemFree:         1209740 kB\n";
        assert_eq!(memory_total_bytes(meminfo), Some(16_384_256 * 1024));
        assert_eq!(memory_total_bytes("MemTotal: lots\n"), None);
        assert_eq!(whole_seconds("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(whole_seconds("soon"), None);
    }

    #[test]
    fn this_machine_knows_itself_and_says_only_what_it_knows() {
        let system = system_information();
        assert!(system.kernel.as_ref().is_some_and(|kernel| kernel.starts_with("Linux ")), "{system:?}");
        assert!(system.cpu_count.is_some_and(|count| count > 0), "{system:?}");
        assert!(system.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{system:?}");
        assert!(system.ip_address.is_none_or(|address| !address.is_loopback()), "{system:?}");
        let nothing = serde_json::to_value(SystemInformation::default()).unwrap();
        assert_eq!(nothing, serde_json::json!({}), "what is not known is absent");
    }

    #[tokio::test]
    async fn a_server_on_this_machine_gives_no_address() {
        assert_eq!(address_towards(&"http://127.0.0.1:8088".parse().unwrap()).await, None);
        assert_eq!(address_towards(&"http://[::1]:8088".parse().unwrap()).await, None);
        assert_eq!(address_towards(&"http://no-such-host.invalid:8088".parse().unwrap()).await, None);
    }
}
