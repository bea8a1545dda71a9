//! The roles that keep data: `offshoot safekeeper` and `offshoot pageserver`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use pageserver::{CacheConfig, DiskConfig, Limits, Pageserver, cache::DISK_BYTES_MIN};
use protocol::NodeId;
use safekeeper::Safekeeper;

use super::{head::QuorumHead, stop::StopSignals};
use crate::{
    cli::{CacheArgs, PageserverArgs, SafekeeperArgs},
    failure::Failure,
    output::say,
};

/// What the cache takes of the disk where nothing is said and the object store is S3.
const CACHE_DISK_DEFAULT: u64 = 4 << 30;

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
    let cache = cache_config(&args.cache, &args.store, args.cache_folder)?;
    let limits = limits(&args.cache);
    let (listen, http) = (args.listen, args.http);
    let pageserver = start_pageserver(store, listen, http, args.safekeepers, cache, limits).await?;
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

/// What the pageserver may keep near at hand, for a store of this URL.
pub fn cache_config(
    args: &CacheArgs,
    store_url: &str,
    folder: Option<PathBuf>,
) -> Result<CacheConfig, Failure> {
    // A copy of local files on a local disk would only take space and time.
    let by_default = if store_url.starts_with("s3://") { CACHE_DISK_DEFAULT } else { 0 };
    let disk = match (args.cache_disk, folder) {
        (Some(0), _) => None,
        (Some(bytes), Some(folder)) => Some(DiskConfig { folder, bytes }),
        (Some(_), None) => return Err(Failure::new("--cache-disk needs a --cache-folder")),
        (None, Some(folder)) if by_default > 0 => Some(DiskConfig { folder, bytes: by_default }),
        (None, _) => None,
    };
    if let Some(disk) = disk.as_ref().filter(|disk| disk.bytes < DISK_BYTES_MIN) {
        let bytes = disk.bytes;
        return Err(Failure::new(format!(
            "--cache-disk of {bytes} bytes is too little: at least {DISK_BYTES_MIN}, or 0 for none"
        )));
    }
    Ok(CacheConfig { memory_bytes: args.cache_memory, disk })
}

/// What else bounds the pageserver.
pub fn limits(args: &CacheArgs) -> Limits {
    Limits { unload_after: args.unload_after }
}

/// Starts the pageserver, or says why it cannot.
pub async fn start_pageserver(
    store: Store,
    page_listen: SocketAddr,
    http_listen: SocketAddr,
    safekeepers: Vec<SocketAddr>,
    cache: CacheConfig,
    limits: Limits,
) -> Result<Pageserver, Failure> {
    let head = Arc::new(QuorumHead { safekeepers: safekeepers.clone() });
    let config =
        pageserver::Config { store, page_listen, http_listen, safekeepers, head, cache, limits };
    let started = Pageserver::start(config).await;
    started.map_err(|error| {
        Failure::new(format!("pageserver on {page_listen} and {http_listen}: {error}"))
    })
}
