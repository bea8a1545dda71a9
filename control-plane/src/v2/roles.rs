//! Roles of a branch, and their passwords.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    connection::unknown_password,
    context::{Context, finish},
    error::{ApiError, GeneralError},
    names::check_role,
    operations::Operation,
    request::{Body, Path},
    time::{self, now},
};
use crate::catalog::{
    self, branches, databases, ids,
    roles::{self, Change},
};

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub struct Role {
    /// Its branch.
    pub branch_id: String,
    /// Its name.
    pub name: String,
    /// Its password; only where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Always false.
    pub protected: bool,
    /// `password` or `no_login`.
    pub authentication_method: String,
    /// When it was made, or first seen.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// `POST …/roles`
#[derive(Deserialize, ToSchema)]
pub struct CreateRole {
    role: NewRole,
}

/// A role to be made.
#[derive(Deserialize, ToSchema)]
pub struct NewRole {
    name: String,
    /// It may not log in.
    #[serde(default)]
    no_login: bool,
}

/// A role, and what was done.
#[derive(Serialize, ToSchema)]
pub struct RoleOperations {
    role: Role,
    operations: Vec<Operation>,
}

/// A role.
#[derive(Serialize, ToSchema)]
pub struct RoleResponse {
    role: Role,
}

/// Roles.
#[derive(Serialize, ToSchema)]
pub struct RolesResponse {
    roles: Vec<Role>,
}

/// A password.
#[derive(Serialize, ToSchema)]
pub struct RolePassword {
    password: String,
}

impl From<roles::Role> for Role {
    fn from(role: roles::Role) -> Role {
        Role {
            branch_id: role.branch,
            name: role.name,
            password: None,
            protected: false,
            authentication_method: if role.login { "password" } else { "no_login" }.to_owned(),
            created_at: time::format(role.created_at),
            updated_at: time::format(role.updated_at),
        }
    }
}

impl Role {
    /// A role with its password.
    pub(super) fn with(role: roles::Role, password: Option<String>) -> Role {
        Role { password, ..Role::from(role) }
    }
}

/// Create a role. Its password is made here.
#[utoipa::path(post, path = "/projects/{project_id}/branches/{branch_id}/roles", tag = "roles",
    params(("project_id" = String, Path), ("branch_id" = String, Path)), request_body = CreateRole,
    responses((status = 201, body = RoleOperations), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
    Body(CreateRole { role: NewRole { name, no_login } }): Body<CreateRole>,
) -> Result<(StatusCode, Json<RoleOperations>), ApiError> {
    check_role(&name)?;
    let password = (!no_login).then(|| ids::secret(&mut rand::rng()));
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        if roles::find(catalog, &branch.id, &name)?.is_some() {
            return Err(catalog::Error::Exists(format!(
                "the branch has a role {name:?} already: choose another name"
            )));
        }
        let role = roles::Role::new(&branch.id, &name, password.clone(), now());
        roles::put(catalog, &role)?;
        Ok((Change::Role { name }, Role::with(role, password)))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (role, operation) = done.await?;
    let answer = RoleOperations { role, operations: vec![operation.into()] };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// List a branch's roles; of one that runs, those that were made by SQL too.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/roles", tag = "roles",
    params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = RolesResponse), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<RolesResponse>, ApiError> {
    context.look(project, branch.clone()).await?;
    let listed = context.catalog.read(move |catalog| roles::list(catalog, &branch)).await?;
    Ok(Json(RolesResponse { roles: listed.into_iter().map(Role::from).collect() }))
}

async fn find(
    context: &Context,
    project: String,
    branch: String,
    name: String,
) -> Result<(roles::Role, Option<String>), ApiError> {
    context.look(project, branch.clone()).await?;
    let read = context.catalog.read(move |catalog| {
        let role = roles::get(catalog, &branch, &name)?;
        let password = roles::password(catalog, &role)?;
        Ok((role, password))
    });
    Ok(read.await?)
}

/// Show a role.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/roles/{role_name}",
    tag = "roles", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("role_name" = String, Path)),
    responses((status = 200, body = RoleResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<RoleResponse>, ApiError> {
    let (role, _) = find(&context, project, branch, name).await?;
    Ok(Json(RoleResponse { role: role.into() }))
}

/// Reveal a role's password, if it was made here.
#[utoipa::path(get,
    path = "/projects/{project_id}/branches/{branch_id}/roles/{role_name}/reveal_password",
    tag = "roles", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("role_name" = String, Path)),
    responses((status = 200, body = RolePassword), (status = "default", body = GeneralError)))]
pub(super) async fn reveal_password(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<RolePassword>, ApiError> {
    let (role, password) = find(&context, project, branch, name).await?;
    let password = password.ok_or_else(|| unknown_password(&role.name))?;
    Ok(Json(RolePassword { password }))
}

/// Reveal a role's password, asked for as Python's client does.
#[utoipa::path(post,
    path = "/projects/{project_id}/branches/{branch_id}/roles/{role_name}/reveal_password",
    tag = "roles", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("role_name" = String, Path)),
    responses((status = 200, body = RolePassword), (status = "default", body = GeneralError)))]
pub(super) async fn post_reveal_password(
    context: State<Arc<Context>>,
    path: Path<(String, String, String)>,
) -> Result<Json<RolePassword>, ApiError> {
    reveal_password(context, path).await
}

/// Give a role a new password. The old one is refused from now on.
#[utoipa::path(post,
    path = "/projects/{project_id}/branches/{branch_id}/roles/{role_name}/reset_password",
    tag = "roles", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("role_name" = String, Path)),
    responses((status = 200, body = RoleOperations), (status = "default", body = GeneralError)))]
pub(super) async fn reset_password(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<RoleOperations>, ApiError> {
    let password = ids::secret(&mut rand::rng());
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        let mut role = roles::get(catalog, &branch.id, &name)?;
        if !role.login {
            return Err(catalog::Error::Refused(format!(
                "role {name:?} does not log in: it has no password"
            )));
        }
        role.password = Some(password.clone());
        role.updated_at = now();
        roles::put(catalog, &role)?;
        Ok((Change::Role { name }, Role::with(role, Some(password))))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (role, operation) = done.await?;
    Ok(Json(RoleOperations { role, operations: vec![operation.into()] }))
}

/// Delete a role. What it owned inside databases is the superuser's; databases of its own must be
/// given away or deleted first.
#[utoipa::path(delete, path = "/projects/{project_id}/branches/{branch_id}/roles/{role_name}",
    tag = "roles", params(("project_id" = String, Path), ("branch_id" = String, Path),
    ("role_name" = String, Path)),
    responses((status = 200, body = RoleOperations), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path((project, branch, name)): Path<(String, String, String)>,
) -> Result<Json<RoleOperations>, ApiError> {
    let change = move |catalog: &rusqlite::Connection, branch: &branches::Branch| {
        let role = roles::get(catalog, &branch.id, &name)?;
        let owned = databases::list(catalog, &branch.id)?;
        let mut owned = owned.iter().filter(|database| database.owner == name);
        if let Some(database) = owned.next() {
            return Err(catalog::Error::Refused(format!(
                "role {name:?} owns the database {:?}: delete that, or give it another owner, first",
                database.name
            )));
        }
        roles::remove(catalog, &branch.id, &name)?;
        Ok((Change::NoRole { name }, Role::from(role)))
    };
    let done = finish(async move { context.change(project, branch, change).await });
    let (role, operation) = done.await?;
    Ok(Json(RoleOperations { role, operations: vec![operation.into()] }))
}
