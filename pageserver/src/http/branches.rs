//! Branches: create, restore, list, delete.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
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
use crate::tenants::{Branch, MAIN_BRANCH};

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
    keep_as: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let tenant = api.tenants.tenant(&tenant).await?;
    let mut branches = Vec::with_capacity(tenant.branches.len());
    for branch in &tenant.branches {
        branches.push(api.describe(branch, None).await?);
    }
    Ok(Json(json!({ "branches": branches })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let branch = api.tenants.branch(&tenant, &branch).await?;
    api.describe(&branch, None).await.map(Json)
}

pub(super) async fn create(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Body(create): Body<CreateBranch>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_name("branch", &create.name)?;
    let moment = create.at.as_ref().map_or(Ok(Moment::Head), MomentFields::moment)?;
    let created = to_the_end(async move {
        let from = create.from.as_deref().unwrap_or(MAIN_BRANCH);
        let from = api.tenants.branch(&tenant, from).await?;
        let found = api.find(&from, moment).await?;
        let tenant = from.timeline.tenant;
        let branch =
            api.tenants.create_branch(tenant, &create.name, &from.name, found.point).await?;
        api.describe(&branch, found.rounded_from).await
    });
    Ok((StatusCode::CREATED, Json(created.await?)))
}

pub(super) async fn restore(
    State(api): State<Api>,
    Path((tenant, branch)): Path<(String, String)>,
    Body(restore): Body<RestoreBranch>,
) -> Result<Json<Value>, ApiError> {
    let RestoreBranch { lsn, timestamp, keep_as } = restore;
    let moment = MomentFields { lsn, timestamp }.moment()?;
    if let Some(name) = &keep_as {
        check_name("branch", name)?;
    }
    let restored = to_the_end(async move {
        let branch = api.tenants.branch(&tenant, &branch).await?;
        let found = api.find(&branch, moment).await?;
        let tenant = branch.timeline.tenant;
        let restored = api.tenants.restore(tenant, &branch.name, found.point, keep_as.as_deref());
        let (branch, kept) = restored.await?;
        Ok(json!({
            "branch": api.describe(&branch, found.rounded_from).await?,
            "kept": api.describe(&kept, None).await?,
        }))
    });
    Ok(Json(restored.await?))
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

impl Api {
    /// A branch as answers show it.
    async fn describe(
        &self,
        branch: &Branch,
        rounded_from: Option<Lsn>,
    ) -> Result<Value, ApiError> {
        let timeline = self.tenants.timeline(branch.timeline).await?;
        let last_record_lsn = timeline.last_record_lsn();
        let ancestor = branch.ancestor.as_ref().map(|ancestor| {
            json!({
                "tenant_id": ancestor.timeline.tenant,
                "timeline_id": ancestor.timeline.timeline,
                "name": ancestor.name,
            })
        });
        let mut shown = json!({
            "name": branch.name,
            "tenant_id": branch.timeline.tenant,
            "timeline_id": branch.timeline.timeline,
            "ancestor": ancestor,
            "branch_point": branch.origin.point.lsn,
            "oldest_lsn": timeline.retained().cutoff.map(|cutoff| cutoff.point.lsn),
            "created_at": timestamp::format(branch.created_at),
            "last_record_lsn": last_record_lsn,
            "logical_size_bytes": timeline.logical_size(last_record_lsn).await?,
            "stored_bytes": timeline.stored_bytes(),
        });
        if let Some(lsn) = rounded_from {
            shown["rounded_from"] = json!(lsn);
        }
        Ok(shown)
    }
}
