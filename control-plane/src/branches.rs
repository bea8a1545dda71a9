//! The proxy's directory: endpoints by the names of their branches.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio_postgres::Client;

use crate::{
    Awake, Directory, EndpointRef, Endpoints, Error, Regions, Settings, StartRequest,
    catalog::timelines::Moment,
};

/// How often a compute is started for one client: it may be stopped again before the client is in.
const STARTS_MAX: usize = 5;

/// Between a tenant and a branch. A tenant's name may hold it only if the branch is named by id.
const SEPARATOR: &str = "--";

/// Endpoints that are called `TENANT--BRANCH`, or `TENANT` for its branch `main`; names or ids.
pub(crate) struct Branches {
    regions: Arc<Regions>,
    /// Those that are being started for the proxy.
    starts: Arc<Mutex<HashMap<EndpointRef, Start>>>,
}

/// What is asked of a compute that is started; see [`StartRequest`].
#[derive(Clone, Default)]
pub(crate) struct Asked {
    pub settings: Option<Settings>,
    pub milli_cu: Option<u32>,
    pub units: Option<f64>,
}

impl Asked {
    fn request(self, tenant: String, branch: String) -> StartRequest {
        let Asked { settings, milli_cu, units } = self;
        let usual = StartRequest::of(tenant, branch);
        StartRequest { settings, units, milli_cu: milli_cu.unwrap_or(usual.milli_cu), ..usual }
    }
}

/// A start that many wait for.
type Start = Shared<BoxFuture<'static, Result<(), Arc<Error>>>>;

impl Branches {
    /// The endpoints of this control plane: of projects, and of tenants of the default region.
    pub(crate) fn new(regions: Arc<Regions>) -> Branches {
        Branches { regions, starts: Arc::default() }
    }

    fn endpoints(&self, tenant: &str) -> Arc<Endpoints> {
        self.regions.of(tenant).endpoints.clone()
    }

    /// The start that is under way, or a new one. It is carried to its end, also where nobody waits
    /// any more.
    fn start(&self, endpoint: &EndpointRef, asked: Asked) -> Start {
        let mut starts = self.starts.lock();
        if let Some(start) = starts.get(endpoint) {
            return start.clone();
        }
        let (endpoints, under_way, key) =
            (self.endpoints(&endpoint.tenant), self.starts.clone(), endpoint.clone());
        let task = tokio::spawn(async move {
            let EndpointRef { tenant, branch } = key.clone();
            let request = asked.request(tenant, branch);
            let started = endpoints.start(&request).await;
            under_way.lock().remove(&key);
            started.map(drop).map_err(Arc::new)
        });
        let ended = || Arc::new(Error::Conflict("the control plane is shutting down".to_owned()));
        let start = task.map(move |done| done.unwrap_or_else(|_| Err(ended()))).boxed().shared();
        starts.insert(endpoint.clone(), start.clone());
        start
    }
}

impl Branches {
    /// Makes a compute run; as is asked, where it does not run.
    pub(crate) async fn wake_with(
        &self,
        endpoint: &EndpointRef,
        asked: Asked,
    ) -> Result<Awake, Arc<Error>> {
        for _ in 0..STARTS_MAX {
            if let Some(awake) =
                self.endpoints(&endpoint.tenant).enter(&endpoint.tenant, &endpoint.branch)
            {
                return Ok(awake);
            }
            self.start(endpoint, asked.clone()).await?;
        }
        Err(Arc::new(Error::Conflict(format!(
            "the compute of {}/{} was stopped {STARTS_MAX} times before it could be connected to",
            endpoint.tenant, endpoint.branch
        ))))
    }
}

#[async_trait]
impl Directory for Branches {
    async fn find(&self, name: &str) -> Result<Option<EndpointRef>, Arc<Error>> {
        Ok(parse(name))
    }

    async fn at(&self, endpoint: &EndpointRef, moment: &Moment) -> Result<EndpointRef, Arc<Error>> {
        let EndpointRef { tenant, branch } = endpoint;
        let served = self.endpoints(tenant).pageservers().moment(tenant, branch, moment).await?;
        // By the timeline's id: a restore gives the branch's name to another.
        Ok(EndpointRef { tenant: tenant.clone(), branch: served.to_string() })
    }

    fn note(&self, endpoint: &EndpointRef, stage: &str, took: Duration) {
        self.endpoints(&endpoint.tenant).note(&endpoint.tenant, &endpoint.branch, stage, took);
    }

    fn superuser(&self, endpoint: &EndpointRef) -> Option<Client> {
        self.endpoints(&endpoint.tenant).take_superuser(&endpoint.tenant, &endpoint.branch)
    }

    async fn wake(&self, endpoint: &EndpointRef) -> Result<Awake, Arc<Error>> {
        self.wake_with(endpoint, Asked::default()).await
    }
}

/// Which branch a name stands for, whether it exists or not.
fn parse(name: &str) -> Option<EndpointRef> {
    let (tenant, branch) = name.split_once(SEPARATOR).unwrap_or((name, "main"));
    let is_whole = !tenant.is_empty() && !branch.is_empty();
    is_whole.then(|| EndpointRef { tenant: tenant.to_owned(), branch: branch.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_tenant_and_a_branch_or_its_main_one() {
        let parsed = |name| parse(name).map(|found| (found.tenant, found.branch));
        let pair = |tenant: &str, branch: &str| Some((tenant.to_owned(), branch.to_owned()));
        assert_eq!(parsed("acme"), pair("acme", "main"));
        assert_eq!(parsed("acme--try-1"), pair("acme", "try-1"));
        assert_eq!(parsed("ac-me--a--b"), pair("ac-me", "a--b"));
        assert_eq!(parsed("--try"), None);
        assert_eq!(parsed("acme--"), None);
    }
}
