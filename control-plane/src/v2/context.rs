//! What every route works with.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{auth::Keys, calm::Calm, error::ApiError};
use crate::{
    Region, Regions,
    catalog::{
        Catalog, ids,
        operations::{self, Action, Operation, Status},
        projects, timelines,
    },
};

/// Locks that nobody holds are forgotten when there are more than so many.
const TURNS_MAX: usize = 1024;

/// Where users' connections go: the proxy.
#[derive(Clone, Debug)]
pub struct ConnectAt {
    /// The domain of which every endpoint's name is a part. Without one the endpoint is named in
    /// the connection's `options`.
    pub domain: Option<String>,
    /// The address of who has no domain.
    pub host: IpAddr,
    /// The port.
    pub port: u16,
}

/// What the management API needs to know.
#[derive(Clone, Debug)]
pub struct ManagementConfig {
    /// Its folder, closed to all but root: the catalog, with passwords, and the first API key.
    pub folder: PathBuf,
    /// Where users' connections go.
    pub connect_at: ConnectAt,
    /// Where `pg_dump` is, if neither in Debian's place nor on PATH.
    pub pg_bin: Option<PathBuf>,
}

/// What the routes share.
pub struct Context {
    pub(super) catalog: Catalog,
    pub(super) regions: Arc<Regions>,
    pub(super) keys: Keys,
    pub(super) connect_at: ConnectAt,
    pub(super) pg_bin: Option<PathBuf>,
    /// Whether requests come.
    pub(super) calm: Calm,
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Context {
    pub(super) fn new(
        catalog: Catalog,
        regions: Arc<Regions>,
        keys: Keys,
        config: &ManagementConfig,
    ) -> Context {
        Context {
            catalog,
            regions,
            keys,
            connect_at: config.connect_at.clone(),
            pg_bin: config.pg_bin.clone(),
            calm: Calm::new(),
            turns: Mutex::default(),
        }
    }

    /// The region that a project is in.
    pub(super) fn region(&self, project: &str) -> Arc<Region> {
        self.regions.of(project)
    }

    /// There is something to do for a project in the background.
    pub(super) fn wake_work(&self, project: &str) {
        self.region(project).work.notify_one();
    }

    /// Waits for its turn to change something of a branch or project: its compute, its roles and
    /// databases, which timeline it stands for, its tenant.
    pub(super) async fn turn(&self, of: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            if turns.len() > TURNS_MAX {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(of.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Makes the project's tenant where the pageserver does not have it yet.
    pub(super) async fn ensure_tenant(&self, project: &str) -> Result<(), ApiError> {
        let id = project.to_owned();
        let found = self.catalog.read(move |catalog| projects::get(catalog, &id)).await?;
        if found.tenant.is_some() {
            return Ok(());
        }
        let _turn = self.turn(project).await;
        let id = project.to_owned();
        let found = self.catalog.read(move |catalog| projects::get(catalog, &id)).await?;
        if found.tenant.is_some() {
            return Ok(());
        }
        let template = found.template.as_deref();
        let storage = &self.region(project).storage;
        let made = storage.create_tenant(project, template, found.history_seconds).await?;
        let id = project.to_owned();
        self.catalog
            .write(move |catalog| {
                projects::set_tenant(catalog, &id, &made.id)?;
                let done = (Action::CreateTimeline, Status::Finished);
                operations::end_all(catalog, &id, done.0, done.1, None, super::time::now())
            })
            .await?;
        Ok(())
    }

    /// Says how an operation ended.
    pub(super) async fn end(
        &self,
        operation: &Operation,
        outcome: Result<(), &ApiError>,
    ) -> Result<Operation, ApiError> {
        let (project, id) = (operation.project.clone(), operation.id.clone());
        let error = outcome.err().map(|error| error.message.clone());
        let status = if error.is_some() { Status::Failed } else { Status::Finished };
        let ended = self.catalog.write(move |catalog| {
            let now = super::time::now();
            operations::set_status(catalog, &id, status, error.as_deref(), now)?;
            operations::get(catalog, &project, &id)
        });
        Ok(ended.await?)
    }
}

/// A new operation.
pub(super) fn operation(
    project: &str,
    branch: Option<&str>,
    endpoint: Option<&str>,
    action: Action,
    status: Status,
) -> operations::New {
    operations::New {
        id: ids::operation(&mut rand::rng()),
        project: project.to_owned(),
        branch: branch.map(str::to_owned),
        endpoint: endpoint.map(str::to_owned),
        action,
        status,
    }
}

/// A new timeline of a branch; its name says which branch it is for.
pub(super) fn new_timeline(
    project: &str,
    name: String,
    parent: &str,
    moment: Option<timelines::Moment>,
) -> timelines::Timeline {
    timelines::Timeline {
        project: project.to_owned(),
        name,
        parent: Some(parent.to_owned()),
        moment,
    }
}

/// Carries work to its end, also where the client does not wait for it.
pub(super) async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(ApiError::unavailable("the control plane ends: try again later")),
    }
}
