//! What Postgres has written of its WAL, and how far that is complete.
//!
//! Postgres writes whole pages, the last one again and again as it fills, and may write a page
//! whose end another backend is still filling. A record counts from the moment at which all its
//! bytes are there and its CRC is right; from then on they never change (facts tried on stock
//! Postgres: `docs/decisions/0002-wal-leaves-through-the-file-system.md`).
//!
//! Invariants:
//! - `complete_end` never falls, and is a record's end.
//! - Bytes before `complete_end` are never replaced: a write that would is refused.
//! - Bytes from `complete_end` on are as they were last written; Postgres may write them anew from
//!   any position on (after a crash restart it continues behind the last valid record), which
//!   takes all that was written behind them away.

use wal_format::{Lsn, Version, WalError, WalReader};

/// A write that cannot be part of this timeline's WAL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteRefused {
    /// Bytes that were sent to the safekeepers would become others.
    #[error("Postgres wrote other bytes at {at}, before {complete_end}, which is already sent")]
    Rewritten {
        /// Where they differ.
        at: Lsn,
        /// The end of what is sent.
        complete_end: Lsn,
    },
    /// Bytes are missing between what was written before and this.
    #[error("Postgres wrote WAL at {begin}, but what was written before ends at {written_end}")]
    Gap {
        /// Where the write begins.
        begin: Lsn,
        /// Where the one before ends.
        written_end: Lsn,
    },
    /// A page that Postgres has left behind does not hold valid WAL.
    #[error("Postgres wrote WAL that does not check: {0}")]
    Damaged(#[from] WalError),
}

/// The end of the written WAL.
pub(crate) struct WrittenWal {
    reader: WalReader,
}

impl WrittenWal {
    /// WAL that is written up to `end`, a record's end; that record starts at `last_record`.
    pub(crate) fn new(
        version: Version,
        segment_bytes: u32,
        system_id: u64,
        end: Lsn,
        last_record: Lsn,
    ) -> WrittenWal {
        let reader = WalReader::new(version, segment_bytes, end, Some(last_record));
        WrittenWal { reader: reader.with_system_id(system_id) }
    }

    /// The end of the last complete record.
    pub(crate) fn complete_end(&self) -> Lsn {
        self.reader.record_end()
    }

    /// Refuses a write that would replace sent bytes: `old` is what stands where `new`, the part of
    /// it before [`WrittenWal::complete_end`], is to go.
    pub(crate) fn check_rewrite(
        &self,
        begin: Lsn,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), WriteRefused> {
        match old.iter().zip(new).position(|(old, new)| old != new) {
            None => Ok(()),
            Some(offset) => Err(WriteRefused::Rewritten {
                at: begin + offset as u64,
                complete_end: self.complete_end(),
            }),
        }
    }

    /// Takes a write of `bytes` at `begin` in; gives the end of the last complete record.
    pub(crate) fn write(&mut self, begin: Lsn, bytes: &[u8]) -> Result<Lsn, WriteRefused> {
        let written_end = self.reader.fed_to();
        if begin > written_end {
            return Err(WriteRefused::Gap { begin, written_end });
        }
        let end = begin + bytes.len() as u64;
        let from = begin.max(self.complete_end());
        let Some(new) = bytes.get(from.since(begin) as usize..).filter(|new| !new.is_empty())
        else {
            return Ok(self.complete_end());
        };
        self.reader.truncate(from);
        self.reader.feed(from, new)?;
        // Only the last page that was written can still be in the making.
        let settled = Lsn(end.0 - 1).page_start();
        while self.reader.next_record_before(settled)?.is_some() {}
        Ok(self.complete_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_wal::{TestWal, origin_at};

    const BEGIN: Lsn = Lsn(0x0200_1000);

    fn begin() -> (WrittenWal, TestWal) {
        let origin = origin_at(BEGIN);
        let prev = origin.point.last_record;
        let written =
            WrittenWal::new(Version::V15, origin.segment_bytes, origin.system_id, BEGIN, prev);
        (written, TestWal::new(BEGIN, prev, 1))
    }

    fn write_pages(written: &mut WrittenWal, wal: &TestWal) -> Result<Lsn, WriteRefused> {
        let (at, pages) = wal.pages_from(written.complete_end());
        written.write(at, &pages)
    }

    #[test]
    fn a_page_that_fills_counts_to_its_last_complete_record() {
        let (mut written, mut wal) = begin();
        for _ in 0..500 {
            let end = wal.record();
            assert_eq!(write_pages(&mut written, &wal).expect("it is valid"), end);
        }
    }

    #[test]
    fn a_record_over_two_writes_counts_when_its_end_is_there() {
        let (mut written, mut wal) = begin();
        let end = wal.records_to(BEGIN + 40_000);
        let (at, pages) = wal.pages_from(BEGIN);
        let mut complete = BEGIN;
        for (index, page) in pages.chunks(8192).enumerate() {
            let now = written.write(at + index as u64 * 8192, page).expect("it is valid");
            assert!(complete <= now && now <= end);
            complete = now;
        }
        assert_eq!(complete, end);
    }

    #[test]
    fn a_record_that_is_still_being_copied_into_its_page_counts_later() {
        let (mut written, mut wal) = begin();
        let first = wal.record();
        let whole = wal.record();
        let (at, mut pages) = wal.pages_from(BEGIN);
        let hole = first.since(at) as usize + 60;
        pages[hole] ^= 0xFF;
        assert_eq!(written.write(at, &pages).expect("the page may be written again"), first);
        pages[hole] ^= 0xFF;
        assert_eq!(written.write(at, &pages).expect("it is valid"), whole);
    }

    #[test]
    fn damage_in_a_page_that_was_left_behind_is_refused() {
        let (mut written, mut wal) = begin();
        wal.records_to(BEGIN + 20_000);
        let (at, mut pages) = wal.pages_from(BEGIN);
        pages[6_000] ^= 0xFF;
        assert!(matches!(written.write(at, &pages), Err(WriteRefused::Damaged(_))));
    }

    #[test]
    fn postgres_may_write_another_history_behind_the_last_complete_record() {
        let (mut written, mut wal) = begin();
        wal.records_to(BEGIN + 5_000);
        write_pages(&mut written, &wal).expect("it is valid");
        let mut other = wal.clone();
        wal.records_to(BEGIN + 30_000);
        let (at, mut pages) = wal.pages_from(other.end());
        // Half of a record and all of its page: the rest was never written.
        pages.truncate(8192);
        let torn = written.write(at, &pages).expect("it is valid");
        assert!(torn < wal.end());
        let complete = torn.since(other.begin) as usize;
        other.bytes = wal.bytes[..complete].to_vec();
        other.last_record = Lsn(torn.0 - 120);
        while other.end() < BEGIN + 60_000 {
            other.record();
        }
        assert_eq!(write_pages(&mut written, &other).expect("it is valid"), other.end());
    }

    #[test]
    fn bytes_that_were_sent_never_become_others() {
        let (mut written, mut wal) = begin();
        let end = wal.record();
        write_pages(&mut written, &wal).expect("it is valid");
        let old = wal.from(BEGIN).to_vec();
        assert!(written.check_rewrite(BEGIN, &old, &old).is_ok());
        let mut new = old.clone();
        new[50] ^= 1;
        match written.check_rewrite(BEGIN, &old, &new) {
            Err(WriteRefused::Rewritten { at, complete_end }) => {
                assert_eq!((at, complete_end), (BEGIN + 50, end));
            }
            other => panic!("the write was not refused: {other:?}"),
        }
    }

    #[test]
    fn a_write_beyond_the_end_is_refused() {
        let (mut written, _) = begin();
        let refused = written.write(BEGIN + 8192, &[0; 8192]);
        assert!(matches!(refused, Err(WriteRefused::Gap { .. })), "{refused:?}");
    }
}
