//! Branches: create, restore, list, delete.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use futures::{StreamExt, TryStreamExt, stream};
use protocol::BranchPoint;
use serde::Deserialize;
use serde_json::{Value, json};
use wal_format::Lsn;

use super::{
    Api,
    error::ApiError,
    moment::{Moment, MomentFields},
    request::{Body, check_name, to_the_end},
    timestamp,
};
use crate::{
    tenants::{Branch, MAIN_BRANCH},
    timeline::Timeline,
};

/// Branches of a list that are looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBranch {
    name: String,
    from: Option<String>,
    at: Option<MomentFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreBranch {
    lsn: Option<String>,
    timestamp: Option<String>,
    snapshot: Option<String>,
    keep_as: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let tenant = api.tenants.tenant(&tenant).await?;
    let shown = stream::iter(tenant.branches)
        .map(async |branch| {
            let timeline = api.tenants.timeline_as_stored(branch.timeline).await?;
            Ok::<Value, ApiError>(show_branch(&branch, &Extent::of(&timeline).await?))
        })
        .buffered(LOOKUPS_AT_ONCE);
    let branches: Vec<Value> = shown.try_collect().await?;
    Ok(Json(json!({ "branches": branches })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let branch = api.tenants.branch(&tenant, &branch).await?;
    let timeline = api.tenants.timeline(branch.timeline).await?;
    Ok(Json(show_branch(&branch, &Extent::of(&timeline).await?)))
}

pub(super) async fn create(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Body(create): Body<CreateBranch>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_name("branch", &create.name)?;
    let moment = create.at.map_or(Ok(Moment::Head), MomentFields::moment)?;
    if let (Some(from), Moment::Snapshot(name)) = (&create.from, &moment) {
        let message = format!("snapshot {name:?} says what is branched from: {from:?} does not");
        return Err(ApiError::bad_request(message));
    }
    let created = to_the_end(async move {
        let from = create.from.as_deref().unwrap_or(MAIN_BRANCH);
        let from = api.tenants.branch(&tenant, from).await?;
        let found = api.find(&from, &moment).await?;
        let beginning = moment.beginning(&from.name, found.point);
        let tenant = from.timeline.tenant;
        let branch = api.tenants.begin_branch(tenant, &create.name, beginning).await?;
        let extent = Extent::of_new(&found.timeline, found.point).await?;
        Ok(found.with_rounding(show_branch(&branch, &extent)))
    });
    Ok((StatusCode::CREATED, Json(created.await?)))
}

pub(super) async fn restore(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
    Body(restore): Body<RestoreBranch>,
) -> Result<Json<Value>, ApiError> {
    let RestoreBranch { lsn, timestamp, snapshot, keep_as } = restore;
    let moment = MomentFields { lsn, timestamp, snapshot }.moment()?;
    if let Some(name) = &keep_as {
        check_name("branch", name)?;
    }
    let restored = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        let found = api.find(&branch, &moment).await?;
        let (tenant, name) = (branch.timeline.tenant, &*branch.name);
        let beginning = moment.beginning(name, found.point);
        let restored = api.tenants.restore_to(tenant, name, beginning, keep_as.as_deref());
        let (branch, kept) = restored.await?;
        let new = Extent::of_new(&found.timeline, found.point).await?;
        let old = api.tenants.timeline_as_stored(kept.timeline).await?;
        let old = Extent::of(&old).await?;
        Ok(json!({
            "branch": found.with_rounding(show_branch(&branch, &new)),
            "kept": show_branch(&kept, &old),
        }))
    });
    Ok(Json(restored.await?))
}

/// Gives up what the branch was before everything that was acknowledged until now.
pub(super) async fn forget_past(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let forgotten = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        let found = api.find(&branch, &Moment::Head).await?;
        api.tenants.forget_past(&found.timeline).await?;
        Ok(show_branch(&branch, &Extent::of(&found.timeline).await?))
    });
    Ok(Json(forgotten.await?))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let deleted = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        Ok(api.tenants.delete_branch(branch.timeline.tenant, &branch.name).await?)
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

/// How far a branch's timeline is, and how large.
struct Extent {
    last_record_lsn: Lsn,
    oldest_lsn: Option<Lsn>,
    logical_size_bytes: u64,
    stored_bytes: u64,
}

impl Extent {
    async fn of(timeline: &Timeline) -> Result<Extent, ApiError> {
        let last_record_lsn = timeline.last_record_lsn();
        Ok(Extent {
            last_record_lsn,
            oldest_lsn: timeline.retained().cutoff.map(|cutoff| cutoff.point.lsn),
            logical_size_bytes: timeline.logical_size(last_record_lsn).await?,
            stored_bytes: timeline.stored_bytes(),
        })
    }

    /// A new branch is what its parent was at the branch point: it is not loaded to be described,
    /// so that it is nothing but an entry in the tenant's manifest until somebody uses it.
    async fn of_new(parent: &Timeline, point: BranchPoint) -> Result<Extent, ApiError> {
        Ok(Extent {
            last_record_lsn: point.lsn,
            oldest_lsn: None,
            logical_size_bytes: parent.logical_size(point.lsn).await?,
            stored_bytes: 0,
        })
    }
}

/// A branch as answers show it.
fn show_branch(branch: &Branch, extent: &Extent) -> Value {
    let ancestor = branch.ancestor.as_ref().map(|ancestor| {
        json!({
            "tenant_id": ancestor.timeline.tenant,
            "timeline_id": ancestor.timeline.timeline,
            "name": ancestor.name,
        })
    });
    json!({
        "name": branch.name,
        "tenant_id": branch.timeline.tenant,
        "timeline_id": branch.timeline.timeline,
        "ancestor": ancestor,
        "branch_point": branch.origin.point.lsn,
        "oldest_lsn": extent.oldest_lsn,
        "created_at": timestamp::format(branch.created_at),
        "last_record_lsn": extent.last_record_lsn,
        "logical_size_bytes": extent.logical_size_bytes,
        "stored_bytes": extent.stored_bytes,
    })
}
