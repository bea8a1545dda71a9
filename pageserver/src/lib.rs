//! Postgres pages as layered, copy-on-write files in object storage.

pub mod cache;
pub mod change;
pub mod clock;
pub mod engine;
pub mod error;
pub mod key;
pub mod layer;
pub mod manifest;
pub mod redo;
pub mod scrub;
pub mod store;
pub mod tenants;
pub mod timeline;

mod base_backup;
mod changed;
mod connection;
mod control;
mod data_directory;
mod http;
mod ingest;
mod limits;
mod metering;
mod metrics;
mod open_layers;
mod page_service;
mod replication_origin;
mod server;
#[cfg(test)]
mod simulation;
mod spare;
mod surveyed;
mod template;
mod wal_receiver;
mod work;

pub use http::paths as http_paths;
pub use limits::{Limits, Memory};
pub use manifest::NAME_DEFAULT;
pub use server::{CacheConfig, Config, DiskConfig, HeadSource, Pageserver, StartError};
