//! Why the control plane refuses, by what the caller does next.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::RegionId;

/// An error of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such tenant, branch or compute.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The request clashes with what is there: a port that is taken, a stop under way.
    #[error("{0}")]
    Conflict(String),
    /// The project used up what it may.
    #[error("{0}")]
    Quota(String),
    /// The compute did not come up.
    #[error("the compute of {tenant}/{branch} did not start: {reason} (its log: {})", log.display())]
    ComputeFailed {
        /// The tenant's name.
        tenant: String,
        /// The branch's name.
        branch: String,
        /// What the compute said last.
        reason: String,
        /// Where the rest stands.
        log: PathBuf,
    },
    /// A standby has nothing to begin at: the compute that it is to follow has to be started first.
    #[error("{0}")]
    NoCheckpoint(String),
    /// The compute runs and does not answer its superuser.
    #[error("the compute of {tenant}/{branch} does not answer: {reason}")]
    Compute {
        /// The tenant.
        tenant: String,
        /// The branch.
        branch: String,
        /// What the connection said.
        reason: io::Error,
    },
    /// A region does not do its part: try again later.
    #[error("region {region} cannot be used now: {reason}")]
    Unavailable {
        /// The region.
        region: RegionId,
        /// Which of its servers cannot be asked, and why.
        reason: String,
    },
    /// The regions are not configured as they must be.
    #[error("{0}")]
    Regions(String),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {reason}; stop the program that holds it or choose another \
         address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The catalog cannot be opened, or made of what the pageserver has.
    #[error("the catalog in {}: {reason}", path.display())]
    Catalog {
        /// Its folder.
        path: PathBuf,
        /// Why, and what mends it.
        reason: String,
    },
    /// A file or folder of the control plane's own cannot be used.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
}

impl Error {
    /// The kind, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotFound(_) => "not_found",
            Error::Invalid(_) => "invalid",
            Error::Conflict(_) => "conflict",
            Error::Quota(_) => "quota",
            Error::ComputeFailed { .. } | Error::NoCheckpoint(_) => "compute_failed",
            Error::Compute { .. } | Error::Unavailable { .. } => "unavailable",
            Error::Listen { .. }
            | Error::Folder { .. }
            | Error::Catalog { .. }
            | Error::Regions(_) => "internal",
        }
    }
}
