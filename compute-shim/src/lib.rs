//! Turns a stock Postgres into a stateless compute: FUSE mounts, WAL proposer, base backup, lifecycle.

mod base_backup;
pub mod compute;
mod error;
mod folder;
mod fuse;
mod head;
mod mounts;
mod overlay;
mod page_client;
mod path;
mod postgres;
#[cfg(test)]
mod test_page_server;
mod tree;
mod wal_proposer;

pub use compute::{ComputeConfig, Exit, Ready, run};
pub use error::ShimError;
pub use head::{SettledHead, settled_head};
pub use wal_proposer::{Elected, Fenced, StartWal, WalConfig, WalMount, WalProposer};
