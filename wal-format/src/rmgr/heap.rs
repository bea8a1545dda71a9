//! Heap's records (Postgres: `src/include/access/heapam_xlog.h`).

use crate::fields::Fields;

/// `XLOG_HEAP_OPMASK`.
pub(crate) const KIND_MASK: u8 = 0x70;
/// `XLOG_HEAP_INIT_PAGE`: the page is made anew.
pub(crate) const INIT_PAGE: u8 = 0x80;

/// What a Heap record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heap {
    /// `XLOG_HEAP_INSERT`; the tuple is block 0's data.
    Insert(Insert),
    /// `XLOG_HEAP_DELETE`.
    Delete(Delete),
    /// `XLOG_HEAP_UPDATE`, `XLOG_HEAP_HOT_UPDATE`; the new tuple is block 0's data.
    Update(Update),
    /// `XLOG_HEAP_TRUNCATE`: for logical decoding only.
    Truncate,
    /// `XLOG_HEAP_CONFIRM` of the tuple with this number.
    Confirm(u16),
    /// `XLOG_HEAP_LOCK`.
    Lock(Lock),
    /// `XLOG_HEAP_INPLACE` of the tuple with this number; its new contents are block 0's data.
    Inplace(u16),
}

/// `xl_heap_insert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// The tuple's number.
    pub offset: u16,
    /// The page was all visible and no longer is.
    pub all_visible_cleared: bool,
}

/// `xl_heap_delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The tuple's new xmax.
    pub xmax: u32,
    /// The tuple's number.
    pub offset: u16,
    /// What xmax is.
    pub xmax_bits: XmaxBits,
    /// The page was all visible and no longer is.
    pub all_visible_cleared: bool,
    /// A speculative insertion is taken back.
    pub speculative: bool,
    /// The row went to another partition.
    pub moved_partition: bool,
}

/// `xl_heap_update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Whether the new tuple is on the old one's page and no index changes.
    pub hot: bool,
    /// The old tuple's new xmax.
    pub old_xmax: u32,
    /// The old tuple's number.
    pub old_offset: u16,
    /// What that xmax is.
    pub old_xmax_bits: XmaxBits,
    /// The new tuple's xmax.
    pub new_xmax: u32,
    /// The new tuple's number.
    pub new_offset: u16,
    /// The old tuple's page was all visible and no longer is.
    pub old_all_visible_cleared: bool,
    /// The new tuple's page was all visible and no longer is.
    pub new_all_visible_cleared: bool,
    /// The new tuple begins as the old one does; how far stands in block 0's data.
    pub prefix_from_old: bool,
    /// The new tuple ends as the old one does; how far stands in block 0's data.
    pub suffix_from_old: bool,
}

/// `xl_heap_lock`, `xl_heap_lock_updated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The tuple's new xmax.
    pub xmax: u32,
    /// The tuple's number.
    pub offset: u16,
    /// What xmax is.
    pub xmax_bits: XmaxBits,
    /// The page was all frozen and no longer is.
    pub all_frozen_cleared: bool,
}

/// `infobits_set`: `XLHL_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XmaxBits(pub u8);

/// `xl_heap_header`: what of a tuple's header is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleHeader {
    /// `t_infomask2`.
    pub infomask2: u16,
    /// `t_infomask`.
    pub infomask: u16,
    /// `t_hoff`: where the tuple's data begin.
    pub data_offset: u8,
}

impl TupleHeader {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<TupleHeader> {
        let (infomask2, infomask) = (fields.u16()?, fields.u16()?);
        Some(TupleHeader { infomask2, infomask, data_offset: fields.u8()? })
    }
}

impl Heap {
    /// Reads the record's main data.
    #[inline]
    pub fn parse(info: u8, main: &[u8]) -> Option<Heap> {
        let mut fields = Fields::new(main);
        match info & KIND_MASK {
            0x00 => {
                let (offset, flags) = (fields.u16()?, fields.u8()?);
                Some(Heap::Insert(Insert { offset, all_visible_cleared: flags & 1 != 0 }))
            }
            0x10 => {
                let (xmax, offset) = (fields.u32()?, fields.u16()?);
                let (bits, flags) = (fields.u8()?, fields.u8()?);
                Some(Heap::Delete(Delete {
                    xmax,
                    offset,
                    xmax_bits: XmaxBits(bits),
                    all_visible_cleared: flags & 1 != 0,
                    speculative: flags & 8 != 0,
                    moved_partition: flags & 16 != 0,
                }))
            }
            kind @ (0x20 | 0x40) => {
                let (old_xmax, old_offset) = (fields.u32()?, fields.u16()?);
                let (bits, flags) = (fields.u8()?, fields.u8()?);
                let (new_xmax, new_offset) = (fields.u32()?, fields.u16()?);
                Some(Heap::Update(Update {
                    hot: kind == 0x40,
                    old_xmax,
                    old_offset,
                    old_xmax_bits: XmaxBits(bits),
                    new_xmax,
                    new_offset,
                    old_all_visible_cleared: flags & 1 != 0,
                    new_all_visible_cleared: flags & 2 != 0,
                    prefix_from_old: flags & 32 != 0,
                    suffix_from_old: flags & 64 != 0,
                }))
            }
            0x30 => Some(Heap::Truncate),
            0x50 => Some(Heap::Confirm(fields.u16()?)),
            0x60 => Lock::read(&mut fields).map(Heap::Lock),
            _ => Some(Heap::Inplace(fields.u16()?)),
        }
    }
}

impl Lock {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Lock> {
        let (xmax, offset) = (fields.u32()?, fields.u16()?);
        let (bits, flags) = (fields.u8()?, fields.u8()?);
        let xmax_bits = XmaxBits(bits);
        Some(Lock { xmax, offset, xmax_bits, all_frozen_cleared: flags & 1 != 0 })
    }
}
