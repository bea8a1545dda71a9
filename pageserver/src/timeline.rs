//! One timeline: what WAL did to its keys since it began, and its ancestor's history before that.
//!
//! Invariants:
//! - Records are applied in the order of their LSNs; `last_record` is the last one applied.
//! - Every version is in exactly one of: the open layer, a frozen layer, a layer that the newest
//!   manifest names. It moves to the next of them under the write lock, so a reader that takes its
//!   view under the read lock misses nothing and sees nothing twice.
//! - The stored layers are changed only by whoever holds the sequence of manifests.
//! - All versions of the timeline's own layers are above its origin; what is at or below it is the
//!   ancestor's.

mod ahead;
mod compact;
mod due;
mod flush;
mod images;
mod kept;
mod lease;
mod past;
mod read;
mod reconstruct;
mod rest;
mod retain;
mod retention;
mod take_over;

pub use ahead::READS_AHEAD_MAX;
pub use compact::{BytesWritten, FAN_IN, runs_max};
pub use due::{Due, due};
pub use images::RECORDS_PER_IMAGE;
pub use lease::{LEASE, Lease};
pub use retention::{Cutoff, Retained, Window};

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::path::Path;
use parking_lot::{Mutex, RwLock};
use protocol::{BranchPoint, TenantTimeline, Term, TimelineOrigin};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use wal_format::Lsn;

use crate::{
    change::{Change, Changes},
    engine::{Engine, layer_path, timeline_folder},
    error::Error,
    key::KeyKind,
    layer::{
        memory::MemoryLayer,
        name::{LayerName, LayerSummary},
        reader::Layer,
    },
    manifest::{Resting, Sequence, TimelineManifest},
    metering::{Given, GivenCounter, LogicalSize, Meter, fork_bytes},
    metrics::METRICS,
    open_layers::{Charge, with_object},
};

/// The open layer is frozen when it has grown to this many bytes.
pub const OPEN_LAYER_BYTES_MAX: usize = 64 << 20;
/// Or when it has so many bytes of WAL. A layer in memory counts LSNs from its beginning in 32 bits:
/// what is taken at once, at most a segment or a record of 1 GiB, may come on top.
const OPEN_LAYER_WAL_BYTES_MAX: u64 = 1 << 30;
/// The open layer is frozen when its first record has waited this long.
pub const OPEN_LAYER_AGE_MAX: Duration = Duration::from_secs(30);
/// Frozen layers that may wait to be written before ingest has to.
const FROZEN_LAYERS_MAX: usize = 2;

/// What a timeline is, as its tenant's manifest has it.
pub struct TimelineFacts {
    /// Its name in requests.
    pub id: TenantTimeline,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// Where it came from.
    pub ancestor: Option<AncestorTimeline>,
    /// When its tenant was made, in microseconds since 2000.
    pub tenant_created_at: i64,
    /// Whether its pages have data checksums.
    pub checksums: bool,
    /// Whether it is a template's.
    pub read_only: bool,
    /// Whether it is loaded before its tenant is taken: until [`Timeline::take_over`], nothing is
    /// written.
    pub is_warming: bool,
}

/// Where a timeline came from.
pub struct AncestorTimeline {
    /// The ancestor.
    pub timeline: Arc<Timeline>,
    /// The last of its LSNs that the timeline sees.
    pub lsn: Lsn,
}

/// A loaded timeline. Reads are at an LSN that is a record's end, or anything between two of them.
pub struct Timeline {
    facts: TimelineFacts,
    engine: Arc<Engine>,
    /// Never held across an await: readers copy what they need and go on without it.
    state: RwLock<State>,
    /// `state.last_record.lsn` again, for those that wait for it without the lock.
    last_record_lsn: AtomicU64,
    applied: Notify,
    term: AtomicU64,
    generation: AtomicU64,
    /// The tenant is another pageserver's: WAL is ingested, and nothing is written.
    is_warming: AtomicBool,
    /// Outlives the timeline where it is unloaded: one process is one writer.
    sequence: tokio::sync::Mutex<Sequence>,
    flushed: watch::Sender<FlushStatus>,
    remote_consistent_lsn: watch::Sender<Lsn>,
    /// Wakes the flush task: the open layer got its first record, or a layer was frozen.
    flush_wanted: Arc<Notify>,
    /// Wakes ingest: a frozen layer was written, or layers were merged.
    room: Notify,
    /// Taken by a merge: there is one at a time.
    merging: tokio::sync::Mutex<()>,
    /// The last merge failed: ingest does not wait for one.
    merge_failed: AtomicBool,
    /// Taken while the cutoff is moved.
    pub(crate) retaining: tokio::sync::Mutex<()>,
    leases: lease::Leases,
    kept: Arc<kept::KeptPages>,
    /// Whether it is in the queue for merges, or has its turn.
    is_queued: AtomicBool,
    /// Merged layers that readers may still hold.
    retired: Mutex<Vec<Arc<Layer>>>,
    loaded_at: Lsn,
    bytes_flushed: AtomicU64,
    bytes_merged: AtomicU64,
    fenced: OnceLock<Error>,
    stop: CancellationToken,
    is_ingesting: AtomicBool,
    last_used: Mutex<Instant>,
    /// The last logical size asked for.
    logical_size: Mutex<Option<LogicalSize>>,
    /// The last logical size for a manifest.
    measured: Mutex<Option<LogicalSize>>,
    /// Since the timeline began.
    given: GivenCounter,
    /// What of that the newest manifest has.
    given_kept: Mutex<Given>,
    /// A compute that writes it reads here: what it reads is this process' to count.
    has_compute: AtomicBool,
}

struct State {
    open: MemoryLayer,
    open_charge: Charge,
    /// When the open layer got its first record.
    open_since: Option<Instant>,
    /// When a layer was last frozen because it was full.
    full_since: Option<Instant>,
    /// Oldest first.
    frozen: VecDeque<Frozen>,
    /// By rising LSN, those of one range of LSNs by rising key.
    layers: Arc<Vec<Arc<Layer>>>,
    /// Whether merging does not keep up.
    is_behind: bool,
    retained: Retained,
    announced: Option<Lsn>,
    last_record: BranchPoint,
}

#[derive(Clone)]
struct Frozen {
    layer: Arc<MemoryLayer>,
    /// Counts the layer's memory while it is one of the timeline's.
    _charge: Arc<Charge>,
    last_record: BranchPoint,
}

/// What the newest manifest says, and how often writing the next one failed.
#[derive(Clone, Debug)]
struct FlushStatus {
    last_record: BranchPoint,
    term: Term,
    failures: u64,
    failure: Option<Error>,
}

impl Timeline {
    /// Loads a timeline from its newest manifest. A writable one gets a task that writes its
    /// layers, which ends with [`Timeline::stop`]. `written` is the writer of a timeline that
    /// this process has unloaded: it goes on as the same writer, or finds that it is none any more.
    pub async fn load(
        engine: Arc<Engine>,
        facts: TimelineFacts,
        written: Option<Resting>,
    ) -> Result<Arc<Timeline>, Error> {
        let folder = timeline_folder(facts.id);
        let opened = Sequence::open(engine.store.clone(), folder.clone()).await?;
        let (sequence, manifest): (_, Option<TimelineManifest>) = opened;
        let sequence = match written {
            Some(writer) => Sequence::wake(engine.store.clone(), folder, writer),
            None => sequence,
        };
        engine.meters.note(facts.id, manifest.as_ref().map(Meter::of).unwrap_or_default());
        let given = engine.meters.get(facts.id).map(|meter| meter.given).unwrap_or_default();
        let given_kept = manifest.as_ref().map(|manifest| manifest.given).unwrap_or_default();
        let manifest = manifest.unwrap_or_else(|| TimelineManifest::begin(facts.origin.point));
        let layer = |summary| Arc::new(open_layer(&engine, facts.id, summary));
        let layers: Vec<Arc<Layer>> = manifest.layers.into_iter().map(layer).collect();
        let last_record = manifest.last_record;
        let flushed = FlushStatus { last_record, term: manifest.term, failures: 0, failure: None };
        let timeline = Arc::new(Timeline {
            state: RwLock::new(State {
                open: MemoryLayer::new(last_record.lsn, engine.open_layers.spare()),
                open_charge: Charge::new(engine.open_layers.clone()),
                open_since: None,
                full_since: None,
                frozen: VecDeque::new(),
                is_behind: compact::is_behind(&layers),
                layers: Arc::new(layers),
                retained: manifest.retained,
                announced: manifest.announced,
                last_record,
            }),
            last_record_lsn: AtomicU64::new(last_record.lsn.0),
            applied: Notify::new(),
            term: AtomicU64::new(manifest.term.0),
            generation: AtomicU64::new(manifest.generation),
            is_warming: AtomicBool::new(facts.is_warming),
            sequence: tokio::sync::Mutex::new(sequence),
            flushed: watch::Sender::new(flushed),
            remote_consistent_lsn: watch::Sender::new(last_record.lsn),
            flush_wanted: Arc::default(),
            room: Notify::new(),
            merging: tokio::sync::Mutex::default(),
            merge_failed: AtomicBool::new(false),
            retaining: tokio::sync::Mutex::default(),
            leases: lease::Leases::default(),
            kept: Arc::default(),
            is_queued: AtomicBool::new(false),
            retired: Mutex::default(),
            loaded_at: last_record.lsn,
            bytes_flushed: AtomicU64::new(0),
            bytes_merged: AtomicU64::new(0),
            fenced: OnceLock::new(),
            stop: facts.ancestor.as_ref().map_or_else(
                || engine.stop.child_token(),
                |ancestor| ancestor.timeline.stop.child_token(),
            ),
            is_ingesting: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
            logical_size: Mutex::new(None),
            measured: Mutex::new(manifest.logical_size),
            given: GivenCounter::from(given),
            given_kept: Mutex::new(given_kept),
            has_compute: AtomicBool::new(false),
            facts,
            engine,
        });
        if !timeline.is_read_only() {
            tokio::spawn(flush::write_layers(Arc::downgrade(&timeline)));
            timeline.want_work();
        }
        Ok(timeline)
    }

    /// The timeline's name in requests.
    pub fn id(&self) -> TenantTimeline {
        self.facts.id
    }

    /// Where the timeline begins.
    pub fn origin(&self) -> TimelineOrigin {
        self.facts.origin
    }

    /// Whether this is a template's: nothing is ever applied to it.
    pub fn is_read_only(&self) -> bool {
        self.facts.read_only
    }

    /// Cancelled when the timeline, or one that it came from, was deleted or has to be loaded again,
    /// or the pageserver stops: who ingests into it ends.
    pub fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends the timeline's background work and everyone who waits for it.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether this is the first call: true once for each loaded timeline, when somebody must
    /// begin to ingest into it.
    pub(crate) fn begin_ingest(&self) -> bool {
        !self.is_read_only() && !self.is_ingesting.swap(true, Ordering::Relaxed)
    }

    /// Takes over what one record does, as [`Timeline::apply_all`].
    pub fn apply(&self, change: Change) {
        self.apply_all(&mut Changes::from(change));
    }

    /// Takes over what some records do; none of it is left in `changes`. `last_record_lsn` moves to
    /// the last one's end. Records come in order, from one caller at a time, and only while
    /// [`Timeline::ready_for_more`] has said so lately (once for every chunk of WAL received is
    /// enough).
    pub fn apply_all(&self, changes: &mut Changes) {
        assert!(!self.is_read_only(), "a template's timeline takes no records");
        let (Some(first), Some(last)) = (changes.records.first(), changes.records.last()) else {
            return;
        };
        let start = first.start;
        let last_record = BranchPoint { lsn: last.end, last_record: last.start };
        let mut state = self.state.write();
        assert!(
            state.last_record.lsn <= start && start < last_record.lsn,
            "records come in order: {start}..{} after {}",
            last_record.lsn,
            state.last_record.lsn
        );
        let is_first = state.open.is_empty();
        if is_first {
            state.open_since = Some(Instant::now());
        }
        state.open.apply(changes);
        let bytes = with_object(state.open.bytes());
        state.open_charge.grow_to(bytes);
        METRICS.ingested_bytes.inc_by(last_record.lsn.0 - state.last_record.lsn.0);
        state.last_record = last_record;
        let is_full = state.is_full() && state.frozen.len() < FROZEN_LAYERS_MAX;
        if is_full {
            state.freeze_full();
        }
        self.last_record_lsn.store(last_record.lsn.0, Ordering::Release);
        drop(state);
        self.applied.notify_waiters();
        if is_first || is_full {
            self.flush_wanted.notify_one();
        }
    }

    /// Waits until memory has room: the back-pressure on ingest. Fails when the timeline was
    /// fenced or stopped.
    pub async fn ready_for_more(&self) -> Result<(), Error> {
        let (mut was_behind, mut had_no_memory) = (false, false);
        loop {
            let (room, memory) = (self.room.notified(), self.engine.open_layers.room());
            tokio::pin!(room, memory);
            room.as_mut().enable();
            memory.as_mut().enable();
            if let Some(error) = self.fenced.get() {
                return Err(error.clone());
            }
            if self.stop.is_cancelled() {
                return Err(Error::ShuttingDown);
            }
            let is_full = {
                let state = self.state.read();
                state.is_full() && state.frozen.len() >= FROZEN_LAYERS_MAX
            };
            let is_behind = self.is_behind();
            // Where nobody relieves it, it would be waited for in vain.
            let has_no_memory = self.engine.open_layers.is_full() && self.engine.work.has_worker();
            if !is_full && !is_behind && !has_no_memory {
                return Ok(());
            }
            if has_no_memory && !had_no_memory {
                METRICS.memory_waits.inc();
            }
            if is_behind && !was_behind {
                let (timeline, runs) = (self.id(), self.runs());
                tracing::warn!(%timeline, runs, "ingest waits for layers to be merged");
            }
            (was_behind, had_no_memory) = (is_behind, has_no_memory);
            tokio::select! {
                () = room => {}
                () = memory => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Whether the next record has to wait for [`Timeline::ready_for_more`]: cheap enough to be
    /// asked before each.
    pub(crate) fn must_wait(&self) -> bool {
        self.engine.open_layers.is_full()
    }

    /// The end of the last record applied; where ingest goes on.
    pub fn last_record_lsn(&self) -> Lsn {
        Lsn(self.last_record_lsn.load(Ordering::Acquire))
    }

    /// The last record's end and start.
    pub fn last_record(&self) -> BranchPoint {
        self.state.read().last_record
    }

    /// Waits until ingest has reached `lsn`, here and in the ancestors that a read at `lsn` needs.
    pub async fn wait_for(&self, lsn: Lsn, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        let (mut timeline, mut lsn) = (self, lsn);
        loop {
            if lsn > timeline.facts.origin.point.lsn {
                timeline.wait_until(lsn, deadline).await?;
            }
            let Some(ancestor) = &timeline.facts.ancestor else { return Ok(()) };
            lsn = lsn.min(ancestor.lsn);
            timeline = &ancestor.timeline;
        }
    }

    async fn wait_until(&self, lsn: Lsn, deadline: Instant) -> Result<(), Error> {
        loop {
            let applied = self.applied.notified();
            tokio::pin!(applied);
            applied.as_mut().enable();
            if self.last_record_lsn() >= lsn {
                return Ok(());
            }
            tokio::select! {
                () = applied => {}
                () = self.stop.cancelled() => return Err(Error::ShuttingDown),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Error::NotYet { asked: lsn, ingested: self.last_record_lsn() });
                }
            }
        }
    }

    /// What is in layers in the object store: WAL before this is not needed any more.
    pub fn remote_consistent_lsn(&self) -> Lsn {
        *self.remote_consistent_lsn.borrow()
    }

    /// Changes when [`Timeline::remote_consistent_lsn`] does.
    pub fn watch_remote_consistent_lsn(&self) -> watch::Receiver<Lsn> {
        self.remote_consistent_lsn.subscribe()
    }

    /// The highest term seen.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    /// Takes note of a term seen in WAL; kept with the next manifest. For a compute's own there is
    /// [`Timeline::keep_term`].
    pub fn learn_term(&self, term: Term) {
        self.term.fetch_max(term.0, Ordering::AcqRel);
    }

    /// Bytes of all forks as of `at`.
    pub async fn logical_size(&self, at: Lsn) -> Result<u64, Error> {
        if let Some(known) = *self.logical_size.lock()
            && known.lsn == at
        {
            return Ok(known.bytes);
        }
        let sizes = self.scan(KeyKind::ForkSize.all(), at).await?;
        let bytes = sizes.iter().map(|(_, value)| fork_bytes(value)).sum();
        *self.logical_size.lock() = Some(LogicalSize { lsn: at, bytes });
        Ok(bytes)
    }

    /// What computes were given of it, since it began.
    pub(crate) fn given(&self) -> Given {
        self.given.get()
    }

    /// Takes note that a compute was given this.
    pub(crate) fn note_given(&self, more: Given) {
        self.given.add(more);
    }

    /// Memory of the layers that are not in the object store.
    pub fn memory_bytes(&self) -> usize {
        let state = self.state.read();
        state.open.bytes() + state.frozen_bytes()
    }

    /// Whether it takes no more WAL, because another pageserver has it.
    pub fn is_fenced(&self) -> bool {
        self.fenced.get().is_some()
    }

    /// Asks for a merge, where one is due.
    pub(crate) fn want_work(self: &Arc<Self>) {
        let may_write =
            self.fenced.get().is_none() && !self.stop.is_cancelled() && !self.is_warming();
        if may_write && self.merge_due().is_some() && !self.is_queued.swap(true, Ordering::AcqRel) {
            self.engine.work.want(self);
        }
    }

    /// The turn is over: it may be asked for again.
    pub(crate) fn end_turn(self: &Arc<Self>) {
        self.is_queued.store(false, Ordering::Release);
        self.want_work();
    }

    fn layer_path(&self, name: LayerName) -> Path {
        layer_path(self.id(), name)
    }

    fn layer(&self, summary: LayerSummary) -> Layer {
        open_layer(&self.engine, self.id(), summary)
    }

    fn note_merged(&self, bytes: u64) {
        self.bytes_merged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the timeline's own layers in the object store.
    pub fn stored_bytes(&self) -> u64 {
        self.state.read().layers.iter().map(|layer| layer.summary().bytes).sum()
    }
}

fn open_layer(engine: &Engine, id: TenantTimeline, summary: LayerSummary) -> Layer {
    let path = layer_path(id, summary.name);
    Layer::new(summary, path, engine.store.clone(), engine.cache.clone())
}

impl State {
    fn set_layers(&mut self, layers: Vec<Arc<Layer>>) {
        self.is_behind = compact::is_behind(&layers);
        self.layers = Arc::new(layers);
    }

    /// Whether the open layer has grown to what a layer may have.
    fn is_full(&self) -> bool {
        self.open.bytes() >= OPEN_LAYER_BYTES_MAX
            || self.last_record.lsn.since(self.open.from()) >= OPEN_LAYER_WAL_BYTES_MAX
    }

    /// Memory of layers that wait to be written.
    fn frozen_bytes(&self) -> usize {
        self.frozen.iter().map(|frozen| frozen.layer.bytes()).sum()
    }

    /// Closes the open layer because it is full.
    fn freeze_full(&mut self) {
        self.full_since = Some(Instant::now());
        self.freeze();
    }

    /// Until when WAL counts as coming faster than layers grow old; `None` where it does not.
    fn hurries_until(&self) -> Option<Instant> {
        let until = self.full_since? + OPEN_LAYER_AGE_MAX;
        (until > Instant::now()).then_some(until)
    }

    /// Closes the open layer; there must be something in it.
    fn freeze(&mut self) {
        let next = MemoryLayer::new(self.last_record.lsn, self.open_charge.spare());
        let layer = Arc::new(std::mem::replace(&mut self.open, next));
        let charge = self.open_charge.next();
        let charge = Arc::new(std::mem::replace(&mut self.open_charge, charge));
        self.frozen.push_back(Frozen { layer, _charge: charge, last_record: self.last_record });
        self.open_since = None;
    }
}
