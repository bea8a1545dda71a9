//! The management API, version 2: projects, branches, endpoints, roles, databases, operations and
//! API keys below `/api/v2`, as Neon's public clients speak it.
//!
//! What there is stands in the [catalog](crate::catalog); the pageserver has the timelines, the
//! branches' Postgres the roles and databases. `docs/formats/api-v2.md` is the specification; the
//! OpenAPI document is made of the routes, and served at `/api/v2/openapi.json`.

mod account;
mod auth;
mod branch_views;
mod branches;
mod calm;
mod collect;
mod computes;
mod connection;
mod consumption;
mod contents;
mod context;
mod databases;
mod directory;
mod endpoints;
mod error;
mod logs;
mod names;
mod operations;
mod page;
mod places;
mod postgres;
mod project_views;
mod projects;
mod quotas;
mod request;
mod restore;
mod roles;
mod schema_dump;
mod secrets;
mod storage;
mod templates;
pub(crate) mod time;
mod work;

use std::{path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use calm::Turn;
pub(crate) use collect::Counting;
pub(crate) use connection::encode;
pub(crate) use context::Context;
pub use context::{ConnectAt, ManagementConfig};
pub(crate) use directory::Projects;
pub(crate) use storage::Storage;

use crate::{Regions, catalog::Catalog};
use error::ApiError;

/// The catalog's file, in its folder.
const CATALOG_FILE: &str = "catalog.sqlite";
/// The first API key's file, in the same folder.
const KEY_FILE: &str = "api-key";

#[derive(OpenApi)]
#[openapi(
    info(title = "Offshoot management API", version = "v2"),
    servers((url = "/api/v2")),
    modifiers(&BearerKey),
    security(("api key" = []))
)]
struct Description;

struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("api key", scheme);
    }
}

/// The API, and what goes on in the background for it.
pub(crate) struct Service {
    pub context: Arc<Context>,
    stop: CancellationToken,
    work: Vec<JoinHandle<()>>,
    /// One a region.
    collecting: Vec<JoinHandle<()>>,
    /// Ends the collecting, which goes on until all computes have ended.
    last: CancellationToken,
}

impl Service {
    /// Opens the catalog, makes it of the bucket where it is missing, and puts right what an end in
    /// the middle left.
    pub(crate) async fn start(
        config: ManagementConfig,
        regions: Arc<Regions>,
    ) -> Result<Service, crate::Error> {
        let folder = &config.folder;
        let failed =
            |error: ApiError| crate::Error::Catalog { path: folder.clone(), reason: error.message };
        open_folder(folder)
            .map_err(|reason| crate::Error::Folder { path: folder.clone(), reason })?;
        let catalog = open_catalog(folder, &regions).await.map_err(failed)?;
        places::settle(&catalog, &regions).await?;
        let key_file = folder.join(KEY_FILE);
        let made = auth::ensure_first_key(&catalog, &key_file).await;
        if made.map_err(|error| failed(error.into()))? {
            // Said once, to whoever started this; the key itself is said nowhere.
            eprintln!("the first API key is in {}", key_file.display());
        }
        let keys = auth::Keys::load(&catalog).await.map_err(|error| failed(error.into()))?;
        let context = Arc::new(Context::new(catalog, regions, keys, &config));
        work::end_what_was_under_way(&context).await.map_err(failed)?;
        let (stop, last) = (CancellationToken::new(), CancellationToken::new());
        let mut work = vec![tokio::spawn(work::prune(context.clone(), stop.clone()))];
        let mut collecting = Vec::new();
        for region in context.regions.all() {
            let with = || (context.clone(), region.clone());
            let interrupted = work::interrupted(&context, region).await.map_err(failed)?;
            work.push(tokio::spawn(work::run(with(), interrupted, stop.clone())));
            work.push(tokio::spawn(quotas::enforce(with(), stop.clone())));
            collecting.push(tokio::spawn(collect::run(with(), last.clone())));
        }
        Ok(Service { context, stop, work, collecting, last })
    }

    /// Ends the work in the background; what is not done is done after the next start.
    pub(crate) async fn end_work(&mut self) {
        self.stop.cancel();
        for work in self.work.drain(..) {
            if work.await.is_err() {
                tracing::error!("the work in the background panicked");
            }
        }
    }

    /// Writes down what was used last, when no compute runs any more.
    pub(crate) async fn shutdown(self) {
        self.last.cancel();
        for collecting in self.collecting {
            if collecting.await.is_err() {
                tracing::error!("the collecting of what projects use panicked");
            }
        }
    }
}

fn open_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

/// Opens the catalog. One that is missing is made beside, and takes its name when it is whole.
async fn open_catalog(folder: &Path, regions: &Regions) -> Result<Catalog, ApiError> {
    let file = folder.join(CATALOG_FILE);
    if !file.exists() {
        let making = folder.join("catalog.making");
        for end in ["", "-wal", "-shm"] {
            let mut left = making.clone().into_os_string();
            left.push(end);
            // What an earlier start left half made, if it did.
            let _absent = std::fs::remove_file(left);
        }
        let (catalog, _) = Catalog::open(&making)?;
        let count = places::rebuild(&catalog, regions).await?;
        catalog.close();
        drop(catalog);
        rename(&making, &file).map_err(|error| ApiError::internal(error.to_string()))?;
        if count > 0 {
            tracing::warn!(
                projects = count,
                "the catalog was missing: made of the tenants in the regions' buckets"
            );
        }
    }
    Ok(Catalog::open(&file)?.0)
}

/// Gives a closed database its name, durably.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)?;
    match to.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The routes below `/api/v2`.
pub(crate) fn router(context: Arc<Context>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(account::me))
        .routes(routes!(account::organizations))
        .routes(routes!(account::regions))
        .routes(routes!(account::list_keys, account::create_key))
        .routes(routes!(account::revoke_key))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::shared))
        .routes(routes!(projects::show, projects::update, projects::delete))
        .routes(routes!(projects::recover))
        .routes(routes!(connection::show))
        .routes(routes!(consumption::projects))
        .routes(routes!(consumption::account))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(branches::list, branches::create))
        .routes(routes!(branches::count))
        .routes(routes!(branches::show, branches::update, branches::delete))
        .routes(routes!(branches::set_as_default))
        .routes(routes!(branches::set_as_primary))
        .routes(routes!(restore::restore))
        .routes(routes!(schema_dump::show))
        .routes(routes!(endpoints::list_of_branch))
        .routes(routes!(roles::list, roles::create))
        .routes(routes!(roles::show, roles::delete))
        .routes(routes!(roles::reveal_password, roles::post_reveal_password))
        .routes(routes!(roles::reset_password))
        .routes(routes!(databases::list, databases::create))
        .routes(routes!(databases::show, databases::update, databases::delete))
        .routes(routes!(endpoints::list, endpoints::create))
        .routes(routes!(endpoints::show, endpoints::update, endpoints::delete))
        .routes(routes!(endpoints::start))
        .routes(routes!(endpoints::suspend))
        .routes(routes!(endpoints::restart))
        .routes(routes!(endpoints::trace))
        .routes(routes!(logs::show))
        .routes(routes!(templates::list, templates::create))
        .routes(routes!(templates::show, templates::delete))
        .split_for_parts();
    let description = Arc::new(description);
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(context.clone(), auth::check))
        .route(
            "/openapi.json",
            axum::routing::get(move || {
                let description = description.clone();
                async move { Json(description.as_ref().clone()) }
            }),
        )
        .layer(DefaultBodyLimit::max(request::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(context.clone(), request::frame))
        .with_state(context)
}

async fn nothing_here(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("{method} {} is not served: see /api/v2/openapi.json", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(format!("{method} is not possible at {}", uri.path()))
}
