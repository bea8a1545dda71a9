//! Templates: import, list, delete.

use std::path::PathBuf;

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
use crate::{
    template,
    tenants::{MAIN_BRANCH, Tenant},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportTemplate {
    name: String,
    pgdata: PathBuf,
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let mut templates = Vec::new();
    for template in api.tenants.templates().await? {
        templates.push(api.describe_template(&template).await?);
    }
    Ok(Json(json!({ "templates": templates })))
}

pub(super) async fn import(
    State(api): State<Api>,
    Body(import): Body<ImportTemplate>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_name("template", &import.name)?;
    if !import.pgdata.is_absolute() {
        return Err(ApiError::bad_request("pgdata must be an absolute path"));
    }
    let imported = to_the_end(async move {
        let template = template::import(&api.tenants, &import.name, &import.pgdata).await?;
        api.describe_template(&template).await
    });
    Ok((StatusCode::CREATED, Json(imported.await?)))
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path(template): Path<String>,
) -> Result<StatusCode, ApiError> {
    let deleted = to_the_end(async move {
        let template = api.tenants.template(&template).await?;
        Ok(api.tenants.delete_template(template.id).await?)
    });
    deleted.await.map(|()| StatusCode::NO_CONTENT)
}

impl Api {
    /// A template as answers show it.
    async fn describe_template(&self, template: &Tenant) -> Result<Value, ApiError> {
        let branch = template.branch(MAIN_BRANCH)?;
        let timeline = self.tenants.timeline(branch.timeline).await?;
        let lsn = timeline.last_record_lsn();
        Ok(json!({
            "id": template.id,
            "name": template.name,
            "timeline_id": branch.timeline.timeline,
            "lsn": lsn,
            "created_at": timestamp::format(template.created_at),
            "logical_size_bytes": timeline.logical_size(lsn).await?,
            "stored_bytes": timeline.stored_bytes(),
        }))
    }
}
