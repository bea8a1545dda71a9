//! A heap tuple's header (Postgres: `src/include/access/htup_details.h`).
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 0 | `t_xmin` | | 12 | `t_ctid`: block's high half, low half, item |
//! | 4 | `t_xmax` | | 18 | `t_infomask2` |
//! | 8 | `t_cid`, or `t_xvac` | | 20 | `t_infomask` |
//! | | | | 22 | `t_hoff` |

use std::ops::Range;

use crate::{
    Page, PageError,
    rmgr::heap::{TupleHeader, XmaxBits},
};

/// Bytes of the fixed header (`SizeofHeapTupleHeader`).
pub(super) const HEADER_BYTES: usize = 23;

/// Bits of `t_infomask`.
mod infomask {
    pub const XMAX_KEYSHR_LOCK: u16 = 0x0010;
    pub const COMBOCID: u16 = 0x0020;
    pub const XMAX_EXCL_LOCK: u16 = 0x0040;
    pub const XMAX_LOCK_ONLY: u16 = 0x0080;
    pub const XMAX_COMMITTED: u16 = 0x0400;
    pub const XMAX_INVALID: u16 = 0x0800;
    pub const XMAX_IS_MULTI: u16 = 0x1000;
    pub const MOVED: u16 = 0xC000;
    pub const LOCKS: u16 = XMAX_KEYSHR_LOCK | XMAX_EXCL_LOCK;
    /// All that says something of xmax (`HEAP_XMAX_BITS`).
    pub const XMAX: u16 = XMAX_COMMITTED | XMAX_INVALID | XMAX_IS_MULTI | LOCKS | XMAX_LOCK_ONLY;
}

/// `HEAP_KEYS_UPDATED` of `t_infomask2`.
const KEYS_UPDATED: u16 = 0x2000;
/// `HEAP_HOT_UPDATED` of `t_infomask2`.
const HOT_UPDATED: u16 = 0x4000;

/// A row's place: its block and item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TupleId {
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl TupleId {
    /// What `t_ctid` holds once the row went to another partition (`ItemPointerSetMovedPartitions`).
    pub(super) const MOVED_PARTITION: TupleId = TupleId { block: u32::MAX, offset: 0xFFFD };
}

/// A tuple on a page.
pub(super) struct Tuple<'a> {
    header: &'a mut [u8; HEADER_BYTES],
    /// What follows the fixed header: the null bitmap, padding and data.
    rest: &'a mut [u8],
}

impl<'a> Tuple<'a> {
    /// The tuple of this item, which must be an ordinary one.
    pub(super) fn of(page: &'a mut Page, offset: u16) -> Result<Tuple<'a>, PageError> {
        let range = Tuple::range(page, offset)?;
        let short = PageError::Content("the tuple is shorter than its header");
        let (header, rest) = page.bytes_mut()[range].split_first_chunk_mut().ok_or(short)?;
        Ok(Tuple { header, rest })
    }

    /// Where it stands in the page.
    fn range(page: &Page, offset: u16) -> Result<Range<usize>, PageError> {
        let pointer = page.line_pointer(offset)?;
        if !pointer.is_normal() {
            return Err(PageError::LinePointer { offset });
        }
        page.range_of(offset, pointer)
    }

    /// Where the data of an item's tuple stand in the page: after its header, its padding and the null bitmap.
    pub(super) fn data_range(page: &Page, offset: u16) -> Result<Range<usize>, PageError> {
        let range = Tuple::range(page, offset)?;
        let tuple = &page.bytes()[range.clone()];
        let header = tuple
            .first_chunk::<HEADER_BYTES>()
            .ok_or(PageError::Content("the tuple is shorter than its header"))?;
        let from = usize::from(header[22]);
        if from > tuple.len() {
            return Err(PageError::Content("the tuple ends before its data"));
        }
        Ok(range.start + from..range.end)
    }

    /// Writes the header of a tuple that redo makes: its command is the first one.
    pub(super) fn make(
        to: &mut [u8; HEADER_BYTES],
        header: TupleHeader,
        xmin: u32,
        xmax: u32,
        place: TupleId,
    ) {
        *to = [0; HEADER_BYTES];
        let mut tuple = Tuple { header: to, rest: &mut [] };
        tuple.set_infomasks(header.infomask2, header.infomask & !infomask::COMBOCID);
        tuple.header[22] = header.data_offset;
        tuple.set_xmin(xmin);
        tuple.set_xmax(xmax);
        tuple.set_ctid(place);
    }

    pub(super) fn set_xmin(&mut self, xid: u32) {
        self.put_u32(0, xid);
    }

    pub(super) fn set_xmax(&mut self, xid: u32) {
        self.put_u32(4, xid);
    }

    pub(super) fn set_xvac(&mut self, xid: u32) {
        self.put_u32(8, xid);
    }

    pub(super) fn set_ctid(&mut self, place: TupleId) {
        self.put_u16(12, (place.block >> 16) as u16);
        self.put_u16(14, place.block as u16);
        self.put_u16(16, place.offset);
    }

    pub(super) fn set_infomasks(&mut self, infomask2: u16, infomask: u16) {
        self.put_u16(18, infomask2);
        self.put_u16(20, infomask);
    }

    pub(super) fn set_hot_updated(&mut self, on: bool) {
        let old = self.u16_at(18);
        self.put_u16(18, if on { old | HOT_UPDATED } else { old & !HOT_UPDATED });
    }

    /// The command that deleted it is the first one (`HeapTupleHeaderSetCmax`).
    pub(super) fn set_first_command(&mut self) {
        self.put_u32(8, 0);
        let infomask = self.u16_at(20);
        self.put_u16(20, infomask & !infomask::COMBOCID);
    }

    /// Forgets all of the old xmax and says what the new one is (heapam.c, `fix_infomask_from_infobits`).
    pub(super) fn set_xmax_bits(&mut self, bits: XmaxBits) {
        let has = |bit: u8, mask: u16| if bits.0 & bit != 0 { mask } else { 0 };
        let infomask = self.u16_at(20) & !(infomask::XMAX | infomask::MOVED)
            | has(0x01, infomask::XMAX_IS_MULTI)
            | has(0x02, infomask::XMAX_LOCK_ONLY)
            | has(0x04, infomask::XMAX_EXCL_LOCK)
            | has(0x08, infomask::XMAX_KEYSHR_LOCK);
        let infomask2 = self.u16_at(18) & !KEYS_UPDATED | has(0x10, KEYS_UPDATED);
        self.set_infomasks(infomask2, infomask);
    }

    /// Whether xmax only locks (`HEAP_XMAX_IS_LOCKED_ONLY`).
    pub(super) fn is_only_locked(&self) -> bool {
        let infomask = self.u16_at(20);
        infomask & infomask::XMAX_LOCK_ONLY != 0
            || infomask & (infomask::XMAX_IS_MULTI | infomask::LOCKS) == infomask::XMAX_EXCL_LOCK
    }

    /// What follows the header, its padding and the null bitmap.
    pub(super) fn data_mut(&mut self) -> Result<&mut [u8], PageError> {
        let short = PageError::Content("the tuple ends before its data");
        let from = usize::from(self.header[22]).checked_sub(HEADER_BYTES);
        from.and_then(|from| self.rest.get_mut(from..)).ok_or(short)
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.header[at], self.header[at + 1]])
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}
