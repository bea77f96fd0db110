//! Network interfaces from `/proc/net/dev` (proc_pid_net(5)) and `/sys/class/net`
//! (kernel: Documentation/ABI/testing/sysfs-class-net).

use std::time::{Duration, Instant};

use weir_model::MetricDescription;
use weir_model::build::Kind::{Counter, UpDownCounter};
use weir_pipeline::Fault;

use super::area::{Area, Counters, Devices, Points, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, text, words};
use crate::name_filter::NameFilter;

pub(super) const IO: MetricDescription<'static> =
    metric("system.network.io", "By", Counter, "Bytes that an interface received and transmitted.");
pub(super) const PACKET_COUNT: MetricDescription<'static> =
    metric("system.network.packet.count", "{packet}", Counter, "Packets that an interface received and transmitted.");
pub(super) const PACKET_DROPPED: MetricDescription<'static> =
    metric("system.network.packet.dropped", "{packet}", Counter, "Packets that were dropped without an error.");
pub(super) const ERRORS: MetricDescription<'static> =
    metric("system.network.errors", "{error}", Counter, "Errors of an interface.");
pub(super) const LINK_UP: MetricDescription<'static> =
    metric("hw.network.up", "1", UpDownCounter, "1 if a physical interface has a link, 0 if not.");
pub(super) const LINK_SPEED: MetricDescription<'static> =
    metric("hw.network.bandwidth.limit", "By/s", UpDownCounter, "Speed of the link of a physical interface.");

/// Interfaces whose traffic passes another interface again, or no wire at all.
pub(super) const VIRTUAL_INTERFACES: [&str; 12] =
    ["lo", "veth*", "docker*", "br-*", "virbr*", "vnet*", "cali*", "cni*", "flannel*", "lxc*", "ifb*", "dummy*"];

/// Asking a card for its speed may take milliseconds, so it is asked seldom.
const SPEED_VALID: Duration = Duration::from_secs(60);

/// The name of an interface, and its eight counters in the order of [`Interface::record`].
fn parse(line: &[u8]) -> Option<(&[u8], [u64; 8])> {
    let colon = line.iter().rposition(|&byte| byte == b':')?;
    let (name, numbers) = line.split_at(colon);
    let mut fields = [0; 16];
    let mut numbers = words(numbers.get(1..)?);
    for field in &mut fields {
        *field = number(numbers.next()?)?;
    }
    let [bytes_in, packets_in, errors_in, dropped_in, _, _, _, _, bytes_out, packets_out, errors_out, dropped_out, ..] =
        fields;
    let counters = [bytes_in, packets_in, dropped_in, errors_in, bytes_out, packets_out, dropped_out, errors_out];
    Some((name.trim_ascii(), counters))
}

/// What is known about an interface.
struct Interface {
    counters: Counters<8>,
    link: Option<Link>,
}

impl Interface {
    fn new(root: &Root, name: &str) -> Interface {
        Interface { counters: Counters::new(), link: Link::find(root, name) }
    }

    fn record(&mut self, points: &mut Points<'_>, name: &str, values: [u64; 8]) {
        let start = self.counters.update(values, points.now_unix_nano());
        let (received, transmitted) = values.split_at(4);
        for (direction, values) in [("receive", received), ("transmit", transmitted)] {
            let of_interface = [("network.interface.name", name), ("network.io.direction", direction)];
            // The semantic conventions give this one metric another attribute for the same name.
            let of_device = [("system.device", name), ("network.io.direction", direction)];
            let metrics = [
                (&IO, &of_interface),
                (&PACKET_COUNT, &of_device),
                (&PACKET_DROPPED, &of_interface),
                (&ERRORS, &of_interface),
            ];
            for ((metric, labels), value) in metrics.into_iter().zip(values) {
                points.counter_since(metric, labels, *value, start);
            }
        }
    }
}

/// The link of a physical interface: one that has a device behind it.
struct Link {
    state: KernelFile,
    speed: KernelFile,
    bytes_per_second: Option<u64>,
    asked: Option<Instant>,
}

impl Link {
    fn find(root: &Root, name: &str) -> Option<Link> {
        let folder = root.join("sys/class/net").join(name);
        std::fs::metadata(folder.join("device")).ok()?;
        Some(Link {
            state: KernelFile::new(folder.join("operstate")),
            speed: KernelFile::new(folder.join("speed")),
            bytes_per_second: None,
            asked: None,
        })
    }

    fn record(&mut self, points: &mut Points<'_>, buffer: &mut Vec<u8>, name: &str) {
        let labels = [("hw.id", name), ("hw.name", name)];
        // `unknown` is the state of drivers that do not say.
        let up = match self.state.try_read(buffer).unwrap_or_default().trim_ascii() {
            b"up" => true,
            b"down" | b"lowerlayerdown" | b"notpresent" | b"dormant" => false,
            _ => return,
        };
        points.now(&LINK_UP, &labels, u64::from(up));
        if !up {
            self.asked = None;
            return;
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= SPEED_VALID) {
            self.asked = Some(Instant::now());
            // -1, 0 or an error where the driver does not know (virtual cards).
            let megabits = self.speed.try_read(buffer).ok().and_then(|text| number(text.trim_ascii()));
            self.bytes_per_second = megabits.filter(|&m| m > 0 && m < 0xffff_ffff).map(|m| m.saturating_mul(125_000));
        }
        if let Some(speed) = self.bytes_per_second {
            points.now(&LINK_SPEED, &labels, speed);
        }
    }
}

/// All interfaces.
pub(super) struct Network {
    root: Root,
    interfaces: KernelFile,
    filter: NameFilter,
    known: Devices<Option<Interface>>,
    /// Reading links needs a second buffer while the first one holds the list.
    link_buffer: Vec<u8>,
}

impl Network {
    pub(super) fn new(root: &Root, filter: NameFilter) -> Network {
        Network {
            root: root.clone(),
            interfaces: KernelFile::new(root.view("net/dev")),
            filter,
            known: Devices::new(),
            link_buffer: Vec::new(),
        }
    }
}

impl Area for Network {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        let names = lines(self.interfaces.read(buffer)?).filter_map(|line| Some(text(parse(line)?.0)));
        let watched: Vec<_> = names.filter(|name| self.filter.allows(name)).collect();
        match watched.as_slice() {
            [] => Err(self.interfaces.strange("no network interface that is not excluded")),
            [name] => Ok(format!("1 network interface ({name})")),
            names => Ok(format!("{} network interfaces", names.len())),
        }
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        for (name, values) in lines(self.interfaces.read(poll.buffer)?).filter_map(parse) {
            let name = text(name);
            let (root, filter) = (&self.root, &self.filter);
            let interface = self.known.meet(&name, || filter.allows(&name).then(|| Interface::new(root, &name)));
            let Some(interface) = interface else { continue };
            interface.record(&mut poll.points, &name, values);
            if let Some(link) = &mut interface.link {
                link.record(&mut poll.points, &mut self.link_buffer, &name);
            }
        }
        self.known.end_poll();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_with_and_without_space_behind_the_colon() {
        let expected = [1, 2, 4, 3, 9, 10, 12, 11];
        for line in ["  eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "eth0: 1   2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"]
        {
            assert_eq!(parse(line.as_bytes()), Some((&b"eth0"[..], expected)));
        }
        assert_eq!(parse(b" face |bytes    packets errs drop fifo frame compressed multicast|bytes"), None);
        assert_eq!(parse(b"eth0: 1 2 3"), None);
    }
}
