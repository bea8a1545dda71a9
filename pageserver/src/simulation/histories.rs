//! Random histories of writes, flushes, merges, moved cutoffs, branches, snapshots, restores,
//! deletions, times in which nobody does anything, restarts and crashes; every read is compared
//! with the model.

mod crash;
mod moves;
mod snapshots;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};
use protocol::{BranchPoint, TenantId, TenantTimeline};
use rand::Rng;
use wal_format::{Lsn, PAGE_BYTES};

use super::{
    FaultyStore, World, how_many,
    world::{BLOCKS, Other, forks, main_of},
};
use crate::{
    clock,
    engine::layers_folder,
    error::Error,
    key::{Key, KeyKind},
    store::unavailable,
    timeline::{Timeline, Window, runs_max},
};

/// More of them with `OFFSHOOT_HISTORIES`.
const HISTORIES: u64 = 60;
const STEPS: usize = 150;
const BRANCHES_MAX: usize = 8;
/// The latest moment at which a cutoff is moved: so many microseconds from now.
const FUTURE: i64 = 1_500_000;

#[tokio::test]
async fn every_read_of_every_history_equals_the_model() {
    let mut met = Met::default();
    for seed in 0..how_many(HISTORIES) {
        // The last one that is printed is the one that fails.
        println!("history {seed}");
        History::new(seed, false).await.run(&mut met).await;
    }
    assert!(met.gone > 0, "no history ever ended");
    assert!(met.crashes > 0, "no crash was in the middle of anything");
    assert!(met.unacknowledged > 0, "no crash kept a branch from being acknowledged");
    assert!(met.unnamed > 0, "no crash left anything behind");
    assert!(met.unloaded > 0, "no timeline left memory");
    assert!(met.surveyed > 0, "no timeline that nobody had loaded had anything to do");
    assert!(met.kept > 0, "no snapshot kept what the cutoff had passed");
}

/// How often something happened, in all histories.
#[derive(Default)]
struct Met {
    /// A read was refused because its LSN was gone.
    gone: usize,
    /// The store failed in the middle of a step.
    crashes: usize,
    /// A branch was there after a crash that nobody had been told of.
    unacknowledged: usize,
    /// A crash left an object that no manifest names.
    unnamed: usize,
    /// A timeline left memory because nobody used it.
    unloaded: usize,
    /// A timeline that nobody had loaded had something to do.
    surveyed: usize,
    /// The tenant went to another pageserver.
    moves: usize,
    /// An older pageserver was refused.
    refused: usize,
    /// A move was while the older pageserver did something that ended well.
    crossed: usize,
    /// A snapshot was read below its timeline's cutoff.
    kept: usize,
}

/// A tenant's branches, by name.
struct History {
    world: World,
    /// What is left after a crash.
    inner: Arc<dyn ObjectStore>,
    store: FaultyStore,
    tenant: TenantId,
    branches: Vec<(String, TenantTimeline)>,
    snapshots: Vec<snapshots::Kept>,
    /// Names of those that are being deleted.
    snapshots_ending: Vec<String>,
    names: usize,
    cutoffs: HashMap<TenantTimeline, Lsn>,
    /// The timeline that is being deleted, or whose cutoff is being moved.
    under_way: Option<TenantTimeline>,
    /// The cutoff of any may be being moved.
    surveying: bool,
    /// Branches that were made below a cutoff and that a crash kept from being taken back.
    lost: HashSet<TenantTimeline>,
    /// Another pageserver, which served the tenant before.
    older: Option<Other>,
    /// Whether tenants are moved, and every operation of the store takes a while.
    moves: bool,
    met: Met,
}

impl History {
    async fn new(seed: u64, moves: bool) -> History {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = FaultyStore::new(inner.clone());
        let store = if moves { store.pause(seed) } else { store };
        let mut world = World::on(Arc::new(store.clone()), seed);
        world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the store works");
        let branches = vec![("main".to_owned(), main_of(&tenant))];
        History {
            world,
            inner,
            store,
            tenant: tenant.id,
            branches,
            snapshots: Vec::new(),
            snapshots_ending: Vec::new(),
            names: 0,
            cutoffs: HashMap::new(),
            under_way: None,
            surveying: false,
            lost: HashSet::new(),
            older: None,
            moves,
            met: Met::default(),
        }
    }

    async fn run(mut self, met: &mut Met) {
        self.met = std::mem::take(met);
        for _ in 0..STEPS {
            match self.world.random.random_range(0..100) {
                0..8 if self.moves => self.move_tenant().await,
                8..20 if self.moves => self.use_the_older().await,
                0..74 => match self.change().await {
                    // The older pageserver wrote a timeline's first manifest: it is loaded again.
                    Err(Error::ShuttingDown) if self.moves => {}
                    changed => changed.expect("the store works"),
                },
                74..77 => self.world.restart(),
                77..80 => self.crash().await,
                80..95 => self.read().await,
                _ => self.look_back().await,
            }
        }
        for (_, id) in self.branches.clone() {
            self.compare_all(id, self.world.model.end(id).lsn).await;
        }
        for kept in self.snapshots.clone() {
            self.read_snapshot(kept).await;
        }
        *met = self.met;
    }

    /// A step that changes something; fails only where the store does.
    async fn change(&mut self) -> Result<(), Error> {
        match self.world.random.random_range(0..87) {
            0..52 => self.write().await,
            52..62 => self.flush().await,
            62..65 => self.compact().await,
            65..68 => self.retain().await,
            68..72 => self.branch().await,
            72..74 => self.restore().await,
            74..77 => self.idle().await,
            77..78 => self.delete().await,
            78..79 => self.survey().await,
            79..82 => self.make_snapshot().await,
            82..84 => self.use_snapshot().await,
            _ => self.delete_snapshot().await,
        }
    }

    fn any_branch(&mut self) -> (String, TenantTimeline) {
        let any = self.world.random.random_range(0..self.branches.len());
        self.branches[any].clone()
    }

    fn any_point(&mut self, id: TenantTimeline) -> BranchPoint {
        let points = self.world.model.points(id);
        points[self.world.random.random_range(0..points.len())]
    }

    async fn write(&mut self) -> Result<(), Error> {
        let (_, id) = self.any_branch();
        for _ in 0..self.world.random.random_range(1..6) {
            self.world.write(id).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await?;
        let end = self.world.model.end(id).lsn;
        assert_eq!(timeline.flush().await?, end);
        assert_eq!(timeline.remote_consistent_lsn(), end);
        Ok(())
    }

    /// Nobody uses anything for a while.
    async fn idle(&mut self) -> Result<(), Error> {
        self.met.unloaded += self.world.idle().await;
        Ok(())
    }

    /// Merges all that is due, while somebody reads.
    async fn compact(&mut self) -> Result<(), Error> {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await?;
        loop {
            let at = self.any_point(id).lsn;
            let scan = timeline.scan(Key::MIN..Key::MAX, at);
            let (merged, scanned) = tokio::join!(timeline.compact(), scan);
            self.compare(id, scanned, at)?;
            if !merged? {
                break;
            }
        }
        assert!(timeline.runs() <= runs_max(timeline.stored_bytes()));
        assert_eq!(timeline.merge_due(), None);
        timeline.remove_retired().await;
        if self.moves {
            // What an older pageserver put and could not publish is there.
            return Ok(());
        }
        let folder = layers_folder(id);
        let objects: Result<Vec<_>, _> = self.world.store.list(Some(&folder)).try_collect().await;
        let objects = objects.map_err(|error| unavailable(&folder, &error))?;
        let stored: u64 = objects.iter().map(|object| object.size).sum();
        assert_eq!(stored, timeline.stored_bytes(), "objects that nobody names");
        Ok(())
    }

    /// Gives up what is behind a random window.
    async fn retain(&mut self) -> Result<(), Error> {
        let (_, id) = self.any_branch();
        let random = &mut self.world.random;
        let bytes = random.random_bool(0.7).then(|| random.random_range(0..8_000));
        let window = Window { seconds: bytes.is_none().then_some(0), bytes };
        let now = clock::now() + random.random_range(0..FUTURE);
        self.world.tenants.set_history(self.tenant, window).await?;
        self.under_way = Some(id);
        let timeline = self.world.timeline(id).await?;
        self.world.tenants.retain(&timeline, now).await?;
        self.under_way = None;
        self.take_cutoff(id, &timeline);
        Ok(())
    }

    /// Does what is due for timelines that nobody has loaded.
    async fn survey(&mut self) -> Result<(), Error> {
        let random = &mut self.world.random;
        let bytes = random.random_bool(0.5).then(|| random.random_range(0..8_000));
        let window = Window { seconds: bytes.is_none().then_some(0), bytes };
        let now = clock::now() + random.random_range(0..FUTURE);
        self.world.tenants.set_history(self.tenant, window).await?;
        self.idle().await?;
        self.surveying = true;
        self.met.surveyed += self.world.tenants.survey(|| now, Duration::ZERO).await?;
        for (_, id) in self.branches.clone() {
            let timeline = self.world.timeline(id).await?;
            self.take_cutoff(id, &timeline);
        }
        self.surveying = false;
        Ok(())
    }

    fn take_cutoff(&mut self, id: TenantTimeline, timeline: &Timeline) {
        let (before, cutoff) = (self.cutoff(id), timeline.retained().cutoff_lsn());
        assert!(before <= cutoff && cutoff <= timeline.remote_consistent_lsn());
        self.cutoffs.insert(id, cutoff);
    }

    fn cutoff(&self, id: TenantTimeline) -> Lsn {
        self.cutoffs.get(&id).copied().unwrap_or_default()
    }

    /// The timeline's line, each with the LSN as of which it is read.
    fn line(&self, id: TenantTimeline, at: Lsn) -> Vec<(TenantTimeline, Lsn)> {
        let mut line = vec![(id, at)];
        let (mut id, mut at) = (id, at);
        while let Some((ancestor, lsn)) = self.world.model.ancestor(id) {
            (id, at) = (ancestor, at.min(lsn));
            line.push((id, at));
        }
        line
    }

    /// Whether a read must be answered.
    fn is_kept(&self, id: TenantTimeline, at: Lsn) -> bool {
        let is_kept_in = |(id, at): (TenantTimeline, Lsn)| {
            let begins_there = |(_, child): &(String, TenantTimeline)| {
                let line = self.line(*child, Lsn::MAX);
                *child != id && line.contains(&(id, at)) && !self.is_lost(*child)
            };
            let is_there = |kept: &snapshots::Kept| {
                let line = self.line(kept.timeline, kept.point.lsn);
                line.contains(&(id, at)) && !self.is_lost(kept.timeline)
            };
            at >= self.cutoff(id)
                || self.branches.iter().any(begins_there)
                || self.snapshots.iter().any(is_there)
        };
        !self.is_lost(id) && self.line(id, at).into_iter().all(is_kept_in)
    }

    /// Whether what a branch began as is gone.
    fn is_lost(&self, id: TenantTimeline) -> bool {
        self.line(id, Lsn::MAX).iter().any(|(id, _)| self.lost.contains(id))
    }

    /// Whether a branch may begin there.
    fn may_begin(&self, parent: TenantTimeline, at: Lsn) -> bool {
        let is_gone = |(id, _): &&(TenantTimeline, Lsn)| at < self.cutoff(*id);
        let line = self.line(parent, Lsn::MAX);
        // What is above a timeline's origin is not looked for in its ancestor.
        let own = line.iter().position(|(id, _)| at >= self.world.model.origin(*id));
        !line.iter().take(own.map_or(line.len(), |own| own + 1)).any(|entry| is_gone(&entry))
    }

    /// A name that nothing has had.
    fn new_name(&mut self, what: &str) -> String {
        self.names += 1;
        format!("{what}-{}", self.names)
    }

    async fn branch(&mut self) -> Result<(), Error> {
        if self.branches.len() >= BRANCHES_MAX {
            return Ok(());
        }
        let (from, parent) = self.any_branch();
        let point = self.any_point(parent);
        let name = self.new_name("branch");
        let branch = self.world.tenants.create_branch(self.tenant, &name, &from, point).await;
        if let Err(Error::Gone { .. }) = branch
            && !self.may_begin(parent, point.lsn)
        {
            return Ok(());
        }
        let branch = branch?;
        assert!(self.may_begin(parent, point.lsn), "{branch:?} has no history");
        self.world.model.add(branch.timeline, Some(parent), point);
        self.branches.push((name, branch.timeline));
        Ok(())
    }

    async fn restore(&mut self) -> Result<(), Error> {
        if self.branches.len() >= BRANCHES_MAX {
            return Ok(());
        }
        let (name, old) = self.any_branch();
        let point = self.any_point(old);
        let restored = self.world.tenants.restore(self.tenant, &name, point, None).await;
        if let Err(Error::Gone { .. }) = restored
            && !self.may_begin(old, point.lsn)
        {
            return Ok(());
        }
        let (new, kept) = restored?;
        assert!(self.may_begin(old, point.lsn), "{new:?} has no history");
        assert_eq!((new.name.as_str(), kept.timeline), (name.as_str(), old));
        self.world.model.add(new.timeline, Some(old), point);
        self.branches.retain(|(_, id)| *id != old);
        self.branches.push((name, new.timeline));
        self.branches.push((kept.name, old));
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Error> {
        let (name, id) = self.any_branch();
        let tenant = self.world.tenants.tenant("one").await?;
        let is_parent = tenant
            .branches
            .iter()
            .any(|branch| branch.ancestor.as_ref().is_some_and(|ancestor| ancestor.timeline == id));
        let has_snapshots = self.snapshots.iter().any(|kept| kept.timeline == id);
        let may_be_deleted = name != "main" && !is_parent && !has_snapshots;
        self.under_way = Some(id).filter(|_| may_be_deleted);
        match self.world.tenants.delete_branch(self.tenant, &name).await {
            Err(error @ Error::Unavailable(_)) => return Err(error),
            deleted => assert_eq!(deleted.is_ok(), may_be_deleted, "{deleted:?}"),
        }
        self.under_way = None;
        if may_be_deleted {
            self.forget(id);
            assert!(self.world.timeline(id).await.is_err());
        }
        Ok(())
    }

    fn forget(&mut self, id: TenantTimeline) {
        self.world.model.remove(id);
        self.branches.retain(|(_, known)| *known != id);
        self.cutoffs.remove(&id);
    }

    async fn read(&mut self) {
        if self.world.random.random_bool(0.2)
            && let Some(kept) = self.any_snapshot()
        {
            return self.read_snapshot(kept).await;
        }
        let (_, id) = self.any_branch();
        let at = self.any_point(id).lsn;
        // An LSN inside the next record sees what its start sees.
        let inside = Lsn(at.0 + self.world.random.random_range(0..8));
        let at = inside.min(self.world.model.end(id).lsn);
        self.compare_all(id, at).await;
    }

    async fn compare_all(&mut self, id: TenantTimeline, at: Lsn) {
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        assert_eq!(timeline.retained().cutoff_lsn(), self.cutoff(id));
        let scanned = timeline.scan(Key::MIN..Key::MAX, at).await;
        if !self.compare(id, scanned, at).expect("the store works") {
            let pages = timeline.pages(forks()[0], 0, BLOCKS, at).await.map(|pages| pages.len());
            // All these pages may have been emptied since, so that nothing else is asked for.
            let is_gone = matches!(pages, Err(Error::Gone { .. }));
            assert!(is_gone || self.is_lost(id), "{pages:?}");
            return;
        }
        let model = self.world.model.state(id, at);
        let fork = self.world.fork();
        let range = Key::relation_pages(fork.relation);
        let scanned = timeline.scan(range.clone(), at).await.expect("the store works");
        assert_same(&scanned, &self.world.model.range(id, range, at), at);
        for fork in forks() {
            let pages = timeline.pages(fork, 0, BLOCKS + 3, at).await.expect("the store works");
            for (block, page) in pages.chunks(PAGE_BYTES).enumerate() {
                let key = Key::page(fork.block(block as u32));
                let zeros = vec![0; PAGE_BYTES];
                let expected = model.get(&key).map_or(&zeros[..], |bytes| &bytes[..]);
                assert!(page == expected, "{key} at {at}");
            }
        }
        for key in [Key::CONTROL, Key::two_phase(3), Key::fork_size(fork)] {
            let value = timeline.get(key, at).await.expect("the store works");
            assert_eq!(value.as_ref(), model.get(&key), "{key} at {at}");
        }
        let sizes = self.world.model.range(id, KeyKind::ForkSize.all(), at);
        let blocks: u64 = sizes
            .iter()
            .filter_map(|(_, value)| value.first_chunk().copied())
            .map(|value| u64::from(u32::from_le_bytes(value)))
            .sum();
        let size = timeline.logical_size(at).await.expect("the store works");
        assert_eq!(size, blocks * PAGE_BYTES as u64);
    }

    /// Compares a scan of everything; false where it was refused, and might be.
    fn compare(
        &mut self,
        id: TenantTimeline,
        scanned: Result<Vec<(Key, Bytes)>, Error>,
        at: Lsn,
    ) -> Result<bool, Error> {
        if let Err(Error::Gone { .. }) = scanned
            && !self.is_kept(id, at)
        {
            self.met.gone += 1;
            return Ok(false);
        }
        let model: Vec<_> = self.world.model.state(id, at).into_iter().collect();
        assert_same(&scanned?, &model, at);
        Ok(true)
    }

    /// Rounding down, and points in time.
    async fn look_back(&mut self) {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        let points = self.world.model.points(id);
        let (first, last) = (points[0].lsn.0, self.world.model.end(id).lsn.0);
        let lsn = Lsn(self.world.random.random_range(first..=last));
        let expected = points.iter().rfind(|point| point.lsn <= lsn).copied();
        let rounded = timeline.round_down(lsn).await;
        if self.may_begin(id, lsn) {
            assert_eq!(rounded.ok().map(|p| p.lsn), expected.map(|p| p.lsn));
        } else {
            assert!(matches!(rounded, Err(Error::Gone { .. })), "{rounded:?}");
        }
        self.look_back_in_time(id, &timeline).await;
    }

    async fn look_back_in_time(&mut self, id: TenantTimeline, timeline: &Timeline) {
        let tenant = self.world.tenants.tenant("one").await.expect("the tenant is there");
        let future = clock::now() + 2_000_000;
        let time = self.world.random.random_range(tenant.created_at..future);
        let expected = self.world.model.point_at_time(id, time).lsn;
        match timeline.point_at_time_as_of(time, future).await {
            Err(Error::Gone { .. }) => assert!(!self.may_begin(id, expected)),
            // Some commit that is given up, here or in an ancestor, may be later than the time.
            Err(Error::GoneTime { .. }) => {
                let line = self.line(id, Lsn::MAX);
                assert!(line.iter().any(|(id, _)| self.cutoff(*id) > Lsn::INVALID));
            }
            found => assert_eq!(found.expect("the time is past").lsn, expected),
        }
    }
}

fn assert_same(engine: &[(Key, Bytes)], model: &[(Key, Bytes)], at: Lsn) {
    let keys = |values: &[(Key, Bytes)]| values.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    assert_eq!(keys(engine), keys(model), "the keys at {at}");
    for ((key, engine), (_, model)) in engine.iter().zip(model) {
        assert!(engine == model, "{key} at {at} differs");
    }
}
