//! Background work on all timelines: merging layers, each timeline in its turn.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::Tenants;
use crate::{clock, error::Error, timeline::Timeline};

/// Merges of at most this many bytes are small: they do not wait for large ones.
const SMALL_MERGE_BYTES: u64 = 4 << 20;
/// Small merges that are under way at once, where memory allows.
const SMALL_MERGES_MAX: usize = 8;
/// What each of them takes: its inputs and its output are in memory.
const SMALL_MERGE_MEMORY: usize = 8 << 20;
/// Large merges that are under way at once, where memory allows.
const LARGE_MERGES_MAX: usize = 4;
/// What each of them takes: some 1 MiB for each run that it reads, and a layer of 32 MiB that it
/// writes.
const LARGE_MERGE_MEMORY: usize = 48 << 20;
/// How often cutoffs are moved.
const RETENTION_INTERVAL: Duration = Duration::from_secs(300);
/// The wait after a merge that failed.
const FAILURE_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether a tenant was taken that nobody said anything about: two small
/// requests to the object store for each tenant in use.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

impl Tenants {
    /// Does background work until the engine stops. Called once.
    ///
    /// A timeline has one merge a turn and then stands at the end of the queue, and while merges
    /// go on they take turns with each read: one tenant's never keep another's waiting for long.
    pub async fn work(self: Arc<Self>) {
        let Some(mut queue) = self.engine.work.begin() else { return };
        let (small, large) = merges_at_once(self.limits.merge_bytes_max);
        let (small, large) = (Arc::new(Semaphore::new(small)), Arc::new(Semaphore::new(large)));
        let retaining = Arc::clone(&self).retain_all();
        let unloading = Arc::clone(&self).unload_all();
        let relieving = Arc::clone(&self).relieve_all();
        let looking = Arc::clone(&self).look_again_and_again();
        let surveying = Arc::clone(&self).survey_all();
        tokio::pin!(retaining, unloading, relieving, looking, surveying);
        loop {
            let timeline = tokio::select! {
                () = self.engine.stop.cancelled() => return,
                timeline = queue.recv() => timeline,
                () = &mut retaining => return,
                () = &mut unloading => return,
                () = &mut relieving => return,
                () = &mut looking => return,
                () = &mut surveying => return,
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
    /// Drops what another pageserver has taken: when a timeline is fenced, and from time to time.
    async fn look_again_and_again(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = self.engine.fenced.notified() => {}
            }
            self.look_at_all().await;
        }
    }

    /// Moves the cutoffs of all loaded timelines, again and again. Others are a survey's.
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
                if let Err(error) = timeline.keep_given().await {
                    tracing::debug!(timeline = %id, %error, "what was given is written down later");
                }
            }
        }
    }
}

/// How many small and how many large merges go on at once in so much memory: of either there is
/// always one, since reads suffer without.
fn merges_at_once(bytes_max: usize) -> (usize, usize) {
    let large = (bytes_max / 4 * 3 / LARGE_MERGE_MEMORY).clamp(1, LARGE_MERGES_MAX);
    let left = bytes_max.saturating_sub(large * LARGE_MERGE_MEMORY);
    ((left / SMALL_MERGE_MEMORY).clamp(1, SMALL_MERGES_MAX), large)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_fit_the_memory_that_they_have_and_are_never_none() {
        assert_eq!(merges_at_once(0), (1, 1));
        assert_eq!(merges_at_once(128 << 20), (4, 2));
        assert_eq!(merges_at_once(1 << 30), (SMALL_MERGES_MAX, LARGE_MERGES_MAX));
        for mib in 56..2048 {
            let (small, large) = merges_at_once(mib << 20);
            let taken = small * SMALL_MERGE_MEMORY + large * LARGE_MERGE_MEMORY;
            assert!(taken <= mib << 20, "{small} and {large} in {mib} MiB");
        }
    }
}
