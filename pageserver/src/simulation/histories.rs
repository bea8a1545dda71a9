//! Random histories of writes, flushes, merges, moved cutoffs, branches, restores, deletions and
//! restarts; every read is compared with the model.

use std::collections::HashMap;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStore;
use protocol::{BranchPoint, TenantId, TenantTimeline};
use rand::Rng;
use wal_format::{Lsn, PAGE_BYTES};

use super::{
    World,
    world::{BLOCKS, forks, main_of},
};
use crate::{
    clock,
    engine::timeline_folder,
    error::Error,
    key::{Key, KeyKind},
    timeline::{Timeline, Window, runs_max},
};

/// More of them with `OFFSHOOT_HISTORIES`.
const HISTORIES: u64 = 60;
const STEPS: usize = 150;
const BRANCHES_MAX: usize = 8;

#[tokio::test]
async fn every_read_of_every_history_equals_the_model() {
    let histories = std::env::var("OFFSHOOT_HISTORIES").ok().and_then(|count| count.parse().ok());
    let mut gone = 0;
    for seed in 0..histories.unwrap_or(HISTORIES) {
        gone += History::new(seed).await.run().await;
    }
    assert!(gone > 0, "no history ever ended");
}

/// A tenant's branches, by name.
struct History {
    world: World,
    tenant: TenantId,
    branches: Vec<(String, TenantTimeline)>,
    names: usize,
    cutoffs: HashMap<TenantTimeline, Lsn>,
    /// Reads that were refused because the LSN was gone.
    gone: usize,
}

impl History {
    async fn new(seed: u64) -> History {
        let mut world = World::new(seed);
        world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the store works");
        let branches = vec![("main".to_owned(), main_of(&tenant))];
        History { world, tenant: tenant.id, branches, names: 0, cutoffs: HashMap::new(), gone: 0 }
    }

    async fn run(mut self) -> usize {
        for _ in 0..STEPS {
            match self.world.random.random_range(0..100) {
                0..52 => self.write().await,
                52..62 => self.flush().await,
                62..65 => self.compact().await,
                65..68 => self.retain().await,
                68..72 => self.branch().await,
                72..74 => self.restore().await,
                74..76 => self.delete().await,
                76..80 => self.world.restart(),
                80..95 => self.read().await,
                _ => self.look_back().await,
            }
        }
        for (_, id) in self.branches.clone() {
            self.compare_all(id, self.world.model.end(id).lsn).await;
        }
        self.gone
    }

    fn any_branch(&mut self) -> (String, TenantTimeline) {
        let any = self.world.random.random_range(0..self.branches.len());
        self.branches[any].clone()
    }

    fn any_point(&mut self, id: TenantTimeline) -> BranchPoint {
        let points = self.world.model.points(id);
        points[self.world.random.random_range(0..points.len())]
    }

    async fn write(&mut self) {
        let (_, id) = self.any_branch();
        for _ in 0..self.world.random.random_range(1..6) {
            self.world.write(id).await.expect("the store works");
        }
    }

    async fn flush(&mut self) {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        let end = self.world.model.end(id).lsn;
        assert_eq!(timeline.flush().await, Ok(end));
        assert_eq!(timeline.remote_consistent_lsn(), end);
    }

    /// Merges all that is due, while somebody reads.
    async fn compact(&mut self) {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        loop {
            let at = self.any_point(id).lsn;
            let scan = timeline.scan(Key::MIN..Key::MAX, at);
            let (merged, scanned) = tokio::join!(timeline.compact(), scan);
            self.compare(id, scanned, at);
            if !merged.expect("the store works") {
                break;
            }
        }
        assert!(timeline.runs() <= runs_max(timeline.stored_bytes()));
        assert_eq!(timeline.merge_due(), None);
        timeline.remove_retired().await;
        let folder = timeline_folder(id).join("layers");
        let objects: Vec<_> =
            self.world.store.list(Some(&folder)).try_collect().await.expect("the store works");
        let stored: u64 = objects.iter().map(|object| object.size).sum();
        assert_eq!(stored, timeline.stored_bytes(), "objects that nobody names");
    }

    /// Gives up what is behind a random window.
    async fn retain(&mut self) {
        let (_, id) = self.any_branch();
        let random = &mut self.world.random;
        let bytes = random.random_bool(0.7).then(|| random.random_range(0..8_000));
        let window = Window { seconds: bytes.is_none().then_some(0), bytes };
        let now = clock::now() + random.random_range(0..1_500_000);
        let set = self.world.tenants.set_history(self.tenant, window).await;
        set.expect("the store works");
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        self.world.tenants.retain(&timeline, now).await.expect("the store works");
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
        self.line(id, at).into_iter().all(|(id, at)| {
            let begins_there = |(_, child): &(String, TenantTimeline)| {
                *child != id && self.line(*child, Lsn::MAX).contains(&(id, at))
            };
            at >= self.cutoff(id) || self.branches.iter().any(begins_there)
        })
    }

    /// Whether a branch may begin there.
    fn may_begin(&self, parent: TenantTimeline, at: Lsn) -> bool {
        let is_gone = |(id, _): &&(TenantTimeline, Lsn)| at < self.cutoff(*id);
        let line = self.line(parent, Lsn::MAX);
        // What is above a timeline's origin is not looked for in its ancestor.
        let own = line.iter().position(|(id, _)| at >= self.world.model.origin(*id));
        !line.iter().take(own.map_or(line.len(), |own| own + 1)).any(|entry| is_gone(&entry))
    }

    async fn branch(&mut self) {
        if self.branches.len() >= BRANCHES_MAX {
            return;
        }
        let (from, parent) = self.any_branch();
        let point = self.any_point(parent);
        self.names += 1;
        let name = format!("branch-{}", self.names);
        let branch = self.world.tenants.create_branch(self.tenant, &name, &from, point).await;
        if !self.may_begin(parent, point.lsn) {
            assert!(matches!(branch, Err(Error::Gone { .. })), "{branch:?}");
            return;
        }
        let branch = branch.expect("the name is free");
        self.world.model.add(branch.timeline, Some(parent), point);
        self.branches.push((name, branch.timeline));
    }

    async fn restore(&mut self) {
        if self.branches.len() >= BRANCHES_MAX {
            return;
        }
        let (name, old) = self.any_branch();
        let point = self.any_point(old);
        let restored = self.world.tenants.restore(self.tenant, &name, point, None).await;
        if !self.may_begin(old, point.lsn) {
            assert!(matches!(restored, Err(Error::Gone { .. })), "{restored:?}");
            return;
        }
        let (new, kept) = restored.expect("the branch is there");
        assert_eq!((new.name.as_str(), kept.timeline), (name.as_str(), old));
        self.world.model.add(new.timeline, Some(old), point);
        self.branches.retain(|(_, id)| *id != old);
        self.branches.push((name, new.timeline));
        self.branches.push((kept.name, old));
    }

    async fn delete(&mut self) {
        let (name, id) = self.any_branch();
        let tenant = self.world.tenants.tenant("one").await.expect("the tenant is there");
        let is_parent = tenant
            .branches
            .iter()
            .any(|branch| branch.ancestor.as_ref().is_some_and(|ancestor| ancestor.timeline == id));
        let deleted = self.world.tenants.delete_branch(self.tenant, &name).await;
        assert_eq!(deleted.is_ok(), name != "main" && !is_parent, "{deleted:?}");
        if deleted.is_ok() {
            self.world.model.remove(id);
            self.branches.retain(|(_, known)| *known != id);
            self.cutoffs.remove(&id);
            assert!(self.world.timeline(id).await.is_err());
        }
    }

    async fn read(&mut self) {
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
        if !self.compare(id, scanned, at) {
            let pages = timeline.pages(forks()[0], 0, BLOCKS, at).await;
            assert!(matches!(pages, Err(Error::Gone { .. })), "{pages:?}");
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
    ) -> bool {
        if let Err(Error::Gone { .. }) = scanned
            && !self.is_kept(id, at)
        {
            self.gone += 1;
            return false;
        }
        let model: Vec<_> = self.world.model.state(id, at).into_iter().collect();
        assert_same(&scanned.expect("the LSN is kept"), &model, at);
        true
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
