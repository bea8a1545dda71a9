//! All tenants, their branches, and the templates they are made from.
//!
//! A tenant is its newest manifest, and exists from the moment at which its name refers to it; what
//! a crash leaves before that is garbage that nothing names. It ends in the opposite order: the
//! manifest says so, the name is freed, the objects go.

mod branches;
mod children;
mod loaded;
mod names;
mod ownership;
mod pressure;
mod removal;
mod retention;
mod snapshots;
mod survey;
mod template;
mod unload;
mod usage;
mod work;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use parking_lot::Mutex;
use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineOrigin};
use tokio::sync::Notify;

use crate::{
    cache::{Cache, CacheStatus, Disk},
    engine::Engine,
    error::Error,
    limits::Limits,
    manifest::{BranchEntry, Place, Resting, TenantKind, TenantManifest},
    open_layers::OpenLayers,
    redo::Redo,
    timeline::{Timeline, Window},
};

pub use names::NAME_BYTES_MAX;
pub(crate) use names::Names;
pub use ownership::LiveTimeline;
pub use snapshots::{Beginning, Snapshot};
pub use template::{TemplateSource, TemplateWriter};
pub use usage::{BranchUsage, TenantUsage};

/// The branch that every tenant has, made with it and deleted only with it.
pub const MAIN_BRANCH: &str = "main";
/// Manifests that a list reads at once.
const LIST_CONCURRENCY: usize = 16;

/// What the engine needs from outside.
pub struct Options {
    /// Where layers and manifests are: see [`crate::store::open`].
    pub store: Arc<dyn ObjectStore>,
    /// What WAL records do to pages.
    pub redo: Arc<dyn Redo>,
    /// The most bytes of decompressed parts of layers that are kept in memory.
    pub cache_bytes: u64,
    /// Called once for every timeline that WAL must be ingested into: one that was asked for, or
    /// an ancestor whose layers do not reach a branch point yet.
    pub on_load: Box<dyn Fn(Arc<Timeline>) + Send + Sync>,
}

/// A branch: a timeline with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its timeline.
    pub timeline: TenantTimeline,
    /// Where it came from; `None` for a template's own timeline.
    pub ancestor: Option<Ancestor>,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
}

/// Where a branch came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline; of another tenant only where that is a template.
    pub timeline: TenantTimeline,
    /// Its branch's name now, or the template's.
    pub name: String,
    /// The last of its records that belongs to the branch.
    pub point: BranchPoint,
}

/// A tenant, or a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Whether it is a template: read-only, with one branch.
    pub is_template: bool,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
    /// How much history it keeps.
    pub history: Window,
    /// The pageserver that serves it; `None` for a template, and where none has yet.
    pub served_by: Option<Place>,
    /// Its branches, [`MAIN_BRANCH`] first, then by age.
    pub branches: Vec<Branch>,
}

impl Tenant {
    /// The branch of this name or timeline id.
    pub fn branch(&self, name_or_id: &str) -> Result<&Branch, Error> {
        self.branches
            .iter()
            .find(|branch| {
                branch.name == name_or_id || branch.timeline.timeline.to_string() == name_or_id
            })
            .ok_or_else(|| Error::NotFound(format!("branch {name_or_id:?} of {:?}", self.name)))
    }
}

/// All that this pageserver serves.
pub struct Tenants {
    engine: Arc<Engine>,
    on_load: Box<dyn Fn(Arc<Timeline>) + Send + Sync>,
    manifests: Mutex<HashMap<TenantId, Arc<loaded::Slot>>>,
    /// The writers of manifests that this process has written and that nobody uses.
    resting: Mutex<HashMap<TenantId, Resting>>,
    names: Names,
    /// In order, so that a tenant's are found without a look at all others.
    timelines: Mutex<BTreeMap<TenantTimeline, Arc<loaded::TimelineCell>>>,
    /// Of timelines that this process has written and unloaded.
    written: Mutex<BTreeMap<TenantTimeline, Resting>>,
    limits: Limits,
    place: Place,
    /// A random number of this process: see [`Owner::process`](crate::manifest::Owner::process).
    process: String,
    /// The tenants that this process serves, and the generation of each.
    held: Mutex<HashMap<TenantId, u64>>,
    /// Those that another process has taken from it.
    lost: Mutex<HashSet<TenantId>>,
    /// Wakes whoever moves cutoffs: a window was changed.
    window_changed: Notify,
}

impl Tenants {
    /// Nothing is read yet: tenants are loaded when they are asked for.
    pub fn new(options: Options) -> Tenants {
        Tenants::with_limits(options, None, Limits::default())
    }

    /// The same, with a disk to keep parts of layers on, and with other limits.
    pub fn with_limits(options: Options, disk: Option<Disk>, limits: Limits) -> Tenants {
        let Options { store, redo, cache_bytes, on_load } = options;
        let cache = Cache::new(cache_bytes, disk);
        let open_layers = OpenLayers::new(limits.open_layers_bytes_max);
        Tenants {
            names: Names::new(store.clone()),
            engine: Arc::new(Engine::new(store, redo, cache, open_layers)),
            on_load,
            manifests: Mutex::default(),
            resting: Mutex::default(),
            timelines: Mutex::default(),
            written: Mutex::default(),
            limits,
            place: Place::default(),
            process: format!("{:032x}", rand::random::<u128>()),
            held: Mutex::default(),
            lost: Mutex::default(),
            window_changed: Notify::new(),
        }
    }

    /// The tenant of this name or id; templates by id only.
    pub async fn tenant(&self, name_or_id: &str) -> Result<Tenant, Error> {
        let manifest = self.find(TenantKind::Tenant, name_or_id).await?;
        self.describe(&manifest).await
    }

    /// The branch of this name or id, of the tenant of this name or id: the others are not looked
    /// at.
    pub async fn branch(&self, tenant: &str, branch: &str) -> Result<Branch, Error> {
        let manifest = self.find(TenantKind::Tenant, tenant).await?;
        self.describe_branch(&manifest, branches::find_branch(&manifest, branch)?).await
    }

    /// The template of this name or id.
    pub async fn template(&self, name_or_id: &str) -> Result<Tenant, Error> {
        let manifest = self.find(TenantKind::Template, name_or_id).await?;
        if manifest.kind != TenantKind::Template {
            return Err(Error::NotFound(format!("template {name_or_id:?}")));
        }
        self.describe(&manifest).await
    }

    /// All tenants, by name.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        self.list_kind(TenantKind::Tenant).await
    }

    /// All templates, by name.
    pub async fn templates(&self) -> Result<Vec<Tenant>, Error> {
        self.list_kind(TenantKind::Template).await
    }

    /// Flushes what is in memory, as far as the object store lets it, and stops all background
    /// work. What could not be flushed is still with the safekeepers.
    pub async fn shutdown(&self) {
        let flushes = self
            .loaded()
            .into_iter()
            .filter(|timeline| !timeline.is_read_only() && !timeline.is_warming());
        stream::iter(flushes)
            .for_each_concurrent(LIST_CONCURRENCY, async |timeline| {
                let flushed = async {
                    timeline.flush().await?;
                    timeline.keep_given().await
                };
                if let Err(error) = flushed.await {
                    let id = timeline.id();
                    tracing::warn!(timeline = %id, %error, "stopped without a last flush");
                }
            })
            .await;
        self.engine.stop.cancel();
        self.engine.cache.close().await;
    }

    /// How full the cache is.
    pub fn cache_status(&self) -> CacheStatus {
        self.engine.cache.status()
    }

    /// The memory of layers that are not in the object store yet.
    pub(crate) fn open_layers(&self) -> &OpenLayers {
        &self.engine.open_layers
    }

    async fn find(&self, kind: TenantKind, name_or_id: &str) -> Result<Arc<TenantManifest>, Error> {
        let what = match kind {
            TenantKind::Tenant => "tenant",
            TenantKind::Template => "template",
        };
        let not_found = || Error::NotFound(format!("{what} {name_or_id:?}"));
        let by_name = async || self.names.find(kind, name_or_id).await?.ok_or_else(not_found);
        let id = match name_or_id.parse() {
            Ok(id) => id,
            Err(_) => by_name().await?,
        };
        match self.manifest(id).await {
            // Deleted by another pageserver, and perhaps the name is somebody else's by now.
            Err(Error::NotFound(_)) if self.names.forget(kind, name_or_id) => {
                match self.manifest(by_name().await?).await {
                    Err(Error::NotFound(_)) => Err(not_found()),
                    found => found,
                }
            }
            Err(Error::NotFound(_)) => Err(not_found()),
            found => found,
        }
    }

    async fn list_kind(&self, kind: TenantKind) -> Result<Vec<Tenant>, Error> {
        let names = self.names.list(kind).await?;
        let tenants = stream::iter(names)
            .map(async |name| match self.find(kind, &name).await {
                Ok(manifest) => self.describe(&manifest).await.map(Some),
                // Deleted between the two requests, or in the middle of its deletion.
                Err(Error::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            })
            .buffered(LIST_CONCURRENCY);
        tenants.try_filter_map(async |tenant| Ok(tenant)).try_collect().await
    }

    async fn describe(&self, manifest: &TenantManifest) -> Result<Tenant, Error> {
        let mut branches = Vec::with_capacity(manifest.branches.len());
        for entry in &manifest.branches {
            branches.push(self.describe_branch(manifest, entry).await?);
        }
        branches.sort_by_key(|branch| branch.name != MAIN_BRANCH);
        Ok(Tenant {
            id: manifest.tenant,
            name: manifest.name.clone(),
            is_template: manifest.kind == TenantKind::Template,
            created_at: manifest.created_at,
            history: manifest.history,
            served_by: manifest.owner.as_ref().map(|owner| owner.place.clone()),
            branches,
        })
    }

    async fn describe_branch(
        &self,
        manifest: &TenantManifest,
        entry: &BranchEntry,
    ) -> Result<Branch, Error> {
        let ancestor = match entry.ancestor {
            None => None,
            Some(from) => {
                let name = if from.tenant == manifest.tenant {
                    manifest.branch_of(from.timeline).map(|branch| branch.name.clone())
                } else {
                    Some(self.manifest(from.tenant).await?.name.clone())
                };
                let timeline = TenantTimeline { tenant: from.tenant, timeline: from.timeline };
                let name = name.unwrap_or_else(|| from.timeline.to_string());
                Some(Ancestor { timeline, name, point: from.point })
            }
        };
        Ok(Branch {
            name: entry.name.clone(),
            timeline: manifest.timeline(entry.timeline),
            ancestor,
            origin: entry.origin,
            created_at: entry.created_at,
        })
    }
}
