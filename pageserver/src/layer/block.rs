//! A block: versions of keys, in their order. `docs/formats/layer.md` is its specification.
//!
//! What neighbouring keys share, all but the block number, stands once for a run of rows: ingest of
//! small records would else write more of keys than of records.

use std::ops::Range;

use bytes::Bytes;
use wal_format::Lsn;

use super::format::{Damage, IndexRow, PART_BYTES_MAX, seal, u32_at};
use crate::{
    change::{Value, ValueKind},
    key::{KEY_BYTES, Key},
};

/// Bytes of the numbers of rows and runs.
const HEAD_BYTES: usize = 8;
/// Bytes of a key that are equal in a run: all but the last four.
const PREFIX_BYTES: usize = KEY_BYTES - 4;
/// Bytes of a run: what its keys begin with, and the number of its first row.
const RUN_BYTES: usize = PREFIX_BYTES + 4;
/// Bytes of a row that are compared: the key's end, and the LSN.
const ORDER_BYTES: usize = 4 + 8;
/// Bytes of a row: what is compared, and the value's end and kind.
const ROW_BYTES: usize = ORDER_BYTES + 4;
/// Bits of the value's kind, below its end.
const KIND_BITS: u32 = 2;

const _: () = assert!(HEAD_BYTES == 8 && RUN_BYTES == 18 && ROW_BYTES == 16);
const _: () = assert!(PART_BYTES_MAX <= 1 << (32 - KIND_BITS));

/// A block while it is built.
pub struct BlockBuilder {
    runs: Vec<u8>,
    rows: Vec<u8>,
    values: Vec<u8>,
    /// All of them; its room serves the next block.
    raw: Vec<u8>,
    level: i32,
    first: Option<(Key, Lsn)>,
    last: Key,
    last_key: [u8; KEY_BYTES],
}

impl BlockBuilder {
    /// An empty block, to be compressed by this level.
    pub fn new(level: i32) -> BlockBuilder {
        BlockBuilder {
            runs: Vec::new(),
            rows: Vec::new(),
            values: Vec::new(),
            raw: Vec::new(),
            level,
            first: None,
            last: Key::MIN,
            last_key: [0; KEY_BYTES],
        }
    }

    /// Adds a version; keys and, within a key, LSNs must rise.
    pub fn add(&mut self, key: Key, lsn: Lsn, (kind, bytes): (ValueKind, &[u8])) {
        if self.first.is_none() || self.last != key {
            self.begin_key(key, lsn);
        }
        self.values.extend_from_slice(bytes);
        // One that does not fit is not sealed: a part has at most as many bytes.
        let end = (self.values.len() as u32) << KIND_BITS | kind as u32;
        let mut row = [0; ROW_BYTES];
        row[..4].copy_from_slice(&self.last_key[PREFIX_BYTES..]);
        row[4..ORDER_BYTES].copy_from_slice(&lsn.0.to_be_bytes());
        row[ORDER_BYTES..].copy_from_slice(&end.to_le_bytes());
        self.rows.extend_from_slice(&row);
    }

    fn begin_key(&mut self, key: Key, lsn: Lsn) {
        let encoded = key.encode();
        let prefix = &encoded[..PREFIX_BYTES];
        if self.first.is_none() || prefix != &self.last_key[..PREFIX_BYTES] {
            self.runs.extend_from_slice(prefix);
            self.runs.extend_from_slice(&self.row_count().to_le_bytes());
        }
        self.first.get_or_insert((key, lsn));
        (self.last, self.last_key) = (key, encoded);
    }

    fn row_count(&self) -> u32 {
        (self.rows.len() / ROW_BYTES) as u32
    }

    /// Bytes before compression.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.runs.len() + self.rows.len() + self.values.len()
    }

    /// Compresses what was added to the end of `out` and begins anew; nothing where it is empty.
    pub fn finish(&mut self, offset: u64, out: &mut Vec<u8>) -> std::io::Result<Option<IndexRow>> {
        let Some((first, first_lsn)) = self.first.take() else { return Ok(None) };
        self.raw.clear();
        self.raw.extend_from_slice(&self.row_count().to_le_bytes());
        self.raw.extend_from_slice(&((self.runs.len() / RUN_BYTES) as u32).to_le_bytes());
        self.raw.append(&mut self.runs);
        self.raw.append(&mut self.rows);
        self.raw.append(&mut self.values);
        let locator = seal(&self.raw, self.level, offset, out)?;
        Ok(Some(IndexRow { first, first_lsn, last: self.last, locator }))
    }
}

/// A decompressed block: sorted versions of keys. Its shape was checked, so reading cannot fail.
#[derive(Clone, Debug)]
pub struct Block {
    raw: Bytes,
    runs: usize,
    rows: usize,
}

impl Block {
    /// Checks a block's shape; `offset` is its place in the object.
    pub fn parse(raw: Vec<u8>, offset: u64) -> Result<Block, Damage> {
        let found = |what: &str| Damage::new(offset, "a block of sorted versions", what);
        if raw.len() < HEAD_BYTES {
            return Err(found("fewer than 8 bytes"));
        }
        let (rows, runs) = (u32_at(&raw, 0) as usize, u32_at(&raw, 4) as usize);
        // Of two 32-bit numbers: no overflow.
        let values = HEAD_BYTES + runs * RUN_BYTES + rows * ROW_BYTES;
        if values > raw.len() {
            return Err(found("more rows than bytes"));
        }
        let block = Block { raw: Bytes::from(raw), runs, rows };
        block.check_runs().map_err(found)?;
        if (0..runs)
            .any(|run| !block.rows_of(run).map(|row| block.order(row)).is_sorted_by(|a, b| a < b))
        {
            return Err(found("rows out of order"));
        }
        let ends = (0..rows).map(|row| block.value_end(row));
        if !ends.clone().is_sorted() || (0..rows).any(|row| block.kind(row).is_none()) {
            return Err(found("a row that makes no sense"));
        }
        if values + ends.last().unwrap_or(0) != block.raw.len() {
            return Err(found("values of another length than the rows say"));
        }
        Ok(block)
    }

    fn check_runs(&self) -> Result<(), &'static str> {
        let runs = || 0..self.runs;
        if !runs().map(|run| self.prefix(run)).is_sorted_by(|a, b| a < b) {
            return Err("runs out of order");
        }
        let begins = runs().map(|run| self.first_row(run)).chain([self.rows]);
        let is_covered = self.rows == 0 || self.runs > 0 && self.first_row(0) == 0;
        if !is_covered || !begins.is_sorted_by(|a, b| a < b) {
            return Err("runs that are not all rows");
        }
        Ok(())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// How many versions there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The position of the first version that is not below `(key, lsn)`.
    pub fn position(&self, key: Key, lsn: Lsn) -> usize {
        let key = key.encode();
        let (prefix, end) = key.split_at(PREFIX_BYTES);
        let run = partition_point(0..self.runs, |run| self.prefix(run) < prefix);
        if run == self.runs || self.prefix(run) != prefix {
            return if run == self.runs { self.rows } else { self.first_row(run) };
        }
        let mut wanted = [0; ORDER_BYTES];
        wanted[..4].copy_from_slice(end);
        wanted[4..].copy_from_slice(&lsn.0.to_be_bytes());
        partition_point(self.rows_of(run), |row| self.order(row) < &wanted[..])
    }

    /// The version's key.
    pub fn key(&self, position: usize) -> Key {
        let after = partition_point(0..self.runs, |run| self.first_row(run) <= position);
        let mut key = [0; KEY_BYTES];
        key[..PREFIX_BYTES].copy_from_slice(self.prefix(after - 1));
        key[PREFIX_BYTES..].copy_from_slice(&self.row(position)[..4]);
        Key::decode(&key)
    }

    /// The version's LSN.
    pub fn lsn(&self, position: usize) -> Lsn {
        let mut lsn = [0; 8];
        lsn.copy_from_slice(&self.row(position)[4..ORDER_BYTES]);
        Lsn(u64::from_be_bytes(lsn))
    }

    /// The version's value, sharing the block's memory.
    pub fn value(&self, position: usize) -> Value {
        let values = HEAD_BYTES + self.runs * RUN_BYTES + self.rows * ROW_BYTES;
        let start = if position == 0 { 0 } else { self.value_end(position - 1) };
        let bytes = self.raw.slice(values + start..values + self.value_end(position));
        Value::new(self.kind(position).unwrap_or(ValueKind::Image), bytes)
    }

    fn run(&self, run: usize) -> &[u8] {
        &self.raw[HEAD_BYTES + run * RUN_BYTES..][..RUN_BYTES]
    }

    fn prefix(&self, run: usize) -> &[u8] {
        &self.run(run)[..PREFIX_BYTES]
    }

    fn first_row(&self, run: usize) -> usize {
        u32_at(self.run(run), PREFIX_BYTES) as usize
    }

    fn rows_of(&self, run: usize) -> Range<usize> {
        let end = if run + 1 == self.runs { self.rows } else { self.first_row(run + 1) };
        self.first_row(run)..end
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.raw[HEAD_BYTES + self.runs * RUN_BYTES + row * ROW_BYTES..][..ROW_BYTES]
    }

    fn order(&self, row: usize) -> &[u8] {
        &self.row(row)[..ORDER_BYTES]
    }

    fn value_end(&self, row: usize) -> usize {
        (u32_at(self.row(row), ORDER_BYTES) >> KIND_BITS) as usize
    }

    fn kind(&self, row: usize) -> Option<ValueKind> {
        ValueKind::from_number(u32_at(self.row(row), ORDER_BYTES) & ((1 << KIND_BITS) - 1))
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

    fn key(number: u32) -> Key {
        let relation = Relation { tablespace: 1663, database: 5, number: number / 4 };
        Key::page(relation.fork(Fork::Main).block(number % 4))
    }

    fn any_versions() -> impl Strategy<Value = BTreeMap<(u32, u64), (u32, Vec<u8>)>> {
        let value = (0..3_u32, prop::collection::vec(any::<u8>(), 0..20));
        prop::collection::btree_map((0..24_u32, 1..20_u64), value, 1..60)
    }

    fn raw_of(versions: &BTreeMap<(u32, u64), (u32, Vec<u8>)>) -> Vec<u8> {
        let mut builder = BlockBuilder::new(1);
        for ((number, lsn), (kind, bytes)) in versions {
            let kind = ValueKind::from_number(*kind).expect("it is one");
            builder.add(key(*number), Lsn(*lsn), (kind, bytes));
        }
        let (bytes, mut out) = (builder.bytes(), Vec::new());
        let row = builder.finish(0, &mut out).expect("it can be compressed").expect("it has rows");
        let raw = row.locator.open(&out).expect("it is sound");
        assert_eq!(raw.len(), bytes);
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
