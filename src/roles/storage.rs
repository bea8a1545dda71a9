//! The roles that keep data: `offshoot safekeeper` and `offshoot pageserver`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use pageserver::Pageserver;
use protocol::NodeId;
use safekeeper::Safekeeper;

use super::{head::QuorumHead, stop::StopSignals};
use crate::{
    cli::{PageserverArgs, SafekeeperArgs},
    failure::Failure,
    output::say,
};

/// The object store, scoped to the prefix that is ours.
pub type Store = Arc<dyn object_store::ObjectStore>;

/// Runs one safekeeper until it is told to stop.
pub async fn safekeeper(args: SafekeeperArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let store = open_store(&args.store).await?;
    let SafekeeperArgs { node, folder, listen, peers, http, .. } = args;
    let config = safekeeper_config(node, folder, listen, peers, store);
    let safekeeper = start_safekeeper(safekeeper::Config { http, ..config }).await?;
    say!("safekeeper {node} on {}", safekeeper.local_addr());
    signals.next().await;
    safekeeper.shutdown().await;
    Ok(())
}

/// Runs the pageserver until it is told to stop.
pub async fn pageserver(args: PageserverArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let store = open_store(&args.store).await?;
    let pageserver = start_pageserver(store, args.listen, args.http, args.safekeepers).await?;
    say!("pageserver on {}, its HTTP API on http://{}", args.listen, args.http);
    signals.next().await;
    pageserver.shutdown().await;
    Ok(())
}

/// Opens the object store, or says why it cannot be used.
pub async fn open_store(url: &str) -> Result<Store, Failure> {
    let opened = pageserver::store::open(url).await;
    opened.map_err(|error| Failure::new(format!("object store {url}: {error}")))
}

/// What a safekeeper is told; its bounds are the crate's own.
pub fn safekeeper_config(
    node: NodeId,
    folder: PathBuf,
    listen: SocketAddr,
    peers: Vec<(NodeId, SocketAddr)>,
    store: Store,
) -> safekeeper::Config {
    let bounds = safekeeper::Bounds::default();
    safekeeper::Config { node, folder, listen, http: None, peers, store, bounds }
}

/// Starts a safekeeper, or says why it cannot.
pub async fn start_safekeeper(config: safekeeper::Config) -> Result<Safekeeper, Failure> {
    let (node, listen) = (config.node, config.listen);
    let started = Safekeeper::start(config).await;
    started.map_err(|error| Failure::new(format!("safekeeper {node} on {listen}: {error}")))
}

/// Starts the pageserver, or says why it cannot.
pub async fn start_pageserver(
    store: Store,
    page_listen: SocketAddr,
    http_listen: SocketAddr,
    safekeepers: Vec<SocketAddr>,
) -> Result<Pageserver, Failure> {
    let head = Arc::new(QuorumHead { safekeepers: safekeepers.clone() });
    let config = pageserver::Config { store, page_listen, http_listen, safekeepers, head };
    let started = Pageserver::start(config).await;
    started.map_err(|error| {
        Failure::new(format!("pageserver on {page_listen} and {http_listen}: {error}"))
    })
}
