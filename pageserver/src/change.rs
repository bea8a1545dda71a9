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
    /// What is written then, also inside of `clears`; of several values of a key the last counts.
    pub puts: Vec<(Key, Value)>,
    /// For a transaction's commit: its time, in microseconds since 2000.
    pub finished: Option<i64>,
}

/// What some records in a row do: one [`Change`] behind the other, in memory that serves again.
#[derive(Debug, Default)]
pub struct Changes {
    pub(crate) records: Vec<ChangedBy>,
    /// Of all records, in their order.
    pub(crate) clears: Vec<Range<Key>>,
    /// Likewise.
    pub(crate) puts: Vec<(Key, Value)>,
    /// Of their values.
    pub(crate) bytes: usize,
}

/// One of the records, and where its clears and puts end.
#[derive(Debug)]
pub(crate) struct ChangedBy {
    pub start: Lsn,
    pub end: Lsn,
    pub finished: Option<i64>,
    pub clears: usize,
    pub puts: usize,
}

impl Changes {
    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes a value of a key; of the record that is closed next, as all that follows.
    pub fn put(&mut self, key: Key, value: Value) {
        self.bytes += value.bytes().len();
        self.puts.push((key, value));
    }

    /// Bytes of all values, also of those that were taken back.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties a range. A change clears first and puts then: what the record put there before is
    /// taken back.
    pub fn clear(&mut self, range: Range<Key>) {
        let puts = self.puts.split_off(self.first_put());
        self.puts.extend(puts.into_iter().filter(|(key, _)| !range.contains(key)));
        self.clears.push(range);
    }

    /// What the record has put so far.
    pub fn own_puts(&self) -> &[(Key, Value)] {
        &self.puts[self.first_put()..]
    }

    /// Closes a record; `finished` as in [`Change`].
    pub fn close(&mut self, start: Lsn, end: Lsn, finished: Option<i64>) {
        let (clears, puts) = (self.clears.len(), self.puts.len());
        self.records.push(ChangedBy { start, end, finished, clears, puts });
    }

    fn first_put(&self) -> usize {
        self.records.last().map_or(0, |record| record.puts)
    }
}

impl From<Change> for Changes {
    fn from(change: Change) -> Changes {
        let Change { start, end, clears, puts, finished } = change;
        let bytes = puts.iter().map(|(_, value)| value.bytes().len()).sum();
        let mut changes = Changes { records: Vec::with_capacity(1), clears, puts, bytes };
        changes.close(start, end, finished);
        changes
    }
}
