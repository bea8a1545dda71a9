//! The proxy's directory where there is a catalog: `ep-…` is the endpoint of a project, awake when
//! what waited for its Postgres is done; any other name is a tenant's branch.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::http::StatusCode;
use tokio_postgres::Client;

use super::{
    computes::{compute_name, pg_settings},
    context::Context,
    error::ApiError,
};
use crate::{
    Awake, Branches, Directory, EndpointRef, Error,
    branches::Asked,
    catalog::{
        self,
        branches::{self, Branch},
        endpoints::{self, Endpoint, Kind},
        projects,
        timelines::Moment,
    },
    served,
};

/// What clients put behind it for pooled connections: there is no pooler, they get the endpoint.
const POOLED: &str = "-pooler";
/// How often a compute is woken for one client: it may be suspended again before the client is in.
const WAKES_MAX: usize = 5;

/// Endpoints of projects by their ids, and all others by the names of their branches.
pub(crate) struct Projects {
    context: Arc<Context>,
    branches: Branches,
}

impl Projects {
    pub(crate) fn new(context: Arc<Context>) -> Projects {
        let branches = Branches::new(context.regions.clone());
        Projects { context, branches }
    }

    /// The endpoint of the project's branch that leads to a compute; `None` for a tenant that is no
    /// project. A timeline that a branch stood for until now is not to be woken.
    async fn endpoint_of(&self, of: &EndpointRef) -> Result<Option<Endpoint>, ApiError> {
        let EndpointRef { tenant, branch } = of.clone();
        let found = self.context.catalog.read(move |catalog| {
            if projects::find(catalog, &tenant)?.is_none() {
                return Ok(None);
            }
            let gone = || {
                catalog::Error::Exists("the branch was put back or deleted: try again".to_owned())
            };
            let (timeline, word) = served::split(&branch);
            let branch = branches::of_timeline(catalog, &tenant, timeline)?.ok_or_else(gone)?;
            let none = || {
                catalog::Error::Exists(format!(
                    "branch {} has no endpoint: create one first",
                    branch.id
                ))
            };
            let mut all = endpoints::all_of_branch(catalog, &branch.id)?.into_iter();
            let endpoint = match (served::standby(word), word) {
                (Some(id), _) => all.find(|endpoint| endpoint.id == id),
                // Whoever may read the branch may read a moment of it.
                (None, Some(_)) => all.next(),
                (None, None) => all.find(|endpoint| endpoint.kind == Kind::ReadWrite),
            };
            endpoint.ok_or_else(none).map(Some)
        });
        Ok(found.await?)
    }

    async fn enter(&self, id: &str, of: &EndpointRef) -> Result<Awake, ApiError> {
        for _ in 0..WAKES_MAX {
            self.context.wake(id).await?;
            let region = self.context.region(&of.tenant);
            if let Some(awake) = region.endpoints.enter(&of.tenant, &of.branch) {
                return Ok(awake);
            }
        }
        Err(ApiError::unavailable(format!("endpoint {id} was suspended or restored: try again")))
    }
}

#[async_trait]
impl Directory for Projects {
    async fn find(&self, name: &str) -> Result<Option<EndpointRef>, Arc<Error>> {
        let name = name.strip_suffix(POOLED).unwrap_or(name);
        let of = |branch: Branch| EndpointRef { tenant: branch.project, branch: branch.timeline };
        if name.starts_with(served::STANDBY) {
            return match self.context.endpoint(name).await {
                Ok((endpoint, branch)) => {
                    let compute = compute_name(&endpoint, &branch);
                    Ok(Some(EndpointRef { tenant: branch.project, branch: compute }))
                }
                Err(error) if error.status == StatusCode::NOT_FOUND => Ok(None),
                Err(error) => Err(told(error)),
            };
        }
        // Neon's clients name the branch where they name a moment of it.
        let id = name.to_owned();
        let found = self.context.catalog.read(move |catalog| branches::find(catalog, &id));
        match found.await.map_err(|error| told(error.into()))? {
            Some(branch) => Ok(Some(of(branch))),
            None => self.branches.find(name).await,
        }
    }

    async fn at(&self, endpoint: &EndpointRef, moment: &Moment) -> Result<EndpointRef, Arc<Error>> {
        if self.endpoint_of(endpoint).await.map_err(told)?.is_none() {
            return self.branches.at(endpoint, moment).await;
        }
        let tenant = &endpoint.tenant;
        let (branch, _) = served::split(&endpoint.branch);
        let region = self.context.region(tenant);
        let served = region.endpoints.pageservers().moment(tenant, branch, moment).await?;
        Ok(EndpointRef { tenant: tenant.clone(), branch: served.name(branch) })
    }

    fn note(&self, endpoint: &EndpointRef, stage: &str, took: Duration) {
        self.branches.note(endpoint, stage, took);
    }

    fn superuser(&self, endpoint: &EndpointRef) -> Option<Client> {
        self.branches.superuser(endpoint)
    }

    async fn wake(&self, endpoint: &EndpointRef) -> Result<Awake, Arc<Error>> {
        let (branch, word) = served::split(&endpoint.branch);
        match self.endpoint_of(endpoint).await.map_err(told)? {
            Some(found) if word.is_some() && served::standby(word).is_none() => {
                endpoints::refuse_disabled(&found).map_err(|error| told(error.into()))?;
                self.context.refuse_used_up(&endpoint.tenant, branch).await.map_err(told)?;
                let asked = Asked {
                    settings: Some(pg_settings(&found)),
                    milli_cu: Some(endpoints::milli_cu(&found)),
                    units: Some(found.max_cu),
                };
                self.branches.wake_with(endpoint, asked).await
            }
            Some(found) => self.enter(&found.id, endpoint).await.map_err(told),
            None => self.branches.wake(endpoint).await,
        }
    }
}

/// What the proxy tells its client.
fn told(error: ApiError) -> Arc<Error> {
    Arc::new(match error.status {
        StatusCode::NOT_FOUND => Error::NotFound(error.message),
        _ if error.is_quota() => Error::Quota(error.message),
        _ => Error::Conflict(error.message),
    })
}
