//! Which moment of a branch is meant.

use std::{sync::Arc, time::Duration};

use protocol::BranchPoint;
use serde::Deserialize;
use tokio::time::timeout;
use wal_format::Lsn;

use super::{Api, error::ApiError, timestamp};
use crate::{tenants::Branch, timeline::Timeline, wal_receiver::Use};

/// How long a request waits for ingest.
const INGEST_WAIT: Duration = Duration::from_secs(10);
/// How long the quorum may take to say what it has acknowledged.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// An LSN or a timestamp, as requests carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MomentFields {
    pub lsn: Option<String>,
    pub timestamp: Option<String>,
}

/// A moment of a branch's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// All that was acknowledged until now.
    Head,
    /// As of this LSN.
    Lsn(Lsn),
    /// Before the first commit that is later, in microseconds since 2000.
    Time(i64),
}

/// Where a moment is.
pub(super) struct Found {
    /// The branch's timeline.
    pub timeline: Arc<Timeline>,
    /// The last record that belongs to the moment.
    pub point: BranchPoint,
    /// The LSN that was asked for, where it is not a record's end.
    pub rounded_from: Option<Lsn>,
}

impl MomentFields {
    /// The moment: exactly one of the two must be there.
    pub fn moment(&self) -> Result<Moment, ApiError> {
        match (&self.lsn, &self.timestamp) {
            (Some(lsn), None) => {
                let lsn = lsn.parse::<Lsn>();
                lsn.map(Moment::Lsn).map_err(|error| ApiError::bad_request(error.to_string()))
            }
            (None, Some(text)) => {
                let time = timestamp::parse(text)?;
                if time > timestamp::now() {
                    return Err(ApiError::bad_request(format!("{text} is in the future")));
                }
                Ok(Moment::Time(time))
            }
            _ => Err(ApiError::bad_request("one of lsn and timestamp was expected")),
        }
    }
}

impl Api {
    /// Finds the moment in the branch's history.
    pub(super) async fn find(&self, branch: &Branch, moment: Moment) -> Result<Found, ApiError> {
        let timeline = self.tenants.timeline(branch.timeline).await?;
        let receiving = self.receivers.receive(&timeline);
        let (point, rounded_from) = match moment {
            Moment::Head => {
                let head = self.ingest_to_head(&timeline, &receiving).await?;
                (timeline.round_down(head).await?, None)
            }
            Moment::Lsn(lsn) => {
                receiving.wait_for(lsn, INGEST_WAIT).await?;
                let point = timeline.round_down(lsn).await?;
                (point, (point.lsn != lsn).then_some(lsn))
            }
            Moment::Time(time) => {
                let mut point = timeline.point_at_time(time).await?;
                // Where a commit later than the time is known, what comes now changes nothing.
                if point.lsn >= timeline.last_record_lsn() {
                    self.ingest_to_head(&timeline, &receiving).await?;
                    point = timeline.point_at_time(time).await?;
                }
                (point, None)
            }
        };
        Ok(Found { timeline, point, rounded_from })
    }

    /// Waits until everything that was acknowledged is ingested; the end of it.
    async fn ingest_to_head(
        &self,
        timeline: &Arc<Timeline>,
        receiving: &Use,
    ) -> Result<Lsn, ApiError> {
        if timeline.is_read_only() {
            return Ok(timeline.last_record_lsn());
        }
        let head = self.head.settled_head(timeline.id(), timeline.origin());
        let head = timeout(HEAD_WAIT, head)
            .await
            .map_err(|_| ApiError::unavailable("the safekeepers do not say what was committed"))?
            .map_err(ApiError::unavailable)?;
        receiving.wait_for(head, INGEST_WAIT).await?;
        Ok(head)
    }
}
