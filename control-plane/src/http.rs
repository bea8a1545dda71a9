//! The HTTP API: computes are started, stopped, restarted after a restore, and listed.
//!
//! Tenants are moved from one pageserver to another.
//!
//! `GET /metrics`, `GET /v1/status`, `GET|POST /v1/computes`, `GET|DELETE /v1/computes/{tenant}/{branch}`,
//! `POST /v1/computes/{tenant}/{branch}/follow|forget`, `POST /v1/tenants/{tenant}/move`. `docs/formats/compute-api.md` is its specification.

use std::sync::Arc;

use access::Guard;
use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};

use serde::Deserialize;

use crate::{
    Compute, Error, ErrorBody, Move, MoveRequest, Region, RegionStatus, Regions, StartRequest,
    State as ComputeState, Status, metrics,
};

type Shared = State<Arc<Regions>>;

/// `?region=`: of which region a tenant is meant that is no project.
#[derive(Deserialize)]
struct Within {
    region: Option<String>,
}

impl Within {
    /// The region that is meant: where none is said, the one that knows the compute, the project's or
    /// the default one first.
    fn of(&self, regions: &Regions, tenant: &str, branch: &str) -> Result<Arc<Region>, Error> {
        if let Some(said) = &self.region {
            return regions.named(said).cloned().map_err(Error::NotFound);
        }
        let own = regions.of(tenant);
        let knows = |region: &&Arc<Region>| region.endpoints.show(tenant, branch).is_ok();
        let found = std::iter::once(&own).chain(regions.all()).find(knows);
        Ok(found.unwrap_or(&own).clone())
    }
}

/// What answers at each path.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Regions>>)> {
    vec![
        ("/metrics", get(show_metrics)),
        ("/v1/status", get(status)),
        ("/v1/tenants/{tenant}/move", post(move_tenant)),
        ("/v1/computes", get(list).post(start)),
        ("/v1/computes/{tenant}/{branch}", get(show).delete(stop)),
        ("/v1/computes/{tenant}/{branch}/follow", post(follow)),
        ("/v1/computes/{tenant}/{branch}/forget", post(forget)),
    ]
}

/// Every path of version 1 that there is.
pub fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

/// The routes, for operators.
pub(crate) fn router(regions: Arc<Regions>, guard: Guard) -> Router {
    let empty = Router::new();
    let routes = routes().into_iter().fold(empty, |all, (path, answer)| all.route(path, answer));
    let routes = routes.fallback(async |uri: Uri| nothing_at(&uri)).with_state(regions);
    access::http::operators_only(routes, guard, "http", nothing_at)
}

async fn status(State(regions): Shared) -> Result<Json<Status>, Error> {
    let view = |region: &Arc<Region>| {
        Some(RegionStatus {
            id: region.id.to_string(),
            name: region.name.clone(),
            default: Arc::ptr_eq(region, regions.default()),
            answers: region.health.answers(),
            addresses: region.endpoints.addresses()?,
        })
    };
    let all: Vec<RegionStatus> = regions.all().iter().filter_map(view).collect();
    let first = all.iter().find(|region| region.default).map(|region| region.addresses.clone());
    Ok(Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: first.ok_or_else(|| Error::Regions("no region has a pageserver".to_owned()))?,
        bounds: regions.default().endpoints.bounds(),
        regions: all,
        computes: computes(&regions),
    }))
}

/// The computes of all regions.
fn computes(regions: &Regions) -> Vec<Compute> {
    regions.all().iter().flat_map(|region| region.endpoints.list()).collect()
}

async fn show_metrics(State(regions): Shared) -> Response {
    let runs = |compute: &Compute| compute.state == ComputeState::Running;
    match metrics::text(computes(&regions).into_iter().filter(runs).count()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn list(State(regions): Shared) -> Json<Vec<Compute>> {
    Json(computes(&regions))
}

async fn start(
    State(regions): Shared,
    request: Result<Json<StartRequest>, JsonRejection>,
) -> Result<Json<Compute>, Error> {
    let Json(mut request) = request.map_err(|rejection| Error::Invalid(rejection.body_text()))?;
    let within = Within { region: request.region.take() };
    let region = within.of(&regions, &request.tenant, &request.branch)?;
    // A task of its own: a client that goes away does not leave a compute half started.
    finish(async move { region.endpoints.start(&request).await }).await.map(Json)
}

async fn show(
    State(regions): Shared,
    Path((tenant, branch)): Path<(String, String)>,
    Query(within): Query<Within>,
) -> Result<Json<Compute>, Error> {
    within.of(&regions, &tenant, &branch)?.endpoints.show(&tenant, &branch).map(Json)
}

async fn stop(
    State(regions): Shared,
    Path((tenant, branch)): Path<(String, String)>,
    Query(within): Query<Within>,
) -> Result<Json<Compute>, Error> {
    let region = within.of(&regions, &tenant, &branch)?;
    finish(async move { region.endpoints.stop(&tenant, &branch).await }).await.map(Json)
}

async fn forget(
    State(regions): Shared,
    Path((tenant, branch)): Path<(String, String)>,
    Query(within): Query<Within>,
) -> Result<Json<Compute>, Error> {
    let region = within.of(&regions, &tenant, &branch)?;
    finish(async move { region.endpoints.forget(&tenant, &branch).await }).await.map(Json)
}

async fn follow(
    State(regions): Shared,
    Path((tenant, branch)): Path<(String, String)>,
    Query(within): Query<Within>,
) -> Result<Json<Option<Compute>>, Error> {
    let region = within.of(&regions, &tenant, &branch)?;
    finish(async move { region.endpoints.follow(&tenant, &branch).await }).await.map(Json)
}

async fn move_tenant(
    State(regions): Shared,
    Path(tenant): Path<String>,
    Query(within): Query<Within>,
    request: Result<Json<MoveRequest>, JsonRejection>,
) -> Result<Json<Move>, Error> {
    let Json(request) = request.map_err(|rejection| Error::Invalid(rejection.body_text()))?;
    let region = within.of(&regions, &tenant, "main")?;
    let moved =
        async move { region.endpoints.pageservers().move_tenant(&tenant, &request.to).await };
    finish(moved).await.map(Json)
}

/// Said of a path that there is not, and to whom there is nothing. The code is another than for a
/// thing that is not there: it is not to be taken for gone.
fn nothing_at(uri: &Uri) -> Response {
    let message = format!("there is nothing at {}", uri.path());
    let body = ErrorBody { code: "no_such_path".to_owned(), message };
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

/// Carries the work to its end, also where the client does not wait for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::Conflict("the control plane is shutting down".to_owned())),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Quota(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Compute { .. } | Error::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::ComputeFailed { .. }
            | Error::NoCheckpoint(_)
            | Error::Listen { .. }
            | Error::Folder { .. }
            | Error::Catalog { .. }
            | Error::Regions(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = ErrorBody { code: self.code().to_owned(), message: self.to_string() };
        (status, Json(body)).into_response()
    }
}
