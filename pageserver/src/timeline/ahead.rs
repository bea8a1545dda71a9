//! Reads of what will be wanted soon, bounded over all timelines: where many are under way already,
//! none is added. They only warm the cache; whoever needs the blocks reads them as ever, and waits
//! for a read that is under way instead of making a second one.

use std::{ops::Range, sync::Arc};

use futures::poll;
use tokio::sync::OwnedSemaphorePermit;
use wal_format::{Lsn, RelationFork};

use super::Timeline;
use crate::{
    key::Key,
    layer::reader::{Layer, READ_BLOCKS_MAX},
};

/// Reads ahead of all timelines that are under way at once.
pub const READS_AHEAD_MAX: usize = 8;
/// A cache of fewer bytes would lose what is read ahead before it is wanted.
const CACHE_BYTES_MIN: u64 = 64 << 20;
/// Older layers that are read while a newer one is: where chains are short none of them is needed.
const LAYERS_AHEAD_MAX: usize = 3;

impl Timeline {
    /// Reads what pages of a fork are made from, if it is not in memory; tells `found` whether
    /// anything had to be read.
    pub(crate) fn read_ahead(
        self: &Arc<Timeline>,
        fork: RelationFork,
        blocks: Range<u32>,
        at: Lsn,
        found: impl FnOnce(bool) + Send + 'static,
    ) {
        let Some(permit) = self.ahead_permit() else { return };
        let timeline = self.clone();
        let keys: Vec<Key> = blocks.map(|block| Key::page(fork.block(block))).collect();
        tokio::spawn(async move {
            let mut reading = std::pin::pin!(timeline.collect(&keys, at));
            let has_to_wait = poll!(reading.as_mut()).is_pending();
            if has_to_wait {
                // Whoever wants these pages will be told what is wrong with them.
                let _ = reading.await;
            }
            found(has_to_wait);
            drop(permit);
        });
    }

    /// Reads from the newest of these layers, which are by rising LSN, what they have of the keys,
    /// which are sorted.
    pub(super) fn read_layers_ahead(&self, layers: &[Arc<Layer>], keys: &[Key], at: Lsn) {
        let ([first, ..], [.., last]) = (keys, keys) else { return };
        let hull = *first..last.next();
        let wanted = layers
            .iter()
            .rev()
            .filter(|layer| layer.holds_versions_at(at) && layer.may_hold(&hull))
            .take(LAYERS_AHEAD_MAX);
        let keys: Arc<[Key]> = keys.into();
        for layer in wanted {
            let Some(permit) = self.ahead_permit() else { return };
            let (layer, keys) = (layer.clone(), keys.clone());
            tokio::spawn(async move {
                warm(&layer, &keys, at).await;
                drop(permit);
            });
        }
    }

    /// Leave for one read ahead; none where too many are under way, or what it brings would not
    /// stay.
    fn ahead_permit(&self) -> Option<OwnedSemaphorePermit> {
        if self.engine.cache.bytes_max() < CACHE_BYTES_MIN {
            return None;
        }
        self.engine.reads_ahead.clone().try_acquire_owned().ok()
    }
}

/// Reads the last block of each key.
async fn warm(layer: &Layer, keys: &[Key], at: Lsn) {
    // Whoever reads the layer in earnest will be told what is wrong with it.
    let Ok(contents) = layer.contents().await else { return };
    let mut numbers: Vec<usize> =
        keys.iter().rev().filter_map(|key| contents.last_block_of(*key, at)).collect();
    numbers.dedup();
    numbers.truncate(READ_BLOCKS_MAX);
    numbers.reverse();
    let _ = layer.blocks(&contents, &numbers).await;
}
