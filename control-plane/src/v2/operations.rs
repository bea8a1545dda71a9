//! Operations: shown as they are.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    context::Context,
    error::{ApiError, GeneralError},
    page::{Cursor, page_limit},
    request::{Path, Query},
    time,
};
use crate::catalog::{operations, projects};

/// An operation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Operation {
    /// A UUID.
    pub id: String,
    /// Its project.
    pub project_id: String,
    /// Its branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_id: Option<String>,
    /// Its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<String>,
    /// `create_timeline`, `create_branch`, `delete_timeline`, `start_compute`, `suspend_compute`,
    /// `apply_config` or `publish_template`.
    pub action: String,
    /// `scheduling`, `running`, `finished`, `failed` or `skipped`.
    pub status: String,
    /// Why it failed; of a `suspend_compute`, which quota it is because of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often it failed.
    pub failures_count: u32,
    /// When it was asked for.
    pub created_at: String,
    /// When its status last changed.
    pub updated_at: String,
    /// From the one to the other.
    pub total_duration_ms: i64,
}

impl From<operations::Operation> for Operation {
    fn from(operation: operations::Operation) -> Operation {
        Operation {
            failures_count: u32::from(operation.status == operations::Status::Failed.name()),
            id: operation.id,
            project_id: operation.project,
            branch_id: operation.branch,
            endpoint_id: operation.endpoint,
            action: operation.action,
            status: operation.status,
            error: operation.error,
            created_at: time::format(operation.created_at),
            updated_at: time::format(operation.updated_at),
            total_duration_ms: (operation.updated_at - operation.created_at) / 1000,
        }
    }
}

/// One operation.
#[derive(Serialize, ToSchema)]
pub struct OperationResponse {
    operation: Operation,
}

/// Operations, the newest first.
#[derive(Serialize, ToSchema)]
pub struct OperationsPage {
    operations: Vec<Operation>,
    pagination: Cursor,
}

/// Which of a project's operations.
#[derive(Deserialize, IntoParams)]
pub struct OperationsQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// At most so many: 1 to 1000, 100 where nothing is said.
    limit: Option<u32>,
}

/// List a project's operations.
#[utoipa::path(get, path = "/projects/{project_id}/operations", tag = "operations",
    params(("project_id" = String, Path), OperationsQuery),
    responses((status = 200, body = OperationsPage), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    Query(query): Query<OperationsQuery>,
) -> Result<Json<OperationsPage>, ApiError> {
    let limit = page_limit(query.limit)?;
    let before =
        match query.cursor.as_deref() {
            None | Some("") => None,
            Some(cursor) => Some(cursor.parse().map_err(|_| {
                ApiError::invalid(format!("{cursor:?} is not a cursor of this list"))
            })?),
        };
    let listed = context.catalog.read(move |catalog| {
        projects::get(catalog, &project)?;
        operations::list(catalog, &project, before, limit)
    });
    let listed = listed.await?;
    let cursor = listed.last().map(|last| last.number.to_string()).unwrap_or_default();
    let operations = listed.into_iter().map(Operation::from).collect();
    Ok(Json(OperationsPage { operations, pagination: Cursor { cursor } }))
}

/// Show one operation.
#[utoipa::path(get, path = "/projects/{project_id}/operations/{operation_id}", tag = "operations",
    params(("project_id" = String, Path), ("operation_id" = String, Path)),
    responses((status = 200, body = OperationResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<OperationResponse>, ApiError> {
    let read = context.catalog.read(move |catalog| operations::get(catalog, &project, &id));
    Ok(Json(OperationResponse { operation: read.await?.into() }))
}
