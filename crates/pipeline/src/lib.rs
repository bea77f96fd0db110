//! The one pipeline: collect or receive, intake, route, queue, deliver.
//!
//! - [`role`]: the three roles as integrations implement them; [`kind`]: an entry of their list
//! - [`options`]: what the runner understands in every block
//! - [`outcome`]: what an attempt to deliver says; faults for people
//! - [`intake`]: where sources hand in batches; [`route`]: which exporters get them
//! - [`disk`]: the file operations of what is kept over restarts, real and simulated
//! - [`schedule`]: polls; [`queue`], [`worker`], [`backoff`], [`temporality`]: delivery
//! - [`dead_letters`]: what backends refused for good
//! - [`ledger`], [`health`], [`telemetry`]: where every record is, how everybody feels; [`itself`]: that as metrics
//! - [`storage`]: the data folder; [`control`]: what others see of a pipeline, and ask of it
//! - [`pipeline`]: all of it assembled, started and stopped

pub mod backoff;
pub mod control;
pub mod dead_letters;
pub mod disk;
pub mod health;
pub mod intake;
pub mod itself;
pub mod keep;
pub mod kind;
pub mod ledger;
pub mod options;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod queue;
pub mod role;
pub mod route;
pub mod schedule;
pub mod storage;
pub mod telemetry;
pub mod temporality;
pub mod worker;

pub use intake::{Answer, Intake};
pub use kind::{About, Kind, Open, Opened, Role};
pub use outcome::{Fault, FaultKind, Outcome, Refused};
pub use role::{Collect, Config, Context, Delivery, Export, HttpExport, Mount, Receive, Stop, Takes, Watching};
pub use weir_config::Problems;
pub use weir_model::build::{Kind as MetricKind, MetricDescription, MetricsBuilder};
pub use weir_net::memory as memory_budget;
