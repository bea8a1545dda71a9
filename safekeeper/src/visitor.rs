//! Who is connected, and for how long.

use std::time::Instant;

use access::Admission;
use protocol::TenantTimeline;
use protocol::quorum::{Hello, PROTOCOL_VERSION, Purpose, Refusal};
use protocol::token::{Right, Token};

use crate::keeper::Keeper;

/// The door's name in logs and metrics.
const DOOR: &str = "wal";

/// Somebody who was let in for one timeline.
pub struct Visitor {
    /// The timeline.
    pub timeline: TenantTimeline,
    admission: Admission,
}

impl Visitor {
    /// Lets somebody in. Who has no token for the timeline is told that there is none.
    pub fn admit(keeper: &Keeper, hello: &Hello) -> Result<Visitor, Refusal> {
        if hello.version != PROTOCOL_VERSION {
            let asked = hello.version;
            return Err(Refusal::Invalid(format!(
                "protocol version {asked}: this safekeeper speaks {PROTOCOL_VERSION}"
            )));
        }
        let timeline = hello.timeline;
        let right = match hello.purpose {
            Purpose::Propose { .. } | Purpose::Read { .. } | Purpose::Status => {
                Right::Timeline(timeline.tenant)
            }
            Purpose::Consumed { .. } | Purpose::Configure { .. } => Right::Peer,
        };
        let admitted = keeper.guard.admit(DOOR, hello.token.as_ref(), right);
        let admission = admitted.map_err(|_| Refusal::UnknownTimeline(timeline))?;
        Ok(Visitor { timeline, admission })
    }

    /// Refuses whose token has ended.
    pub fn check(&self) -> Result<(), Refusal> {
        self.admission.check().map_err(|_| Refusal::UnknownTimeline(self.timeline))
    }

    /// Whether the token has not ended.
    pub fn may_go_on(&self) -> bool {
        self.admission.holds(Instant::now())
    }

    /// Lets somebody go on who shows a newer token.
    pub fn renew(&self, token: &Token) -> Result<(), Refusal> {
        self.admission.renew(token).map_err(|_| Refusal::UnknownTimeline(self.timeline))
    }
}
