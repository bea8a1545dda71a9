//! Where the visibility map keeps a heap page's two bits, and how they change (Postgres: visibilitymap.c).

use crate::{Fork, PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageKey};

/// Both bits: all visible (1) and all frozen (2).
pub(crate) const ALL_BITS: u8 = 3;
/// All frozen.
pub(crate) const ALL_FROZEN: u8 = 2;

const BLOCKS_PER_BYTE: u32 = 4;
const BLOCKS_PER_PAGE: u32 = (PAGE_BYTES - PAGE_HEADER_BYTES) as u32 * BLOCKS_PER_BYTE;

/// Where a heap page's bits stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The map's block.
    pub(crate) block: u32,
    /// The byte in its page.
    byte: usize,
    /// The lower bit's number in the byte.
    shift: u32,
}

impl Place {
    /// Of this heap block.
    pub(crate) fn of(heap_block: u32) -> Place {
        let in_page = heap_block % BLOCKS_PER_PAGE;
        Place {
            block: heap_block / BLOCKS_PER_PAGE,
            byte: PAGE_HEADER_BYTES + (in_page / BLOCKS_PER_BYTE) as usize,
            shift: in_page % BLOCKS_PER_BYTE * 2,
        }
    }

    /// Whether these are the first bits of their page.
    pub(crate) fn is_first_of_page(self) -> bool {
        self.byte == PAGE_HEADER_BYTES && self.shift == 0
    }

    /// Sets these bits (`visibilitymap_set`). Whether that changed any.
    pub(crate) fn set(self, page: &mut Page, bits: u8) -> bool {
        if page.is_new() {
            page.init(0);
        }
        let byte = &mut page.bytes_mut()[self.byte];
        if *byte >> self.shift & ALL_BITS == bits {
            return false;
        }
        *byte |= bits << self.shift;
        true
    }

    /// Clears these bits (`visibilitymap_clear`).
    pub(crate) fn clear(self, page: &mut Page, bits: u8) {
        if page.is_new() {
            page.init(0);
        }
        page.bytes_mut()[self.byte] &= !(bits << self.shift);
    }

    /// Clears these bits and all after them (`visibilitymap_prepare_truncate`).
    pub(crate) fn clear_from_here(self, page: &mut Page) {
        let bytes = page.bytes_mut();
        bytes[self.byte] &= (1 << self.shift) - 1;
        bytes[self.byte + 1..].fill(0);
    }
}

/// The visibility map's page that holds a heap page's bits.
pub(crate) fn page_of(heap: PageKey) -> PageKey {
    heap.fork.relation.fork(Fork::VisibilityMap).block(Place::of(heap.block).block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_and_cleared_for_one_heap_page() {
        let mut page = Page::zeroed();
        let (here, next) = (Place::of(BLOCKS_PER_PAGE + 6), Place::of(BLOCKS_PER_PAGE + 7));
        assert_eq!(here.block, 1);
        assert!(here.set(&mut page, ALL_BITS));
        assert!(!here.set(&mut page, ALL_BITS));
        assert!(next.set(&mut page, 1));
        here.clear(&mut page, ALL_FROZEN);
        assert_eq!(page.bytes()[25], 0b0101_0000);
        next.clear_from_here(&mut page);
        assert_eq!(page.bytes()[25], 0b0001_0000);
    }
}
