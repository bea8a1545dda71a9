//! Endpoints: which computes run, started and stopped over HTTP; and the proxy, which starts them for
//! their clients.
//!
//! An endpoint is a branch that has, or had, a compute. Each compute is a child process of this
//! one, `offshoot compute run`, with a folder of its own that is thrown away with it. A child ends
//! with its parent: it stops when its standard input ends, however the parent went.
//!
//! The [catalog] says which projects, branches, roles and databases there are, and which endpoints
//! lead to them; the management API (`v2`) changes it.
//!
//! This crate knows no layer and no WAL record; of a branch it knows the name and the timeline that
//! the pageserver tells it.

mod activity;
mod api;
mod branches;
pub mod catalog;
mod child;
mod endpoint;
mod endpoints;
mod error;
mod http;
mod leftovers;
mod limits;
mod metering;
mod metrics;
mod moves;
mod pageserver_client;
mod ports;
mod proxy;
mod region;
mod served;
mod suspend;
mod tokens;
mod trace;
mod users;
mod v2;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use access::tls::{Certificate, Listener, Trust};
use futures::future::join_all;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use api::{
    Addresses, Compute, ComputeEvent, ErrorBody, RegionStatus, Settings, StartRequest, State,
    Status,
};
use branches::Branches;
use endpoints::Endpoints;
pub use error::Error;
pub use http::paths as http_paths;
pub use limits::Bounds;
pub use moves::{Move, MoveRequest};
pub use ports::PortRange;
pub use proxy::{
    Awake, CertificateFiles, Directory, EndpointRef, NotScram, PgAuthid, Proxy, ProxyConfig, Roles,
    Sent, Verifier, Way,
};
pub use region::{ComputesAt, PageserverAt, RegionConfig, RegionConfigs, RegionId};
use region::{Region, Regions};
pub use tokens::Tokens;
pub use trace::Stage;
pub use users::Users;
pub use v2::{ConnectAt, ManagementConfig};

/// What a control plane needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// The executable whose `compute run` is a compute: this one.
    pub executable: PathBuf,
    /// The regions that it serves. Who shows an operator's token of the default one's key may use
    /// version 1 of the API.
    pub regions: RegionConfigs,
    /// The management API and its catalog, where there are to be any.
    pub management: Option<ManagementConfig>,
    /// What the HTTP API proves itself with; without one, it speaks plainly.
    pub certificate: Option<Certificate>,
    /// Whom it and its computes believe, in all regions.
    pub trust: Trust,
    /// The proxy, where there is to be one.
    pub proxy: Option<ProxyConfig>,
    /// With a proxy, how long a compute may be without clients and other work before it is stopped,
    /// where its endpoint says nothing else; for ever where none is said.
    pub suspend_after: Option<Duration>,
}

/// A running control plane.
pub struct ControlPlane {
    regions: Arc<Regions>,
    management: Option<v2::Service>,
    local_addr: SocketAddr,
    proxy: Option<Proxy>,
    /// One a region.
    suspenders: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl ControlPlane {
    /// Listens and serves until [`ControlPlane::shutdown`].
    pub async fn start(config: Config) -> Result<ControlPlane, Error> {
        let listener = Listener::bind(config.http, config.certificate.as_ref())
            .await
            .map_err(|reason| Error::Listen { address: config.http, reason })?;
        let local_addr = listener
            .local_addr()
            .map_err(|reason| Error::Listen { address: config.http, reason })?;
        let Config { executable, regions, management: wanted, proxy, suspend_after, .. } = config;
        let guard = regions.guard();
        let regions = Arc::new(Regions::start(regions, &executable, &config.trust)?);
        let mut router = http::router(regions.clone(), guard);
        let mut management = None;
        if let Some(wanted) = wanted {
            let service = v2::Service::start(wanted, regions.clone()).await?;
            router = router.nest("/api/v2", v2::router(service.context.clone()));
            management = Some(service);
        }
        let proxy = match proxy {
            Some(config) => {
                Some(start_proxy(config, directory(&regions, management.as_ref())).await?)
            }
            None => None,
        };
        // Only the proxy starts again what was suspended.
        let suspended = if proxy.is_some() { regions.all() } else { &[] };
        let suspend = |region: &Arc<Region>| {
            let context = management.as_ref().map(|service| service.context.clone());
            tokio::spawn(suspend::watch(region.endpoints.clone(), context, suspend_after))
        };
        let suspenders = suspended.iter().map(suspend).collect();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener.http(), router).with_graceful_shutdown(stopped).await;
            if let Err(reason) = served {
                tracing::error!(%reason, "the control plane's HTTP server ended");
            }
        });
        Ok(ControlPlane { regions, management, local_addr, proxy, suspenders, stop, server })
    }

    /// Where the HTTP API listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the proxy listens, if there is one.
    pub fn proxy_addr(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(Proxy::local_addr)
    }

    /// Stops every compute, then the proxy and the HTTP server. A client that still waits for a start
    /// hears why; clients with a session hear of its end from Postgres.
    pub async fn shutdown(self) {
        let mut management = self.management;
        if let Some(management) = &mut management {
            management.end_work().await;
        }
        for suspender in self.suspenders {
            suspender.abort();
        }
        if let Some(proxy) = &self.proxy {
            proxy.close();
        }
        let regions = self.regions.all().iter();
        join_all(regions.map(|region| region.endpoints.stop_all())).await;
        if let Some(proxy) = self.proxy {
            proxy.shutdown().await;
        }
        if let Some(management) = management {
            // What the last computes used is known now.
            management.shutdown().await;
        }
        self.stop.cancel();
        // A client that keeps its connection open must not hold the process up.
        let ended = tokio::time::timeout(SERVER_STOP_MAX, self.server).await;
        if ended.is_err() {
            tracing::info!("HTTP connections were still open at the end");
        }
    }
}

/// Who knows the endpoints: the catalog, where there is one.
fn directory(regions: &Arc<Regions>, management: Option<&v2::Service>) -> Arc<dyn Directory> {
    match management {
        Some(service) => Arc::new(v2::Projects::new(service.context.clone())),
        None => Arc::new(Branches::new(regions.clone())),
    }
}

async fn start_proxy(config: ProxyConfig, directory: Arc<dyn Directory>) -> Result<Proxy, Error> {
    let roles = Arc::new(PgAuthid::new(directory.clone()));
    Proxy::start(config, directory, roles).await
}

/// How long open HTTP connections may delay the end.
const SERVER_STOP_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// The stages of a compute's start and how long each took, in milliseconds.
pub type Stages = BTreeMap<String, f64>;
