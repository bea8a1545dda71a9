//! Moves a timeline's cutoff, so that a branch that is made meanwhile has its whole history or is
//! refused:
//!
//! 1. The cutoff is announced in the timeline's manifest.
//! 2. The tenant's branches are read, from the object store.
//! 3. What is retained, the cutoff and the points where branches begin, is written in the
//!    timeline's manifest, instead of the announcement. From now on reads below are refused, and
//!    merges drop.
//!
//! A branch is published, and then reads what was announced: either it is seen in 2, or it sees
//! the announcement, and is taken back. (`Tenants::retain`, `Tenants::create_branch`.)

use std::sync::Arc;

use tokio::time::Instant;
use wal_format::Lsn;

use super::{
    Timeline,
    retention::{Cutoff, Retained, Window},
};
use crate::{error::Error, manifest::TimelineManifest};

impl Timeline {
    /// What can be read.
    pub fn retained(&self) -> Retained {
        self.state.read().retained.clone()
    }

    /// Where a tenant's window puts the cutoff; `None` where it stays as it is.
    pub(crate) async fn next_cutoff(
        &self,
        window: Window,
        now: i64,
    ) -> Result<Option<Cutoff>, Error> {
        let stored = self.flushed.borrow().last_record;
        let retained = self.retained();
        let before = retained.cutoff.and_then(|cutoff| cutoff.last_commit_time);
        let mut limits = vec![stored.lsn];
        if let Some(since) = window.since(now) {
            if before.is_some_and(|before| since < before) {
                // A commit at or below the cutoff is in the window already.
                return Ok(None);
            }
            let commit = self.first_commit_after(since, Lsn::MAX).await?;
            limits.extend(commit.map(|commit| commit.start));
        }
        limits.extend(window.from(self.last_record_lsn()));
        limits.extend(self.oldest_lease(Instant::now()));
        let limit = limits.into_iter().min().unwrap_or(stored.lsn);
        let origin = self.facts.origin.point.lsn;
        if limit <= origin.max(retained.cutoff_lsn()) {
            return Ok(None);
        }
        let point = self.round_down_here(limit).await?;
        if point.lsn <= origin.max(retained.cutoff_lsn()) {
            return Ok(None);
        }
        let last_commit_time = self.latest_commit_at(point.lsn).await?;
        // The first commit that is later than the window's beginning is above the cutoff.
        let since = window.since(now).unwrap_or(i64::MAX);
        let last_commit_time = last_commit_time.map(|time| time.min(since));
        Ok(Some(Cutoff { point, last_commit_time: last_commit_time.max(before) }))
    }

    /// The cutoff at the last record that ends at or before a stored LSN; `None` where it stays as it is.
    pub(crate) async fn cutoff_at(&self, lsn: Lsn) -> Result<Option<Cutoff>, Error> {
        let before = self.retained().cutoff;
        let point = self.round_down_here(lsn).await?;
        if before.is_some_and(|before| point.lsn <= before.point.lsn) {
            return Ok(None);
        }
        let last_commit_time = self.latest_commit_at(point.lsn).await?;
        let before = before.and_then(|before| before.last_commit_time);
        Ok(Some(Cutoff { point, last_commit_time: last_commit_time.max(before) }))
    }

    /// Writes that no branch may be made below `cutoff` any more.
    pub(crate) async fn announce(self: &Arc<Self>, cutoff: Lsn) -> Result<(), Error> {
        self.write_manifest(move |manifest| manifest.announced = Some(cutoff)).await
    }

    /// Whether a cutoff was announced that is not written yet: its pass goes on, or was cut off.
    pub(crate) fn has_announced(&self) -> bool {
        self.state.read().announced.is_some()
    }

    /// Writes what is retained; merges drop the rest.
    pub(crate) async fn retain(self: &Arc<Self>, retained: Retained) -> Result<(), Error> {
        let change = move |manifest: &mut TimelineManifest| {
            (manifest.retained, manifest.announced) = (retained, None);
        };
        self.write_manifest(change).await?;
        self.want_work();
        Ok(())
    }

    /// Writes the next manifest, and returns at the first failure to do so; it goes on being tried.
    pub(super) async fn write_manifest(
        self: &Arc<Self>,
        change: impl FnOnce(&mut TimelineManifest) + Send + 'static,
    ) -> Result<(), Error> {
        let timeline = Arc::clone(self);
        let writing = async move {
            let mut sequence = timeline.sequence.lock().await;
            let now = timeline.flushed.borrow().clone();
            let layers = timeline.state.read().layers.clone();
            let mut manifest = timeline.manifest(now.last_record, &layers);
            drop(layers);
            change(&mut manifest);
            let take_over = |manifest: TimelineManifest| {
                let mut state = timeline.state.write();
                (state.retained, state.announced) = (manifest.retained, manifest.announced);
            };
            let published = timeline.publish(&mut sequence, manifest, take_over).await;
            published.inspect_err(|error| timeline.give_up(error.clone()))
        };
        self.or_failure(writing).await
    }
}
