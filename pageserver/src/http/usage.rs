//! What tenants take and give.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, error::ApiError, request::Body};
use crate::tenants::TenantUsage;

/// Tenants of a page where nothing is said, and the most there may be.
const PAGE: usize = 1000;
const PAGE_MAX: usize = 10_000;
/// The most tenants that are asked for by name: their names fit a body.
const SOME_MAX: usize = 800;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
    /// Those alone that no other pageserver serves.
    #[serde(default)]
    served: bool,
    /// Of these, those alone that may have changed since then.
    since: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Some {
    tenants: Vec<String>,
    /// What is in memory is measured.
    #[serde(default)]
    measure: bool,
}

pub(super) async fn list(
    State(api): State<Api>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(Page { after, limit, served, since }) =
        page.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        let refused = format!("a page is of 1 to {PAGE_MAX} tenants, not of {limit}");
        return Err(ApiError::bad_request(refused));
    }
    // What is written from now on is written after that.
    let as_of = api.tenants.usage_moment();
    let (usage, next) = match (served, since) {
        (false, None) => api.tenants.usage(&after, limit).await?,
        (true, None) => api.tenants.usage_of_served(&after, limit).await?,
        (true, Some(since)) => changed(&api, &since, &after, limit).await?,
        (false, Some(_)) => {
            let refused = "what changed is known of those alone that are served here: served=true";
            return Err(ApiError::bad_request(refused));
        }
    };
    let tenants: Vec<Value> = usage.iter().map(show_tenant).collect();
    Ok(Json(json!({ "tenants": tenants, "next": next, "as_of": as_of })))
}

async fn changed(
    api: &Api,
    since: &str,
    after: &str,
    limit: usize,
) -> Result<(Vec<TenantUsage>, Option<String>), ApiError> {
    let after = match after {
        "" => None,
        id => Some(id.parse().map_err(|_| ApiError::bad_request("here, after is an id"))?),
    };
    let page = api.tenants.usage_since(since, after, limit).await;
    let (usage, next) =
        page.ok_or_else(|| ApiError::gone("what changed since is not known: ask for all"))?;
    Ok((usage, next.map(|id| id.to_string())))
}

/// Of these tenants, those that no other pageserver serves.
pub(super) async fn some(
    State(api): State<Api>,
    Body(Some { tenants, measure }): Body<Some>,
) -> Result<Json<Value>, ApiError> {
    if tenants.len() > SOME_MAX {
        let refused = format!("at most {SOME_MAX} tenants are asked for, not {}", tenants.len());
        return Err(ApiError::bad_request(refused));
    }
    let usage = api.tenants.usage_of_some(tenants, measure).await?;
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
