//! The backend is away while records come at 5,000 a second: memory stays bounded, and when it returns
//! everything is delivered in order.

use std::time::{Duration, Instant};

use super::oracle::{self, Sent};
use crate::harness::backend::Backend;
use crate::harness::lasting::{Lasting, Row};
use crate::harness::sender::{Manners, Sender, Then};
use crate::harness::{seconds, wait_for};

/// Five senders with 1,000 records a second each.
const SENDERS: u16 = 5;
const MANNERS: Manners =
    Manners { records: 50, bytes: 300, interval: Duration::from_millis(50), then: Then::SendsAgain };
/// Most records in a request to the backend.
const BATCH: u64 = 2_000;
const RECORDS_PER_SECOND: u64 = 5_000;

/// How long the backend is away.
fn outage() -> Duration {
    let is_long = std::env::var_os("WEIR_TEST_LONG").is_some_and(|value| value == "1");
    seconds(if is_long { 600 } else { 30 })
}

/// Memory that the program may use: 64 MB.
const MOST_MEMORY_KIBIBYTES: u64 = 62_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_was_away_gets_everything_in_order_from_an_agent_that_stayed_small() {
    let mut backend = Backend::start();
    let mut agent = Lasting::new();
    agent.configure(
        "limits: {memory: 32MiB}",
        &backend.exporter(
            "otlp",
            &format!("max_in_flight: 1, batch_size: {BATCH}, retry_delay: 100ms, retry_max_delay: 1s"),
        ),
    );
    agent.start().await;
    let senders: Vec<Sender> = (1..=SENDERS).map(|source| Sender::start(source, &agent.url(), MANNERS)).collect();
    wait_for("records arrive", seconds(20), async || (backend.count() > 5_000).then_some(())).await;
    backend.go_away();
    let (before, begun) = (backend.count(), Instant::now());
    let mut most_resident = 0;
    while begun.elapsed() < outage() {
        tokio::time::sleep(Duration::from_millis(250)).await;
        most_resident = most_resident.max(agent.process().status_number("VmRSS"));
    }
    let waiting = agent.row("otlp_receiver", "otlp").waiting;
    let away = begun.elapsed();
    let expected = (away.as_secs_f64() * RECORDS_PER_SECOND as f64 * 0.9) as u64;
    println!("away for {away:?}: {waiting} records wait, memory at most {most_resident} KiB");
    assert!(waiting >= expected, "{waiting} records wait, not {expected}: the senders were held up");
    assert_eq!(backend.count(), before);

    backend.come_back();
    let returned = Instant::now();
    while ((backend.count() - before) as u64) < waiting {
        assert!(returned.elapsed() < seconds(60) + outage(), "{} of {waiting} delivered", backend.count() - before);
        tokio::time::sleep(Duration::from_millis(50)).await;
        most_resident = most_resident.max(agent.process().status_number("VmRSS"));
    }
    let caught_up = returned.elapsed();
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.stop(seconds(20)).await);
    }
    let row = agent.drained("otlp", seconds(60)).await;
    let peak = agent.process().status_number("VmHWM");
    println!(
        "{waiting} records delivered {caught_up:?} after its return, {:.0} a second; memory at most {most_resident} KiB, peak {peak} KiB",
        waiting as f64 / caught_up.as_secs_f64()
    );
    let sent: Vec<&Sent> = sent.iter().map(|sent| &**sent).collect();
    let arrivals = backend.arrivals();
    let found = oracle::check("otlp", &arrivals, &sent);
    // The request under way when it vanished may have been taken without an answer.
    assert!(found.repeats <= BATCH, "{} records arrived twice", found.repeats);
    oracle::check_order("otlp", &arrivals);
    assert_eq!(row, Row::all_delivered(found.distinct));
    assert!(peak <= MOST_MEMORY_KIBIBYTES, "{peak} KiB");
}
