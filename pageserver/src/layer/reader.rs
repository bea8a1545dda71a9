//! Reads a layer object by parts: index and clears once, blocks as they are needed.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::future::join_all;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use wal_format::Lsn;

use super::{
    Clear,
    block::Block,
    filter::Filter,
    format::{Damage, FOOTER_BYTES, Footer, IndexRow, Locator, decode_clears, decode_index},
    name::LayerSummary,
};
use crate::{
    cache::{Cache, CacheKey, LayerIdentity},
    error::Error,
    key::Key,
    metrics::METRICS,
};

/// Blocks that are read from the object store at once: 2 MiB before compression.
pub const READ_BLOCKS_MAX: usize = 64;

/// What is cached of layers.
#[derive(Clone)]
pub enum Cached {
    /// Index, filter and clears.
    Contents(Arc<Contents>),
    /// A block.
    Block(Block),
}

/// A layer's table of contents.
pub struct Contents {
    index: Vec<IndexRow>,
    filter: Filter,
    clears: Vec<Clear>,
}

impl Contents {
    /// The clears that touch a range of keys.
    pub fn clears_in(&self, range: &Range<Key>) -> impl Iterator<Item = &Clear> {
        self.clears.iter().filter(move |clear| clear.overlaps(range))
    }

    /// All clears, by rising LSN.
    pub fn clears(&self) -> &[Clear] {
        &self.clears
    }

    /// Whether the layer may have versions of this key; where not, it has none.
    pub fn may_have(&self, key: Key) -> bool {
        self.filter.may_have(key)
    }

    /// The blocks that may hold versions of a range of keys.
    pub fn blocks_in(&self, range: &Range<Key>) -> Range<usize> {
        let start = self.index.partition_point(|row| row.last < range.start);
        let end = self.index.partition_point(|row| row.first < range.end);
        start..end.max(start)
    }

    /// The last block, of these, that begins at or before a key.
    pub fn last_block_from(&self, key: Key, blocks: &Range<usize>) -> Option<usize> {
        let before = self.index[blocks.clone()].partition_point(|row| row.first <= key);
        before.checked_sub(1).map(|last| blocks.start + last)
    }

    /// The last block that may hold versions of a key at or below an LSN.
    pub fn last_block_of(&self, key: Key, at: Lsn) -> Option<usize> {
        if !self.may_have(key) {
            return None;
        }
        let before = self.index.partition_point(|row| (row.first, row.first_lsn) <= (key, at));
        before.checked_sub(1).filter(|last| self.index[*last].last >= key)
    }

    /// How many blocks there are.
    pub fn block_count(&self) -> usize {
        self.index.len()
    }

    /// What the index says of a block.
    pub fn block(&self, number: usize) -> &IndexRow {
        &self.index[number]
    }

    fn bytes(&self) -> usize {
        let (rows, clears) = (self.index.len(), self.clears.len());
        rows * size_of::<IndexRow>() + clears * size_of::<Clear>() + self.filter.bytes()
    }
}

/// A layer in the object store.
#[derive(Clone)]
pub struct Layer {
    summary: LayerSummary,
    path: Path,
    identity: LayerIdentity,
    store: Arc<dyn ObjectStore>,
    cache: Arc<Cache>,
}

impl Layer {
    /// The layer that a manifest names; nothing is read yet.
    pub fn new(
        summary: LayerSummary,
        path: Path,
        store: Arc<dyn ObjectStore>,
        cache: Arc<Cache>,
    ) -> Layer {
        let identity = LayerIdentity::of(&path);
        Layer { summary, path, identity, store, cache }
    }

    /// What the manifest says of it.
    pub fn summary(&self) -> &LayerSummary {
        &self.summary
    }

    /// Versions are above this; an image's LSN.
    pub fn from(&self) -> Lsn {
        self.summary.name.from
    }

    /// Versions are at most this.
    pub fn to(&self) -> Lsn {
        self.summary.name.to
    }

    /// Where it is in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has versions at or below `at`.
    pub fn holds_versions_at(&self, at: Lsn) -> bool {
        self.summary.name.holds_versions_at(at)
    }

    /// Whether the layer can say anything of a range of keys.
    pub fn may_hold(&self, range: &Range<Key>) -> bool {
        self.summary.first_key < range.end && range.start <= self.summary.last_key
    }

    /// The table of contents: one read, then cached.
    pub async fn contents(&self) -> Result<Arc<Contents>, Error> {
        let at = self.summary.clears_at;
        let keys = [self.key(at)];
        let cached = self.cache.get_or_read(&keys, |_| {
            let layer = self.clone();
            async move {
                let tail = at..layer.summary.bytes;
                let read = layer.load(&[tail], |_, tail: &Bytes| layer.parse_tail(tail)).await?;
                let weigh = |contents: Contents| {
                    let bytes = contents.bytes();
                    (Cached::Contents(Arc::new(contents)), bytes)
                };
                Ok(read.into_iter().map(weigh).collect())
            }
        });
        match cached.await?.pop() {
            Some(Cached::Contents(contents)) => Ok(contents),
            _ => Err(Error::Unavailable(format!("{} gave no contents", self.path))),
        }
    }

    /// Blocks by their numbers in the index, which rise: from the cache, and in one request those
    /// that are not there.
    pub async fn blocks(
        &self,
        contents: &Contents,
        numbers: &[usize],
    ) -> Result<Vec<Block>, Error> {
        let locators: Vec<Locator> =
            numbers.iter().map(|number| contents.block(*number).locator).collect();
        let keys: Vec<CacheKey> = locators.iter().map(|locator| self.key(locator.offset)).collect();
        let cached = self.cache.get_or_read(&keys, |missing| {
            let locators: Vec<Locator> = missing.into_iter().map(|at| locators[at]).collect();
            let layer = self.clone();
            async move {
                let ranges: Vec<_> =
                    locators.iter().map(|locator| locator.offset..locator.end()).collect();
                let parse = |at: usize, stored: &Bytes| parse_block(locators[at], stored);
                let read = layer.load(&ranges, parse).await?;
                let weigh = |block: Block| {
                    let bytes = block.bytes();
                    (Cached::Block(block), bytes)
                };
                Ok(read.into_iter().map(weigh).collect())
            }
        });
        let block = |cached: Cached| match cached {
            Cached::Block(block) => Ok(block),
            // A block that was left out would let an older version be served.
            Cached::Contents(_) => Err(Error::Unavailable(format!(
                "{}: the cache has something else for a block",
                self.path
            ))),
        };
        cached.await?.into_iter().map(block).collect()
    }

    /// Parts of the object, from the cache's disk where it has them undamaged, in one request to
    /// the object store otherwise.
    async fn load<T>(
        &self,
        ranges: &[Range<u64>],
        parse: impl Fn(usize, &Bytes) -> Result<T, Damage>,
    ) -> Result<Vec<T>, Error> {
        let mut parts: Vec<Option<T>> = match self.cache.disk() {
            Some(disk) => {
                let keys = ranges.iter().map(|range| self.key(range.start));
                let found = join_all(keys.map(|key| disk.get(key))).await;
                let check = |(at, stored): (usize, Option<Bytes>)| match parse(at, &stored?) {
                    Ok(part) => Some(part),
                    Err(_) => {
                        disk.forget_damaged(self.key(ranges[at].start));
                        None
                    }
                };
                found.into_iter().enumerate().map(check).collect()
            }
            None => ranges.iter().map(|_| None).collect(),
        };
        let missing: Vec<usize> = (0..ranges.len()).filter(|at| parts[*at].is_none()).collect();
        METRICS.parts_from_disk.inc_by((ranges.len() - missing.len()) as u64);
        METRICS.parts_from_store.inc_by(missing.len() as u64);
        if !missing.is_empty() {
            let wanted: Vec<_> = missing.iter().map(|at| ranges[*at].clone()).collect();
            for (at, stored) in missing.into_iter().zip(self.read_ranges(&wanted).await?) {
                parts[at] = Some(parse(at, &stored).map_err(|damage| self.corrupt(damage))?);
                if let Some(disk) = self.cache.disk() {
                    disk.put(self.key(ranges[at].start), stored);
                }
            }
        }
        Ok(parts.into_iter().flatten().collect())
    }

    fn key(&self, offset: u64) -> CacheKey {
        CacheKey { layer: self.identity, offset }
    }

    /// Blocks that adjoin, in one request, past the cache: for whoever reads a whole layer once.
    pub async fn blocks_past_cache(
        &self,
        contents: &Contents,
        numbers: Range<usize>,
    ) -> Result<Vec<Block>, Error> {
        let rows = &contents.index[numbers];
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        let start = first.locator.offset;
        let stored = self.read(start..last.locator.end()).await?;
        let block = |row: &IndexRow| {
            let from = (row.locator.offset - start) as usize;
            let to = (row.locator.end() - start) as usize;
            let block = parse_block(row.locator, &stored[from..to]);
            block.map_err(|damage| self.corrupt(damage))
        };
        rows.iter().map(block).collect()
    }

    fn parse_tail(&self, tail: &[u8]) -> Result<Contents, Damage> {
        let at = self.summary.clears_at;
        let footer_at = tail.len().saturating_sub(FOOTER_BYTES);
        let footer = Footer::decode(&tail[footer_at..], at + footer_at as u64)?;
        let named = self.summary.name;
        let same = (footer.kind, footer.from, footer.to) == (named.kind, named.from, named.to);
        if !same || footer.clears.offset != at {
            return Err(Damage {
                offset: at + footer_at as u64,
                expected: format!("the footer of {named} with clears at {at}"),
                found: format!("{footer:?}"),
            });
        }
        let part = |locator: Locator| {
            let start = (locator.offset - at) as usize;
            locator.open(&tail[start..start + locator.stored as usize])
        };
        let clears = decode_clears(&part(footer.clears)?, footer.clears.offset)?;
        let index_at = footer.index.offset;
        let index = decode_index(&part(footer.index)?, index_at, at)?;
        let filter = Filter::new(part(footer.filter)?);
        Ok(Contents { index, filter, clears })
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let mut parts = self.read_ranges(std::slice::from_ref(&range)).await?;
        parts.pop().ok_or_else(|| Error::Unavailable(format!("{} gave no bytes", self.path)))
    }

    /// Exactly these ranges; an object that is shorter than the manifest says is damaged.
    async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let read = self.store.get_ranges(&self.path, ranges).await;
        let asked = ranges.iter().map(|range| range.end - range.start);
        match read {
            Ok(parts) if parts.iter().map(|part| part.len() as u64).eq(asked) => return Ok(parts),
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::Missing { object: self.path.to_string() });
            }
            Ok(_) | Err(_) => {}
        }
        let unavailable =
            |error: &object_store::Error| crate::store::unavailable(&self.path, error);
        let length = self.store.head(&self.path).await.map_err(|error| unavailable(&error))?.size;
        if length != self.summary.bytes {
            return Err(self.corrupt(Damage {
                offset: length.min(self.summary.bytes),
                expected: format!("an object of {} bytes", self.summary.bytes),
                found: format!("{length} bytes"),
            }));
        }
        match read {
            Err(error) => Err(unavailable(&error)),
            Ok(_) => Err(Error::Unavailable(format!("{}: a read came back short", self.path))),
        }
    }

    pub(super) fn corrupt(&self, damage: Damage) -> Error {
        Error::Corrupt {
            object: self.path.to_string(),
            offset: damage.offset,
            expected: damage.expected,
            found: damage.found,
        }
    }
}

fn parse_block(locator: Locator, stored: &[u8]) -> Result<Block, Damage> {
    Block::parse(locator.open(stored)?, locator.offset)
}
