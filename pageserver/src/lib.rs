//! Postgres pages as layered, copy-on-write files in object storage.

mod server;

pub use server::{Config, HeadSource};
