//! The engine's only use of what WAL records mean.

use bytes::Bytes;
use wal_format::{Lsn, Page, Target};

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
