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
    /// By the leaves' first keys.
    table: HashTable<Entry>,
    leaves: Vec<Leaf>,
}

/// Where a leaf is.
#[derive(Clone, Copy)]
struct Entry {
    leaf: u32,
    /// What the hash is made of, so that the leaf is known before it is looked at, and need not be where the
    /// table grows.
    print: u32,
}

/// The chains of neighbouring keys: one line of the processor's cache.
#[repr(align(64))]
struct Leaf {
    first: Key,
    chains: [u32; LEAF_KEYS as usize],
}

const _: () = assert!(size_of::<Leaf>() == 64);

/// What a leaf costs: itself, and its place in a table that is partly empty.
pub const LEAF_BYTES: usize = size_of::<Leaf>() + 2 * (size_of::<Entry>() + 1);

impl Index {
    /// The number of a key's chain.
    #[inline]
    pub fn get(&self, key: Key) -> Option<u32> {
        let (first, at) = place(key);
        self.leaf(first).and_then(|leaf| self.leaves[leaf as usize].chain(at))
    }

    /// The leaf that a key is in, if it is in any: most likely, since the leaf is not looked at.
    #[inline]
    pub fn likely_leaf(&self, key: Key) -> Option<u32> {
        let print = print(place(key).0);
        self.table.find(hash(print), |entry| entry.print == print).map(|entry| entry.leaf)
    }

    /// Has the processor fetch a leaf.
    #[inline]
    pub fn touch(&self, leaf: u32) -> u32 {
        self.leaves.get(leaf as usize).map_or(0, |leaf| leaf.chains[0])
    }

    /// The number of a key's chain, if there is one, where this is the key's leaf.
    #[inline]
    pub fn get_in(&self, leaf: u32, key: Key) -> Option<Option<u32>> {
        let (first, at) = place(key);
        let leaf = self.leaves.get(leaf as usize).filter(|leaf| leaf.first == first)?;
        Some(leaf.chain(at))
    }

    /// As [`Index::insert`], where this is the key's leaf.
    pub fn insert_in(&mut self, leaf: u32, key: Key, number: u32) {
        self.leaves[leaf as usize].chains[place(key).1] = number;
    }

    /// Takes a key that was not there; whether that cost [`LEAF_BYTES`].
    pub fn insert(&mut self, key: Key, number: u32) -> bool {
        let (first, at) = place(key);
        if let Some(leaf) = self.leaf(first) {
            self.leaves[leaf as usize].chains[at] = number;
            return false;
        }
        let mut chains = [NONE; LEAF_KEYS as usize];
        chains[at] = number;
        let entry = Entry { leaf: self.leaves.len() as u32, print: print(first) };
        self.leaves.push(Leaf { first, chains });
        self.table.insert_unique(hash(entry.print), entry, |entry| hash(entry.print));
        true
    }

    #[inline]
    fn leaf(&self, first: Key) -> Option<u32> {
        let print = print(first);
        let is_it =
            |entry: &Entry| entry.print == print && self.leaves[entry.leaf as usize].first == first;
        self.table.find(hash(print), is_it).map(|entry| entry.leaf)
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
    #[inline]
    fn chain(&self, at: usize) -> Option<u32> {
        Some(self.chains[at]).filter(|number| *number != NONE)
    }

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

/// The half of a key's hash that its bits are spread over best.
#[inline]
fn print(key: Key) -> u32 {
    FxBuildHasher.hash_one(key) as u32
}

/// A hash with as many bits as a table wants: those at either end count.
#[inline]
fn hash(print: u32) -> u64 {
    /// 2^64 by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    u64::from(print).wrapping_mul(SPREAD)
}
