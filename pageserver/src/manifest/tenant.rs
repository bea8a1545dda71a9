//! What a tenant is: its name, its branches, where they came from, and its snapshots.

use std::sync::Arc;

use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineId, TimelineOrigin};
use serde::{Deserialize, Serialize};

use super::{Body, Owner};
use crate::{metering::Spent, timeline::Window};

/// Whether a tenant has a customer, or is what others are made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantKind {
    /// A customer's databases.
    Tenant,
    /// Read-only: tenants begin as it is.
    Template,
}

/// A tenant and its branches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TenantManifest {
    /// Its id.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// Tenant or template.
    pub kind: TenantKind,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
    /// Whether its pages have data checksums.
    pub checksums: bool,
    /// How much history it keeps.
    #[serde(default)]
    pub history: Window,
    /// Which pageserver serves it; absent for a template, which every one reads, and where none
    /// has served it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Of a template: no tenant is made from it any more, because it is about to be deleted, or
    /// because that was cut off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// Of a template: each tenant that was made from it has a marker beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub marks_children: bool,
    /// Its objects are being removed: it exists no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// What branches used that are deleted.
    #[serde(default, skip_serializing_if = "Spent::is_nothing")]
    pub deleted_branches: Spent,
    /// Its branches, in the order in which their timelines were made.
    pub branches: Vec<Arc<BranchEntry>>,
    /// Its snapshots, in the order in which they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Arc<SnapshotEntry>>,
}

/// A branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BranchEntry {
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where it came from; absent for a template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ancestor: Option<AncestorEntry>,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
    /// Bytes of all its relations where it begins; absent where that was not known when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_size: Option<u64>,
}

/// A point of a timeline that is kept under a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// Its name, unique among the tenant's snapshots.
    pub name: String,
    /// The timeline.
    pub timeline: TimelineId,
    /// The last record that belongs to it.
    pub point: BranchPoint,
    /// When it was made, in microseconds since 2000.
    pub created_at: i64,
}

/// Where a branch came from. Its history up to the branch's origin is the branch's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AncestorEntry {
    /// The tenant: the branch's own, or a template.
    pub tenant: TenantId,
    /// The timeline.
    pub timeline: TimelineId,
    /// Its last record that belongs to the branch.
    pub point: BranchPoint,
}

impl TenantManifest {
    /// The branch of this name.
    pub fn branch(&self, name: &str) -> Option<&BranchEntry> {
        self.branches.iter().find(|branch| branch.name == name).map(Arc::as_ref)
    }

    /// The branch of this timeline.
    pub fn branch_of(&self, timeline: TimelineId) -> Option<&BranchEntry> {
        self.branches.iter().find(|branch| branch.timeline == timeline).map(Arc::as_ref)
    }

    /// The names of the branches that came from this timeline.
    pub fn children(&self, timeline: TimelineId) -> Vec<&str> {
        let from = |entry: &Arc<BranchEntry>| {
            entry
                .ancestor
                .is_some_and(|from| from.tenant == self.tenant && from.timeline == timeline)
        };
        self.branches.iter().filter(|entry| from(entry)).map(|entry| &*entry.name).collect()
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, name: &str) -> Option<&SnapshotEntry> {
        self.snapshots.iter().find(|snapshot| snapshot.name == name).map(Arc::as_ref)
    }

    /// The snapshots of this timeline.
    pub fn snapshots_of(&self, timeline: TimelineId) -> impl Iterator<Item = &SnapshotEntry> {
        let snapshots = self.snapshots.iter().map(Arc::as_ref);
        snapshots.filter(move |snapshot| snapshot.timeline == timeline)
    }

    /// The name of a timeline of this tenant in requests.
    pub fn timeline(&self, timeline: TimelineId) -> TenantTimeline {
        TenantTimeline { tenant: self.tenant, timeline }
    }
}

/// Branches and snapshots that a tenant got, and nothing else that changed.
#[derive(Serialize, Deserialize)]
pub struct Additions {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    new_branches: Vec<Arc<BranchEntry>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    new_snapshots: Vec<Arc<SnapshotEntry>>,
}

impl Body for TenantManifest {
    type Change = Additions;

    fn since(&self, before: &TenantManifest) -> Option<Additions> {
        let (old, new) = self.branches.split_at_checked(before.branches.len())?;
        let (old_snapshots, new_snapshots) =
            self.snapshots.split_at_checked(before.snapshots.len())?;
        // Every field by name: one that is added and forgotten here does not compile.
        let TenantManifest {
            tenant,
            name,
            kind,
            created_at,
            checksums,
            history,
            owner,
            closed,
            marks_children,
            deleted,
            deleted_branches,
            branches,
            snapshots,
        } = before;
        let is_same = (&self.tenant, &self.name, &self.kind) == (tenant, name, kind)
            && (&self.created_at, &self.checksums) == (created_at, checksums)
            && (&self.history, &self.owner, &self.deleted) == (history, owner, deleted)
            && (&self.closed, &self.marks_children) == (closed, marks_children)
            && &self.deleted_branches == deleted_branches
            && (old, old_snapshots) == (branches, snapshots);
        let additions =
            || Additions { new_branches: new.to_vec(), new_snapshots: new_snapshots.to_vec() };
        is_same.then(additions)
    }

    fn apply(&mut self, change: Additions) {
        self.branches.extend(change.new_branches);
        self.snapshots.extend(change.new_snapshots);
    }
}
