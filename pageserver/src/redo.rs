//! The engine's only use of what WAL records mean.

use wal_format::{Lsn, Target};

/// Applies WAL records to pages.
pub trait Redo: Send + Sync {
    /// Applies `record`, which ends at `end`, to `page`, the 8,192 bytes of `target`; zeros where
    /// nothing was before. An error is a sentence.
    fn apply(&self, record: &[u8], end: Lsn, target: Target, page: &mut [u8])
    -> Result<(), String>;

    /// Sets the data checksum of a relation's page, as Postgres would before writing it out
    /// (`PageSetChecksumInplace`). `page` is never all zeros.
    fn set_checksum(&self, block: u32, page: &mut [u8]);
}
