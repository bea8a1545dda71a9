//! Background work on all timelines: merging layers, each timeline in its turn.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::Tenants;
use crate::{clock, error::Error, timeline::Timeline};

/// Merges of at most this many bytes are small: they do not wait for large ones.
const SMALL_MERGE_BYTES: u64 = 4 << 20;
/// Small merges that are under way at once. Each has its inputs and its output in memory.
const SMALL_MERGES_MAX: usize = 8;
/// Large merges that are under way at once, each with some 1 MiB for each run that it reads and a
/// layer of 32 MiB that it writes.
const LARGE_MERGES_MAX: usize = 4;
/// How often cutoffs are moved.
const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
/// The wait after a merge that failed.
const FAILURE_WAIT: Duration = Duration::from_secs(10);

impl Tenants {
    /// Does background work until the engine stops. Called once.
    ///
    /// A timeline has one merge a turn and then stands at the end of the queue, and while merges
    /// go on they take turns with each read: one tenant's never keep another's waiting for long.
    pub async fn work(self: Arc<Self>) {
        let Some(mut queue) = self.engine.work.begin() else { return };
        let small = Arc::new(Semaphore::new(SMALL_MERGES_MAX));
        let large = Arc::new(Semaphore::new(LARGE_MERGES_MAX));
        let retaining = Arc::clone(&self).retain_all();
        let unloading = Arc::clone(&self).unload_all();
        tokio::pin!(retaining, unloading);
        loop {
            let timeline = tokio::select! {
                () = self.engine.stop.cancelled() => return,
                timeline = queue.recv() => timeline,
                () = &mut retaining => return,
                () = &mut unloading => return,
            };
            let Some(timeline) = timeline else { return };
            let Some(timeline) = timeline.upgrade() else { continue };
            let is_small = timeline.merge_due().is_none_or(|bytes| bytes <= SMALL_MERGE_BYTES);
            let slots = Arc::clone(if is_small { &small } else { &large });
            tokio::spawn(async move {
                let Ok(slot) = slots.acquire_owned().await else { return };
                let succeeded = take_turn(&timeline).await;
                drop(slot);
                if !succeeded {
                    // Without the slot: those whose merges succeed do not wait for it.
                    tokio::select! {
                        () = tokio::time::sleep(FAILURE_WAIT) => {}
                        () = timeline.stopped().cancelled() => {}
                    }
                }
                timeline.end_turn();
            });
        }
    }
}

impl Tenants {
    /// Moves the cutoffs of all loaded timelines, again and again. One that nobody uses keeps its
    /// history until somebody does: it costs nothing else.
    async fn retain_all(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RETENTION_INTERVAL) => {}
                () = self.window_changed.notified() => {}
            }
            for timeline in self.loaded() {
                let id = timeline.id();
                match self.retain(&timeline, clock::now()).await {
                    Ok(()) | Err(Error::ShuttingDown | Error::NotFound(_)) => {}
                    Err(error) => {
                        tracing::warn!(timeline = %id, %error, "the cutoff could not be moved");
                    }
                }
                timeline.remove_retired().await;
            }
        }
    }
}

/// One merge; false where it failed.
async fn take_turn(timeline: &Arc<Timeline>) -> bool {
    match timeline.compact().await {
        Ok(_) | Err(Error::ShuttingDown) => true,
        Err(error) => {
            let id = timeline.id();
            tracing::warn!(timeline = %id, %error, "layers could not be merged; tried again");
            false
        }
    }
}
