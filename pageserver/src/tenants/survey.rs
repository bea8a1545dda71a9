//! The survey: what is to be done for timelines that nobody loads.
//!
//! A loaded timeline is merged and its cutoff moved as it goes; for the others it is looked from
//! time to time whether there is anything to do, by reading newest manifests alone
//! ([`due`](crate::timeline::due)). Only where there is, the timeline is loaded, and unloaded again
//! when the work is done.
//!
//! It is cheap for many idle tenants: a few are looked at at once, spread over the whole time until
//! the next survey, and one that has nothing to do is not looked at again before it may have. Only a
//! pageserver that has just started lists all tenants and reads each once; later surveys look at
//! those alone that were written since, or whose time has come.
//!
//! Each tenant is its owner's to survey: the manifest names it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use object_store::path::Path;
use protocol::{TenantId, TenantTimeline};
use tokio::time::Instant;

use super::Tenants;
use crate::{
    clock,
    error::Error,
    metrics::METRICS,
    store::unavailable,
    timeline::{Due, LEASE, due},
};

/// Tenants that are looked at, or worked on, at once.
const AT_ONCE: usize = 4;
/// The longest wait between two tenants, where few are to be looked at.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a look at a tenant found.
struct Look {
    /// Timelines that are not loaded and have something to do.
    due: Vec<TenantTimeline>,
    /// Until when the others have nothing, in microseconds since 2000.
    until: i64,
}

impl Tenants {
    /// Looks once at every tenant of this process that may have something to do, spread over some
    /// time, and does it for timelines that are not loaded; how many those were. A tenant whose
    /// manifests cannot be read is looked at again by the next survey.
    pub async fn survey(
        self: &Arc<Self>,
        clock: impl Fn() -> i64 + Copy,
        over: Duration,
    ) -> Result<usize, Error> {
        let mut wanted = match self.engine.surveyed.wanted(clock()) {
            Some(wanted) => wanted,
            None => {
                let all = self.stored_tenants().await?;
                self.engine.surveyed.begin_all();
                all
            }
        };
        wanted.sort_unstable();
        let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX).max(1);
        let pause = (over / count).min(PAUSE_MAX);
        let begun = Instant::now();
        let surveys = stream::iter((0..count).zip(wanted)).then(move |(number, id)| async move {
            // From the beginning on: pauses of less than a timer's tick add up all the same.
            let due = begun + pause * number;
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            id
        });
        let surveys = surveys.map(|id| Arc::clone(self).survey_tenant(id, clock));
        let mut surveys = std::pin::pin!(surveys.buffer_unordered(AT_ONCE));
        let mut worked_on = 0;
        while let Some(timelines) = surveys.next().await {
            worked_on += timelines;
        }
        Ok(worked_on)
    }

    /// Surveys again and again.
    pub(super) async fn survey_all(self: Arc<Self>) {
        let interval = self.limits.survey_interval;
        // Until then, whoever held a lease of the process before has taken one of this.
        tokio::time::sleep(interval.min(LEASE)).await;
        loop {
            let begun = Instant::now();
            match self.survey(clock::now, interval).await {
                Ok(0) => {}
                Ok(timelines) => tracing::debug!(timelines, "a survey found work, and did it"),
                Err(error) => {
                    tracing::warn!(%error, "the tenants could not be listed to survey them")
                }
            }
            tokio::time::sleep_until(begun + interval).await;
        }
    }

    async fn stored_tenants(&self) -> Result<Vec<TenantId>, Error> {
        let folder = Path::from("tenants");
        let listed = self.engine.store.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| unavailable(&folder, &error))?;
        let id = |path: &Path| path.filename()?.parse().ok();
        Ok(listed.common_prefixes.iter().filter_map(id).collect())
    }

    /// How many timelines were worked on.
    async fn survey_tenant(self: Arc<Self>, id: TenantId, clock: impl Fn() -> i64) -> usize {
        METRICS.surveyed_tenants.inc();
        self.engine.surveyed.begin(id);
        let mut timelines = 0;
        match self.look_for_work(id, clock()).await {
            Ok(look) if look.due.is_empty() => {
                self.engine.surveyed.end(id, look.until);
                return 0;
            }
            Ok(look) => {
                let before: HashSet<_> = self.loaded().iter().map(|loaded| loaded.id()).collect();
                for timeline in look.due {
                    match self.work_on(timeline, clock()).await {
                        Ok(()) => timelines += 1,
                        Err(Error::NotFound(_) | Error::Moved { .. } | Error::ShuttingDown) => {}
                        Err(error) => {
                            tracing::warn!(%timeline, %error, "work on it waits for the next survey");
                        }
                    }
                }
                let is_done =
                    |loaded: TenantTimeline| loaded.tenant == id && !before.contains(&loaded);
                self.unload_those(Instant::now(), Duration::ZERO, is_done).await;
            }
            // Deleted, or not made yet.
            Err(Error::NotFound(_)) => {}
            Err(error) => tracing::warn!(tenant = %id, %error, "the tenant could not be surveyed"),
        }
        self.engine.surveyed.forget(id);
        timelines
    }

    async fn look_for_work(&self, id: TenantId, now: i64) -> Result<Look, Error> {
        let mut look = Look { due: Vec::new(), until: i64::MAX };
        let manifest = self.stored_manifest(id).await?;
        if !self.is_own(&manifest) {
            return Ok(look);
        }
        let branches = manifest.branches.iter();
        let ids: Vec<_> = branches.clone().map(|branch| branch.timeline).collect();
        let has_objects = self.timelines_with_objects(id, &ids).await?;
        for branch in branches.filter(|branch| has_objects.contains(&branch.timeline)) {
            let timeline = manifest.timeline(branch.timeline);
            let Some(newest) = self.stored_timeline(timeline).await? else { continue };
            if newest.layers.is_empty() && newest.announced.is_none() {
                continue;
            }
            let (origin, window) = (branch.origin.point.lsn, manifest.history);
            let points = manifest.points_on(branch.timeline);
            match due(&newest, origin, window, &points, now) {
                Due::Never => {}
                Due::At(moment) => look.until = look.until.min(moment),
                // What is loaded is worked on as it goes.
                Due::Now if self.if_loaded(timeline).is_some() => look.until = now,
                Due::Now => look.due.push(timeline),
            }
        }
        Ok(look)
    }

    async fn work_on(&self, id: TenantTimeline, now: i64) -> Result<(), Error> {
        let timeline = self.timeline_as_stored(id).await?;
        self.retain(&timeline, now).await?;
        timeline.merge_all().await?;
        timeline.remove_retired().await;
        METRICS.surveyed_timelines.inc();
        Ok(())
    }
}
