//! Exporters that are not configured any more, or whose queue moved: they deliver what waits for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::pipeline::exporters::{Exporter, Line};
use crate::queue::{Outlet, QueueKind};
use crate::telemetry::Telemetry;

/// How often it is looked whether everything is delivered.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// An exporter that delivers what waits for it, and then ends.
struct Leaving {
    exporter: Exporter,
    /// Its queue is closed, so that its worker ends by itself: another queue has its place. Otherwise it
    /// goes on with the queue if it comes back before the end.
    has_moved: bool,
}

/// All exporters that end. Cloning shares them.
#[derive(Clone, Default)]
pub struct Draining(Arc<Mutex<Vec<Leaving>>>);

impl Draining {
    fn lock(&self) -> MutexGuard<'_, Vec<Leaving>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an exporter deliver what waits for it, and lets go of it then. Nothing new is on its way to it.
    pub fn add(&self, exporter: Exporter, has_moved: bool, telemetry: &Arc<Telemetry>) {
        if has_moved {
            exporter.line.outlet.queue.close();
        }
        let outlet = Arc::downgrade(&exporter.line.outlet);
        self.lock().push(Leaving { exporter, has_moved });
        tokio::spawn(self.clone().until_delivered(outlet, telemetry.clone()));
    }

    async fn until_delivered(self, outlet: Weak<Outlet>, telemetry: Arc<Telemetry>) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let ended = {
                let mut leaving = self.lock();
                let is_it = |leaving: &Leaving| Weak::ptr_eq(&Arc::downgrade(&leaving.exporter.line.outlet), &outlet);
                // It came back, or everything is stopped.
                let Some(at) = leaving.iter().position(is_it) else { return };
                if leaving.get(at).is_some_and(|leaving| leaving.is_over(&telemetry)) {
                    let ended = leaving.swap_remove(at);
                    // Before it can come back.
                    telemetry.forget_exporter(&ended.exporter.line.outlet);
                    Some(ended)
                } else {
                    None
                }
            };
            if let Some(ended) = ended {
                return ended.exporter.line.close().await;
            }
        }
    }

    /// The line of an exporter that can go on with its queue.
    pub fn find<T>(&self, name: &str, look: impl FnOnce(&Exporter) -> Option<T>) -> Option<T> {
        let leaving = self.lock();
        let found = leaving.iter().find(|leaving| !leaving.has_moved && *leaving.exporter.line.outlet.name == *name);
        found.and_then(|leaving| look(&leaving.exporter))
    }

    /// Takes out the first that fits.
    pub fn take(&self, fits: impl Fn(&Exporter) -> bool) -> Option<Exporter> {
        let mut leaving = self.lock();
        let at = leaving.iter().position(|leaving| fits(&leaving.exporter))?;
        Some(leaving.swap_remove(at).exporter)
    }

    /// Takes out all.
    pub fn take_all(&self) -> Vec<Exporter> {
        self.lock().drain(..).map(|leaving| leaving.exporter).collect()
    }

    /// Their queues; whoever looks does not keep them open.
    pub fn outlets(&self) -> Vec<Weak<Outlet>> {
        self.lock().iter().map(|leaving| Arc::downgrade(&leaving.exporter.line.outlet)).collect()
    }
}

impl Leaving {
    /// Whether its worker has ended, which is told to when nothing is left to do.
    fn is_over(&self, telemetry: &Telemetry) -> bool {
        if !self.has_moved && is_delivered(telemetry, &self.exporter.line) {
            self.exporter.release.cancel();
        }
        self.exporter.worker.is_finished()
    }
}

/// Whether nothing waits for an exporter and nothing is under way.
fn is_delivered(telemetry: &Telemetry, line: &Line) -> bool {
    let status = line.outlet.queue.status();
    if status.kind == QueueKind::Memory {
        // What is under way counts.
        return status.bytes == 0;
    }
    let rows = telemetry.ledger.rows_of(&line.outlet.name);
    let counts = rows.iter().map(|(_, _, row)| row.counts());
    status.records == 0 && counts.map(|counts| counts.queued + counts.in_flight).sum::<u64>() == 0
}
