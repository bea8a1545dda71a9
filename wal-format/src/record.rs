//! A WAL record's parts (xlogrecord.h; xlogreader.c: `DecodeXLogRecord`).
//!
//! Invariant: every length in a record is checked against the record's own length before it is used,
//! and all parts together are exactly the record.

mod checksum;
mod outline;

use smallvec::SmallVec;

pub use checksum::record_checksum;
pub use outline::{KEPT_HEAD_BYTES, KeptRecord, NamedPage, Outline, kept_record};

use crate::{
    BlockImage, Compression, Damage, Fork, Lsn, PAGE_BYTES, PageKey, Relation, Target, Version,
    WalError,
    fields::Fields,
    record_name,
    rmgr::{self, INFO_MASK, xlog::kind},
    rmid,
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

/// A decoded WAL record, read without a copy: its parts are the record's bytes.
#[derive(Clone, Debug)]
pub struct Record<'a> {
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
    pub blocks: BlockRefs<'a>,
    /// The resource manager's own data.
    pub main: &'a [u8],
}

/// The block references of a record. Most have one or two, which need no allocation.
pub type BlockRefs<'a> = SmallVec<[BlockRef<'a>; 2]>;

/// A page that a record names.
#[derive(Clone, Debug)]
pub struct BlockRef<'a> {
    /// Its number in the record.
    pub id: u8,
    /// The page.
    pub key: PageKey,
    /// Redo makes the page anew (`BKPBLOCK_WILL_INIT`).
    pub will_init: bool,
    /// The page's full image, where the record has one.
    pub image: Option<BlockImage<'a>>,
    /// What the resource manager keeps with this page; empty where it keeps nothing.
    pub data: &'a [u8],
}

impl BlockRef<'_> {
    /// Redo puts the image in the page's place (`XLogRecBlockImageApply`).
    pub fn has_image_to_apply(&self) -> bool {
        self.image.as_ref().is_some_and(|image| image.apply)
    }

    /// Redo does not need the page as it was: it is made anew, or a full-page image takes its place.
    pub fn is_made_anew(&self) -> bool {
        self.will_init || self.has_image_to_apply()
    }
}

impl<'a> Record<'a> {
    /// Decodes the `xl_tot_len` bytes of one record, page headers removed. Its checksum was checked by
    /// [`crate::WalReader`]; where the bytes come from elsewhere, [`record_checksum`] computes it.
    pub fn parse(version: Version, bytes: &'a [u8]) -> Result<Record<'a>, WalError> {
        let mut record = Record::empty();
        record.fill(version, bytes)?;
        Ok(record)
    }

    /// As [`Record::parse`], of what [`KeptRecord`] left of it for this target; [`Record::prev`] is not known.
    pub fn parse_kept(
        version: Version,
        target: Target,
        bytes: &'a [u8],
    ) -> Result<Record<'a>, WalError> {
        let mut record = Record::empty();
        record.fill_kept(version, target, bytes)?;
        Ok(record)
    }

    /// A record that says nothing.
    pub(crate) fn empty() -> Record<'a> {
        Record {
            xid: 0,
            prev: Lsn::INVALID,
            info: 0,
            rmid: 0,
            origin: None,
            top_xid: None,
            blocks: BlockRefs::new(),
            main: &[],
        }
    }

    /// As [`Record::parse`], for an empty record where it is: one is large to be moved. After an error it is of no use.
    #[inline]
    pub(crate) fn fill(&mut self, version: Version, bytes: &'a [u8]) -> Result<(), Damage> {
        match version {
            Version::V15 => decode(bytes, self),
        }
    }

    /// As [`Record::parse_kept`], for an empty record where it is.
    #[inline]
    pub(crate) fn fill_kept(
        &mut self,
        version: Version,
        target: Target,
        bytes: &'a [u8],
    ) -> Result<(), Damage> {
        match version {
            Version::V15 => decode_kept(bytes, target, self),
        }
    }

    /// The record's kind within its resource manager: the high four bits of `xl_info`.
    pub fn kind(&self) -> u8 {
        self.info & INFO_MASK
    }

    /// The block reference of this number, where the record has it.
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
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

    /// Whether the rest of the segment stays empty.
    pub(crate) fn is_switch(&self) -> bool {
        self.rmid == rmid::XLOG && self.kind() == kind::SWITCH
    }

    /// Reads the header from the front; `None` where fewer than [`RECORD_HEADER_BYTES`] are left.
    #[inline]
    pub(crate) fn read(fields: &mut Fields) -> Option<RecordHeader> {
        let mut fields = Fields::new(fields.chunk::<RECORD_HEADER_BYTES>()?);
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

fn decode<'a>(bytes: &'a [u8], record: &mut Record<'a>) -> Result<(), Damage> {
    let mut fields = Fields::new(bytes);
    let header = RecordHeader::read(&mut fields).ok_or_else(|| malformed("XLogRecord"))?;
    if header.total_bytes as usize != bytes.len() {
        return Err(Damage::RecordLength { found: header.total_bytes });
    }
    record.xid = header.xid;
    record.prev = header.prev;
    record.info = header.info;
    record.rmid = header.rmid;
    decode_parts(fields, bytes, None, record)
}

fn decode_kept<'a>(bytes: &'a [u8], target: Target, record: &mut Record<'a>) -> Result<(), Damage> {
    let mut fields = Fields::new(bytes);
    let head = fields.chunk::<KEPT_HEAD_BYTES>().ok_or_else(|| malformed("XLogRecord"))?;
    let [xid @ .., info, rmid, unnamed] = *head;
    record.xid = u32::from_le_bytes(xid);
    record.info = info;
    record.rmid = rmid;
    let unnamed = match target {
        Target::Page(page) if unnamed <= BLOCK_ID_MAX => Some((unnamed, page)),
        _ => None,
    };
    decode_parts(fields, bytes, unnamed, record)
}

/// Decodes what is behind the header; `bytes` is the whole record, which does not say the page of the reference of the number in
/// `unnamed`.
#[inline]
fn decode_parts<'a>(
    mut fields: Fields<'a>,
    bytes: &'a [u8],
    unnamed: Option<(u8, PageKey)>,
    record: &mut Record<'a>,
) -> Result<(), Damage> {
    // The parts follow the headers that announce them, in the same order: until the headers end and their places are known, each is as
    // many bytes as it has, but of the record's front.
    let mut parts = Parts { record, bytes, unnamed, announced_bytes: 0 };
    // The headers end where only the bytes that they announce are left.
    while fields.rest().len() > parts.announced_bytes {
        if parts.read_header(&mut fields)? == Header::Last {
            break;
        }
    }
    if fields.rest().len() != parts.announced_bytes {
        return Err(malformed("xl_tot_len"));
    }
    let mut place = |part: &mut &'a [u8]| {
        *part = fields.take(part.len()).ok_or_else(|| malformed("xl_tot_len"))?;
        Ok(())
    };
    for block in &mut record.blocks {
        if let Some(image) = &mut block.image {
            place(&mut image.bytes)?;
        }
        place(&mut block.data)?;
    }
    place(&mut record.main)
}

/// What a record's headers announce.
struct Parts<'r, 'a> {
    record: &'r mut Record<'a>,
    /// The whole record.
    bytes: &'a [u8],
    /// The reference whose page is not named, and that page.
    unnamed: Option<(u8, PageKey)>,
    announced_bytes: usize,
}

/// Whether a header can be followed by another one.
#[derive(PartialEq, Eq)]
enum Header {
    Inner,
    Last,
}

impl<'a> Parts<'_, 'a> {
    #[inline]
    fn read_header(&mut self, fields: &mut Fields) -> Result<Header, Damage> {
        let id = fields.u8().ok_or_else(|| malformed("block_id"))?;
        match id {
            0..=BLOCK_ID_MAX => self.read_block(id, fields)?,
            MAIN_DATA_SHORT => {
                let bytes = fields.u8().ok_or_else(|| malformed("XLogRecordDataHeaderShort"))?;
                self.record.main = self.announce(usize::from(bytes))?;
                return Ok(Header::Last);
            }
            MAIN_DATA_LONG => {
                let bytes = fields.u32().ok_or_else(|| malformed("XLogRecordDataHeaderLong"))?;
                self.record.main = self.announce(bytes as usize)?;
                return Ok(Header::Last);
            }
            ORIGIN => {
                self.record.origin = Some(fields.u16().ok_or_else(|| malformed("replorigin"))?)
            }
            TOP_XID => {
                let xid = fields.u32().ok_or_else(|| malformed("toplevel_xid"))?;
                self.record.top_xid = Some(xid);
            }
            _ => return Err(malformed("block_id")),
        }
        Ok(Header::Inner)
    }

    /// A part of so many bytes, whose place is not known yet.
    #[inline]
    fn announce(&mut self, bytes: usize) -> Result<&'a [u8], Damage> {
        self.announced_bytes += bytes;
        self.bytes.get(..bytes).ok_or_else(|| malformed("xl_tot_len"))
    }

    /// `XLogRecordBlockHeader` and what follows it.
    #[inline]
    fn read_block(&mut self, id: u8, fields: &mut Fields) -> Result<(), Damage> {
        if self.record.blocks.last().is_some_and(|last| last.id >= id) {
            return Err(malformed("block_id"));
        }
        let [flags, low, high] =
            *fields.chunk().ok_or_else(|| malformed("XLogRecordBlockHeader"))?;
        let data_bytes = u16::from_le_bytes([low, high]);
        let fork = Fork::from_number(flags & FORK_MASK).ok_or_else(|| malformed("fork_flags"))?;
        if (flags & HAS_DATA != 0) != (data_bytes > 0) {
            return Err(malformed("BKPBLOCK_HAS_DATA"));
        }
        let image = match flags & HAS_IMAGE != 0 {
            true => Some(self.read_image(id, fields)?),
            false => None,
        };
        let key = match self.unnamed {
            Some((number, page)) if number == id && page.fork.fork == fork => page,
            Some((number, _)) if number == id => return Err(malformed("fork_flags")),
            _ => {
                let relation = self.read_relation(flags, fields)?;
                let block = fields.u32().ok_or_else(|| malformed("BlockNumber"))?;
                relation.fork(fork).block(block)
            }
        };
        let data = self.announce(usize::from(data_bytes))?;
        self.record.blocks.push(BlockRef {
            id,
            key,
            will_init: flags & WILL_INIT != 0,
            image,
            data,
        });
        Ok(())
    }

    /// `RelFileNode`, where it is not that of the reference before.
    #[inline]
    fn read_relation(&self, flags: u8, fields: &mut Fields) -> Result<Relation, Damage> {
        if flags & SAME_RELATION != 0 {
            let last = self.record.blocks.last().ok_or_else(|| malformed("BKPBLOCK_SAME_REL"))?;
            return Ok(last.key.fork.relation);
        }
        let bytes = fields.chunk::<12>().ok_or_else(|| malformed("RelFileNode"))?;
        rmgr::relation(&mut Fields::new(bytes)).ok_or_else(|| malformed("RelFileNode"))
    }

    /// The image whose header comes next.
    fn read_image(&mut self, id: u8, fields: &mut Fields) -> Result<BlockImage<'a>, Damage> {
        let (header, bytes) = read_image_header(id, fields)?;
        Ok(BlockImage { bytes: self.announce(usize::from(bytes))?, ..header })
    }
}

/// `XLogRecordBlockImageHeader` and, where there is one, `XLogRecordBlockCompressHeader`: the image, whose bytes are still to come, and
/// how many they are.
fn read_image_header(block: u8, fields: &mut Fields) -> Result<(BlockImage<'static>, u16), Damage> {
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
        (_, true) => fields.u16().ok_or_else(|| malformed("XLogRecordBlockCompressHeader"))?,
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
    let apply = flags & IMAGE_APPLY != 0;
    Ok((BlockImage { block, bytes: &[], hole_offset, hole_bytes, compression, apply }, bytes))
}
