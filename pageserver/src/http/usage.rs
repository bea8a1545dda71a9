//! What tenants take and give.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::tenants::TenantUsage;

/// Tenants of a page where nothing is said, and the most there may be.
const PAGE: usize = 1000;
const PAGE_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Page { after, limit }) =
        page.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        let refused = format!("a page is of 1 to {PAGE_MAX} tenants, not of {limit}");
        return Err(ApiError::bad_request(refused));
    }
    let usage = api.tenants.usage(&after, limit).await?;
    let tenants: Vec<Value> = usage.iter().map(show_tenant).collect();
    Ok(Json(json!({ "tenants": tenants })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(tenant): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(show_tenant(&api.tenants.usage_of(&tenant).await?)))
}

fn show_tenant(tenant: &TenantUsage) -> Value {
    let branches = tenant.branches.iter().map(|branch| {
        let mut shown = json!(branch.usage);
        shown["name"] = json!(branch.name);
        shown["timeline_id"] = json!(branch.timeline);
        shown
    });
    json!({
        "id": tenant.id,
        "name": tenant.name,
        "total": tenant.total(),
        "deleted_branches": {
            "wal_written_bytes": tenant.deleted_branches.wal_written_bytes,
            "pages_read": tenant.deleted_branches.given.pages_read,
            "bytes_sent": tenant.deleted_branches.given.bytes_sent,
        },
        "branches": branches.collect::<Vec<Value>>(),
    })
}
