//! What one WAL record does to a timeline's keys.

use std::ops::Range;

use bytes::Bytes;
use wal_format::Lsn;

use crate::key::Key;

/// One version of a key, at the LSN of its record's end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// The whole value.
    Image(Bytes),
    /// A WAL record that makes the value from the one before, only for pages and SLRU pages.
    Record {
        /// Redo does not need the value before: the record initialises the page.
        will_init: bool,
        /// The record, as `wal_format::RawRecord` has it. A page that a record carries as an image
        /// is better kept as [`Value::Image`]: the record is stored once for each of its keys.
        bytes: Bytes,
    },
}

impl Value {
    /// Whether nothing older is needed to know the value.
    pub fn is_complete(&self) -> bool {
        match self {
            Value::Image(_) => true,
            Value::Record { will_init, .. } => *will_init,
        }
    }

    /// The image's or the record's bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Value::Image(bytes) | Value::Record { bytes, .. } => bytes,
        }
    }
}

/// One WAL record's whole effect, visible at once at `end`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// The record's start.
    pub start: Lsn,
    /// The record's end, MAXALIGNed; the version that its values get. Above every earlier one.
    pub end: Lsn,
    /// Ranges that are emptied first: at `end` and later nothing older than `end` is seen in them.
    /// Truncations, drops, and the gap before a page that extends its fork by more than one.
    pub clears: Vec<Range<Key>>,
    /// What is written then, also inside of `clears`; each key at most once.
    pub puts: Vec<(Key, Value)>,
    /// For a transaction's commit: its time, in microseconds since 2000.
    pub finished: Option<i64>,
}
