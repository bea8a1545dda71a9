//! Why a compute could not start or go on, by what the caller does next.

use std::{io, path::PathBuf};

use protocol::{page_service::PageError, quorum::Refusal};

/// Why a compute could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The machine lacks something: one sentence, and what mends it.
    #[error("{what}: {mend}")]
    Precondition {
        /// What is missing.
        what: String,
        /// What the operator does about it.
        mend: String,
    },
    /// A newer compute was elected on this timeline; this one must stop.
    #[error("fenced: {0}")]
    Fenced(String),
    /// A safekeeper quorum or the pageserver could not be reached in time: try again later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The pageserver refused.
    #[error("the pageserver refused: {0}")]
    Page(#[from] PageError),
    /// The safekeepers refused.
    #[error("the safekeepers refused: {0}")]
    Quorum(#[from] Refusal),
    /// What was received or read makes no sense.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// A standby has nothing to begin at: the timeline's own compute has to be started first.
    #[error("{0}")]
    NoCheckpoint(String),
    /// Postgres did not start or did not stay.
    #[error("{what}; the end of {}:\n{tail}", log.display())]
    Postgres {
        /// What went wrong.
        what: String,
        /// Postgres' log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with its path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The caller asked to stop before the start was complete.
    #[error("stopped before the start was complete")]
    Stopped,
}

impl ShimError {
    /// A failed system call, with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ShimError {
        let what = what.into();
        move |source| ShimError::Io { what, source }
    }
}
