//! What a safekeeper is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use access::{Bearer, Guard, tls::Certificate};
use object_store::ObjectStore;
use protocol::NodeId;

/// What a safekeeper is started with.
#[derive(Clone)]
pub struct Config {
    /// This safekeeper's number.
    pub node: NodeId,
    /// Its disk: the journal, and with it the identity.
    pub folder: PathBuf,
    /// Where proposers, readers and the other safekeepers connect.
    pub listen: SocketAddr,
    /// Where the status is served over HTTP, if anywhere.
    pub http: Option<SocketAddr>,
    /// The other safekeepers. Together with this one they are the members of new timelines.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// Where configurations are, and where WAL goes; already scoped to the deployment's prefix.
    pub store: Arc<dyn ObjectStore>,
    /// Whom it lets in.
    pub guard: Guard,
    /// What it shows to the others.
    pub bearer: Bearer,
    /// What it proves itself with to those who connect; without one, it speaks plainly.
    pub certificate: Option<Certificate>,
    /// How much this safekeeper keeps, and how long it waits.
    pub bounds: Bounds,
}

/// Bounds of a safekeeper's disk, and the pauses of its background work.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The journal's files together. Appends that would pass it are held back, then refused.
    pub journal_bytes_max: u64,
    /// One timeline's WAL in the journal: likewise, before the journal's bound is reached.
    pub timeline_bytes_max: u64,
    /// WAL that does not fill an object is offloaded when nothing was committed for this long.
    pub offload_idle: Duration,
    /// A safekeeper leaves the offload to the one before it in the timeline's order for this long.
    pub offload_stagger: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            journal_bytes_max: 8 << 30,
            timeline_bytes_max: 1 << 30,
            offload_idle: Duration::from_secs(3),
            offload_stagger: Duration::from_secs(20),
        }
    }
}
