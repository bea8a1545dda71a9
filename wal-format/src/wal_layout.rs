//! How a record is laid out on WAL pages (xlog.c: `CopyXLogRecordToWAL`).

use crate::{
    FirstRecord, Lsn, RECORD_HEADER_BYTES, SegmentIdentity, Version, WAL_PAGE_BYTES, WalPageHeader,
    header_bytes,
    record::{CHECKSUM_AT, MAIN_DATA_SHORT, record_checksum},
};

/// What all pages of one cluster's WAL have in common.
#[derive(Clone, Copy)]
pub(crate) struct WalLayout {
    pub(crate) version: Version,
    pub(crate) timeline_id: u32,
    pub(crate) system_id: u64,
    pub(crate) segment_bytes: u32,
}

impl WalLayout {
    /// The header of the page at `page`.
    pub(crate) fn header(&self, page: Lsn, first: FirstRecord) -> Vec<u8> {
        let is_segment_start = page.segment_offset(u64::from(self.segment_bytes)) == 0;
        let segment = is_segment_start.then_some(SegmentIdentity {
            system_id: self.system_id,
            segment_bytes: self.segment_bytes,
        });
        WalPageHeader { timeline_id: self.timeline_id, address: page, first, segment }
            .encode(self.version)
    }

    /// Where a record starts that is written after a record that ends at `end`.
    pub(crate) fn record_start(&self, end: Lsn) -> Lsn {
        if end.page_offset() == 0 {
            end + header_bytes(end, self.segment_bytes) as u64
        } else {
            end
        }
    }

    /// The WAL from `begin`, a record's end, to the MAXALIGNed end of `record` written there, page headers included.
    pub(crate) fn lay_out(&self, begin: Lsn, record: &[u8]) -> Vec<u8> {
        let mut wal = Vec::new();
        let mut rest = record;
        while !rest.is_empty() {
            let at = begin + wal.len() as u64;
            if at.page_offset() == 0 {
                let first = if rest.len() == record.len() {
                    FirstRecord::Starts
                } else {
                    FirstRecord::Continues(rest.len() as u32)
                };
                wal.extend(self.header(at, first));
            }
            let at = begin + wal.len() as u64;
            let room = (WAL_PAGE_BYTES - at.page_offset()) as usize;
            let (here, later) = rest.split_at(rest.len().min(room));
            wal.extend_from_slice(here);
            rest = later;
        }
        let end = begin + wal.len() as u64;
        wal.resize(wal.len() + end.max_align().since(end) as usize, 0);
        wal
    }
}

/// A record without block references, its checksum computed. `main` has at most 255 bytes.
pub(crate) fn encode_record(xid: u32, prev: Lsn, info: u8, rmid: u8, main: &[u8]) -> Vec<u8> {
    assert!(main.len() <= usize::from(u8::MAX), "longer data have another header");
    let total_bytes = RECORD_HEADER_BYTES + 2 + main.len();
    let mut record = Vec::with_capacity(total_bytes);
    record.extend_from_slice(&(total_bytes as u32).to_le_bytes());
    record.extend_from_slice(&xid.to_le_bytes());
    record.extend_from_slice(&prev.0.to_le_bytes());
    record.extend_from_slice(&[info, rmid, 0, 0]);
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&[MAIN_DATA_SHORT, main.len() as u8]);
    record.extend_from_slice(main);
    let checksum = record_checksum(&record);
    record[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    record
}
