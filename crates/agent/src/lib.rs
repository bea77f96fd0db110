//! From configuration to a running agent, without a command line: what `weir agent` does, and what
//! a program that embeds Weir calls.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let loaded = weir_agent::load(weir_agent::Source::Defaults, weir_agent::Program::Agent, None)?;
//! let pipeline = weir_agent::Pipeline::start(loaded.plan).await?;
//! pipeline.stop().await;
//! # Ok(())
//! # }
//! ```

mod agent_config_json;
mod check;
mod control_socket;
mod docs;
mod enrolment;
mod explain;
mod heartbeat;
mod kinds;
mod load;
mod registration;
mod schema;
mod system_information;

pub use check::{Finding, check};
pub use control_socket::{ControlAddress, ControlSocket, runtime_folders};
pub use docs::{index, page};
pub use enrolment::{Enrolled, Enrolment, JoinFiles, Written};
pub use explain::explain;
pub use heartbeat::heartbeat_body;
pub use kinds::{PLANNED, kinds};
pub use load::{LoadError, Loaded, Program, SERVER_MEMBERS, Source, data_folder, load, load_again};
pub use registration::{Heartbeats, Registration, own_registration};
pub use schema::schema;
pub use system_information::{SystemInformation, system_information};
pub use weir_pipeline::pipeline::{Pipeline, StartError};
