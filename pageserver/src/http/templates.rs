//! Templates: import, publish, list, delete.

use std::{path::PathBuf, sync::atomic::Ordering};

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
use crate::{
    template::{self, publish::publish},
    tenants::{MAIN_BRANCH, Tenant},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTemplate {
    name: String,
    pgdata: Option<PathBuf>,
    from: Option<Source>,
}

/// What is published: a branch's head, where nothing else is said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    tenant: String,
    branch: Option<String>,
    at: Option<MomentFields>,
}

pub(super) async fn list(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let mut templates = Vec::new();
    for template in api.tenants.templates().await? {
        templates.push(api.describe_template(&template).await?);
    }
    Ok(Json(json!({ "templates": templates })))
}

pub(super) async fn show(
    State(api): State<Api>,
    Path(template): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if let Some(progress) = api.publishing.of(&template) {
        return Ok(Json(json!({
            "name": template,
            "logical_size_bytes": progress.logical_bytes.load(Ordering::Relaxed),
            "copied_bytes": progress.done_bytes.load(Ordering::Relaxed),
        })));
    }
    let template = api.tenants.template(&template).await?;
    Ok(Json(api.describe_template(&template).await?))
}

pub(super) async fn create(
    State(api): State<Api>,
    Body(new): Body<NewTemplate>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let NewTemplate { name, pgdata, from } = new;
    check_name("template", &name)?;
    let made = to_the_end(async move {
        let template = match (pgdata, from) {
            (Some(pgdata), None) if pgdata.is_absolute() => {
                template::import(&api.tenants, &name, &pgdata).await?
            }
            (Some(_), None) => {
                return Err(ApiError::bad_request("pgdata must be an absolute path"));
            }
            (None, Some(source)) => api.publish(&name, source).await?,
            _ => return Err(ApiError::bad_request("one of pgdata and from was expected")),
        };
        api.describe_template(&template).await
    });
    Ok((StatusCode::CREATED, Json(made.await?)))
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
    async fn publish(&self, name: &str, source: Source) -> Result<Tenant, ApiError> {
        let moment = source.at.map_or(Ok(Moment::Head), MomentFields::moment)?;
        let branch = source.branch.as_deref().unwrap_or(MAIN_BRANCH);
        let branch = self.tenants.branch(&source.tenant, branch).await?;
        let found = self.find(&branch, &moment).await?;
        let from = self.tenants.template_source(branch.timeline.tenant, found.point).await?;
        let (tenants, publishing) = (&self.tenants, &self.publishing);
        Ok(publish(tenants, publishing, name, &found.timeline, from).await?)
    }

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
