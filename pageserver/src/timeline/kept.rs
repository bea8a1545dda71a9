//! Pages that reads made of many records in memory. A hot page would else be made of all of them
//! again by each read, until they are in a stored layer and have images.
//!
//! Invariant: a page is what the timeline's versions up to its LSN make, which never changes.

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use wal_format::Lsn;

use crate::key::Key;

/// The most pages that a timeline keeps: 1 MiB.
const PAGES_MAX: usize = if cfg!(test) { 3 } else { 128 };

/// A timeline's.
#[derive(Default)]
pub struct KeptPages {
    pages: Mutex<FxHashMap<Key, (Lsn, Bytes)>>,
}

impl KeptPages {
    /// The page of a key, and the LSN of the last version in it.
    pub fn get(&self, key: Key) -> Option<(Lsn, Bytes)> {
        self.pages.lock().get(&key).cloned()
    }

    /// Keeps a page that is newer than what is kept of its key; where there are many, the oldest
    /// goes.
    pub fn put(&self, key: Key, lsn: Lsn, page: Bytes) {
        let mut pages = self.pages.lock();
        match pages.get_mut(&key) {
            Some(kept) if kept.0 >= lsn => return,
            Some(kept) => return *kept = (lsn, page),
            None => {}
        }
        if pages.len() >= PAGES_MAX {
            let oldest = pages.iter().min_by_key(|(key, (lsn, _))| (*lsn, **key));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                pages.remove(&oldest);
            }
        }
        pages.insert(key, (lsn, page));
    }

    /// What is at or below `lsn` is in stored layers.
    pub fn forget_up_to(&self, lsn: Lsn) {
        let mut pages = self.pages.lock();
        pages.retain(|_, (kept, _)| *kept > lsn);
        if pages.is_empty() {
            // Of many timelines, each would keep its room.
            *pages = FxHashMap::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use wal_format::{Fork, Relation};

    use super::*;

    fn key(block: u32) -> Key {
        let relation = Relation { tablespace: 1663, database: 5, number: 100 };
        Key::page(relation.fork(Fork::Main).block(block))
    }

    #[test]
    fn the_newest_pages_are_kept_until_they_are_stored() {
        let kept = KeptPages::default();
        let page = |byte: u8| Bytes::copy_from_slice(&[byte]);
        for (block, lsn) in [(0, 10), (1, 20), (2, 30), (3, 40), (1, 15), (3, 50)] {
            kept.put(key(block), Lsn(lsn), page(lsn as u8));
        }
        assert_eq!(kept.get(key(0)), None);
        assert_eq!(kept.get(key(1)), Some((Lsn(20), page(20))));
        assert_eq!(kept.get(key(3)), Some((Lsn(50), page(50))));
        kept.forget_up_to(Lsn(30));
        assert_eq!(kept.get(key(1)), None);
        assert_eq!(kept.get(key(2)), None);
        assert_eq!(kept.get(key(3)), Some((Lsn(50), page(50))));
    }
}
