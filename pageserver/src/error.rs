//! Why something failed, by what the caller does next.

use protocol::{TenantId, Term, page_service::PageError};
use wal_format::Lsn;

use crate::manifest::Place;

/// What the storage engine answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such tenant, branch, timeline or template.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// The caller's choice makes no sense; the sentence says why.
    #[error("{0}")]
    Invalid(String),
    /// The LSN is before the retained history.
    #[error("{asked} is before the retained history, which begins at {oldest}")]
    Gone {
        /// What was asked for.
        asked: Lsn,
        /// The oldest that can be read.
        oldest: Lsn,
    },
    /// The moment is before the retained history.
    #[error("{asked} is before the retained history, which begins at {oldest}, LSN {lsn}")]
    GoneTime {
        /// What was asked for.
        asked: String,
        /// The oldest moment that can be found.
        oldest: String,
        /// The oldest LSN that can be read.
        lsn: Lsn,
    },
    /// Ingest has not reached the LSN.
    #[error("{asked} is beyond the end: ingest is at {ingested}")]
    NotYet {
        /// What was asked for.
        asked: Lsn,
        /// How far ingest is.
        ingested: Lsn,
    },
    /// A newer compute was elected on this timeline.
    #[error("fenced: term {known} is above the compute's term {asked}")]
    TermFenced {
        /// The compute's.
        asked: Term,
        /// The newest.
        known: Term,
    },
    /// Another pageserver has written this manifest: this one may publish nothing more.
    #[error("fenced: {object} was written by another pageserver")]
    Fenced {
        /// The manifest.
        object: String,
    },
    /// Another pageserver serves the tenant: ask that one.
    #[error("tenant {tenant} is served by {}", said(to))]
    Moved {
        /// The tenant.
        tenant: TenantId,
        /// Who serves it.
        to: Box<Place>,
    },
    /// The object store cannot be reached: try again later.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A stored object is damaged: an operator must act.
    #[error("{object} is damaged at offset {offset}: {expected} was expected, {found} was found")]
    Corrupt {
        /// The object's name.
        object: String,
        /// Where the damaged part begins, in bytes.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A manifest names an object that is not there: an operator must act.
    #[error("{object} is missing from the object store")]
    Missing {
        /// The object's name.
        object: String,
    },
    /// A record could not be applied to a page: an operator must act.
    #[error("the record that ends at {lsn} cannot be applied to {target}: {reason}")]
    Redo {
        /// What was to be reconstructed.
        target: String,
        /// The record's end.
        lsn: Lsn,
        /// Why not.
        reason: String,
    },
    /// WAL could not be ingested, and the LSN asked for lies behind: an operator must act.
    #[error("{0}")]
    IngestStopped(String),
    /// The timeline was deleted, or the pageserver stops.
    #[error("shutting down")]
    ShuttingDown,
}

fn said(place: &Place) -> String {
    let Place { name, pages, http } = place;
    let at = |what: &str, address: &Option<std::net::SocketAddr>| {
        address.map(|address| format!(", {what} {address}")).unwrap_or_default()
    };
    format!("pageserver {name:?}{}{}", at("its pages at", pages), at("its HTTP API at", http))
}

impl Error {
    /// There is no such tenant.
    pub(crate) fn no_tenant(id: TenantId) -> Error {
        Error::NotFound(format!("tenant {id}"))
    }
}

impl From<Error> for PageError {
    fn from(error: Error) -> PageError {
        match error {
            Error::NotFound(_) => PageError::NotFound(error.to_string()),
            Error::Exists(_) | Error::Invalid(_) | Error::GoneTime { .. } => {
                PageError::Invalid(error.to_string())
            }
            Error::Gone { asked, oldest } => PageError::Gone { asked, oldest },
            Error::NotYet { asked, ingested } => PageError::NotYet { asked, ingested },
            Error::TermFenced { asked, known } => PageError::Fenced { asked, known },
            Error::Fenced { .. } => PageError::Unavailable(error.to_string()),
            Error::Moved { to, .. } => PageError::Moved { to: to.name, pages: to.pages },
            Error::Unavailable(reason) => PageError::Unavailable(reason),
            Error::IngestStopped(reason) => PageError::Corrupt(reason),
            Error::Corrupt { .. } | Error::Missing { .. } | Error::Redo { .. } => {
                PageError::Corrupt(error.to_string())
            }
            Error::ShuttingDown => PageError::ShuttingDown,
        }
    }
}
