//! Versions in memory, those of one key behind each other: whoever reads or writes a key's versions
//! finds them together, however many keys took turns.
//!
//! A key's rows stand in chunks, each of which says where the one before it is. A row is the distance
//! of its LSN from the layer's beginning, in 32 bits; the value's length times 4 and its kind, in 16;
//! and the value. A value that is long stands apart: its row has kind 3, and says which it is.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use wal_format::Lsn;

use crate::{
    change::{Value, ValueKind},
    spare::{SLAB_BYTES, Slab, Spare},
};

/// A longer value stands apart.
pub const ROW_VALUE_BYTES_MAX: usize = if cfg!(test) { 32 } else { 15 << 10 };
/// Rows of a chunk, where more than one fits: a key's first chunks are smaller. As much as is copied
/// for a read of a key, so not too much.
const CHUNK_BYTES_MAX: usize = if cfg!(test) { 64 } else { 2 << 10 };
/// How much larger than a key's last chunk its next one is.
const CHUNK_GROWTH: usize = 4;
/// What a chunk begins with: where the chunk before it is, and how many bytes its rows have.
const CHUNK_HEAD_BYTES: usize = 6;
/// What a row begins with.
const ROW_HEAD_BYTES: usize = 6;
/// Of the first slab; each is twice as large as the one before, up to those that serve again.
const FIRST_SLAB_BYTES: usize = if cfg!(test) { 128 } else { 4 << 10 };
/// Bits of a place that say where in its slab it is; the others are the slab's number.
const SLAB_BITS: u32 = 20;
/// No chunk.
const NONE: u32 = u32::MAX;
/// The kind of a row whose value stands apart, beside those of [`ValueKind`].
const APART: u16 = 3;
/// The row's value then: the kind, and which one it is.
const APART_BYTES: usize = 5;

const _: () = assert!(CHUNK_BYTES_MAX + CHUNK_HEAD_BYTES <= FIRST_SLAB_BYTES);
const _: () = assert!(ROW_VALUE_BYTES_MAX << 2 < u16::MAX as usize && SLAB_BYTES <= 1 << SLAB_BITS);

/// The rows of a layer's keys.
pub struct Rows {
    from: Lsn,
    spare: Arc<Spare>,
    slabs: Vec<Slab>,
    /// Of the last slab.
    free_from: usize,
    apart: Vec<Bytes>,
    bytes: usize,
}

/// Where a key's rows end.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    chunk: u32,
    /// Bytes of rows in the chunk, and bytes that are free.
    used: u16,
    free: u16,
    /// The newest row's.
    lsn: Lsn,
}

/// One version.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// Its LSN.
    pub lsn: Lsn,
    /// What its bytes are.
    pub kind: ValueKind,
    /// The value's bytes.
    pub bytes: &'r [u8],
}

/// Some rows of a key.
#[derive(Clone, Copy)]
pub struct Chunk {
    place: u32,
    used: u16,
}

impl Tail {
    /// No row yet.
    pub const EMPTY: Tail = Tail { chunk: NONE, used: 0, free: 0, lsn: Lsn(0) };

    /// The newest row's LSN; 0 where there is none.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The last chunk.
    pub fn chunk(&self) -> Option<Chunk> {
        (self.chunk != NONE).then_some(Chunk { place: self.chunk, used: self.used })
    }
}

impl Rows {
    /// No rows; all that come are above `from`, by less than 4 GiB.
    pub fn new(from: Lsn, spare: Arc<Spare>) -> Rows {
        Rows { from, spare, slabs: Vec::new(), free_from: 0, apart: Vec::new(), bytes: 0 }
    }

    /// Bytes of memory, as far as rows have come: what is behind them in the last slab was never
    /// written, or is what waited to serve again.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a key's next version, of at most [`ROW_VALUE_BYTES_MAX`]. Whether it begins a chunk behind one
    /// of full length.
    #[inline]
    pub fn push(&mut self, tail: &mut Tail, lsn: Lsn, (kind, value): (ValueKind, &[u8])) -> bool {
        debug_assert!(value.len() <= ROW_VALUE_BYTES_MAX && tail.lsn < lsn);
        self.push_row(tail, lsn, kind as u16, value)
    }

    /// Adds a key's next version, whose value is what [`Rows::keep_apart`] has taken.
    pub fn push_apart(
        &mut self,
        tail: &mut Tail,
        lsn: Lsn,
        (kind, apart): (ValueKind, u32),
    ) -> bool {
        let [a, b, c, d] = apart.to_le_bytes();
        self.push_row(tail, lsn, APART, &[kind as u8, a, b, c, d])
    }

    /// Takes a value that stands apart; its number.
    pub fn keep_apart(&mut self, value: Bytes) -> u32 {
        self.bytes += value.len() + size_of::<Bytes>();
        self.apart.push(value);
        self.apart.len() as u32 - 1
    }

    /// Takes the newest version back, which is there.
    pub fn take_back(&self, tail: &mut Tail) {
        let Some(chunk) = tail.chunk() else { return };
        let rows = decode(self.encoded(chunk), self.from);
        let newest = rows.last().map_or(0, |row| row.value.start - ROW_HEAD_BYTES);
        tail.free += tail.used - newest as u16;
        (tail.used, tail.lsn) = (newest as u16, self.from);
    }

    #[inline]
    fn push_row(&mut self, tail: &mut Tail, lsn: Lsn, kind: u16, value: &[u8]) -> bool {
        let row_bytes = ROW_HEAD_BYTES + value.len();
        let is_new = usize::from(tail.free) < row_bytes;
        let room_before = usize::from(tail.used) + usize::from(tail.free);
        if is_new {
            self.begin_chunk(tail, room_before, row_bytes);
        }
        let at = tail.chunk as usize + CHUNK_HEAD_BYTES + usize::from(tail.used);
        let slab = &mut self.slabs[at >> SLAB_BITS];
        let row = &mut slab[at & ((1 << SLAB_BITS) - 1)..][..row_bytes];
        let distance =
            u32::try_from(lsn.since(self.from)).expect("a layer is of less than 4 GiB of WAL");
        row[..4].copy_from_slice(&distance.to_le_bytes());
        row[4..6].copy_from_slice(&((value.len() as u16) << 2 | kind).to_le_bytes());
        row[ROW_HEAD_BYTES..].copy_from_slice(value);
        tail.lsn = lsn;
        tail.used += row_bytes as u16;
        tail.free -= row_bytes as u16;
        is_new && room_before >= CHUNK_BYTES_MAX
    }

    #[cold]
    fn begin_chunk(&mut self, tail: &mut Tail, room_before: usize, row_bytes: usize) {
        // Most keys have one version: its chunk is no larger.
        let room = row_bytes.max((CHUNK_GROWTH * room_before).min(CHUNK_BYTES_MAX));
        let bytes = CHUNK_HEAD_BYTES + room;
        let before = self.slabs.last().map_or(0, |slab| slab.len());
        let left = before - self.free_from;
        if left < bytes {
            let slab = (2 * before).clamp(FIRST_SLAB_BYTES, SLAB_BYTES);
            self.slabs.push(self.spare.slab(slab.max(bytes.next_power_of_two())));
            self.bytes += left;
            self.free_from = 0;
        }
        self.bytes += bytes;
        let slab = self.slabs.len() - 1;
        let head = &mut self.slabs[slab][self.free_from..][..CHUNK_HEAD_BYTES];
        head[..4].copy_from_slice(&tail.chunk.to_le_bytes());
        head[4..].copy_from_slice(&tail.used.to_le_bytes());
        let place = u32::try_from(slab << SLAB_BITS | self.free_from);
        tail.chunk = place.expect("a layer has less than 4 GiB of rows");
        (tail.used, tail.free) = (0, room as u16);
        self.free_from += bytes;
    }

    /// The chunk before this one, of the same key.
    pub fn before(&self, chunk: Chunk) -> Option<Chunk> {
        let head = self.at(chunk.place as usize, CHUNK_HEAD_BYTES);
        let place = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let used = u16::from_le_bytes([head[4], head[5]]);
        (place != NONE).then_some(Chunk { place, used })
    }

    /// A chunk's rows, by rising LSN.
    #[inline]
    pub fn rows(&self, chunk: Chunk) -> impl Iterator<Item = Row<'_>> {
        let encoded = self.encoded(chunk);
        decode(encoded, self.from).map(|Encoded { lsn, kind, value }| {
            let bytes = &encoded[value];
            let (kind, bytes) = match kind {
                APART => self
                    .apart(bytes)
                    .map_or((ValueKind::Image, bytes), |(kind, value)| (kind, &value[..])),
                _ => (value_kind(kind), bytes),
            };
            Row { lsn, kind, bytes }
        })
    }

    /// The value that a row of it says.
    fn apart(&self, row: &[u8]) -> Option<(ValueKind, &Bytes)> {
        let [kind, number @ ..] = *row.first_chunk::<APART_BYTES>()?;
        let value = self.apart.get(u32::from_le_bytes(number) as usize)?;
        Some((value_kind(u16::from(kind)), value))
    }

    /// The LSN of a chunk's first row.
    pub fn first_lsn(&self, chunk: Chunk) -> Lsn {
        decode(self.encoded(chunk), self.from).next().map_or(self.from, |row| row.lsn)
    }

    /// The first byte of a chunk: who needs some chunks reads it of each first, so that the processor waits
    /// for the memory of all of them at once.
    pub fn touch(&self, chunk: Chunk) -> u8 {
        self.at(chunk.place as usize, 1)[0]
    }

    /// The first byte that is free in a chain's last chunk, as [`Rows::touch`]; of a full one none.
    #[inline]
    pub fn touch_end(&self, tail: Tail) -> u8 {
        let end = tail.chunk as usize + CHUNK_HEAD_BYTES + usize::from(tail.used);
        let place = if usize::from(tail.free) > ROW_HEAD_BYTES { end } else { 0 };
        let slab = self.slabs.get(place >> SLAB_BITS);
        slab.and_then(|slab| slab.get(place & ((1 << SLAB_BITS) - 1))).copied().unwrap_or(0)
    }

    fn encoded(&self, chunk: Chunk) -> &[u8] {
        self.at(chunk.place as usize + CHUNK_HEAD_BYTES, usize::from(chunk.used))
    }

    fn at(&self, place: usize, bytes: usize) -> &[u8] {
        &self.slabs[place >> SLAB_BITS][place & ((1 << SLAB_BITS) - 1)..][..bytes]
    }

    /// The versions from a chunk back that are at most at `at`, from the newest back.
    pub fn versions(&self, from: Option<Chunk>, at: Lsn) -> impl Iterator<Item = (Lsn, Value)> {
        let mut next = from;
        // One chunk's.
        let (mut copied, mut rows) = (Bytes::new(), Vec::new());
        std::iter::from_fn(move || {
            while rows.is_empty() {
                let chunk = next?;
                next = self.before(chunk);
                if self.first_lsn(chunk) <= at {
                    copied = Bytes::copy_from_slice(self.encoded(chunk));
                    rows.extend(decode(&copied, self.from).take_while(|row| row.lsn <= at));
                }
            }
            let row = rows.pop()?;
            let value = match row.kind {
                APART => {
                    let (kind, value) = self.apart(&copied[row.value])?;
                    Value::new(kind, value.clone())
                }
                kind => Value::new(value_kind(kind), copied.slice(row.value)),
            };
            Some((row.lsn, value))
        })
    }
}

/// A row as it stands in its chunk.
struct Encoded {
    lsn: Lsn,
    kind: u16,
    /// Where the value is in the chunk.
    value: Range<usize>,
}

/// The rows of a chunk; their LSNs count from `from`.
#[inline]
fn decode(encoded: &[u8], from: Lsn) -> impl Iterator<Item = Encoded> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let [a, b, c, d, head @ ..] = *encoded.get(at..)?.first_chunk::<ROW_HEAD_BYTES>()?;
        let (lsn, head) =
            (from + u64::from(u32::from_le_bytes([a, b, c, d])), u16::from_le_bytes(head));
        let value = at + ROW_HEAD_BYTES..at + ROW_HEAD_BYTES + usize::from(head >> 2);
        at = value.end;
        Some(Encoded { lsn, kind: head & 3, value })
    })
}

#[inline]
fn value_kind(number: u16) -> ValueKind {
    ValueKind::from_number(u32::from(number)).unwrap_or(ValueKind::Image)
}
