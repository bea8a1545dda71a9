//! The end of branches and tenants: first nothing refers to them, then their objects go.

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use protocol::{TenantId, TenantTimeline};

use super::{
    MAIN_BRANCH, Tenants,
    branches::{find_branch, refuse_template},
};
use crate::{
    engine::{tenant_folder, timeline_folder},
    error::Error,
    manifest::TenantManifest,
    metering::Meter,
};

impl Tenants {
    /// Deletes a branch that has neither children nor snapshots and is not `main`, and its objects.
    pub async fn delete_branch(&self, tenant: TenantId, branch: &str) -> Result<(), Error> {
        // What it has used stays in the tenant's account.
        let manifest = self.manifest(tenant).await?;
        let metered = manifest.timeline(find_branch(&manifest, branch)?.timeline);
        // From the store: another pageserver may have served it since it was met here.
        match self.stored_timeline(metered).await {
            Ok(Some(newest)) => self.engine.meters.note(metered, Meter::of(&newest)),
            Ok(None) => {}
            Err(error @ Error::Unavailable(_)) => return Err(error),
            // A branch that is damaged can be deleted all the same.
            Err(error) => {
                tracing::warn!(timeline = %metered, %error, "what it has used is not known");
            }
        }
        let mut deleted = None;
        self.change(tenant, |manifest| {
            refuse_template(manifest)?;
            let entry = find_branch(manifest, branch)?;
            if entry.name == MAIN_BRANCH {
                return Err(Error::Invalid(format!(
                    "branch {MAIN_BRANCH:?} is deleted only with its tenant"
                )));
            }
            let children = manifest.children(entry.timeline);
            if !children.is_empty() {
                return Err(Error::Invalid(format!(
                    "branch {:?} has branches of its own: {}; delete them first",
                    entry.name,
                    children.join(", ")
                )));
            }
            let snapshots = manifest.snapshots_of(entry.timeline).map(|kept| &*kept.name);
            let snapshots: Vec<&str> = snapshots.collect();
            if !snapshots.is_empty() {
                return Err(Error::Invalid(format!(
                    "branch {:?} has snapshots: {}; delete them first",
                    entry.name,
                    snapshots.join(", ")
                )));
            }
            let timeline = entry.timeline;
            if timeline != metered.timeline {
                return Err(Error::Unavailable(format!(
                    "branch {branch:?} became another one meanwhile: try again"
                )));
            }
            let spent = self.known_spent(metered, entry.origin.point.lsn);
            manifest.deleted_branches = manifest.deleted_branches + spent;
            deleted = Some(timeline);
            manifest.branches.retain(|entry| entry.timeline != timeline);
            Ok(())
        })
        .await?;
        if let Some(timeline) = deleted {
            let id = TenantTimeline { tenant, timeline };
            self.stop_timelines(tenant, Some(timeline));
            self.remove_folder(&timeline_folder(id)).await;
        }
        Ok(())
    }

    /// Deletes a tenant with all branches, and its objects.
    pub async fn delete_tenant(&self, tenant: TenantId) -> Result<(), Error> {
        let manifest = self
            .change(tenant, |manifest| {
                refuse_template(manifest)?;
                manifest.deleted = true;
                Ok(())
            })
            .await?;
        self.remove_deleted(&manifest).await
    }

    /// Removes a tenant or template whose newest manifest says that it is deleted.
    pub(super) async fn remove_deleted(&self, manifest: &TenantManifest) -> Result<(), Error> {
        let id = manifest.tenant;
        self.stop_timelines(id, None);
        self.names.free(manifest.kind, &manifest.name).await?;
        self.remove_folder(&tenant_folder(id)).await;
        for template in manifest.templates() {
            self.remove_marker(template, id).await;
        }
        self.manifests.lock().remove(&id);
        self.resting.lock().remove(&id);
        self.held.lock().remove(&id);
        Ok(())
    }

    /// Removes what nothing refers to. What cannot be removed stays as garbage.
    pub(super) async fn remove_folder(&self, folder: &Path) {
        let store = &self.engine.store;
        let removed = async {
            let objects: Vec<Path> =
                store.list(Some(folder)).map_ok(|object| object.location).try_collect().await?;
            // The tenant's own manifests go last: as long as one is there, it says `deleted`.
            let depth = folder.parts().count() + 1;
            let (mut last, first): (Vec<_>, Vec<_>) =
                objects.into_iter().partition(|path| path.parts().count() == depth);
            last.sort_unstable();
            for paths in [first, last] {
                let paths = futures::stream::iter(paths).map(Ok).boxed();
                let mut deleted = store.delete_stream(paths);
                while let Some(result) = deleted.next().await {
                    match result {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        };
        if let Err(error) = removed.await {
            tracing::warn!(%folder, %error, "objects that nothing refers to could not be removed");
        }
    }
}
