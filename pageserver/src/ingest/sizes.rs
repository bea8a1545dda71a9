//! A cache of fork sizes.

use rustc_hash::FxHashMap;
use wal_format::RelationFork;

/// The most forks whose size is remembered: some 50 MiB.
const FORKS_MAX: usize = 1 << 20;

/// Sizes of forks as of the last record; `None` in the map: there is no such fork.
#[derive(Debug, Default)]
pub(super) struct ForkSizes {
    known: FxHashMap<RelationFork, Option<u32>>,
}

impl ForkSizes {
    /// The fork's size where it is known, as [`ForkSizes::get`] gives it.
    pub fn known(&self, fork: RelationFork) -> Option<Option<u32>> {
        self.known.get(&fork).copied()
    }

    /// The fork's size in blocks; `None` where there is no such fork.
    pub fn get(&self, fork: RelationFork) -> Option<u32> {
        self.known.get(&fork).copied().flatten()
    }

    pub fn set(&mut self, fork: RelationFork, blocks: Option<u32>) {
        self.known.insert(fork, blocks);
    }

    /// Forgets what goes beyond the bound. Between records only: within one, what was learnt for
    /// it must stay.
    pub fn trim(&mut self) {
        if self.known.len() > FORKS_MAX {
            self.known.clear();
        }
    }

    pub fn forget_database(&mut self, tablespace: u32, database: u32) {
        self.known.retain(|fork, _| {
            (fork.relation.tablespace, fork.relation.database) != (tablespace, database)
        });
    }
}
