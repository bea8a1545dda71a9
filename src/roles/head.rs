//! Where a branch at head begins: the quorum is asked, through the compute's half of its protocol.

use std::{net::SocketAddr, time::Duration};

use ::access::Bearer;
use async_trait::async_trait;
use pageserver::HeadSource;
use protocol::{TenantTimeline, TimelineOrigin};
use wal_format::Lsn;

/// How long a quorum may take to say where its log ends.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Asks these safekeepers.
pub struct QuorumHead {
    /// All of them.
    pub safekeepers: Vec<SocketAddr>,
    /// What they are shown.
    pub bearer: Bearer,
}

#[async_trait]
impl HeadSource for QuorumHead {
    async fn settled_head(
        &self,
        timeline: TenantTimeline,
        origin: TimelineOrigin,
    ) -> Result<Lsn, String> {
        let settled = compute_shim::settled_head(
            timeline,
            origin,
            (&self.safekeepers, &self.bearer),
            SETTLE_MAX,
        )
        .await;
        settled.map(|head| head.lsn).map_err(|error| error.to_string())
    }
}
