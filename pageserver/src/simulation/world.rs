//! One pageserver on one store, and the model beside it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{ObjectStore, memory::InMemory};
use parking_lot::Mutex;
use protocol::{BranchPoint, TenantId, TenantTimeline, TimelineOrigin};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use wal_format::{Fork, Lsn, Relation, RelationFork, Slru};

use super::{Model, ModelRedo};
use crate::{
    change::{Change, Value},
    clock,
    error::Error,
    key::{Key, KeyKind},
    limits::Limits,
    manifest::{NAME_DEFAULT, Place},
    tenants::{LiveTimeline, Options, TemplateSource, Tenant, Tenants},
    timeline::Timeline,
};

/// Blocks of a fork that histories use.
pub const BLOCKS: u32 = 12;
/// A cache so small that it is always being emptied.
const CACHE_BYTES: u64 = 300_000;

/// The engine, the model, and what would be the safekeepers: WAL can always be had again.
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub tenants: Arc<Tenants>,
    pub model: Model,
    pub random: StdRng,
    pub redo: Arc<ModelRedo>,
    name: String,
    loaded: Arc<Mutex<Vec<Arc<Timeline>>>>,
    limits: Limits,
}

/// Another pageserver on the world's store.
pub struct Other {
    pub tenants: Arc<Tenants>,
    name: String,
    loaded: Arc<Mutex<Vec<Arc<Timeline>>>>,
}

impl World {
    /// An empty store in memory.
    pub fn new(seed: u64) -> World {
        World::on(Arc::new(InMemory::new()), seed)
    }

    /// A world with the template `base`, and the tenant `one` that was made from it.
    pub async fn with_tenant(seed: u64) -> (World, Tenant) {
        let mut world = World::new(seed);
        world.template("base").await.expect("nothing fails yet");
        let tenant = world.tenant("one", "base").await.expect("nothing fails yet");
        (world, tenant)
    }

    pub fn on(store: Arc<dyn ObjectStore>, seed: u64) -> World {
        World::with_limits(store, seed, Limits::default())
    }

    pub fn with_limits(store: Arc<dyn ObjectStore>, seed: u64, limits: Limits) -> World {
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let redo = Arc::new(ModelRedo::default());
        let name = NAME_DEFAULT.to_owned();
        let tenants = open(&name, store.clone(), redo.clone(), &loaded, limits.clone());
        let random = StdRng::seed_from_u64(seed);
        World { store, tenants, model: Model::default(), random, redo, name, loaded, limits }
    }

    /// A crash, and another pageserver on what is in `store`.
    pub fn restart_on(&mut self, store: Arc<dyn ObjectStore>) {
        for timeline in self.tenants.loaded() {
            timeline.stop();
        }
        self.loaded.lock().clear();
        self.store = store.clone();
        self.tenants =
            open(&self.name, store, self.redo.clone(), &self.loaded, self.limits.clone());
    }

    /// A crash, and another pageserver on the same store.
    pub fn restart(&mut self) {
        self.restart_on(self.store.clone());
    }

    /// Another pageserver of this name, which has nothing yet.
    pub fn another(&self, name: &str) -> Other {
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let tenants =
            open(name, self.store.clone(), self.redo.clone(), &loaded, self.limits.clone());
        Other { tenants, name: name.to_owned(), loaded }
    }

    /// Uses the other pageserver from now on; this one lives on.
    pub fn swap(&mut self, other: &mut Other) {
        std::mem::swap(&mut self.tenants, &mut other.tenants);
        std::mem::swap(&mut self.name, &mut other.name);
        std::mem::swap(&mut self.loaded, &mut other.loaded);
    }

    /// Takes a tenant whose timelines are live elsewhere, with WAL coming meanwhile.
    pub async fn take(&self, tenant: TenantId, live: &[LiveTimeline]) -> Result<u64, Error> {
        let taking = self.tenants.take(tenant, live);
        tokio::pin!(taking);
        loop {
            tokio::select! {
                biased;
                taken = &mut taking => return taken,
                () = tokio::task::yield_now() => self.ingest(),
            }
        }
    }

    /// A timeline that has ingested all that there is.
    pub async fn timeline(&self, id: TenantTimeline) -> Result<Arc<Timeline>, Error> {
        let timeline = self.tenants.timeline(id).await?;
        self.ingest();
        Ok(timeline)
    }

    /// Brings all WAL to the timelines that were loaded since.
    fn ingest(&self) {
        let to_ingest = std::mem::take(&mut *self.loaded.lock());
        for timeline in to_ingest {
            let from = timeline.last_record_lsn();
            for change in self.model.changes_after(timeline.id(), from) {
                timeline.apply(change);
            }
        }
    }

    /// Time passes in which nobody uses anything; how many timelines left memory.
    pub async fn idle(&self) -> usize {
        let idle_for = Duration::from_secs(300);
        self.tenants.unload_idle(Instant::now() + idle_for, idle_for).await
    }

    /// A template of some pages.
    pub async fn template(&mut self, name: &str) -> Result<Tenant, Error> {
        let point = BranchPoint { lsn: Lsn(0x100_0000), last_record: Lsn(0xFF_FF00) };
        let origin = TimelineOrigin { point, system_id: 7, segment_bytes: 16 << 20, major: 15 };
        let source = TemplateSource { origin, checksums: false };
        let mut puts = Vec::new();
        for fork in forks() {
            puts.push((Key::fork_size(fork), Bytes::from_static(&[5, 0, 0, 0])));
            for block in 0..5 {
                puts.push((Key::page(fork.block(block)), self.image()));
            }
        }
        puts.push((Key::CONTROL, Bytes::from_static(b"control")));
        let mut writer = self.tenants.import_template(name, source).await?;
        for (key, value) in puts.iter().rev() {
            writer.put(*key, value.clone()).await?;
        }
        let template = writer.finish().await?;
        let id = template.branches[0].timeline;
        self.model.add(id, None, point);
        let puts = puts.into_iter().map(|(key, value)| (key, Value::Image(value))).collect();
        let change = Change { start: point.last_record, end: point.lsn, puts, ..Change::default() };
        self.model.apply(id, change);
        Ok(template)
    }

    pub async fn tenant(&mut self, name: &str, template: &str) -> Result<Tenant, Error> {
        let tenant = self.tenants.create_tenant(name, template).await?;
        self.learn(&tenant);
        Ok(tenant)
    }

    /// Tells the model of a tenant's first branch.
    pub fn learn(&mut self, tenant: &Tenant) {
        let main = &tenant.branches[0];
        let ancestor = main.ancestor.as_ref().map(|ancestor| ancestor.timeline);
        self.model.add(main.timeline, ancestor, main.origin.point);
    }

    /// The next record of a timeline, on both sides.
    pub async fn write(&mut self, id: TenantTimeline) -> Result<(), Error> {
        let timeline = self.timeline(id).await?;
        let change = self.change(self.model.end(id).lsn);
        self.model.apply(id, change.clone());
        timeline.apply(change);
        Ok(())
    }

    /// A random record.
    pub fn change(&mut self, after: Lsn) -> Change {
        let random = &mut self.random;
        let start = after + if random.random_bool(0.1) { 24 } else { 0 };
        let end = start + 8 * random.random_range(1..30_u64);
        let mut change = Change { start, end, ..Change::default() };
        for _ in 0..random.random_range(0..4) {
            let key = self.key();
            if change.puts.iter().all(|(other, _)| *other != key) {
                let value = self.value(key);
                change.puts.push((key, value));
            }
        }
        if self.random.random_bool(0.08) {
            change.clears = self.clears();
        }
        if self.random.random_bool(0.3) {
            change.finished = Some(clock::now() + self.random.random_range(0..1_000_000));
        }
        change
    }

    pub fn fork(&mut self) -> RelationFork {
        let forks = forks();
        forks[self.random.random_range(0..forks.len())]
    }

    fn key(&mut self) -> Key {
        let fork = self.fork();
        let number = self.random.random_range(0..BLOCKS);
        match self.random.random_range(0..10) {
            0 => Key::fork_size(fork),
            1 => Key::slru(Slru::Clog, number % 4),
            2 => Key::CONTROL,
            3 => Key::two_phase(number),
            _ => Key::page(fork.block(number)),
        }
    }

    fn value(&mut self, key: Key) -> Value {
        if key.as_target().is_none() || self.random.random_bool(0.2) {
            return Value::Image(match key.as_target() {
                Some(_) => self.image(),
                None => self.bytes(12),
            });
        }
        let bytes = self.bytes(20);
        Value::Record { will_init: self.random.random_bool(0.15), bytes }
    }

    fn clears(&mut self) -> Vec<std::ops::Range<Key>> {
        let fork = self.fork();
        let first = self.random.random_range(0..BLOCKS);
        let last = first + self.random.random_range(1..BLOCKS);
        match self.random.random_range(0..6) {
            0 => vec![Key::relation_pages(fork.relation), Key::relation_sizes(fork.relation)],
            1 => vec![Key::pages_from(fork, first)],
            2 => vec![Key::slru_pages(Slru::Clog, first % 4..last)],
            3 => vec![Key::two_phase(first).only()],
            4 => vec![KeyKind::TwoPhase.all(), Key::fork_size(fork).only()],
            _ => vec![Key::pages(fork, first..last)],
        }
    }

    fn image(&mut self) -> Bytes {
        let byte = self.random.random();
        let mut page = vec![byte; wal_format::PAGE_BYTES];
        self.random.fill(&mut page[..512]);
        page.into()
    }

    fn bytes(&mut self, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes[..]);
        // No record of a history is a bad one.
        bytes[0] &= 0x3F;
        bytes.into()
    }
}

/// The forks that histories use.
pub fn forks() -> Vec<RelationFork> {
    let relation = |number| Relation { tablespace: 1663, database: 5, number };
    vec![
        relation(100).fork(Fork::Main),
        relation(100).fork(Fork::VisibilityMap),
        relation(101).fork(Fork::Main),
    ]
}

/// A tenant's only branch, or its main one.
pub fn main_of(tenant: &Tenant) -> TenantTimeline {
    tenant.branches[0].timeline
}

fn open(
    name: &str,
    store: Arc<dyn ObjectStore>,
    redo: Arc<ModelRedo>,
    loaded: &Arc<Mutex<Vec<Arc<Timeline>>>>,
    limits: Limits,
) -> Arc<Tenants> {
    let loaded = loaded.clone();
    let place = Place { name: name.to_owned(), ..Place::default() };
    let options = Options {
        store,
        redo,
        cache_bytes: CACHE_BYTES,
        on_load: Box::new(move |timeline| loaded.lock().push(timeline)),
    };
    Arc::new(Tenants::with_limits(options, None, limits).at(place))
}
