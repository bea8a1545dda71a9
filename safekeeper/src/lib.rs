//! The WAL quorum's member: acceptor, journal, WAL service, offload.
//!
//! A safekeeper knows no pages and reads no record's payload: it finds where records end, keeps what a proposer
//! appends, and gives it to those who ask. The protocol stands in `docs/formats/quorum-protocol.md`, the disk's format
//! in `docs/formats/journal.md`, the object store's in `docs/formats/wal-object.md`.

pub mod acceptor;
mod config;
mod error;
mod frames;
mod http;
mod journal;
mod keeper;
mod membership;
mod metrics;
mod offload;
mod peer;
mod propose;
mod recovery;
mod server;
mod timeline;
mod visitor;
mod wal_object;
mod wal_service;

pub use config::{Bounds, Config};
pub use error::Error;
pub use http::paths as http_paths;
pub use server::Safekeeper;
