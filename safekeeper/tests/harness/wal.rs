//! WAL for tests: records as Postgres lays them out, with any content.

use bytes::Bytes;
use protocol::{BranchPoint, TimelineOrigin};
use wal_format::{
    FirstRecord, Lsn, SegmentIdentity, Version, WAL_PAGE_BYTES, WalPageHeader, record_checksum,
};

const SYSTEM_ID: u64 = 7_000_000_000_000_000_001;
const SEGMENT_BYTES: u32 = 16 << 20;
/// `XLOG_NOOP` of resource manager 0.
const NOOP: u8 = 0x20;

/// A timeline that begins in the middle of a page of its second segment.
pub fn origin() -> TimelineOrigin {
    TimelineOrigin {
        point: BranchPoint { lsn: Lsn(0x100_1000), last_record: Lsn(0x100_0F00) },
        system_id: SYSTEM_ID,
        segment_bytes: SEGMENT_BYTES,
        major: 15,
    }
}

/// Writes records one after the other.
#[derive(Clone, Debug)]
pub struct WalWriter {
    end: Lsn,
    last_record: Lsn,
}

impl WalWriter {
    /// Goes on at a record's end. `last_record` is that record's start, which the next one names.
    pub fn new(end: Lsn, last_record: Lsn) -> WalWriter {
        WalWriter { end, last_record }
    }

    /// Goes on at the timeline's begin.
    pub fn at_origin() -> WalWriter {
        WalWriter::new(origin().point.lsn, origin().point.last_record)
    }

    /// The end of the last record.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// A record with this content; the bytes from the last record's end to its own end.
    pub fn record(&mut self, content: &[u8]) -> Bytes {
        let mut wal = Vec::new();
        let at_page_start = self.end.page_offset() == 0;
        let start = if at_page_start { self.end + header_bytes(self.end) } else { self.end };
        let record = encode(content, self.last_record);
        let mut written = 0;
        while written < record.len() {
            let position = self.end + wal.len() as u64;
            if position.page_offset() == 0 {
                let first = match written {
                    0 => FirstRecord::Starts,
                    _ => FirstRecord::Continues((record.len() - written) as u32),
                };
                wal.extend(page_header(position, first));
            }
            let position = self.end + wal.len() as u64;
            let room = (WAL_PAGE_BYTES - position.page_offset()) as usize;
            let piece = room.min(record.len() - written);
            wal.extend_from_slice(&record[written..written + piece]);
            written += piece;
        }
        wal.resize(wal.len().next_multiple_of(8), 0);
        self.last_record = start;
        self.end += wal.len() as u64;
        wal.into()
    }

    /// Records of this size until there are about so many bytes.
    pub fn records(&mut self, record_bytes: usize, bytes: usize) -> Bytes {
        let mut wal = Vec::with_capacity(bytes + record_bytes);
        let content = vec![0x5A; record_bytes];
        while wal.len() < bytes {
            wal.extend_from_slice(&self.record(&content));
        }
        wal.into()
    }
}

fn encode(content: &[u8], prev: Lsn) -> Vec<u8> {
    let mut record = Vec::with_capacity(29 + content.len());
    record.extend_from_slice(&(29 + content.len() as u32).to_le_bytes());
    record.extend_from_slice(&0u32.to_le_bytes());
    record.extend_from_slice(&prev.0.to_le_bytes());
    record.extend_from_slice(&[NOOP, 0, 0, 0]);
    record.extend_from_slice(&[0; 4]);
    record.push(0xFE);
    record.extend_from_slice(&(content.len() as u32).to_le_bytes());
    record.extend_from_slice(content);
    let checksum = record_checksum(&record);
    record[20..24].copy_from_slice(&checksum.to_le_bytes());
    record
}

fn is_segment_start(page: Lsn) -> bool {
    page.segment_offset(u64::from(SEGMENT_BYTES)) == 0
}

fn header_bytes(page: Lsn) -> u64 {
    wal_format::header_bytes(page, SEGMENT_BYTES) as u64
}

fn page_header(page: Lsn, first: FirstRecord) -> Vec<u8> {
    let segment = is_segment_start(page)
        .then_some(SegmentIdentity { system_id: SYSTEM_ID, segment_bytes: SEGMENT_BYTES });
    WalPageHeader { timeline_id: 1, address: page, first, segment }.encode(Version::V15)
}
