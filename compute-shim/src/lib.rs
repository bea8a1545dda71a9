//! Turns a stock Postgres into a stateless compute: FUSE mounts, WAL proposer, base backup, lifecycle.

mod base_backup;
mod commit_waiters;
pub mod compute;
mod early_pages;
mod error;
mod folder;
mod fuse;
mod head;
mod mounts;
mod overlay;
mod page_client;
mod path;
mod postgres;
mod proposer;
mod safekeeper_client;
#[cfg(test)]
mod test_page_server;
#[cfg(test)]
mod test_quorum;
#[cfg(test)]
mod test_wal;
mod tree;
mod wal_feed;
mod wal_fs;
mod wal_proposer;
mod wal_source;
mod written_wal;

pub use compute::{ComputeConfig, Exit, Ready, Serves, run};
pub use error::ShimError;
pub use head::{SettledHead, settled_head};
pub use page_client::Route;
pub use postgres::command_line as postgres_command_line;
pub use wal_fs::WalMount;
pub use wal_proposer::{Elected, Fenced, StartWal, WalConfig, WalProposer};
