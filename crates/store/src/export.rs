//! The store as an exporter of the pipeline.

use weir_model::metrics::Temporality;
use weir_model::{Payload, Records, Signal};
use weir_pipeline::{Context, Delivery, Export, Fault, FaultKind, Outcome, Refused, Takes};

use crate::store::Store;
use crate::writer::Prepared;

/// Stores metrics that the pipeline delivers. Made by [`Store::exporter`].
#[derive(Clone)]
pub struct StoreExporter {
    store: Store,
}

impl Store {
    /// An exporter that stores in here.
    pub fn exporter(&self) -> StoreExporter {
        StoreExporter { store: self.clone() }
    }
}

/// What became of a delivery.
#[derive(Default)]
struct Delivered {
    refused: u64,
    why: Vec<String>,
}

impl Delivered {
    fn refuse(&mut self, records: u64, why: String) {
        if records > 0 {
            self.refused += records;
            self.why.push(why);
        }
    }
}

/// A payload ready to be committed, or how many records cannot be and why.
fn prepare(store: &Store, payload: &Payload) -> Result<Prepared, (u64, String)> {
    let refused = |why| Err((payload.len() as u64, why));
    match payload.records() {
        Ok(Records::Metrics(metrics)) => Ok(store.prepare(metrics)),
        Ok(other) => refused(format!("the store takes metrics only, not {} yet", other.signal().name())),
        Err(error) => refused(format!("cannot read the records: {error}")),
    }
}

impl StoreExporter {
    async fn append(&self, delivery: &Delivery) -> Result<Delivered, String> {
        let mut delivered = Delivered::default();
        let store = self.store.clone();
        let payloads = delivery.payloads.clone();
        // Decoding and looking up may take longer than other tasks should wait.
        let prepare = move || payloads.iter().map(|payload| prepare(&store, payload)).collect::<Vec<_>>();
        let prepared = tokio::task::spawn_blocking(prepare).await;
        let mut commits = Vec::new();
        for prepared in prepared.map_err(|error| format!("the store was interrupted: {error}"))? {
            match prepared {
                Ok(prepared) => commits.push(self.store.commit(prepared)),
                Err((records, why)) => delivered.refuse(records, why),
            }
        }
        // Together, so that one sync serves them all. What was stored before an error is stored again
        // then, as duplicates that count once.
        for appended in futures_util::future::try_join_all(commits).await.map_err(|error| error.to_string())? {
            delivered.refuse(appended.refused, UNSTORABLE.to_owned());
            delivered.refuse(appended.outside, OUTSIDE.to_owned());
        }
        delivered.why.dedup();
        Ok(delivered)
    }
}

/// Why points of a readable payload are refused.
const UNSTORABLE: &str = "points without a name, without a value or with labels of more than 256 KiB";

/// Why points of another time are refused.
const OUTSIDE: &str = "points older than the retention, or more than an hour ahead of the server's clock";

impl Export for StoreExporter {
    type Config = ();

    /// There is no configuration from which a store could be made: use [`Store::exporter`].
    fn new((): (), _context: &Context) -> Result<Self, Fault> {
        Err(Fault::configuration("the store cannot be configured as an integration: start the server with `weir up`"))
    }

    fn takes(&self) -> Takes {
        Takes { signals: &[Signal::Metrics], temporality: Temporality::Cumulative, ordered: false }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        match self.append(delivery).await {
            Err(why) => Outcome::Later { after: None, why },
            Ok(Delivered { refused: 0, .. }) => Outcome::Accepted,
            Ok(Delivered { refused, why }) if refused >= delivery.len() as u64 => {
                Outcome::Never { why: why.join("; ") }
            }
            Ok(Delivered { refused, why }) => Outcome::Partly { refused: Refused::Count(refused), why: why.join("; ") },
        }
    }

    async fn check(&self) -> Result<String, Fault> {
        // Goes through the thread that owns the log, so it proves that it works.
        self.store.maintain().await.map_err(|error| Fault::new(FaultKind::Other, error.to_string()))?;
        let stats = self.store.stats();
        Ok(format!("{}: {} series, {} bytes", self.store.folder().display(), stats.series, stats.disk_bytes))
    }
}
