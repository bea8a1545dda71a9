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

use access::{Guard, tls::Listener};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    response::IntoResponse,
    routing::{MethodRouter, get, post},
};
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
pub(crate) async fn serve(api: Api, guard: Guard, listener: Listener, stop: CancellationToken) {
    let served = axum::serve(listener.http(), router(api, guard))
        .with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "the admin API ended");
    }
}

/// What answers at each path.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/metrics", get(metrics::show)),
        ("/v1/status", get(status::show)),
        ("/v1/tenants", get(tenants::list).post(tenants::create)),
        ("/v1/tenants/{tenant}", get(tenants::show).patch(tenants::change).delete(tenants::delete)),
        ("/v1/tenants/{tenant}/take", post(tenants::take)),
        ("/v1/tenants/{tenant}/look", post(tenants::look)),
        ("/v1/tenants/{tenant}/branches", get(branches::list).post(branches::create)),
        ("/v1/tenants/{tenant}/branches/{branch}", get(branches::show).delete(branches::delete)),
        ("/v1/tenants/{tenant}/branches/{branch}/restore", post(branches::restore)),
        ("/v1/tenants/{tenant}/branches/{branch}/forget_past", post(branches::forget_past)),
        ("/v1/tenants/{tenant}/branches/{branch}/moment", get(moment::show)),
        ("/v1/tenants/{tenant}/usage", get(usage::show)),
        ("/v1/usage", get(usage::list).post(usage::some)),
        (
            "/v1/tenants/{tenant}/branches/{branch}/snapshots",
            get(snapshots::list).post(snapshots::create),
        ),
        (
            "/v1/tenants/{tenant}/branches/{branch}/snapshots/{snapshot}",
            get(snapshots::show).delete(snapshots::delete),
        ),
        ("/v1/templates", get(templates::list).post(templates::create)),
        ("/v1/templates/{template}", get(templates::show).delete(templates::delete)),
    ]
}

/// Every path that there is.
pub fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

fn router(api: Api, guard: Guard) -> Router {
    let empty = Router::new();
    let routes = routes().into_iter().fold(empty, |all, (path, answer)| all.route(path, answer));
    let routes = routes
        .fallback(async |uri: Uri| ApiError::no_path(uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(&method, uri.path())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api);
    let nothing = |uri: &Uri| ApiError::no_path(uri.path()).into_response();
    access::http::operators_only(routes, guard, "http", nothing)
}
