//! Tenants: create, list, change, delete.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use protocol::TimelineId;
use serde::Deserialize;
use serde_json::{Value, json};
use wal_format::Lsn;

use super::{
    Api,
    error::ApiError,
    request::{Body, check_name, to_the_end},
    timestamp,
};
use crate::{
    tenants::{LiveTimeline, Tenant},
    timeline::Window,
};

/// The template of a tenant that names none.
const DEFAULT_TEMPLATE: &str = "default";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTenant {
    name: String,
    template: Option<String>,
    #[serde(default)]
    history: Window,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeTenant {
    history: Window,
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let tenants = api.tenants.list().await?;
    let tenants: Vec<Value> = tenants.iter().map(describe).collect();
    Ok(Json(json!({ "tenants": tenants })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(describe(&api.tenants.tenant(&tenant).await?)))
}

pub(super) async fn create(
    State(api): State<Api>,
    Body(create): Body<CreateTenant>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_name("tenant", &create.name)?;
    let created = to_the_end(async move {
        let template = create.template.as_deref().unwrap_or(DEFAULT_TEMPLATE);
        Ok(api.tenants.create_tenant_with(&create.name, template, create.history).await?)
    });
    Ok((StatusCode::CREATED, Json(describe(&created.await?))))
}

pub(super) async fn change(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Body(change): Body<ChangeTenant>,
) -> Result<Json<Value>, ApiError> {
    let changed = to_the_end(async move {
        let tenant = api.tenants.tenant(&tenant).await?;
        let id = tenant.id.to_string();
        api.tenants.set_history(tenant.id, change.history).await?;
        Ok(api.tenants.tenant(&id).await?)
    });
    Ok(Json(describe(&changed.await?)))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<StatusCode, ApiError> {
    let deleted = to_the_end(async move {
        let tenant = api.tenants.tenant(&tenant).await?;
        Ok(api.tenants.delete_tenant(tenant.id).await?)
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TakeTenant {
    #[serde(default)]
    timelines: Vec<TakenTimeline>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakenTimeline {
    timeline_id: TimelineId,
    last_record_lsn: Lsn,
}

/// Serves the tenant from now on.
pub(super) async fn take(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Body(take): Body<TakeTenant>,
) -> Result<Json<Value>, ApiError> {
    let taken = to_the_end(async move {
        let tenant = api.tenants.tenant(&tenant).await?;
        let live: Vec<LiveTimeline> = take
            .timelines
            .iter()
            .map(|taken| LiveTimeline {
                timeline: taken.timeline_id,
                last_record_lsn: taken.last_record_lsn,
            })
            .collect();
        api.tenants.take(tenant.id, &live).await?;
        Ok(api.tenants.tenant(&tenant.id.to_string()).await?)
    });
    Ok(Json(describe(&taken.await?)))
}

/// Looks whether the tenant is served here still.
pub(super) async fn look(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let looked = to_the_end(async move {
        let tenant = api.tenants.tenant(&tenant).await?;
        api.tenants.look(tenant.id).await?;
        Ok(api.tenants.tenant(&tenant.id.to_string()).await?)
    });
    Ok(Json(describe(&looked.await?)))
}

/// A tenant as answers show it.
fn describe(tenant: &Tenant) -> Value {
    let branches = tenant
        .branches
        .iter()
        .map(|branch| json!({ "name": branch.name, "timeline_id": branch.timeline.timeline }));
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "created_at": timestamp::format(tenant.created_at),
        "history": tenant.history,
        "pageserver": tenant.served_by,
        "branches": branches.collect::<Vec<Value>>(),
    })
}
