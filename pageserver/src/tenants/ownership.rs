//! Which tenants this process serves.
//!
//! - A tenant's newest manifest names its owner: a pageserver's name, and one process of it. Taking
//!   a tenant is writing the next manifest, create-only, so of two that want it one comes later, and
//!   both know which.
//! - A process serves a tenant from the moment at which such a manifest of its own is there, until
//!   it learns of another's: told, by a manifest that it cannot write, or by looking. It then drops
//!   the tenant and goes on with the others.
//! - It takes a tenant unasked only where nobody has it, or a process of its own name that is not
//!   known to have come later. One that was lost is taken again only when somebody says so: two
//!   never take a tenant from each other in turn.
//! - Each timeline is fenced apart, before it is served (`Timeline::take_over`).

use std::time::Duration;

use protocol::{TenantId, TenantTimeline, TimelineId};
use wal_format::Lsn;

use super::{
    Tenants,
    loaded::{LoadedTenant, Purpose},
};
use crate::{
    error::Error,
    manifest::{Owner, Place, TenantKind, TenantManifest},
};

/// How often a tenant or a timeline that another pageserver goes on writing is tried to be taken.
pub(super) const TAKES_MAX: usize = 5;
/// How long WAL that the tenant's owner has may take to be ingested here, before and after.
const WARM_WAIT: Duration = Duration::from_secs(30);

/// What a tenant's manifest says to this process.
enum Standing {
    /// It serves the tenant.
    Ours(u64),
    /// It may take the tenant, as this generation.
    Free(u64),
    /// Another one serves it.
    Elsewhere(Owner),
    /// It is a template, or deleted: nobody's.
    Nobodys,
}

/// A timeline that the tenant's owner serves now, and how far its ingest is.
pub struct LiveTimeline {
    /// The timeline.
    pub timeline: TimelineId,
    /// What has to be ingested before the tenant is taken.
    pub last_record_lsn: Lsn,
}

impl Tenants {
    /// The same, under this name and with these addresses.
    pub fn at(mut self, place: Place) -> Tenants {
        self.place = place;
        self
    }

    /// This pageserver's name, and where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// This process as an owner.
    pub(super) fn owner(&self, generation: u64) -> Owner {
        Owner { place: self.place.clone(), process: self.process.clone(), generation }
    }

    /// Takes note of a manifest of this process.
    pub(super) fn note_owner(&self, manifest: &TenantManifest) {
        if let Standing::Ours(generation) = self.standing(manifest) {
            self.lost.lock().remove(&manifest.tenant);
            self.held.lock().insert(manifest.tenant, generation);
        }
    }

    fn standing(&self, manifest: &TenantManifest) -> Standing {
        if manifest.kind == TenantKind::Template || manifest.deleted {
            return Standing::Nobodys;
        }
        match &manifest.owner {
            None => Standing::Free(1),
            Some(owner) if owner.process == self.process => Standing::Ours(owner.generation),
            Some(owner)
                if owner.place.name == self.place.name
                    && !self.lost.lock().contains(&manifest.tenant) =>
            {
                Standing::Free(owner.generation + 1)
            }
            Some(owner) => Standing::Elsewhere(owner.clone()),
        }
    }

    /// Whether the tenant is this pageserver's, or was until a restart.
    pub(super) fn is_own(&self, manifest: &TenantManifest) -> bool {
        let standing = self.standing(manifest);
        matches!(standing, Standing::Ours(_))
            || matches!(standing, Standing::Free(_)) && manifest.owner.is_some()
    }

    /// Whether another pageserver serves the tenant, as far as is known here.
    pub(super) fn is_elsewhere(&self, manifest: &TenantManifest) -> bool {
        matches!(self.standing(manifest), Standing::Elsewhere(_))
    }

    /// Whether a manifest in memory may be out of date: its tenant is served by somebody else, who
    /// writes the next one.
    pub(super) fn may_be_old(&self, manifest: &TenantManifest) -> bool {
        !matches!(self.standing(manifest), Standing::Ours(_) | Standing::Nobodys)
    }

    /// Puts this process into the tenant's next manifest, where it may serve the tenant.
    pub(super) fn take_into(&self, next: &mut TenantManifest) -> Result<(), Error> {
        match self.standing(next) {
            Standing::Ours(_) | Standing::Nobodys => Ok(()),
            Standing::Free(generation) => {
                next.owner = Some(self.owner(generation));
                Ok(())
            }
            Standing::Elsewhere(owner) => Err(moved(next.tenant, owner)),
        }
    }

    /// Sees to it that this process serves the tenant, or says who does; the generation.
    pub(super) async fn hold(&self, id: TenantId) -> Result<u64, Error> {
        if let Some(generation) = self.held.lock().get(&id) {
            return Ok(*generation);
        }
        let manifest = self.manifest(id).await?;
        match self.standing(&manifest) {
            Standing::Ours(generation) => {
                self.note_owner(&manifest);
                Ok(generation)
            }
            Standing::Nobodys => Ok(0),
            Standing::Free(_) => self.write_owner(id, |next| self.take_into(next)).await,
            Standing::Elsewhere(owner) => Err(moved(id, owner)),
        }
    }

    /// Writes manifests until one is the newest, or another's says that it may not.
    async fn write_owner(
        &self,
        id: TenantId,
        mut prepare: impl FnMut(&mut TenantManifest) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let mut last = Error::ShuttingDown;
        for _ in 0..TAKES_MAX {
            match self.write_next(id, &mut prepare).await {
                Ok(manifest) => {
                    let owner = manifest.owner.as_ref();
                    return Ok(owner.map_or(0, |owner| owner.generation));
                }
                Err(error @ Error::Fenced { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Takes a tenant from whoever serves it. Its live timelines are loaded and brought up to date
    /// before, so that reads of them pause only while their computes find the way here.
    pub async fn take(&self, id: TenantId, live: &[LiveTimeline]) -> Result<u64, Error> {
        // What is in memory may be of a time before somebody else took it.
        self.look(id).await?;
        let manifest = self.manifest(id).await?;
        if manifest.kind == TenantKind::Template {
            return Err(Error::Invalid(format!(
                "{:?} is a template: every pageserver reads it",
                manifest.name
            )));
        }
        if !matches!(self.standing(&manifest), Standing::Ours(_))
            && let Err(error) = self.bring_up(id, live, Purpose::Warm).await
        {
            self.drop_warmed(id);
            return Err(error);
        }
        let taken = self
            .write_owner(id, |next| {
                if !matches!(self.standing(next), Standing::Ours(_)) {
                    let generation = next.owner.as_ref().map_or(0, |owner| owner.generation);
                    next.owner = Some(self.owner(generation + 1));
                }
                Ok(())
            })
            .await;
        let generation = match taken {
            Ok(generation) => generation,
            Err(error) => {
                self.drop_warmed(id);
                return Err(error);
            }
        };
        tracing::info!(tenant = %id, generation, "the tenant was taken");
        self.bring_up(id, live, Purpose::Serve).await?;
        Ok(generation)
    }

    async fn bring_up(
        &self,
        id: TenantId,
        live: &[LiveTimeline],
        purpose: Purpose,
    ) -> Result<(), Error> {
        let reaching = live.iter().map(async |live| {
            let timeline = TenantTimeline { tenant: id, timeline: live.timeline };
            self.bring_up_one(timeline, live.last_record_lsn, purpose).await
        });
        futures::future::try_join_all(reaching).await.map(|_| ())
    }

    /// Loads a timeline and waits until its ingest is there. One that has to be loaded again,
    /// because the other pageserver goes on writing, is.
    async fn bring_up_one(
        &self,
        id: TenantTimeline,
        lsn: Lsn,
        purpose: Purpose,
    ) -> Result<(), Error> {
        let mut last = Error::ShuttingDown;
        for _ in 0..TAKES_MAX {
            let timeline = match self.timeline_for(id, Lsn::MAX, purpose).await {
                Ok(timeline) => timeline,
                // Deleted meanwhile.
                Err(Error::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            match timeline.wait_for(lsn, WARM_WAIT).await {
                Err(Error::ShuttingDown) => last = Error::ShuttingDown,
                reached => return reached,
            }
        }
        Err(last)
    }

    fn drop_warmed(&self, id: TenantId) {
        if !self.held.lock().contains_key(&id) {
            self.stop_timelines(id, None);
        }
    }

    /// Whether the tenant is still this process'; drops it where another one has taken it.
    pub async fn look(&self, id: TenantId) -> Result<(), Error> {
        if !self.held.lock().contains_key(&id) {
            return Ok(());
        }
        let slot = self.slot(id);
        let mut slot = slot.lock().await;
        let is_superseded = match &*slot {
            Some(tenant) => tenant.sequence.is_superseded().await?,
            None => {
                let newest = self.load_tenant(id, &mut slot).await?;
                !matches!(self.standing(&newest.manifest), Standing::Ours(_))
            }
        };
        if is_superseded {
            *slot = None;
            self.lose(id);
        }
        Ok(())
    }

    /// Looks at all tenants that have timelines in memory.
    pub(super) async fn look_at_all(&self) {
        let mut tenants: Vec<TenantId> = self
            .loaded()
            .into_iter()
            .filter(|timeline| !timeline.is_read_only())
            .map(|timeline| timeline.id().tenant)
            .collect();
        tenants.sort_unstable();
        tenants.dedup();
        for id in tenants {
            if let Err(error) = self.look(id).await {
                tracing::debug!(tenant = %id, %error, "whose the tenant is was not found out");
            }
        }
    }

    /// Another process has taken the tenant: its timelines are dropped here.
    pub(super) fn lose(&self, id: TenantId) {
        if self.held.lock().remove(&id).is_none() {
            return;
        }
        self.lost.lock().insert(id);
        tracing::warn!(tenant = %id, "another pageserver has taken the tenant: it is dropped here");
        self.stop_timelines(id, None);
    }

    /// Reads the tenant again where what is in memory may be out of date, and takes note of who
    /// serves it.
    pub(super) async fn refresh<'s>(
        &self,
        id: TenantId,
        slot: &'s mut Option<LoadedTenant>,
    ) -> Result<&'s mut LoadedTenant, Error> {
        if let Some(tenant) = slot.as_ref()
            && self.may_be_old(&tenant.manifest)
            && !tenant.sequence.is_newest().await?
        {
            *slot = None;
        }
        let tenant = self.load_tenant(id, slot).await?;
        if !matches!(self.standing(&tenant.manifest), Standing::Ours(_)) {
            self.lose(id);
        }
        Ok(tenant)
    }
}

fn moved(tenant: TenantId, owner: Owner) -> Error {
    Error::Moved { tenant, to: Box::new(owner.place) }
}
