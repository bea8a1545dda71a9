//! Requests for pages and base backups, between a compute and a pageserver.
//!
//! A connection begins with [`Hello`], answered by [`Welcome`] or a [`PageError`] as
//! [`Response::Failed`]. Then any number of requests are in flight; each carries a number that its
//! answers repeat, and answers come in any order.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wal_format::{Lsn, PageKey, RelationFork};

use crate::{TenantTimeline, Term, TimelineOrigin, token::Token};

/// The version of these messages; a peer of another one is refused.
pub const PROTOCOL_VERSION: u32 = 2;
/// The most pages that one request may ask for: 4 MiB.
pub const REQUEST_PAGES_MAX: u32 = 512;
/// The most bytes of a file that one [`Response::BackupFile`] carries.
pub const BACKUP_CHUNK_BYTES_MAX: usize = 1 << 20;

/// The first frame of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The timeline that every request of the connection is about.
    pub timeline: TenantTimeline,
    /// The compute's term; requests of a term below the newest seen are refused. `None` for a
    /// reader that writes nothing, and for a compute that was not elected yet.
    pub term: Option<Term>,
    /// What lets the compute in; a pageserver that lets everybody in does not look at it.
    pub token: Option<Token>,
}

/// What a pageserver says of the timeline to a new connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Where the timeline begins, and what its WAL needs to be read.
    pub origin: TimelineOrigin,
    /// How far ingest is.
    pub last_record_lsn: Lsn,
}

/// A request and its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client; repeated by every answer.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// The versions that answer a request. Any version between the two is right; the pageserver waits
/// until its ingest has reached `not_modified_since`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadAt {
    /// An upper bound: nothing newer than this may be seen.
    pub request_lsn: Lsn,
    /// What is asked for has not changed since this LSN.
    pub not_modified_since: Lsn,
}

/// What a compute may ask for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A range of pages of one fork. Answered by [`Response::Pages`].
    Range {
        /// The versions.
        at: ReadAt,
        /// The fork.
        fork: RelationFork,
        /// The first block.
        first: u32,
        /// How many, at most [`REQUEST_PAGES_MAX`].
        count: u32,
    },
    /// Any pages. Answered by [`Response::Pages`], in the order asked for.
    Batch {
        /// The versions.
        at: ReadAt,
        /// The pages, at most [`REQUEST_PAGES_MAX`].
        pages: Vec<PageKey>,
    },
    /// All forks of all relations with their sizes. Answered by [`Response::Relations`].
    Relations {
        /// The versions.
        at: ReadAt,
    },
    /// All that a compute needs to start at exactly this LSN. Answered by [`Response::BackupHead`],
    /// [`Response::BackupFile`]s, [`Response::BackupEnd`].
    BaseBackup {
        /// A record's end; the pageserver waits for ingest to reach it.
        lsn: Lsn,
    },
    /// To be let in for longer. Answered by [`Response::Renewed`].
    Renew {
        /// A newer token.
        token: Token,
    },
}

impl Request {
    /// How many pages it asks for; `None` where it asks for something else.
    pub fn pages(&self) -> Option<usize> {
        match self {
            Request::Range { count, .. } => Some(*count as usize),
            Request::Batch { pages, .. } => Some(pages.len()),
            Request::Relations { .. } | Request::BaseBackup { .. } | Request::Renew { .. } => None,
        }
    }
}

/// An answer and the number of its request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// The request's number; 0 for the answer to [`Hello`].
    pub id: u64,
    /// The answer.
    pub response: Response,
}

/// A fork and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForkSize {
    /// The fork.
    pub fork: RelationFork,
    /// Its length in blocks.
    pub blocks: u32,
}

/// What a pageserver answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// The connection is accepted.
    Welcome(Welcome),
    /// The pages, 8,192 bytes each, in the frame's payload. A page beyond the fork's end is zeros:
    /// a read-ahead range that crosses the end does not fail.
    Pages {
        /// The version that was served.
        lsn: Lsn,
    },
    /// The forks and their sizes, by relation.
    Relations {
        /// The version that was served.
        lsn: Lsn,
        /// The forks.
        forks: Vec<ForkSize>,
    },
    /// The first part of a base backup.
    BackupHead(BackupHead),
    /// A part of a file, in the frame's payload; a file's parts follow each other.
    BackupFile {
        /// The path in the data directory: `pg_xact/0000`, `base/5/pg_filenode.map`.
        path: String,
    },
    /// The base backup is complete.
    BackupEnd,
    /// The newer token counts from now on.
    Renewed,
    /// The request failed; the connection goes on, unless it was [`Hello`] that failed.
    Failed(PageError),
}

/// What a base backup says before its files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupHead {
    /// The LSN asked for: a record's end.
    pub lsn: Lsn,
    /// The start of the last record before it: the next record's `xl_prev`.
    pub last_record: Lsn,
    /// Whether that record is a shutdown checkpoint of this timeline's own WAL.
    pub ends_in_shutdown_checkpoint: bool,
    /// `pg_control` as it would be after a clean shutdown at `lsn`, but for its checkpoint
    /// position, times and CRC, which whoever starts Postgres sets: the whole 8,192 bytes.
    pub control_file: Vec<u8>,
    /// User tablespaces: OID and the location it was created with.
    pub tablespaces: Vec<(u32, String)>,
    /// Databases: tablespace and OID of each folder, `pg_global`'s not among them.
    pub databases: Vec<(u32, u32)>,
    /// All forks with their sizes.
    pub forks: Vec<ForkSize>,
}

/// Why a request failed, by what the caller does next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum PageError {
    /// No such tenant or timeline.
    #[error("not found: {0}")]
    NotFound(String),
    /// The LSN is before the retained history.
    #[error("{asked} is before the retained history, which begins at {oldest}")]
    Gone {
        /// What was asked for.
        asked: Lsn,
        /// The oldest that is served.
        oldest: Lsn,
    },
    /// Ingest did not reach the LSN in time.
    #[error("{asked} is beyond the end: ingest is at {ingested}")]
    NotYet {
        /// What was asked for.
        asked: Lsn,
        /// How far ingest is.
        ingested: Lsn,
    },
    /// A newer compute was elected on this timeline.
    #[error("fenced: term {known} is above the compute's term {asked}")]
    Fenced {
        /// The compute's.
        asked: Term,
        /// The newest.
        known: Term,
    },
    /// The object store, or a safekeeper, cannot be reached: try again later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A stored byte is damaged, or a record has no redo: an operator must act.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The pageserver stops; connect again.
    #[error("shutting down")]
    ShuttingDown,
    /// The request makes no sense.
    #[error("bad request: {0}")]
    Invalid(String),
    /// Another pageserver serves the tenant: ask that one.
    #[error("the tenant is served by pageserver {to:?}")]
    Moved {
        /// Its name.
        to: String,
        /// Where its page service is, if that can be said.
        pages: Option<SocketAddr>,
    },
}
