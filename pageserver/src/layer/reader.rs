//! Reads a layer object by parts: index and clears once, blocks as they are needed.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use wal_format::Lsn;

use super::{
    Clear,
    format::{Block, Damage, FOOTER_BYTES, Footer, IndexRow, Locator, decode_clears, decode_index},
    history::History,
    name::LayerSummary,
};
use crate::{
    cache::{Cache, CacheKey},
    error::Error,
    key::Key,
};

/// Blocks that are read from the object store at once: 2 MiB before compression.
pub const READ_BLOCKS_MAX: usize = 64;

/// What is cached of layers.
#[derive(Clone)]
pub enum Cached {
    /// Index and clears.
    Contents(Arc<Contents>),
    /// A block.
    Block(Block),
}

/// A layer's table of contents.
pub struct Contents {
    footer: Footer,
    index: Vec<IndexRow>,
    clears: Vec<Clear>,
}

impl Contents {
    /// The clears that touch a range of keys.
    pub fn clears_in(&self, range: &Range<Key>) -> impl Iterator<Item = &Clear> {
        self.clears.iter().filter(move |clear| clear.overlaps(range))
    }

    /// The blocks that may hold versions of a range of keys.
    pub fn blocks_in(&self, range: &Range<Key>) -> Range<usize> {
        let start = self.index.partition_point(|row| row.last < range.start);
        let end = self.index.partition_point(|row| row.first < range.end);
        start..end.max(start)
    }

    /// What the index says of a block.
    pub fn block(&self, number: usize) -> &IndexRow {
        &self.index[number]
    }

    fn bytes(&self) -> u64 {
        (self.index.len() * size_of::<IndexRow>() + self.clears.len() * size_of::<Clear>()) as u64
    }
}

/// A layer in the object store.
pub struct Layer {
    summary: LayerSummary,
    path: Path,
    number: u64,
    store: Arc<dyn ObjectStore>,
    cache: Arc<Cache<Cached>>,
}

impl Layer {
    /// The layer that a manifest names; nothing is read yet.
    pub fn new(
        summary: LayerSummary,
        path: Path,
        store: Arc<dyn ObjectStore>,
        cache: Arc<Cache<Cached>>,
    ) -> Layer {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Layer { summary, path, number, store, cache }
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

    /// Whether the layer can say anything of a range of keys.
    pub fn may_hold(&self, range: &Range<Key>) -> bool {
        self.summary.first_key < range.end && range.start <= self.summary.last_key
    }

    /// The table of contents: one read, then cached.
    pub async fn contents(&self) -> Result<Arc<Contents>, Error> {
        let at = self.summary.clears_at;
        let key = CacheKey { layer: self.number, offset: at };
        if let Some(Cached::Contents(contents)) = self.cache.get(key) {
            return Ok(contents);
        }
        let tail = self.read(at..self.summary.bytes).await?;
        let contents = self.parse_tail(&tail).map_err(|damage| self.corrupt(damage))?;
        let contents = Arc::new(contents);
        self.cache.insert(key, Cached::Contents(contents.clone()), contents.bytes());
        Ok(contents)
    }

    /// The record ends and commit times; not cached.
    pub async fn history(&self) -> Result<History, Error> {
        let locator = self.contents().await?.footer.history;
        let stored = self.read(locator.offset..locator.end()).await?;
        let raw = locator.open(&stored).map_err(|damage| self.corrupt(damage))?;
        History::decode(&raw).ok_or_else(|| {
            self.corrupt(Damage {
                offset: locator.offset,
                expected: "record ends and commit times".to_owned(),
                found: format!("{} other bytes", raw.len()),
            })
        })
    }

    /// Blocks by their numbers in the index, which rise: from the cache, and in one request those
    /// that are not there.
    pub async fn blocks(
        &self,
        contents: &Contents,
        numbers: &[usize],
    ) -> Result<Vec<Block>, Error> {
        let key = |locator: Locator| CacheKey { layer: self.number, offset: locator.offset };
        let mut blocks = Vec::with_capacity(numbers.len());
        let mut missing = Vec::new();
        for number in numbers {
            let locator = contents.block(*number).locator;
            match self.cache.get(key(locator)) {
                Some(Cached::Block(block)) => blocks.push(Some(block)),
                _ => {
                    missing.push((blocks.len(), locator));
                    blocks.push(None);
                }
            }
        }
        if !missing.is_empty() {
            let ranges: Vec<_> =
                missing.iter().map(|(_, locator)| locator.offset..locator.end()).collect();
            let stored = self.read_ranges(&ranges).await?;
            for ((position, locator), stored) in missing.into_iter().zip(stored) {
                let block = locator
                    .open(&stored)
                    .and_then(|raw| Block::parse(raw, locator.offset))
                    .map_err(|damage| self.corrupt(damage))?;
                let bytes = block.bytes() as u64;
                self.cache.insert(key(locator), Cached::Block(block.clone()), bytes);
                blocks[position] = Some(block);
            }
        }
        Ok(blocks.into_iter().flatten().collect())
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
        let index = decode_index(&part(footer.index)?, index_at, footer.history.offset)?;
        Ok(Contents { footer, index, clears })
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

    fn corrupt(&self, damage: Damage) -> Error {
        Error::Corrupt {
            object: self.path.to_string(),
            offset: damage.offset,
            expected: damage.expected,
            found: damage.found,
        }
    }
}
