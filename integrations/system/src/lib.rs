//! What this machine says about itself.

mod exec;
mod host;
mod journald;
mod kernel_files;
mod logs;
mod name_filter;
mod probe;
mod process;
mod syslog;

use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] =
    &[exec::KIND, probe::KIND, host::KIND, journald::KIND, logs::KIND, process::KIND, syslog::KIND];
