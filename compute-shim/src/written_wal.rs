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
