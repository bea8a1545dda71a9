//! Branches: created at any moment of another's history, listed, changed and deleted.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use rusqlite::Connection;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    branch_views::{
        Annotation, Branch, BranchCreated, BranchOperations, BranchResponse, BranchesCount,
        BranchesPage, logical_size, view,
    },
    connection::details,
    context::{Context, finish, new_timeline, operation},
    databases::Database,
    endpoints::{self as endpoint_routes, Endpoint, EndpointOptions},
    error::{ApiError, GeneralError},
    names::check_name,
    operations::Operation,
    page::{NextPage, page_limit},
    quotas::Standing,
    request::{Body, Path, Query, Retried},
    roles::Role,
    time::{self, now},
};
use crate::catalog::{
    self, Time, branch_consumption, branches,
    consumption::Used,
    databases, endpoints, ids,
    operations::{self, Action, Status},
    projects::{self, Project},
    rebuild::timeline_name,
    retries, roles,
    timelines::{self, Moment},
};

/// `POST /projects/{project_id}/branches`
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct CreateBranch {
    branch: NewBranch,
    endpoints: Vec<NewBranchEndpoint>,
    annotation_value: Option<Value>,
}

/// A branch to be made: of the default branch and its head, where nothing else is said.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct NewBranch {
    name: Option<String>,
    parent_id: Option<String>,
    parent_lsn: Option<String>,
    parent_timestamp: Option<String>,
    protected: bool,
    expires_at: Option<String>,
    init_source: Option<String>,
}

/// An endpoint to be made with a branch.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct NewBranchEndpoint {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    options: EndpointOptions,
}

/// `PATCH /projects/{project_id}/branches/{branch_id}`
#[derive(Deserialize, ToSchema)]
pub struct UpdateBranch {
    branch: BranchChange,
}

/// What of a branch is to be changed.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct BranchChange {
    name: Option<String>,
    protected: Option<bool>,
    /// `null`: never.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
}

/// A field that is there, be it `null`.
fn said<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(field).map(Some)
}

/// Which branches.
#[derive(Deserialize, IntoParams)]
pub struct BranchesQuery {
    /// Those whose name or id has this in it.
    search: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// At most so many: 1 to 1000, 100 where nothing is said.
    limit: Option<u32>,
}

/// A project's first branch, as it is before the pageserver has it.
pub(super) fn view_of_new(branch: &branches::Branch, project: &Project) -> Branch {
    view(branch, project, project.tenant.is_some(), Used::default())
}

/// A branch as it is now.
pub(super) fn view_now(
    catalog: &Connection,
    branch: &branches::Branch,
) -> Result<Branch, catalog::Error> {
    let project = projects::get(catalog, &branch.project)?;
    view_in(catalog, &project, &Standing::of(catalog, &project, now())?, branch)
}

/// A branch of this project as it is now.
fn view_in(
    catalog: &Connection,
    project: &Project,
    standing: &Standing,
    branch: &branches::Branch,
) -> Result<Branch, catalog::Error> {
    let is_made = timelines::is_made(catalog, &branch.project, &branch.timeline)?;
    let quota_exceeded = standing.refusal(&branch.timeline).map(|state| state.sentence());
    let used = branch_consumption::used_in(catalog, &branch.id, standing.month())?;
    Ok(Branch { quota_exceeded, ..view(branch, project, is_made.unwrap_or(false), used) })
}

/// Which moment a request means; the head where it says none.
pub(super) fn moment(
    lsn: Option<&str>,
    timestamp: Option<&str>,
) -> Result<Option<Moment>, ApiError> {
    match (lsn, timestamp) {
        (None, None) => Ok(None),
        (Some(lsn), None) => Moment::lsn(lsn).map(Some).map_err(ApiError::invalid),
        (None, Some(timestamp)) => {
            Moment::timestamp(timestamp).map(Some).map_err(ApiError::invalid)
        }
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("say an LSN or a timestamp, not both: they may not agree"))
        }
    }
}

/// A moment at which a branch is to delete itself.
fn expiry(text: Option<&str>) -> Result<Option<Time>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let at = time::parse(text)?;
    if at <= now() {
        return Err(ApiError::invalid(format!("{text} is over: expires_at lies in the future")));
    }
    Ok(Some(at))
}

/// Create a branch. It is there when this answers; it copies nothing.
#[utoipa::path(post, path = "/projects/{project_id}/branches", tag = "branches",
    params(("project_id" = String, Path)), request_body = CreateBranch,
    responses((status = 201, body = BranchCreated), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    retried: Retried<CreateBranch>,
) -> Result<(StatusCode, Json<BranchCreated>), ApiError> {
    let Retried { body: CreateBranch { branch: new, endpoints, annotation_value }, key } = retried;
    if let Some(name) = &new.name {
        check_name("branch", name)?;
    }
    let contents = contents(new.init_source.as_deref())?;
    for endpoint in &endpoints {
        endpoint_routes::kind(&endpoint.kind)?;
        endpoint_routes::check_options(&endpoint.options)?;
    }
    let moment = moment(new.parent_lsn.as_deref(), new.parent_timestamp.as_deref())?;
    let expires_at = expiry(new.expires_at.as_deref())?;
    let annotation = annotation_value.unwrap_or_else(|| json!({}));
    let created = finish(async move {
        context.ensure_tenant(&project).await?;
        let read_project = project.clone();
        let (asked_parent, retry) = (new.parent_id.clone(), key.clone());
        let read = context.catalog.read(move |catalog| {
            let found = projects::get(catalog, &read_project)?;
            let earlier = match &retry {
                Some((key, request)) => retries::find(catalog, key, request)?,
                None => None,
            };
            let parent = asked_parent.unwrap_or_else(|| found.default_branch.clone());
            let parent = branches::get(catalog, &read_project, &parent)?;
            if earlier.is_none() {
                branches::refuse_unmade(catalog, &parent)?;
            }
            Ok((found, parent, earlier))
        });
        let (found, parent, earlier) = read.await?;
        if let Some(earlier) = earlier {
            return created_answer(&context, project, earlier, Vec::new()).await;
        }
        let id = ids::branch(&mut rand::rng());
        let now = now();
        let branch = branches::Branch {
            name: new.name.clone().unwrap_or_else(|| id.clone()),
            parent: Some(parent.id.clone()),
            parent_timestamp: new.parent_timestamp.clone(),
            protected: new.protected,
            annotation,
            expires_at,
            ..branches::Branch::new(&id, &project, &timeline_name(&id, 0), now)
        };
        let endpoint = |asked: &NewBranchEndpoint| {
            let (kind, of) = (endpoint_routes::kind(&asked.kind)?, (&project[..], &branch.id[..]));
            let mut row = endpoint_routes::new_row(kind, of, &found.endpoint_settings, now);
            endpoint_routes::set_options(&mut row, &asked.options).map(|()| row)
        };
        let rows: Vec<_> = endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
        let from = Beginning { parent: &parent, moment, contents };
        let operation = make(&context, branch.clone(), from, rows, key).await?;
        created_answer(&context, project, branch.id, vec![operation]).await
    });
    created.await.map(|created| (StatusCode::CREATED, Json(created)))
}

/// What a branch begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Data,
    Schema,
}

fn contents(init_source: Option<&str>) -> Result<Contents, ApiError> {
    match init_source {
        None | Some("parent-data") => Ok(Contents::Data),
        Some("schema-only") => Ok(Contents::Schema),
        Some(other) => Err(ApiError::invalid(format!(
            "{other:?} is no init_source: ask for parent-data or schema-only"
        ))),
    }
}

/// Where a branch begins.
struct Beginning<'p> {
    parent: &'p branches::Branch,
    moment: Option<Moment>,
    contents: Contents,
}

/// Writes a branch down, has the pageserver make it, and writes that down. One that the pageserver
/// does not make is taken back.
async fn make(
    context: &Context,
    branch: branches::Branch,
    from: Beginning<'_>,
    endpoints: Vec<endpoints::Endpoint>,
    key: Option<(String, [u8; 32])>,
) -> Result<operations::Operation, ApiError> {
    let Beginning { parent, moment, contents } = from;
    let timeline = new_timeline(&branch.project, branch.timeline.clone(), &parent.timeline, moment);
    let endpoint_id = endpoints.first().map(|endpoint| endpoint.id.clone());
    let new = operation(
        &branch.project,
        Some(&branch.id),
        endpoint_id.as_deref(),
        Action::CreateBranch,
        Status::Running,
    );
    let (row, wanted, parent_id) = (branch.clone(), timeline.clone(), parent.id.clone());
    let written = context.catalog.write(move |catalog| {
        if let Some((key, request)) = &key {
            if retries::find(catalog, key, request)?.is_some() {
                return Err(catalog::Error::Exists(
                    "the same request is under way: try again later".to_owned(),
                ));
            }
            retries::keep(catalog, key, request, &row.id, row.created_at)?;
        }
        timelines::insert(catalog, &wanted, timelines::State::Wanted)?;
        branches::insert(catalog, &row)?;
        branches::copy_contents(catalog, &parent_id, &row.id)?;
        if contents == Contents::Schema {
            roles::wait(catalog, &row.id, &roles::Change::NoRows)?;
        }
        if wanted.moment.is_some() {
            roles::keep_verifiers(catalog, &row.id)?;
        }
        for endpoint in &endpoints {
            endpoints::insert(catalog, endpoint)?;
        }
        operations::insert(catalog, &new, now())
    });
    let operation = written.await?;
    complete(context, &timeline, &branch.id, &operation.id).await?;
    let (project, id) = (operation.project.clone(), operation.id.clone());
    Ok(context.catalog.read(move |catalog| operations::get(catalog, &project, &id)).await?)
}

/// Has the pageserver make a branch's timeline, and writes down how it ended.
pub(super) async fn complete(
    context: &Context,
    timeline: &timelines::Timeline,
    branch: &str,
    operation: &str,
) -> Result<(), ApiError> {
    let parent = timeline.parent.as_deref().unwrap_or(timelines::FIRST);
    let (project, name) = (timeline.project.clone(), timeline.name.clone());
    let moment = timeline.moment.as_ref();
    let region = context.region(&project);
    let made = region.storage.create_timeline(&project, &name, parent, moment).await;
    let (branch, operation) = (branch.to_owned(), operation.to_owned());
    match made {
        Ok(made) => {
            let written = context.catalog.write(move |catalog| {
                timelines::set_state(catalog, &project, &name, timelines::State::Made)?;
                let mut row = branches::get(catalog, &project, &branch)?;
                row.parent_lsn = Some(made.branch_point);
                branches::update(catalog, &row)?;
                operations::set_status(catalog, &operation, Status::Finished, None, now())
            });
            Ok(written.await?)
        }
        Err(error) => {
            let said = error.to_string();
            let taken_back = context.catalog.write(move |catalog| {
                // Whether the pageserver has it or not: doomed, it goes.
                let row = branches::get(catalog, &project, &branch)?;
                branches::remove(catalog, &row)?;
                retries::forget(catalog, &row.id)?;
                let failed = Status::Failed;
                operations::set_status(catalog, &operation, failed, Some(&said), now())
            });
            taken_back.await?;
            region.work.notify_one();
            Err(error.into())
        }
    }
}

async fn created_answer(
    context: &Context,
    project: String,
    branch: String,
    operations: Vec<operations::Operation>,
) -> Result<BranchCreated, ApiError> {
    let read = context.catalog.read(move |catalog| {
        let row = branches::get(catalog, &project, &branch)?;
        let with_passwords = roles::with_passwords(catalog, &row.id)?;
        let endpoints = endpoints::all_of_branch(catalog, &row.id)?;
        let databases = databases::list(catalog, &row.id)?;
        Ok((view_now(catalog, &row)?, row, with_passwords, endpoints, databases))
    });
    let (branch, row, roles, endpoints, databases) = read.await?;
    let connect = |endpoint: &endpoints::Endpoint| {
        details(&context.connect_at, &endpoint.id, &roles, &databases)
    };
    Ok(BranchCreated {
        connection_uris: endpoints.iter().filter_map(connect).collect(),
        endpoints: endpoints.iter().map(|it| Endpoint::view(context, it, &row)).collect(),
        roles: roles.into_iter().map(|(role, _)| Role::from(role)).collect(),
        databases: databases.into_iter().map(Database::from).collect(),
        operations: operations.into_iter().map(Operation::from).collect(),
        branch,
    })
}

/// List a project's branches, in the order of their making.
#[utoipa::path(get, path = "/projects/{project_id}/branches", tag = "branches",
    params(("project_id" = String, Path), BranchesQuery),
    responses((status = 200, body = BranchesPage), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    Query(query): Query<BranchesQuery>,
) -> Result<Json<BranchesPage>, ApiError> {
    let limit = page_limit(query.limit)?;
    let after = query.cursor.filter(|cursor| !cursor.is_empty());
    let read = context.catalog.read(move |catalog| {
        let found = projects::get(catalog, &project)?;
        let mut rows = matching(catalog, &project, query.search.as_deref())?;
        if let Some(after) = after {
            let place = rows.iter().position(|row| row.id == after);
            rows.drain(..place.map_or(0, |place| place + 1));
        }
        let is_last = rows.len() <= limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| !is_last).map(|last| last.id.clone());
        let standing = Standing::of(catalog, &found, now())?;
        let view = |row| view_in(catalog, &found, &standing, row);
        let branches = rows.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        Ok((rows, branches, next))
    });
    let (rows, branches, next) = read.await?;
    let written = rows.iter().filter(|row| !Annotation::is_empty(row));
    let annotations = written.map(|row| (row.id.clone(), Annotation::of(row))).collect();
    let pagination =
        NextPage { next, sort_by: "created_at".to_owned(), sort_order: "ASC".to_owned() };
    Ok(Json(BranchesPage { branches, annotations, pagination }))
}

fn matching(
    catalog: &Connection,
    project: &str,
    search: Option<&str>,
) -> Result<Vec<branches::Branch>, catalog::Error> {
    let mut rows = branches::list(catalog, project)?;
    if let Some(search) = search.map(str::to_lowercase) {
        rows.retain(|row| row.name.to_lowercase().contains(&search) || row.id.contains(&search));
    }
    Ok(rows)
}

/// Count a project's branches.
#[utoipa::path(get, path = "/projects/{project_id}/branches/count", tag = "branches",
    params(("project_id" = String, Path), BranchesQuery),
    responses((status = 200, body = BranchesCount), (status = "default", body = GeneralError)))]
pub(super) async fn count(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    Query(query): Query<BranchesQuery>,
) -> Result<Json<BranchesCount>, ApiError> {
    let read = context.catalog.read(move |catalog| {
        projects::get(catalog, &project)?;
        Ok(matching(catalog, &project, query.search.as_deref())?.len())
    });
    Ok(Json(BranchesCount { count: read.await? }))
}

/// Show a branch.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}", tag = "branches",
    params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = BranchResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<BranchResponse>, ApiError> {
    let read = context.catalog.read(move |catalog| {
        let row = branches::get(catalog, &project, &id)?;
        Ok((view_now(catalog, &row)?, row))
    });
    let (mut branch, row) = read.await?;
    if branch.current_state == "ready" {
        branch.logical_size = logical_size(&context, &row).await;
    }
    Ok(Json(BranchResponse { branch, annotation: Annotation::of(&row) }))
}

/// Rename a branch, protect it, or say when it deletes itself.
#[utoipa::path(patch, path = "/projects/{project_id}/branches/{branch_id}", tag = "branches",
    params(("project_id" = String, Path), ("branch_id" = String, Path)),
    request_body = UpdateBranch,
    responses((status = 200, body = BranchOperations), (status = "default", body = GeneralError)))]
pub(super) async fn update(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
    Body(UpdateBranch { branch: change }): Body<UpdateBranch>,
) -> Result<Json<BranchOperations>, ApiError> {
    if let Some(name) = &change.name {
        check_name("branch", name)?;
    }
    let expires_at = match &change.expires_at {
        None => None,
        Some(text) => Some(expiry(text.as_deref())?),
    };
    let written = context.catalog.write(move |catalog| {
        let found = projects::get(catalog, &project)?;
        let mut row = branches::get(catalog, &project, &id)?;
        row.name = change.name.unwrap_or(row.name);
        row.protected = change.protected.unwrap_or(row.protected);
        row.expires_at = expires_at.unwrap_or(row.expires_at);
        if row.expires_at.is_some() && (row.protected || found.default_branch == row.id) {
            return Err(catalog::Error::Refused(
                "neither a protected branch nor the default one can expire".to_owned(),
            ));
        }
        row.updated_at = now();
        branches::update(catalog, &row)?;
        view_now(catalog, &row)
    });
    Ok(Json(BranchOperations { branch: written.await?, operations: Vec::new() }))
}

/// Make a branch the one that is meant where none is named.
#[utoipa::path(post, path = "/projects/{project_id}/branches/{branch_id}/set_as_default",
    tag = "branches", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = BranchOperations), (status = "default", body = GeneralError)))]
pub(super) async fn set_as_default(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<BranchOperations>, ApiError> {
    let written = context.catalog.write(move |catalog| {
        let row = branches::get(catalog, &project, &id)?;
        if row.expires_at.is_some() {
            return Err(catalog::Error::Refused(
                "a branch that expires cannot be the default one: take its expires_at away first"
                    .to_owned(),
            ));
        }
        let mut found = projects::get(catalog, &project)?;
        found.default_branch = id;
        found.updated_at = now();
        projects::update(catalog, &found)?;
        view_now(catalog, &row)
    });
    Ok(Json(BranchOperations { branch: written.await?, operations: Vec::new() }))
}

/// The same, as it was called before.
#[utoipa::path(post, path = "/projects/{project_id}/branches/{branch_id}/set_as_primary",
    tag = "branches", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = BranchOperations), (status = "default", body = GeneralError)))]
pub(super) async fn set_as_primary(
    context: State<Arc<Context>>,
    path: Path<(String, String)>,
) -> Result<Json<BranchOperations>, ApiError> {
    set_as_default(context, path).await
}

/// Delete a branch. Its history stays for those that were made of it.
#[utoipa::path(delete, path = "/projects/{project_id}/branches/{branch_id}", tag = "branches",
    params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = BranchOperations), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<BranchOperations>, ApiError> {
    finish(async move { remove(&context, project, id).await }).await.map(Json)
}

/// Deletes a branch that is neither protected nor the default one.
pub(super) async fn remove(
    context: &Context,
    project: String,
    id: String,
) -> Result<BranchOperations, ApiError> {
    let _turn = context.turn(&id).await;
    let new = operation(&project, Some(&id), None, Action::DeleteTimeline, Status::Running);
    let written = context.catalog.write(move |catalog| {
        let found = projects::get(catalog, &project)?;
        let row = branches::get(catalog, &project, &id)?;
        if found.default_branch == row.id {
            return Err(catalog::Error::Refused(
                "the default branch cannot be deleted: set another one as default first".to_owned(),
            ));
        }
        branches::refuse_protected(&row)?;
        let branch = view_now(catalog, &row)?;
        branches::remove(catalog, &row)?;
        Ok((operations::insert(catalog, &new, now())?, branch, row))
    });
    let (operation, branch, row) = written.await?;
    let stopped = context.forget(&row.project, &row.timeline).await;
    let ended = context.end(&operation, stopped.as_ref().map(|_| ())).await?;
    context.wake_work(&row.project);
    stopped?;
    Ok(BranchOperations { branch, operations: vec![ended.into()] })
}
