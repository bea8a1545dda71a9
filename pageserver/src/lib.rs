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
pub mod store;
pub mod tenants;
pub mod timeline;

mod server;

pub use server::{Config, HeadSource};
