//! The header of a WAL page (xlog_internal.h: `XLogPageHeaderData`, `XLogLongPageHeaderData`).

use crate::{Damage, Lsn, Version, WAL_PAGE_BYTES, fields::Fields};

/// Bytes of an ordinary page's header (`SizeOfXLogShortPHD`).
pub const SHORT_HEADER_BYTES: usize = 24;
/// Bytes of the header of a segment's first page (`SizeOfXLogLongPHD`).
pub const LONG_HEADER_BYTES: usize = 40;

/// The page begins with the rest of a record (`XLP_FIRST_IS_CONTRECORD`).
const FIRST_IS_CONTINUATION: u16 = 0x0001;
/// The header is the long one (`XLP_LONG_HEADER`).
const LONG_HEADER: u16 = 0x0002;
/// Full-page images of this page's records may be left out (`XLP_BKP_REMOVABLE`).
const BACKUP_REMOVABLE: u16 = 0x0004;
/// The page's first record stands in place of an unfinished one (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`).
const FIRST_IS_OVERWRITE: u16 = 0x0008;
/// All of them (`XLP_ALL_FLAGS`).
const ALL_FLAGS: u16 = 0x000F;

/// Bytes of the header of the page at `page_start`.
pub fn header_bytes(page_start: Lsn, segment_bytes: u32) -> usize {
    if page_start.segment_offset(u64::from(segment_bytes)) == 0 {
        LONG_HEADER_BYTES
    } else {
        SHORT_HEADER_BYTES
    }
}

/// What a WAL page's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalPageHeader {
    /// The Postgres timeline id.
    pub timeline_id: u32,
    /// The page's own position (`xlp_pageaddr`).
    pub address: Lsn,
    /// How the page's first bytes continue what came before.
    pub first: FirstRecord,
    /// The cluster's identifier and the segment's size, on a segment's first page.
    pub segment: Option<SegmentIdentity>,
}

/// What a segment's first page says of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentIdentity {
    /// `xlp_sysid`.
    pub system_id: u64,
    /// `xlp_seg_size`.
    pub segment_bytes: u32,
}

/// What stands first on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstRecord {
    /// A record's start.
    Starts,
    /// The rest of a record, of which so many bytes are missing (`xlp_rem_len`).
    Continues(u32),
    /// A record that stands in place of an unfinished one.
    Overwrites,
}

impl WalPageHeader {
    /// The header's bytes: 40 for a segment's first page, else 24. As Postgres writes them where no base backup runs: with
    /// `XLP_BKP_REMOVABLE`, which no reader here or in Postgres asks for.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let (first, remaining) = match self.first {
            FirstRecord::Starts => (0, 0),
            FirstRecord::Continues(bytes) => (FIRST_IS_CONTINUATION, bytes),
            FirstRecord::Overwrites => (FIRST_IS_OVERWRITE, 0),
        };
        let mut flags = first | BACKUP_REMOVABLE;
        if self.segment.is_some() {
            flags |= LONG_HEADER;
        }
        let mut bytes = Vec::with_capacity(LONG_HEADER_BYTES);
        bytes.extend_from_slice(&version.wal_page_magic().to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.timeline_id.to_le_bytes());
        bytes.extend_from_slice(&self.address.0.to_le_bytes());
        bytes.extend_from_slice(&remaining.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        if let Some(segment) = &self.segment {
            bytes.extend_from_slice(&segment.system_id.to_le_bytes());
            bytes.extend_from_slice(&segment.segment_bytes.to_le_bytes());
            bytes.extend_from_slice(&(WAL_PAGE_BYTES as u32).to_le_bytes());
        }
        bytes
    }

    /// The header of the page at `page_start`, which must be that page's and of this geometry
    /// (xlogreader.c: `XLogReaderValidatePageHeader`). `bytes` has at least [`header_bytes`].
    pub fn decode(
        version: Version,
        page_start: Lsn,
        segment_bytes: u32,
        bytes: &[u8],
    ) -> Result<WalPageHeader, Damage> {
        let mut fields = Fields::new(bytes);
        let short = Damage::Malformed { part: "XLogPageHeaderData" };
        let mut header = || -> Option<(u16, u16, u32, u64, u32)> {
            Some((fields.u16()?, fields.u16()?, fields.u32()?, fields.u64()?, fields.u32()?))
        };
        let (magic, flags, timeline_id, address, remaining) = header().ok_or(short.clone())?;
        if magic != version.wal_page_magic() {
            return Err(Damage::PageMagic { expected: version.wal_page_magic(), found: magic });
        }
        if address != page_start.0 {
            return Err(Damage::PageAddress { found: Lsn(address) });
        }
        let is_long = header_bytes(page_start, segment_bytes) == LONG_HEADER_BYTES;
        if flags & !ALL_FLAGS != 0 || (flags & LONG_HEADER != 0) != is_long {
            return Err(Damage::PageFlags { found: flags });
        }
        let first = match flags & !(LONG_HEADER | BACKUP_REMOVABLE) {
            0 => FirstRecord::Starts,
            FIRST_IS_CONTINUATION => FirstRecord::Continues(remaining),
            FIRST_IS_OVERWRITE => FirstRecord::Overwrites,
            _ => return Err(Damage::PageFlags { found: flags }),
        };
        let segment = if is_long {
            let mut long = || -> Option<(u64, u32, u32)> {
                fields.skip(4)?;
                Some((fields.u64()?, fields.u32()?, fields.u32()?))
            };
            let (system_id, segment, page) = long().ok_or(short)?;
            if segment != segment_bytes || u64::from(page) != WAL_PAGE_BYTES {
                return Err(Damage::Geometry { segment, page });
            }
            Some(SegmentIdentity { system_id, segment_bytes: segment })
        } else {
            None
        };
        Ok(WalPageHeader { timeline_id, address: page_start, first, segment })
    }
}
