//! New tenants, new branches, and restoring one in place: each one manifest.

use std::sync::Arc;

use protocol::{BranchPoint, TenantId, TimelineId, TimelineOrigin};
use tokio::time::Instant;

use super::{
    Branch, MAIN_BRANCH, Tenant, Tenants,
    loaded::LoadedTenant,
    names::{NAME_BYTES_MAX, check_name, taken},
    retention::check_window,
    snapshots::{Beginning, find_timeline},
};
use crate::{
    clock,
    engine::tenant_folder,
    error::Error,
    manifest::{AncestorEntry, BranchEntry, Sequence, TenantKind, TenantManifest},
    metering::Spent,
    timeline::Window,
};

impl Tenants {
    /// A new tenant, whose branch `main` begins as the template is.
    pub async fn create_tenant(&self, name: &str, template: &str) -> Result<Tenant, Error> {
        self.create_tenant_with(name, template, Window::default()).await
    }

    /// A new tenant that keeps this much history.
    pub async fn create_tenant_with(
        &self,
        name: &str,
        template: &str,
        history: Window,
    ) -> Result<Tenant, Error> {
        check_name(name)?;
        check_window(history)?;
        let template = self.find(TenantKind::Template, template).await?;
        let source = template.branches.first().filter(|_| template.kind == TenantKind::Template);
        if template.closed {
            // It may have been opened again since.
            self.check_open(template.tenant).await?;
        }
        let source =
            source.ok_or_else(|| Error::NotFound(format!("template {:?}", template.name)))?;
        let id = TenantId::from_bits(rand::random());
        let now = clock::now();
        let timeline = template.timeline(source.timeline);
        let logical_size = self.known_size(timeline, source.origin.point.lsn).await;
        let main = BranchEntry {
            name: MAIN_BRANCH.to_owned(),
            timeline: TimelineId::from_bits(rand::random()),
            ancestor: Some(AncestorEntry {
                tenant: template.tenant,
                timeline: source.timeline,
                point: source.origin.point,
            }),
            origin: source.origin,
            created_at: now,
            logical_size,
        };
        let manifest = TenantManifest {
            tenant: id,
            name: name.to_owned(),
            kind: TenantKind::Tenant,
            created_at: now,
            checksums: template.checksums,
            history,
            owner: Some(self.owner(1)),
            closed: false,
            marks_children: false,
            deleted: false,
            deleted_branches: Spent::default(),
            branches: vec![Arc::new(main)],
            snapshots: Vec::new(),
        };
        let manifest = self.publish_new(manifest, Some(template.tenant)).await?;
        self.describe(&manifest).await
    }

    /// Writes a new tenant's first manifest, then its name: from then on it exists. One of a
    /// template is refused where that was closed meanwhile.
    pub(super) async fn publish_new(
        &self,
        manifest: TenantManifest,
        template: Option<TenantId>,
    ) -> Result<Arc<TenantManifest>, Error> {
        let (id, kind) = (manifest.tenant, manifest.kind);
        self.free_if_deleted(kind, &manifest.name).await?;
        let mut sequence = Sequence::create(self.engine.store.clone(), tenant_folder(id));
        let prepared = sequence.prepare(&manifest)?;
        let published = sequence.publish(prepared);
        match template {
            None => published.await?,
            Some(template) => {
                futures::try_join!(published, self.mark_child(template, id))?;
                if let Err(error) = self.check_open(template).await {
                    self.remove_child(template, id).await;
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.names.take(kind, &manifest.name, id).await {
            match template {
                _ if !matches!(error, Error::Exists(_)) => {}
                Some(template) => self.remove_child(template, id).await,
                None => self.remove_folder(&tenant_folder(id)).await,
            }
            return Err(error);
        }
        let manifest = Arc::new(manifest);
        self.note_owner(&manifest);
        let used = Instant::now();
        self.remember(LoadedTenant { sequence, manifest: manifest.clone(), used });
        self.engine.changed.note(id);
        Ok(manifest)
    }

    /// A name that a deletion left behind is freed; one that is in use is refused.
    async fn free_if_deleted(&self, kind: TenantKind, name: &str) -> Result<(), Error> {
        let Some(id) = self.names.find(kind, name).await? else { return Ok(()) };
        match self.manifest(id).await {
            Ok(_) => Err(taken(kind, name)),
            Err(Error::NotFound(_)) => {
                self.names.free(kind, name).await?;
                self.remove_folder(&tenant_folder(id)).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A new branch of `from` as it was at `point`, from
    /// [`round_down`](crate::timeline::Timeline::round_down) or
    /// [`point_at_time`](crate::timeline::Timeline::point_at_time).
    pub async fn create_branch(
        &self,
        tenant: TenantId,
        name: &str,
        from: &str,
        point: BranchPoint,
    ) -> Result<Branch, Error> {
        self.begin_branch(tenant, name, Beginning::Point(from, point)).await
    }

    /// A new branch.
    pub async fn begin_branch(
        &self,
        tenant: TenantId,
        name: &str,
        beginning: Beginning<'_>,
    ) -> Result<Branch, Error> {
        check_name(name)?;
        let now = clock::now();
        let timeline = TimelineId::from_bits(rand::random());
        let logical_size = self.branch_size(tenant, beginning).await?;
        let mut began = None;
        let manifest = self
            .change(tenant, |manifest| {
                refuse_template(manifest)?;
                refuse_taken(manifest, name)?;
                let (parent, point) = beginning.find(manifest)?;
                began = Some((parent.timeline, point));
                let from = (parent, point);
                let entry = child(manifest, from, name, timeline, now, logical_size);
                manifest.branches.push(Arc::new(entry));
                Ok(())
            })
            .await?;
        if let Some((parent, point)) = began
            && let Err(error) = self.check_kept(&manifest, parent, point, beginning).await
        {
            return Err(self.take_back(tenant, timeline, None, error).await);
        }
        self.describe_branch(&manifest, find_timeline(&manifest, timeline)?).await
    }

    /// Gives the branch's name to a new timeline that begins as the branch was at `point`; the old
    /// timeline, with its children, becomes the branch `keep_as` (default: `<name>_old_<time>`).
    /// The new branch, and the old one under its new name.
    pub async fn restore(
        &self,
        tenant: TenantId,
        branch: &str,
        point: BranchPoint,
        keep_as: Option<&str>,
    ) -> Result<(Branch, Branch), Error> {
        self.restore_to(tenant, branch, Beginning::Point(branch, point), keep_as).await
    }

    /// The same, to any beginning: also to a snapshot of another branch.
    pub async fn restore_to(
        &self,
        tenant: TenantId,
        branch: &str,
        beginning: Beginning<'_>,
        keep_as: Option<&str>,
    ) -> Result<(Branch, Branch), Error> {
        let now = clock::now();
        let timeline = TimelineId::from_bits(rand::random());
        let logical_size = self.branch_size(tenant, beginning).await?;
        let mut old_timeline = timeline;
        let mut began = None;
        let manifest = self
            .change(tenant, |manifest| {
                refuse_template(manifest)?;
                let old = find_branch(manifest, branch)?.clone();
                let kept = match keep_as {
                    Some(name) => {
                        check_name(name)?;
                        refuse_taken(manifest, name)?;
                        name.to_owned()
                    }
                    None => free_name(manifest, &old.name, now),
                };
                let (parent, point) = beginning.find(manifest)?;
                began = Some((parent.timeline, point));
                let from = (parent, point);
                let entry = child(manifest, from, &old.name, timeline, now, logical_size);
                let is_old = |entry: &&mut Arc<BranchEntry>| entry.timeline == old.timeline;
                if let Some(old) = manifest.branches.iter_mut().find(is_old) {
                    Arc::make_mut(old).name = kept;
                }
                manifest.branches.push(Arc::new(entry));
                old_timeline = old.timeline;
                Ok(())
            })
            .await?;
        if let Some((parent, point)) = began
            && let Err(error) = self.check_kept(&manifest, parent, point, beginning).await
        {
            return Err(self.take_back(tenant, timeline, Some(old_timeline), error).await);
        }
        let new = find_timeline(&manifest, timeline)?;
        let old = find_timeline(&manifest, old_timeline)?;
        Ok((
            self.describe_branch(&manifest, new).await?,
            self.describe_branch(&manifest, old).await?,
        ))
    }
}

impl Tenants {
    /// How large a branch is where another is made from it, if that is known.
    async fn branch_size(
        &self,
        tenant: TenantId,
        beginning: Beginning<'_>,
    ) -> Result<Option<u64>, Error> {
        let manifest = self.manifest(tenant).await?;
        let (parent, point) = beginning.find(&manifest)?;
        let timeline = manifest.timeline(parent.timeline);
        Ok(self.known_size(timeline, point.lsn).await)
    }

    /// Takes back a branch that was published and may not be; `restored` gets its name back. The
    /// reason, which the caller is told. Where taking back fails, the branch stays and says of
    /// itself that its history is gone.
    async fn take_back(
        &self,
        tenant: TenantId,
        timeline: TimelineId,
        restored: Option<TimelineId>,
        reason: Error,
    ) -> Error {
        let taken_back = self
            .change(tenant, |manifest| {
                let name = find_timeline(manifest, timeline)?.name.clone();
                manifest.branches.retain(|entry| entry.timeline != timeline);
                manifest.snapshots.retain(|entry| entry.timeline != timeline);
                let is_restored = |entry: &&mut Arc<BranchEntry>| Some(entry.timeline) == restored;
                if let Some(entry) = manifest.branches.iter_mut().find(is_restored) {
                    Arc::make_mut(entry).name = name;
                }
                Ok(())
            })
            .await;
        if let Err(error) = taken_back {
            tracing::warn!(%tenant, %timeline, %error, "a refused branch could not be taken back");
        }
        reason
    }
}

fn child(
    manifest: &TenantManifest,
    (parent, point): (&BranchEntry, BranchPoint),
    name: &str,
    timeline: TimelineId,
    now: i64,
    logical_size: Option<u64>,
) -> BranchEntry {
    let tenant = manifest.tenant;
    BranchEntry {
        name: name.to_owned(),
        timeline,
        ancestor: Some(AncestorEntry { tenant, timeline: parent.timeline, point }),
        origin: TimelineOrigin { point, ..parent.origin },
        created_at: now,
        logical_size,
    }
}

pub(super) fn find_branch<'m>(
    manifest: &'m TenantManifest,
    name_or_id: &str,
) -> Result<&'m BranchEntry, Error> {
    let by_id = || manifest.branch_of(name_or_id.parse().ok()?);
    manifest
        .branch(name_or_id)
        .or_else(by_id)
        .ok_or_else(|| Error::NotFound(format!("branch {name_or_id:?} of {:?}", manifest.name)))
}

pub(super) fn refuse_template(manifest: &TenantManifest) -> Result<(), Error> {
    match manifest.kind {
        TenantKind::Tenant => Ok(()),
        TenantKind::Template => {
            Err(Error::Invalid(format!("template {:?} is read-only", manifest.name)))
        }
    }
}

fn refuse_taken(manifest: &TenantManifest, name: &str) -> Result<(), Error> {
    match manifest.branch(name) {
        None => Ok(()),
        Some(_) => Err(Error::Exists(format!("branch {name:?} of {:?}", manifest.name))),
    }
}

/// A name for what `name` was until now.
fn free_name(manifest: &TenantManifest, name: &str, now: i64) -> String {
    let stamp = clock::name_part(now);
    let mut suffix = format!("_old_{stamp}");
    for count in 2_u32.. {
        // Names are ASCII: any length is a letter's boundary.
        let kept = &name[..name.len().min(NAME_BYTES_MAX - suffix.len())];
        let free = format!("{kept}{suffix}");
        if manifest.branch(&free).is_none() {
            return free;
        }
        suffix = format!("_old_{stamp}_{count}");
    }
    suffix
}
