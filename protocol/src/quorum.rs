//! The WAL quorum's messages, between a proposer (a compute) or a reader (a pageserver) and a
//! safekeeper.
//!
//! A connection's first frame is a [`Hello`]; it says what the connection is for. The rules that
//! give these messages their meaning stand in `docs/formats/quorum-protocol.md`.

mod term_history;

use serde::{Deserialize, Serialize};
use wal_format::Lsn;

use crate::{Identity, NodeId, TenantTimeline, Term, TimelineOrigin, token::Token};

pub use term_history::{TermHistory, TermHistoryError, TermStart};

/// The version of these messages; a peer of another one is refused.
pub const PROTOCOL_VERSION: u32 = 2;
/// The most WAL that one [`ProposerMessage::Append`] or [`ReaderMessage::Wal`] carries.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// Who the members of a timeline's quorum are. A create-only object in the object store for each
/// generation; the highest is the truth.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Counts up by one with each change, from 1.
    pub generation: u32,
    /// The members: each a node, and the identity of the disk that it had when it was admitted.
    pub members: Vec<Member>,
}

/// One member of a quorum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The node's number.
    pub node: NodeId,
    /// Its disk.
    pub identity: Identity,
}

impl Configuration {
    /// How many members make a quorum.
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Whether this disk is a member.
    pub fn admits(&self, node: NodeId, identity: Identity) -> bool {
        self.members.contains(&Member { node, identity })
    }
}

/// The first frame of a connection to a safekeeper.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The timeline that the connection is about.
    pub timeline: TenantTimeline,
    /// What the connection is for.
    pub purpose: Purpose,
    /// What lets the sender in; a safekeeper that lets everybody in does not look at it.
    pub token: Option<Token>,
}

/// What a connection to a safekeeper is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Purpose {
    /// To be elected and to append. Answered by [`AcceptorMessage::Greeting`]; then
    /// [`ProposerMessage`]s and [`AcceptorMessage`]s.
    Propose {
        /// Where the timeline begins; taken on first contact, compared afterwards.
        origin: TimelineOrigin,
        /// A random number that tells this proposer's attempt from any other.
        proposer: u128,
    },
    /// To read WAL from `from` on. Answered by [`ReaderMessage`]s.
    Read {
        /// The first byte wanted.
        from: Lsn,
        /// How far the reader may see.
        limit: ReadLimit,
    },
    /// To ask for a [`TimelineStatus`], once. Answered by [`ReaderMessage::Status`].
    Status,
    /// To tell what the pageserver no longer needs; answered by [`ReaderMessage::Status`].
    Consumed {
        /// WAL before this is in layers in the object store.
        remote_consistent_lsn: Lsn,
    },
    /// To take over a new configuration (a member was replaced): persisted before it is answered
    /// by [`ReaderMessage::Status`].
    Configure {
        /// The configuration; one that is older than the known one is refused.
        configuration: Configuration,
    },
}

/// How far a reader of WAL may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReadLimit {
    /// Up to the commit LSN, for ever: the stream goes on as it rises.
    Commit,
    /// Up to this position of what is flushed, then the stream ends: for a proposer that carries
    /// an elected log to a member that lags, and for a member that is being admitted. Refused
    /// unless the reading safekeeper's log has an entry of this term that reaches to `until`.
    Flush {
        /// The term that wrote the log before `until`.
        last_log_term: Term,
        /// Where the stream ends.
        until: Lsn,
    },
}

/// From the proposer to an acceptor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ProposerMessage {
    /// Asks for a vote.
    Vote {
        /// The configuration's generation that the proposer counts by.
        generation: u32,
        /// The term that it stands for.
        term: Term,
    },
    /// Says that the proposer was elected, and what the log looks like: the acceptor truncates its
    /// log to `start`, the end of what it has in common with `history`.
    Elected {
        /// The configuration's generation.
        generation: u32,
        /// The term won.
        term: Term,
        /// Where appends to this acceptor will begin.
        start: Lsn,
        /// All terms of the log, the won one included.
        history: TermHistory,
    },
    /// WAL, in the frame's payload; empty for a heartbeat. `begin` continues what was sent before.
    Append {
        /// The configuration's generation.
        generation: u32,
        /// The proposer's term.
        term: Term,
        /// The position of the payload's first byte.
        begin: Lsn,
        /// How far a quorum is known to have flushed.
        commit_lsn: Lsn,
    },
    /// Asks to be let in for longer. Not answered, unless it is refused.
    Renew {
        /// A newer token.
        token: Token,
    },
}

/// From an acceptor to the proposer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AcceptorMessage {
    /// Answers [`Purpose::Propose`].
    Greeting {
        /// Which safekeeper this is.
        node: NodeId,
        /// Its disk.
        identity: Identity,
        /// The highest term it knows.
        term: Term,
        /// The configuration it knows, where it knows one.
        configuration: Option<Configuration>,
    },
    /// Answers [`ProposerMessage::Vote`], after it was made durable.
    Vote {
        /// The acceptor's term now.
        term: Term,
        /// Whether the vote was given for the term that was asked for.
        granted: bool,
        /// The end of the last complete record on its disk.
        flush_lsn: Lsn,
        /// How far it knows that a quorum has flushed.
        commit_lsn: Lsn,
        /// The terms of its log.
        history: TermHistory,
    },
    /// Answers [`ProposerMessage::Elected`] and [`ProposerMessage::Append`], after fdatasync. Many
    /// appends may be answered by one.
    Flushed {
        /// The acceptor's term: above the proposer's, the proposer is fenced.
        term: Term,
        /// The end of the last complete record on its disk.
        flush_lsn: Lsn,
    },
    /// The acceptor will not serve this proposer.
    Refused(Refusal),
}

/// Why a safekeeper refuses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A newer proposer was elected.
    #[error("fenced: term {known} is above the proposer's term {asked}")]
    Fenced {
        /// The proposer's.
        asked: Term,
        /// The acceptor's.
        known: Term,
    },
    /// The sender counts by an older configuration.
    #[error("configuration generation {asked} is older than {known}")]
    OldConfiguration {
        /// The sender's.
        asked: u32,
        /// The acceptor's.
        known: u32,
    },
    /// This disk is not a member: it lost what it had, or was never admitted. It is recovering.
    #[error("safekeeper {node} is not a member of the timeline's quorum with disk {identity}")]
    NotMember {
        /// The safekeeper.
        node: NodeId,
        /// Its disk.
        identity: Identity,
    },
    /// The timeline is not known here.
    #[error("timeline {0} is not known here")]
    UnknownTimeline(TenantTimeline),
    /// The WAL asked for is not here any more, or not yet.
    #[error("WAL at {asked} is not available: this safekeeper has {from} to {until}")]
    NotAvailable {
        /// The position asked for.
        asked: Lsn,
        /// The first that is here or in the object store.
        from: Lsn,
        /// The last.
        until: Lsn,
    },
    /// A bound was reached (the disk, or the timeline's share of the journal): try again later.
    #[error("full: {0}")]
    Full(String),
    /// The object store cannot be reached, and the answer needs it: try again later.
    #[error("the object store is unavailable: {0}")]
    StoreUnavailable(String),
    /// The message breaks the protocol.
    #[error("bad message: {0}")]
    Invalid(String),
    /// What the answer needs is damaged where it is stored; the message names the object or the
    /// journal's segment, and the offset. Another safekeeper may have it whole.
    #[error("{0}")]
    Damaged(String),
}

/// From a safekeeper to a reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReaderMessage {
    /// WAL, in the frame's payload; empty when only the numbers moved, or as a heartbeat.
    Wal {
        /// The position of the payload's first byte.
        begin: Lsn,
        /// How far a quorum is known to have flushed.
        commit_lsn: Lsn,
        /// The highest term that this safekeeper knows: fences readers' own older clients.
        term: Term,
    },
    /// Answers a status request.
    Status(TimelineStatus),
    /// The request cannot be served.
    Refused(Refusal),
}

/// What a safekeeper knows of a timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimelineStatus {
    /// Which safekeeper.
    pub node: NodeId,
    /// Its disk.
    pub identity: Identity,
    /// The configuration it knows.
    pub configuration: Option<Configuration>,
    /// Where the timeline begins, once it is known here.
    pub origin: Option<TimelineOrigin>,
    /// The highest term it knows.
    pub term: Term,
    /// The terms of its log.
    pub history: TermHistory,
    /// The end of the last complete record on its disk.
    pub flush_lsn: Lsn,
    /// How far it knows that a quorum has flushed.
    pub commit_lsn: Lsn,
    /// WAL before this is in the object store.
    pub offloaded_lsn: Lsn,
    /// WAL before this is in layers, by the pageserver's word.
    pub remote_consistent_lsn: Lsn,
    /// WAL before this is no longer in the local journal.
    pub local_start_lsn: Lsn,
    /// Whether a proposer of the current term is connected now.
    pub proposer_connected: bool,
}
