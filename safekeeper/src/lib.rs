//! The WAL quorum's member: acceptor, journal, WAL service, offload.

mod config;
mod error;

pub use config::{Bounds, Config};
pub use error::Error;
