//! Heap2's records (Postgres: `src/include/access/heapam_xlog.h`).

use super::{
    Offsets,
    heap::{self, Lock, TupleHeader},
};
use crate::fields::Fields;

/// What a Heap2 record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heap2<'a> {
    /// `XLOG_HEAP2_REWRITE`, `XLOG_HEAP2_NEW_CID`: for logical decoding only.
    Decoding,
    /// `XLOG_HEAP2_PRUNE`; the items are block 0's data.
    Prune(Prune),
    /// `XLOG_HEAP2_VACUUM` of so many items, which are block 0's data.
    Vacuum(u16),
    /// `XLOG_HEAP2_FREEZE_PAGE` of so many tuples, whose plans are block 0's data.
    Freeze(u16),
    /// `XLOG_HEAP2_VISIBLE`; block 0 is the visibility map's, block 1 the heap's.
    Visible(Visible),
    /// `XLOG_HEAP2_MULTI_INSERT`; the tuples are block 0's data.
    MultiInsert(MultiInsert<'a>),
    /// `XLOG_HEAP2_LOCK_UPDATED`.
    LockUpdated(Lock),
}

/// `xl_heap_prune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// How many items become redirections.
    pub redirected: u16,
    /// How many become dead.
    pub dead: u16,
}

/// The items that a prune changes, in block 0's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneItems<'a> {
    /// Pairs: from, to.
    pub redirected: Offsets<'a>,
    /// Those that become dead.
    pub dead: Offsets<'a>,
    /// Those that become unused.
    pub unused: Offsets<'a>,
}

/// `xl_heap_visible`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// The bits to set: 1 all visible, 2 all frozen.
    pub bits: u8,
}

/// `xl_heap_multi_insert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiInsert<'a> {
    /// The number of tuples.
    pub count: u16,
    /// Each tuple's number; `None`: 1, 2, 3, … on a page made anew.
    pub offsets: Option<Offsets<'a>>,
    /// The page was all visible and no longer is.
    pub all_visible_cleared: bool,
    /// All tuples are frozen, and the page is all visible.
    pub all_frozen_set: bool,
}

/// `xl_heap_freeze_tuple`: what freezing does to one tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezePlan {
    /// The tuple's new xmax.
    pub xmax: u32,
    /// The tuple's number.
    pub offset: u16,
    /// The tuple's new `t_infomask2`.
    pub infomask2: u16,
    /// The tuple's new `t_infomask`.
    pub infomask: u16,
    /// `XLH_FREEZE_XVAC`: xvac becomes the frozen transaction.
    pub freeze_xvac: bool,
    /// `XLH_INVALID_XVAC`: xvac becomes none.
    pub invalid_xvac: bool,
}

/// A tuple of a multi-insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiInsertTuple<'a> {
    /// Its header.
    pub header: TupleHeader,
    /// What follows the fixed header.
    pub data: &'a [u8],
}

impl<'a> Heap2<'a> {
    /// Reads the record's main data.
    #[inline]
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Heap2<'a>> {
        let mut fields = Fields::new(main);
        match info & heap::KIND_MASK {
            0x00 | 0x70 => Some(Heap2::Decoding),
            0x10 => {
                fields.skip(4)?;
                Some(Heap2::Prune(Prune { redirected: fields.u16()?, dead: fields.u16()? }))
            }
            0x20 => Some(Heap2::Vacuum(fields.u16()?)),
            0x30 => {
                fields.skip(4)?;
                Some(Heap2::Freeze(fields.u16()?))
            }
            0x40 => {
                fields.skip(4)?;
                Some(Heap2::Visible(Visible { bits: fields.u8()? & 3 }))
            }
            0x50 => {
                let flags = fields.u8()?;
                fields.skip(1)?;
                let count = fields.u16()?;
                let anew = info & heap::INIT_PAGE != 0;
                let offsets = match anew {
                    true => None,
                    false => Some(Offsets::take(&mut fields, usize::from(count))?),
                };
                Some(Heap2::MultiInsert(MultiInsert {
                    count,
                    offsets,
                    all_visible_cleared: flags & 1 != 0,
                    all_frozen_set: flags & 32 != 0,
                }))
            }
            _ => Lock::read(&mut fields).map(Heap2::LockUpdated),
        }
    }
}

impl Prune {
    /// Reads block 0's data.
    pub fn items<'a>(&self, data: &'a [u8]) -> Option<PruneItems<'a>> {
        let mut fields = Fields::new(data);
        Some(PruneItems {
            redirected: Offsets::take(&mut fields, usize::from(self.redirected) * 2)?,
            dead: Offsets::take(&mut fields, usize::from(self.dead))?,
            unused: Offsets::rest(&mut fields)?,
        })
    }
}

impl FreezePlan {
    /// Reads one plan, 12 bytes with its padding, from the front.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<FreezePlan> {
        let (xmax, offset) = (fields.u32()?, fields.u16()?);
        let (infomask2, infomask) = (fields.u16()?, fields.u16()?);
        let flags = fields.u8()?;
        fields.skip(1)?;
        let (freeze_xvac, invalid_xvac) = (flags & 2 != 0, flags & 4 != 0);
        Some(FreezePlan { xmax, offset, infomask2, infomask, freeze_xvac, invalid_xvac })
    }
}

impl<'a> MultiInsertTuple<'a> {
    /// Reads one tuple from the front of what is left of `total` bytes; each begins at an even distance from their start.
    pub(crate) fn read(fields: &mut Fields<'a>, total: usize) -> Option<MultiInsertTuple<'a>> {
        fields.skip((total - fields.rest().len()) % 2)?;
        let bytes = usize::from(fields.u16()?);
        let header = TupleHeader::read(fields)?;
        Some(MultiInsertTuple { header, data: fields.take(bytes)? })
    }
}
