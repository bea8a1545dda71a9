#![doc = include_str!("../../docs/formats/admin-api.md")]

mod branches;
mod error;
mod metrics;
mod moment;
mod request;
mod snapshots;
mod status;
mod templates;
mod tenants;
mod timestamp;
mod usage;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::error::ApiError;
use crate::{
    server::HeadSource, template::publish::Publishing, tenants::Tenants, wal_receiver::Receivers,
};

/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What the routes work on.
#[derive(Clone)]
pub(crate) struct Api {
    pub tenants: Arc<Tenants>,
    pub receivers: Receivers,
    pub head: Arc<dyn HeadSource>,
    pub publishing: Publishing,
}

/// Serves the admin API until it is stopped.
pub(crate) async fn serve(api: Api, listener: TcpListener, stop: CancellationToken) {
    let served = axum::serve(listener, router(api)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "the admin API ended");
    }
}

fn router(api: Api) -> Router {
    let branch = "/v1/tenants/{tenant}/branches/{branch}";
    Router::new()
        .route("/metrics", get(metrics::show))
        .route("/v1/status", get(status::show))
        .route("/v1/tenants", get(tenants::list).post(tenants::create))
        .route(
            "/v1/tenants/{tenant}",
            get(tenants::show).patch(tenants::change).delete(tenants::delete),
        )
        .route("/v1/tenants/{tenant}/take", post(tenants::take))
        .route("/v1/tenants/{tenant}/look", post(tenants::look))
        .route("/v1/tenants/{tenant}/branches", get(branches::list).post(branches::create))
        .route(branch, get(branches::show).delete(branches::delete))
        .route(&format!("{branch}/restore"), post(branches::restore))
        .route(&format!("{branch}/moment"), get(moment::show))
        .route("/v1/tenants/{tenant}/usage", get(usage::show))
        .route("/v1/usage", get(usage::list).post(usage::some))
        .route(&format!("{branch}/snapshots"), get(snapshots::list).post(snapshots::create))
        .route(
            &format!("{branch}/snapshots/{{snapshot}}"),
            get(snapshots::show).delete(snapshots::delete),
        )
        .route("/v1/templates", get(templates::list).post(templates::create))
        .route("/v1/templates/{template}", get(templates::show).delete(templates::delete))
        .fallback(async |uri: Uri| {
            ApiError::not_found(format!("there is nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(&method, uri.path())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}
