//! What Weir scrapes and sends on arrives whole: one Prometheus scrapes two targets itself, and
//! gets the same targets from an agent by remote write; both must be the same series.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::peers::{Peer, peer};
use crate::harness::prometheus::{NodeExporter, Prometheus, Series};
use crate::harness::weir::{Agent, assert_calm};
use crate::harness::{seconds, wait_for};

/// Series that are not compared: those that a scraper makes up itself, and those that come and go
/// with every process (states such as "zombie").
const LEFT_OUT: &str = "up|scrape_.*|target_info|node_processes_(threads_)?state";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_of_node_exporter_and_prometheus_2_arrives() {
    let (Some(prometheus), Some(exporter)) = (peer(Peer::Prometheus2), peer(Peer::NodeExporter)) else { return };
    compare(&prometheus, &exporter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_of_node_exporter_and_prometheus_3_arrives() {
    let (Some(prometheus), Some(exporter)) = (peer(Peer::Prometheus3), peer(Peer::NodeExporter)) else { return };
    compare(&prometheus, &exporter).await;
}

/// Name and labels of a series, without `job`: that is what tells both ways apart.
type Identity = BTreeMap<String, String>;

fn by_identity(series: Vec<Series>) -> BTreeMap<Identity, f64> {
    let identity = |(mut labels, value): Series| {
        labels.remove("job");
        // Prometheus 3 writes the bounds of what it scrapes as `1.0` where the target writes `1`.
        for bound in ["le", "quantile"] {
            if let Some(number) = labels.get(bound).and_then(|text| text.parse::<f64>().ok()) {
                labels.insert(bound.to_owned(), number.to_string());
            }
        }
        (labels, value)
    };
    series.into_iter().map(identity).collect()
}

async fn read(prometheus: &Prometheus, way: &str) -> BTreeMap<Identity, f64> {
    // A selector needs one matcher that an absent label does not satisfy.
    let query = format!("{{__name__=~\".+\", __name__!~\"{LEFT_OUT}\", job{way}\"direct\"}}");
    let found = wait_for("an answer of prometheus", seconds(10), async || prometheus.query(&query).await).await;
    by_identity(found)
}

async fn compare(program: &Path, exporter: &Path) {
    let exporter = NodeExporter::start(exporter).await;
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let configuration = format!(
        "scrape_configs:\n- job_name: direct\n  scrape_interval: 1s\n  file_sd_configs: [{{files: ['{}.json'], refresh_interval: 1s}}]\n",
        file.path().display()
    );
    let prometheus = Prometheus::start(program, &configuration, &[]).await;
    // Its own address is known only now.
    let targets = format!("[{{\"targets\": [\"{}\", \"{}\"]}}]", exporter.address, prometheus.address);
    let targets_file = format!("{}.json", file.path().display());
    std::fs::write(&targets_file, targets).expect("writable");
    let agent = Agent::start(
        "weir",
        &format!(
            "agent: {{interval: 1s}}\nintegrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
             prometheus_scrape: {{targets: [\"http://{}/metrics\", \"http://{}/metrics\"]}}\n  \
             prometheus: {{endpoint: \"{}\"}}\n",
            exporter.address,
            prometheus.address,
            prometheus.write_url()
        ),
    );
    wait_for("both targets, both ways", seconds(30), async || {
        let up = prometheus.query("up == 1").await?;
        (up.len() == 4).then_some(())
    })
    .await;
    let before = read(&prometheus, "=").await;
    // More than one interval later, what was there before has been scraped and sent at least once.
    tokio::time::sleep(seconds(4)).await;
    let sent = read(&prometheus, "!=").await;
    let after = read(&prometheus, "=").await;
    std::fs::remove_file(targets_file).expect("it is ours");

    let missing: Vec<_> = before.keys().filter(|series| !sent.contains_key(*series)).collect();
    println!("{} series scraped by prometheus itself, {} sent by weir", before.len(), sent.len());
    assert!(before.len() > 300, "only {} series: nothing to compare", before.len());
    assert!(missing.is_empty(), "{} of {} series did not arrive: {missing:#?}", missing.len(), before.len());
    let invented: Vec<_> = sent.keys().filter(|series| !after.contains_key(*series)).collect();
    assert!(invented.is_empty(), "{} series that the targets do not have: {invented:#?}", invented.len());
    assert_values(&before, &sent, &after);
    assert_calm(&agent.process.stderr());
}

/// What never falls and was the same before and after was the same in between. The kernel's CPU
/// times are left out: they may fall by a tick and rise again.
fn assert_values(before: &BTreeMap<Identity, f64>, sent: &BTreeMap<Identity, f64>, after: &BTreeMap<Identity, f64>) {
    let mut compared = 0;
    for (series, value) in sent {
        let name = series.get("__name__").map_or("", String::as_str);
        let only_grows = ["_total", "_count", "_sum", "_bucket", "_info"].iter().any(|end| name.ends_with(end));
        if only_grows
            && name != "node_cpu_seconds_total"
            && before.get(series).is_some_and(|value| after.get(series) == Some(value))
        {
            assert_eq!(Some(value), before.get(series), "{series:?}");
            compared += 1;
        }
    }
    println!("{compared} values compared exactly");
    assert!(compared > 100, "only {compared} values could be compared");
}
