//! Merges runs of layers, in the background, one merge at a time for each timeline.
//!
//! 1. What is merged is planned from what the manifest says.
//! 2. The runs are read block by block, past the cache, and written as one run; its layers are put
//!    as they are finished.
//! 3. The manifest that names them instead of the merged ones is created.
//! 4. They take the place of the merged ones, under the write lock.
//! 5. The merged ones are removed when no reader holds them any more, and this process is still
//!    the timeline's writer.
//!
//! A crash leaves at worst objects that no manifest names.

mod fold;
mod hidden;
mod merge;
mod output;
mod plan;

pub(super) use plan::runs;
pub use plan::{FAN_IN, runs_max};

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use object_store::ObjectStoreExt;

use self::{
    merge::Older,
    plan::{Job, Run},
};
use super::{State, Timeline, retention::Retained};
use crate::{
    error::Error,
    layer::{name::LayerSummary, reader::Layer},
};

/// Ingest waits when there are so many more runs than there are when no merge is due: merging does
/// not keep up, and reads would suffer.
const RUNS_BEHIND_MAX: usize = 16;
/// How often it is looked whether the worker has made all merges of a timeline.
const MERGED_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that a timeline caused since it was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BytesWritten {
    /// WAL that was ingested.
    pub wal: u64,
    /// Layers that were flushed.
    pub flushed: u64,
    /// Layers that were written by merges.
    pub merged: u64,
}

impl Timeline {
    /// Merges some runs, where that is due; whether it was. Where the object store fails, says so
    /// at the first failure; a manifest that was begun goes on being tried.
    pub async fn compact(self: &Arc<Self>) -> Result<bool, Error> {
        self.or_failure(Arc::clone(self).merge_next()).await
    }

    /// Returns when all merges are made that are due: by the worker where there is one, each in its
    /// turn.
    pub(crate) async fn merge_all(self: &Arc<Self>) -> Result<(), Error> {
        if !self.engine.work.has_worker() {
            while self.compact().await? {}
            return Ok(());
        }
        self.want_work();
        while self.is_queued.load(Ordering::Acquire) {
            if let Some(error) = self.fenced.get() {
                return Err(error.clone());
            }
            if !self.is_merging_well() {
                let timeline = self.id();
                return Err(Error::Unavailable(format!(
                    "a merge of {timeline} failed: see the log"
                )));
            }
            tokio::select! {
                () = tokio::time::sleep(MERGED_LOOK_INTERVAL) => {}
                () = self.stop.cancelled() => return Err(Error::ShuttingDown),
            }
        }
        Ok(())
    }

    /// Bytes that the next merge reads; `None` where none is due.
    pub fn merge_due(&self) -> Option<u64> {
        let state = self.state.read();
        let job = state.plan()?;
        Some(state.layers[job].iter().map(|layer| layer.summary().bytes).sum())
    }

    /// Whether there is nothing to merge, now or when WAL no longer comes as fast as it can be taken.
    pub fn is_merged(&self) -> bool {
        let state = self.state.read();
        plan::plan(&state.runs(), &state.retained).is_none()
    }

    /// How many runs of layers a read may have to look into.
    pub fn runs(&self) -> usize {
        self.state.read().runs().len()
    }

    /// Whether ingest waits for merges.
    pub fn is_behind(&self) -> bool {
        self.engine.work.has_worker() && self.is_merging_well() && self.state.read().is_behind
    }

    fn is_merging_well(&self) -> bool {
        !self.merge_failed.load(Ordering::Relaxed)
    }

    /// Bytes that were ingested and written since the timeline was loaded.
    pub fn bytes_written(&self) -> BytesWritten {
        BytesWritten {
            wal: self.last_record_lsn().0 - self.loaded_at.0,
            flushed: self.bytes_flushed.load(Ordering::Relaxed),
            merged: self.bytes_merged.load(Ordering::Relaxed),
        }
    }

    async fn merge_next(self: Arc<Self>) -> Result<bool, Error> {
        let _one_at_a_time = self.merging.lock().await;
        let (layers, retained, job) = {
            let state = self.state.read();
            (state.layers.clone(), state.retained.clone(), state.plan())
        };
        let Some(job) = job else { return Ok(false) };
        let inputs = layers[job.clone()].to_vec();
        drop(layers);
        let older = if job.start == 0 { Older::OfAncestors } else { Older::OfOwn };
        let merge = merge::Merge::new(Arc::clone(&self), inputs, older, retained);
        let merged = tokio::task::spawn_blocking(move || merge.run()).await;
        let merged = merged.map_err(|error| Error::Unavailable(format!("a merge ended: {error}")));
        let merged = merged.and_then(|merged| merged);
        self.merge_failed.store(merged.is_err(), Ordering::Relaxed);
        self.room.notify_waiters();
        if let Err(error) = self.publish_merged(job, merged?).await {
            self.give_up(error.clone());
            return Err(error);
        }
        self.remove_retired().await;
        Ok(true)
    }

    /// Fails only where trying again cannot help: fenced, or stopped.
    async fn publish_merged(&self, job: Job, merged: Vec<LayerSummary>) -> Result<(), Error> {
        let mut sequence = self.sequence.lock().await;
        let now = self.flushed.borrow().clone();
        let merged: Vec<Arc<Layer>> =
            merged.into_iter().map(|summary| Arc::new(self.layer(summary))).collect();
        // Flushes add layers behind those of the job; nothing else changes them meanwhile.
        let mut layers = self.state.read().layers.to_vec();
        let replaced: Vec<_> = layers.splice(job, merged).collect();
        let manifest = self.manifest(now.last_record, &layers);
        let take_over = |_| {
            self.state.write().set_layers(layers);
            self.retired.lock().extend(replaced);
        };
        self.publish(&mut sequence, manifest, take_over).await
    }

    /// Removes merged layers that no reader holds any more. What fails to be removed is tried
    /// again at the next merge; what a crash leaves, no manifest names.
    pub(crate) async fn remove_retired(&self) {
        let mut unused = Vec::new();
        self.retired.lock().retain(|layer| {
            // Nobody can get hold of it anew: it is in no state any more.
            let is_unused = Arc::strong_count(layer) == 1;
            if is_unused {
                unused.push(layer.clone());
            }
            !is_unused
        });
        if unused.is_empty() {
            return;
        }
        let confirmed = self.sequence.lock().await.confirm_newest().await;
        match confirmed {
            // Loaded again meanwhile, perhaps by an older manifest.
            Ok(()) if self.stop.is_cancelled() => return,
            Ok(()) => {}
            Err(error @ Error::Fenced { .. }) => return self.give_up(error),
            Err(error) => {
                tracing::debug!(timeline = %self.id(), %error, "merged layers are removed later");
                return self.retired.lock().extend(unused);
            }
        }
        for layer in unused {
            match self.engine.store.delete(layer.path()).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::debug!(path = %layer.path(), %error, "a merged layer stays for now");
                    self.retired.lock().push(layer);
                }
            }
        }
    }
}

impl State {
    /// The next merge, where one is due. While WAL comes as fast as it can be taken, as when a
    /// timeline catches up or is loaded with much, none is before half as many runs have gathered
    /// as ingest would wait for: fewer and wider merges, and the processors are ingest's until then.
    fn plan(&self) -> Option<Job> {
        let runs = self.runs();
        if self.hurries_until().is_some() && !has_more_by(RUNS_BEHIND_MAX / 2, &runs) {
            return None;
        }
        plan::plan(&runs, &self.retained)
    }

    fn runs(&self) -> Vec<Run> {
        plan::runs(self.layers.iter().map(|layer| layer.summary()))
    }
}

/// Whether a merge is due for these layers, with this retained.
pub(super) fn planned(layers: &[LayerSummary], retained: &Retained) -> bool {
    plan::plan(&plan::runs(layers), retained).is_some()
}

/// Whether there are so many runs that ingest should wait.
pub(super) fn is_behind(layers: &[Arc<Layer>]) -> bool {
    has_more_by(RUNS_BEHIND_MAX, &plan::runs(layers.iter().map(|layer| layer.summary())))
}

/// Whether there are so many more runs than there are when no merge is due.
fn has_more_by(more: usize, runs: &[Run]) -> bool {
    let bytes = runs.iter().map(|run| run.bytes).sum();
    runs.len() > runs_max(bytes) + more
}
