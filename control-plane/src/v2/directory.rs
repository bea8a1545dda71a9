//! The proxy's directory where there is a catalog: `ep-…` is the endpoint of a project, awake when
//! what waited for its Postgres is done; any other name is a tenant's branch.

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::StatusCode;

use super::{context::Context, error::ApiError};
use crate::{
    Awake, Branches, Directory, EndpointRef, Error,
    catalog::{self, branches, endpoints, projects},
};

/// What the id of an endpoint begins with.
const ENDPOINT: &str = "ep-";
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
        let branches = Branches::new(context.endpoints.clone());
        Projects { context, branches }
    }

    /// The endpoint of the project's branch that stands for a timeline; `None` for a tenant that is
    /// no project. A timeline that a branch stood for until now is not to be woken.
    async fn endpoint_of(&self, of: &EndpointRef) -> Result<Option<String>, ApiError> {
        let EndpointRef { tenant, branch } = of.clone();
        let found = self.context.catalog.read(move |catalog| {
            if projects::find(catalog, &tenant)?.is_none() {
                return Ok(None);
            }
            let gone = || {
                catalog::Error::Exists("the branch was put back or deleted: try again".to_owned())
            };
            let branch = branches::of_timeline(catalog, &tenant, &branch)?.ok_or_else(gone)?;
            let endpoint = endpoints::of_branch(catalog, &branch.id)?.ok_or_else(gone)?;
            Ok(Some(endpoint.id))
        });
        Ok(found.await?)
    }

    async fn enter(&self, id: &str, of: &EndpointRef) -> Result<Awake, ApiError> {
        for _ in 0..WAKES_MAX {
            self.context.wake(id).await?;
            if let Some(awake) = self.context.endpoints.enter(&of.tenant, &of.branch) {
                return Ok(awake);
            }
        }
        Err(ApiError::unavailable(format!("endpoint {id} was suspended or restored: try again")))
    }
}

#[async_trait]
impl Directory for Projects {
    async fn find(&self, name: &str) -> Result<Option<EndpointRef>, Arc<Error>> {
        if !name.starts_with(ENDPOINT) {
            return self.branches.find(name).await;
        }
        match self.context.endpoint(name.strip_suffix(POOLED).unwrap_or(name)).await {
            Ok((_, branch)) => {
                Ok(Some(EndpointRef { tenant: branch.project, branch: branch.timeline }))
            }
            Err(error) if error.status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(told(error)),
        }
    }

    async fn wake(&self, endpoint: &EndpointRef) -> Result<Awake, Arc<Error>> {
        match self.endpoint_of(endpoint).await.map_err(told)? {
            Some(id) => self.enter(&id, endpoint).await.map_err(told),
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
