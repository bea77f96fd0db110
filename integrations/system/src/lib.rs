//! What this machine says about itself.

mod exec;
mod host;
mod kernel_files;
mod logs;
mod name_filter;
mod probe;
mod process;

use weir_pipeline::Kind;

/// Every integration of this crate.
pub static ALL: &[Kind] = &[exec::KIND, probe::KIND, host::KIND, logs::KIND, process::KIND];
