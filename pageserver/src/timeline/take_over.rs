//! A timeline of a tenant that this pageserver takes from another.
//!
//! Until the first manifest of this one is there, the other may write manifests and remove what
//! they no longer name. From then on it is fenced, and everything that the manifest names stays: so
//! nothing is served before.

use std::sync::{Arc, atomic::Ordering};

use super::Timeline;
use crate::error::Error;

impl Timeline {
    /// The generation of the owner that wrote the newest manifest known.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether it belongs to another pageserver still.
    pub(crate) fn is_warming(&self) -> bool {
        self.is_warming.load(Ordering::Acquire)
    }

    pub(super) fn refuse_while_warming(&self) -> Result<(), Error> {
        let timeline = self.id();
        match self.is_warming() {
            true => Err(Error::Unavailable(format!("{timeline} is another pageserver's still"))),
            false => Ok(()),
        }
    }

    /// Fences whoever served the tenant before, where this was not done yet: writes a manifest
    /// under this generation. [`Error::ShuttingDown`] where the other wrote one since this was
    /// loaded: it has to be loaded again.
    pub(crate) async fn take_over(self: &Arc<Self>, generation: u64) -> Result<(), Error> {
        if self.is_read_only() {
            return Ok(());
        }
        if self.generation() < generation {
            let timeline = Arc::clone(self);
            self.or_failure(async move { timeline.write_generation(generation).await }).await?;
        }
        if self.is_warming.swap(false, Ordering::AcqRel) {
            // What was ingested meanwhile may be written now.
            self.flush_wanted.notify_one();
            self.want_work();
        }
        Ok(())
    }

    async fn write_generation(self: Arc<Self>, generation: u64) -> Result<(), Error> {
        let mut sequence = self.sequence.lock().await;
        if self.generation.fetch_max(generation, Ordering::AcqRel) >= generation {
            return Ok(());
        }
        // Without a manifest there is nothing that the other could remove.
        if sequence.newest() == 0 {
            return Ok(());
        }
        let now = self.flushed.borrow().clone();
        let manifest = self.manifest(now.last_record, &self.state.read().layers);
        let published = self.publish(&mut sequence, manifest, |_| ()).await;
        published.inspect_err(|error| self.give_up(error.clone()))
    }
}
