//! Postgres pages as layered, copy-on-write files in object storage.

#![allow(clippy::todo)]

pub mod change;
pub mod error;
pub mod key;
pub mod redo;
pub mod store;
pub mod tenants;
pub mod timeline;

mod server;

pub use server::{Config, HeadSource};
