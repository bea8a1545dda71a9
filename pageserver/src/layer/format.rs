//! The parts of a layer object: clears, index, footer, and how each part is sealed; blocks are in
//! `block.rs`, the filter in `filter.rs`.
#![doc = include_str!("../../../docs/formats/layer.md")]

use std::{cell::RefCell, io::Cursor};

use wal_format::Lsn;

use super::Clear;
use crate::key::{KEY_BYTES, Key};

/// The version that this module reads and writes.
pub const LAYER_VERSION: u32 = 1;
/// What every footer begins with.
pub const LAYER_MAGIC: [u8; 8] = *b"OFSLAYER";
/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 96;
/// A block is closed at the first value that takes it to this size, before compression and with all values
/// whole.
pub const BLOCK_BYTES: usize = 32 << 10;
/// The most bytes that a part may claim to decompress to: a block with one value of the longest
/// WAL record (`XLogRecordMaxSize`, just under 1 GiB) is below it.
pub const PART_BYTES_MAX: u32 = 1 << 30;

/// Bytes of an index row: first key, first LSN, last key, locator.
const INDEX_ROW_BYTES: usize = KEY_BYTES + 8 + KEY_BYTES + LOCATOR_BYTES;
const LOCATOR_BYTES: usize = 20;
const CLEAR_BYTES: usize = 2 * KEY_BYTES + 8;

const _: () = assert!(INDEX_ROW_BYTES == 64 && CLEAR_BYTES == 44);
const _: () = assert!(FOOTER_BYTES == 8 + 4 + 4 + 8 + 8 + 3 * LOCATOR_BYTES + 4);

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where, from the start of the object.
    pub offset: u64,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Damage {
    pub(super) fn new(
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Damage {
        Damage { offset, expected: expected.into(), found: found.into() }
    }
}

/// What kind of layer an object is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum LayerKind {
    /// What the records of an LSN range did.
    Delta = 1,
    /// Whole values as of one LSN.
    Image = 2,
}

/// How a part is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// One zstd frame, made by this level.
    Zstd(i32),
    /// One LZ4 block, without a frame around it.
    Lz4,
    /// Not at all.
    None,
}

/// Compression of what stays. Block size and level were chosen by `benches/blocks`: decision 0008.
pub const COMPRESSION: Compression = Compression::Zstd(ZSTD_LEVEL);
/// Its level.
pub const ZSTD_LEVEL: i32 = 1;
/// Compression of what is flushed, which is merged soon: decision 0008.
pub const FLUSH_COMPRESSION: Compression = Compression::Lz4;

/// Where a part stands in the object, and how it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Locator {
    /// Bytes from the object's start.
    pub offset: u64,
    /// Bytes stored.
    pub stored: u32,
    /// Bytes that it decompresses to.
    pub raw: u32,
    /// Whether it is an LZ4 block, or the bytes themselves where it is no shorter; else it is a zstd frame.
    pub is_lz4: bool,
    /// CRC-32 (IEEE) of the stored bytes.
    pub crc: u32,
}

/// Set beside a part's length that is compressed by LZ4.
const LZ4_BIT: u32 = 1 << 31;
const _: () = assert!(PART_BYTES_MAX < LZ4_BIT);

impl Locator {
    /// The offset just behind the part.
    pub fn end(self) -> u64 {
        self.offset + u64::from(self.stored)
    }

    /// Whether the stored bytes are the part itself.
    fn is_plain(self) -> bool {
        self.is_lz4 && self.stored == self.raw
    }

    /// Whether compression took at least an eighth off.
    pub fn is_shorter(self) -> bool {
        u64::from(self.stored) * 8 <= u64::from(self.raw) * 7
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        let raw = if self.is_lz4 { self.raw | LZ4_BIT } else { self.raw };
        for number in [self.stored, raw, self.crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Locator {
        let raw = u32_at(bytes, 12);
        Locator {
            offset: u64_at(bytes, 0),
            stored: u32_at(bytes, 8),
            raw: raw & !LZ4_BIT,
            is_lz4: raw & LZ4_BIT != 0,
            crc: u32_at(bytes, 16),
        }
    }

    /// Checks and decompresses the part's stored bytes.
    pub fn open(self, stored: &[u8]) -> Result<Vec<u8>, Damage> {
        if stored.len() != self.stored as usize {
            let expected = format!("{} bytes", self.stored);
            return Err(Damage::new(self.offset, expected, format!("{} bytes", stored.len())));
        }
        let crc = crc32fast::hash(stored);
        if crc != self.crc {
            let expected = format!("CRC {:08x} of {} bytes", self.crc, self.stored);
            return Err(Damage::new(self.offset, expected, format!("{crc:08x}")));
        }
        let by = if self.is_lz4 { "LZ4" } else { "zstd" };
        let expected = || format!("{} bytes compressed with {by}", self.raw);
        if self.raw > PART_BYTES_MAX {
            let most = format!("at most {PART_BYTES_MAX} bytes");
            return Err(Damage::new(self.offset, most, format!("{} bytes", self.raw)));
        }
        if self.is_plain() {
            return Ok(stored.to_vec());
        }
        let raw = match self.is_lz4 {
            true => lz4::block::decompress(stored, Some(self.raw as i32)),
            false => decompress_zstd(stored, self.raw as usize),
        };
        let raw = raw.map_err(|error| Damage::new(self.offset, expected(), error.to_string()))?;
        if raw.len() != self.raw as usize {
            return Err(Damage::new(self.offset, expected(), format!("{} bytes", raw.len())));
        }
        Ok(raw)
    }
}

/// Compresses a part; `offset` is where its stored bytes will stand.
pub fn seal(
    raw: &[u8],
    compression: Compression,
    offset: u64,
    out: &mut Vec<u8>,
) -> std::io::Result<Locator> {
    let start = out.len();
    match compression {
        Compression::Zstd(level) => compress_zstd(raw, level, out)?,
        Compression::Lz4 => compress_lz4(raw, out)?,
        Compression::None => out.extend_from_slice(raw),
    }
    let stored = &out[start..];
    Ok(Locator {
        offset,
        stored: part_bytes(stored.len())?,
        raw: part_bytes(raw.len())?,
        is_lz4: !matches!(compression, Compression::Zstd(_)),
        crc: crc32fast::hash(stored),
    })
}

fn compress_zstd(raw: &[u8], level: i32, out: &mut Vec<u8>) -> std::io::Result<()> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> =
            const { RefCell::new(None) };
    }
    let start = out.len();
    out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot.take().filter(|(before, _)| *before == level) {
            Some(compressor) => compressor,
            None => (level, zstd::bulk::Compressor::new(level)?),
        };
        let mut end = Cursor::new(&mut *out);
        end.set_position(start as u64);
        slot.insert(compressor).1.compress_to_buffer(raw, &mut end)
    })?;
    Ok(())
}

fn compress_lz4(raw: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    thread_local! {
        static COMPRESSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    COMPRESSED.with_borrow_mut(|compressed| {
        let room = lz4::block::compress_bound(raw.len())?;
        if compressed.len() < room {
            compressed.resize(room, 0);
        }
        let bytes = lz4::block::compress_to_buffer(raw, None, false, compressed)?;
        // What is as long as the bytes themselves is taken for them.
        out.extend_from_slice(if bytes == raw.len() { raw } else { &compressed[..bytes] });
        // A large value came by: each thread would keep its room.
        compressed.truncate(2 * BLOCK_BYTES);
        compressed.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    })
}

fn part_bytes(bytes: usize) -> std::io::Result<u32> {
    u32::try_from(bytes).ok().filter(|bytes| *bytes <= PART_BYTES_MAX).ok_or_else(|| {
        std::io::Error::other(format!("a part of {bytes} bytes is above {PART_BYTES_MAX}"))
    })
}

fn decompress_zstd(stored: &[u8], raw: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot.take() {
            Some(decompressor) => decompressor,
            None => zstd::bulk::Decompressor::new()?,
        };
        slot.insert(decompressor).decompress(stored, raw)
    })
}

/// The last bytes of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    /// Delta or image.
    pub kind: LayerKind,
    /// Versions are above this; for an image layer, its LSN.
    pub from: Lsn,
    /// Versions are at most this.
    pub to: Lsn,
    /// The clears.
    pub clears: Locator,
    /// The filter.
    pub filter: Locator,
    /// The index.
    pub index: Locator,
}

impl Footer {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&LAYER_MAGIC);
        out.extend_from_slice(&LAYER_VERSION.to_le_bytes());
        out.extend_from_slice(&(self.kind as u32).to_le_bytes());
        out.extend_from_slice(&self.from.0.to_le_bytes());
        out.extend_from_slice(&self.to.0.to_le_bytes());
        for part in [self.clears, self.filter, self.index] {
            part.encode(&mut out);
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the footer, the last [`FOOTER_BYTES`] of an object, which begins at `offset`.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Footer, Damage> {
        if bytes.len() != FOOTER_BYTES {
            let expected = format!("a footer of {FOOTER_BYTES} bytes");
            return Err(Damage::new(offset, expected, format!("{} bytes", bytes.len())));
        }
        let (body, crc) = bytes.split_at(FOOTER_BYTES - 4);
        let (stored, computed) = (u32_at(crc, 0), crc32fast::hash(body));
        if stored != computed {
            let found = format!("{computed:08x}");
            return Err(Damage::new(offset, format!("footer CRC {stored:08x}"), found));
        }
        if body[..8] != LAYER_MAGIC {
            return Err(Damage::new(offset, "OFSLAYER", format!("{:02x?}", &body[..8])));
        }
        let version = u32_at(body, 8);
        if version != LAYER_VERSION {
            let expected = format!("layer version {LAYER_VERSION}");
            return Err(Damage::new(offset + 8, expected, format!("version {version}")));
        }
        let kind = match u32_at(body, 12) {
            1 => LayerKind::Delta,
            2 => LayerKind::Image,
            other => return Err(Damage::new(offset + 12, "kind 1 or 2", other.to_string())),
        };
        let footer = Footer {
            kind,
            from: Lsn(u64_at(body, 16)),
            to: Lsn(u64_at(body, 24)),
            clears: Locator::decode(&body[32..]),
            filter: Locator::decode(&body[52..]),
            index: Locator::decode(&body[72..]),
        };
        let parts = [footer.clears, footer.filter, footer.index];
        let ordered = parts.is_sorted_by(|a, b| a.end() == b.offset);
        if !ordered || footer.index.end() != offset || footer.from > footer.to {
            let found = format!("{parts:?}, {}..{}", footer.from, footer.to);
            return Err(Damage::new(offset, "parts that follow each other", found));
        }
        Ok(footer)
    }
}

/// What the index says of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexRow {
    /// The first version's key.
    pub first: Key,
    /// The first version's LSN.
    pub first_lsn: Lsn,
    /// The last version's key.
    pub last: Key,
    /// The block.
    pub locator: Locator,
}

/// The index's bytes, before compression.
pub fn encode_index(rows: &[IndexRow]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(rows.len() * INDEX_ROW_BYTES);
    for row in rows {
        raw.extend_from_slice(&row.first.encode());
        raw.extend_from_slice(&row.first_lsn.0.to_be_bytes());
        raw.extend_from_slice(&row.last.encode());
        row.locator.encode(&mut raw);
    }
    raw
}

/// Reads an index; `offset` is its place, `end` where the blocks must end.
pub fn decode_index(raw: &[u8], offset: u64, end: u64) -> Result<Vec<IndexRow>, Damage> {
    let found = |what: &str| Damage::new(offset, "an index of adjoining blocks", what);
    if !raw.len().is_multiple_of(INDEX_ROW_BYTES) {
        return Err(found("a part of a row"));
    }
    let rows: Vec<IndexRow> = raw
        .chunks_exact(INDEX_ROW_BYTES)
        .map(|row| IndexRow {
            first: key_at(row, 0),
            first_lsn: lsn_at(row, KEY_BYTES),
            last: key_at(row, KEY_BYTES + 8),
            locator: Locator::decode(&row[2 * KEY_BYTES + 8..]),
        })
        .collect();
    let mut at = 0;
    for row in &rows {
        if row.locator.offset != at || row.first > row.last {
            return Err(found("blocks that do not adjoin"));
        }
        at = row.locator.end();
    }
    if at != end {
        return Err(found("another length of all blocks"));
    }
    let ordered = |a: &IndexRow, b: &IndexRow| {
        a.last < b.first || (a.last == b.first && a.first_lsn < b.first_lsn || a.first < b.first)
    };
    if !rows.is_sorted_by(|a, b| a.last <= b.first && ordered(a, b)) {
        return Err(found("blocks out of order"));
    }
    Ok(rows)
}

/// The clears' bytes, before compression.
pub fn encode_clears(clears: &[Clear]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(clears.len() * CLEAR_BYTES);
    for clear in clears {
        raw.extend_from_slice(&clear.range.start.encode());
        raw.extend_from_slice(&clear.range.end.encode());
        raw.extend_from_slice(&clear.lsn.0.to_be_bytes());
    }
    raw
}

/// Reads clears; `offset` is their place in the object.
pub fn decode_clears(raw: &[u8], offset: u64) -> Result<Vec<Clear>, Damage> {
    if !raw.len().is_multiple_of(CLEAR_BYTES) {
        let expected = format!("clears of {CLEAR_BYTES} bytes each");
        return Err(Damage::new(offset, expected, format!("{} bytes", raw.len())));
    }
    let clear = |row: &[u8]| Clear {
        range: key_at(row, 0)..key_at(row, KEY_BYTES),
        lsn: lsn_at(row, 2 * KEY_BYTES),
    };
    Ok(raw.chunks_exact(CLEAR_BYTES).map(clear).collect())
}

fn key_at(bytes: &[u8], at: usize) -> Key {
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&bytes[at..at + KEY_BYTES]);
    Key::decode(&key)
}

fn lsn_at(bytes: &[u8], at: usize) -> Lsn {
    let mut lsn = [0; 8];
    lsn.copy_from_slice(&bytes[at..at + 8]);
    Lsn(u64::from_be_bytes(lsn))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
