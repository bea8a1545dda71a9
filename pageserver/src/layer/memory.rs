//! A layer in memory: open while records are applied to it, then frozen until it is written.

use std::{collections::BTreeMap, ops::Range};

use rustc_hash::FxHashMap;
use wal_format::Lsn;

use super::{
    Clear,
    history::{History, Span},
};
use crate::{
    change::{Changes, Value},
    key::{Key, KeyKind},
};

/// What a version costs beside its bytes: LSN, value, a half-empty vector.
const VERSION_OVERHEAD_BYTES: usize = 72;
/// What a key costs beside its versions: its place in a half-empty map, its vector's first slots.
const KEY_OVERHEAD_BYTES: usize = 240;

/// The versions of a key, by rising LSN.
pub type Versions = Vec<(Lsn, Value)>;

/// Versions above `from`, up to the last record applied.
///
/// Pages are found by hashing, since ingest of small records is bounded by this map; everything
/// else is little and is scanned in order.
pub struct MemoryLayer {
    from: Lsn,
    pages: FxHashMap<Key, Versions>,
    others: BTreeMap<Key, Versions>,
    clears: Vec<Clear>,
    history: History,
    bytes: usize,
}

impl MemoryLayer {
    /// A layer of what comes after `from`.
    pub fn new(from: Lsn) -> MemoryLayer {
        MemoryLayer {
            from,
            pages: FxHashMap::default(),
            others: BTreeMap::new(),
            clears: Vec::new(),
            history: History::default(),
            bytes: 0,
        }
    }

    /// Takes over what some records do; none of it is left in `changes`.
    pub fn apply(&mut self, changes: &mut Changes) {
        changes.bytes = 0;
        let (mut clears, mut puts) = (changes.clears.drain(..), changes.puts.drain(..));
        let (mut cleared, mut put) = (0, 0);
        for record in changes.records.drain(..) {
            let lsn = record.end;
            for range in clears.by_ref().take(record.clears - cleared) {
                self.bytes += size_of::<Clear>();
                self.clears.push(Clear { range, lsn });
            }
            for (key, value) in puts.by_ref().take(record.puts - put) {
                self.put(key, lsn, value);
            }
            (cleared, put) = (record.clears, record.puts);
            self.bytes += size_of::<Span>();
            self.history.push(Span { start: record.start, end: lsn }, record.finished);
        }
    }

    fn put(&mut self, key: Key, lsn: Lsn, value: Value) {
        let bytes = value.bytes().len();
        let versions = match key.kind() {
            Some(KeyKind::Page) => self.pages.entry(key).or_default(),
            _ => self.others.entry(key).or_default(),
        };
        match versions.last_mut() {
            Some(last) if last.0 == lsn => last.1 = value,
            Some(_) => versions.push((lsn, value)),
            None => {
                // Most keys of a layer get one or two versions, some get thousands.
                versions.reserve_exact(1);
                versions.push((lsn, value));
                self.bytes += KEY_OVERHEAD_BYTES;
            }
        }
        self.bytes += bytes + VERSION_OVERHEAD_BYTES;
    }

    /// All versions are above this.
    pub fn from(&self) -> Lsn {
        self.from
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no record was applied.
    pub fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// The records.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The clears, by rising LSN.
    pub fn clears(&self) -> &[Clear] {
        &self.clears
    }

    /// The versions of a key; empty where there is none.
    pub fn versions(&self, key: Key) -> &[(Lsn, Value)] {
        let versions = match key.kind() {
            Some(KeyKind::Page) => self.pages.get(&key),
            _ => self.others.get(&key),
        };
        versions.map_or(&[], Vec::as_slice)
    }

    /// The keys of a range that have versions, in no order.
    pub fn keys(&self, range: &Range<Key>) -> Vec<Key> {
        let pages = KeyKind::Page.all();
        let mut keys = Vec::new();
        if range.start < pages.end && pages.start < range.end {
            keys.extend(self.pages.keys().copied().filter(|key| range.contains(key)));
        }
        if range.start < range.end {
            keys.extend(self.others.range(range.clone()).map(|(key, _)| *key));
        }
        keys
    }

    /// The keys whose versions are as asked for, in no order.
    pub fn keys_with(&self, is_wanted: impl Fn(&[(Lsn, Value)]) -> bool) -> Vec<Key> {
        let all = self.pages.iter().chain(&self.others);
        all.filter(|(_, versions)| is_wanted(versions)).map(|(key, _)| *key).collect()
    }

    /// All keys with their versions, by rising key.
    pub fn sorted(&self) -> Vec<(Key, &Versions)> {
        let mut all: Vec<_> = self.pages.iter().map(|(key, versions)| (*key, versions)).collect();
        all.extend(self.others.iter().map(|(key, versions)| (*key, versions)));
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// Versions of a key that are fetched from memory at once.
pub const VERSIONS_AHEAD: usize = 32;

/// Has the processor fetch the first bytes of some versions side by side: a key's records are far
/// from each other in memory, and each would be waited for by itself.
pub fn look_at<'v>(versions: impl IntoIterator<Item = &'v (Lsn, Value)>) {
    let first = |(_, value): &(Lsn, Value)| value.bytes().first().copied().unwrap_or(0);
    std::hint::black_box(versions.into_iter().map(first).fold(0, |all, byte| all ^ byte));
}
