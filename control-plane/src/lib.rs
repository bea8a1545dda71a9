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
mod served;
mod suspend;
mod tokens;
mod trace;
mod users;
mod v2;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use api::{Addresses, Compute, ComputeEvent, ErrorBody, Settings, StartRequest, State, Status};
pub use branches::Branches;
pub use endpoints::Endpoints;
pub use error::Error;
pub use http::paths as http_paths;
pub use limits::Bounds;
pub use moves::{Move, MoveRequest};
pub use ports::PortRange;
pub use proxy::{
    Awake, CertificateFiles, Directory, EndpointRef, NotScram, PgAuthid, Proxy, ProxyConfig, Roles,
    Sent, Verifier, Way,
};
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
    /// The folder that holds the computes' folders and logs; their unprivileged user must be able
    /// to pass through it.
    pub folder: PathBuf,
    /// The pageserver's HTTP address.
    pub pageserver_http: SocketAddr,
    /// The pageserver's page service.
    pub pageserver: SocketAddr,
    /// Further pageservers on the same object store: tenants go from one to another by name.
    pub other_pageservers: Vec<PageserverAt>,
    /// The safekeepers.
    pub safekeepers: Vec<SocketAddr>,
    /// The address that computes listen on.
    pub compute_host: std::net::IpAddr,
    /// The ports that are given to computes that ask for none.
    pub ports: PortRange,
    /// The users that computes run as.
    pub users: Users,
    /// The management API and its catalog, where there are to be any.
    pub management: Option<ManagementConfig>,
    /// Further arguments of `compute run`: where Postgres is, and which user runs it.
    pub compute_arguments: Vec<String>,
    /// What it signs tokens with; where there is nothing, it lets everybody in, and shows nothing.
    pub tokens: Option<Tokens>,
    /// The proxy, where there is to be one.
    pub proxy: Option<ProxyConfig>,
    /// With a proxy, how long a compute may be without clients and other work before it is stopped,
    /// where its endpoint says nothing else; for ever where none is said.
    pub suspend_after: Option<Duration>,
}

/// A pageserver among several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageserverAt {
    /// Its page service.
    pub pages: SocketAddr,
    /// Its HTTP API.
    pub http: SocketAddr,
}

impl Config {
    /// All pageservers.
    pub fn pageservers(&self) -> Vec<PageserverAt> {
        let first = PageserverAt { pages: self.pageserver, http: self.pageserver_http };
        std::iter::once(first).chain(self.other_pageservers.iter().cloned()).collect()
    }
}

/// A running control plane.
pub struct ControlPlane {
    endpoints: Arc<Endpoints>,
    management: Option<v2::Service>,
    local_addr: SocketAddr,
    proxy: Option<Proxy>,
    suspender: Option<JoinHandle<()>>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl ControlPlane {
    /// Listens and serves until [`ControlPlane::shutdown`].
    pub async fn start(mut config: Config) -> Result<ControlPlane, Error> {
        let listener = TcpListener::bind(config.http)
            .await
            .map_err(|reason| Error::Listen { address: config.http, reason })?;
        let local_addr = listener
            .local_addr()
            .map_err(|reason| Error::Listen { address: config.http, reason })?;
        let (proxy_config, wanted) = (config.proxy.take(), config.management.take());
        let (pageserver_http, suspend_after) = (config.pageserver_http, config.suspend_after);
        let guard = Tokens::guard(config.tokens.as_ref());
        let bearer = Tokens::bearer(config.tokens.as_ref());
        let endpoints = Arc::new(Endpoints::new(config)?);
        let mut router = http::router(endpoints.clone(), guard);
        let mut management = None;
        if let Some(wanted) = wanted {
            let storage = v2::Storage::new(pageserver_http, bearer);
            let service = v2::Service::start(wanted, storage, endpoints.clone()).await?;
            router = router.nest("/api/v2", v2::router(service.context.clone()));
            management = Some(service);
        }
        let proxy = match proxy_config {
            Some(config) => {
                Some(start_proxy(config, directory(&endpoints, management.as_ref())).await?)
            }
            None => None,
        };
        // Only the proxy starts again what was suspended.
        let suspender = proxy.is_some().then(|| {
            let context = management.as_ref().map(|service| service.context.clone());
            tokio::spawn(suspend::watch(endpoints.clone(), context, suspend_after))
        });
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
            if let Err(reason) = served {
                tracing::error!(%reason, "the control plane's HTTP server ended");
            }
        });
        Ok(ControlPlane { endpoints, management, local_addr, proxy, suspender, stop, server })
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
        if let Some(suspender) = self.suspender {
            suspender.abort();
        }
        if let Some(proxy) = &self.proxy {
            proxy.close();
        }
        self.endpoints.stop_all().await;
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
fn directory(endpoints: &Arc<Endpoints>, management: Option<&v2::Service>) -> Arc<dyn Directory> {
    match management {
        Some(service) => Arc::new(v2::Projects::new(service.context.clone())),
        None => Arc::new(Branches::new(endpoints.clone())),
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
