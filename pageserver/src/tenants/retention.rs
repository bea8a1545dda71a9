//! What of a tenant's history is kept, and how a branch and the end of history never cross.

use std::sync::Arc;

use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineId};
use wal_format::Lsn;

use super::{Tenants, branches::refuse_template, snapshots::Beginning};
use crate::{
    clock,
    engine::{tenant_folder, timeline_folder},
    error::Error,
    manifest::{Sequence, TenantManifest, TimelineManifest},
    timeline::{Cutoff, Retained, Timeline, Window},
};

impl Tenants {
    /// Sets how much history a tenant keeps from now on: what was given up stays so.
    pub async fn set_history(&self, tenant: TenantId, window: Window) -> Result<(), Error> {
        check_window(window)?;
        self.change(tenant, |manifest| {
            refuse_template(manifest)?;
            manifest.history = window;
            Ok(())
        })
        .await?;
        self.window_changed.notify_one();
        Ok(())
    }

    /// Gives up the history of a loaded timeline that its tenant's window has left behind, but for
    /// what branches begin at and snapshots keep.
    pub async fn retain(&self, timeline: &Arc<Timeline>, now: i64) -> Result<(), Error> {
        if timeline.is_read_only() || timeline.is_warming() {
            return Ok(());
        }
        let id = timeline.id();
        let _one_at_a_time = timeline.retaining.lock().await;
        let window = self.manifest(id.tenant).await?.history;
        let before = timeline.retained();
        let next = timeline.next_cutoff(window, now).await?;
        if let Some(next) = next {
            timeline.announce(next.point.lsn).await?;
        }
        let Some(cutoff) = next.or(before.cutoff) else {
            // The window is longer than when a pass was cut off that would have been the first.
            return if timeline.has_announced() { timeline.retain(before).await } else { Ok(()) };
        };
        self.move_cutoff(timeline, before, cutoff).await
    }

    /// Gives up, for good, what a branch was before its head, also in its ancestors' history: nobody
    /// comes back to there from this branch. What others begin at and snapshots keep, they keep.
    pub async fn forget_past(&self, timeline: &Arc<Timeline>) -> Result<(), Error> {
        if timeline.is_read_only() {
            return Err(Error::Invalid("a template has no past to be forgotten".to_owned()));
        }
        let head = timeline.flush().await?;
        let _one_at_a_time = timeline.retaining.lock().await;
        let before = timeline.retained();
        let Some(cutoff) = timeline.cutoff_at(head).await? else { return Ok(()) };
        timeline.announce(cutoff.point.lsn).await?;
        self.move_cutoff(timeline, before, cutoff).await
    }

    /// Writes what is retained from an announced cutoff on.
    async fn move_cutoff(
        &self,
        timeline: &Arc<Timeline>,
        before: Retained,
        cutoff: Cutoff,
    ) -> Result<(), Error> {
        let id = timeline.id();
        // From the store, and after the announcement: a branch that is not among them now will
        // read the announcement, also where another pageserver makes it.
        let branches = self.stored_manifest(id.tenant).await?;
        if branches.deleted || branches.branch_of(id.timeline).is_none() {
            return Ok(());
        }
        let retained = before.next(cutoff, branches.points_on(id.timeline));
        let is_new = retained != before || timeline.has_announced();
        if is_new { timeline.retain(retained).await } else { Ok(()) }
    }

    /// Refuses what begins at a point that retention has passed. It is in the tenant's newest
    /// manifest already: retention either sees it there, or is seen here.
    ///
    /// What begins at a snapshot may begin below the cutoff, where the snapshot's point is kept. It
    /// is, unless the snapshot was made while retention passed, and is about to be taken back: a
    /// pass that is under way is finished before that is asked.
    pub(super) async fn check_kept(
        &self,
        manifest: &TenantManifest,
        parent: TimelineId,
        point: BranchPoint,
        beginning: Beginning<'_>,
    ) -> Result<(), Error> {
        let mut next = Some(parent);
        while let Some(timeline) = next {
            let id = manifest.timeline(timeline);
            let mut newest = self.stored_timeline(id).await?;
            if beginning.is_snapshot() && newest.as_ref().is_some_and(|on| is_passing(on, point)) {
                let timeline = self.timeline_as_stored(id).await?;
                self.retain(&timeline, clock::now()).await?;
                newest = self.stored_timeline(id).await?;
            }
            if let Some(newest) = newest {
                let oldest = newest.retained.cutoff_lsn().max(newest.announced.unwrap_or_default());
                let is_kept = beginning.is_snapshot()
                    && !is_passing(&newest, point)
                    && newest.retained.check(point.lsn).is_ok();
                if point.lsn < oldest && !is_kept {
                    return Err(Error::Gone { asked: point.lsn, oldest });
                }
            }
            // A point before the timeline's own beginning is in its ancestor's history.
            let entry = manifest.branch_of(timeline);
            let before = entry.filter(|entry| point.lsn < entry.origin.point.lsn);
            next = before
                .and_then(|entry| entry.ancestor)
                .filter(|from| from.tenant == manifest.tenant)
                .map(|from| from.timeline);
        }
        Ok(())
    }

    /// A timeline's newest manifest, as the store has it.
    pub(super) async fn stored_timeline(
        &self,
        id: TenantTimeline,
    ) -> Result<Option<TimelineManifest>, Error> {
        let (_, newest) = Sequence::open(self.engine.store.clone(), timeline_folder(id)).await?;
        Ok(newest)
    }

    /// A tenant's newest manifest, as the store has it.
    pub(super) async fn stored_manifest(&self, tenant: TenantId) -> Result<TenantManifest, Error> {
        let folder = tenant_folder(tenant);
        let opened = Sequence::open(self.engine.store.clone(), folder).await?;
        opened.1.ok_or_else(|| Error::NotFound(format!("tenant {tenant}")))
    }
}

/// Refuses a window that says nothing: history without an end is a window that is long.
pub(super) fn check_window(window: Window) -> Result<(), Error> {
    if window.seconds.is_none() && window.bytes.is_none() {
        return Err(Error::Invalid(
            "a history window has seconds, bytes or both: say how much is kept".to_owned(),
        ));
    }
    Ok(())
}

/// Whether a cutoff is moved past the point just now.
fn is_passing(timeline: &TimelineManifest, point: BranchPoint) -> bool {
    let (cutoff, announced) = (timeline.retained.cutoff_lsn(), timeline.announced);
    cutoff <= point.lsn && announced.is_some_and(|announced| point.lsn < announced)
}

impl TenantManifest {
    /// The LSNs of a timeline's own history, or before it, at which other branches begin or
    /// snapshots are.
    pub fn points_on(&self, timeline: TimelineId) -> Vec<Lsn> {
        let by_timeline: std::collections::HashMap<TimelineId, _> =
            self.branches.iter().map(|entry| (entry.timeline, entry)).collect();
        let point = |mut at: Lsn, mut from: TimelineId| {
            // Each step goes to an older timeline, so that there is an end.
            for _ in 0..self.branches.len() {
                let ancestor = by_timeline.get(&from)?.ancestor;
                if from == timeline {
                    return Some(at);
                }
                let ancestor = ancestor.filter(|ancestor| ancestor.tenant == self.tenant)?;
                (at, from) = (at.min(ancestor.point.lsn), ancestor.timeline);
            }
            None
        };
        let begin = self.branches.iter().filter_map(|entry| entry.ancestor);
        let begin = begin.map(|ancestor| (ancestor.point.lsn, ancestor.timeline));
        let snapshots = self.snapshots.iter().map(|entry| (entry.point.lsn, entry.timeline));
        begin.chain(snapshots).filter_map(|(at, from)| point(at, from)).collect()
    }
}
