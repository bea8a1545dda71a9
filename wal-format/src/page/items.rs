//! Adding, replacing and removing items (Postgres: `src/backend/storage/page/bufpage.c`).
//!
//! Where the items' bytes end up is part of what must agree with Postgres, so each operation moves them as its namesake does:
//! one deletion keeps the physical order, several at once restore the line pointers' order.

use super::{
    Bounds, LINE_POINTER_BYTES, LinePointer, LinePointerState, PAGE_HEADER_BYTES, Page, PageError,
    align8, flags, line_pointer::line_pointer_position,
};
use crate::PAGE_BYTES;

/// Line pointers that a heap page may have (`MaxHeapTuplesPerPage`).
const HEAP_ITEMS_MAX: u16 = 291;

/// How an item takes its place among the line pointers (the flags of `PageAddItemExtended`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// A heap's: a free line pointer, or one past the last (`PAI_OVERWRITE | PAI_IS_HEAP`).
    Heap,
    /// A free line pointer, or one past the last (`PAI_OVERWRITE`).
    Overwrite,
    /// An index's: those from here on move up by one.
    Shift,
}

/// An item that stays when a page is compacted.
struct Kept {
    /// Its line pointer's number.
    offset: u16,
    position: u16,
    aligned: u16,
}

impl Kept {
    /// `position` and `aligned` lie within a page.
    fn new(offset: u16, position: usize, aligned: usize) -> Kept {
        Kept { offset, position: position as u16, aligned: aligned as u16 }
    }

    fn range(&self) -> std::ops::Range<usize> {
        let position = usize::from(self.position);
        position..position + usize::from(self.aligned)
    }
}

impl Page {
    /// Adds an item (`PageAddItemExtended`) and gives its bytes, to be filled by the caller: whatever was there before stands in them.
    pub fn reserve_item(
        &mut self,
        offset: u16,
        bytes: usize,
        placement: Placement,
    ) -> Result<&mut [u8], PageError> {
        let at = self.reserve_place(offset, bytes, placement)?;
        Ok(&mut self.0[at..at + bytes])
    }

    /// As [`Page::reserve_item`], but gives the item's position.
    pub(crate) fn reserve_place(
        &mut self,
        offset: u16,
        bytes: usize,
        placement: Placement,
    ) -> Result<usize, PageError> {
        let Bounds { lower, upper, .. } = self.bounds()?;
        let max = self.max_offset();
        let limit = max + 1;
        let out_of_range = offset == 0
            || offset > limit
            || placement == Placement::Heap && offset > HEAP_ITEMS_MAX;
        if out_of_range {
            return Err(PageError::Offset { offset, max });
        }
        if placement != Placement::Shift && offset < limit {
            let pointer = self.line_pointer_at(offset);
            if pointer.is_used() || pointer.has_storage() {
                return Err(PageError::LinePointer { offset });
            }
        }
        let shift = placement == Placement::Shift && offset < limit;
        let new_lower = if offset == limit || shift { lower + LINE_POINTER_BYTES } else { lower };
        let full = PageError::Full { bytes, lower: lower as u16, upper: upper as u16 };
        let new_upper = upper.checked_sub(align8(bytes)).ok_or(full)?;
        if new_lower > new_upper {
            return Err(full);
        }
        if shift {
            let from = line_pointer_position(offset);
            self.0.copy_within(from..lower, from + LINE_POINTER_BYTES);
        }
        let pointer = LinePointer::new(LinePointerState::Normal, new_upper, bytes);
        self.put_line_pointer(offset, pointer);
        self.set_lower(new_lower);
        self.set_upper(new_upper);
        Ok(new_upper)
    }

    /// Adds a copy of `item` (`PageAddItemExtended`).
    pub fn add_item(
        &mut self,
        offset: u16,
        item: &[u8],
        placement: Placement,
    ) -> Result<(), PageError> {
        self.reserve_item(offset, item.len(), placement)?.copy_from_slice(item);
        Ok(())
    }

    /// Replaces an item in its place, moving those before it (`PageIndexTupleOverwrite`).
    pub fn overwrite_item(&mut self, offset: u16, item: &[u8]) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let (pointer, old) = self.stored_item(offset, bounds)?;
        let new = align8(item.len());
        if new > old + (bounds.upper - bounds.lower) {
            let (lower, upper) = (bounds.lower as u16, bounds.upper as u16);
            return Err(PageError::Full { bytes: item.len(), lower, upper });
        }
        let at = pointer.offset();
        self.shift_items_before(at, old as isize - new as isize, bounds)?;
        let at = at + old - new;
        self.put_line_pointer(offset, LinePointer::new(pointer.state(), at, item.len()));
        self.0[at..at + item.len()].copy_from_slice(item);
        Ok(())
    }

    /// Removes an item and its line pointer (`PageIndexTupleDelete`).
    pub fn delete_item(&mut self, offset: u16) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let (pointer, size) = self.stored_item(offset, bounds)?;
        let from = line_pointer_position(offset);
        self.0.copy_within(from + LINE_POINTER_BYTES..bounds.lower, from);
        self.set_lower(bounds.lower - LINE_POINTER_BYTES);
        self.shift_items_before(pointer.offset(), size as isize, bounds)
    }

    /// Removes an item; its line pointer only where it is the last, else it becomes unused (`PageIndexTupleDeleteNoCompact`).
    pub fn delete_item_keeping_pointer(&mut self, offset: u16) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let (pointer, size) = self.stored_item(offset, bounds)?;
        if offset < self.max_offset() {
            self.put_line_pointer(offset, LinePointer::UNUSED);
        } else {
            self.set_lower(bounds.lower - LINE_POINTER_BYTES);
        }
        self.shift_items_before(pointer.offset(), size as isize, bounds)
    }

    /// Removes several items, given in rising order (`PageIndexMultiDelete`).
    pub fn delete_items(
        &mut self,
        offsets: impl DoubleEndedIterator<Item = u16> + ExactSizeIterator + Clone,
    ) -> Result<(), PageError> {
        if offsets.len() <= 2 {
            return offsets.rev().try_for_each(|offset| self.delete_item(offset));
        }
        let bounds = self.bounds()?;
        let mut next = offsets.clone().peekable();
        let mut kept = Vec::with_capacity(usize::from(self.max_offset()));
        let mut pointers = Vec::with_capacity(kept.capacity());
        for offset in 1..=self.max_offset() {
            let (pointer, aligned) = self.stored_item(offset, bounds)?;
            if next.next_if_eq(&offset).is_none() {
                pointers.push(pointer);
                kept.push(Kept::new(pointers.len() as u16, pointer.offset(), aligned));
            }
        }
        if next.next().is_some() {
            return Err(PageError::Content("the items to delete are not in rising order"));
        }
        check_total(&kept, bounds)?;
        for (kept, pointer) in kept.iter().zip(&pointers) {
            self.put_line_pointer(kept.offset, *pointer);
        }
        self.set_lower(PAGE_HEADER_BYTES + kept.len() * LINE_POINTER_BYTES);
        self.compact(&kept, bounds);
        Ok(())
    }

    /// Closes the gaps between items after some lost their storage, and drops unused line pointers from the end
    /// (`PageRepairFragmentation`).
    pub fn repair_fragmentation(&mut self) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let (pointers, _) =
            self.0[PAGE_HEADER_BYTES..bounds.lower].as_chunks_mut::<LINE_POINTER_BYTES>();
        let max = pointers.len() as u16;
        let mut kept = Vec::with_capacity(pointers.len());
        let (mut unused, mut last_used) = (0, 0);
        for (offset, bits) in (1..).zip(pointers) {
            let pointer = LinePointer::from_bits(u32::from_le_bytes(*bits));
            if !pointer.is_used() {
                *bits = LinePointer::UNUSED.bits().to_le_bytes();
                unused += 1;
                continue;
            }
            if pointer.has_storage() {
                let (position, aligned) = (pointer.offset(), align8(pointer.length()));
                let in_tuples = (bounds.upper..bounds.special).contains(&position);
                if !in_tuples || position + aligned > PAGE_BYTES {
                    return Err(PageError::LinePointer { offset });
                }
                kept.push(Kept::new(offset, position, aligned));
            }
            last_used = offset;
        }
        check_total(&kept, bounds)?;
        self.compact(&kept, bounds);
        self.set_lower(bounds.lower - LINE_POINTER_BYTES * usize::from(max - last_used));
        self.set_flag(flags::HAS_FREE_LINES, unused > max - last_used);
        Ok(())
    }

    /// Drops unused line pointers from the end, but never the first (`PageTruncateLinePointerArray`).
    pub fn truncate_line_pointers(&mut self) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let max = self.max_offset();
        let is_unused = |offset: &u16| !self.line_pointer_at(*offset).is_used();
        let dropped = (2..=max).rev().take_while(is_unused).count() as u16;
        let has_free = (1..=max - dropped).any(|offset| is_unused(&offset));
        self.set_lower(bounds.lower - LINE_POINTER_BYTES * usize::from(dropped));
        self.set_flag(flags::HAS_FREE_LINES, has_free);
        Ok(())
    }

    /// An item's line pointer and its aligned size, checked to lie between upper and special.
    fn stored_item(&self, offset: u16, bounds: Bounds) -> Result<(LinePointer, usize), PageError> {
        let pointer = self.line_pointer(offset)?;
        let (at, size) = (pointer.offset(), align8(pointer.length()));
        let sound = at >= bounds.upper && at + size <= bounds.special && at.is_multiple_of(8);
        if sound { Ok((pointer, size)) } else { Err(PageError::LinePointer { offset }) }
    }

    /// Moves the bytes of all items before position `at` by `by`, and their line pointers with them.
    /// `at` is not below upper, and `by` keeps them between lower and the end of the item at `at`: the caller has checked.
    fn shift_items_before(
        &mut self,
        at: usize,
        by: isize,
        bounds: Bounds,
    ) -> Result<(), PageError> {
        if by == 0 {
            return Ok(());
        }
        let moved = |position: usize| position.wrapping_add_signed(by);
        self.0.copy_within(bounds.upper..at, moved(bounds.upper));
        self.set_upper(moved(bounds.upper));
        for offset in 1..=self.max_offset() {
            let pointer = self.line_pointer_at(offset);
            if pointer.has_storage() && pointer.offset() <= at {
                self.put_line_pointer(offset, pointer.at(moved(pointer.offset())));
            }
        }
        Ok(())
    }

    /// Puts the kept items against the special space, the first highest (`compactify_tuples`). The first ones that stand there already
    /// are not touched.
    fn compact(&mut self, kept: &[Kept], bounds: Bounds) {
        let mut upper = bounds.special;
        let in_place = kept.iter().take_while(|item| {
            let range = item.range();
            let stands = range.end == upper;
            if stands {
                upper = range.start;
            }
            stands
        });
        let moved = &kept[in_place.count()..];
        let total: usize = moved.iter().map(|item| usize::from(item.aligned)).sum();
        let mut compacted = Vec::with_capacity(total);
        // Items that stand together are copied together.
        let mut run = 0..0;
        for range in moved.iter().rev().map(Kept::range) {
            if range.start == run.end {
                run.end = range.end;
            } else {
                compacted.extend_from_slice(&self.0[run]);
                run = range;
            }
        }
        compacted.extend_from_slice(&self.0[run]);
        self.0[upper - total..upper].copy_from_slice(&compacted);
        for item in moved {
            upper -= usize::from(item.aligned);
            let pointer = self.line_pointer_at(item.offset);
            self.put_line_pointer(item.offset, pointer.at(upper));
        }
        self.set_upper(upper);
    }
}

/// All that stays must fit between the line pointers and the special space.
fn check_total(kept: &[Kept], bounds: Bounds) -> Result<(), PageError> {
    let total: usize = kept.iter().map(|item| usize::from(item.aligned)).sum();
    if total > bounds.special - bounds.lower {
        return Err(PageError::Content("the items are longer than the page"));
    }
    Ok(())
}
