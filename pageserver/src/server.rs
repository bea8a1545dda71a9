//! The pageserver as a whole: the storage engine, its WAL receivers, the page service and the
//! admin API.

mod config;
mod redo;

use std::{io, net::SocketAddr, sync::Arc};

use access::tls::{Certificate, Listener};
use object_store::ObjectStore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

pub use config::{CacheConfig, Config, DiskConfig, HeadSource};

use self::redo::PostgresRedo;
use crate::{
    cache::Disk,
    http::{self, Api},
    manifest::Place,
    metrics::note_refused,
    page_service::PageService,
    tenants::{Options, Tenants},
    wal_receiver::{Receivers, Safekeepers},
};

/// Why a pageserver does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}; choose another address or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
}

/// A running pageserver.
pub struct Pageserver {
    tenants: Arc<Tenants>,
    receivers: Receivers,
    page_addr: SocketAddr,
    http_addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pageserver {
    /// Listens, and serves until [`Pageserver::shutdown`].
    pub async fn start(config: Config) -> Result<Pageserver, StartError> {
        let certificate = config.certificate.as_ref();
        let (page_listener, page_addr) = listen(config.page_listen, certificate).await?;
        let (http_listener, http_addr) = listen(config.http_listen, certificate).await?;
        let safekeepers = Safekeepers { addresses: config.safekeepers, bearer: config.bearer };
        let receivers = Receivers::new(safekeepers, config.limits.unload_after);
        let guard = config.guard.noting(note_refused);
        let disk = match config.cache.disk {
            Some(DiskConfig { folder, bytes }) => Some(Disk::open(&folder, bytes).await),
            None => None,
        };
        let options = options(config.store, config.cache.memory_bytes, &receivers);
        let place = Place::new(config.name, page_addr, http_addr);
        let tenants = Arc::new(Tenants::with_limits(options, disk, config.limits).at(place));
        // It ends when the tenants are shut down, after everything that is tracked.
        tokio::spawn(Arc::clone(&tenants).work());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let page_service = PageService {
            tenants: Arc::clone(&tenants),
            receivers: receivers.clone(),
            guard: guard.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(page_service.serve(page_listener));
        let api = Api {
            tenants: Arc::clone(&tenants),
            receivers: receivers.clone(),
            head: config.head,
            publishing: Default::default(),
        };
        tasks.spawn(http::serve(api, guard, http_listener, stop.clone()));
        tasks.close();
        info!(%page_addr, %http_addr, "pageserver started");
        Ok(Pageserver { tenants, receivers, page_addr, http_addr, stop, tasks })
    }

    /// Where the page service listens.
    pub fn page_addr(&self) -> SocketAddr {
        self.page_addr
    }

    /// Where the admin API listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// What it serves, for those in its own process.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Stops serving and receiving, and writes what is in memory to the object store as far as
    /// that is there.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.receivers.shutdown().await;
        self.tenants.shutdown().await;
        info!("pageserver stopped");
    }
}

async fn listen(
    address: SocketAddr,
    certificate: Option<&Certificate>,
) -> Result<(Listener, SocketAddr), StartError> {
    let failed = |reason| StartError::Listen { address, reason };
    let listener = Listener::bind(address, certificate).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Every timeline that is loaded gets its WAL: also an ancestor whose layers end before the branch
/// point, without whose missing records its children cannot be read.
fn options(store: Arc<dyn ObjectStore>, cache_bytes: u64, receivers: &Receivers) -> Options {
    let receivers = receivers.clone();
    Options {
        store,
        redo: Arc::new(PostgresRedo),
        cache_bytes,
        on_load: Box::new(move |timeline| drop(receivers.receive(&timeline))),
    }
}
