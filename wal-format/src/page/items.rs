//! Adding, replacing and removing items (Postgres: `src/backend/storage/page/bufpage.c`).
//!
//! Where the items' bytes end up is part of what must agree with Postgres, so each operation moves them as its namesake does:
//! one deletion keeps the physical order, several at once restore the line pointers' order.

use std::ops::Range;

use smallvec::SmallVec;

use super::{
    Bounds, LINE_POINTER_BYTES, LinePointer, LinePointerState, PAGE_HEADER_BYTES, Page, PageError,
    align8, flags, line_pointer::line_pointer_position,
};
use crate::PAGE_BYTES;

/// Line pointers that a heap page may have (`MaxHeapTuplesPerPage`).
const HEAP_ITEMS_MAX: u16 = 291;

/// Line pointers that are looked at before items move: as many as a word has bits.
const POINTERS_AT_ONCE: usize = u64::BITS as usize;

/// Pieces of a page that move as one; most pages have few, which need no allocation.
type Runs = SmallVec<[Run; 16]>;

/// Bytes of items that are moved last, likewise.
type Aside = SmallVec<[u8; 512]>;

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
        let (mut kept, mut total) = (Vec::with_capacity(usize::from(self.max_offset())), 0);
        for offset in 1..=self.max_offset() {
            let (pointer, aligned) = self.stored_item(offset, bounds)?;
            if next.next_if_eq(&offset).is_none() {
                kept.push(pointer);
                total += aligned;
            }
        }
        if next.next().is_some() {
            return Err(PageError::Content("the items to delete are not in rising order"));
        }
        check_total(total, bounds)?;
        for (offset, pointer) in (1..).zip(&kept) {
            self.put_line_pointer(offset, *pointer);
        }
        let lower = PAGE_HEADER_BYTES + kept.len() * LINE_POINTER_BYTES;
        self.set_lower(lower);
        self.compact(Bounds { lower, ..bounds });
        Ok(())
    }

    /// Closes the gaps between items after some lost their storage, and drops unused line pointers from the end
    /// (`PageRepairFragmentation`).
    pub fn repair_fragmentation(&mut self) -> Result<(), PageError> {
        let bounds = self.bounds()?;
        let pointers = self.line_pointers_mut(bounds);
        let max = pointers.len();
        let Items { bytes, used } = clear_unused(pointers, bounds)?;
        let is_used = |bits: &[u8; LINE_POINTER_BYTES]| LinePointer::from_bytes(*bits).is_used();
        let last_used = pointers.iter().rposition(is_used).map_or(0, |index| index + 1);
        check_total(bytes, bounds)?;
        self.compact(bounds);
        self.set_lower(bounds.lower - LINE_POINTER_BYTES * (max - last_used));
        self.set_flag(flags::HAS_FREE_LINES, used < last_used);
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

    /// Puts all items against the special space, the first one highest (`compactify_tuples`).
    /// The caller has checked that each lies between upper and the page's end, and that all together fit between lower and special.
    fn compact(&mut self, bounds: Bounds) {
        let mut runs = Runs::new();
        let (mut to, mut last_shift) = (bounds.special as u32, 0);
        for pointers in self.line_pointers_mut(bounds).chunks_mut(POINTERS_AT_ONCE) {
            let mut shifts = [0; POINTERS_AT_ONCE];
            // Which have an item, and which of them begin a run, is not to be guessed: so no branch, but a bit for each that begins one.
            let mut begins = 0u64;
            for (index, (bits, shift)) in pointers.iter_mut().zip(&mut shifts).enumerate() {
                let pointer = LinePointer::from_bytes(*bits);
                let (position, bytes) = (pointer.offset() as u32, align8(pointer.length()) as u32);
                to -= bytes;
                *shift = to.wrapping_sub(position);
                let is_item = pointer.has_storage();
                begins |= u64::from(is_item & (*shift != last_shift)) << index;
                last_shift = if is_item { *shift } else { last_shift };
                *bits = pointer.with_item_at(to).to_bytes();
            }
            while begins != 0 {
                let index = begins.trailing_zeros() as usize;
                begins &= begins - 1;
                let first = LinePointer::from_bytes(pointers[index]);
                let end = first.aligned_end() as u32;
                end_last(&mut runs, end);
                runs.push(Run { to: end, end, shift: shifts[index] });
            }
        }
        end_last(&mut runs, to);
        self.set_upper(to as usize);
        self.move_runs(&runs);
    }

    /// Moves each run; where they go they do not overlap, and lie one below the other.
    fn move_runs(&mut self, runs: &[Run]) {
        // What lies below a later run, as the newest item does, is set aside. The others then lie one below the other, too.
        let (mut aside, mut bytes_aside) = (Runs::new(), Aside::new());
        let mut rising = Runs::new();
        for run in runs.iter().rev() {
            if rising.last().is_none_or(|below| below.from().end <= run.from().start) {
                rising.push(*run);
            } else {
                aside.push(*run);
                bytes_aside.extend_from_slice(&self.0[run.from()]);
            }
        }
        // So those that move up, the highest first, and then those that move down, the lowest first, never meet one that is still to move.
        for run in rising.iter().rev().filter(|run| run.moves_up()) {
            self.0.copy_within(run.from(), run.to as usize);
        }
        for run in rising.iter().filter(|run| !run.moves_up()) {
            self.0.copy_within(run.from(), run.to as usize);
        }
        let mut rest = &bytes_aside[..];
        for run in &aside {
            let (bytes, others) = rest.split_at(run.from().len());
            self.0[run.to as usize..][..bytes.len()].copy_from_slice(bytes);
            rest = others;
        }
    }

    /// The line pointers below lower.
    fn line_pointers_mut(&mut self, bounds: Bounds) -> &mut [[u8; LINE_POINTER_BYTES]] {
        self.0[PAGE_HEADER_BYTES..bounds.lower].as_chunks_mut().0
    }
}

/// Items that stand together and stay so.
#[derive(Clone, Copy)]
struct Run {
    /// Where its first byte goes.
    to: u32,
    /// Where its last item ends then, with the padding.
    end: u32,
    /// How far it moves up: modulo 2^32, since some move down.
    shift: u32,
}

impl Run {
    /// Where it stands.
    fn from(self) -> Range<usize> {
        let before = |position: u32| position.wrapping_sub(self.shift) as usize;
        before(self.to)..before(self.end)
    }

    fn moves_up(self) -> bool {
        self.shift.cast_signed() > 0
    }
}

/// The last run, where there is one, goes down to here.
fn end_last(runs: &mut Runs, to: u32) {
    if let Some(run) = runs.last_mut() {
        run.to = to;
    }
}

/// What a page's line pointers stand for.
struct Items {
    /// The bytes of all items with their padding.
    bytes: usize,
    /// The line pointers in use.
    used: usize,
}

/// Leaves nothing in line pointers that are not in use. Each item must begin between upper and special and end in the page.
fn clear_unused(
    pointers: &mut [[u8; LINE_POINTER_BYTES]],
    bounds: Bounds,
) -> Result<Items, PageError> {
    // In terms of 32 bits and without branches: several line pointers at once.
    let [upper, special] = [bounds.upper, bounds.special].map(|position| position as i32);
    let (mut bytes, mut used, mut wrong) = (0, 0, 0);
    for bits in pointers {
        let pointer = LinePointer::from_bytes(*bits);
        let pointer = if pointer.is_used() { pointer } else { LinePointer::UNUSED };
        *bits = pointer.to_bytes();
        let (position, end) = (pointer.offset() as i32, pointer.aligned_end() as i32);
        let is_item = i32::from(pointer.has_storage());
        let outside = i32::from(position < upper)
            | i32::from(position >= special)
            | i32::from(end > PAGE_BYTES as i32);
        wrong |= is_item & outside;
        bytes += -is_item & (end - position);
        used += i32::from(pointer.is_used());
    }
    if wrong != 0 {
        return Err(PageError::Content("an item lies outside the page's tuples"));
    }
    Ok(Items { bytes: bytes as usize, used: used as usize })
}

/// All that stays must fit between the line pointers and the special space.
fn check_total(total: usize, bounds: Bounds) -> Result<(), PageError> {
    if total > bounds.special - bounds.lower {
        return Err(PageError::Content("the items are longer than the page"));
    }
    Ok(())
}
