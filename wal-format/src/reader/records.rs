//! Records that are lent by the reader, many at once, where they stand in its buffers.

use crate::{Lsn, Record, Version, WalError};

/// Records that stand in a reader's buffers, their checksums right.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    found: std::slice::Iter<'a, Found>,
    fed: &'a [u8],
    across: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(found: &'a [Found], fed: &'a [u8], across: &'a [u8]) -> Records<'a> {
        Records { found: found.iter(), fed, across }
    }

    /// Decodes all of them, each with its end. An error names the position of the record that has it.
    pub fn decode(self, version: Version) -> Result<Vec<(Record<'a>, Lsn)>, WalError> {
        let mut decoded = Vec::with_capacity(self.len());
        for lent in self {
            let (record, _) = decoded.push_mut((Record::empty(), lent.end));
            let filled = record.fill(version, lent.bytes);
            filled.map_err(|damage| WalError::from(damage).at(lent.start))?;
        }
        Ok(decoded)
    }
}

/// One of [`Records`]: a [`crate::RawRecord`] that is only lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LentRecord<'a> {
    /// As [`crate::RawRecord::start`].
    pub start: Lsn,
    /// As [`crate::RawRecord::end`].
    pub end: Lsn,
    /// As [`crate::RawRecord::bytes`].
    pub bytes: &'a [u8],
}

impl<'a> LentRecord<'a> {
    /// As [`crate::RawRecord::decode`].
    pub fn decode(&self, version: Version) -> Result<Record<'a>, WalError> {
        Record::parse(version, self.bytes).map_err(|error| error.at(self.start))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = LentRecord<'a>;

    #[inline]
    fn next(&mut self) -> Option<LentRecord<'a>> {
        let Found { start, end, at, bytes } = *self.found.next()?;
        Some(LentRecord { start, end, bytes: at.bytes(self.fed, self.across, bytes) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.found.size_hint()
    }
}

impl ExactSizeIterator for Records<'_> {}

/// A record that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) at: Place,
    pub(super) bytes: usize,
}

/// Where the bytes of a found record are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// As they were fed, from here on.
    Fed(usize),
    /// Without the page headers between them: a copy, from here on.
    Across(usize),
}

impl Place {
    /// So many bytes there.
    #[inline]
    pub(super) fn bytes<'b>(self, fed: &'b [u8], across: &'b [u8], count: usize) -> &'b [u8] {
        match self {
            Place::Fed(at) => &fed[at..at + count],
            Place::Across(at) => &across[at..at + count],
        }
    }
}
