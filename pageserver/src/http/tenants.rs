//! Tenants: create, list, change, delete.

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
    request::{Body, check_name, to_the_end},
    timestamp,
};
use crate::{tenants::Tenant, timeline::Window};

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
        "branches": branches.collect::<Vec<Value>>(),
    })
}
