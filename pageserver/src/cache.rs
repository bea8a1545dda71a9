//! Decompressed parts of layers in memory, bounded by bytes, shared by all timelines.
//!
//! What is cached is immutable and can always be read again: a miss costs time, nothing else.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Locks that are taken apart from each other, so that readers seldom meet.
const SHARDS: usize = 16;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// No entry.
const NONE: usize = usize::MAX;

/// A part of a layer: the layer's number in this process, and the part's offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheKey {
    /// The layer.
    pub layer: u64,
    /// The part.
    pub offset: u64,
}

/// A least-recently-used cache.
pub struct Cache<V> {
    shards: Vec<Mutex<Shard<V>>>,
}

impl<V: Clone> Cache<V> {
    /// A cache of at most this many bytes.
    pub fn new(bytes_max: u64) -> Cache<V> {
        let shard = || Mutex::new(Shard::new(bytes_max / SHARDS as u64));
        Cache { shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    /// What is cached under this key.
    pub fn get(&self, key: CacheKey) -> Option<V> {
        self.shard(key).lock().get(key)
    }

    /// Caches a value of this many bytes, and drops what was not used for longest.
    pub fn insert(&self, key: CacheKey, value: V, bytes: u64) {
        self.shard(key).lock().insert(key, value, bytes + ENTRY_OVERHEAD_BYTES);
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn shard(&self, key: CacheKey) -> &Mutex<Shard<V>> {
        // Fibonacci hashing: neighbouring blocks of one layer fall on different shards.
        let mixed = (key.layer ^ key.offset).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.shards[(mixed >> 32) as usize % SHARDS]
    }
}

/// Entries in a list by their last use, newest first, whose links are positions in `entries`.
struct Shard<V> {
    positions: HashMap<CacheKey, usize>,
    entries: Vec<Entry<V>>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    bytes: u64,
    bytes_max: u64,
}

struct Entry<V> {
    key: CacheKey,
    value: Option<V>,
    bytes: u64,
    newer: usize,
    older: usize,
}

impl<V: Clone> Shard<V> {
    fn new(bytes_max: u64) -> Shard<V> {
        Shard {
            positions: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            bytes_max,
        }
    }

    fn get(&mut self, key: CacheKey) -> Option<V> {
        let position = *self.positions.get(&key)?;
        self.unlink(position);
        self.link_newest(position);
        self.entries[position].value.clone()
    }

    fn insert(&mut self, key: CacheKey, value: V, bytes: u64) {
        if bytes > self.bytes_max {
            return;
        }
        if let Some(position) = self.positions.get(&key).copied() {
            self.remove(position);
        }
        while self.bytes + bytes > self.bytes_max {
            self.remove(self.oldest);
        }
        let entry = Entry { key, value: Some(value), bytes, newer: NONE, older: NONE };
        let position = match self.free.pop() {
            Some(position) => {
                self.entries[position] = entry;
                position
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.positions.insert(key, position);
        self.bytes += bytes;
        self.link_newest(position);
    }

    fn remove(&mut self, position: usize) {
        self.unlink(position);
        let entry = &mut self.entries[position];
        entry.value = None;
        self.bytes -= entry.bytes;
        self.positions.remove(&entry.key);
        self.free.push(position);
    }

    fn unlink(&mut self, position: usize) {
        let Entry { newer, older, .. } = self.entries[position];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }

    fn link_newest(&mut self, position: usize) {
        let older = self.newest;
        self.entries[position].newer = NONE;
        self.entries[position].older = older;
        match older {
            NONE => self.oldest = position,
            older => self.entries[older].newer = position,
        }
        self.newest = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(offset: u64) -> CacheKey {
        CacheKey { layer: 1, offset }
    }

    #[test]
    fn what_was_not_used_for_longest_is_dropped_first() {
        let mut shard = Shard::new(30);
        for offset in 0..3 {
            shard.insert(key(offset), offset, 10);
        }
        assert_eq!(shard.get(key(0)), Some(0));
        shard.insert(key(3), 3, 10);
        assert_eq!(shard.get(key(1)), None);
        assert_eq!(shard.get(key(0)), Some(0));
        assert_eq!(shard.get(key(2)), Some(2));
        assert_eq!(shard.get(key(3)), Some(3));
    }

    proptest! {
        #[test]
        fn a_shard_never_holds_more_than_its_bytes_and_never_a_wrong_value(
            steps in prop::collection::vec((0..20_u64, 1..40_u64, any::<bool>()), 0..400)
        ) {
            let mut shard = Shard::new(100);
            for (offset, bytes, insert) in steps {
                if insert {
                    shard.insert(key(offset), offset, bytes);
                } else if let Some(value) = shard.get(key(offset)) {
                    prop_assert_eq!(value, offset);
                }
                let held: u64 = shard.entries.iter().filter(|entry| entry.value.is_some())
                    .map(|entry| entry.bytes).sum();
                prop_assert_eq!(held, shard.bytes);
                prop_assert!(shard.bytes <= 100);
            }
        }
    }
}
