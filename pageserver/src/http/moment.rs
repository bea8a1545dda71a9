//! Which moment of a branch is meant.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use protocol::BranchPoint;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use wal_format::Lsn;

use super::{Api, error::ApiError, timestamp};
use crate::{
    tenants::{Beginning, Branch},
    timeline::Timeline,
    wal_receiver::Use,
};

/// How long a request waits for ingest.
const INGEST_WAIT: Duration = Duration::from_secs(10);
/// How long the quorum may take to say what it has acknowledged.
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// An LSN, a timestamp or a snapshot's name, as requests carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MomentFields {
    pub lsn: Option<String>,
    pub timestamp: Option<String>,
    pub snapshot: Option<String>,
}

/// A moment of a branch's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moment {
    /// All that was acknowledged until now.
    Head,
    /// As of this LSN.
    Lsn(Lsn),
    /// Before the first commit that is later, in microseconds since 2000.
    Time(i64),
    /// As the tenant's snapshot of this name has it, of whichever branch.
    Snapshot(String),
}

/// Where a moment is.
pub(super) struct Found {
    /// The timeline: the branch's, or the snapshot's.
    pub timeline: Arc<Timeline>,
    /// The last record that belongs to the moment.
    pub point: BranchPoint,
    /// The LSN that was asked for, where it is not a record's end.
    rounded_from: Option<Lsn>,
}

impl Found {
    /// An answer that shows what begins at the moment, and says where that was rounded.
    pub fn with_rounding(&self, mut shown: Value) -> Value {
        if let Some(lsn) = self.rounded_from {
            shown["rounded_from"] = json!(lsn);
        }
        shown
    }
}

impl MomentFields {
    /// The moment: exactly one of the three must be there.
    pub fn moment(self) -> Result<Moment, ApiError> {
        match (self.lsn, self.timestamp, self.snapshot) {
            (Some(lsn), None, None) => {
                let lsn = lsn.parse::<Lsn>();
                lsn.map(Moment::Lsn).map_err(|error| ApiError::bad_request(error.to_string()))
            }
            (None, Some(text), None) => {
                let time = timestamp::parse(&text)?;
                if time > timestamp::now() {
                    return Err(ApiError::bad_request(format!("{text} is in the future")));
                }
                Ok(Moment::Time(time))
            }
            (None, None, Some(name)) => Ok(Moment::Snapshot(name)),
            _ => Err(ApiError::bad_request("one of lsn, timestamp and snapshot was expected")),
        }
    }
}

/// Says where a moment of a branch is.
pub(super) async fn show(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
    Query(fields): Query<MomentFields>,
) -> Result<Json<Value>, ApiError> {
    let moment = fields.moment()?;
    let branch = api.tenants.branch(&tenant, &branch).await?;
    if let Moment::Lsn(asked) = moment {
        api.refuse_future(&branch, asked).await?;
    }
    let found = api.find(&branch, &moment).await?;
    let shown = json!({
        "tenant_id": found.timeline.id().tenant,
        "timeline_id": found.timeline.id().timeline,
        "lsn": found.point.lsn,
    });
    Ok(Json(found.with_rounding(shown)))
}

impl Moment {
    /// What begins at the moment of the branch, which was found at `point`.
    pub fn beginning<'m>(&'m self, branch: &'m str, point: BranchPoint) -> Beginning<'m> {
        match self {
            Moment::Snapshot(name) => Beginning::Snapshot(name),
            _ => Beginning::Point(branch, point),
        }
    }
}

impl Api {
    /// Finds the moment in the branch's history.
    pub(super) async fn find(&self, branch: &Branch, moment: &Moment) -> Result<Found, ApiError> {
        if let Moment::Snapshot(name) = moment {
            return self.find_snapshot(branch, name).await;
        }
        let timeline = self.tenants.timeline(branch.timeline).await?;
        let receiving = self.receivers.receive(&timeline);
        let (point, rounded_from) = match *moment {
            Moment::Head | Moment::Snapshot(_) => {
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

    /// Refuses an LSN beyond all that was acknowledged, at once: whoever wants to read what was has
    /// nothing to wait for.
    async fn refuse_future(&self, branch: &Branch, asked: Lsn) -> Result<(), ApiError> {
        let timeline = self.tenants.timeline(branch.timeline).await?;
        if asked <= timeline.last_record_lsn() {
            return Ok(());
        }
        let receiving = self.receivers.receive(&timeline);
        let head = self.ingest_to_head(&timeline, &receiving).await?;
        match asked > head {
            true => Err(ApiError::bad_request(format!(
                "{asked} is in the future: what was acknowledged ends at {head}"
            ))),
            false => Ok(()),
        }
    }

    async fn find_snapshot(&self, branch: &Branch, name: &str) -> Result<Found, ApiError> {
        let snapshot = self.tenants.snapshot(branch.timeline.tenant, name).await?;
        let timeline = self.tenants.timeline(snapshot.timeline).await?;
        let receiving = self.receivers.receive(&timeline);
        receiving.wait_for(snapshot.point.lsn, INGEST_WAIT).await?;
        Ok(Found { timeline, point: snapshot.point, rounded_from: None })
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
