//! What one WAL record does to a timeline's keys.

use std::ops::Range;

use bytes::Bytes;
use wal_format::{KeptRecord, Lsn};

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
        /// The record, as `wal_format::KeptRecord` has it for this key. A page that a record carries as an
        /// image is better kept as [`Value::Image`]: the record is stored once for each of its keys.
        bytes: Bytes,
    },
}

impl Value {
    /// A value of this kind.
    pub fn new(kind: ValueKind, bytes: Bytes) -> Value {
        match kind {
            ValueKind::Image => Value::Image(bytes),
            ValueKind::Record => Value::Record { will_init: false, bytes },
            ValueKind::InitRecord => Value::Record { will_init: true, bytes },
        }
    }

    /// What its bytes are.
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Image(_) => ValueKind::Image,
            Value::Record { will_init, .. } => ValueKind::record(*will_init),
        }
    }

    /// The kind and the bytes.
    pub fn as_parts(&self) -> (ValueKind, &[u8]) {
        (self.kind(), self.bytes())
    }

    /// Whether nothing older is needed to know the value.
    pub fn is_complete(&self) -> bool {
        self.kind().is_complete()
    }

    /// The image's or the record's bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Value::Image(bytes) | Value::Record { bytes, .. } => bytes,
        }
    }
}

/// What the bytes of a [`Value`] are. The numbers are those of a stored row's flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ValueKind {
    /// [`Value::Image`].
    Image = 0,
    /// [`Value::Record`] that needs the value before.
    Record = 1,
    /// [`Value::Record`] that does not.
    InitRecord = 2,
}

impl ValueKind {
    /// The kind of this number, where there is one.
    pub fn from_number(number: u32) -> Option<ValueKind> {
        match number {
            0 => Some(ValueKind::Image),
            1 => Some(ValueKind::Record),
            2 => Some(ValueKind::InitRecord),
            _ => None,
        }
    }

    /// A record's.
    pub fn record(will_init: bool) -> ValueKind {
        if will_init { ValueKind::InitRecord } else { ValueKind::Record }
    }

    /// As [`Value::is_complete`].
    pub fn is_complete(self) -> bool {
        self != ValueKind::Record
    }

    /// How many records a page is made from after a version of this kind, where it was so many
    /// before.
    pub fn records_since_image(self, before: usize) -> usize {
        match self {
            ValueKind::Image => 0,
            ValueKind::InitRecord => 1,
            ValueKind::Record => before + 1,
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
///
/// The bytes of all their records are behind each other too: a put says where its own are.
#[derive(Debug, Default)]
pub struct Changes {
    pub(crate) records: Vec<ChangedBy>,
    /// Of all records, in their order.
    pub(crate) clears: Vec<Range<Key>>,
    /// Likewise.
    pub(crate) puts: Vec<(Key, Put)>,
    /// The records' bytes, as far as puts need them.
    pub(crate) bytes: Vec<u8>,
    /// The whole values, also those that were taken back.
    pub(crate) images: Vec<Bytes>,
    image_bytes: usize,
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

/// A value that a record writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Put {
    /// The image of this number.
    Image(u32),
    /// What stands at this place.
    Placed { kind: ValueKind, place: Place },
}

/// Where the bytes of a record, or of a small value, are among those of [`Changes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub at: u32,
    pub bytes: u32,
}

impl Changes {
    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes a value of a key; of the record that is closed next, as all that follows.
    pub fn put(&mut self, key: Key, value: Value) {
        match value {
            Value::Image(bytes) => self.put_image(key, bytes),
            Value::Record { will_init, bytes } => {
                let place = self.keep(&bytes);
                self.put_record(key, will_init, place);
            }
        }
    }

    /// Writes a whole value.
    pub(crate) fn put_image(&mut self, key: Key, bytes: Bytes) {
        self.image_bytes += bytes.len();
        self.puts.push((key, Put::Image(self.images.len() as u32)));
        self.images.push(bytes);
    }

    /// Writes a whole value of a few bytes.
    pub(crate) fn put_small(&mut self, key: Key, bytes: &[u8]) {
        let place = self.keep(bytes);
        self.puts.push((key, Put::Placed { kind: ValueKind::Image, place }));
    }

    /// Writes a record that was kept.
    #[inline]
    pub(crate) fn put_record(&mut self, key: Key, will_init: bool, place: Place) {
        self.puts.push((key, Put::Placed { kind: ValueKind::record(will_init), place }));
    }

    /// Copies what is kept of a record, once for all keys that it is written to so.
    #[inline]
    pub(crate) fn keep_record(&mut self, record: &KeptRecord<'_>) -> Place {
        let Place { at, bytes } = self.keep(&record.head);
        let [before, behind] = record.parts.map(|part| self.keep(part).bytes);
        Place { at, bytes: bytes + before + behind }
    }

    /// Copies some bytes behind those that are there.
    #[inline]
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Place {
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Place { at, bytes: bytes.len() as u32 }
    }

    /// Bytes of all values, also of those that were taken back.
    pub fn bytes(&self) -> usize {
        self.image_bytes + self.bytes.len()
    }

    /// Empties a range. A change clears first and puts then: what the record put there before is
    /// taken back.
    pub fn clear(&mut self, range: Range<Key>) {
        let puts = self.puts.split_off(self.first_put());
        self.puts.extend(puts.into_iter().filter(|(key, _)| !range.contains(key)));
        self.clears.push(range);
    }

    /// Closes a record; `finished` as in [`Change`].
    pub fn close(&mut self, start: Lsn, end: Lsn, finished: Option<i64>) {
        let (clears, puts) = (self.clears.len(), self.puts.len());
        self.records.push(ChangedBy { start, end, finished, clears, puts });
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.records.clear();
        self.clears.clear();
        self.puts.clear();
        self.bytes.clear();
        // A large record came by: of many timelines, each would keep its room.
        self.bytes.shrink_to(BYTES_CAPACITY_KEPT);
        self.images.clear();
        self.image_bytes = 0;
    }

    fn first_put(&self) -> usize {
        self.records.last().map_or(0, |record| record.puts)
    }
}

/// What is kept allocated for the records that come next.
const BYTES_CAPACITY_KEPT: usize = 128 << 10;

impl From<Change> for Changes {
    fn from(change: Change) -> Changes {
        let mut changes = Changes { clears: change.clears, ..Changes::default() };
        for (key, value) in change.puts {
            changes.put(key, value);
        }
        changes.close(change.start, change.end, change.finished);
        changes
    }
}
