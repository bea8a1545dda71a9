//! What is in memory of tenants and timelines: loaded on first use.

use std::{ops::RangeInclusive, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use protocol::{TenantId, TenantTimeline, TimelineId};
use tokio::{sync::OnceCell, time::Instant};
use wal_format::Lsn;

use super::{Tenants, ownership::TAKES_MAX};
use crate::{
    engine::tenant_folder,
    error::Error,
    manifest::{AncestorEntry, Sequence, TenantKind, TenantManifest},
    timeline::{AncestorTimeline, Timeline, TimelineFacts},
};

/// A tenant's newest manifest. The lock is held while the next one is written: changes of one
/// tenant follow each other.
pub type Slot = tokio::sync::Mutex<Option<LoadedTenant>>;
/// A timeline; empty while it is loaded.
pub type TimelineCell = OnceCell<Arc<Timeline>>;

/// A tenant whose manifest was read.
pub struct LoadedTenant {
    pub sequence: Sequence,
    pub manifest: Arc<TenantManifest>,
    /// When somebody asked for it last.
    pub used: Instant,
}

/// What a timeline is loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// It is read and written: its tenant must be this process'.
    Serve,
    /// Its tenant is about to be taken: what another pageserver writes is read, nothing is written.
    Warm,
}

impl Tenants {
    /// The timeline, loaded on first use with its ancestors.
    pub async fn timeline(&self, id: TenantTimeline) -> Result<Arc<Timeline>, Error> {
        self.timeline_reaching(id, Lsn::MAX).await
    }

    /// The timeline as its layers have it: nobody ingests into it for the sake of this.
    pub async fn timeline_as_stored(&self, id: TenantTimeline) -> Result<Arc<Timeline>, Error> {
        self.timeline_reaching(id, Lsn::INVALID).await
    }

    /// The timeline, where it is loaded now.
    pub(super) fn if_loaded(&self, id: TenantTimeline) -> Option<Arc<Timeline>> {
        self.timelines.lock().get(&id).and_then(|cell| cell.get().cloned())
    }

    /// All timelines that are loaded now.
    pub fn loaded(&self) -> Vec<Arc<Timeline>> {
        self.timelines.lock().values().filter_map(|cell| cell.get().cloned()).collect()
    }

    /// The tenant's newest manifest; a deleted tenant is not found.
    pub(super) async fn manifest(&self, id: TenantId) -> Result<Arc<TenantManifest>, Error> {
        let slot = self.slot(id);
        let mut slot_guard = slot.lock().await;
        let found = self.refresh(id, &mut slot_guard).await.map(|tenant| tenant.manifest.clone());
        if slot_guard.is_none() {
            self.manifests.lock().remove(&id);
        }
        found.and_then(
            |manifest| if manifest.deleted { Err(Error::no_tenant(id)) } else { Ok(manifest) },
        )
    }

    /// Writes the tenant's next manifest, which `change` makes from the newest, where this process
    /// serves the tenant or may. Where that fails, what is in the store is read again at the next
    /// use.
    pub(super) async fn change(
        &self,
        id: TenantId,
        change: impl FnOnce(&mut TenantManifest) -> Result<(), Error>,
    ) -> Result<Arc<TenantManifest>, Error> {
        let change = |next: &mut TenantManifest| {
            self.take_into(next)?;
            change(next)
        };
        self.write_next(id, change).await
    }

    /// The same, whoever serves the tenant. What changes nothing is not written.
    pub(super) async fn write_next(
        &self,
        id: TenantId,
        change: impl FnOnce(&mut TenantManifest) -> Result<(), Error>,
    ) -> Result<Arc<TenantManifest>, Error> {
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        let tenant = self.refresh(id, &mut slot).await?;
        if tenant.manifest.deleted {
            return Err(Error::no_tenant(id));
        }
        let mut next = TenantManifest::clone(&tenant.manifest);
        change(&mut next)?;
        if next == *tenant.manifest {
            return Ok(tenant.manifest.clone());
        }
        let prepared = tenant.sequence.prepare_after(&*tenant.manifest, &next)?;
        let published = tenant.sequence.publish(prepared).await;
        // Also where it failed: it may be there all the same.
        self.engine.note_written(id);
        if let Err(error) = published {
            *slot = None;
            if matches!(error, Error::Fenced { .. }) {
                self.lose(id);
            }
            return Err(error);
        }
        self.note_owner(&next);
        tenant.manifest = Arc::new(next);
        tokio::spawn(tenant.sequence.collect());
        Ok(tenant.manifest.clone())
    }

    /// Remembers a tenant that was just written.
    pub(super) fn remember(&self, tenant: LoadedTenant) {
        let id = tenant.manifest.tenant;
        self.manifests.lock().insert(id, Arc::new(Slot::new(Some(tenant))));
    }

    /// Stops a tenant's timelines and forgets them; with `one`, that one alone.
    pub(super) fn stop_timelines(&self, tenant: TenantId, one: Option<TimelineId>) {
        let ids = match one {
            Some(timeline) => {
                TenantTimeline { tenant, timeline }..=TenantTimeline { tenant, timeline }
            }
            None => timelines_of(tenant),
        };
        for (_, cell) in self.timelines.lock().extract_if(ids.clone(), |_, _| true) {
            if let Some(timeline) = cell.get() {
                timeline.stop();
            }
        }
        self.written.lock().extract_if(ids.clone(), |_, _| true).for_each(drop);
        self.engine.meters.forget(ids);
    }

    pub(super) fn slot(&self, id: TenantId) -> Arc<Slot> {
        self.manifests.lock().entry(id).or_default().clone()
    }

    pub(super) async fn load_tenant<'s>(
        &self,
        id: TenantId,
        slot: &'s mut Option<LoadedTenant>,
    ) -> Result<&'s mut LoadedTenant, Error> {
        if slot.is_none() {
            let store = self.engine.store.clone();
            let (sequence, manifest) = Sequence::open(store, tenant_folder(id)).await?;
            let manifest = Arc::new(manifest.ok_or_else(|| Error::no_tenant(id))?);
            let sequence = match self.resting.lock().remove(&id) {
                Some(resting) => sequence.resume(resting),
                None => sequence,
            };
            *slot = Some(LoadedTenant { sequence, manifest, used: Instant::now() });
        }
        let tenant = slot.as_mut().ok_or_else(|| Error::no_tenant(id))?;
        tenant.used = Instant::now();
        Ok(tenant)
    }

    /// The timeline, and who ingests into it unless its layers reach `needed`.
    async fn timeline_reaching(
        &self,
        id: TenantTimeline,
        needed: Lsn,
    ) -> Result<Arc<Timeline>, Error> {
        self.timeline_for(id, needed, Purpose::Serve).await
    }

    /// The same. One that is to be served is this process' own before anybody gets hold of it.
    pub(super) async fn timeline_for(
        &self,
        id: TenantTimeline,
        needed: Lsn,
        purpose: Purpose,
    ) -> Result<Arc<Timeline>, Error> {
        if purpose == Purpose::Warm {
            return self.load_reaching(id, needed, purpose).await;
        }
        if !self.is_watched(id.tenant) {
            // Nobody has looked since its last timeline left memory.
            self.look(id.tenant).await?;
        }
        let generation = self.hold(id.tenant).await?;
        let mut last = Error::ShuttingDown;
        for _ in 0..TAKES_MAX {
            let timeline = self.load_reaching(id, needed, purpose).await?;
            match timeline.take_over(generation).await {
                Ok(()) => return Ok(timeline),
                // The owner before went on writing: loaded again.
                Err(error @ Error::ShuttingDown) if !self.engine.stop.is_cancelled() => {
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Whether a timeline of the tenant is in memory: then it is looked whose the tenant is.
    pub(super) fn is_watched(&self, tenant: TenantId) -> bool {
        let timelines = self.timelines.lock();
        timelines.range(timelines_of(tenant)).any(|(_, cell)| cell.initialized())
    }

    async fn load_reaching(
        &self,
        id: TenantTimeline,
        needed: Lsn,
        purpose: Purpose,
    ) -> Result<Arc<Timeline>, Error> {
        let cell = self.cell(id);
        let loaded = cell.get_or_try_init(|| self.load_timeline(id, purpose)).await.cloned();
        let timeline = match loaded {
            Ok(timeline) => timeline,
            Err(error) => {
                let mut timelines = self.timelines.lock();
                if timelines.get(&id).is_some_and(|known| known.get().is_none()) {
                    timelines.remove(&id);
                }
                return Err(error);
            }
        };
        timeline.note_use(Instant::now());
        if timeline.remote_consistent_lsn() < needed && timeline.begin_ingest() {
            (self.on_load)(timeline.clone());
        }
        Ok(timeline)
    }

    /// The timeline's cell; a new one where the timeline was stopped because it has to be loaded
    /// again.
    fn cell(&self, id: TenantTimeline) -> Arc<TimelineCell> {
        let mut timelines = self.timelines.lock();
        let known = timelines.get(&id).and_then(|cell| cell.get());
        let is_stopped = known.is_some_and(|timeline| timeline.stopped().is_cancelled());
        if is_stopped && !self.engine.stop.is_cancelled() {
            timelines.remove(&id);
        }
        timelines.entry(id).or_default().clone()
    }

    fn load_timeline(
        &self,
        id: TenantTimeline,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Arc<Timeline>, Error>> {
        async move {
            let missing = || Error::NotFound(format!("timeline {id}"));
            let manifest = self.manifest(id.tenant).await?;
            let entry = manifest.branch_of(id.timeline).ok_or_else(missing)?;
            let ancestor = match entry.ancestor {
                None => None,
                Some(from) => Some(self.load_ancestor(id, from, purpose).await?),
            };
            let facts = TimelineFacts {
                id,
                origin: entry.origin,
                ancestor,
                tenant_created_at: manifest.created_at,
                checksums: manifest.checksums,
                read_only: manifest.kind == TenantKind::Template,
                is_warming: purpose == Purpose::Warm && manifest.kind == TenantKind::Tenant,
            };
            let written = self.written.lock().get(&id).cloned();
            let timeline = Timeline::load(self.engine.clone(), facts, written).await?;
            // Deleted while it was loaded: nobody else would stop it.
            let now = self.manifest(id.tenant).await;
            if !now.is_ok_and(|now| now.branch_of(id.timeline).is_some()) {
                timeline.stop();
                return Err(missing());
            }
            Ok(timeline)
        }
        .boxed()
    }

    /// A timeline sees its own tenant's history and a template's, never another tenant's.
    async fn load_ancestor(
        &self,
        child: TenantTimeline,
        from: AncestorEntry,
        purpose: Purpose,
    ) -> Result<AncestorTimeline, Error> {
        let id = TenantTimeline { tenant: from.tenant, timeline: from.timeline };
        let lsn = from.point.lsn;
        if id.tenant != child.tenant && self.manifest(id.tenant).await?.kind != TenantKind::Template
        {
            return Err(Error::Corrupt {
                object: tenant_folder(child.tenant).to_string(),
                offset: 0,
                expected: "an ancestor in the same tenant or in a template".to_owned(),
                found: format!("timeline {id} of another tenant"),
            });
        }
        Ok(AncestorTimeline { timeline: self.timeline_for(id, lsn, purpose).await?, lsn })
    }
}

/// All timelines that a tenant may have, in their order.
fn timelines_of(tenant: TenantId) -> RangeInclusive<TenantTimeline> {
    let timeline = |bits| TenantTimeline { tenant, timeline: TimelineId::from_bits(bits) };
    timeline(0)..=timeline(u128::MAX)
}
