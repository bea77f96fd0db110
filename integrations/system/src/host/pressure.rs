//! Pressure stall information (kernel: Documentation/accounting/psi.rst).

use weir_model::MetricDescription;
use weir_model::build::Kind::Counter;
use weir_pipeline::{Fault, FaultKind};

use super::area::{Area, Poll, metric};
use crate::kernel_files::{KernelFile, Root, lines, number, words};

// The semantic conventions have no name for it yet.
pub(super) const STALL_TIME: MetricDescription<'static> = metric(
    "system.linux.pressure.stall_time",
    "s",
    Counter,
    "Time during which some or all (`full`) tasks waited for a resource (Weir's own metric).",
);

const RESOURCES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// The kind of a line, and its total in microseconds: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn parse(line: &[u8]) -> Option<(&'static str, u64)> {
    let mut words = words(line);
    let kind = match words.next()? {
        b"some" => "some",
        b"full" => "full",
        _ => return None,
    };
    Some((kind, words.find_map(|word| number(word.strip_prefix(b"total=")?))?))
}

/// Stall times of each resource.
pub(super) struct Pressure {
    files: Vec<(&'static str, KernelFile)>,
}

impl Pressure {
    pub(super) fn new(root: &Root) -> Pressure {
        let file = |name| (name, KernelFile::new(root.join("proc/pressure").join(name)));
        Pressure { files: RESOURCES.map(file).into() }
    }

    /// Whether the kernel gives any of the files.
    fn any(&self) -> Result<(), Fault> {
        let reason = "the kernel gives no pressure stall information (start it with psi=1)";
        if self.files.is_empty() { Err(Fault::new(FaultKind::NotFound, reason)) } else { Ok(()) }
    }
}

impl Area for Pressure {
    fn watch(&mut self, buffer: &mut Vec<u8>) -> Result<String, Fault> {
        // Kernels differ in what they have (`irq` is new), and none of it may be there or allowed.
        self.files.retain_mut(|(_, file)| file.try_read(buffer).is_ok());
        self.any()?;
        let names: Vec<_> = self.files.iter().map(|(name, _)| *name).collect();
        Ok(format!("pressure of {}", names.join(", ")))
    }

    fn poll(&mut self, poll: &mut Poll<'_>) -> Result<(), Fault> {
        self.any()?;
        for (resource, file) in &mut self.files {
            for (kind, microseconds) in lines(file.read(poll.buffer)?).filter_map(parse) {
                // Undefined for the whole machine, always 0 and there for compatibility only.
                if (*resource, kind) == ("cpu", "full") {
                    continue;
                }
                let labels = [("system.pressure.resource", *resource), ("system.pressure.type", kind)];
                poll.points.counter(&STALL_TIME, &labels, microseconds as f64 / 1e6);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_wherever_it_stands() {
        assert_eq!(parse(b"some avg10=0.00 avg60=0.39 avg300=0.74 total=473111848"), Some(("some", 473_111_848)));
        assert_eq!(parse(b"full total=1 avg10=0.00"), Some(("full", 1)));
        assert_eq!(parse(b"some avg10=0.00"), None);
    }
}
