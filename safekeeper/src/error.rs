//! What can go wrong in a safekeeper, by what the caller does next.

use std::path::PathBuf;

use protocol::quorum::Refusal;

/// An error of a safekeeper.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refuses; said of a start, because a running safekeeper whose disk fails ends.
    #[error("{action} {path}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has this folder.
    #[error("the folder {0} is in use by another safekeeper")]
    InUse(PathBuf),
    /// The folder is another safekeeper's.
    #[error("the folder {path} belongs to safekeeper {node}")]
    OtherNode {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        node: protocol::NodeId,
    },
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal has damage that no crash explains.
    #[error("journal segment {segment} is damaged at offset {offset}: {reason}")]
    Journal {
        /// The segment's number.
        segment: u64,
        /// The byte.
        offset: u64,
        /// What was expected, and what was found.
        reason: String,
    },
    /// The object store cannot be reached: try again.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    /// An object is damaged.
    #[error("object {object} is damaged at offset {offset}: {reason}")]
    Object {
        /// Its name.
        object: String,
        /// The byte.
        offset: u64,
        /// What was expected, and what was found.
        reason: String,
    },
    /// Another safekeeper cannot be reached, or speaks another language.
    #[error("safekeeper {node}: {reason}")]
    Peer {
        /// The peer.
        node: protocol::NodeId,
        /// What happened.
        reason: String,
    },
    /// The request is refused, and the sender is told so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended or broke.
    #[error("connection: {0}")]
    Connection(#[from] std::io::Error),
    /// The safekeeper is being stopped.
    #[error("shutting down")]
    ShuttingDown,
}

impl Error {
    /// What a peer is told.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Error::Refused(refusal) => refusal,
            Error::Store(_) => Refusal::StoreUnavailable(self.to_string()),
            Error::Object { .. } | Error::Journal { .. } => Refusal::Damaged(self.to_string()),
            other => Refusal::Invalid(other.to_string()),
        }
    }
}

/// WAL was asked for that this safekeeper does not have.
pub(crate) fn not_available(
    asked: wal_format::Lsn,
    from: wal_format::Lsn,
    until: wal_format::Lsn,
) -> Error {
    Refusal::NotAvailable { asked, from, until }.into()
}
