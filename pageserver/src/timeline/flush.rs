//! Carries frozen layers to the object store, in the background, one at a time for each timeline.
//!
//! 1. The open layer is frozen, by size, by age or because somebody asked.
//! 2. The delta layer is made and compressed, and put. Upload before publishing: a manifest must never name
//!    a missing layer.
//! 3. The manifest that names it is created.
//! 4. The frozen layer gives way to the stored one, under the write lock.
//!
//! A failure of 2 or 3 is tried again for as long as it takes: memory keeps what is not stored,
//! ingest waits when there is too much of it, and reads from memory go on. A crash loses only
//! memory, which ingest fills again from WAL that safekeepers keep until step 4.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use object_store::path::Path;
use prometheus::HistogramTimer;
use protocol::{BranchPoint, Term};
use tokio::{sync::watch, time::Instant};
use wal_format::{Lsn, PAGE_BYTES};

use super::{
    FROZEN_LAYERS_MAX, FlushStatus, Frozen, OPEN_LAYER_AGE_MAX, Timeline,
    images::{Bases, PageMaker},
};
use crate::{
    error::Error,
    layer::{
        reader::Layer,
        writer::{WrittenLayer, write_delta},
    },
    manifest::{Prepared, Sequence, TimelineManifest},
    metering::{LogicalSize, Meter},
    metrics::METRICS,
    open_layers::Charge,
    store::unavailable,
};

/// The wait after a first failure; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a layer's manifest waits for the logical size, which an ancestor may have to be read for.
const MEASURE_TIME_MAX: Duration = Duration::from_secs(1);

impl Timeline {
    /// Writes all that was applied to the object store; the LSN up to which it is there. Where the
    /// object store fails, says so at the first failure; writing goes on being tried.
    pub async fn flush(&self) -> Result<Lsn, Error> {
        self.refuse_while_warming()?;
        let mut status = self.flushed.subscribe();
        let known_failures = status.borrow_and_update().failures;
        let wanted = {
            let mut state = self.state.write();
            if !state.open.is_empty() {
                state.freeze();
            }
            state.last_record.lsn
        };
        self.flush_wanted.notify_one();
        let written = |now: &FlushStatus| now.last_record.lsn >= wanted;
        self.until(written, status, known_failures).await.map(|now| now.last_record.lsn)
    }

    /// Takes note of a compute's term, and returns when a manifest has it: older computes are
    /// refused also by whoever loads the timeline next.
    pub async fn keep_term(self: &Arc<Self>, term: Term) -> Result<(), Error> {
        let mut status = self.flushed.subscribe();
        let now = status.borrow_and_update().clone();
        self.learn_term(term);
        self.has_compute.store(true, Ordering::Relaxed);
        if self.is_read_only() || now.term >= term {
            return Ok(());
        }
        // In a task of its own: it waits for no layer, and a manifest that was begun is tried
        // until it is written, whether the compute waits for it or not.
        let timeline = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = timeline.write_term(term).await {
                timeline.give_up(error);
            }
        });
        self.until(|now| now.term >= term, status, now.failures).await.map(|_| ())
    }

    /// Waits for work that goes on being tried where the object store fails, whether somebody waits
    /// for it or not; fails at its first failure.
    pub(super) async fn or_failure<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut status = self.flushed.subscribe();
        let known_failures = status.borrow_and_update().failures;
        tokio::select! {
            done = tokio::spawn(work) => done.map_err(|_| Error::ShuttingDown)?,
            failed = self.until(|_| false, status, known_failures) => {
                failed.and(Err(Error::ShuttingDown))
            }
        }
    }

    /// Waits until the newest manifest is so; fails at the first new failure to write one.
    async fn until(
        &self,
        is_so: impl Fn(&FlushStatus) -> bool,
        mut status: watch::Receiver<FlushStatus>,
        known_failures: u64,
    ) -> Result<FlushStatus, Error> {
        loop {
            let now = status.borrow_and_update().clone();
            if is_so(&now) {
                return Ok(now);
            }
            if let Some(error) = now.failure.filter(|_| now.failures > known_failures) {
                return Err(error);
            }
            if let Some(error) = self.fenced.get() {
                return Err(error.clone());
            }
            tokio::select! {
                _ = status.changed() => {}
                () = self.stop.cancelled() => return Err(Error::ShuttingDown),
            }
        }
    }

    /// Writes all frozen layers, and asks for a merge where one waited until now; when the open one
    /// is to be frozen because of its age, or a merge waits no longer.
    async fn write_all_frozen(self: &Arc<Self>) -> Result<Option<Instant>, Error> {
        self.freeze_the_old();
        self.want_work();
        let mut made = None;
        loop {
            let mut layer = match (made.take(), self.frozen(0)) {
                (Some(made), _) => made,
                (None, Some(frozen)) => self.make_layer(frozen, None).await?,
                (None, None) => break,
            };
            // While one layer is on its way, the processor makes the next.
            let ends = layer.ends.take();
            let next = async {
                let frozen = self.frozen(1)?;
                Some(self.make_layer(frozen, ends).await)
            };
            let (stored, next) = tokio::join!(self.store_layer(layer), next);
            stored?;
            self.want_work();
            made = next.transpose()?;
        }
        let state = self.state.read();
        let is_old = state.open_since.map(|since| since + OPEN_LAYER_AGE_MAX);
        Ok([is_old, state.hurries_until()].into_iter().flatten().min())
    }

    /// Nothing more can be written, or must be: the timeline is fenced, or stopped.
    pub(crate) fn give_up(&self, error: Error) {
        if error != Error::ShuttingDown {
            let timeline = self.id();
            if matches!(error, Error::Fenced { .. }) {
                tracing::warn!(%timeline, %error, "the timeline takes no more WAL");
                self.engine.fenced.notify_one();
            } else {
                tracing::error!(%timeline, %error, "the timeline takes no more WAL");
            }
            _ = self.fenced.set(error.clone());
        }
        self.note_failure(error);
        self.room.notify_waiters();
    }

    /// Has the open layer written, where no others wait for it.
    pub(crate) fn freeze_now(&self) {
        let mut state = self.state.write();
        if !state.open.is_empty() && state.frozen.len() < FROZEN_LAYERS_MAX {
            state.freeze();
            drop(state);
            self.flush_wanted.notify_one();
        }
    }

    fn freeze_the_old(&self) {
        let mut state = self.state.write();
        let is_old = state.open_since.is_some_and(|since| since.elapsed() >= OPEN_LAYER_AGE_MAX);
        if is_old && !state.open.is_empty() {
            state.freeze();
        }
    }

    /// The frozen layer that so many others come before.
    fn frozen(&self, place: usize) -> Option<Frozen> {
        if self.is_warming() {
            return None;
        }
        self.state.read().frozen.get(place).cloned()
    }

    /// Writes a manifest for the sake of a term alone, unless there is one that has it.
    async fn write_term(&self, term: Term) -> Result<(), Error> {
        let mut sequence = self.sequence.lock().await;
        let now = self.flushed.borrow().clone();
        if now.term >= term {
            return Ok(());
        }
        let manifest = self.manifest(now.last_record, &self.state.read().layers);
        self.publish(&mut sequence, manifest, |_| ()).await
    }

    /// Fails only where trying again cannot help: stopped.
    async fn make_layer(&self, frozen: Frozen, known: Option<Ends>) -> Result<Made, Error> {
        // Also where it is given up: what took long until then took long.
        let timer = METRICS.flush_seconds.start_timer();
        let permit = tokio::select! {
            permit = self.engine.flush_permits.acquire() => permit,
            () = self.stop.cancelled() => return Err(Error::ShuttingDown),
        };
        let (layer, redo) = (frozen.layer.clone(), self.engine.redo.clone());
        let buffer = self.engine.open_layers.spare().buffer();
        let (to, nonce) = (frozen.last_record.lsn, rand::random());
        let (known, charge) = known.map(|Ends { pages, charge }| (pages, charge)).unzip();
        let bases = self.bases(&layer, known.unwrap_or_default()).await;
        let written = tokio::task::spawn_blocking(move || {
            let mut pages = PageMaker::new(layer.clears(), &bases, redo.as_ref());
            let written = write_delta(&layer, to, nonce, buffer, &mut pages);
            written.map(|written| (written, pages.into_ends()))
        });
        let (layer, ends) = written.await.map_err(|error| {
            Error::IngestStopped(format!("the layer up to {to} could not be made: {error}"))
        })??;
        drop((permit, charge));
        let mut charge = Charge::new(self.engine.open_layers.clone());
        charge.grow_to(ends.len() * PAGE_BYTES);
        let ends = Some(Ends { pages: ends, charge });
        Ok(Made { frozen, layer, ends, _timer: timer })
    }

    /// Fails only where trying again cannot help: fenced, or stopped.
    async fn store_layer(&self, made: Made) -> Result<(), Error> {
        let Made { frozen, layer: written, _timer, .. } = made;
        let to = frozen.last_record.lsn;
        let path = self.layer_path(written.summary.name);
        self.put_layer(&path, &written.object).await?;
        self.engine.open_layers.spare().give_object(written.object);
        self.bytes_flushed.fetch_add(written.summary.bytes, Ordering::Relaxed);
        self.measure(to).await;
        let mut sequence = self.sequence.lock().await;
        let mut layers = self.state.read().layers.to_vec();
        layers.push(Arc::new(self.layer(written.summary)));
        let manifest = self.manifest(frozen.last_record, &layers);
        self.publish(&mut sequence, manifest, |_| self.replace_frozen(layers, to)).await
    }

    /// The next manifest, with these layers.
    pub(super) fn manifest(
        &self,
        last_record: BranchPoint,
        layers: &[Arc<Layer>],
    ) -> TimelineManifest {
        let (retained, announced) = {
            let state = self.state.read();
            (state.retained.clone(), state.announced)
        };
        let layers = layers.iter().map(|layer| layer.summary().clone()).collect();
        TimelineManifest {
            last_record,
            generation: self.generation(),
            term: self.term(),
            retained,
            announced,
            logical_size: *self.measured.lock(),
            given: self.given(),
            layers,
        }
    }

    /// Measures the logical size for the next manifest. Where it cannot be had in time, the last one
    /// stays: a layer does not wait for it.
    async fn measure(&self, at: Lsn) {
        let size = tokio::time::timeout(MEASURE_TIME_MAX, self.logical_size(at)).await;
        if let Ok(Ok(bytes)) = size {
            *self.measured.lock() = Some(LogicalSize { lsn: at, bytes });
        }
    }

    /// Writes a manifest for the sake of what was given since the last one, where this
    /// process writes the timeline, or serves the compute that does: what others count is theirs.
    /// Fails at the first failure: a stop does not wait for a store that is gone.
    pub(crate) async fn keep_given(self: &Arc<Self>) -> Result<(), Error> {
        if self.writes_nothing() || self.given() == *self.given_kept.lock() {
            return Ok(());
        }
        let is_ours =
            self.has_compute.load(Ordering::Relaxed) || self.sequence.lock().await.has_written();
        if is_ours { self.write_manifest(|_| ()).await } else { Ok(()) }
    }

    async fn put_layer(&self, path: &Path, object: &Bytes) -> Result<(), Error> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let store = self.engine.store.as_ref();
            match self.engine.uploads.put(store, path, object.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => self.back_off(&mut backoff, unavailable(path, &error)).await?,
            }
        }
    }

    /// Makes this manifest the newest, however often that has to be tried; `take_over` then makes
    /// what is in memory agree with it, before anybody is told.
    ///
    /// Where another writer's manifest came between loading and the first own one, the timeline is
    /// stopped, and loaded again by whoever asks for it next: who came last may take over, and the
    /// other may have been a process that ended with a request under way. One that has written is
    /// fenced for good, so that two never take a timeline from each other in turn.
    pub(super) async fn publish(
        &self,
        sequence: &mut Sequence,
        manifest: TimelineManifest,
        take_over: impl FnOnce(TimelineManifest),
    ) -> Result<(), Error> {
        self.create(sequence, sequence.prepare(&manifest)?).await?;
        let (last_record, term) = (manifest.last_record, manifest.term);
        self.engine.meters.note(self.id(), Meter::of(&manifest));
        self.engine.note_written(self.id().tenant);
        *self.given_kept.lock() = manifest.given;
        take_over(manifest);
        self.note_success(last_record, term);
        sequence.collect().await;
        Ok(())
    }

    async fn create(&self, sequence: &mut Sequence, manifest: Prepared) -> Result<(), Error> {
        let mut backoff = BACKOFF_MIN;
        loop {
            match sequence.publish(manifest.clone()).await {
                Err(error @ Error::Unavailable(_)) => self.back_off(&mut backoff, error).await?,
                Err(error @ Error::Fenced { .. }) if !sequence.has_written() => {
                    let timeline = self.id();
                    tracing::warn!(%timeline, %error, "loaded too early: it is loaded again");
                    self.stop.cancel();
                    return Err(Error::ShuttingDown);
                }
                done => return done,
            }
        }
    }

    /// Waits before the next try.
    async fn back_off(&self, backoff: &mut Duration, error: Error) -> Result<(), Error> {
        let timeline = self.id();
        tracing::warn!(%timeline, %error, ?backoff, "a flush failed and is tried again");
        self.note_failure(error);
        METRICS.flush_failures.inc();
        tokio::select! {
            () = tokio::time::sleep(*backoff) => {}
            () = self.stop.cancelled() => return Err(Error::ShuttingDown),
        }
        *backoff = (*backoff * 2).min(BACKOFF_MAX);
        Ok(())
    }

    fn note_failure(&self, error: Error) {
        self.flushed.send_modify(|status| {
            status.failures += 1;
            status.failure = Some(error);
        });
    }

    fn replace_frozen(&self, layers: Vec<Arc<Layer>>, to: Lsn) {
        self.kept.forget_up_to(to);
        let mut state = self.state.write();
        state.set_layers(layers);
        state.frozen.pop_front();
        if state.is_full() && state.frozen.len() < FROZEN_LAYERS_MAX {
            state.freeze_full();
        }
    }

    fn note_success(&self, last_record: BranchPoint, term: Term) {
        self.flushed.send_modify(|status| {
            *status = FlushStatus { last_record, term, failure: None, ..*status };
        });
        self.remote_consistent_lsn.send_replace(last_record.lsn);
        self.room.notify_waiters();
    }
}

/// A frozen layer as it will be stored, and the time that it takes.
struct Made {
    frozen: Frozen,
    layer: WrittenLayer,
    ends: Option<Ends>,
    _timer: HistogramTimer,
}

/// The pages with the most records, as they are after a layer: the next one begins from them.
struct Ends {
    pages: Bases,
    charge: Charge,
}

/// A timeline's background task. It holds the timeline only while it has something to write: one
/// that nobody else holds is unloaded.
pub(super) async fn write_layers(timeline: Weak<Timeline>) {
    let Some((stop, wanted)) =
        timeline.upgrade().map(|timeline| (timeline.stop.clone(), timeline.flush_wanted.clone()))
    else {
        return;
    };
    let mut deadline = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted.notified() => {}
            () = sleep_until(deadline) => {}
        }
        let Some(timeline) = timeline.upgrade() else { return };
        if timeline.is_fenced() {
            return;
        }
        match timeline.write_all_frozen().await {
            Ok(next) => deadline = next,
            Err(error) => return timeline.give_up(error),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
