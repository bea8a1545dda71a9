//! Crashes in the middle of a history: the store fails at some operation, and another pageserver
//! begins with what is there. What was acknowledged is there; what was not may be.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use protocol::TenantTimeline;
use rand::Rng;

use super::{FUTURE, History};
use crate::{
    clock,
    error::Error,
    key::Key,
    scrub::{Fault, Removal, scrub},
    simulation::FaultyStore,
    tenants::Branch,
};

/// Operations of the store before it fails, at most.
const OPERATIONS_MAX: i64 = 40;
/// Steps after which it is over where the store did not fail, since nobody needed it.
const STEPS_MAX: usize = 60;
const DAY: Duration = Duration::from_secs(24 * 3600);

impl History {
    /// Goes on until the store fails; then another pageserver begins.
    pub(super) async fn crash(&mut self) {
        let operations = self.world.random.random_range(0..OPERATIONS_MAX);
        let unseen = self.world.random.random_bool(0.5);
        self.store.fail_in(operations, unseen);
        for _ in 0..STEPS_MAX {
            match self.change().await {
                Ok(()) => {}
                Err(Error::Unavailable(_)) => {
                    self.met.crashes += 1;
                    break;
                }
                Err(Error::ShuttingDown) if self.moves => {}
                Err(error) => panic!("a store that fails gives {error}"),
            }
        }
        // It stands on the store that failed.
        self.older = None;
        self.store = FaultyStore::new(self.inner.clone());
        if self.moves {
            self.store = self.store.clone().pause(self.world.random.random());
        }
        self.world.restart_on(Arc::new(self.store.clone()));
        self.take_stock().await;
        self.sweep().await;
    }

    /// Compares the branches with those that are known, and learns what the crash left open.
    pub(super) async fn take_stock(&mut self) {
        let under_way = self.under_way.take();
        let surveying = std::mem::take(&mut self.surveying);
        let tenant = self.world.tenants.tenant("one").await.expect("the store works");
        for (name, id) in self.branches.clone() {
            if tenant.branches.iter().all(|branch| branch.timeline != id) {
                assert_eq!(under_way, Some(id), "{name} is gone, and nobody deleted it");
                self.forget(id);
            }
        }
        let is_new = |branch: &&Branch| !self.world.model.knows(branch.timeline);
        let new: Vec<Branch> = tenant.branches.iter().filter(is_new).cloned().collect();
        assert!(new.len() <= 1, "only one step was under way: {new:?}");
        let name = |branch: &Branch| (branch.name.clone(), branch.timeline);
        self.branches = tenant.branches.iter().map(name).collect();
        for branch in new {
            self.take_in(branch).await;
        }
        self.take_stock_of_snapshots().await;
        for (_, id) in self.branches.clone() {
            self.finish_cutoff(id, surveying || under_way == Some(id)).await;
        }
    }

    /// A branch that was not acknowledged: it has its whole history, or says that it has none.
    async fn take_in(&mut self, branch: Branch) {
        self.met.unacknowledged += 1;
        let parent = branch.ancestor.expect("a branch has an ancestor").timeline;
        let (id, point) = (branch.timeline, branch.origin.point);
        self.world.model.add(id, Some(parent), point);
        if !self.may_begin(parent, point.lsn) && !self.has_snapshot(parent, point) {
            self.lost.insert(id);
            let timeline = self.world.timeline(id).await.expect("the store works");
            let scanned = timeline.scan(Key::MIN..Key::MAX, point.lsn).await;
            self.compare(id, scanned, point.lsn).expect("the store works");
        }
    }

    /// A pass that was cut off is carried out by the next one.
    async fn finish_cutoff(&mut self, id: TenantTimeline, is_under_way: bool) {
        let timeline = self.world.timeline(id).await.expect("the store works");
        if is_under_way {
            let now = clock::now() + FUTURE;
            self.world.tenants.retain(&timeline, now).await.expect("the store works");
            self.take_cutoff(id, &timeline);
        }
        assert_eq!(timeline.retained().cutoff_lsn(), self.cutoff(id));
    }

    /// A crash leaves nothing but objects that no manifest names.
    async fn sweep(&mut self) {
        let removal = Removal { older_than: Some(DAY) };
        let later = SystemTime::now() + 2 * DAY;
        let swept = scrub(self.inner.clone(), removal, later).await.expect("the store works");
        let is_unnamed = swept.findings.iter().all(|found| found.fault == Fault::Unnamed);
        assert!(is_unnamed, "{:?}", swept.findings);
        self.met.unnamed += swept.findings.len();
    }
}
