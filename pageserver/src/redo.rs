//! The engine's only use of what WAL records mean.

use wal_format::{Lsn, PAGE_BYTES, Page, Target};

use crate::change::ValueKind;

/// Applies WAL records to pages.
pub trait Redo: Send + Sync {
    /// Applies `record`, which ends at `end`, to the page of `target`, which is zeros where
    /// nothing was before. An error is a sentence.
    fn apply(&self, record: &[u8], end: Lsn, target: Target, page: &mut Page)
    -> Result<(), String>;
}

/// Turns the page of `target` into what the version that was written at `lsn` makes of it. An error
/// is a sentence.
pub fn apply_version(
    redo: &dyn Redo,
    target: Target,
    lsn: Lsn,
    (kind, bytes): (ValueKind, &[u8]),
    page: &mut Page,
) -> Result<(), String> {
    match kind {
        ValueKind::Image => {
            let image = bytes.first_chunk::<PAGE_BYTES>().filter(|_| bytes.len() == PAGE_BYTES);
            let image = image.ok_or_else(|| format!("its image has {} bytes", bytes.len()))?;
            page.bytes_mut().copy_from_slice(image);
            Ok(())
        }
        ValueKind::Record => redo.apply(bytes, lsn, target, page),
        ValueKind::InitRecord => {
            page.zero();
            redo.apply(bytes, lsn, target, page)
        }
    }
}
