//! Finds the records in a stream of WAL (xlogreader.c: `XLogDecodeNextRecord`).
//!
//! Invariants:
//! * `record_end <= fed_to`: a record counts only when it is there to its aligned end, a segment switch only when
//!   its segment is there to the end.
//! * An error consumes nothing: the same call gives it again, and after [`WalReader::truncate`] and
//!   [`WalReader::feed`] with other bytes reading goes on.
#![doc = ""]
#![doc = include_str!("../../docs/formats/wal.md")]

mod records;

use bytes::Bytes;

use records::{Found, Place};
pub use records::{LentRecord, Records};

use crate::{
    Damage, FirstRecord, Lsn, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, Record, Version,
    WAL_PAGE_BYTES, WalError, WalPageHeader,
    fields::Fields,
    header_bytes,
    record::{RecordHeader, record_checksum},
    rmgr::xlog::kind,
    rmid,
};

/// Consumed bytes are dropped from the front of the fed ones when there are so many.
const CONSUMED_BYTES_MAX: usize = 32 << 10;
/// What a reader keeps allocated for the bytes that are fed next.
const FED_CAPACITY_KEPT: usize = 1 << 20;

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

impl RawRecord {
    /// Decodes the record. An error names its position.
    pub fn decode(&self, version: Version) -> Result<Record<'_>, WalError> {
        Record::parse(version, &self.bytes).map_err(|error| error.at(self.start))
    }
}

/// Reads records from WAL that is fed to it piece by piece.
#[derive(Clone, Debug)]
pub struct WalReader {
    version: Version,
    segment_bytes: u32,
    system_id: Option<u64>,
    /// The bytes fed, page headers and all, then room for more; those before `record_end` are consumed.
    room: Vec<u8>,
    /// Bytes fed.
    filled: usize,
    /// The position of the first byte.
    fed_from: Lsn,
    record_end: Lsn,
    last_record: Option<Lsn>,
    /// How far the record after `record_end` was walked before bytes were wanting.
    walk: Option<Walk>,
    /// The last [`Records`].
    found: Vec<Found>,
    /// Those of them that cross pages, without the page headers; or the last [`RawRecord`] where it does.
    across: Vec<u8>,
}

/// The way through the pages of one record.
#[derive(Clone, Copy, Debug)]
struct Walk {
    start: Lsn,
    total_bytes: u32,
    /// Where the next piece of the record begins: its start, or a page that it continues on.
    at: Lsn,
    /// The record's bytes from `at` on.
    remaining: u32,
    /// The unfinished record whose place this one takes.
    overwrites: Option<Lsn>,
}

/// Why there is no record yet.
enum Stop {
    /// More bytes must be fed.
    Wants,
    /// The bytes before `until` are wrong.
    Damaged { error: WalError, until: Lsn },
}

impl WalReader {
    /// A reader from `start`, which is a record's end. `prev` is the start of that record, to check the first
    /// `xl_prev`; where it is `None` that one is not checked.
    pub fn new(version: Version, segment_bytes: u32, start: Lsn, prev: Option<Lsn>) -> WalReader {
        WalReader {
            version,
            segment_bytes,
            system_id: None,
            room: Vec::new(),
            filled: 0,
            fed_from: start,
            record_end: start,
            last_record: prev,
            walk: None,
            found: Vec::new(),
            across: Vec::new(),
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
        self.room.truncate(self.filled);
        self.room.extend_from_slice(bytes);
        self.filled = self.room.len();
        Ok(())
    }

    /// Room for so many bytes behind those fed, with whatever is in it. Those that were put there are fed by
    /// [`WalReader::feed_room`]: what comes from a socket need not be copied once more.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.drop_consumed();
        let end = self.filled + bytes;
        if self.room.len() < end {
            self.room.resize(end, 0);
        }
        &mut self.room[self.filled..end]
    }

    /// Takes the WAL bytes from [`WalReader::fed_to`] that stand at the beginning of the room.
    ///
    /// # Panics
    /// Where there was less room.
    pub fn feed_room(&mut self, bytes: usize) {
        assert!(self.filled + bytes <= self.room.len(), "more than there was room for");
        self.filled += bytes;
    }

    /// The next record, or `None` where more bytes are wanted first. All bytes fed count as final: zeros where a
    /// record should begin are damage. For a source that writes its tail again there is
    /// [`WalReader::next_record_before`].
    pub fn next_record(&mut self) -> Result<Option<RawRecord>, WalError> {
        self.next_record_before(Lsn::MAX)
    }

    /// The next record of a source that may yet write its bytes from `settled` on again, as Postgres does with the
    /// last page that it wrote. Bytes from there on that make no valid record yet are not damage, but wanted
    /// again: `None`.
    pub fn next_record_before(&mut self, settled: Lsn) -> Result<Option<RawRecord>, WalError> {
        self.forget_found();
        match self.find() {
            Ok(Found { start, end, at, bytes }) => {
                let bytes = Bytes::copy_from_slice(at.bytes(self.fed(), &self.across, bytes));
                self.pass(start, end);
                Ok(Some(RawRecord { start, end, bytes }))
            }
            Err(Stop::Wants) => Ok(None),
            Err(Stop::Damaged { until, .. }) if until > settled => Ok(None),
            Err(Stop::Damaged { error, .. }) => Err(error),
        }
    }

    /// The next records, at most `most` of them, without a copy where they lie on one page; none where more bytes are wanted first.
    /// What is wrong with a later one the call after this one says. Otherwise as [`WalReader::next_record`].
    pub fn next_records(&mut self, most: usize) -> Result<Records<'_>, WalError> {
        self.forget_found();
        while self.found.len() < most {
            match self.find() {
                Ok(found) => {
                    self.pass(found.start, found.end);
                    self.found.push(found);
                }
                Err(Stop::Damaged { error, .. }) if self.found.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(Records::new(&self.found, self.fed(), &self.across))
    }

    /// Forgets the bytes fed from `to` on, which the source is about to write again. Records given out stay: of the
    /// bytes before [`WalReader::record_end`] none is forgotten.
    pub fn truncate(&mut self, to: Lsn) {
        let to = to.max(self.record_end);
        self.filled = self.filled.min(to.since(self.fed_from) as usize);
        self.walk = self.walk.filter(|walk| walk.at <= to);
    }

    /// The end of the bytes fed.
    pub fn fed_to(&self) -> Lsn {
        self.fed_from + self.filled as u64
    }

    /// The MAXALIGNed end of the last complete record; after `XLOG_SWITCH` the next segment's start.
    pub fn record_end(&self) -> Lsn {
        self.record_end
    }

    /// The start of the last complete record, or the `prev` of [`WalReader::new`] before there was one.
    pub fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    fn forget_found(&mut self) {
        self.found.clear();
        self.across.clear();
        self.across.shrink_to(FED_CAPACITY_KEPT);
    }

    fn drop_consumed(&mut self) {
        let consumed = self.record_end.since(self.fed_from) as usize;
        if consumed == self.filled || consumed >= CONSUMED_BYTES_MAX {
            self.room.copy_within(consumed..self.filled, 0);
            self.filled -= consumed;
            self.fed_from = self.record_end;
            // A large record or a switch's empty segment came by: of many readers, each would keep its room.
            if self.room.capacity() > FED_CAPACITY_KEPT {
                self.room.truncate(self.filled.max(FED_CAPACITY_KEPT));
                self.room.shrink_to_fit();
            }
        }
    }

    fn fed(&self) -> &[u8] {
        &self.room[..self.filled]
    }

    /// The bytes fed of `[begin, begin + count)`, where all of them are there.
    fn fed_bytes(&self, begin: Lsn, count: usize) -> Result<&[u8], Stop> {
        let from = begin.since(self.fed_from) as usize;
        self.fed().get(from..from + count).ok_or(Stop::Wants)
    }

    /// Goes on after a record.
    fn pass(&mut self, start: Lsn, end: Lsn) {
        assert!(self.record_end < end && end <= self.fed_to());
        self.record_end = end;
        self.last_record = Some(start);
        self.walk = None;
    }

    /// The record after `record_end`.
    #[inline]
    fn find(&mut self) -> Result<Found, Stop> {
        match self.find_on_page() {
            Some(found) => Ok(found),
            None => self.find_across(),
        }
    }

    /// The record after `record_end` where it is as most are: whole, sound, and within the page that it begins on. Where it is not,
    /// [`WalReader::find_across`] says what it is.
    fn find_on_page(&self) -> Option<Found> {
        let start = self.record_end;
        if self.walk.is_some() || start.page_offset() == 0 {
            return None;
        }
        let from = start.since(self.fed_from) as usize;
        let fed = self.fed().get(from..)?;
        let header = RecordHeader::read(&mut Fields::new(fed))?;
        let bytes = header.total_bytes as usize;
        let end = (start + bytes as u64).max_align();
        if !(RECORD_HEADER_BYTES..=left_on_page(start) as usize).contains(&bytes)
            || self.fed_to() < end
        {
            return None;
        }
        let is_sound = self.check_header(start, &header).is_ok()
            && header.checksum == record_checksum(fed.get(..bytes)?)
            && !header.is_switch();
        is_sound.then_some(Found { start, end, at: Place::Fed(from), bytes })
    }

    /// The record after `record_end`, wherever it ends; its bytes are added to `across`.
    fn find_across(&mut self) -> Result<Found, Stop> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => self.begin(self.record_end, None)?,
        };
        while walk.remaining > 0 {
            match self.step(walk) {
                Ok(next) => walk = next,
                Err(stop) => {
                    self.walk = Some(walk);
                    return Err(stop);
                }
            }
        }
        let end = walk.at.max_align();
        if self.fed_to() < end {
            self.walk = Some(walk);
            return Err(Stop::Wants);
        }
        let at = self.across.len();
        self.copy_across(walk.start, walk.total_bytes as usize);
        let found = self.check(walk, at, end);
        if found.is_err() {
            self.across.truncate(at);
            self.walk = Some(walk);
        }
        found
    }

    /// Begins a record at `from`, the end of the one before, or the start of the page where one is overwritten.
    fn begin(&self, from: Lsn, overwrites: Option<Lsn>) -> Result<Walk, Stop> {
        let mut start = from;
        if from.page_offset() == 0 {
            let (header, bytes) = self.page_header(from)?;
            start += bytes;
            if let FirstRecord::Continues(found) = header.first {
                return Err(damaged(from, start, Damage::Continuation { expected: 0, found }));
            }
        }
        let found = self.fed_bytes(start, 4)?;
        let total_bytes = Fields::new(found).u32().ok_or(Stop::Wants)?;
        if !(RECORD_HEADER_BYTES..=RECORD_BYTES_MAX).contains(&(total_bytes as usize)) {
            return Err(damaged(start, start + 4, Damage::RecordLength { found: total_bytes }));
        }
        // A wrong record is better found now than after as many bytes as its wrong length says.
        if left_on_page(start) >= RECORD_HEADER_BYTES as u32 {
            let header = self.fed_bytes(start, RECORD_HEADER_BYTES)?;
            read_header(header)
                .and_then(|header| self.check_header(start, &header))
                .map_err(|damage| damaged(start, start + RECORD_HEADER_BYTES as u64, damage))?;
        }
        Ok(Walk { start, total_bytes, at: start, remaining: total_bytes, overwrites })
    }

    /// Takes the record's bytes on one page.
    fn step(&self, walk: Walk) -> Result<Walk, Stop> {
        let Walk { start, mut at, remaining, .. } = walk;
        if at != start {
            let (header, bytes) = self.page_header(at)?;
            match header.first {
                FirstRecord::Continues(found) if found == remaining => {}
                FirstRecord::Overwrites => return self.begin(at, Some(start)),
                FirstRecord::Continues(found) => {
                    return Err(damaged(
                        at,
                        at + bytes,
                        Damage::Continuation { expected: remaining, found },
                    ));
                }
                FirstRecord::Starts => {
                    let damage = Damage::Continuation { expected: remaining, found: 0 };
                    return Err(damaged(at, at + bytes, damage));
                }
            }
            at += bytes;
        }
        let here = remaining.min(left_on_page(at));
        Ok(Walk { at: at + u64::from(here), remaining: remaining - here, ..walk })
    }

    /// Reads and checks the header of the page at `page`; with it, its length.
    fn page_header(&self, page: Lsn) -> Result<(WalPageHeader, u64), Stop> {
        let length = header_bytes(page, self.segment_bytes);
        let end = page + length as u64;
        let header = WalPageHeader::decode(
            self.version,
            page,
            self.segment_bytes,
            self.fed_bytes(page, length)?,
        )
        .map_err(|damage| damaged(page, end, damage))?;
        if let (Some(expected), Some(segment)) = (self.system_id, header.segment)
            && segment.system_id != expected
        {
            return Err(damaged(
                page,
                end,
                Damage::SystemId { expected, found: segment.system_id },
            ));
        }
        Ok((header, length as u64))
    }

    /// xlogreader.c: `ValidXLogRecordHeader`.
    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<(), Damage> {
        if header.rmid > rmid::BUILTIN_MAX && header.rmid < rmid::CUSTOM_MIN {
            return Err(Damage::Malformed { part: "xl_rmid" });
        }
        match self.last_record {
            Some(expected) if header.prev != expected => {
                Err(Damage::PreviousRecord { expected, found: header.prev })
            }
            None if header.prev >= start => {
                Err(Damage::PreviousRecord { expected: Lsn::INVALID, found: header.prev })
            }
            _ => Ok(()),
        }
    }

    /// Checks a walked record up to `end`, whose bytes were copied to this place.
    fn check(&self, walk: Walk, at: usize, mut end: Lsn) -> Result<Found, Stop> {
        let Walk { start, .. } = walk;
        let bytes = &self.across[at..];
        let wrong = |damage| damaged(start, end, damage);
        let header = read_header(bytes).map_err(wrong)?;
        self.check_header(start, &header).map_err(wrong)?;
        let expected = record_checksum(bytes);
        if header.checksum != expected {
            return Err(wrong(Damage::RecordChecksum { expected, found: header.checksum }));
        }
        if walk.overwrites.is_some_and(|unfinished| !is_overwrite_of(unfinished, &header, bytes)) {
            return Err(wrong(Damage::Overwritten));
        }
        if header.is_switch() {
            let segment_bytes = u64::from(self.segment_bytes);
            end = Lsn(end.0.next_multiple_of(segment_bytes));
            if self.fed_to() < end {
                return Err(Stop::Wants);
            }
        }
        Ok(Found { start, end, at: Place::Across(at), bytes: bytes.len() })
    }

    /// Copies the record's `total_bytes` bytes from `start`, all of them fed and their pages checked, without page headers.
    fn copy_across(&mut self, start: Lsn, total_bytes: usize) {
        let (mut at, mut left) = (start, total_bytes);
        loop {
            let here = left.min(left_on_page(at) as usize);
            let from = at.since(self.fed_from) as usize;
            self.across.extend_from_slice(&self.room[from..from + here]);
            left -= here;
            if left == 0 {
                return;
            }
            at += here as u64;
            at += header_bytes(at, self.segment_bytes) as u64;
        }
    }
}

fn read_header(bytes: &[u8]) -> Result<RecordHeader, Damage> {
    RecordHeader::read(&mut Fields::new(bytes)).ok_or(Damage::Malformed { part: "XLogRecord" })
}

fn damaged(at: Lsn, until: Lsn, damage: Damage) -> Stop {
    Stop::Damaged { error: WalError::Damaged { at, damage }, until }
}

/// Bytes from `at` to the end of its WAL page.
fn left_on_page(at: Lsn) -> u32 {
    (WAL_PAGE_BYTES - at.page_offset()) as u32
}

/// Whether the record says that it stands in place of the unfinished one at `unfinished`
/// (xlogrecord.h: `xl_overwrite_contrecord`).
fn is_overwrite_of(unfinished: Lsn, header: &RecordHeader, bytes: &[u8]) -> bool {
    // After the header: the id and the length of the main data, then the position.
    let mut fields = Fields::new(bytes);
    let position = fields.skip(RECORD_HEADER_BYTES + 2).and_then(|()| fields.u64());
    header.rmid == rmid::XLOG
        && header.kind() == kind::OVERWRITE_CONTRECORD
        && position == Some(unfinished.0)
}

#[cfg(test)]
mod tests;
