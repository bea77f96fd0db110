//! HTTP as Weir needs it on both sides: one client with TLS, proxy and compression, answers read
//! within bounds and sorted into classes, and server pieces with bounded, decompressed bodies.

pub mod answer_note;
pub mod body;
pub mod class;
pub mod client;
pub mod compress;
mod connection;
mod linger;
pub mod memory;
mod pieces;
pub mod serve;

pub use answer_note::AnswerNote;
pub use body::{BodyError, read_body};
pub use class::{StatusClass, retry_after};
pub use client::{Answer, Client, HttpOptions, TransportError, TransportKind};
pub use compress::Compression;
pub use memory::{MemoryBudget, Reservation};
pub use pieces::Pieces;
pub use serve::{ListenError, bind, serve};
