//! Random histories of writes, flushes, branches, restores, deletions and restarts; every read is
//! compared with the model.

use bytes::Bytes;
use protocol::{BranchPoint, TenantId, TenantTimeline};
use rand::Rng;
use wal_format::{Lsn, PAGE_BYTES};

use super::{
    World,
    world::{BLOCKS, forks, main_of},
};
use crate::{
    clock,
    key::{Key, KeyKind},
};

const HISTORIES: u64 = 60;
const STEPS: usize = 150;
const BRANCHES_MAX: usize = 8;

#[tokio::test]
async fn every_read_of_every_history_equals_the_model() {
    for seed in 0..HISTORIES {
        History::new(seed).await.run().await;
    }
}

/// A tenant's branches, by name.
struct History {
    world: World,
    tenant: TenantId,
    branches: Vec<(String, TenantTimeline)>,
    names: usize,
}

impl History {
    async fn new(seed: u64) -> History {
        let mut world = World::new(seed);
        world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the store works");
        let branches = vec![("main".to_owned(), main_of(&tenant))];
        History { world, tenant: tenant.id, branches, names: 0 }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            match self.world.random.random_range(0..100) {
                0..60 => self.write().await,
                60..68 => self.flush().await,
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

    async fn branch(&mut self) {
        if self.branches.len() >= BRANCHES_MAX {
            return;
        }
        let (from, parent) = self.any_branch();
        let point = self.any_point(parent);
        self.names += 1;
        let name = format!("branch-{}", self.names);
        let branch = self.world.tenants.create_branch(self.tenant, &name, &from, point).await;
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
        let model = self.world.model.state(id, at);
        let scanned = timeline.scan(Key::MIN..Key::MAX, at).await.expect("the store works");
        assert_same(&scanned, &model.clone().into_iter().collect::<Vec<_>>(), at);

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

    /// Rounding down, and points in time.
    async fn look_back(&mut self) {
        let (_, id) = self.any_branch();
        let timeline = self.world.timeline(id).await.expect("the timeline loads");
        let points = self.world.model.points(id);
        let (first, last) = (points[0].lsn.0, self.world.model.end(id).lsn.0);
        let lsn = Lsn(self.world.random.random_range(first..=last));
        let expected = points.iter().rfind(|point| point.lsn <= lsn).copied();
        assert_eq!(timeline.round_down(lsn).await.ok().map(|p| p.lsn), expected.map(|p| p.lsn));

        let tenant = self.world.tenants.tenant("one").await.expect("the tenant is there");
        let future = clock::now() + 2_000_000;
        let time = self.world.random.random_range(tenant.created_at..future);
        let point = timeline.point_at_time_as_of(time, future).await.expect("the time is past");
        assert_eq!(point.lsn, self.world.model.point_at_time(id, time).lsn);
    }
}

fn assert_same(engine: &[(Key, Bytes)], model: &[(Key, Bytes)], at: Lsn) {
    let keys = |values: &[(Key, Bytes)]| values.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    assert_eq!(keys(engine), keys(model), "the keys at {at}");
    for ((key, engine), (_, model)) in engine.iter().zip(model) {
        assert!(engine == model, "{key} at {at} differs");
    }
}
