//! Nothing is lost and the ledger proves it: real processes, killed, on full disks, through outages and
//! reloads, with an oracle that knows every record.

pub mod letters;
pub mod oracle;

mod cli;
mod faults;
mod faults_kafka;
mod full_disk;
mod kill;
mod local;
mod outage;
mod reload;
mod rotation;
