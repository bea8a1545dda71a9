//! A memory layer's versions by key, then LSN.

use smallvec::SmallVec;

use super::{
    Chain, MemoryLayer,
    rows::{Chunk, Row, Rows},
};
use crate::key::Key;

/// Keys whose versions are fetched from memory at once.
const KEYS_AHEAD: usize = 64;

/// The order of a layer's versions.
pub struct Sorted<'l> {
    layer: &'l MemoryLayer,
    /// The keys with the numbers of their chains, by rising key.
    keys: Vec<(Key, u32)>,
}

impl<'l> Sorted<'l> {
    /// Of this layer.
    pub(super) fn new(layer: &'l MemoryLayer) -> Sorted<'l> {
        // Pages come before all others.
        let mut keys: Vec<(Key, u32)> = layer.pages.sorted().collect();
        let pages = keys.len();
        keys.extend(layer.counters.iter());
        keys.extend(layer.others.iter().map(|(key, number)| (*key, *number)));
        keys[pages..].sort_unstable();
        debug_assert!(keys.is_sorted());
        Sorted { layer, keys }
    }

    /// Each key with its versions.
    pub fn keys(&self) -> impl Iterator<Item = KeyVersions<'_>> {
        self.keys.chunks(KEYS_AHEAD).flat_map(|keys| {
            fetch(self.layer, keys);
            keys.iter().filter_map(|(key, number)| {
                let chain = &self.layer.chains[*number as usize];
                let last = chain.tail.chunk()?;
                let late = self.layer.late_chunks(*number);
                Some(KeyVersions { key: *key, rows: &self.layer.rows, chain, late, last })
            })
        })
    }
}

/// A key's versions, by rising LSN.
#[derive(Clone, Copy)]
pub struct KeyVersions<'l> {
    key: Key,
    rows: &'l Rows,
    chain: &'l Chain,
    late: &'l [Chunk],
    last: Chunk,
}

impl<'l> KeyVersions<'l> {
    /// The key.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The longest row of records without an image between.
    pub fn records_max(&self) -> usize {
        self.chain.records_max()
    }

    /// Whether the first version needs nothing older.
    pub fn is_complete(&self) -> bool {
        self.chain.is_complete
    }

    /// Gives each version to `take`, without a copy; ends at its first error.
    #[inline]
    pub fn try_for_each<E>(&self, mut take: impl FnMut(Row<'l>) -> Result<(), E>) -> Result<(), E> {
        let mut chunks = SmallVec::<[Chunk; 4]>::new();
        chunks.push(self.last);
        // Where most of a long chain's are is known, so that none of them is waited for to find the next.
        let late = self.late.iter().rev();
        chunks.extend(late.filter_map(|chunk| self.rows.before(*chunk)));
        while let Some(before) = chunks.last().and_then(|chunk| self.rows.before(*chunk)) {
            chunks.push(before);
        }
        for chunk in chunks.iter().rev() {
            for row in self.rows.rows(*chunk) {
                take(row)?;
            }
        }
        Ok(())
    }
}

/// Has the processor fetch the versions of some keys side by side: they are far from each other in
/// memory, and each would be waited for by itself. What a key with few small versions has is in its
/// last two chunks, each on one or two lines of the cache.
fn fetch(layer: &MemoryLayer, keys: &[(Key, u32)]) {
    // First where they are, then they themselves: nothing depends on what is waited for.
    let chains = keys.iter().filter_map(|(_, number)| layer.chains[*number as usize].tail.chunk());
    let last: SmallVec<[Chunk; KEYS_AHEAD]> = chains.collect();
    let seen = last.iter().fold(0, |seen, chunk| seen ^ layer.rows.touch(*chunk));
    std::hint::black_box(seen);
    let before = last.iter().filter_map(|chunk| layer.rows.before(*chunk));
    let seen = before.fold(0, |seen, chunk| seen ^ layer.rows.touch(chunk));
    std::hint::black_box(seen);
}
