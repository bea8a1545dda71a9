//! What a pageserver is started with.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use access::{Bearer, Guard, tls::Certificate};
use async_trait::async_trait;
use object_store::ObjectStore;
use protocol::{TenantTimeline, TimelineOrigin};
use wal_format::Lsn;

use crate::limits::Limits;

/// Where a pageserver listens, what it keeps its layers in, and where its WAL comes from.
pub struct Config {
    /// The object store, already scoped to the prefix that is ours.
    pub store: Arc<dyn ObjectStore>,
    /// Its name among the pageservers of one object store: tenants go from one to another by name.
    pub name: String,
    /// Where the page service listens; port 0 for any.
    pub page_listen: SocketAddr,
    /// Where the admin API listens; port 0 for any.
    pub http_listen: SocketAddr,
    /// All safekeepers: WAL is read from one of them, and all are told what is consumed.
    pub safekeepers: Vec<SocketAddr>,
    /// Who knows the last acknowledged commit of a timeline.
    pub head: Arc<dyn HeadSource>,
    /// Whom it lets in.
    pub guard: Guard,
    /// What it shows to the safekeepers.
    pub bearer: Bearer,
    /// What it proves itself with to those who connect; without one, it speaks plainly.
    pub certificate: Option<Certificate>,
    /// What is kept near at hand.
    pub cache: CacheConfig,
    /// What else bounds it.
    pub limits: Limits,
}

/// How much is kept of layers.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The most bytes of memory, decompressed.
    pub memory_bytes: u64,
    /// The local disk; `None` for memory alone.
    pub disk: Option<DiskConfig>,
}

/// The cache's local disk.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// A folder of its own below this one is taken; what is in it may be lost at any time.
    pub folder: PathBuf,
    /// The bytes that are reserved.
    pub bytes: u64,
}

/// Finds the end of a timeline's acknowledged WAL. It asks the quorum, which is the proposer's
/// business and not the pageserver's: whoever wires the processes together supplies it.
#[async_trait]
pub trait HeadSource: Send + Sync {
    /// An LSN that includes every commit that was acknowledged before the call; a record's end.
    /// The error is a sentence for a person.
    async fn settled_head(
        &self,
        timeline: TenantTimeline,
        origin: TimelineOrigin,
    ) -> Result<Lsn, String>;
}
