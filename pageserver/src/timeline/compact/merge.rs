//! One merge: reads runs in order, folds each key's versions, writes and puts the layers of their
//! successor.
//!
//! It goes on in a thread of its own, since it is redo and compression; between two reads it gives
//! its permit back, so that of all merges only so many compute at once, and each gets its turn.

use std::{future::Future, sync::Arc};

use object_store::ObjectStoreExt;
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit};
use wal_format::Lsn;

use super::{
    fold::{Fold, Version},
    output::{ClearedKeys, Output, OutputClear, without_repeated},
    plan,
};
use crate::{
    error::Error,
    key::Key,
    layer::{Clear, cursor::Cursor, name::LayerSummary, reader::Layer, writer::WrittenLayer},
    store::unavailable,
    timeline::{Timeline, retention::Retained},
};

/// What is older than the runs of a merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Older {
    /// Runs of the timeline.
    OfOwn,
    /// Only what the timeline came from.
    OfAncestors,
}

/// What is merged.
pub struct Merge {
    timeline: Arc<Timeline>,
    inputs: Vec<Arc<Layer>>,
    older: Older,
    retained: Retained,
    handle: Handle,
    permit: Option<OwnedSemaphorePermit>,
    stored: Vec<LayerSummary>,
}

impl Merge {
    /// Of these layers, which are whole adjacent runs; in a runtime.
    pub fn new(
        timeline: Arc<Timeline>,
        inputs: Vec<Arc<Layer>>,
        older: Older,
        retained: Retained,
    ) -> Merge {
        let handle = Handle::current();
        Merge { timeline, inputs, older, retained, handle, permit: None, stored: Vec::new() }
    }

    /// Merges; the layers that are stored for it. Where it fails, they are removed again.
    pub fn run(mut self) -> Result<Vec<LayerSummary>, Error> {
        let merged = self.merge();
        self.permit = None;
        if merged.is_err() {
            for summary in &self.stored {
                let path = self.timeline.layer_path(summary.name);
                if let Err(error) = self.handle.block_on(self.timeline.engine.store.delete(&path)) {
                    tracing::debug!(%path, %error, "a layer of a failed merge stays unnamed");
                }
            }
        }
        merged.map(|()| self.stored)
    }

    fn merge(&mut self) -> Result<(), Error> {
        let runs = plan::runs(self.inputs.iter().map(|layer| layer.summary()));
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(()) };
        let (from, to) = (first.from, last.to);
        let clears = self.clears()?;
        let mut cursors: Vec<Cursor> = runs
            .iter()
            .map(|run| Cursor::new(self.inputs[run.layers.clone()].iter().cloned()))
            .collect();
        let mut cleared = ClearedKeys::new(&clears);
        let retained = self.retained.clone();
        let clears = self.with_what_they_hide(without_repeated(clears, &retained))?;
        let mut output = Output::new(from, to, clears, &retained);
        for cursor in &mut cursors {
            self.fill(cursor)?;
        }
        while let Some(key) = cursors.iter().filter_map(Cursor::key).min() {
            let redo = self.timeline.engine.redo.clone();
            let mut fold = Fold::new(key, cleared.of(key), &retained, redo.as_ref());
            let is_given_up = key.as_history().is_some_and(|(end, _)| end <= retained.cutoff_lsn());
            let mut kept = Vec::new();
            for cursor in &mut cursors {
                while cursor.key() == Some(key)
                    && let Some(version) = cursor.take()
                {
                    self.fill(cursor)?;
                    if !is_given_up {
                        fold.push(version, &mut |key| self.base(key, from), &mut kept);
                        self.write(&mut output, key, &mut kept)?;
                    }
                }
            }
            fold.finish(&mut |key| self.base(key, from), &mut kept);
            self.write(&mut output, key, &mut kept)?;
        }
        match output.finish()? {
            Some(layer) => self.store(layer),
            None => Ok(()),
        }
    }

    /// All clears of the runs, by rising LSN.
    fn clears(&mut self) -> Result<Vec<Clear>, Error> {
        let mut clears = Vec::new();
        for layer in self.inputs.clone() {
            clears.extend_from_slice(self.wait(layer.contents())?.clears());
        }
        clears.sort_by_key(|clear: &Clear| clear.lsn);
        Ok(clears)
    }

    /// The clears, each with whether it hides what is older than the runs.
    fn with_what_they_hide(&mut self, clears: Vec<Clear>) -> Result<Vec<OutputClear>, Error> {
        let (timeline, older) = (Arc::clone(&self.timeline), self.older);
        self.wait(async move {
            let mut found = Vec::with_capacity(clears.len());
            for clear in clears {
                let hides_older = match older {
                    Older::OfOwn => true,
                    Older::OfAncestors => timeline.inherits_any(&clear.range).await?,
                };
                found.push(OutputClear { clear, hides_older });
            }
            Ok(found)
        })
    }

    fn fill(&mut self, cursor: &mut Cursor) -> Result<(), Error> {
        if cursor.must_fill() { self.wait(cursor.fill()) } else { Ok(()) }
    }

    /// The page as it was before the runs; `None` where it cannot be made.
    fn base(&mut self, key: Key, before: Lsn) -> Option<Option<bytes::Bytes>> {
        let timeline = Arc::clone(&self.timeline);
        let page = self.wait(timeline.value_before(key, before));
        page.inspect_err(|error| {
            tracing::debug!(timeline = %timeline.id(), %error, "a page is left as records");
        })
        .ok()
    }

    fn write(
        &mut self,
        output: &mut Output<'_>,
        key: Key,
        versions: &mut Vec<Version>,
    ) -> Result<(), Error> {
        for (lsn, value) in versions.drain(..) {
            if let Some(layer) = output.add(key, lsn, &value)? {
                self.store(layer)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, layer: WrittenLayer) -> Result<(), Error> {
        let path = self.timeline.layer_path(layer.summary.name);
        let timeline = Arc::clone(&self.timeline);
        // Before it is there: a put that seems to fail may have succeeded.
        self.timeline.note_merged(layer.summary.bytes);
        self.stored.push(layer.summary);
        self.wait(async move {
            let engine = &timeline.engine;
            let put = engine.uploads.put(engine.store.as_ref(), &path, layer.object).await;
            put.map_err(|error| unavailable(&path, &error))
        })
    }

    /// Waits without a permit to compute.
    fn wait<T>(&mut self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.permit = None;
        let (engine, stop) = (&self.timeline.engine, self.timeline.stopped());
        let permit = Arc::clone(&engine.merge_permits).acquire_owned();
        let waited = self.handle.block_on(async {
            tokio::select! {
                () = stop.cancelled() => Err(Error::ShuttingDown),
                done = future => Ok((done?, permit.await.map_err(|_| Error::ShuttingDown)?)),
            }
        });
        let (done, permit) = waited?;
        self.permit = Some(permit);
        Ok(done)
    }
}
