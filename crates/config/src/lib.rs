//! Configuration of Weir: one YAML file, read with errors that a newcomer can act on.
//!
//! The way of a file through this crate, and where to read about each step:
//!
//! 1. [`Document::parse`] (`parse.rs`, `syntax.rs`): text to a tree of [`Node`]s with line and column.
//! 2. `expand.rs`: `${VAR}`, `${VAR:-default}` and `${file:/path}` in the scalars of that tree,
//!    looked up through a [`Lookup`].
//! 3. [`check`] (`validate.rs`, `schema.rs`, `words.rs`): the tree against the JSON Schema of a type. Finds all
//!    problems at once.
//! 4. [`read`] (`deserialize.rs`): the checked tree to the type, through serde.
//! 5. [`Settings`] (`settings.rs`): the top level of `weir.yaml`.
//!
//! The crate knows no integration: the blocks below `integrations:` stay [`Node`]s, and the crate
//! that knows the integration calls [`read`] with its type.
//!
//! Three rules hold everywhere:
//!
//! - Nothing after a key is an empty mapping or list where one is expected.
//! - An empty text for an optional key (`Option` in the type) means "not given".
//! - What came from a variable or file is never printed in an error: it may be a secret.

mod deserialize;
mod duration;
mod endpoint;
mod expand;
mod near;
mod node;
mod parse;
mod problem;
mod scalar;
mod schema;
mod secret;
mod settings;
mod size;
mod socket_address;
mod syntax;
mod text;
mod validate;
mod words;

pub use duration::Duration;
pub use endpoint::Endpoint;
pub use expand::{Environment, Lookup};
pub use near::nearest;
pub use node::{KeyNode, Node, Value};
pub use parse::Document;
pub use problem::{InvalidValue, Problem, Problems};
pub use secret::Secret;
pub use settings::{
    Acknowledge, Agent, Block, Delivery, Limits, QueueKind, Route, Server, Settings, Signal, SyncPolicy,
};
pub use size::ByteSize;
pub use socket_address::SocketAddress;
pub use text::{Text, text_values};
pub use validate::{check, property_names, read, read_with};
