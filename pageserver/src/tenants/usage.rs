//! What tenants take and give.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::path::Path;
use protocol::{TenantId, TenantTimeline, TimelineId};
use wal_format::Lsn;

use super::{LIST_CONCURRENCY, Tenants};
use crate::{
    engine::tenant_folder,
    error::Error,
    manifest::{AncestorEntry, BranchEntry, TenantKind, TenantManifest},
    metering::{LogicalSize, Meter, Spent, Usage},
    store::unavailable,
};

/// Fewer branches whose manifests are not known are each asked for by themselves.
const MET_ALONE_MAX: usize = 4;

/// Meters of timelines that were read for one question.
type ReadMeters = HashMap<TenantTimeline, Meter>;

/// Whose tenants are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// All.
    Anybodys,
    /// All but those that another pageserver serves.
    Ours,
}

/// A tenant's usage, by branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantUsage {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its branches, in the order in which their timelines were made.
    pub branches: Vec<BranchUsage>,
    /// What branches used that are deleted.
    pub deleted_branches: Spent,
}

impl TenantUsage {
    /// All of its branches together, and what deleted ones have used. What one branch has written and another reads is counted once
    /// as stored, and again as inherited.
    pub fn total(&self) -> Usage {
        let deleted = Usage::from(self.deleted_branches);
        self.branches.iter().fold(deleted, |total, branch| total + branch.usage)
    }
}

/// A branch's usage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BranchUsage {
    /// Its name.
    pub name: String,
    /// Its timeline.
    pub timeline: TimelineId,
    /// What it takes and gives.
    pub usage: Usage,
}

impl Tenants {
    /// The usage of up to `count` tenants, by name, from the first after `after` on; and the last name
    /// that was looked at, where there are more.
    pub async fn usage(
        &self,
        after: &str,
        count: usize,
    ) -> Result<(Vec<TenantUsage>, Option<String>), Error> {
        let (names, next) = self.names.page(after, count).await?;
        let page = stream::iter(names).map(|name| self.usage_by_name(name, Whose::Anybodys));
        let found: Vec<_> = page.buffered(LIST_CONCURRENCY).try_collect().await?;
        Ok((found.into_iter().flatten().collect(), next))
    }

    /// The same of `count` tenants, but for those that another pageserver serves: of these it knows
    /// what was so once. Neither is one there whose usage cannot be read: the others are told.
    pub async fn usage_of_served(
        &self,
        after: &str,
        count: usize,
    ) -> Result<(Vec<TenantUsage>, Option<String>), Error> {
        let (names, next) = self.names.page(after, count).await?;
        let page = stream::iter(names).map(async |name| {
            let usage = self.usage_by_name(name.clone(), Whose::Ours).await;
            known_usage(&name, usage)
        });
        let page: Vec<_> = page.buffered(LIST_CONCURRENCY).collect().await;
        Ok((page.into_iter().flatten().collect(), next))
    }

    /// The moment now, to ask what has changed since: before anything is read.
    pub fn usage_moment(&self) -> String {
        format!("{}-{}", self.process, self.engine.changed.count())
    }

    /// The usage of up to `count` tenants that may have changed since a moment of this process, by id,
    /// from the first after `after` on; and the last id that was looked at, where there are more. As
    /// with [`Tenants::usage_of_served`]. `None` where the moment is not known.
    pub async fn usage_since(
        &self,
        moment: &str,
        after: Option<TenantId>,
        count: usize,
    ) -> Option<(Vec<TenantUsage>, Option<TenantId>)> {
        let (process, changes) = moment.split_once('-')?;
        let changes = changes.parse().ok().filter(|_| process == self.process)?;
        let mut ids = self.engine.changed.since(changes)?;
        // What is in memory changes with each record.
        let written = self.loaded().into_iter().filter(|timeline| !timeline.is_read_only());
        ids.extend(written.map(|timeline| timeline.id().tenant));
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        ids.dedup();
        let has_more = ids.len() > count;
        ids.truncate(count);
        let next = ids.last().copied().filter(|_| has_more);
        let page = stream::iter(ids).map(async |id| {
            let usage = self.usage_by_id(id, Whose::Ours).await;
            known_usage(&id.to_string(), usage)
        });
        let page: Vec<_> = page.buffered(LIST_CONCURRENCY).collect().await;
        Some((page.into_iter().flatten().collect(), next))
    }

    async fn usage_by_name(
        &self,
        name: String,
        whose: Whose,
    ) -> Result<Option<TenantUsage>, Error> {
        match self.names.look_up(TenantKind::Tenant, &name).await? {
            Some(id) => self.usage_by_id(id, whose).await,
            None => Ok(None),
        }
    }

    /// `None` where it was deleted meanwhile, or is being deleted. Of a tenant that nobody uses nothing
    /// is kept that is read for it: one that does not change is not asked for again.
    async fn usage_by_id(&self, id: TenantId, whose: Whose) -> Result<Option<TenantUsage>, Error> {
        let is_used = self.manifests.lock().contains_key(&id);
        let manifest = match is_used {
            true => self.manifest(id).await,
            false => self.stored_manifest(id).await.map(Arc::new),
        };
        let manifest = match manifest {
            Ok(manifest) if manifest.deleted || manifest.kind == TenantKind::Template => {
                return Ok(None);
            }
            Ok(manifest) if whose == Whose::Ours && self.is_elsewhere(&manifest) => {
                return Ok(None);
            }
            Ok(manifest) => manifest,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = self.read_meters(&manifest).await?;
        if is_used {
            self.keep_meters(&read);
        }
        self.usage_of_manifest(&manifest, &read).await.map(Some)
    }

    /// The same of these tenants. With `measure`, timelines in memory are as large as they are now.
    pub async fn usage_of_some(
        &self,
        names: Vec<String>,
        measure: bool,
    ) -> Result<Vec<TenantUsage>, Error> {
        let of_one = async |name: String| {
            let manifest = match self.find(TenantKind::Tenant, &name).await {
                Ok(manifest) if self.is_elsewhere(&manifest) => return None,
                Ok(manifest) => manifest,
                Err(Error::NotFound(_)) => return None,
                Err(error) => {
                    tracing::warn!(tenant = name, %error, "a tenant's usage is not known");
                    return None;
                }
            };
            if measure {
                self.measure_loaded(&manifest).await;
            }
            match self.usage_of(&name).await {
                Err(Error::NotFound(_)) => None,
                usage => known_usage(&name, usage.map(Some)),
            }
        };
        let some = stream::iter(names).map(of_one).buffered(LIST_CONCURRENCY);
        Ok(some.filter_map(async |usage| usage).collect().await)
    }

    /// Takes note of how large a tenant's timelines are that are in memory.
    async fn measure_loaded(&self, manifest: &TenantManifest) {
        for branch in &manifest.branches {
            let Some(timeline) = self.if_loaded(manifest.timeline(branch.timeline)) else {
                continue;
            };
            let (id, lsn) = (timeline.id(), timeline.last_record_lsn());
            let measured = async {
                self.meter(id).await?;
                timeline.logical_size(lsn).await
            };
            match measured.await {
                Ok(bytes) => self.engine.meters.note_measured(id, LogicalSize { lsn, bytes }),
                Err(error) => {
                    tracing::debug!(timeline = %id, %error, "its size is as it was");
                }
            }
        }
    }

    /// The usage of the tenant of this name or id.
    pub async fn usage_of(&self, tenant: &str) -> Result<TenantUsage, Error> {
        let manifest = self.find(TenantKind::Tenant, tenant).await?;
        let read = self.read_meters(&manifest).await?;
        self.keep_meters(&read);
        self.usage_of_manifest(&manifest, &read).await
    }

    /// `read`: the meters that are not in memory.
    async fn usage_of_manifest(
        &self,
        manifest: &TenantManifest,
        read: &ReadMeters,
    ) -> Result<TenantUsage, Error> {
        let mut last_read = HashMap::new();
        for from in manifest.branches.iter().filter_map(|branch| branch.ancestor) {
            let known = last_read.entry(from.timeline).or_insert(Lsn::INVALID);
            *known = from.point.lsn.max(*known);
        }
        let mut branches = Vec::with_capacity(manifest.branches.len());
        for branch in &manifest.branches {
            let read_at = last_read.get(&branch.timeline).copied();
            let usage = self.usage_of_branch((manifest, read), branch, read_at).await?;
            branches.push(BranchUsage {
                name: branch.name.clone(),
                timeline: branch.timeline,
                usage,
            });
        }
        Ok(TenantUsage {
            id: manifest.tenant,
            name: manifest.name.clone(),
            branches,
            deleted_branches: manifest.deleted_branches,
        })
    }

    /// The size of a timeline at an LSN, where that is known without reading anything.
    pub(super) async fn known_size(&self, id: TenantTimeline, at: Lsn) -> Option<u64> {
        match self.if_loaded(id) {
            Some(timeline) => timeline.logical_size(at).await.ok(),
            None => {
                let measured = self.meter(id).await.ok()?.logical_size?;
                (measured.lsn == at).then_some(measured.bytes)
            }
        }
    }

    /// `read_at`: the highest LSN at which a branch was made from it.
    async fn usage_of_branch(
        &self,
        (manifest, read): (&TenantManifest, &ReadMeters),
        branch: &BranchEntry,
        read_at: Option<Lsn>,
    ) -> Result<Usage, Error> {
        let id = manifest.timeline(branch.timeline);
        let begin = branch.origin.point.lsn;
        let meter = self.meter_or(id, read).await?;
        let Spent { wal_written_bytes, given } = self.spent(id, begin, &meter);
        let size = match (meter.logical_size, branch.logical_size) {
            (Some(measured), _) => measured.bytes,
            (None, Some(bytes)) => bytes,
            // Of a branch that was made while its parent was not in memory, and has written nothing.
            (None, None) => self.measure(id, begin).await?,
        };
        let stored_bytes = meter.stored_bytes();
        let shared_bytes = read_at.map_or(0, |lsn| meter.bytes_read_at(lsn));
        Ok(Usage {
            logical_size_bytes: size,
            stored_bytes,
            unique_bytes: stored_bytes - shared_bytes,
            shared_bytes,
            inherited_bytes: self.inherited_bytes((manifest, read), branch.ancestor).await?,
            wal_written_bytes,
            pages_read: given.pages_read,
            bytes_sent: given.bytes_sent,
        })
    }

    /// What a timeline has used, of which this is the meter: what is in memory is newer.
    fn spent(&self, id: TenantTimeline, begin: Lsn, meter: &Meter) -> Spent {
        let (last_record_lsn, given) = match self.if_loaded(id) {
            Some(timeline) => (timeline.last_record_lsn(), timeline.given()),
            None => (meter.last_record_lsn.unwrap_or(begin), meter.given),
        };
        Spent { wal_written_bytes: last_record_lsn.0.saturating_sub(begin.0), given }
    }

    /// What a branch has used that is about to be deleted; nothing where its meter is not known.
    pub(super) fn known_spent(&self, id: TenantTimeline, begin: Lsn) -> Spent {
        let meter = self.engine.meters.get(id).unwrap_or_default();
        self.spent(id, begin, &meter)
    }

    async fn measure(&self, id: TenantTimeline, at: Lsn) -> Result<u64, Error> {
        let bytes = self.timeline_as_stored(id).await?.logical_size(at).await?;
        self.engine.meters.note_size(id, LogicalSize { lsn: at, bytes });
        Ok(bytes)
    }

    /// What a branch reads of those it came from. One that was made below its parent's beginning
    /// leaves the parent's ancestors there too, before the parent does.
    async fn inherited_bytes(
        &self,
        (own, read): (&TenantManifest, &ReadMeters),
        ancestor: Option<AncestorEntry>,
    ) -> Result<u64, Error> {
        let mut bytes = 0;
        let (mut next, mut at) = (ancestor, Lsn::MAX);
        while let Some(from) = next {
            at = at.min(from.point.lsn);
            let id = TenantTimeline { tenant: from.tenant, timeline: from.timeline };
            bytes += self.meter_or(id, read).await?.bytes_read_at(at);
            let branch_of = |manifest: &TenantManifest| {
                manifest.branch_of(id.timeline).and_then(|branch| branch.ancestor)
            };
            next = match id.tenant == own.tenant {
                true => branch_of(own),
                false => branch_of(&*self.manifest(id.tenant).await?),
            };
        }
        Ok(bytes)
    }

    /// The meters of a tenant's timelines that are not in memory. By one list it is known which have
    /// nothing of their own: most branches are so, and none of them is then asked for by itself.
    async fn read_meters(&self, manifest: &TenantManifest) -> Result<ReadMeters, Error> {
        let timelines = manifest.branches.iter().map(|branch| branch.timeline);
        let is_new = |timeline: &TimelineId| !self.engine.meters.has(manifest.timeline(*timeline));
        let unmet: Vec<TimelineId> = timelines.filter(is_new).collect();
        let has_objects = &self.timelines_with_objects(manifest.tenant, &unmet).await?;
        let read = stream::iter(unmet).map(async |timeline| {
            let id = manifest.timeline(timeline);
            let meter = match has_objects.contains(&timeline) {
                true => self.stored_meter(id).await?,
                false => Meter::default(),
            };
            Ok::<_, Error>((id, meter))
        });
        read.buffered(LIST_CONCURRENCY).try_collect().await
    }

    fn keep_meters(&self, read: &ReadMeters) {
        for (id, meter) in read {
            self.engine.meters.note_read(*id, meter.clone());
        }
    }

    /// Which of a tenant's timelines may have objects of their own: by one list, or all where they
    /// are few.
    pub(super) async fn timelines_with_objects(
        &self,
        tenant: TenantId,
        timelines: &[TimelineId],
    ) -> Result<HashSet<TimelineId>, Error> {
        let all: HashSet<TimelineId> = timelines.iter().copied().collect();
        if all.len() < MET_ALONE_MAX {
            return Ok(all);
        }
        let folder = tenant_folder(tenant).join("timelines");
        let listed = self.engine.store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| unavailable(&folder, &error))?;
        let id = |path: &Path| path.filename()?.parse().ok();
        Ok(listed.common_prefixes.iter().filter_map(id).filter(|id| all.contains(id)).collect())
    }

    /// A timeline's meter: what is in memory is newer than what was read.
    async fn meter_or(&self, id: TenantTimeline, read: &ReadMeters) -> Result<Meter, Error> {
        match self.engine.meters.get(id).or_else(|| read.get(&id).cloned()) {
            Some(known) => Ok(known),
            None => self.meter(id).await,
        }
    }

    /// A timeline's meter. Read from the store where it was not met since the start.
    fn meter(&self, id: TenantTimeline) -> BoxFuture<'_, Result<Meter, Error>> {
        Box::pin(async move {
            if let Some(known) = self.engine.meters.get(id) {
                return Ok(known);
            }
            let read = self.stored_meter(id).await?;
            // One that was written meanwhile is newer.
            Ok(self.engine.meters.note_read(id, read))
        })
    }

    async fn stored_meter(&self, id: TenantTimeline) -> Result<Meter, Error> {
        let newest = self.stored_timeline(id).await?;
        Ok(newest.as_ref().map(Meter::of).unwrap_or_default())
    }
}

/// One that cannot be read is left out.
fn known_usage(tenant: &str, usage: Result<Option<TenantUsage>, Error>) -> Option<TenantUsage> {
    let failed = |error: &Error| tracing::warn!(tenant, %error, "a tenant's usage is not known");
    usage.inspect_err(failed).ok().flatten()
}
