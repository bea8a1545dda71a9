//! Snapshots in a history: what one keeps is read however far the cutoff has moved.

use protocol::{BranchPoint, TenantTimeline};
use rand::Rng;

use super::{BRANCHES_MAX, History};
use crate::{error::Error, tenants::Beginning};

const SNAPSHOTS_MAX: usize = 6;

/// A snapshot that was acknowledged.
#[derive(Clone)]
pub(super) struct Kept {
    name: String,
    pub(super) timeline: TenantTimeline,
    pub(super) point: BranchPoint,
}

impl History {
    pub(super) fn any_snapshot(&mut self) -> Option<Kept> {
        let count = self.snapshots.len();
        (count > 0).then(|| self.snapshots[self.world.random.random_range(0..count)].clone())
    }

    pub(super) fn has_snapshot(&self, timeline: TenantTimeline, point: BranchPoint) -> bool {
        self.snapshots.iter().any(|kept| (kept.timeline, kept.point) == (timeline, point))
    }

    pub(super) async fn make_snapshot(&mut self) -> Result<(), Error> {
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            return Ok(());
        }
        let (branch, timeline) = self.any_branch();
        let point = self.any_point(timeline);
        let name = self.new_name("snapshot");
        let of = Beginning::Point(&branch, point);
        let made = self.world.tenants.create_snapshot(self.tenant, &name, of).await;
        if let Err(Error::Gone { .. }) = made
            && !self.may_begin(timeline, point.lsn)
        {
            return Ok(());
        }
        let made = made?;
        assert!(self.may_begin(timeline, point.lsn), "{made:?} has no history");
        assert_eq!((made.timeline, made.point), (timeline, point));
        self.snapshots.push(Kept { name, timeline, point });
        Ok(())
    }

    /// A branch, a restore or another snapshot, of one that is there.
    pub(super) async fn use_snapshot(&mut self) -> Result<(), Error> {
        let Some(Kept { name, timeline, point }) = self.any_snapshot() else { return Ok(()) };
        let of = Beginning::Snapshot(&name);
        let tenants = self.world.tenants.clone();
        let is_full = self.branches.len() >= BRANCHES_MAX;
        match self.world.random.random_range(0..3) {
            0 if !is_full => {
                let name = self.new_name("branch");
                let branch = tenants.begin_branch(self.tenant, &name, of).await?;
                assert_eq!(branch.origin.point, point);
                self.world.model.add(branch.timeline, Some(timeline), point);
                self.branches.push((name, branch.timeline));
            }
            1 if !is_full => {
                let (name, old) = self.any_branch();
                let (new, kept) = tenants.restore_to(self.tenant, &name, of, None).await?;
                assert_eq!((new.name.as_str(), kept.timeline), (name.as_str(), old));
                self.world.model.add(new.timeline, Some(timeline), point);
                self.branches.retain(|(_, id)| *id != old);
                self.branches.push((name, new.timeline));
                self.branches.push((kept.name, old));
            }
            _ if self.snapshots.len() < SNAPSHOTS_MAX => {
                let name = self.new_name("snapshot");
                tenants.create_snapshot(self.tenant, &name, of).await?;
                self.snapshots.push(Kept { name, timeline, point });
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn delete_snapshot(&mut self) -> Result<(), Error> {
        let Some(Kept { name, timeline, .. }) = self.any_snapshot() else { return Ok(()) };
        self.snapshots_ending.push(name.clone());
        let branch = timeline.timeline.to_string();
        self.world.tenants.delete_snapshot(self.tenant, &branch, &name).await?;
        self.snapshots.retain(|kept| kept.name != name);
        self.snapshots_ending.clear();
        Ok(())
    }

    /// A read at a snapshot is answered.
    pub(super) async fn read_snapshot(&mut self, Kept { timeline, point, .. }: Kept) {
        assert!(self.is_lost(timeline) || self.is_kept(timeline, point.lsn));
        self.met.kept += usize::from(point.lsn < self.cutoff(timeline));
        self.compare_all(timeline, point.lsn).await;
    }

    /// Compares the snapshots that a crash left with those that are known.
    pub(super) async fn take_stock_of_snapshots(&mut self) {
        let mut found = Vec::new();
        for (_, id) in self.branches.clone() {
            let branch = id.timeline.to_string();
            let snapshots = self.world.tenants.snapshots(self.tenant, &branch).await;
            found.extend(snapshots.expect("the store works"));
        }
        let ending = std::mem::take(&mut self.snapshots_ending);
        for Kept { name, .. } in self.snapshots.clone() {
            if found.iter().all(|snapshot| snapshot.name != name) {
                assert!(ending.contains(&name), "{name} is gone, and nobody deleted it");
                self.snapshots.retain(|kept| kept.name != name);
            }
        }
        for snapshot in found {
            if self.snapshots.iter().any(|kept| kept.name == snapshot.name) {
                continue;
            }
            let (timeline, point) = (snapshot.timeline, snapshot.point);
            if self.is_kept(timeline, point.lsn) || self.is_lost(timeline) {
                self.snapshots.push(Kept { name: snapshot.name, timeline, point });
                continue;
            }
            // It was made below the cutoff, and not taken back: it says that nothing is there.
            self.compare_all(timeline, point.lsn).await;
            let branch = timeline.timeline.to_string();
            let deleted = self.world.tenants.delete_snapshot(self.tenant, &branch, &snapshot.name);
            deleted.await.expect("the store works");
        }
    }
}
