//! The HTTP API: computes are started, stopped, restarted after a restore, and listed.
//!
//! Tenants are moved from one pageserver to another.
//!
//! `GET /metrics`, `GET /v1/status`, `GET|POST /v1/computes`, `GET|DELETE /v1/computes/{tenant}/{branch}`,
//! `POST /v1/computes/{tenant}/{branch}/follow|forget`, `POST /v1/tenants/{tenant}/move`. `docs/formats/compute-api.md` is its specification.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    Compute, Endpoints, Error, ErrorBody, Move, MoveRequest, StartRequest, State as ComputeState,
    Status, metrics,
};

type Shared = State<Arc<Endpoints>>;

pub(crate) fn router(endpoints: Arc<Endpoints>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/v1/status", get(status))
        .route("/v1/tenants/{tenant}/move", post(move_tenant))
        .route("/v1/computes", get(list).post(start))
        .route("/v1/computes/{tenant}/{branch}", get(show).delete(stop))
        .route("/v1/computes/{tenant}/{branch}/follow", post(follow))
        .route("/v1/computes/{tenant}/{branch}/forget", post(forget))
        .fallback(nothing_here)
        .with_state(endpoints)
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

async fn nothing_here() -> Error {
    Error::NotFound("no such path; docs/formats/compute-api.md lists them".to_owned())
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
            | Error::Listen { .. }
            | Error::Folder { .. }
            | Error::Catalog { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = ErrorBody { code: self.code().to_owned(), message: self.to_string() };
        (status, Json(body)).into_response()
    }
}
