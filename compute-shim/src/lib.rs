//! Turns a stock Postgres into a stateless compute: FUSE mounts, WAL proposer, base backup, lifecycle.

pub mod compute;
mod error;

pub use compute::{ComputeConfig, Exit, Ready, run};
pub use error::ShimError;
