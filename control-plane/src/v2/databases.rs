//! Databases of a branch.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    context::{Context, finish},
    error::{ApiError, GeneralError},
    names::check_database,
    operations::Operation,
    request::{Body, Path},
    time::{self, now},
};
use crate::catalog::{
    self, branches, databases,
    roles::{self, Change},
};

/// A database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Database {
    /// Its number.
    pub id: i64,
    /// Its branch.
    pub branch_id: String,
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner_name: String,
    /// When it was made, or first seen.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// `POST …/databases`
#[derive(Deserialize, ToSchema)]
pub struct CreateDatabase {
    database: NewDatabase,
}

/// A database to be made.
#[derive(Deserialize, ToSchema)]
pub struct NewDatabase {
    name: String,
    owner_name: String,
}

/// `PATCH …/databases/{database_name}`
#[derive(Deserialize, ToSchema)]
pub struct UpdateDatabase {
    database: DatabaseChange,
}

/// What of a database is to be changed: one of both at a time.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct DatabaseChange {
    name: Option<String>,
    owner_name: Option<String>,
}

/// A database, and what was done.
#[derive(Serialize, ToSchema)]
pub struct DatabaseOperations {
    database: Database,
    operations: Vec<Operation>,
}

/// A database.
#[derive(Serialize, ToSchema)]
pub struct DatabaseResponse {
    database: Database,
}

/// Databases.
#[derive(Serialize, ToSchema)]
pub struct DatabasesResponse {
    databases: Vec<Database>,
}

impl From<databases::Database> for Database {
    fn from(database: databases::Database) -> Database {
        Database {
            id: database.id,
            branch_id: database.branch,
            name: database.name,
            owner_name: database.owner,
            created_at: time::format(database.created_at),
            updated_at: time::format(database.updated_at),
        }
    }
}

/// Create a database.
#[utoipa::path(post, path = "/projects/{project_id}/branches/{branch_id}/databases",
    tag = "databases", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    request_body = CreateDatabase,
    responses((status = 201, body = DatabaseOperations), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
    Body(CreateDatabase { database: NewDatabase { name, owner_name: owner } }): Body<
        CreateDatabase,
    >,
) -> Result<(StatusCode, Json<DatabaseOperations>), ApiError> {
    check_database(&name)?;
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        refuse_unknown(catalog, branch, &owner)?;
        let made = databases::insert(catalog, &branch.id, &name, &owner, now())?;
        Ok((Change::Database { name, owner }, made.into()))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (database, operation) = done.await?;
    let answer = DatabaseOperations { database, operations: vec![operation.into()] };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn refuse_unknown(
    catalog: &rusqlite::Connection,
    branch: &branches::Branch,
    owner: &str,
) -> Result<(), catalog::Error> {
    match roles::find(catalog, &branch.id, owner)? {
        Some(_) => Ok(()),
        None => Err(catalog::Error::Refused(format!(
            "the branch has no role {owner:?}: create it before a database that it is to own"
        ))),
    }
}

/// List a branch's databases; of one that runs, those that were made by SQL too.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/databases",
    tag = "databases", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = DatabasesResponse), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<DatabasesResponse>, ApiError> {
    context.look(project, branch.clone()).await?;
    let listed = context.catalog.read(move |catalog| databases::list(catalog, &branch)).await?;
    Ok(Json(DatabasesResponse { databases: listed.into_iter().map(Database::from).collect() }))
}

/// Show a database.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/databases/{database_name}",
    tag = "databases", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("database_name" = String, Path)),
    responses((status = 200, body = DatabaseResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<DatabaseResponse>, ApiError> {
    context.look(project, branch.clone()).await?;
    let read = context.catalog.read(move |catalog| databases::get(catalog, &branch, &name));
    Ok(Json(DatabaseResponse { database: read.await?.into() }))
}

/// Rename a database, or give it another owner.
#[utoipa::path(patch,
    path = "/projects/{project_id}/branches/{branch_id}/databases/{database_name}",
    tag = "databases", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("database_name" = String, Path)), request_body = UpdateDatabase,
    responses((status = 200, body = DatabaseOperations), (status = "default", body = GeneralError)))]
pub(super) async fn update(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
    Body(UpdateDatabase { database: asked }): Body<UpdateDatabase>,
) -> Result<Json<DatabaseOperations>, ApiError> {
    let change = match (asked.name, asked.owner_name) {
        (Some(new), None) => {
            check_database(&new)?;
            (Some(new), None)
        }
        (None, Some(owner)) => (None, Some(owner)),
        _ => return Err(ApiError::invalid("say a new name or a new owner_name, one at a time")),
    };
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        let before = databases::get(catalog, &branch.id, &name)?;
        let (new, owner) = match change {
            (Some(new), _) => {
                if new != name && databases::find(catalog, &branch.id, &new)?.is_some() {
                    return Err(catalog::Error::Exists(format!(
                        "the branch has a database {new:?} already: choose another name"
                    )));
                }
                (new, before.owner.clone())
            }
            (None, owner) => {
                let owner = owner.unwrap_or_default();
                refuse_unknown(catalog, branch, &owner)?;
                (name.clone(), owner)
            }
        };
        databases::update(catalog, before.id, &new, &owner, now())?;
        let change = if new == name {
            Change::Database { name, owner }
        } else {
            Change::Rename { from: name, to: new.clone() }
        };
        Ok((change, databases::get(catalog, &branch.id, &new)?.into()))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (database, operation) = done.await?;
    Ok(Json(DatabaseOperations { database, operations: vec![operation.into()] }))
}

/// Delete a database. Who is connected to it is disconnected.
#[utoipa::path(delete,
    path = "/projects/{project_id}/branches/{branch_id}/databases/{database_name}",
    tag = "databases", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("database_name" = String, Path)),
    responses((status = 200, body = DatabaseOperations), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<DatabaseOperations>, ApiError> {
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        let database = databases::get(catalog, &branch.id, &name)?;
        databases::remove(catalog, database.id)?;
        Ok((Change::NoDatabase { name }, database.into()))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (database, operation) = done.await?;
    Ok(Json(DatabaseOperations { database, operations: vec![operation.into()] }))
}
