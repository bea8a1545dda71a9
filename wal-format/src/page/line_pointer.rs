//! Line pointers (Postgres: `src/include/storage/itemid.h`): offset 15 bits, state 2 bits, length 15 bits.

use super::{LINE_POINTER_BYTES, PAGE_HEADER_BYTES, Page, PageError, align8};
use crate::PAGE_BYTES;

/// What a line pointer stands for (`lp_flags`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LinePointerState {
    /// Free (`LP_UNUSED`).
    Unused = 0,
    /// Points at an item (`LP_NORMAL`).
    Normal = 1,
    /// Stands for another line pointer, whose number is in the offset (`LP_REDIRECT`).
    Redirect = 2,
    /// Dead, with or without an item (`LP_DEAD`).
    Dead = 3,
}

/// A line pointer (`ItemIdData`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinePointer(u32);

impl LinePointer {
    /// A free one.
    pub const UNUSED: LinePointer = LinePointer(0);

    /// From its parts; what is above 15 bits is cut off.
    pub const fn new(state: LinePointerState, offset: usize, length: usize) -> LinePointer {
        LinePointer(offset as u32 & 0x7FFF | (state as u32) << 15 | (length as u32 & 0x7FFF) << 17)
    }

    /// The item's position in the page, or the line pointer's number that this redirects to.
    pub fn offset(self) -> usize {
        (self.0 & 0x7FFF) as usize
    }

    /// The item's length; 0 where there is none.
    pub fn length(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// Its state.
    pub fn state(self) -> LinePointerState {
        match self.0 >> 15 & 3 {
            0 => LinePointerState::Unused,
            1 => LinePointerState::Normal,
            2 => LinePointerState::Redirect,
            _ => LinePointerState::Dead,
        }
    }

    /// Whether it is in use in any way (`ItemIdIsUsed`).
    pub fn is_used(self) -> bool {
        self.0 & 3 << 15 != 0
    }

    /// Whether it points at an ordinary item (`ItemIdIsNormal`).
    pub fn is_normal(self) -> bool {
        self.0 >> 15 & 3 == LinePointerState::Normal as u32
    }

    /// Whether there is an item behind it (`ItemIdHasStorage`).
    pub fn has_storage(self) -> bool {
        self.length() != 0
    }

    /// The same at another position.
    pub(crate) fn at(self, offset: usize) -> LinePointer {
        LinePointer(self.0 & !0x7FFF | offset as u32 & 0x7FFF)
    }

    /// The same, its item at another position where it has one. Without a branch, for those who look at many.
    pub(super) fn with_item_at(self, offset: u32) -> LinePointer {
        let moved = u32::from(self.has_storage()).wrapping_neg() & 0x7FFF;
        LinePointer(self.0 & !moved | offset & moved)
    }

    /// Where its item ends with the padding after it.
    pub(super) fn aligned_end(self) -> usize {
        self.offset() + align8(self.length())
    }

    pub(super) fn from_bytes(bytes: [u8; LINE_POINTER_BYTES]) -> LinePointer {
        LinePointer(u32::from_le_bytes(bytes))
    }

    pub(super) fn to_bytes(self) -> [u8; LINE_POINTER_BYTES] {
        self.0.to_le_bytes()
    }
}

impl Page {
    /// The number of line pointers; 0 on a new page (Postgres: `PageGetMaxOffsetNumber`).
    pub fn max_offset(&self) -> u16 {
        let lower = usize::from(self.u16_at(12)).min(PAGE_BYTES);
        (lower.saturating_sub(PAGE_HEADER_BYTES) / LINE_POINTER_BYTES) as u16
    }

    /// The line pointer of item `offset`, counted from 1.
    pub fn line_pointer(&self, offset: u16) -> Result<LinePointer, PageError> {
        let max = self.max_offset();
        if offset == 0 || offset > max {
            return Err(PageError::Offset { offset, max });
        }
        Ok(self.line_pointer_at(offset))
    }

    /// Replaces the line pointer of item `offset`, which must be there.
    pub fn set_line_pointer(&mut self, offset: u16, pointer: LinePointer) -> Result<(), PageError> {
        self.line_pointer(offset)?;
        self.put_line_pointer(offset, pointer);
        Ok(())
    }

    /// The line pointer of an item whose number the caller has checked.
    pub(super) fn line_pointer_at(&self, offset: u16) -> LinePointer {
        LinePointer(self.u32_at(line_pointer_position(offset)))
    }

    /// Writes the line pointer of an item whose number the caller has checked.
    pub(super) fn put_line_pointer(&mut self, offset: u16, pointer: LinePointer) {
        self.put_u32(line_pointer_position(offset), pointer.0);
    }

    /// The position of an item with storage, checked to lie in the page.
    pub fn item_range(&self, offset: u16) -> Result<std::ops::Range<usize>, PageError> {
        self.range_of(offset, self.line_pointer(offset)?)
    }

    /// Likewise, for one who has its line pointer.
    pub(crate) fn range_of(
        &self,
        offset: u16,
        pointer: LinePointer,
    ) -> Result<std::ops::Range<usize>, PageError> {
        let end = pointer.offset() + pointer.length();
        if !pointer.has_storage() || pointer.offset() < PAGE_HEADER_BYTES || end > PAGE_BYTES {
            return Err(PageError::LinePointer { offset });
        }
        Ok(pointer.offset()..end)
    }

    /// An item's bytes.
    pub fn item(&self, offset: u16) -> Result<&[u8], PageError> {
        Ok(&self.0[self.item_range(offset)?])
    }

    /// An item's bytes, to be changed.
    pub fn item_mut(&mut self, offset: u16) -> Result<&mut [u8], PageError> {
        let range = self.item_range(offset)?;
        Ok(&mut self.0[range])
    }
}

pub(super) fn line_pointer_position(offset: u16) -> usize {
    PAGE_HEADER_BYTES + (usize::from(offset) - 1) * LINE_POINTER_BYTES
}
