//! Parts of layers near at hand: decompressed in memory, and as they are stored on a local disk.
//! Bounded by bytes, shared by all timelines: the children of a template share its blocks.
//!
//! What is cached is immutable and can always be read again: a miss costs time, nothing else. Who
//! asks for a part that somebody is reading already waits for that read.

mod disk;
mod under_way;

use std::{hash::Hash, sync::Arc};

use foyer::{CacheBuilder, S3FifoConfig};
use object_store::path::Path;
use twox_hash::XxHash3_128;

pub use self::disk::{DISK_BYTES_MIN, Disk, DiskStatus};
use self::under_way::UnderWay;
use crate::{error::Error, layer::reader::Cached, metrics::METRICS};

/// Parts of memory that are locked apart from each other, so that readers seldom meet.
const SHARDS: usize = 16;
/// What an entry costs beside its value: key, hash, its places in a table and in a queue.
const ENTRY_OVERHEAD_BYTES: usize = 192;

/// A layer, the same in every process: its object's path, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LayerIdentity(u128);

impl LayerIdentity {
    /// The identity of the layer in this object.
    pub fn of(path: &Path) -> LayerIdentity {
        LayerIdentity(XxHash3_128::oneshot(path.as_ref().as_bytes()))
    }
}

/// A part of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CacheKey {
    /// The layer.
    pub layer: LayerIdentity,
    /// Where the part begins.
    pub offset: u64,
}

/// A value and its bytes.
struct Weighed {
    value: Cached,
    bytes: usize,
}

/// How full the cache is, and how its disk does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheStatus {
    /// Bytes of memory that are used.
    pub memory_bytes: u64,
    /// Bytes of memory that may be.
    pub memory_bytes_max: u64,
    /// The part on disk; `None` where there is none by choice.
    pub disk: Option<DiskStatus>,
}

/// What was read of layers.
pub struct Cache {
    memory: foyer::Cache<CacheKey, Weighed>,
    disk: Option<Disk>,
    under_way: UnderWay,
}

impl Cache {
    /// A cache of at most so many bytes of memory and, where there is one, a disk.
    pub fn new(memory_bytes_max: u64, disk: Option<Disk>) -> Cache {
        let bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        // What is larger than a shard would drive everything else out of it.
        let value_bytes_max = bytes_max / SHARDS / 2;
        let memory = CacheBuilder::new(bytes_max)
            .with_name("blocks")
            .with_shards(SHARDS)
            .with_eviction_config(S3FifoConfig::default())
            .with_weighter(|_: &CacheKey, weighed: &Weighed| weighed.bytes + ENTRY_OVERHEAD_BYTES)
            .with_filter(move |_: &CacheKey, weighed: &Weighed| weighed.bytes <= value_bytes_max)
            .build();
        Cache { memory, disk, under_way: UnderWay::default() }
    }

    /// What is in memory under this key.
    pub fn get(&self, key: CacheKey) -> Option<Cached> {
        self.memory.get(&key).map(|entry| entry.value().value.clone())
    }

    /// The most bytes of memory.
    pub fn bytes_max(&self) -> u64 {
        self.memory.capacity() as u64
    }

    /// The part on disk.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The values of these keys, from memory where they are there. For the others that nobody reads
    /// already, `read` is called with their positions, and what it reads is kept, with its bytes.
    /// It goes on to its end also where the caller does not.
    pub async fn get_or_read<R>(
        self: &Arc<Cache>,
        keys: &[CacheKey],
        read: impl FnOnce(Vec<usize>) -> R,
    ) -> Result<Vec<Cached>, Error>
    where
        R: Future<Output = Result<Vec<(Cached, usize)>, Error>> + Send + 'static,
    {
        let mut values: Vec<Option<Cached>> = keys.iter().map(|key| self.get(*key)).collect();
        METRICS.parts_from_memory.inc_by(values.iter().flatten().count() as u64);
        if values.iter().any(Option::is_none) {
            let missing = (0..keys.len()).filter(|at| values[*at].is_none()).collect();
            for (at, value) in self.read_missing(keys, missing, read).await? {
                values[at] = Some(value);
            }
        }
        Ok(values.into_iter().flatten().collect())
    }

    /// Waits until what is on its way to the disk is there.
    pub async fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }

    /// How full it is.
    pub fn status(&self) -> CacheStatus {
        CacheStatus {
            memory_bytes: self.memory.usage() as u64,
            memory_bytes_max: self.bytes_max(),
            disk: self.disk.as_ref().map(Disk::status),
        }
    }

    fn insert(&self, key: CacheKey, value: Cached, bytes: usize) {
        self.memory.insert(key, Weighed { value, bytes });
    }
}

#[cfg(test)]
mod tests;
