//! Layers: what happened to a range of keys in a range of LSNs. One is open, in memory; a few are
//! frozen and on their way to the object store; the rest are immutable objects there.

pub mod block;
pub mod cursor;
mod difference;
pub mod filter;
pub mod format;
pub mod history;
pub mod memory;
pub mod name;
mod past;
pub mod reader;
mod varint;
pub mod writer;

use std::ops::Range;

use wal_format::Lsn;

use crate::key::Key;

/// A range of keys that one record emptied: at `lsn` and later nothing older is seen in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clear {
    /// The keys.
    pub range: Range<Key>,
    /// The record's end.
    pub lsn: Lsn,
}

impl Clear {
    /// Whether any key of `range` is emptied.
    pub fn overlaps(&self, range: &Range<Key>) -> bool {
        self.range.start < range.end && range.start < self.range.end
    }
}

/// The newest LSN, not above `at`, at which `key` was emptied by one of `clears`.
pub fn cleared_at<'a>(
    clears: impl IntoIterator<Item = &'a Clear>,
    key: Key,
    at: Lsn,
) -> Option<Lsn> {
    clears
        .into_iter()
        .filter(|clear| clear.lsn <= at && clear.range.contains(&key))
        .map(|clear| clear.lsn)
        .max()
}

#[cfg(test)]
mod tests;
