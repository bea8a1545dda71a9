//! Projects: created by one durable write, listed, changed, deleted and recovered.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    branches::view_of_new,
    connection::details,
    context::{Context, finish, operation},
    databases::Database,
    endpoints::{self as endpoint_routes, Endpoint},
    error::{ApiError, GeneralError},
    names::{
        check_database, check_history, check_limits, check_name, check_pg_version, check_role,
        check_settings, check_suspend_timeout,
    },
    page::{Cursor, page_limit},
    project_views::{
        DELETED_KEPT, ProjectCreated, ProjectResponse, ProjectUpdated, ProjectsPage, Shown,
        list_item, view,
    },
    quotas::{check_quota, merge_quota},
    request::{Body, Path, Query, Retried},
    roles::Role,
    templates as template_routes,
    time::now,
};
use crate::{
    Region, RegionId,
    catalog::{
        self, branches, databases, endpoints, ids,
        operations::{self, Action, Status},
        projects::{self, Listed, Project},
        retries,
        roles::{self, Change},
        templates, timelines,
    },
};

/// How much history is kept where nothing is said: a week.
const HISTORY_SECONDS_DEFAULT: u64 = 7 * 24 * 3600;
/// What the first role and database are called: as in the default template.
const FIRST_NAME: &str = "app";

/// `POST /projects`
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct CreateProject {
    project: NewProject,
}

/// A project to be made. Whatever is not said has a default.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct NewProject {
    name: Option<String>,
    pg_version: Option<u32>,
    region_id: Option<String>,
    /// The template that it begins as.
    template: Option<String>,
    branch: NewFirstBranch,
    settings: Option<Value>,
    default_endpoint_settings: Option<Value>,
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
    history_retention_seconds: Option<u64>,
}

/// What a project's first branch has.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct NewFirstBranch {
    name: Option<String>,
    role_name: Option<String>,
    database_name: Option<String>,
}

/// `PATCH /projects/{project_id}`
#[derive(Deserialize, ToSchema)]
pub struct UpdateProject {
    project: ProjectChange,
}

/// What of a project is to be changed.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct ProjectChange {
    name: Option<String>,
    settings: Option<Value>,
    default_endpoint_settings: Option<Value>,
    history_retention_seconds: Option<u64>,
}

/// Which projects.
#[derive(Deserialize, IntoParams)]
pub struct ProjectsQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// At most so many: 1 to 1000, 100 where nothing is said.
    limit: Option<u32>,
    /// Those whose name or id has this in it.
    search: Option<String>,
    /// The deleted ones that can be recovered, instead of the others.
    #[serde(default)]
    recoverable: bool,
}

/// All rows of a new project.
struct Rows {
    project: Project,
    branch: branches::Branch,
    endpoint: endpoints::Endpoint,
    role: roles::Role,
    database: String,
    operation: operations::New,
}

/// Create a project. It is there when this answers; its operation ends when the pageserver has it.
#[utoipa::path(post, path = "/projects", tag = "projects", request_body = CreateProject,
    responses((status = 201, body = ProjectCreated), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    retried: Retried<CreateProject>,
) -> Result<(StatusCode, Json<ProjectCreated>), ApiError> {
    let Retried { body: CreateProject { project: new }, key } = retried;
    let region = region(&context, &new)?;
    check(&context, &new, &region).await?;
    let created = finish(async move {
        let now = now();
        let rows = rows(&new, &region.id, now)?;
        let new_id = rows.project.id.clone();
        // Before it can be found: whoever finds it looks for it there.
        context.regions.place(&new_id, &region);
        let written = context.catalog.write(move |catalog| {
            let id = insert(catalog, rows, key, now)?;
            read_created(catalog, &id)
        });
        let written = written.await;
        if !written.as_ref().is_ok_and(|created| created.project.id == new_id) {
            context.regions.forget(&new_id);
        }
        let created = written?;
        region.work.notify_one();
        Ok(answer(&context, created))
    });
    created.await.map(|created| (StatusCode::CREATED, Json(created)))
}

/// The region that a new project is to be in.
fn region(context: &Context, new: &NewProject) -> Result<Arc<Region>, ApiError> {
    let Some(id) = &new.region_id else { return Ok(context.regions.default().clone()) };
    context.regions.named(id).cloned().map_err(ApiError::refused)
}

async fn check(context: &Context, new: &NewProject, region: &Arc<Region>) -> Result<(), ApiError> {
    check_pg_version(new.pg_version)?;
    if let Some(name) = &new.name {
        check_name("project", name)?;
    }
    if let Some(seconds) = new.history_retention_seconds {
        check_history(seconds)?;
    }
    if let Some(role) = &new.branch.role_name {
        check_role(role)?;
    }
    if let Some(database) = &new.branch.database_name {
        check_database(database)?;
    }
    if let Some(name) = &new.branch.name {
        check_name("branch", name)?;
    }
    check_object("settings", new.settings.as_ref())?;
    check_quota(new.settings.as_ref())?;
    check_endpoint_settings(new.default_endpoint_settings.as_ref())?;
    match &new.template {
        Some(template) if !region.storage.has_template(template).await? => {
            Err(ApiError::refused(template_routes::absent(context, template, region).await))
        }
        _ => Ok(()),
    }
}

fn check_object(kind: &str, value: Option<&Value>) -> Result<(), ApiError> {
    match value {
        Some(value) if !value.is_object() => {
            Err(ApiError::invalid(format!("{kind} are a JSON object")))
        }
        _ => Ok(()),
    }
}

fn check_endpoint_settings(settings: Option<&Value>) -> Result<(), ApiError> {
    let Some(settings) = settings else { return Ok(()) };
    check_settings(settings)?;
    let (min, max) = endpoint_routes::limits_of(settings);
    check_limits(min, max)?;
    check_suspend_timeout(endpoint_routes::suspend_timeout_of(settings))
}

fn rows(new: &NewProject, region: &RegionId, now: catalog::Time) -> Result<Rows, ApiError> {
    let random = &mut rand::rng();
    let id = ids::project(random);
    let branch_id = ids::first_branch(&id);
    let mut endpoint_settings = new.default_endpoint_settings.clone().unwrap_or(json!({}));
    for (name, limit) in [
        ("autoscaling_limit_min_cu", new.autoscaling_limit_min_cu),
        ("autoscaling_limit_max_cu", new.autoscaling_limit_max_cu),
    ] {
        if let Some(limit) = limit {
            endpoint_settings[name] = limit.into();
        }
    }
    check_endpoint_settings(Some(&endpoint_settings))?;
    let named = |name: &Option<String>| name.clone().unwrap_or_else(|| FIRST_NAME.to_owned());
    let (role, database) = (named(&new.branch.role_name), named(&new.branch.database_name));
    let endpoint = endpoint_routes::new_row(
        endpoints::Kind::ReadWrite,
        (&id, &branch_id),
        &endpoint_settings,
        now,
    );
    let (branch_of, endpoint_of) = (Some(branch_id.as_str()), Some(endpoint.id.as_str()));
    let (action, status) = (Action::CreateTimeline, Status::Scheduling);
    let operation = operation(&id, branch_of, endpoint_of, action, status);
    Ok(Rows {
        branch: branches::Branch {
            name: new.branch.name.clone().unwrap_or_else(|| timelines::FIRST.to_owned()),
            ..branches::Branch::new(&branch_id, &id, timelines::FIRST, now)
        },
        role: roles::Role::new(&branch_id, &role, Some(ids::secret(random)), now),
        project: Project {
            name: new.name.clone().unwrap_or_else(|| id.clone()),
            id,
            region: region.clone(),
            template: new.template.clone(),
            history_seconds: new.history_retention_seconds.unwrap_or(HISTORY_SECONDS_DEFAULT),
            settings: new.settings.clone().unwrap_or(json!({})),
            endpoint_settings,
            default_branch: branch_id,
            tenant: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
        },
        endpoint,
        database,
        operation,
    })
}

/// Writes a project's rows, or finds the project that the same request made before; its id.
fn insert(
    catalog: &rusqlite::Connection,
    rows: Rows,
    key: Option<(String, [u8; 32])>,
    now: catalog::Time,
) -> Result<String, catalog::Error> {
    let Rows { project, branch, endpoint, role, database, operation } = rows;
    if let Some((key, request)) = &key {
        if let Some(earlier) = retries::find(catalog, key, request)? {
            return Ok(earlier);
        }
        retries::keep(catalog, key, request, &project.id, now)?;
    }
    if let Some(template) = &project.template {
        templates::refuse_going(catalog, &project.region, template)?;
    }
    projects::insert(catalog, &project)?;
    let timeline = timelines::Timeline {
        project: project.id.clone(),
        name: timelines::FIRST.to_owned(),
        parent: None,
        moment: None,
    };
    timelines::insert(catalog, &timeline, timelines::State::Wanted)?;
    branches::insert(catalog, &branch)?;
    endpoints::insert(catalog, &endpoint)?;
    roles::put(catalog, &role)?;
    databases::insert(catalog, &branch.id, &database, &role.name, now)?;
    roles::wait(catalog, &branch.id, &Change::First { role: role.name, database })?;
    operations::insert(catalog, &operation, now)?;
    Ok(project.id)
}

/// A project with all that it was made with.
struct Created {
    shown: Shown,
    project: Project,
    branch: branches::Branch,
    endpoints: Vec<endpoints::Endpoint>,
    roles: Vec<(roles::Role, Option<String>)>,
    databases: Vec<databases::Database>,
    operations: Vec<operations::Operation>,
}

fn read_created(catalog: &rusqlite::Connection, id: &str) -> Result<Created, catalog::Error> {
    let project = projects::get(catalog, id)?;
    let branch = branches::get(catalog, id, &project.default_branch)?;
    Ok(Created {
        endpoints: endpoints::list(catalog, id)?,
        roles: roles::with_passwords(catalog, &branch.id)?,
        databases: databases::list(catalog, &branch.id)?,
        operations: operations::list(catalog, id, None, 1)?,
        shown: Shown::of(catalog, project.clone())?,
        project,
        branch,
    })
}

fn answer(context: &Context, created: Created) -> ProjectCreated {
    let Created { shown, project, branch, endpoints, roles, databases, operations } = created;
    let connect = |endpoint: &endpoints::Endpoint| {
        details(&context.connect_at, &endpoint.id, &roles, &databases)
    };
    ProjectCreated {
        connection_uris: endpoints.iter().filter_map(connect).collect(),
        branch: view_of_new(&branch, &project),
        endpoints: endpoints.iter().map(|row| Endpoint::view(context, row, &branch)).collect(),
        roles: roles.into_iter().map(|(role, password)| Role::with(role, password)).collect(),
        databases: databases.into_iter().map(Database::from).collect(),
        operations: operations.into_iter().map(Into::into).collect(),
        project: view(context, shown),
    }
}

/// List projects, in the order of their ids.
#[utoipa::path(get, path = "/projects", tag = "projects", params(ProjectsQuery),
    responses((status = 200, body = ProjectsPage), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Query(query): Query<ProjectsQuery>,
) -> Result<Json<ProjectsPage>, ApiError> {
    let listed = Listed {
        after: query.cursor,
        search: query.search,
        deleted: query.recoverable,
        limit: page_limit(query.limit)?,
    };
    let read = context.catalog.read(move |catalog| {
        let found = projects::list(catalog, &listed)?;
        let cursor = found.last().map(|last| last.id.clone()).unwrap_or_default();
        let shown = found.into_iter().map(|project| Shown::of(catalog, project));
        Ok((shown.collect::<Result<Vec<_>, _>>()?, cursor))
    });
    let (shown, cursor) = read.await?;
    let projects = shown.into_iter().map(|shown| list_item(&context, shown)).collect();
    Ok(Json(ProjectsPage { projects, pagination: Cursor { cursor } }))
}

/// List the projects that others share: there are none, every key sees all.
#[utoipa::path(get, path = "/projects/shared", tag = "projects",
    responses((status = 200, body = ProjectsPage), (status = "default", body = GeneralError)))]
pub(super) async fn shared() -> Json<ProjectsPage> {
    Json(ProjectsPage { projects: Vec::new(), pagination: Cursor { cursor: String::new() } })
}

/// Show a project.
#[utoipa::path(get, path = "/projects/{project_id}", tag = "projects",
    params(("project_id" = String, Path)),
    responses((status = 200, body = ProjectResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Result<Json<ProjectResponse>, ApiError> {
    let read =
        context.catalog.read(move |catalog| Shown::of(catalog, projects::get(catalog, &id)?));
    Ok(Json(ProjectResponse { project: view(&context, read.await?) }))
}

/// Change a project.
#[utoipa::path(patch, path = "/projects/{project_id}", tag = "projects",
    params(("project_id" = String, Path)), request_body = UpdateProject,
    responses((status = 200, body = ProjectUpdated), (status = "default", body = GeneralError)))]
pub(super) async fn update(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    Body(UpdateProject { project: change }): Body<UpdateProject>,
) -> Result<Json<ProjectUpdated>, ApiError> {
    if let Some(name) = &change.name {
        check_name("project", name)?;
    }
    check_object("settings", change.settings.as_ref())?;
    check_quota(change.settings.as_ref())?;
    check_endpoint_settings(change.default_endpoint_settings.as_ref())?;
    if let Some(seconds) = change.history_retention_seconds {
        check_history(seconds)?;
    }
    let updated = finish(async move {
        if let Some(seconds) = change.history_retention_seconds {
            // The pageserver first: what it gives up, it gives up for ever, so it must know.
            context.ensure_tenant(&id).await?;
            context.region(&id).storage.set_history(&id, seconds).await?;
        }
        let written = context.catalog.write(move |catalog| {
            let mut project = projects::get(catalog, &id)?;
            project.name = change.name.unwrap_or(project.name);
            project.history_seconds =
                change.history_retention_seconds.unwrap_or(project.history_seconds);
            let mut settings = change.settings;
            if let Some(settings) = &mut settings {
                merge_quota(&project.settings, settings);
            }
            merge(&mut project.settings, settings);
            merge(&mut project.endpoint_settings, change.default_endpoint_settings);
            project.updated_at = now();
            projects::update(catalog, &project)?;
            Shown::of(catalog, project)
        });
        let project = view(&context, written.await?);
        Ok(ProjectUpdated { project, operations: Vec::new() })
    });
    updated.await.map(Json)
}

/// Takes over what is said, and leaves the rest.
fn merge(settings: &mut Value, change: Option<Value>) {
    let (Some(settings), Some(Value::Object(change))) = (settings.as_object_mut(), change) else {
        return;
    };
    settings.extend(change);
}

/// Delete a project. It can be recovered for a week; then it is gone.
#[utoipa::path(delete, path = "/projects/{project_id}", tag = "projects",
    params(("project_id" = String, Path)),
    responses((status = 200, body = ProjectResponse), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Result<Json<ProjectResponse>, ApiError> {
    let deleted = finish(async move {
        let written = context.catalog.write(move |catalog| {
            let mut project = projects::get(catalog, &id)?;
            project.deleted_at = Some(now());
            projects::update(catalog, &project)?;
            Ok((Shown::of(catalog, project)?, branches::list(catalog, &id)?))
        });
        let (shown, branches) = written.await?;
        let project = shown.id().to_owned();
        for branch in branches {
            let _turn = context.turn(&branch.id).await;
            context.forget(&branch.project, &branch.timeline).await?;
        }
        context.wake_work(&project);
        Ok(ProjectResponse { project: view(&context, shown) })
    });
    deleted.await.map(Json)
}

/// Recover a deleted project.
#[utoipa::path(post, path = "/projects/{project_id}/recover", tag = "projects",
    params(("project_id" = String, Path)),
    responses((status = 200, body = ProjectResponse), (status = "default", body = GeneralError)))]
pub(super) async fn recover(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Result<Json<ProjectResponse>, ApiError> {
    let recovered = context.catalog.write(move |catalog| {
        let gone = || catalog::Error::NotFound(format!("there is no deleted project {id:?}"));
        let mut project = projects::find(catalog, &id)?.ok_or_else(gone)?;
        let deleted_at = project.deleted_at.ok_or_else(gone)?;
        if deleted_at + DELETED_KEPT <= now() {
            return Err(gone());
        }
        project.deleted_at = None;
        projects::update(catalog, &project)?;
        Shown::of(catalog, project)
    });
    let shown = recovered.await?;
    context.wake_work(shown.id());
    Ok(Json(ProjectResponse { project: view(&context, shown) }))
}
