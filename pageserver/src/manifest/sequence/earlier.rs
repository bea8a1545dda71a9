//! What earlier writers of a sequence have left: their last manifests, and the changes that were
//! part of those. Once a later writer has written a whole manifest, nobody reads them.
//!
//! Takeovers stay: each keeps the number taken that the writer before would write next, if it
//! slept and lives. No other number is missed. Who would create it knows the one before as the
//! newest, and either has written that one, and then this one too; or has written nothing yet, and
//! lists the folder after its first manifest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use super::{READS_AT_ONCE, decode_head, numbers, path, read};
use crate::{error::Error, store::unavailable};

/// How far it is gone.
pub(super) struct Earlier {
    /// Below this number only takeovers are left.
    collected_below: AtomicU64,
    is_under_way: AtomicBool,
}

impl Default for Earlier {
    fn default() -> Earlier {
        Earlier::from(1)
    }
}

impl From<u64> for Earlier {
    fn from(collected_below: u64) -> Earlier {
        Earlier {
            collected_below: AtomicU64::new(collected_below),
            is_under_way: AtomicBool::new(false),
        }
    }
}

impl Earlier {
    pub fn collected_below(&self) -> u64 {
        self.collected_below.load(Ordering::Relaxed)
    }

    /// Removes it, where that was not done yet. What fails is tried again after the next manifest.
    pub async fn remove(&self, store: &dyn ObjectStore, folder: &Path, takeover: u64) {
        let from = self.collected_below();
        if from >= takeover || self.is_under_way.swap(true, Ordering::Acquire) {
            return;
        }
        match remove_between(store, folder, from, takeover).await {
            Ok(()) => self.collected_below.store(takeover, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%folder, %error, "old manifests could not be removed");
            }
        }
        self.is_under_way.store(false, Ordering::Release);
    }
}

async fn remove_between(
    store: &dyn ObjectStore,
    folder: &Path,
    from: u64,
    takeover: u64,
) -> Result<(), Error> {
    let mut there = numbers(store, folder).await?;
    there.retain(|number| (from..takeover).contains(number));
    let looked = stream::iter(there).map(async |number| {
        let path = path(folder, number);
        // One that is damaged may be a takeover.
        let is_takeover =
            |object: Bytes| decode_head(&object, &path).map_or(true, |head| head.takeover);
        let is_kept = read(store, &path).await?.is_none_or(is_takeover);
        Ok::<_, Error>((path, is_kept))
    });
    let mut looked = std::pin::pin!(looked.buffered(READS_AT_ONCE));
    while let Some((path, is_kept)) = looked.try_next().await? {
        if is_kept {
            continue;
        }
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(unavailable(&path, &error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
