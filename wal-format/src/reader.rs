//! Finds the records in a stream of WAL (xlogreader.c: `XLogDecodeNextRecord`).
//!
//! Invariants:
//! * `record_end <= fed_to`: a record counts only when it is there to its aligned end, a segment switch only when
//!   its segment is there to the end.
//! * An error consumes nothing: the same call gives it again, and after [`WalReader::truncate`] and
//!   [`WalReader::feed`] with other bytes reading goes on.

use bytes::{Bytes, BytesMut};

use crate::{
    Damage, Lsn, RECORD_BYTES_MAX, Version, WAL_PAGE_BYTES, WalError,
    fields::Fields,
    record::{RECORD_HEADER_BYTES, RecordHeader, record_checksum},
    rmid,
    wal_page::{FirstRecord, WalPageHeader, header_bytes},
};

/// Records are given out as slices of buffers of this size, larger ones in a buffer of their own.
const ARENA_BYTES: usize = 64 << 10;
/// Consumed bytes are dropped from the front of the fed ones when there are so many.
const CONSUMED_BYTES_MAX: usize = 256 << 10;

/// `XLOG_SWITCH` (pg_control.h).
const SWITCH: u8 = 0x40;
/// `XLOG_OVERWRITE_CONTRECORD` (pg_control.h).
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// One record, its checksum right and its page headers removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRecord {
    /// Where its header begins: the next record's `xl_prev`.
    pub start: Lsn,
    /// Its MAXALIGNed end; after `XLOG_SWITCH` the next segment's start.
    pub end: Lsn,
    /// Its `xl_tot_len` bytes.
    pub bytes: Bytes,
}

/// Reads records from WAL that is fed to it piece by piece.
#[derive(Clone, Debug)]
pub struct WalReader {
    version: Version,
    segment_bytes: u32,
    system_id: Option<u64>,
    /// The bytes fed, page headers and all; those before `record_end` are consumed.
    fed: Vec<u8>,
    /// The position of `fed[0]`.
    fed_from: Lsn,
    record_end: Lsn,
    last_record: Option<Lsn>,
    /// An unfinished record is not looked at again before this much was fed.
    wanted: Lsn,
    arena: BytesMut,
}

/// What the bytes at `record_end` are.
enum Found {
    Record { start: Lsn, end: Lsn, total_bytes: usize, is_overwrite: bool },
    Wants(Lsn),
}

impl WalReader {
    /// A reader from `start`, which is a record's end. `prev` is the start of that record, to check the first
    /// `xl_prev`; where it is `None` that one is not checked.
    pub fn new(version: Version, segment_bytes: u32, start: Lsn, prev: Option<Lsn>) -> WalReader {
        WalReader {
            version,
            segment_bytes,
            system_id: None,
            fed: Vec::new(),
            fed_from: start,
            record_end: start,
            last_record: prev,
            wanted: start,
            arena: BytesMut::new(),
        }
    }

    /// The same reader, which also refuses segments of another cluster.
    pub fn with_system_id(mut self, system_id: u64) -> WalReader {
        self.system_id = Some(system_id);
        self
    }

    /// Takes the WAL bytes from `begin`, which is [`WalReader::fed_to`].
    pub fn feed(&mut self, begin: Lsn, bytes: &[u8]) -> Result<(), WalError> {
        if begin != self.fed_to() {
            return Err(WalError::OutOfOrder { expected: self.fed_to(), begin });
        }
        self.drop_consumed();
        self.fed.extend_from_slice(bytes);
        Ok(())
    }

    /// The next record, or `None` where more bytes are wanted first. All bytes fed count as final: zeros where a
    /// record should begin are damage. For a source that rewrites its tail there is
    /// [`WalReader::next_record_before`].
    pub fn next_record(&mut self) -> Result<Option<RawRecord>, WalError> {
        Ok(None)
    }

    /// The next record of a source that may yet write its bytes from `settled` on again, as Postgres does with the
    /// last page that it wrote. Bytes from there on that make no valid record yet are not damage but wanted
    /// again: `None`.
    pub fn next_record_before(&mut self, settled: Lsn) -> Result<Option<RawRecord>, WalError> {
        let _ = settled;
        self.next_record()
    }

    /// Forgets the bytes fed from `to` on, which the source is about to write again. Records given out stay: of
    /// bytes before [`WalReader::record_end`] none is forgotten.
    pub fn truncate(&mut self, to: Lsn) {
        let to = to.max(self.record_end);
        let keep = to.since(self.fed_from) as usize;
        self.fed.truncate(keep);
        self.wanted = self.wanted.min(to);
    }

    /// The end of the bytes fed.
    pub fn fed_to(&self) -> Lsn {
        self.fed_from + self.fed.len() as u64
    }

    /// The MAXALIGNed end of the last complete record; after `XLOG_SWITCH` the next segment's start.
    pub fn record_end(&self) -> Lsn {
        self.record_end
    }

    /// The start of the last complete record, or the `prev` of [`WalReader::new`] before there was one.
    pub fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    fn drop_consumed(&mut self) {
        let consumed = self.record_end.since(self.fed_from) as usize;
        if consumed == self.fed.len() || consumed >= CONSUMED_BYTES_MAX {
            self.fed.drain(..consumed);
            self.fed_from = self.record_end;
        }
    }
}
