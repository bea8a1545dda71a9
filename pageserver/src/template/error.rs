//! Why a data directory cannot become a template.

use std::{io, path::PathBuf};

use wal_format::Lsn;

/// A data directory that is not taken, with the reason and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// There is no `PG_VERSION`.
    #[error("{} is not a Postgres data directory: it has no PG_VERSION", .0.display())]
    NotADataDirectory(PathBuf),
    /// The data directory's major version is not served.
    #[error("the data directory is of Postgres {found:?}; Offshoot serves {served}")]
    UnknownMajor {
        /// What `PG_VERSION` says.
        found: String,
        /// What is served.
        served: &'static str,
    },
    /// A server runs in it.
    #[error(
        "a server is running in the data directory (postmaster.pid names process {pid}): stop it \
         first, with pg_ctl stop -m fast"
    )]
    Running {
        /// The postmaster.
        pid: u32,
    },
    /// It was not stopped cleanly.
    #[error(
        "the data directory was not cleanly stopped (pg_control says {state}): start Postgres on \
         it and stop it with pg_ctl stop -m fast"
    )]
    NotCleanlyStopped {
        /// `pg_control`'s state, in `pg_controldata`'s words.
        state: &'static str,
    },
    /// It was promoted, and its WAL has another timeline number than all that we write.
    #[error("the data directory was promoted: it is on Postgres timeline {timeline}, not 1")]
    Promoted {
        /// Postgres' own timeline number.
        timeline: u32,
    },
    /// It is to be recovered: a restored backup or a standby.
    #[error("the data directory is a standby or is to be recovered: {file} is in it")]
    InRecovery {
        /// The file that says so.
        file: &'static str,
    },
    /// It has prepared transactions.
    #[error(
        "the data directory has a prepared transaction ({}): commit it or roll it back first",
        .0.display()
    )]
    PreparedTransaction(PathBuf),
    /// `pg_control` is damaged or of another kind of build.
    #[error("pg_control cannot be used: {0}")]
    ControlFile(String),
    /// The last checkpoint's record cannot be read.
    #[error("the shutdown checkpoint at {at} cannot be read from {}: {reason}", path.display())]
    Checkpoint {
        /// Where `pg_control` says it is.
        at: Lsn,
        /// The WAL segment.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file has not the form that Postgres gives it.
    #[error("{} is damaged: {reason}", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A page is not valid.
    #[error("{} is damaged at block {block}: {reason}", path.display())]
    DamagedPage {
        /// The file.
        path: PathBuf,
        /// The block, counted from the file's start.
        block: u32,
        /// What is wrong.
        reason: String,
    },
    /// What was read could not be stored.
    #[error(transparent)]
    Store(#[from] crate::error::Error),
}
