//! The payloads of Postgres' resource managers, one module each: what the bytes of a record say, read without a copy.
//!
//! Reading gives `None` where the bytes are too short or contradict themselves; what the numbers mean for a page is `redo`'s to check.

pub mod brin;
pub mod btree;
pub mod clog;
pub mod commit_ts;
pub mod database;
pub mod generic;
pub mod gin;
pub mod gist;
pub mod hash;
pub mod heap;
pub mod heap2;
pub mod multixact;
pub mod relmap;
pub mod replication_origin;
pub mod sequence;
pub mod spgist;
pub mod storage;
pub mod tablespace;
pub mod transaction;
pub mod xlog;

use crate::{Relation, fields::Fields};

/// The bits of `xl_info` that belong to the resource manager (`~XLR_INFO_MASK`).
pub(crate) const INFO_MASK: u8 = 0xF0;

/// Little-endian numbers of two bytes, one after the other: item numbers, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets<'a>(&'a [u8]);

impl<'a> Offsets<'a> {
    /// Takes `count` of them from the front.
    pub(crate) fn take(fields: &mut Fields<'a>, count: usize) -> Option<Offsets<'a>> {
        fields.take(count.checked_mul(2)?).map(Offsets)
    }

    /// All that is left, where it is a whole number of them.
    pub(crate) fn rest(fields: &mut Fields<'a>) -> Option<Offsets<'a>> {
        let bytes = fields.rest();
        bytes.len().is_multiple_of(2).then_some(Offsets(bytes))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number at this index.
    pub fn get(&self, index: usize) -> Option<u16> {
        let bytes = self.0.get(index.checked_mul(2)?..)?.first_chunk()?;
        Some(u16::from_le_bytes(*bytes))
    }

    /// Each in turn.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = u16> + ExactSizeIterator + Clone + use<'a> {
        self.0.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }
}

/// Little-endian numbers of four bytes, one after the other: transactions, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xids<'a>(&'a [u8]);

impl<'a> Xids<'a> {
    pub(crate) const NONE: Xids<'static> = Xids(&[]);

    /// Takes `count` of them from the front.
    pub(crate) fn take(fields: &mut Fields<'a>, count: usize) -> Option<Xids<'a>> {
        fields.take(count.checked_mul(4)?).map(Xids)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each in turn.
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator + Clone + use<'a> {
        self.0.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    }
}

/// A `RelFileNode`: tablespace, database, relation.
pub(crate) fn relation(fields: &mut Fields<'_>) -> Option<Relation> {
    Some(Relation { tablespace: fields.u32()?, database: fields.u32()?, number: fields.u32()? })
}
