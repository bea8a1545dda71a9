//! A cache of fork sizes.

use rustc_hash::FxHashMap;
use wal_format::RelationFork;

/// The most forks whose size is remembered: some 50 MiB.
const FORKS_MAX: usize = 1 << 20;
/// Most records are of the few forks that those before them were of.
const RECENT: usize = 16;

/// Sizes of forks as of the last record; `None` in the map: there is no such fork.
#[derive(Debug, Default)]
pub(super) struct ForkSizes {
    known: FxHashMap<RelationFork, Option<u32>>,
    /// Some of those that exist, with their sizes, each at the place that its number says.
    recent: [Option<(RelationFork, u32)>; RECENT],
}

impl ForkSizes {
    /// The fork's size where it is known, as [`ForkSizes::get`] gives it.
    #[inline]
    pub fn known(&mut self, fork: RelationFork) -> Option<Option<u32>> {
        let recent = &mut self.recent[place(fork)];
        match *recent {
            Some((of, blocks)) if of == fork => Some(Some(blocks)),
            _ => {
                let known = self.known.get(&fork).copied();
                *recent = known.flatten().map(|blocks| (fork, blocks));
                known
            }
        }
    }

    /// Whether that is known.
    pub fn is_known(&self, fork: RelationFork) -> bool {
        self.known.contains_key(&fork)
    }

    /// The fork's size in blocks; `None` where there is no such fork.
    pub fn get(&self, fork: RelationFork) -> Option<u32> {
        self.known.get(&fork).copied().flatten()
    }

    pub fn set(&mut self, fork: RelationFork, blocks: Option<u32>) {
        self.known.insert(fork, blocks);
        self.recent[place(fork)] = None;
    }

    /// Forgets what goes beyond the bound. Between records only: within one, what was learnt for
    /// it must stay.
    pub fn trim(&mut self) {
        if self.known.len() > FORKS_MAX {
            self.known.clear();
            self.forget_recent();
        }
    }

    pub fn forget_database(&mut self, tablespace: u32, database: u32) {
        self.known.retain(|fork, _| {
            (fork.relation.tablespace, fork.relation.database) != (tablespace, database)
        });
        self.forget_recent();
    }

    fn forget_recent(&mut self) {
        self.recent = Default::default();
    }
}

/// Of a fork among the recent ones.
#[inline]
fn place(fork: RelationFork) -> usize {
    fork.relation.number as usize % RECENT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wal_format::{Fork, Relation};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Set(u32, Option<u32>),
        ForgetDatabase(u32),
    }

    /// Forks of two databases, of which some share a place.
    fn fork(number: u32) -> RelationFork {
        Relation { tablespace: 1663, database: number % 2, number: number / 2 * 8 }.fork(Fork::Main)
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let set = (0..12_u32, any::<Option<u32>>()).prop_map(|(fork, size)| Step::Set(fork, size));
        prop_oneof![9 => set, 1 => (0..2_u32).prop_map(Step::ForgetDatabase)]
    }

    proptest! {
        #[test]
        fn a_recent_size_is_the_known_one(steps in prop::collection::vec(any_step(), 1..60)) {
            let mut sizes = ForkSizes::default();
            for step in steps {
                match step {
                    Step::Set(number, size) => sizes.set(fork(number), size),
                    Step::ForgetDatabase(database) => sizes.forget_database(1663, database),
                }
                for fork in (0..12).map(fork) {
                    let known = sizes.known.get(&fork).copied();
                    prop_assert_eq!(sizes.known(fork), known);
                    prop_assert_eq!((sizes.is_known(fork), sizes.get(fork)), (known.is_some(), known.flatten()));
                }
            }
        }
    }
}
