//! What all timelines of a pageserver share.

use std::sync::Arc;

use object_store::{ObjectStore, path::Path};
use protocol::{TenantId, TenantTimeline};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Cache, changed::Changed, layer::name::LayerName, metering::Meters,
    open_layers::OpenLayers, redo::Redo, store::Uploads, surveyed::Surveyed,
    timeline::READS_AHEAD_MAX, work::Work,
};

/// How many frozen layers are compressed and uploaded at once, of all timelines: compression is
/// CPU that page requests want too.
const FLUSHES_MAX: usize = 2;

/// How many merges of layers compute at once, of all timelines; others read, write or wait.
const MERGES_MAX: usize = 1;

/// The store, the cache, and what bounds background work.
pub struct Engine {
    /// Where every durable byte goes.
    pub store: Arc<dyn ObjectStore>,
    /// What records do to pages.
    pub redo: Arc<dyn Redo>,
    /// Blocks and tables of contents of layers.
    pub cache: Arc<Cache>,
    /// The memory of what is not in the store yet.
    pub open_layers: Arc<OpenLayers>,
    /// Taken while a frozen layer is written.
    pub flush_permits: Semaphore,
    /// Carries layers to the store.
    pub uploads: Uploads,
    /// Taken while blocks are read that nobody has asked for yet.
    pub reads_ahead: Arc<Semaphore>,
    /// Taken by a merge while it computes.
    pub merge_permits: Arc<Semaphore>,
    /// What each timeline takes and gives.
    pub meters: Meters,
    /// What is known of tenants that nobody uses.
    pub surveyed: Surveyed,
    /// Which tenants' usage changed, and when.
    pub changed: Changed,
    /// Timelines whose layers wait to be merged.
    pub work: Work,
    /// Wakes whoever looks for tenants that another pageserver has taken: a timeline was fenced.
    pub fenced: Notify,
    /// Cancelled when the pageserver stops.
    pub stop: CancellationToken,
}

impl Engine {
    /// An engine on this store and this cache.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        redo: Arc<dyn Redo>,
        cache: Cache,
        open_layers: OpenLayers,
    ) -> Engine {
        Engine {
            store,
            redo,
            cache: Arc::new(cache),
            open_layers: Arc::new(open_layers),
            flush_permits: Semaphore::new(FLUSHES_MAX),
            uploads: Uploads::default(),
            reads_ahead: Arc::new(Semaphore::new(READS_AHEAD_MAX)),
            merge_permits: Arc::new(Semaphore::new(MERGES_MAX)),
            meters: Meters::default(),
            surveyed: Surveyed::default(),
            changed: Changed::default(),
            work: Work::default(),
            fenced: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Takes note that a manifest of the tenant or of one of its timelines was written.
    pub fn note_written(&self, tenant: TenantId) {
        self.surveyed.forget(tenant);
        self.changed.note(tenant);
    }
}

/// The folder of a tenant's objects.
pub fn tenant_folder(tenant: TenantId) -> Path {
    Path::from_iter(["tenants".to_owned(), tenant.to_string()])
}

/// The folder of a timeline's objects.
pub fn timeline_folder(id: TenantTimeline) -> Path {
    tenant_folder(id.tenant).join("timelines").join(id.timeline.to_string())
}

/// The folder of a timeline's layers.
pub fn layers_folder(id: TenantTimeline) -> Path {
    timeline_folder(id).join("layers")
}

/// The object of a layer of a timeline.
pub fn layer_path(id: TenantTimeline, name: LayerName) -> Path {
    layers_folder(id).join(name.to_string())
}
