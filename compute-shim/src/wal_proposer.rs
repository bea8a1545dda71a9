//! The WAL proposer: carries out what the pure proposer decides, over TCP.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::{TenantTimeline, Term, TimelineOrigin};
use wal_format::Lsn;

use crate::ShimError;

/// What a proposer needs to know.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// The timeline to write.
    pub timeline: TenantTimeline,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// All safekeepers, whether they are members of the quorum or not.
    pub safekeepers: Vec<SocketAddr>,
    /// The files behind `pg_wal`: disposable, emptied at each start.
    pub wal_folder: PathBuf,
}

/// The outcome of an election.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elected {
    /// The term won.
    pub term: Term,
    /// The end of the log that was taken over: a record's end, and a quorum has it.
    pub position: Lsn,
}

/// A newer proposer's term, which ended this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// This proposer's term.
    pub ours: Term,
    /// The newer.
    pub known: Term,
}

/// The WAL that Postgres finds when it starts: it ends in a shutdown checkpoint record.
#[derive(Clone, Debug)]
pub struct StartWal {
    /// The position of the first byte: [`Elected::position`] for a synthesised checkpoint; the start
    /// of the checkpoint record where the log ends in one already.
    pub begin: Lsn,
    /// The stream from there, page headers included. What lies beyond [`Elected::position`] is new,
    /// and is appended through the quorum.
    pub bytes: Bytes,
    /// The start of the last record before [`Elected::position`].
    pub last_record: Lsn,
}

/// An elected proposer, its connections to the safekeepers, and the WAL that goes through it.
/// Clones are handles of the same.
#[derive(Clone)]
pub struct WalProposer {
    config: WalConfig,
}

/// The mount of `pg_wal`. Unmounted by [`WalMount::unmount`], or when dropped.
pub struct WalMount {
    mountpoint: PathBuf,
}

impl WalProposer {
    /// Takes the timeline over from whoever wrote it: wins an election against any race, and
    /// returns when a quorum has the whole log under the new term.
    pub async fn elect(config: WalConfig) -> Result<(WalProposer, Elected), ShimError> {
        Err(ShimError::Unavailable(format!("{} safekeepers", config.safekeepers.len())))
    }

    /// The committed WAL `[from, to)`, from the safekeepers.
    pub async fn read_committed(&self, from: Lsn, to: Lsn) -> Result<Bytes, ShimError> {
        Err(ShimError::Unavailable(format!("WAL from {from} to {to}")))
    }

    /// Lays out the folder behind `pg_wal`, and returns when a quorum has what `wal` adds.
    pub async fn start_at(&self, wal: StartWal) -> Result<(), ShimError> {
        Err(ShimError::Unavailable(format!("WAL at {}", wal.begin)))
    }

    /// Mounts `pg_wal`, after [`WalProposer::start_at`]; its files are reported as `uid`'s and `gid`'s.
    pub fn mount(&self, mountpoint: &Path, _uid: u32, _gid: u32) -> Result<WalMount, ShimError> {
        Err(ShimError::Unavailable(mountpoint.display().to_string()))
    }

    /// How far a quorum has flushed.
    pub fn commit_lsn(&self) -> Lsn {
        self.config.origin.point.lsn
    }

    /// The end of the last complete record that was written.
    pub fn written_lsn(&self) -> Lsn {
        self.config.origin.point.lsn
    }

    /// Resolves when a newer proposer was elected: from then on every write and every fsync of
    /// `pg_wal` answers EIO.
    pub async fn fenced(&self) -> Fenced {
        std::future::pending().await
    }

    /// Ends it all: what still waits on `pg_wal` answers EIO. After a clean stop of Postgres
    /// nothing waits any more, and the safekeepers are told of the last commit.
    pub async fn shutdown(&self) {}
}

impl WalMount {
    /// Unmounts; the mount must not be in use any more.
    pub fn unmount(self) -> Result<(), ShimError> {
        Err(ShimError::Unavailable(self.mountpoint.display().to_string()))
    }
}
