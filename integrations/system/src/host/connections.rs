//! Connections from `/proc/net/sockstat` and, on request, `/proc/net/tcp` (proc_pid_net(5)).

use weir_model::MetricDescription;
use weir_model::build::Kind::UpDownCounter;
use weir_pipeline::Fault;

use super::area::{Area, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, words};

pub(super) const CONNECTION_COUNT: MetricDescription<'static> = metric(
    "system.network.connection.count",
    "{connection}",
    UpDownCounter,
    "Sockets by transport, for TCP by state if `connection_states` is on.",
);

/// Reading every TCP socket takes time in proportion to them, so it is not done beyond this number.
const MOST_LISTED: u64 = 10_000;

/// The states of `/proc/net/tcp`, by number - 1 (kernel: include/net/tcp_states.h).
const STATES: [&str; 11] = [
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
];

/// The state of a line of `/proc/net/tcp`, as an index into [`STATES`].
fn state_of(line: &[u8]) -> Option<usize> {
    let state = std::str::from_utf8(words(line).nth(3)?).ok()?;
    let state = usize::from_str_radix(state, 16).ok()?;
    // 12 is a connection request: to the peer and to people it is in the state "received".
    let state = if state == 12 { 3 } else { state };
    state.checked_sub(1).filter(|&at| at < STATES.len())
}

/// The numbers of `sockstat` that count sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sockets {
    tcp: Option<u64>,
    udp: Option<u64>,
}

impl Sockets {
    /// Adds a file: `TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 1`. Sockets in `tw` (time wait) are of
    /// both address families and not among those in use.
    fn add(&mut self, text: &[u8]) {
        for line in lines(text) {
            let mut words = words(line);
            let sum = match words.next() {
                Some(b"TCP:" | b"TCP6:") => &mut self.tcp,
                Some(b"UDP:" | b"UDP6:") => &mut self.udp,
                _ => continue,
            };
            while let (Some(name), Some(value)) = (words.next(), words.next()) {
                if let (b"inuse" | b"tw", Some(count)) = (name, number(value)) {
                    *sum = Some(sum.unwrap_or_default().saturating_add(count));
                }
            }
        }
    }
}

/// How many sockets there are.
pub(super) struct Connections {
    sockets: KernelFile,
    sockets6: KernelFile,
    /// The lists of sockets, if states are asked for.
    lists: Option<[KernelFile; 2]>,
}

impl Connections {
    pub(super) fn new(root: &Root, states: bool) -> Connections {
        let file = |name| KernelFile::new(root.view(name));
        Connections {
            sockets: file("net/sockstat"),
            sockets6: file("net/sockstat6"),
            lists: states.then(|| [file("net/tcp"), file("net/tcp6")]),
        }
    }

    fn count(&mut self, buffer: &mut Vec<u8>) -> Result<Sockets, Fault> {
        let mut sockets = Sockets::default();
        sockets.add(self.sockets.read(buffer)?);
        // Without IPv6 there is no such file.
        sockets.add(self.sockets6.try_read(buffer).unwrap_or_default());
        Ok(sockets)
    }
}

impl Area for Connections {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        self.count(buffer).map(|_| "TCP and UDP sockets".to_owned())
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        let sockets = self.count(poll.buffer)?;
        if let Some(udp) = sockets.udp {
            poll.points.now(&CONNECTION_COUNT, &[("network.transport", "udp")], udp);
        }
        let Some(tcp) = sockets.tcp else { return Ok(()) };
        let Some([list, list6]) = self.lists.as_mut().filter(|_| tcp <= MOST_LISTED) else {
            poll.points.now(&CONNECTION_COUNT, &[("network.transport", "tcp")], tcp);
            return Ok(());
        };
        let mut counts = [0_u64; STATES.len()];
        let mut add = |text: &[u8]| {
            for state in lines(text).skip(1).filter_map(state_of) {
                if let Some(count) = counts.get_mut(state) {
                    *count += 1;
                }
            }
        };
        add(list.read(poll.buffer)?);
        add(list6.try_read(poll.buffer).unwrap_or_default());
        for (state, count) in STATES.iter().zip(counts) {
            let labels = [("network.transport", "tcp"), ("network.connection.state", *state)];
            poll.points.now(&CONNECTION_COUNT, &labels, count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_both_address_families_add_up_and_memory_does_not_count() {
        let mut sockets = Sockets::default();
        sockets.add(b"sockets: used 15\nTCP: inuse 3 orphan 0 tw 2 alloc 9 mem 103\nUDP: inuse 4 mem 7\n");
        sockets.add(b"TCP6: inuse 5\nUDP6: inuse 1\n");
        assert_eq!(sockets, Sockets { tcp: Some(10), udp: Some(5) });
    }

    #[test]
    fn states_are_hexadecimal_and_requests_count_as_received() {
        let line = |state: &str| format!("  0: 0100007F:0CEA 00000000:0000 {state} 00000000:00000000 00:00000000");
        assert_eq!(state_of(line("0A").as_bytes()).map(|at| STATES[at]), Some("listen"));
        assert_eq!(state_of(line("0C").as_bytes()).map(|at| STATES[at]), Some("syn_received"));
        assert_eq!(state_of(line("00").as_bytes()), None);
        assert_eq!(state_of(line("FF").as_bytes()), None);
        assert_eq!(state_of(b"torn"), None);
    }
}
