//! When a timeline may leave memory: nobody has used it for a while, nothing of it is in memory
//! alone, and no work on it is under way.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::TryLockError, time::Instant};

use super::Timeline;
use crate::{error::Error, manifest::Resting};

impl Timeline {
    /// Takes note that somebody asks for the timeline.
    pub(crate) fn note_use(&self, now: Instant) {
        *self.last_used.lock() = now;
    }

    /// Whether nobody has asked for it for so long.
    pub(crate) fn is_idle(&self, now: Instant, idle_for: Duration) -> bool {
        now.saturating_duration_since(*self.last_used.lock()) >= idle_for
    }

    /// Writes what is in memory alone, and removes what merges have left. Of a timeline that
    /// another pageserver has, or that has to be loaded again, nothing is written any more, and
    /// nothing is lost with it: safekeepers keep what is in no layer.
    pub(crate) async fn come_to_rest(self: &Arc<Self>) -> Result<(), Error> {
        if self.writes_nothing() {
            return Ok(());
        }
        if self.has_unflushed() {
            self.flush().await?;
        }
        self.remove_retired().await;
        self.keep_given().await
    }

    /// Whether it can be dropped: asked while nobody else can get hold of it. Where it can, nobody
    /// gives it work any more.
    pub(crate) fn is_at_rest(&self) -> bool {
        if self.writes_nothing() {
            return true;
        }
        if self.has_unflushed() || !self.retired.lock().is_empty() {
            return false;
        }
        let was_queued = self.is_queued.swap(true, Ordering::AcqRel);
        !was_queued || !self.engine.work.has_worker()
    }

    /// The writer of its manifests, where this process has written one; `Err` while it writes. Who
    /// loads the timeline again goes on with it: as another writer it would leave one more manifest
    /// for ever each time, and would take the timeline from whoever came meanwhile.
    pub(crate) fn writer(&self) -> Result<Option<Resting>, TryLockError> {
        Ok(self.sequence.try_lock()?.rest())
    }

    /// Memory of the open layer.
    pub(crate) fn open_bytes(&self) -> usize {
        self.state.read().open.bytes()
    }

    /// Memory of layers that wait to be written.
    pub(crate) fn frozen_bytes(&self) -> usize {
        self.state.read().frozen_bytes()
    }

    pub(super) fn writes_nothing(&self) -> bool {
        self.is_read_only() || self.is_fenced() || self.stop.is_cancelled()
    }

    fn has_unflushed(&self) -> bool {
        let state = self.state.read();
        !state.open.is_empty() || !state.frozen.is_empty()
    }
}
