//! The engine's only use of what WAL records mean.

use bytes::Bytes;
use wal_format::{Lsn, PAGE_BYTES, Page, Target};

use crate::change::Value;

/// Applies WAL records to pages.
pub trait Redo: Send + Sync {
    /// Applies `record`, which ends at `end`, to the page of `target`, which is zeros where
    /// nothing was before. An error is a sentence.
    fn apply(
        &self,
        record: &Bytes,
        end: Lsn,
        target: Target,
        page: &mut Page,
    ) -> Result<(), String>;
}

/// Turns the page of `target` into what the version that was written at `lsn` makes of it. An error
/// is a sentence.
pub fn apply_version(
    redo: &dyn Redo,
    target: Target,
    lsn: Lsn,
    value: &Value,
    page: &mut Page,
) -> Result<(), String> {
    match value {
        Value::Image(bytes) => {
            let image = bytes.first_chunk::<PAGE_BYTES>().filter(|_| bytes.len() == PAGE_BYTES);
            let image = image.ok_or_else(|| format!("its image has {} bytes", bytes.len()))?;
            page.bytes_mut().copy_from_slice(image);
            Ok(())
        }
        Value::Record { will_init, bytes } => {
            if *will_init {
                page.zero();
            }
            redo.apply(bytes, lsn, target, page)
        }
    }
}
