//! A WAL record's parts (xlogrecord.h; xlogreader.c: `DecodeXLogRecord`).
//!
//! Invariant: every length in a record is checked against the record's own length before it is used,
//! and all parts together are exactly the record.

use bytes::Bytes;

use crate::{
    BlockImage, Compression, Damage, Fork, Lsn, PAGE_BYTES, PageKey, Relation, Version, WalError,
    fields::Fields, record_name, rmgr::INFO_MASK,
};

/// Bytes of a record's header (`SizeOfXLogRecord`).
pub const RECORD_HEADER_BYTES: usize = 24;
/// The largest record (`XLogRecordMaxSize`, Postgres 16; 15's own allocation limit lies 4 MiB above).
pub const RECORD_BYTES_MAX: usize = 1020 << 20;
/// The largest number of a block reference (`XLR_MAX_BLOCK_ID`).
pub const BLOCK_ID_MAX: u8 = 32;

/// Where `xl_crc` stands in the header.
pub(crate) const CHECKSUM_AT: usize = 20;
/// `XLR_CHECK_CONSISTENCY`.
const CHECK_CONSISTENCY: u8 = 0x02;

/// `XLR_BLOCK_ID_DATA_SHORT`.
pub(crate) const MAIN_DATA_SHORT: u8 = 255;
/// `XLR_BLOCK_ID_DATA_LONG`.
const MAIN_DATA_LONG: u8 = 254;
/// `XLR_BLOCK_ID_ORIGIN`.
const ORIGIN: u8 = 253;
/// `XLR_BLOCK_ID_TOPLEVEL_XID`.
const TOP_XID: u8 = 252;

/// `BKPBLOCK_FORK_MASK`.
const FORK_MASK: u8 = 0x0F;
/// `BKPBLOCK_HAS_IMAGE`.
const HAS_IMAGE: u8 = 0x10;
/// `BKPBLOCK_HAS_DATA`.
const HAS_DATA: u8 = 0x20;
/// `BKPBLOCK_WILL_INIT`.
const WILL_INIT: u8 = 0x40;
/// `BKPBLOCK_SAME_REL`.
const SAME_RELATION: u8 = 0x80;

/// `BKPIMAGE_HAS_HOLE`.
const IMAGE_HAS_HOLE: u8 = 0x01;
/// `BKPIMAGE_APPLY`.
const IMAGE_APPLY: u8 = 0x02;
/// `BKPIMAGE_COMPRESS_PGLZ`.
const IMAGE_PGLZ: u8 = 0x04;
/// `BKPIMAGE_COMPRESS_LZ4`.
const IMAGE_LZ4: u8 = 0x08;
/// `BKPIMAGE_COMPRESS_ZSTD`.
const IMAGE_ZSTD: u8 = 0x10;

/// A decoded WAL record. Its parts share the record's bytes.
#[derive(Clone, Debug)]
pub struct Record {
    /// The transaction that wrote it; 0 where none did.
    pub xid: u32,
    /// The start of the record before it.
    pub prev: Lsn,
    /// `xl_info` whole; [`Record::kind`] is the resource manager's part.
    pub info: u8,
    /// The resource manager, see [`crate::rmid`].
    pub rmid: u8,
    /// The replication origin, where the transaction has one.
    pub origin: Option<u16>,
    /// The transaction above the writing subtransaction, where the record says it.
    pub top_xid: Option<u32>,
    /// The pages it names, in the order of their ids, which may have gaps.
    pub blocks: Vec<BlockRef>,
    /// The resource manager's own data.
    pub main: Bytes,
}

/// A page that a record names.
#[derive(Clone, Debug)]
pub struct BlockRef {
    /// Its number in the record.
    pub id: u8,
    /// The page.
    pub key: PageKey,
    /// Redo makes the page anew (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The page's full image, where the record has one.
    pub image: Option<BlockImage>,
    /// What the resource manager keeps with this page; empty where it keeps nothing.
    pub data: Bytes,
}

/// A block reference as it stands in the record's headers, before its bytes.
struct BlockHeader {
    id: u8,
    key: PageKey,
    will_init: bool,
    image: Option<ImageHeader>,
    data_bytes: usize,
}

/// `XLogRecordBlockImageHeader` and, where there is one, `XLogRecordBlockCompressHeader`.
struct ImageHeader {
    bytes: usize,
    hole_offset: u16,
    hole_bytes: u16,
    compression: Compression,
    apply: bool,
}

impl Record {
    /// Decodes the `xl_tot_len` bytes of one record, page headers removed. Its checksum was checked by
    /// [`crate::WalReader`]; where the bytes come from elsewhere, [`record_checksum`] computes it.
    pub fn parse(version: Version, bytes: &Bytes) -> Result<Record, WalError> {
        match version {
            Version::V15 => decode(bytes).map_err(WalError::Record),
        }
    }

    /// The record's kind within its resource manager: the high four bits of `xl_info`.
    pub fn kind(&self) -> u8 {
        self.info & INFO_MASK
    }

    /// The block reference of this number, where the record has it.
    pub fn block(&self, id: u8) -> Option<&BlockRef> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// Whether the images are after-images for `wal_consistency_checking` (`XLR_CHECK_CONSISTENCY`).
    pub fn checks_consistency(&self) -> bool {
        self.info & CHECK_CONSISTENCY != 0
    }

    /// The resource manager and the kind, as `pg_waldump --stats=record` prints them: `Heap/INSERT+INIT`.
    pub fn name(&self) -> String {
        record_name::name(self.rmid, self.info)
    }
}

/// CRC-32C of a record (xloginsert.c: `XLogRecordAssemble`): of what follows the header, then of the header
/// up to `xl_crc`. `bytes` has at least [`RECORD_HEADER_BYTES`].
pub fn record_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]), &bytes[..CHECKSUM_AT])
}

/// The fixed header of a record.
pub(crate) struct RecordHeader {
    pub(crate) total_bytes: u32,
    pub(crate) xid: u32,
    pub(crate) prev: Lsn,
    pub(crate) info: u8,
    pub(crate) rmid: u8,
    pub(crate) checksum: u32,
}

impl RecordHeader {
    /// As [`Record::kind`].
    pub(crate) fn kind(&self) -> u8 {
        self.info & INFO_MASK
    }

    /// Reads the header from the front; `None` where fewer than [`RECORD_HEADER_BYTES`] are left.
    pub(crate) fn read(fields: &mut Fields) -> Option<RecordHeader> {
        let total_bytes = fields.u32()?;
        let xid = fields.u32()?;
        let prev = Lsn(fields.u64()?);
        let info = fields.u8()?;
        let rmid = fields.u8()?;
        fields.skip(2)?;
        let checksum = fields.u32()?;
        Some(RecordHeader { total_bytes, xid, prev, info, rmid, checksum })
    }
}

fn malformed(part: &'static str) -> Damage {
    Damage::Malformed { part }
}

fn decode(bytes: &Bytes) -> Result<Record, Damage> {
    let mut fields = Fields::new(bytes);
    let header = RecordHeader::read(&mut fields).ok_or(malformed("XLogRecord"))?;
    if header.total_bytes as usize != bytes.len() {
        return Err(Damage::RecordLength { found: header.total_bytes });
    }
    let mut parts = Parts::default();
    // The headers end where only the bytes that they announce are left.
    while fields.rest().len() > parts.announced_bytes {
        parts.read_header(&mut fields)?;
        if parts.main_bytes.is_some() {
            break;
        }
    }
    if fields.rest().len() != parts.announced_bytes {
        return Err(malformed("xl_tot_len"));
    }

    let mut at = bytes.len() - parts.announced_bytes;
    let mut take = |count: usize| {
        at += count;
        bytes.slice(at - count..at)
    };
    let blocks = parts
        .blocks
        .into_iter()
        .map(|block| BlockRef {
            id: block.id,
            key: block.key,
            will_init: block.will_init,
            image: block.image.map(|image| BlockImage {
                block: block.id,
                bytes: take(image.bytes),
                hole_offset: image.hole_offset,
                hole_bytes: image.hole_bytes,
                compression: image.compression,
                apply: image.apply,
            }),
            data: take(block.data_bytes),
        })
        .collect();
    let main = take(parts.main_bytes.unwrap_or(0));
    Ok(Record {
        xid: header.xid,
        prev: header.prev,
        info: header.info,
        rmid: header.rmid,
        origin: parts.origin,
        top_xid: parts.top_xid,
        blocks,
        main,
    })
}

/// What a record's headers announce.
#[derive(Default)]
struct Parts {
    blocks: Vec<BlockHeader>,
    origin: Option<u16>,
    top_xid: Option<u32>,
    main_bytes: Option<usize>,
    announced_bytes: usize,
}

impl Parts {
    fn read_header(&mut self, fields: &mut Fields) -> Result<(), Damage> {
        let id = fields.u8().ok_or(malformed("block_id"))?;
        match id {
            MAIN_DATA_SHORT => {
                let bytes = fields.u8().ok_or(malformed("XLogRecordDataHeaderShort"))?;
                self.announce_main(usize::from(bytes));
            }
            MAIN_DATA_LONG => {
                let bytes = fields.u32().ok_or(malformed("XLogRecordDataHeaderLong"))?;
                self.announce_main(bytes as usize);
            }
            ORIGIN => self.origin = Some(fields.u16().ok_or(malformed("replorigin"))?),
            TOP_XID => self.top_xid = Some(fields.u32().ok_or(malformed("toplevel_xid"))?),
            0..=BLOCK_ID_MAX => self.read_block(id, fields)?,
            _ => return Err(malformed("block_id")),
        }
        Ok(())
    }

    fn announce_main(&mut self, bytes: usize) {
        self.main_bytes = Some(bytes);
        self.announced_bytes += bytes;
    }

    /// `XLogRecordBlockHeader` and what follows it.
    fn read_block(&mut self, id: u8, fields: &mut Fields) -> Result<(), Damage> {
        if self.blocks.last().is_some_and(|last| last.id >= id) {
            return Err(malformed("block_id"));
        }
        let short = || malformed("XLogRecordBlockHeader");
        let flags = fields.u8().ok_or_else(short)?;
        let data_bytes = usize::from(fields.u16().ok_or_else(short)?);
        let fork = Fork::from_number(flags & FORK_MASK).ok_or(malformed("fork_flags"))?;
        if (flags & HAS_DATA != 0) != (data_bytes > 0) {
            return Err(malformed("BKPBLOCK_HAS_DATA"));
        }
        let image = if flags & HAS_IMAGE != 0 { Some(ImageHeader::read(fields)?) } else { None };
        let relation = if flags & SAME_RELATION != 0 {
            let last = self.blocks.last().ok_or(malformed("BKPBLOCK_SAME_REL"))?;
            last.key.fork.relation
        } else {
            let mut number = || fields.u32().ok_or(malformed("RelFileNode"));
            Relation { tablespace: number()?, database: number()?, number: number()? }
        };
        let block = fields.u32().ok_or(malformed("BlockNumber"))?;
        self.announced_bytes += data_bytes + image.as_ref().map_or(0, |image| image.bytes);
        self.blocks.push(BlockHeader {
            id,
            key: relation.fork(fork).block(block),
            will_init: flags & WILL_INIT != 0,
            image,
            data_bytes,
        });
        Ok(())
    }
}

impl ImageHeader {
    fn read(fields: &mut Fields) -> Result<ImageHeader, Damage> {
        const PAGE: u16 = PAGE_BYTES as u16;
        let short = || malformed("XLogRecordBlockImageHeader");
        let bytes = fields.u16().ok_or_else(short)?;
        let hole_offset = fields.u16().ok_or_else(short)?;
        let flags = fields.u8().ok_or_else(short)?;
        let compression = match flags & (IMAGE_PGLZ | IMAGE_LZ4 | IMAGE_ZSTD) {
            0 => Compression::None,
            IMAGE_PGLZ => Compression::Pglz,
            IMAGE_LZ4 => Compression::Lz4,
            IMAGE_ZSTD => Compression::Zstd,
            _ => return Err(malformed("bimg_info")),
        };
        let has_hole = flags & IMAGE_HAS_HOLE != 0;
        let hole_bytes = match (compression, has_hole) {
            (Compression::None, _) => PAGE.checked_sub(bytes).ok_or_else(short)?,
            (_, true) => fields.u16().ok_or(malformed("XLogRecordBlockCompressHeader"))?,
            (_, false) => 0,
        };
        let hole_fits = hole_offset.checked_add(hole_bytes).is_some_and(|end| end <= PAGE);
        let right = if has_hole {
            hole_offset != 0 && hole_bytes != 0 && hole_bytes != PAGE && hole_fits
        } else {
            hole_offset == 0 && hole_bytes == 0
        };
        // A compressed image is smaller than the page, or Postgres would not have kept it so.
        let shrank = compression == Compression::None || bytes < PAGE;
        if !right || !shrank {
            return Err(malformed("XLogRecordBlockImageHeader"));
        }
        Ok(ImageHeader {
            bytes: usize::from(bytes),
            hole_offset,
            hole_bytes,
            compression,
            apply: flags & IMAGE_APPLY != 0,
        })
    }
}
