//! Timelines that nobody uses leave memory, and are loaded again by whoever asks for them; so do
//! manifests of tenants.

use std::{sync::Arc, time::Duration};

use protocol::TenantTimeline;
use tokio::time::Instant;

use super::Tenants;
use crate::{metrics::METRICS, timeline::Timeline};

/// How often idle timelines are looked for, in parts of the time after which they are.
const LOOKS: u32 = 4;
/// The shortest time between two looks.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);

impl Tenants {
    /// Unloads the timelines that nobody holds and nobody has asked for since `idle_for` before
    /// `now`; how many. What of them was in memory alone is written first; one of which that fails
    /// stays.
    pub async fn unload_idle(&self, now: Instant, idle_for: Duration) -> usize {
        let unloaded = self.unload_those(now, idle_for, |_| true).await;
        self.unload_manifests(now, idle_for);
        unloaded
    }

    /// Forgets the manifests of tenants that nobody has asked for, and of which no timeline is in
    /// memory. Of those that this process has written, the writer is kept.
    fn unload_manifests(&self, now: Instant, idle_for: Duration) {
        let mut manifests = self.manifests.lock();
        manifests.retain(|id, slot| {
            // Whoever gets hold of one does so under the lock that is held here.
            let Some(slot) = Arc::get_mut(slot) else { return true };
            let Some(tenant) = slot.get_mut() else { return false };
            if now.saturating_duration_since(tenant.used) < idle_for || self.is_watched(*id) {
                return true;
            }
            if let Some(writer) = tenant.sequence.rest() {
                self.resting.lock().insert(*id, writer);
            }
            false
        });
        let left = manifests.len();
        manifests.shrink_to(left * 2);
    }

    /// The same, of those alone that `is_one` names.
    pub(super) async fn unload_those(
        &self,
        now: Instant,
        idle_for: Duration,
        is_one: impl Fn(TenantTimeline) -> bool,
    ) -> usize {
        let mut unloaded = 0;
        // An ancestor is held by those that came from it: once they are gone, it may go.
        loop {
            let mut left = 0;
            let mut idle = self.idle(now, idle_for);
            idle.retain(|timeline| is_one(timeline.id()));
            for timeline in idle {
                left += usize::from(self.unload(timeline, now, idle_for).await);
            }
            if left == 0 {
                return unloaded;
            }
            unloaded += left;
        }
    }

    /// Unloads idle timelines again and again.
    pub(super) async fn unload_all(self: Arc<Self>) {
        let idle_for = self.limits.unload_after;
        loop {
            tokio::time::sleep((idle_for / LOOKS).max(LOOK_INTERVAL_MIN)).await;
            let unloaded = self.unload_idle(Instant::now(), idle_for).await;
            if unloaded > 0 {
                tracing::debug!(unloaded, "timelines that nobody uses were unloaded");
            }
        }
    }

    fn idle(&self, now: Instant, idle_for: Duration) -> Vec<Arc<Timeline>> {
        let timelines = self.timelines.lock();
        let cells = timelines.values().filter(|cell| Arc::strong_count(cell) == 1);
        let timelines = cells.filter_map(|cell| cell.get());
        let is_idle = |timeline: &&Arc<Timeline>| {
            Arc::strong_count(timeline) == 1 && timeline.is_idle(now, idle_for)
        };
        timelines.filter(is_idle).cloned().collect()
    }

    /// Whether the timeline could be unloaded.
    async fn unload(&self, timeline: Arc<Timeline>, now: Instant, idle_for: Duration) -> bool {
        let id = timeline.id();
        if let Err(error) = timeline.come_to_rest().await {
            tracing::debug!(timeline = %id, %error, "an idle timeline stays: it cannot be written");
            return false;
        }
        // Whoever gets hold of the timeline does so under this lock, or has it already.
        let mut timelines = self.timelines.lock();
        let is_ours_alone = timelines.get(&id).is_some_and(|cell| {
            Arc::strong_count(cell) == 1
                && cell.get().is_some_and(|loaded| Arc::ptr_eq(loaded, &timeline))
                && Arc::strong_count(&timeline) == 2
        });
        let Ok(writer) = timeline.writer() else { return false };
        if !is_ours_alone || !timeline.is_idle(now, idle_for) || !timeline.is_at_rest() {
            return false;
        }
        if let Some(writer) = writer {
            self.written.lock().insert(id, writer);
        }
        self.engine.changed.note(id.tenant);
        self.engine.meters.note_given(id, timeline.given());
        timelines.remove(&id);
        timeline.stop();
        METRICS.unloaded_timelines.inc();
        true
    }
}
