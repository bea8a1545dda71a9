//! Snapshots: points of branches that keep their history under a name, without a timeline of their
//! own. What begins at one needs no more of the history than the snapshot has kept until then.
//!
//! A snapshot is of a timeline: where a restore gives the branch's name to another one, it stays
//! with the state before. Its name is the tenant's, so that it is found all the same.

use std::sync::Arc;

use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineId};

use super::{
    Tenants,
    branches::{find_branch, refuse_template},
    names::check_name,
};
use crate::{
    clock,
    error::Error,
    manifest::{BranchEntry, SnapshotEntry, TenantManifest},
};

/// A named point of a branch's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, unique among the tenant's snapshots.
    pub name: String,
    /// Its timeline.
    pub timeline: TenantTimeline,
    /// The name of the timeline's branch now.
    pub branch: String,
    /// The last record that belongs to it.
    pub point: BranchPoint,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
}

/// What a new timeline, or a new snapshot, begins as.
#[derive(Clone, Copy, Debug)]
pub enum Beginning<'a> {
    /// A branch, by name or timeline id, as it was at a point from
    /// [`round_down`](crate::timeline::Timeline::round_down) or
    /// [`point_at_time`](crate::timeline::Timeline::point_at_time).
    Point(&'a str, BranchPoint),
    /// The tenant's snapshot of this name.
    Snapshot(&'a str),
}

impl Beginning<'_> {
    /// The timeline and its point.
    pub(super) fn find<'m>(
        &self,
        manifest: &'m TenantManifest,
    ) -> Result<(&'m BranchEntry, BranchPoint), Error> {
        match self {
            Beginning::Point(branch, point) => Ok((find_branch(manifest, branch)?, *point)),
            Beginning::Snapshot(name) => {
                let snapshot = find_snapshot(manifest, name)?;
                Ok((find_timeline(manifest, snapshot.timeline)?, snapshot.point))
            }
        }
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self, Beginning::Snapshot(_))
    }
}

impl Tenants {
    /// Keeps a point of history under a name.
    pub async fn create_snapshot(
        &self,
        tenant: TenantId,
        name: &str,
        of: Beginning<'_>,
    ) -> Result<Snapshot, Error> {
        check_name(name)?;
        let now = clock::now();
        let mut made = None;
        let manifest = self
            .change(tenant, |manifest| {
                refuse_template(manifest)?;
                if manifest.snapshot(name).is_some() {
                    let tenant = &manifest.name;
                    return Err(Error::Exists(format!("snapshot {name:?} of {tenant:?}")));
                }
                let (branch, point) = of.find(manifest)?;
                let timeline = branch.timeline;
                let entry =
                    SnapshotEntry { name: name.to_owned(), timeline, point, created_at: now };
                made = Some(describe(manifest, &entry)?);
                manifest.snapshots.push(Arc::new(entry));
                Ok(())
            })
            .await?;
        let made = made.ok_or_else(|| no_snapshot(&manifest, name))?;
        let timeline = made.timeline.timeline;
        if let Err(reason) = self.check_kept(&manifest, timeline, made.point, of).await {
            let taken_back = self.change(tenant, |manifest| {
                let is_it = |entry: &SnapshotEntry| {
                    (&*entry.name, entry.timeline, entry.point) == (name, timeline, made.point)
                };
                manifest.snapshots.retain(|entry| !is_it(entry));
                Ok(())
            });
            if let Err(error) = taken_back.await {
                tracing::warn!(%tenant, name, %error, "a refused snapshot could not be taken back");
            }
            return Err(reason);
        }
        Ok(made)
    }

    /// The tenant's snapshot of this name, of whichever branch.
    pub async fn snapshot(&self, tenant: TenantId, name: &str) -> Result<Snapshot, Error> {
        let manifest = self.manifest(tenant).await?;
        describe(&manifest, find_snapshot(&manifest, name)?)
    }

    /// The snapshots of a branch, by name or timeline id, the oldest first.
    pub async fn snapshots(&self, tenant: TenantId, branch: &str) -> Result<Vec<Snapshot>, Error> {
        let manifest = self.manifest(tenant).await?;
        let timeline = find_branch(&manifest, branch)?.timeline;
        manifest.snapshots_of(timeline).map(|entry| describe(&manifest, entry)).collect()
    }

    /// Deletes a snapshot of a branch: the next pass of retention gives up what it alone kept.
    pub async fn delete_snapshot(
        &self,
        tenant: TenantId,
        branch: &str,
        name: &str,
    ) -> Result<(), Error> {
        self.change(tenant, |manifest| {
            let timeline = find_branch(manifest, branch)?.timeline;
            let found = find_snapshot(manifest, name)?;
            if found.timeline != timeline {
                let of = find_timeline(manifest, found.timeline)?;
                return Err(Error::NotFound(format!(
                    "snapshot {name:?} of branch {branch:?}: it is of branch {:?}",
                    of.name
                )));
            }
            manifest.snapshots.retain(|entry| entry.name != name);
            Ok(())
        })
        .await?;
        Ok(())
    }
}

fn describe(manifest: &TenantManifest, entry: &SnapshotEntry) -> Result<Snapshot, Error> {
    Ok(Snapshot {
        name: entry.name.clone(),
        timeline: manifest.timeline(entry.timeline),
        branch: find_timeline(manifest, entry.timeline)?.name.clone(),
        point: entry.point,
        created_at: entry.created_at,
    })
}

fn find_snapshot<'m>(manifest: &'m TenantManifest, name: &str) -> Result<&'m SnapshotEntry, Error> {
    manifest.snapshot(name).ok_or_else(|| no_snapshot(manifest, name))
}

fn no_snapshot(manifest: &TenantManifest, name: &str) -> Error {
    Error::NotFound(format!("snapshot {name:?} of {:?}", manifest.name))
}

pub(super) fn find_timeline(
    manifest: &TenantManifest,
    id: TimelineId,
) -> Result<&BranchEntry, Error> {
    manifest.branch_of(id).ok_or_else(|| Error::NotFound(format!("timeline {id}")))
}
