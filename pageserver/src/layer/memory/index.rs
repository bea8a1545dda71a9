//! Finds keys' chains: by hashing, since ingest of small records is bounded by this, but of some keys
//! at once that are neighbours, so that what is looked up often stays in the processor's cache.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::key::Key;

/// Neighbours: keys that differ only in the last bits of their numbers.
const LEAF_KEYS: u32 = 8;
/// No chain.
const NONE: u32 = u32::MAX;

/// The numbers of the chains of some keys.
#[derive(Default)]
pub struct Index {
    /// The places of leaves, by their first keys.
    table: HashTable<u32>,
    leaves: Vec<Leaf>,
}

/// The chains of neighbouring keys: one line of the processor's cache.
#[repr(align(64))]
struct Leaf {
    first: Key,
    chains: [u32; LEAF_KEYS as usize],
}

const _: () = assert!(size_of::<Leaf>() == 64);

/// What a leaf costs: itself, and its place in a table that is partly empty.
pub const LEAF_BYTES: usize = size_of::<Leaf>() + 2 * (size_of::<u32>() + 1);

impl Index {
    /// The number of a key's chain.
    #[inline]
    pub fn get(&self, key: Key) -> Option<u32> {
        let (first, at) = place(key);
        let leaf = self.table.find(hash(first), |leaf| self.leaves[*leaf as usize].first == first);
        leaf.map(|leaf| self.leaves[*leaf as usize].chains[at]).filter(|number| *number != NONE)
    }

    /// Takes a key that was not there; whether that cost [`LEAF_BYTES`].
    pub fn insert(&mut self, key: Key, number: u32) -> bool {
        let (first, at) = place(key);
        let leaves = &self.leaves;
        let known = self.table.find(hash(first), |leaf| leaves[*leaf as usize].first == first);
        if let Some(leaf) = known {
            self.leaves[*leaf as usize].chains[at] = number;
            return false;
        }
        let mut chains = [NONE; LEAF_KEYS as usize];
        chains[at] = number;
        self.leaves.push(Leaf { first, chains });
        let leaves = &self.leaves;
        let hash_of = |leaf: &u32| hash(leaves[*leaf as usize].first);
        self.table.insert_unique(hash(first), leaves.len() as u32 - 1, hash_of);
        true
    }

    /// All keys with the numbers of their chains, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, u32)> {
        self.leaves.iter().flat_map(Leaf::iter)
    }

    /// The same by rising key.
    pub fn sorted(&self) -> impl Iterator<Item = (Key, u32)> {
        let mut leaves: Vec<&Leaf> = self.leaves.iter().collect();
        leaves.sort_unstable_by_key(|leaf| leaf.first);
        leaves.into_iter().flat_map(Leaf::iter)
    }
}

impl Leaf {
    fn iter(&self) -> impl Iterator<Item = (Key, u32)> {
        let known = (0..).zip(self.chains).filter(|(_, chain)| *chain != NONE);
        known.map(|(at, chain)| (self.first.with_number(self.first.number() + at), chain))
    }
}

/// The first key of a key's leaf, and the place there.
#[inline]
fn place(key: Key) -> (Key, usize) {
    let at = key.number() % LEAF_KEYS;
    (key.with_number(key.number() - at), at as usize)
}

#[inline]
fn hash(key: Key) -> u64 {
    FxBuildHasher.hash_one(key)
}
