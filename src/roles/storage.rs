//! The roles that keep data: `offshoot safekeeper` and `offshoot pageserver`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ::access::{
    Bearer, Guard,
    tls::{Certificate, Trust},
};
use pageserver::{CacheConfig, DiskConfig, Limits, Memory, Pageserver, cache::DISK_BYTES_MIN};
use protocol::NodeId;
use safekeeper::Safekeeper;

use super::{access, head::QuorumHead, machine_share, stop::StopSignals, tls};
use crate::{
    cli::{LimitsArgs, PageserverArgs, SafekeeperArgs},
    failure::Failure,
    output::say,
};

/// Below this a pageserver does nothing well.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Whom a server lets in, and what it shows: to others whom it calls, and to those who come.
#[derive(Clone)]
pub struct Door {
    /// Whom it lets in.
    pub guard: Guard,
    /// What it shows to others.
    pub bearer: Bearer,
    /// What it proves itself with.
    pub certificate: Option<Certificate>,
}

/// The object store, scoped to the prefix that is ours.
pub type Store = Arc<dyn object_store::ObjectStore>;

/// Runs one safekeeper until it is told to stop.
pub async fn safekeeper(args: SafekeeperArgs, trust: Trust) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let certificate = tls::certificate(&args.certificate, &trust)?;
    let store = open_store(&args.store).await?;
    let SafekeeperArgs { node, folder, listen, peers, http, door, .. } = args;
    let listens: Vec<SocketAddr> = [listen].into_iter().chain(http).collect();
    let (guard, bearer) = access::door(&door, &listens)?;
    let door = Door { guard, bearer: bearer.trusting(trust), certificate };
    let config = safekeeper_config(node, folder, listen, peers, (store, door));
    let safekeeper = start_safekeeper(safekeeper::Config { http, ..config }).await?;
    say!("safekeeper {node} on {}", safekeeper.local_addr());
    signals.next().await;
    safekeeper.shutdown().await;
    Ok(())
}

/// Runs the pageserver until it is told to stop.
pub async fn pageserver(args: PageserverArgs, trust: Trust) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let certificate = tls::certificate(&args.certificate, &trust)?;
    let store = open_store(&args.store).await?;
    let bounds = bounds(&args.limits, &args.store, args.cache_folder)?;
    let listen = (args.listen, args.http);
    let (guard, bearer) = access::door(&args.door, &[args.listen, args.http])?;
    let scheme = trust.scheme();
    let door = Door { guard, bearer: bearer.trusting(trust), certificate };
    let started = start_pageserver((store, door), args.name, listen, args.safekeepers, bounds);
    let pageserver = started.await?;
    say!("pageserver on {}, its HTTP API on {scheme}://{}", args.listen, args.http);
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
    (store, Door { guard, bearer, certificate }): (Store, Door),
) -> safekeeper::Config {
    safekeeper::Config {
        node,
        folder,
        listen,
        http: None,
        peers,
        store,
        guard,
        bearer,
        certificate,
        bounds: safekeeper::Bounds::default(),
    }
}

/// Starts a safekeeper, or says why it cannot.
pub async fn start_safekeeper(config: safekeeper::Config) -> Result<Safekeeper, Failure> {
    let (node, listen) = (config.node, config.listen);
    let started = Safekeeper::start(config).await;
    started.map_err(|error| Failure::new(format!("safekeeper {node} on {listen}: {error}")))
}

/// What the pageserver may take.
pub struct Bounds {
    cache: CacheConfig,
    limits: Limits,
}

/// What the pageserver may take, for a store of this URL; its part of the disk is in this folder.
pub fn bounds(
    args: &LimitsArgs,
    store_url: &str,
    folder: Option<PathBuf>,
) -> Result<Bounds, Failure> {
    let memory = args.memory.unwrap_or_else(machine_share::memory);
    if memory < MEMORY_BYTES_MIN {
        return Err(Failure::new(format!(
            "--memory of {memory} bytes is too little: at least {MEMORY_BYTES_MIN}"
        )));
    }
    let memory = Memory::divide(memory);
    // A copy of local files on a local disk would only take space and time.
    let is_far = store_url.starts_with("s3://");
    let disk = match (args.disk, folder) {
        (Some(0), _) => None,
        (Some(bytes), Some(folder)) => Some(DiskConfig { folder, bytes }),
        (Some(_), None) => return Err(Failure::new("--disk needs a --cache-folder")),
        (None, Some(folder)) if is_far => {
            let bytes = machine_share::disk(&folder).max(DISK_BYTES_MIN);
            Some(DiskConfig { folder, bytes })
        }
        (None, _) => None,
    };
    if let Some(disk) = disk.as_ref().filter(|disk| disk.bytes < DISK_BYTES_MIN) {
        let bytes = disk.bytes;
        return Err(Failure::new(format!(
            "--disk of {bytes} bytes is too little: at least {DISK_BYTES_MIN}, or 0 for none"
        )));
    }
    let cache = CacheConfig { memory_bytes: memory.cache, disk };
    let limits = Limits { unload_after: args.unload_after, ..Limits::of(memory) };
    Ok(Bounds { cache, limits })
}

/// Starts the pageserver, with its page service and its HTTP API there, or says why it cannot.
pub async fn start_pageserver(
    (store, Door { guard, bearer, certificate }): (Store, Door),
    name: String,
    (page_listen, http_listen): (SocketAddr, SocketAddr),
    safekeepers: Vec<SocketAddr>,
    bounds: Bounds,
) -> Result<Pageserver, Failure> {
    let head = Arc::new(QuorumHead { safekeepers: safekeepers.clone(), bearer: bearer.clone() });
    let Bounds { cache, limits } = bounds;
    let config = pageserver::Config {
        store,
        name,
        page_listen,
        http_listen,
        safekeepers,
        head,
        guard,
        bearer,
        certificate,
        cache,
        limits,
    };
    let started = Pageserver::start(config).await;
    started.map_err(|error| {
        Failure::new(format!("pageserver on {page_listen} and {http_listen}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(memory: Option<u64>, disk: Option<u64>) -> LimitsArgs {
        LimitsArgs { memory, disk, unload_after: Duration::from_secs(60) }
    }

    #[test]
    fn one_number_is_divided_among_all_that_takes_memory() -> Result<(), Failure> {
        let args = asked(Some(1 << 30), Some(1 << 30));
        let bounds = bounds(&args, "file:///store", Some("/cache".into()))?;
        let taken = bounds.cache.memory_bytes as usize
            + bounds.limits.open_layers_bytes_max
            + bounds.limits.merge_bytes_max;
        assert!(taken < 1 << 30, "nothing is left for the process itself");
        assert_eq!(bounds.limits.unload_after, Duration::from_secs(60));
        assert_eq!(bounds.cache.disk.map(|disk| disk.bytes), Some(1 << 30));
        Ok(())
    }

    #[test]
    fn too_little_memory_or_disk_is_refused_with_the_least() {
        let folder = || Some(PathBuf::from("/cache"));
        let refused =
            |args| bounds(&args, "file:///store", folder()).err().map(|it| it.to_string());
        let message = refused(asked(Some(1 << 20), None)).unwrap_or_default();
        assert!(message.contains("at least 67108864"), "{message:?}");
        let message = refused(asked(None, Some(1))).unwrap_or_default();
        assert!(message.contains("or 0 for none"), "{message:?}");
    }
}
