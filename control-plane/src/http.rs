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
    extract::{Path, State, rejection::JsonRejection},
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};

use crate::{
    Compute, Endpoints, Error, ErrorBody, Move, MoveRequest, StartRequest, State as ComputeState,
    Status, metrics,
};

type Shared = State<Arc<Endpoints>>;

/// What answers at each path.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Endpoints>>)> {
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
pub(crate) fn router(endpoints: Arc<Endpoints>, guard: Guard) -> Router {
    let empty = Router::new();
    let routes = routes().into_iter().fold(empty, |all, (path, answer)| all.route(path, answer));
    let routes = routes.fallback(async |uri: Uri| nothing_at(&uri)).with_state(endpoints);
    access::http::operators_only(routes, guard, "http", nothing_at)
}

async fn status(endpoints: Shared) -> Json<Status> {
    Json(endpoints.status())
}

async fn show_metrics(endpoints: Shared) -> Response {
    let runs = |compute: &Compute| compute.state == ComputeState::Running;
    match metrics::text(endpoints.list().into_iter().filter(runs).count()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn list(endpoints: Shared) -> Json<Vec<Compute>> {
    Json(endpoints.list())
}

async fn start(
    State(endpoints): Shared,
    request: Result<Json<StartRequest>, JsonRejection>,
) -> Result<Json<Compute>, Error> {
    let Json(request) = request.map_err(|rejection| Error::Invalid(rejection.body_text()))?;
    // A task of its own: a client that goes away does not leave a compute half started.
    finish(async move { endpoints.start(&request).await }).await.map(Json)
}

async fn show(
    endpoints: Shared,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Compute>, Error> {
    endpoints.show(&tenant, &branch).map(Json)
}

async fn stop(
    State(endpoints): Shared,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Compute>, Error> {
    finish(async move { endpoints.stop(&tenant, &branch).await }).await.map(Json)
}

async fn forget(
    State(endpoints): Shared,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Compute>, Error> {
    finish(async move { endpoints.forget(&tenant, &branch).await }).await.map(Json)
}

async fn follow(
    State(endpoints): Shared,
    Path((tenant, branch)): Path<(String, String)>,
) -> Result<Json<Option<Compute>>, Error> {
    finish(async move { endpoints.follow(&tenant, &branch).await }).await.map(Json)
}

async fn move_tenant(
    State(endpoints): Shared,
    Path(tenant): Path<String>,
    request: Result<Json<MoveRequest>, JsonRejection>,
) -> Result<Json<Move>, Error> {
    let Json(request) = request.map_err(|rejection| Error::Invalid(rejection.body_text()))?;
    finish(async move { endpoints.pageservers().move_tenant(&tenant, &request.to).await })
        .await
        .map(Json)
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
            | Error::Catalog { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = ErrorBody { code: self.code().to_owned(), message: self.to_string() };
        (status, Json(body)).into_response()
    }
}
