//! Turns a stock Postgres into a stateless compute: FUSE mounts, WAL proposer, base backup, lifecycle.

pub mod compute;
mod error;
mod head;
mod wal_proposer;

pub use compute::{ComputeConfig, Exit, Ready, run};
pub use error::ShimError;
pub use head::{SettledHead, settled_head};
pub use wal_proposer::{Elected, Fenced, StartWal, WalConfig, WalMount, WalProposer};
