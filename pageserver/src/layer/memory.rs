//! A layer in memory: open while records are applied to it, then frozen until it is written.
//!
//! Invariants:
//! - The versions of all keys stand in the order in which they came. Each names the one before it of
//!   the same key, its chain; LSNs fall along a chain.
//! - The bytes of records that were applied together stand together, once, however many keys have
//!   them.

mod sorted;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use wal_format::Lsn;

pub use self::sorted::{KeyVersions, Sorted};
use super::{
    Clear,
    history::{History, Span},
};
use crate::{
    change::{Changes, Put, Value, ValueKind},
    key::{Key, KeyKind},
};

/// What a key costs beside its versions: its chain, and its place in a map that is partly empty.
const KEY_OVERHEAD_BYTES: usize = size_of::<Chain>() + 2 * size_of::<(Key, u32)>();
/// Of a chain, the place of each so-many-th version is kept: an old one is found without a walk
/// through all that came later. Few in tests, whose chains are short.
const VERSIONS_PER_MARK: u32 = if cfg!(test) { 4 } else { 64 };
/// No version.
const NONE: u32 = u32::MAX;

/// Versions above `from`, up to the last record applied.
///
/// Pages are found by hashing, since ingest of small records is bounded by this map; everything
/// else is little and is scanned in order.
pub struct MemoryLayer {
    from: Lsn,
    /// Of each page, the number of its chain.
    pages: FxHashMap<Key, u32>,
    others: BTreeMap<Key, u32>,
    chains: Vec<Chain>,
    /// Of what was applied last; its room serves the next.
    chains_put: Vec<u32>,
    versions: Vec<Version>,
    /// Of long chains, by their number: the places of some versions, rising.
    marks: FxHashMap<u32, Vec<u32>>,
    /// Bytes of records that were applied together, or one whole value.
    pieces: Vec<Bytes>,
    clears: Vec<Clear>,
    history: History,
    bytes: usize,
}

/// One key's versions.
#[derive(Clone, Copy, Debug)]
struct Chain {
    key: Key,
    newest: u32,
    count: u32,
    newest_kind: ValueKind,
    /// Whether the oldest version needs nothing older.
    is_complete: bool,
    /// Records since the last image, and the most there were in a row; both before the newest
    /// version.
    records_before: u32,
    records_before_max: u32,
}

/// One version, and where its bytes are.
#[derive(Clone, Copy, Debug)]
struct Version {
    lsn: Lsn,
    chain: u32,
    /// The next older one of the chain, or [`NONE`].
    before: u32,
    piece: u32,
    at: u32,
    bytes: u32,
    kind: ValueKind,
}

const _: () = assert!(size_of::<Version>() == 32);

impl Chain {
    fn new(key: Key) -> Chain {
        Chain {
            key,
            newest: NONE,
            count: 0,
            newest_kind: ValueKind::Image,
            is_complete: true,
            records_before: 0,
            records_before_max: 0,
        }
    }

    /// Records since the last image.
    fn records(&self) -> u32 {
        self.newest_kind.records_since_image(self.records_before as usize) as u32
    }

    /// The longest row of records without an image between.
    fn records_max(&self) -> usize {
        self.records_before_max.max(self.records()) as usize
    }

    fn push(&mut self, place: u32, kind: ValueKind) {
        if self.count == 0 {
            self.is_complete = kind.is_complete();
        } else {
            self.records_before = self.records();
            self.records_before_max = self.records_before_max.max(self.records_before);
        }
        (self.newest, self.newest_kind) = (place, kind);
        self.count += 1;
    }

    /// The newest version takes another value.
    fn replace(&mut self, kind: ValueKind) {
        if self.count == 1 {
            self.is_complete = kind.is_complete();
        }
        self.newest_kind = kind;
    }
}

impl MemoryLayer {
    /// A layer of what comes after `from`.
    pub fn new(from: Lsn) -> MemoryLayer {
        MemoryLayer {
            from,
            pages: FxHashMap::default(),
            others: BTreeMap::new(),
            chains: Vec::new(),
            chains_put: Vec::new(),
            versions: Vec::new(),
            marks: FxHashMap::default(),
            pieces: Vec::new(),
            clears: Vec::new(),
            history: History::default(),
            bytes: 0,
        }
    }

    /// Takes over what some records do; none of it is left in `changes`.
    pub fn apply(&mut self, changes: &mut Changes) {
        let piece = self.pieces.len() as u32;
        if !changes.puts.is_empty() {
            self.add_piece(Bytes::copy_from_slice(&changes.bytes));
        }
        // By itself, so that the processor waits for the map's memory of many keys at once. What no
        // record has closed is not applied.
        let closed = changes.records.last().map_or(0, |record| record.puts);
        let mut chains = std::mem::take(&mut self.chains_put);
        chains.clear();
        chains.extend(changes.puts[..closed].iter().map(|(key, _)| self.chain(*key)));
        let (mut cleared, mut put) = (0, 0);
        for record in &changes.records {
            let lsn = record.end;
            for range in &changes.clears[cleared..record.clears] {
                self.bytes += size_of::<Clear>();
                self.clears.push(Clear { range: range.clone(), lsn });
            }
            let first = self.versions.len() as u32;
            let (puts, chains) = (&changes.puts[put..record.puts], &chains[put..record.puts]);
            for ((_, value), chain) in puts.iter().zip(chains) {
                let version = Version {
                    lsn,
                    chain: *chain,
                    before: NONE,
                    piece,
                    at: 0,
                    bytes: 0,
                    kind: ValueKind::Image,
                };
                let version = match *value {
                    Put::Record { will_init, place } => Version {
                        at: place.at,
                        bytes: place.bytes,
                        kind: ValueKind::record(will_init),
                        ..version
                    },
                    Put::Image(number) => {
                        let image = std::mem::take(&mut changes.images[number as usize]);
                        let bytes = image.len() as u32;
                        let piece = self.pieces.len() as u32;
                        self.add_piece(image);
                        Version { piece, bytes, ..version }
                    }
                };
                self.push(version, first);
            }
            (cleared, put) = (record.clears, record.puts);
            self.bytes += size_of::<Span>();
            self.history.push(Span { start: record.start, end: lsn }, record.finished);
        }
        self.chains_put = chains;
        changes.reset();
    }

    fn add_piece(&mut self, piece: Bytes) {
        self.bytes += piece.len() + size_of::<Bytes>();
        self.pieces.push(piece);
    }

    /// The number of a key's chain.
    fn chain(&mut self, key: Key) -> u32 {
        let next = self.chains.len() as u32;
        let is_page = key.kind() == Some(KeyKind::Page);
        let known = if is_page { self.pages.get(&key) } else { self.others.get(&key) };
        if let Some(number) = known {
            return *number;
        }
        if is_page {
            self.pages.insert(key, next);
        } else {
            self.others.insert(key, next);
        }
        self.chains.push(Chain::new(key));
        self.bytes += KEY_OVERHEAD_BYTES;
        next
    }

    /// Adds a version; those from `first` on are of the same record: of several values of a key the
    /// last counts.
    fn push(&mut self, mut version: Version, first: u32) {
        let place = self.versions.len() as u32;
        let chain = &mut self.chains[version.chain as usize];
        if chain.newest != NONE && chain.newest >= first {
            let newest = &mut self.versions[chain.newest as usize];
            version.before = newest.before;
            *newest = version;
            chain.replace(version.kind);
            return;
        }
        version.before = chain.newest;
        chain.push(place, version.kind);
        if chain.count.is_multiple_of(VERSIONS_PER_MARK) {
            self.marks.entry(version.chain).or_default().push(place);
        }
        self.versions.push(version);
        self.bytes += size_of::<Version>();
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

    /// The versions of a key that are at most at `at`, from the newest back.
    pub fn versions(&self, key: Key, at: Lsn) -> impl Iterator<Item = (Lsn, Value)> {
        let mut place = self.last_place(key, at);
        std::iter::from_fn(move || {
            let version = self.versions.get(place as usize)?;
            place = version.before;
            Some((version.lsn, self.value(version)))
        })
    }

    /// The newest version of a key that is at most at `at`, or [`NONE`].
    fn last_place(&self, key: Key, at: Lsn) -> u32 {
        let number = match key.kind() {
            Some(KeyKind::Page) => self.pages.get(&key),
            _ => self.others.get(&key),
        };
        let Some(number) = number else { return NONE };
        let lsn = |place: u32| self.versions[place as usize].lsn;
        let mut place = self.chains[*number as usize].newest;
        if lsn(place) > at {
            // From the first mark that is too new.
            let marks = self.marks.get(number).map_or(&[][..], Vec::as_slice);
            let next = marks.partition_point(|mark| lsn(*mark) <= at);
            place = marks.get(next).copied().unwrap_or(place);
        }
        while place != NONE && lsn(place) > at {
            place = self.versions[place as usize].before;
        }
        place
    }

    fn value(&self, version: &Version) -> Value {
        let at = version.at as usize;
        let piece = &self.pieces[version.piece as usize];
        Value::new(version.kind, piece.slice(at..at + version.bytes as usize))
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

    /// The keys that have so many records in a row without an image between, and whose oldest
    /// version needs an older one; in no order.
    pub fn keys_upon_others(&self, records: usize) -> Vec<Key> {
        let is_asked = |chain: &&Chain| !chain.is_complete && chain.records_max() >= records;
        self.chains.iter().filter(is_asked).map(|chain| chain.key).collect()
    }

    /// All keys with their versions, by rising key.
    pub fn sorted(&self) -> Sorted<'_> {
        Sorted::new(self)
    }
}
