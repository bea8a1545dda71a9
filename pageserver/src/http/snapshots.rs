//! Snapshots: create, list, show, delete.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    error::ApiError,
    moment::{Moment, MomentFields},
    request::{Body, check_name, to_the_end},
    timestamp,
};
use crate::{error::Error, tenants::Snapshot};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateSnapshot {
    name: String,
    at: Option<MomentFields>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let branch = api.tenants.branch(&tenant, &branch).await?;
    let tenant = branch.timeline.tenant;
    let snapshots = api.tenants.snapshots(tenant, &branch.name).await?;
    let snapshots: Vec<Value> = snapshots.iter().map(show_snapshot).collect();
    Ok(Json(json!({ "snapshots": snapshots })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path((tenant, branch, name)): Path<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let branch = api.tenants.branch(&tenant, &branch).await?;
    let snapshots = api.tenants.snapshots(branch.timeline.tenant, &branch.name).await?;
    let found = snapshots.iter().find(|snapshot| snapshot.name == name);
    let missing = || Error::NotFound(format!("snapshot {name:?} of branch {:?}", branch.name));
    Ok(Json(show_snapshot(found.ok_or_else(missing)?)))
}

pub(super) async fn create(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
    Body(create): Body<CreateSnapshot>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_name("snapshot", &create.name)?;
    let moment = create.at.map_or(Ok(Moment::Head), MomentFields::moment)?;
    let created = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        let found = api.find(&branch, &moment).await?;
        if found.timeline.id() != branch.timeline {
            let message = format!("the snapshot in at is not of branch {:?}", branch.name);
            return Err(ApiError::bad_request(message));
        }
        let of = moment.beginning(&branch.name, found.point);
        let made = api.tenants.create_snapshot(branch.timeline.tenant, &create.name, of).await?;
        Ok(found.with_rounding(show_snapshot(&made)))
    });
    Ok((StatusCode::CREATED, Json(created.await?)))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((tenant, branch, name)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let deleted = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        let tenant = branch.timeline.tenant;
        Ok(api.tenants.delete_snapshot(tenant, &branch.name, &name).await?)
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

/// A snapshot as answers show it.
fn show_snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "name": snapshot.name,
        "branch": snapshot.branch,
        "tenant_id": snapshot.timeline.tenant,
        "timeline_id": snapshot.timeline.timeline,
        "lsn": snapshot.point.lsn,
        "created_at": timestamp::format(snapshot.created_at),
    })
}
