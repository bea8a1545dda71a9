//! A layer in memory: open while records are applied to it, then frozen until it is written.
//!
//! Invariants:
//! - Each key has a chain of versions, by rising LSN.
//! - A record's bytes stand once with each of its keys, those of a large record once for all of them.

mod index;
mod rows;
mod sorted;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use wal_format::Lsn;

use self::{
    index::{Index, LEAF_BYTES},
    rows::{Chunk, ROW_VALUE_BYTES_MAX, Rows, Tail},
};
pub use self::{
    rows::Row,
    sorted::{KeyVersions, Sorted},
};
use super::{
    Clear,
    history::{History, Span},
};
use crate::{
    change::{Changes, Put, Value, ValueKind},
    key::{Key, KeyKind},
    spare::Spare,
};

/// What a key costs beside its versions and its place in an index.
const KEY_OVERHEAD_BYTES: usize = size_of::<Chain>() + size_of::<(Key, u32)>();

/// A value of so many bytes stands apart where it is in memory already, or several keys may have it.
const APART_BYTES_MIN: usize = if cfg!(test) { 24 } else { 1 << 10 };

/// Versions above `from`, up to the last record applied.
pub struct MemoryLayer {
    from: Lsn,
    /// Where the chains of pages are, and of what changes as often as pages do.
    pages: Index,
    counters: Index,
    /// The others, which are little and are scanned in order.
    others: BTreeMap<Key, u32>,
    chains: Vec<Chain>,
    /// Of what was applied last; its room serves the next.
    chains_put: Vec<u32>,
    rows: Rows,
    /// Of long chains, by their number: their chunks behind a full one, by rising LSN. An old version is
    /// found without a walk through all that came later.
    late_chunks: FxHashMap<u32, Vec<Chunk>>,
    clears: Vec<Clear>,
    history: History,
    bytes: usize,
}

/// One key's versions.
#[derive(Clone, Copy, Debug)]
struct Chain {
    tail: Tail,
    newest_kind: ValueKind,
    /// Whether there is more than one version.
    is_long: bool,
    /// Whether the oldest version needs nothing older.
    is_complete: bool,
    /// Records since the last image, and the most there were in a row; both before the newest
    /// version.
    records_before: u32,
    records_before_max: u32,
}

// Two on a line of the processor's cache.
const _: () = assert!(size_of::<Chain>() == 32);

impl Chain {
    const EMPTY: Chain = Chain {
        tail: Tail::EMPTY,
        newest_kind: ValueKind::Image,
        is_long: false,
        is_complete: true,
        records_before: 0,
        records_before_max: 0,
    };

    /// Records since the last image.
    fn records(&self) -> u32 {
        self.newest_kind.records_since_image(self.records_before as usize) as u32
    }

    /// The longest row of records without an image between.
    fn records_max(&self) -> usize {
        self.records_before_max.max(self.records()) as usize
    }

    /// Takes note of the next version.
    fn note(&mut self, kind: ValueKind) {
        if self.tail.chunk().is_none() {
            self.is_complete = kind.is_complete();
        } else {
            self.is_long = true;
            self.records_before = self.records();
            self.records_before_max = self.records_before_max.max(self.records_before);
        }
        self.newest_kind = kind;
    }

    /// The newest version takes another value.
    fn note_again(&mut self, kind: ValueKind) {
        if !self.is_long {
            self.is_complete = kind.is_complete();
        }
        self.newest_kind = kind;
    }
}

impl MemoryLayer {
    /// A layer of what comes after `from`, less than 4 GiB of WAL, in memory that serves again.
    pub fn new(from: Lsn, spare: &Arc<Spare>) -> MemoryLayer {
        MemoryLayer {
            from,
            pages: Index::default(),
            counters: Index::default(),
            others: BTreeMap::new(),
            chains: Vec::new(),
            chains_put: Vec::new(),
            rows: Rows::new(from, Arc::clone(spare)),
            late_chunks: FxHashMap::default(),
            clears: Vec::new(),
            history: History::default(),
            bytes: 0,
        }
    }

    /// Takes over what some records do; none of it is left in `changes`.
    pub fn apply(&mut self, changes: &mut Changes) {
        // What no record has closed is not applied.
        let closed = changes.records.last().map_or(0, |record| record.puts);
        let chains = self.fetch(&changes.puts[..closed]);
        let (mut cleared, mut put) = (0, 0);
        for record in &changes.records {
            let lsn = record.end;
            for range in &changes.clears[cleared..record.clears] {
                self.bytes += size_of::<Clear>();
                self.clears.push(Clear { range: range.clone(), lsn });
            }
            // The last value that stands apart and that several keys may have: where it was, and its
            // number.
            let mut shared = None;
            let (puts, chains) = (&changes.puts[put..record.puts], &chains[put..record.puts]);
            for ((_, value), chain) in puts.iter().zip(chains) {
                let (kind, bytes) = match *value {
                    Put::Placed { kind, place } => {
                        (kind, &changes.bytes[place.at as usize..][..place.bytes as usize])
                    }
                    Put::Image(number) => (ValueKind::Image, &changes.images[number as usize][..]),
                };
                let apart = match *value {
                    _ if bytes.len() < APART_BYTES_MIN => None,
                    Put::Image(number) => {
                        Some(self.rows.keep_apart(changes.images[number as usize].clone()))
                    }
                    Put::Placed { .. } if puts.len() == 1 && bytes.len() <= ROW_VALUE_BYTES_MAX => {
                        None
                    }
                    Put::Placed { place, .. } => match shared {
                        Some((at, number)) if at == place.at => Some(number),
                        _ => {
                            let number = self.rows.keep_apart(Bytes::copy_from_slice(bytes));
                            shared = Some((place.at, number));
                            Some(number)
                        }
                    },
                };
                self.push(*chain, lsn, kind, |rows, tail| match apart {
                    None => rows.push(tail, lsn, (kind, bytes)),
                    Some(number) => rows.push_apart(tail, lsn, (kind, number)),
                });
            }
            (cleared, put) = (record.clears, record.puts);
            self.history.push(Span { start: record.start, end: lsn }, record.finished);
        }
        self.chains_put = chains;
        changes.reset();
    }

    /// The numbers of some keys' chains. Of all together first the index is read, then the chains, then
    /// their ends: the processor waits for the memory of many at once.
    fn fetch(&mut self, puts: &[(Key, Put)]) -> Vec<u32> {
        let mut found = std::mem::take(&mut self.chains_put);
        found.clear();
        let likely = |key: Key| match key.kind() {
            Some(KeyKind::Page) => self.pages.likely_leaf(key),
            _ => None,
        };
        found.extend(puts.iter().map(|(key, _)| likely(*key).unwrap_or(u32::MAX)));
        let seen = found.iter().fold(0, |seen, leaf| seen ^ self.pages.touch(*leaf));
        std::hint::black_box(seen);
        // Most that are no pages are one: that of the status of transactions.
        let mut last = None;
        for ((key, _), number) in puts.iter().zip(&mut found) {
            if let Some(known) = self.pages.get_in(*number, *key) {
                *number = known.unwrap_or_else(|| self.begin_chain_in(*number, *key));
                continue;
            }
            *number = match last {
                Some((known, number)) if known == *key => number,
                _ => self.chain(*key),
            };
            last = Some((*key, *number));
        }
        let ends = |number: &u32| self.chains[*number as usize].tail;
        let seen = found.iter().map(ends).fold(0, |seen, tail| seen ^ tail.lsn().0);
        std::hint::black_box(seen);
        let seen = found.iter().map(ends).fold(0, |seen, tail| seen ^ self.rows.touch_end(tail));
        std::hint::black_box(seen);
        found
    }

    /// The number of a key's chain.
    #[inline]
    fn chain(&mut self, key: Key) -> u32 {
        self.known_chain(key).unwrap_or_else(|| self.begin_chain(key))
    }

    /// As [`MemoryLayer::begin_chain`], where a leaf of pages is the key's.
    fn begin_chain_in(&mut self, leaf: u32, key: Key) -> u32 {
        let number = self.push_chain();
        self.pages.insert_in(leaf, key, number);
        number
    }

    fn push_chain(&mut self) -> u32 {
        let number = self.chains.len() as u32;
        self.chains.push(Chain::EMPTY);
        self.bytes += KEY_OVERHEAD_BYTES;
        number
    }

    fn begin_chain(&mut self, key: Key) -> u32 {
        let number = self.push_chain();
        let index = match key.kind() {
            Some(KeyKind::Page) => &mut self.pages,
            Some(KeyKind::Slru | KeyKind::Control) => &mut self.counters,
            _ => {
                self.others.insert(key, number);
                return number;
            }
        };
        if index.insert(key, number) {
            self.bytes += LEAF_BYTES;
        }
        number
    }

    #[inline]
    fn known_chain(&self, key: Key) -> Option<u32> {
        match key.kind() {
            Some(KeyKind::Page) => self.pages.get(key),
            Some(KeyKind::Slru | KeyKind::Control) => self.counters.get(key),
            _ => self.others.get(&key).copied(),
        }
    }

    /// Adds a version to a chain; of several values of a key by one record the last counts.
    #[inline]
    fn push(
        &mut self,
        number: u32,
        lsn: Lsn,
        kind: ValueKind,
        push: impl FnOnce(&mut Rows, &mut Tail) -> bool,
    ) {
        let chain = &mut self.chains[number as usize];
        if chain.tail.chunk().is_some() && chain.tail.lsn() == lsn {
            self.rows.take_back(&mut chain.tail);
            chain.note_again(kind);
        } else {
            chain.note(kind);
        }
        if push(&mut self.rows, &mut chain.tail) {
            self.late_chunks.entry(number).or_default().extend(chain.tail.chunk());
        }
    }

    /// All versions are above this.
    pub fn from(&self) -> Lsn {
        self.from
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.rows.bytes() + self.history.bytes()
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

    /// The versions of a key that are at most at `at`, from the newest back.
    pub fn versions(&self, key: Key, at: Lsn) -> impl Iterator<Item = (Lsn, Value)> {
        self.rows.versions(self.last_chunk(key, at), at)
    }

    /// A chunk that has the newest version of a key that is at most at `at`, or not long after it.
    fn last_chunk(&self, key: Key, at: Lsn) -> Option<Chunk> {
        let number = self.known_chain(key)?;
        let tail = self.chains[number as usize].tail.chunk()?;
        // After the first chunk that is too new, none is asked for.
        let late = self.late_chunks(number);
        let too_new = late.partition_point(|chunk| self.rows.first_lsn(*chunk) <= at);
        Some(late.get(too_new).map_or(tail, |too_new| self.rows.before(*too_new).unwrap_or(tail)))
    }

    /// Chunks of a chain behind a full one, by rising LSN; the last of them is the chain's.
    fn late_chunks(&self, number: u32) -> &[Chunk] {
        self.late_chunks.get(&number).map_or(&[][..], Vec::as_slice)
    }

    /// The keys of a range that have versions, in no order.
    pub fn keys(&self, range: &Range<Key>) -> Vec<Key> {
        let mut keys = Vec::new();
        let all = [
            (&self.pages, KeyKind::Page.all()),
            (&self.counters, KeyKind::Slru.all()),
            (&self.counters, KeyKind::Control.all()),
        ];
        for (index, kind) in all {
            let wanted = kind.start.max(range.start)..kind.end.min(range.end);
            if wanted.start < wanted.end {
                keys.extend(index.iter().map(|(key, _)| key).filter(|key| wanted.contains(key)));
            }
        }
        if range.start < range.end {
            keys.extend(self.others.range(range.clone()).map(|(key, _)| *key));
        }
        keys
    }

    /// The keys that have so many records in a row without an image between, and whose oldest
    /// version needs an older one; in no order.
    pub fn keys_upon_others(&self, records: usize) -> Vec<Key> {
        // Only what redo makes has records.
        let keys = self.pages.iter().chain(self.counters.iter());
        let keys = keys.chain(self.others.iter().map(|(key, number)| (*key, *number)));
        let is_asked = |(_, number): &(Key, u32)| {
            let chain = &self.chains[*number as usize];
            !chain.is_complete && chain.records_max() >= records
        };
        keys.filter(is_asked).map(|(key, _)| key).collect()
    }

    /// All keys with their versions, by rising key.
    pub fn sorted(&self) -> Sorted<'_> {
        Sorted::new(self)
    }
}
