//! `syslog`: receives messages over UDP, TCP and TLS.
//!
//! - [`config`]: the configuration and its check
//! - [`datagram`], [`stream`]: the three transports; [`framing`]: where messages of a stream end
//! - [`message`]: from a message to a log record, with the parser that `logs` has
//! - [`gather`]: to the intake, in batches and within bounds

mod config;
mod datagram;
mod framing;
mod gather;
mod message;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use weir_config::SocketAddress;
use weir_model::build::metric;
use weir_model::{Payload, Records, Signal};
use weir_pipeline::MetricKind::{Counter, UpDownCounter};
use weir_pipeline::health::Board;
use weir_pipeline::{About, Context, Fault, Intake, Kind, MetricDescription, MetricsBuilder, Mount, Receive, Stop};

use crate::logs::blocking;
use config::{Identity, Settings, SyslogConfig};
use gather::{Counts, Gathering, Inlet, Troubles, unix_nano};
use stream::Connections;

const DETAILS: &str = r#"
Routers, switches, appliances, rsyslog, syslog-ng and `logger` can send here: over UDP (RFC 5426), over TCP with counted octets or
with lines (RFC 6587, told apart by themselves), and over TLS (RFC 5425). Messages are read as RFC 5424 or RFC 3164 says.

**What it needs.** Nothing for programs on this machine: it listens on `127.0.0.1:514`. Ports below 1024 need the capability
CAP_NET_BIND_SERVICE. Syslog knows no password, so open it to others only where the network is trusted, or with client certificates:

    syslog:
      udp: ":514"
      tcp: ":514"
      tls: ":6514"
      certificate_file: /etc/weir/tls.crt
      key_file: /etc/weir/tls.key
      client_ca_file: /etc/weir/senders.crt

**Records.** Body is the message; time, severity and host are the message's. Attributes: `syslog.facility`,
`syslog.severity.code`, `syslog.hostname`, `syslog.appname`, `syslog.procid`, `syslog.msgid`, `syslog.structured_data`,
`network.peer.address`, `network.peer.port` and `network.transport`. Resource attribute `host.name` is the host that the message names, or else the
sender's address; `host_from_message: false` leaves it the agent's. Times without a zone are local. What is in neither format is kept
as it came, with `_parse_error`, and counts as notice if it names no level; where only its priority can be read, that is read. What
is no text is kept as bytes, with `log.record.invalid_text`. Messages longer than `max_message_size`, and those that a
connection left unfinished, have `log.record.cut_bytes`.

**Delivery.** Messages go on in batches, after 0.1 s at most. While exporters cannot keep up, TCP and TLS are not read, so senders
wait; up to `buffer_size` is in memory. UDP cannot wait: messages without room in the buffer are dropped, and so are those
that the system has no room for; both are counted in `syslog.dropped` and shown in the health. Syslog has no answers, so after a crash
of Weir what was in memory is lost; a clean stop delivers what has come.

**Limits.** `max_connections` at once; a message of a stream ends at a line end or NUL unless its octets are counted. Certificates are read at the
start. DTLS and RELP are not spoken.

**Troubleshooting.** `taken by another program`: often rsyslogd listens there; `ss -lnup` shows it. `the system dropped ...`: raise
`net.core.rmem_max` and `receive_buffer`. `no TLS with ...`: the log says why a sender was refused.
"#;

const MESSAGES: MetricDescription<'static> =
    metric("syslog.messages", "{message}", Counter, "Messages that were taken, by transport.");
const DROPPED: MetricDescription<'static> = metric(
    "syslog.dropped",
    "{message}",
    Counter,
    "Messages that are lost, by reason: no room here, no room in the system, not delivered before the stop.",
);
const UNREADABLE: MetricDescription<'static> = metric(
    "syslog.unreadable_messages",
    "{message}",
    Counter,
    "Messages in no format of syslog; they are kept as they came.",
);
const CUT: MetricDescription<'static> = metric(
    "syslog.cut_messages",
    "{message}",
    Counter,
    "Messages that were longer than the limit or left unfinished, and were cut.",
);
const CONNECTIONS: MetricDescription<'static> =
    metric("syslog.connections", "{connection}", UpDownCounter, "Connections over TCP and TLS that are open.");
const REFUSED: MetricDescription<'static> = metric(
    "syslog.refused_connections",
    "{connection}",
    Counter,
    "Connections that were closed at once, by reason: too many, no TLS.",
);

const ABOUT: About = About {
    name: "syslog",
    summary: "Receives syslog over UDP, TCP and TLS, RFC 3164 and RFC 5424",
    details: DETAILS,
    sample: "syslog:\n  udp: 127.0.0.1:514\n  tcp: 127.0.0.1:514\n",
    metrics: &[MESSAGES, DROPPED, UNREADABLE, CUT, CONNECTIONS, REFUSED],
    signals: &[Signal::Logs, Signal::Metrics],
};

/// The kind `syslog`.
pub const KIND: Kind = Kind::receive::<Syslog>(ABOUT);

/// How long it is waited before a listener is tried to be opened again.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The integration `syslog`.
pub struct Syslog {
    settings: Arc<Settings>,
    board: Arc<Board>,
    report_interval: Duration,
    name: Arc<str>,
}

impl Receive for Syslog {
    type Config = SyslogConfig;

    fn new(config: SyslogConfig, context: &Context) -> Result<Self, Fault> {
        let settings = Arc::new(config::checked(config, context)?);
        let board = context.telemetry.health.clone();
        Ok(Syslog { settings, board, report_interval: context.interval, name: context.name.clone() })
    }

    fn mounts(&self, _intake: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    async fn run(self, intake: Intake, stop: Stop) -> Result<(), Fault> {
        let Syslog { settings, board, report_interval, name } = self;
        let counts: Arc<Counts> = Arc::default();
        let troubles = Arc::new(Troubles { board, name: name.clone(), now: Default::default() });
        let (sender, receiver) = mpsc::unbounded_channel();
        let inlet = || Inlet::new(sender.clone(), settings.buffer_bytes, counts.clone());
        let connections = Connections {
            settings: settings.clone(),
            inlet: inlet(),
            counts: counts.clone(),
            troubles: troubles.clone(),
            places: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            stop: stop.clone(),
        };
        let mut listening = JoinSet::new();
        if let Some(address) = settings.udp.clone() {
            let part = Part { name: "udp", address, troubles: troubles.clone(), stop: stop.clone() };
            listening.spawn(part.datagrams(settings.clone(), inlet(), counts.clone()));
        }
        if let Some(address) = settings.tcp.clone() {
            let part = Part { name: "tcp", address, troubles: troubles.clone(), stop: stop.clone() };
            listening.spawn(part.streams(connections.clone(), None));
        }
        if let Some((address, identity)) = settings.tls.clone() {
            let part = Part { name: "tls", address, troubles: troubles.clone(), stop: stop.clone() };
            listening.spawn(part.streams(connections.clone(), Some(identity)));
        }
        drop((sender, connections));
        let gathering = Gathering::new(settings.clone(), intake.clone(), stop, counts.clone(), name);
        let working = gathering.run(receiver);
        tokio::pin!(working);
        let mut report = Report::new(settings.resource.clone(), counts, troubles, report_interval);
        let mut next_report = Instant::now() + report_interval;
        loop {
            tokio::select! {
                // Ends when no listener is left and everything was offered.
                () = &mut working => break,
                () = tokio::time::sleep_until(next_report) => {
                    next_report = Instant::now() + report_interval;
                    intake.push(report.make());
                }
            }
        }
        while listening.join_next().await.is_some() {}
        intake.push(report.make());
        Ok(())
    }
}

/// One listener.
struct Part {
    name: &'static str,
    address: SocketAddress,
    troubles: Arc<Troubles>,
    stop: Stop,
}

impl Part {
    async fn datagrams(self, settings: Arc<Settings>, inlet: Inlet, counts: Arc<Counts>) {
        let mut delay = SHORTEST_DELAY;
        let socket = loop {
            match datagram::bind(&self.address, settings.receive_buffer_bytes).await {
                Ok(socket) => break socket,
                Err(error) if self.may_try_again(error.to_string(), &mut delay).await => {}
                Err(_) => return,
            }
        };
        self.troubles.set(self.name, None);
        datagram::receive(socket, settings.max_message_bytes, inlet, counts, self.stop).await;
    }

    async fn streams(self, connections: Connections, identity: Option<Identity>) {
        let mut delay = SHORTEST_DELAY;
        let (listener, tls) = loop {
            match self.listener(identity.clone()).await {
                Ok(opened) => break opened,
                Err(problem) if self.may_try_again(problem.clone(), &mut delay).await => {}
                Err(_) => return,
            }
        };
        self.troubles.set(self.name, None);
        connections.serve(listener, tls).await;
    }

    async fn listener(&self, identity: Option<Identity>) -> Result<(TcpListener, Option<TlsAcceptor>), String> {
        let tls = match identity {
            None => None,
            Some(identity) => {
                let made = blocking(move || stream::acceptor(&identity)).await;
                Some(made.map_err(|fault| fault.message)??)
            }
        };
        let listener = weir_net::bind(&self.address).await.map_err(|error| error.to_string())?;
        Ok((listener, tls))
    }

    /// A listener could not be opened: it is tried again and again, since at the start of a machine its
    /// address may not be there yet. False if it was stopped meanwhile.
    async fn may_try_again(&self, problem: String, delay: &mut Duration) -> bool {
        self.troubles.set(self.name, Some(format!("{}: {problem}", self.name)));
        tokio::select! {
            () = self.stop.wait() => return false,
            () = tokio::time::sleep(*delay) => {}
        }
        *delay = (*delay * 2).min(LONGEST_DELAY);
        true
    }
}

/// What was counted, as metrics and as health.
struct Report {
    counts: Arc<Counts>,
    troubles: Arc<Troubles>,
    interval: Duration,
    builder: MetricsBuilder,
    start_unix_nano: u64,
    /// Losses that were told: for want of room here, and in the system.
    told: (u64, u64),
}

impl Report {
    fn new(resource: Vec<(String, String)>, counts: Arc<Counts>, troubles: Arc<Troubles>, interval: Duration) -> Self {
        let builder = MetricsBuilder::new(ABOUT.name, resource);
        Report { counts, troubles, interval, builder, start_unix_nano: unix_nano(), told: (0, 0) }
    }

    fn make(&mut self) -> Payload {
        self.tell_losses();
        let (counts, out) = (&self.counts, &mut self.builder);
        out.begin(unix_nano(), self.start_unix_nano);
        for (transport, counter) in [("udp", &counts.udp), ("tcp", &counts.tcp), ("tls", &counts.tls)] {
            out.record(&MESSAGES, &[("transport", transport)], Counts::get(counter));
        }
        let losses = [("no_room", &counts.no_room), ("system", &counts.kernel), ("stopped", &counts.stopped)];
        for (reason, counter) in losses {
            out.record(&DROPPED, &[("reason", reason)], Counts::get(counter));
        }
        out.record(&UNREADABLE, &[], Counts::get(&counts.unreadable));
        out.record(&CUT, &[], Counts::get(&counts.cut));
        out.record(&CONNECTIONS, &[], Counts::get(&counts.connections));
        for (reason, counter) in [("too_many", &counts.too_many), ("no_tls", &counts.handshakes)] {
            out.record(&REFUSED, &[("reason", reason)], Counts::get(counter));
        }
        Payload::from_records(Records::Metrics(out.finish()))
    }

    /// Losses since the last report are a trouble until a report has none.
    fn tell_losses(&mut self) {
        let now = (Counts::get(&self.counts.no_room), Counts::get(&self.counts.kernel));
        let (no_room, system) = (now.0.saturating_sub(self.told.0), now.1.saturating_sub(self.told.1));
        self.told = now;
        let mut trouble = Vec::new();
        if no_room > 0 {
            trouble.push(format!("{no_room} UDP messages found no room because the exporters are behind"));
        }
        if system > 0 {
            trouble.push(format!(
                "the system dropped {system} UDP messages: raise net.core.rmem_max and `receive_buffer`"
            ));
        }
        let seconds = self.interval.as_secs_f64();
        let trouble = (!trouble.is_empty()).then(|| format!("in the last {seconds} s {}", trouble.join(", and ")));
        self.troubles.set("losses", trouble);
    }
}
