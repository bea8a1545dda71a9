//! Endpoints: what connections are made to; their computes are started, suspended and restarted.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    computes::compute_name,
    connection::{host, proxy_host},
    context::{Context, finish, operation},
    error::{ApiError, GeneralError},
    names::{check_limits, check_name, check_settings, check_suspend_timeout},
    operations::Operation,
    quotas::Standing,
    request::{Body, Path},
    time,
};
use crate::{
    Stage, State as ComputeState,
    catalog::{
        self, Time, branches,
        endpoints::{self, CU_DEFAULT, CU_MAX_DEFAULT, Kind},
        operations::{self, Action, Status},
        projects,
    },
};

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where connections to it go.
    pub host: String,
    /// Where all connections go.
    pub proxy_host: String,
    /// Its project.
    pub project_id: String,
    /// Its branch.
    pub branch_id: String,
    /// The least compute units. Kept and shown: whatever is free, a compute may take.
    pub autoscaling_limit_min_cu: f64,
    /// The most compute units, each a processor and 4 GiB: its Postgres is held to so much.
    pub autoscaling_limit_max_cu: f64,
    /// Where it is.
    pub region_id: String,
    /// `read_write`, or `read_only`: it follows what is written through the other.
    #[serde(rename = "type")]
    pub kind: String,
    /// `init` while its compute starts, `active` while it runs, `idle` else.
    pub current_state: String,
    /// What it becomes: `active` or `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_state: Option<String>,
    /// Settings, as they were said.
    pub settings: Value,
    /// There is no pooler: false.
    pub pooler_enabled: bool,
    /// There is no pooler: `transaction`, which clients expect.
    pub pooler_mode: String,
    /// It is not started.
    pub disabled: bool,
    /// Always false.
    pub passwordless_access: bool,
    /// Who made it.
    pub creation_source: String,
    /// Why its project's quota keeps it from having a compute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_exceeded: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When its compute was last started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When its compute was last suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<String>,
    /// Seconds without work until it is suspended; 0 for the default, -1 for never.
    pub suspend_timeout_seconds: i64,
    /// Always `k8s-neonvm`, which clients expect; it says nothing here.
    pub provisioner: String,
}

/// `POST /projects/{project_id}/endpoints`
#[derive(Deserialize, ToSchema)]
pub struct CreateEndpoint {
    endpoint: NewEndpoint,
}

/// An endpoint to be made.
#[derive(Deserialize, ToSchema)]
pub struct NewEndpoint {
    branch_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    options: EndpointOptions,
}

/// What can be said of an endpoint at its making, and changed later.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
pub struct EndpointOptions {
    name: Option<String>,
    autoscaling_limit_min_cu: Option<f64>,
    autoscaling_limit_max_cu: Option<f64>,
    suspend_timeout_seconds: Option<i64>,
    settings: Option<Value>,
    disabled: Option<bool>,
}

/// `PATCH /projects/{project_id}/endpoints/{endpoint_id}`
#[derive(Deserialize, ToSchema)]
pub struct UpdateEndpoint {
    endpoint: EndpointChange,
}

/// What of an endpoint is to be changed.
#[derive(Deserialize, ToSchema)]
pub struct EndpointChange {
    #[serde(flatten)]
    options: EndpointOptions,
}

/// An endpoint, and what was asked of it.
#[derive(Serialize, ToSchema)]
pub struct EndpointOperations {
    endpoint: Endpoint,
    operations: Vec<Operation>,
}

/// An endpoint.
#[derive(Serialize, ToSchema)]
pub struct EndpointResponse {
    endpoint: Endpoint,
}

/// Endpoints.
#[derive(Serialize, ToSchema)]
pub struct EndpointsResponse {
    endpoints: Vec<Endpoint>,
}

/// A start, taken apart.
#[derive(Serialize, ToSchema)]
pub struct StartTrace {
    /// Its stages, in the order in which they ended.
    stages: Vec<Stage>,
    /// All together, in milliseconds.
    total_ms: f64,
}

impl Endpoint {
    /// An endpoint of a branch, as it is now.
    pub(super) fn view(
        context: &Context,
        row: &endpoints::Endpoint,
        branch: &branches::Branch,
    ) -> Endpoint {
        let state = context.compute_of(row, branch).map(|compute| compute.state);
        let (current, pending) = match state {
            Some(ComputeState::Starting) => ("init", Some("active")),
            Some(ComputeState::Running) => ("active", None),
            Some(ComputeState::Stopping) => ("active", Some("idle")),
            Some(ComputeState::Stopped | ComputeState::Failed) | None => ("idle", None),
        };
        Endpoint {
            id: row.id.clone(),
            name: row.name.clone(),
            host: host(&context.connect_at, &row.id),
            proxy_host: proxy_host(&context.connect_at),
            project_id: row.project.clone(),
            branch_id: row.branch.clone(),
            autoscaling_limit_min_cu: row.min_cu,
            autoscaling_limit_max_cu: row.max_cu,
            region_id: context.region(&row.project).id.to_string(),
            kind: row.kind.name().to_owned(),
            current_state: current.to_owned(),
            pending_state: pending.map(str::to_owned),
            settings: row.settings.clone(),
            pooler_enabled: false,
            pooler_mode: "transaction".to_owned(),
            disabled: row.disabled,
            passwordless_access: false,
            creation_source: "api".to_owned(),
            quota_exceeded: None,
            created_at: time::format(row.created_at),
            updated_at: time::format(row.updated_at),
            started_at: row.started_at.map(time::format),
            suspended_at: row.suspended_at.map(time::format),
            suspend_timeout_seconds: row.suspend_timeout_seconds,
            provisioner: "k8s-neonvm".to_owned(),
        }
    }
}

impl Endpoint {
    /// The same, with what its project's quotas say of it.
    fn under(self, standing: &Standing, branch: &branches::Branch) -> Endpoint {
        let quota_exceeded = standing.refusal(&branch.timeline).map(|state| state.sentence());
        Endpoint { quota_exceeded, ..self }
    }
}

/// The limits that a project's settings for endpoints say.
pub(super) fn limits_of(settings: &Value) -> (f64, f64) {
    let limit = |name: &str| settings.get(name).and_then(Value::as_f64);
    let min = limit("autoscaling_limit_min_cu");
    let max = limit("autoscaling_limit_max_cu");
    let least = min.or(max).unwrap_or(CU_DEFAULT);
    (least, max.unwrap_or(least.max(CU_MAX_DEFAULT)))
}

/// The timeout that a project's settings for endpoints say.
pub(super) fn suspend_timeout_of(settings: &Value) -> i64 {
    settings.get("suspend_timeout_seconds").and_then(Value::as_i64).unwrap_or_default()
}

/// An endpoint of a branch, as the project's settings want it.
pub(super) fn new_row(
    kind: Kind,
    (project, branch): (&str, &str),
    settings: &Value,
    now: Time,
) -> endpoints::Endpoint {
    let (min_cu, max_cu) = limits_of(settings);
    let pg_settings = settings.get("pg_settings").cloned();
    endpoints::Endpoint {
        min_cu,
        max_cu,
        suspend_timeout_seconds: suspend_timeout_of(settings),
        settings: pg_settings.map_or(json!({}), |settings| json!({ "pg_settings": settings })),
        ..endpoints::Endpoint::of_kind(kind, project, branch, now)
    }
}

/// Which kind of endpoint is asked for.
pub(super) fn kind(name: &str) -> Result<Kind, ApiError> {
    Kind::of_name(name).ok_or_else(|| {
        ApiError::invalid(format!("{name:?} is no type of endpoint: read_write and read_only are"))
    })
}

/// Refuses options that make no sense.
pub(super) fn check_options(options: &EndpointOptions) -> Result<(), ApiError> {
    if let Some(name) = &options.name {
        check_name("endpoint", name)?;
    }
    if let Some(settings) = &options.settings {
        check_settings(settings)?;
    }
    check_suspend_timeout(options.suspend_timeout_seconds.unwrap_or_default())
}

/// Takes over what is said.
pub(super) fn set_options(
    row: &mut endpoints::Endpoint,
    options: &EndpointOptions,
) -> Result<(), ApiError> {
    let EndpointOptions { autoscaling_limit_min_cu: min, autoscaling_limit_max_cu: max, .. } =
        options;
    row.name = options.name.clone().or(row.name.take());
    row.min_cu = min.unwrap_or(max.map_or(row.min_cu, |max| row.min_cu.min(max)));
    row.max_cu = max.unwrap_or(row.max_cu.max(row.min_cu));
    row.suspend_timeout_seconds =
        options.suspend_timeout_seconds.unwrap_or(row.suspend_timeout_seconds);
    row.settings = options.settings.clone().unwrap_or(row.settings.take());
    row.disabled = options.disabled.unwrap_or(row.disabled);
    check_limits(row.min_cu, row.max_cu)
}

/// Create an endpoint of a branch: the one to read and write, or one of several to read only, which
/// follow it. Its compute is started by the first connection, or by `start`.
#[utoipa::path(post, path = "/projects/{project_id}/endpoints", tag = "endpoints",
    params(("project_id" = String, Path)), request_body = CreateEndpoint,
    responses((status = 201, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
    Body(CreateEndpoint { endpoint: new }): Body<CreateEndpoint>,
) -> Result<(StatusCode, Json<EndpointOperations>), ApiError> {
    let kind = kind(&new.kind)?;
    check_options(&new.options)?;
    let NewEndpoint { branch_id, options, .. } = new;
    let id = branch_id.clone();
    let read = context.catalog.read(move |catalog| {
        Ok((projects::get(catalog, &project)?, branches::get(catalog, &project, &id)?))
    });
    let (project, branch) = read.await?;
    let settings = &project.endpoint_settings;
    let mut row = new_row(kind, (&project.id, &branch.id), settings, time::now());
    set_options(&mut row, &options)?;
    let written = row.clone();
    let made = context.catalog.write(move |catalog| {
        branches::get(catalog, &written.project, &written.branch)?;
        endpoints::insert(catalog, &written)
    });
    made.await?;
    let endpoint = Endpoint::view(&context, &row, &branch);
    Ok((StatusCode::CREATED, Json(EndpointOperations { endpoint, operations: Vec::new() })))
}

/// List a project's endpoints.
#[utoipa::path(get, path = "/projects/{project_id}/endpoints", tag = "endpoints",
    params(("project_id" = String, Path)),
    responses((status = 200, body = EndpointsResponse), (status = "default", body = GeneralError)))]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Path(project): Path<String>,
) -> Result<Json<EndpointsResponse>, ApiError> {
    let read = context.catalog.read(move |catalog| {
        let standing = Standing::find(catalog, &project, time::now())?;
        let branches = branches::list(catalog, &project)?;
        let with_branch = |endpoint: endpoints::Endpoint| {
            let branch = branches.iter().find(|branch| branch.id == endpoint.branch)?;
            Some((endpoint, branch.clone()))
        };
        let rows = endpoints::list(catalog, &project)?.into_iter().filter_map(with_branch);
        Ok((rows.collect::<Vec<_>>(), standing))
    });
    let (rows, standing) = read.await?;
    let view = |(row, branch): &(endpoints::Endpoint, branches::Branch)| {
        Endpoint::view(&context, row, branch).under(&standing, branch)
    };
    Ok(Json(EndpointsResponse { endpoints: rows.iter().map(view).collect() }))
}

/// List a branch's endpoints.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/endpoints",
    tag = "endpoints", params(("project_id" = String, Path), ("branch_id" = String, Path)),
    responses((status = 200, body = EndpointsResponse), (status = "default", body = GeneralError)))]
pub(super) async fn list_of_branch(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
) -> Result<Json<EndpointsResponse>, ApiError> {
    let read = context.catalog.read(move |catalog| {
        let branch = branches::get(catalog, &project, &branch)?;
        let standing = Standing::find(catalog, &project, time::now())?;
        Ok((endpoints::all_of_branch(catalog, &branch.id)?, branch, standing))
    });
    let (rows, branch, standing) = read.await?;
    let view = |row: endpoints::Endpoint| {
        Endpoint::view(&context, &row, &branch).under(&standing, &branch)
    };
    Ok(Json(EndpointsResponse { endpoints: rows.into_iter().map(view).collect() }))
}

/// An endpoint of a project, and its branch.
pub(super) async fn find(
    context: &Context,
    project: String,
    id: String,
) -> Result<(endpoints::Endpoint, branches::Branch), ApiError> {
    let read = context.catalog.read(move |catalog| {
        let endpoint = endpoints::get(catalog, &project, &id)?;
        let branch = branches::get(catalog, &project, &endpoint.branch)?;
        Ok((endpoint, branch))
    });
    Ok(read.await?)
}

/// Show an endpoint.
#[utoipa::path(get, path = "/projects/{project_id}/endpoints/{endpoint_id}", tag = "endpoints",
    params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointResponse), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<EndpointResponse>, ApiError> {
    let (row, branch) = find(&context, project.clone(), id).await?;
    let read = context.catalog.read(move |catalog| Standing::find(catalog, &project, time::now()));
    let endpoint = Endpoint::view(&context, &row, &branch).under(&read.await?, &branch);
    Ok(Json(EndpointResponse { endpoint }))
}

/// Say what each stage of an endpoint's last start took, up to the first client that was in. There are
/// none where its compute was not started since the server was.
#[utoipa::path(get, path = "/projects/{project_id}/endpoints/{endpoint_id}/trace",
    tag = "endpoints", params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = StartTrace), (status = "default", body = GeneralError)))]
pub(super) async fn trace(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<StartTrace>, ApiError> {
    let (row, branch) = find(&context, project, id).await?;
    let stages = context.compute_of(&row, &branch).map(|compute| compute.trace).unwrap_or_default();
    let total_ms = stages.iter().map(|stage| stage.ms).sum();
    Ok(Json(StartTrace { stages, total_ms }))
}

/// Change an endpoint. What goes to Postgres counts from its compute's next start on, limits at once.
#[utoipa::path(patch, path = "/projects/{project_id}/endpoints/{endpoint_id}", tag = "endpoints",
    params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    request_body = UpdateEndpoint,
    responses((status = 200, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn update(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
    Body(UpdateEndpoint { endpoint: EndpointChange { options } }): Body<UpdateEndpoint>,
) -> Result<Json<EndpointOperations>, ApiError> {
    check_options(&options)?;
    let (mut row, branch) = find(&context, project.clone(), id.clone()).await?;
    // A good change of it as it is now; another one that comes between is checked again below.
    set_options(&mut row, &options)?;
    let new =
        operation(&project, Some(&branch.id), Some(&id), Action::ApplyConfig, Status::Finished);
    let written = context.catalog.write(move |catalog| {
        let mut row = endpoints::get(catalog, &project, &id)?;
        set_options(&mut row, &options).map_err(|error| catalog::Error::Refused(error.message))?;
        row.updated_at = time::now();
        endpoints::update(catalog, &row)?;
        Ok((row, operations::insert(catalog, &new, time::now())?))
    });
    let (row, operation) = written.await?;
    let (computes, compute) =
        (&context.region(&branch.project).endpoints, compute_name(&row, &branch));
    computes.resize(&branch.project, &compute, endpoints::milli_cu(&row));
    computes.set_limits(&branch.project, &compute, row.max_cu);
    let endpoint = Endpoint::view(&context, &row, &branch);
    Ok(Json(EndpointOperations { endpoint, operations: vec![operation.into()] }))
}

/// Delete an endpoint. Its compute is suspended; the branch stays.
#[utoipa::path(delete, path = "/projects/{project_id}/endpoints/{endpoint_id}", tag = "endpoints",
    params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    let deleted = finish(async move {
        let (_, branch) = find(&context, project.clone(), id.clone()).await?;
        let _turn = context.turn(&branch.id).await;
        let (row, branch) = find(&context, project.clone(), id.clone()).await?;
        let operation = begin(&context, &row, Action::SuspendCompute).await?;
        let stopped = context.end_compute(&row, &branch).await;
        if stopped.is_ok() {
            context.catalog.write(move |catalog| endpoints::remove(catalog, &id)).await?;
        }
        let ended = context.end(&operation, stopped.as_ref().copied()).await?;
        stopped?;
        let endpoint = Endpoint::view(&context, &row, &branch);
        Ok(EndpointOperations { endpoint, operations: vec![ended.into()] })
    });
    deleted.await.map(Json)
}

/// What can be asked of a compute.
#[derive(Clone, Copy)]
enum Verb {
    Start,
    Suspend,
    Restart,
}

/// Start an endpoint's compute. The operation ends when it accepts connections.
#[utoipa::path(post, path = "/projects/{project_id}/endpoints/{endpoint_id}/start",
    tag = "endpoints", params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn start(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    ask(context, project, id, Verb::Start).await
}

/// Suspend an endpoint's compute. The operation ends when nothing of it is left.
#[utoipa::path(post, path = "/projects/{project_id}/endpoints/{endpoint_id}/suspend",
    tag = "endpoints", params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn suspend(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    ask(context, project, id, Verb::Suspend).await
}

/// Restart an endpoint's compute.
#[utoipa::path(post, path = "/projects/{project_id}/endpoints/{endpoint_id}/restart",
    tag = "endpoints", params(("project_id" = String, Path), ("endpoint_id" = String, Path)),
    responses((status = 200, body = EndpointOperations), (status = "default", body = GeneralError)))]
pub(super) async fn restart(
    State(context): State<Arc<Context>>,
    Path((project, id)): Path<(String, String)>,
) -> Result<Json<EndpointOperations>, ApiError> {
    ask(context, project, id, Verb::Restart).await
}

/// Answers with operations that are under way; they go on by themselves.
async fn ask(
    context: Arc<Context>,
    project: String,
    id: String,
    verb: Verb,
) -> Result<Json<EndpointOperations>, ApiError> {
    let (row, branch) = find(&context, project, id).await?;
    if !matches!(verb, Verb::Suspend) {
        endpoints::refuse_disabled(&row)?;
        context.refuse_used_up(&branch.project, &branch.timeline).await?;
    }
    let actions: &[Action] = match verb {
        Verb::Start => &[Action::StartCompute],
        Verb::Suspend => &[Action::SuspendCompute],
        Verb::Restart => &[Action::SuspendCompute, Action::StartCompute],
    };
    let mut operations = Vec::with_capacity(actions.len());
    for action in actions {
        operations.push(begin(&context, &row, *action).await?);
    }
    let (under_way, endpoint_id) = (operations.clone(), row.id.clone());
    let carrying = context.clone();
    tokio::spawn(async move { carry_out(&carrying, &endpoint_id, under_way).await });
    let endpoint = Endpoint::view(&context, &row, &branch);
    let operations = operations.into_iter().map(Operation::from).collect();
    Ok(Json(EndpointOperations { endpoint, operations }))
}

/// Writes down an operation on a compute that begins now.
async fn begin(
    context: &Context,
    row: &endpoints::Endpoint,
    action: Action,
) -> Result<operations::Operation, ApiError> {
    let (branch, id) = (Some(row.branch.as_str()), Some(row.id.as_str()));
    let new = operation(&row.project, branch, id, action, Status::Running);
    let written =
        context.catalog.write(move |catalog| operations::insert(catalog, &new, time::now()));
    Ok(written.await?)
}

/// Carries operations on a compute out, one after the other.
pub(super) async fn carry_out(
    context: &Context,
    endpoint: &str,
    operations: Vec<operations::Operation>,
) {
    for operation in operations {
        let outcome = if operation.action == Action::StartCompute.name() {
            context.wake(endpoint).await
        } else {
            context.suspend(endpoint).await
        };
        if let Err(error) = &outcome {
            tracing::warn!(endpoint, action = operation.action, error = error.message, "failed");
        }
        if let Err(error) = context.end(&operation, outcome.as_ref().copied()).await {
            tracing::warn!(endpoint, error = error.message, "an operation's end is not written");
        }
    }
}
