//! A block: versions of keys, in their order. `docs/formats/layer.md` is its specification.
//!
//! What neighbouring keys share, all but the block number, stands once for a run of rows, and a row
//! says how far it is from the one before: ingest of small records would else write more of keys and
//! LSNs than of records. A record like the one before stands as what differs. Who reads a block has its
//! rows and values decoded once.

use std::ops::Range;

use bytes::Bytes;
use wal_format::Lsn;

use super::{
    difference::{Differences, take_difference},
    format::{Compression, Damage, IndexRow, Locator, PART_BYTES_MAX, seal, u32_at},
    varint::{Varints, put_varint, take_varint, unzigzag, zigzag},
};
use crate::{
    change::{Value, ValueKind},
    key::{KEY_BYTES, Key},
};

/// Bytes of the numbers of rows and runs, and of the bytes of all rows.
const HEAD_BYTES: usize = 12;
/// Bytes of a key that are equal in a run: all but the last four, the key's number.
const PREFIX_BYTES: usize = KEY_BYTES - 4;
/// Bytes of a run: what its keys begin with, and the number of its first row.
const RUN_BYTES: usize = PREFIX_BYTES + 4;
/// The fewest bytes of a row: three varints.
const ROW_BYTES_MIN: usize = 3;
/// Bits of the value's kind, below its length.
const KIND_BITS: u32 = 2;
/// So many blocks after one that LZ4 makes hardly shorter are stored as they are: neighbours are alike.
const PLAIN_BLOCKS: u32 = 7;
/// The kind of a row whose value is a [`ValueKind::Record`] that stands as the difference from the value
/// before, beside those of [`ValueKind`].
const DIFFERENCE: u64 = 3;

const _: () = assert!(HEAD_BYTES == 12 && RUN_BYTES == 18);

/// A block while it is built.
pub struct BlockBuilder {
    /// Room for the numbers, then the values; in the end the runs and the rows come behind.
    raw: Vec<u8>,
    runs: Vec<u8>,
    rows: Vec<u8>,
    row_count: u32,
    compression: Compression,
    /// How many of the next blocks are not compressed.
    plain_blocks: u32,
    first: Option<(Key, Lsn)>,
    last_key: Key,
    last_lsn: Lsn,
    differences: Box<Differences>,
    /// Bytes of all values, as they were added.
    value_bytes: usize,
    /// How far the number of a key that was begun is from that of the row before, of the same run.
    step: u32,
}

impl BlockBuilder {
    /// An empty block, to be compressed so.
    pub fn new(compression: Compression) -> BlockBuilder {
        BlockBuilder {
            raw: vec![0; HEAD_BYTES],
            runs: Vec::new(),
            rows: Vec::new(),
            row_count: 0,
            compression,
            plain_blocks: 0,
            first: None,
            last_key: Key::MIN,
            last_lsn: Lsn(0),
            differences: Box::new(Differences::new()),
            value_bytes: 0,
            step: 0,
        }
    }

    /// Adds the next version of the key that was begun, by rising LSN.
    #[inline]
    pub fn add_next(&mut self, lsn: Lsn, (kind, bytes): (ValueKind, &[u8])) {
        let step = u64::from(std::mem::take(&mut self.step));
        let distance = zigzag(lsn.0.wrapping_sub(self.last_lsn.0) as i64);
        let length_and_kind = self.add_value(kind, bytes);
        let row = [step, distance, length_and_kind];
        if row.iter().all(|number| *number < 1 << 28) {
            let mut together = Varints::default();
            row.iter().for_each(|number| together.put_small(*number as u32));
            together.append_to(&mut self.rows);
        } else {
            row.iter().for_each(|number| put_varint(&mut self.rows, *number));
        }
        self.row_count += 1;
        self.last_lsn = lsn;
    }

    /// The length of what stands for the value, and its kind.
    #[inline]
    fn add_value(&mut self, kind: ValueKind, bytes: &[u8]) -> u64 {
        self.value_bytes += bytes.len();
        let difference = match kind {
            ValueKind::Record => self.differences.encode(bytes),
            _ => {
                self.differences.show(bytes);
                None
            }
        };
        let (stored, kind) = difference.map_or((bytes, kind as u64), |it| (it, DIFFERENCE));
        self.raw.extend_from_slice(stored);
        (stored.len() as u64) << KIND_BITS | kind
    }

    /// Begins a key, above the one before, whose first version here has this LSN; in each block anew.
    pub fn begin_key(&mut self, key: Key, lsn: Lsn) {
        let prefix = |key: Key| key.with_number(0);
        self.step = key.number();
        if self.first.is_none() || prefix(key) != prefix(self.last_key) {
            self.runs.extend_from_slice(&key.encode()[..PREFIX_BYTES]);
            self.runs.extend_from_slice(&self.row_count.to_le_bytes());
        } else {
            self.step -= self.last_key.number();
        }
        if self.first.is_none() {
            self.first = Some((key, lsn));
            self.last_lsn = Lsn(0);
        }
        self.last_key = key;
    }

    /// Bytes with all values whole: as many as whoever reads the block will have, about.
    #[inline]
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.value_bytes + self.runs.len() + self.rows.len()
    }

    /// Compresses what was added to the end of `out` and begins anew; nothing where it is empty. A
    /// block of more than [`PART_BYTES_MAX`] is refused.
    pub fn finish(&mut self, offset: u64, out: &mut Vec<u8>) -> std::io::Result<Option<IndexRow>> {
        let Some((first, first_lsn)) = self.first.take() else { return Ok(None) };
        let row_count = std::mem::take(&mut self.row_count);
        let runs = (self.runs.len() / RUN_BYTES) as u32;
        let numbers = [row_count, runs, self.rows.len() as u32];
        for (to, number) in self.raw.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *to = number.to_le_bytes();
        }
        self.raw.append(&mut self.runs);
        self.raw.append(&mut self.rows);
        let locator = self.seal(offset, out)?;
        self.raw.truncate(HEAD_BYTES);
        self.differences.forget();
        self.value_bytes = 0;
        Ok(Some(IndexRow { first, first_lsn, last: self.last_key, locator }))
    }

    fn seal(&mut self, offset: u64, out: &mut Vec<u8>) -> std::io::Result<Locator> {
        if let Some(left) = self.plain_blocks.checked_sub(1) {
            self.plain_blocks = left;
            return seal(&self.raw, Compression::None, offset, out);
        }
        let locator = seal(&self.raw, self.compression, offset, out)?;
        if self.compression == Compression::Lz4 && !locator.is_shorter() {
            self.plain_blocks = PLAIN_BLOCKS;
        }
        Ok(locator)
    }
}

/// A decompressed block: sorted versions of keys. Its shape was checked, so reading cannot fail.
#[derive(Clone, Debug)]
pub struct Block {
    /// One behind the other.
    values: Bytes,
    /// Bytes of the memory that the values are in: all that was read, where none stood as a difference.
    values_memory: usize,
    rows: Box<[Row]>,
    runs: Box<[u8]>,
}

/// A row, decoded.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The key's number.
    number: u32,
    /// Where its value ends, from the first value's start, in bits above those of its kind.
    end_and_kind: u32,
    lsn: Lsn,
}

const _: () = assert!(size_of::<Row>() == 16 && PART_BYTES_MAX <= VALUES_BYTES_MAX);
/// So many bytes of values have ends that a row can say.
const VALUES_BYTES_MAX: u32 = 1 << (32 - KIND_BITS);

impl Block {
    /// Checks a block's shape; `offset` is its place in the object.
    pub fn parse(raw: Vec<u8>, offset: u64) -> Result<Block, Damage> {
        Block::read(raw).map_err(|what| Damage::new(offset, "a block of sorted versions", what))
    }

    fn read(raw: Vec<u8>) -> Result<Block, &'static str> {
        if raw.len() < HEAD_BYTES {
            return Err("fewer than 12 bytes");
        }
        let [rows, runs, row_bytes] = [0, 4, 8].map(|at| u32_at(&raw, at) as usize);
        // Of 32-bit numbers: no overflow.
        let behind_values = runs * RUN_BYTES + row_bytes;
        if HEAD_BYTES + behind_values > raw.len() || rows * ROW_BYTES_MIN > row_bytes {
            return Err("more rows than bytes");
        }
        let runs_at = raw.len() - behind_values;
        let (raw, rows_at) = (Bytes::from(raw), runs_at + runs * RUN_BYTES);
        let mut block = Block {
            values: raw.slice(HEAD_BYTES..runs_at),
            values_memory: raw.len(),
            rows: Box::default(),
            runs: raw[runs_at..rows_at].into(),
        };
        block.check_runs(rows)?;
        block.decode_rows(rows, &raw[rows_at..])?;
        Ok(block)
    }

    fn check_runs(&self, rows: usize) -> Result<(), &'static str> {
        let runs = || 0..self.run_count();
        if !runs().map(|run| self.prefix(run)).is_sorted_by(|a, b| a < b) {
            return Err("runs out of order");
        }
        let begins = runs().map(|run| self.first_row(run)).chain([rows]);
        let is_covered = rows == 0 || self.run_count() > 0 && self.first_row(0) == 0;
        if !is_covered || !begins.is_sorted_by(|a, b| a < b) {
            return Err("runs that are not all rows");
        }
        Ok(())
    }

    /// Reads so many rows, and the values that stand as differences.
    fn decode_rows(&mut self, count: usize, mut encoded: &[u8]) -> Result<(), &'static str> {
        const SENSELESS: &str = "a row that makes no sense";
        let mut rows = Vec::with_capacity(count);
        let mut values = Values::new(&self.values);
        let mut lsn = 0_u64;
        for run in 0..self.run_count() {
            let mut number = None;
            for _ in self.rows_of(run, count) {
                let mut next = || take_varint(&mut encoded).ok_or(SENSELESS);
                let [step, distance, length_and_kind] = [next()?, next()?, next()?];
                // All 64 bits come back, whatever the two LSNs are.
                let next_lsn = lsn.wrapping_add_signed(unzigzag(distance));
                let rises = number.is_none() || step > 0 || next_lsn > lsn;
                let reached = u64::from(number.unwrap_or(0)).checked_add(step);
                let reached = reached.and_then(|number| u32::try_from(number).ok());
                let reached = reached.ok_or(SENSELESS)?;
                if !rises {
                    return Err("rows out of order");
                }
                number = Some(reached);
                lsn = next_lsn;
                let kind = length_and_kind & ((1 << KIND_BITS) - 1);
                let length = usize::try_from(length_and_kind >> KIND_BITS).unwrap_or(usize::MAX);
                let (kind, end) = match kind {
                    DIFFERENCE => (ValueKind::Record as u32, values.take_difference(length)),
                    kind => (kind as u32, values.take(length)),
                };
                let end_and_kind = end.ok_or(SENSELESS)? << KIND_BITS | kind;
                rows.push(Row { number: reached, end_and_kind, lsn: Lsn(lsn) });
            }
        }
        if !encoded.is_empty() {
            return Err("bytes behind the rows");
        }
        let decoded = values.finish().ok_or("values of another length than the rows say")?;
        if let Some(decoded) = decoded {
            // As long as they are: there was room for more.
            self.values = decoded.into_boxed_slice().into();
            self.values_memory = self.values.len();
        }
        self.rows = rows.into();
        Ok(())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.values_memory + self.runs.len() + self.rows.len() * size_of::<Row>()
    }

    /// How many versions there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The position of the first version that is not below `(key, lsn)`.
    pub fn position(&self, key: Key, lsn: Lsn) -> usize {
        let encoded = key.encode();
        let prefix = &encoded[..PREFIX_BYTES];
        let runs = self.run_count();
        let run = partition_point(0..runs, |run| self.prefix(run) < prefix);
        if run == runs || self.prefix(run) != prefix {
            return if run == runs { self.rows.len() } else { self.first_row(run) };
        }
        let rows = self.rows_of(run, self.rows.len());
        let is_below = |row: &Row| (row.number, row.lsn) < (key.number(), lsn);
        rows.start + self.rows[rows].partition_point(is_below)
    }

    /// The version's key.
    pub fn key(&self, position: usize) -> Key {
        let after = partition_point(0..self.run_count(), |run| self.first_row(run) <= position);
        let mut key = [0; KEY_BYTES];
        key[..PREFIX_BYTES].copy_from_slice(self.prefix(after - 1));
        key[PREFIX_BYTES..].copy_from_slice(&self.rows[position].number.to_be_bytes());
        Key::decode(&key)
    }

    /// The version's LSN.
    pub fn lsn(&self, position: usize) -> Lsn {
        self.rows[position].lsn
    }

    /// The version's value, sharing the block's memory.
    pub fn value(&self, position: usize) -> Value {
        let start = position.checked_sub(1).map_or(0, |before| self.rows[before].value_end());
        let row = &self.rows[position];
        Value::new(row.kind(), self.values.slice(start..row.value_end()))
    }

    fn run_count(&self) -> usize {
        self.runs.len() / RUN_BYTES
    }

    fn run(&self, run: usize) -> &[u8] {
        &self.runs[run * RUN_BYTES..][..RUN_BYTES]
    }

    fn prefix(&self, run: usize) -> &[u8] {
        &self.run(run)[..PREFIX_BYTES]
    }

    fn first_row(&self, run: usize) -> usize {
        u32_at(self.run(run), PREFIX_BYTES) as usize
    }

    /// The rows of a run, of so many in all.
    fn rows_of(&self, run: usize, rows: usize) -> Range<usize> {
        let end = if run + 1 == self.run_count() { rows } else { self.first_row(run + 1) };
        self.first_row(run)..end
    }
}

/// The values of a block while its rows are read.
struct Values<'b> {
    stored: &'b [u8],
    /// Of `stored`.
    at: usize,
    /// All until now, once there was a difference: until then they are what is stored.
    decoded: Option<Vec<u8>>,
    last: Range<usize>,
}

impl<'b> Values<'b> {
    fn new(stored: &'b [u8]) -> Values<'b> {
        Values { stored, at: 0, decoded: None, last: 0..0 }
    }

    /// Where the next value ends, which stands as it is; `None` where there is none so long.
    #[inline]
    fn take(&mut self, length: usize) -> Option<u32> {
        let stored = self.next(length)?;
        let end = match &mut self.decoded {
            Some(values) => {
                values.extend_from_slice(stored);
                values.len()
            }
            None => self.at,
        };
        self.end(end)
    }

    /// The same of one that stands as a difference.
    #[inline]
    fn take_difference(&mut self, length: usize) -> Option<u32> {
        let before = self.at;
        let stored = self.next(length)?;
        let values = self.decoded.get_or_insert_with(|| {
            let mut values = Vec::with_capacity(2 * self.stored.len());
            values.extend_from_slice(&self.stored[..before]);
            values
        });
        take_difference(values, self.last.clone(), stored)?;
        let end = values.len();
        self.end(end)
    }

    fn next(&mut self, length: usize) -> Option<&'b [u8]> {
        let stored = self.stored.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(stored)
    }

    fn end(&mut self, end: usize) -> Option<u32> {
        self.last = self.last.end..end;
        u32::try_from(end).ok().filter(|end| *end < VALUES_BYTES_MAX)
    }

    /// All values, where some stood as differences; `None` where more is stored.
    fn finish(self) -> Option<Option<Vec<u8>>> {
        (self.at == self.stored.len()).then_some(self.decoded)
    }
}

impl Row {
    fn value_end(&self) -> usize {
        (self.end_and_kind >> KIND_BITS) as usize
    }

    fn kind(&self) -> ValueKind {
        let number = self.end_and_kind & ((1 << KIND_BITS) - 1);
        ValueKind::from_number(number).unwrap_or(ValueKind::Image)
    }
}

/// The first number of a range for which it is not so; it is so for all before, and for none after.
fn partition_point(range: Range<usize>, is_so: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_so(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use wal_format::{Fork, Relation};

    use super::*;
    use crate::layer::format::COMPRESSION;

    fn key(number: u32) -> Key {
        let relation = Relation { tablespace: 1663, database: 5, number: number / 4 };
        Key::page(relation.fork(Fork::Main).block(number % 4))
    }

    fn any_versions() -> impl Strategy<Value = BTreeMap<(u32, u64), (u32, Vec<u8>)>> {
        // Alike and not.
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            (any::<u8>(), 10..12_usize)
                .prop_map(|(byte, zeros)| [&[byte], &[0; 12][..zeros]].concat()),
        ];
        let value = (0..3_u32, bytes);
        let lsn = prop_oneof![19 => 1..20_u64, 1 => any::<u64>()];
        prop::collection::btree_map((0..24_u32, lsn), value, 1..60)
    }

    fn raw_of(versions: &BTreeMap<(u32, u64), (u32, Vec<u8>)>) -> Vec<u8> {
        let (mut builder, mut last) = (BlockBuilder::new(COMPRESSION), None);
        for ((number, lsn), (kind, bytes)) in versions {
            let kind = ValueKind::from_number(*kind).expect("it is one");
            if last.replace(number) != Some(number) {
                builder.begin_key(key(*number), Lsn(*lsn));
            }
            builder.add_next(Lsn(*lsn), (kind, bytes));
        }
        let (bytes, mut out) = (builder.bytes(), Vec::new());
        let row = builder.finish(0, &mut out).expect("it can be compressed").expect("it has rows");
        let raw = row.locator.open(&out).expect("it is sound");
        assert!(raw.len() <= bytes);
        raw
    }

    proptest! {
        #[test]
        fn a_version_is_found_where_it_is_or_would_be(versions in any_versions()) {
            let block = Block::parse(raw_of(&versions), 0).expect("it is sound");
            prop_assert_eq!(block.len(), versions.len());
            for (at, ((number, lsn), (kind, bytes))) in versions.iter().enumerate() {
                prop_assert_eq!((block.key(at), block.lsn(at)), (key(*number), Lsn(*lsn)));
                let value = block.value(at);
                prop_assert_eq!(value.as_parts(), (ValueKind::from_number(*kind).expect("it is one"), &bytes[..]));
            }
            for number in 0..25 {
                for lsn in 0..21 {
                    let before = versions.range(..(number, lsn)).count();
                    prop_assert_eq!(block.position(key(number), Lsn(lsn)), before);
                }
            }
        }

        #[test]
        fn a_block_whose_checksum_lies_is_refused_or_read_without_a_panic(
            versions in any_versions(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut raw = raw_of(&versions);
            for (at, byte) in damage {
                let at = at.index(raw.len());
                raw[at] = byte;
            }
            if let Ok(block) = Block::parse(raw, 0) {
                for at in 0..block.len() {
                    let found = block.position(block.key(at), block.lsn(at));
                    prop_assert_eq!(found, at);
                    block.value(at);
                }
            }
        }
    }
}
