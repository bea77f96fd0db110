//! From configuration to a running agent, without a command line: what `weir agent` does, and what
//! a program that embeds Weir calls.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let loaded = weir_agent::load(weir_agent::Source::Defaults)?;
//! let pipeline = weir_agent::Pipeline::start(loaded.plan).await?;
//! pipeline.stop().await;
//! # Ok(())
//! # }
//! ```

mod check;
mod docs;
mod explain;
mod kinds;
mod load;
mod schema;

pub use check::{Finding, check};
pub use docs::{index, page};
pub use explain::explain;
pub use kinds::{PLANNED, kinds};
pub use load::{LoadError, Loaded, Source, load};
pub use schema::schema;
pub use weir_pipeline::pipeline::{Pipeline, StartError};
