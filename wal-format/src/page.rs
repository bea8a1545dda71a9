//! A page of 8 KiB as Postgres lays it out (Postgres: `src/include/storage/bufpage.h`).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `pd_lsn`: high half, then low half |
//! | 8 | 2 | `pd_checksum` |
//! | 10 | 2 | `pd_flags` |
//! | 12 | 2 | `pd_lower`: end of the line pointers |
//! | 14 | 2 | `pd_upper`: start of the tuples |
//! | 16 | 2 | `pd_special`: start of the special space |
//! | 18 | 2 | page size and layout version, 0x2004 |
//! | 20 | 4 | `pd_prune_xid` |
//! | 24 | 4 each | line pointers |
//!
//! A page's bytes are outside input: nothing here panics on them, and every position is checked before it is used.

mod checksum;
mod items;
mod line_pointer;

use bytes::Bytes;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use items::Placement;
pub use line_pointer::{LinePointer, LinePointerState};

use crate::{Lsn, PAGE_BYTES};

/// Bytes of a page's header (`SizeOfPageHeaderData`).
pub const PAGE_HEADER_BYTES: usize = 24;
/// Page size 8192 and layout version 4, as `pd_pagesize_version` holds them.
const SIZE_AND_VERSION: u16 = 8192 | 4;
/// Bytes of a line pointer (`ItemIdData`).
const LINE_POINTER_BYTES: usize = 4;

/// What a page operation found that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// `pd_lower`, `pd_upper` and `pd_special` are not in order and in the page.
    #[error("corrupted page pointers: lower = {lower}, upper = {upper}, special = {special}")]
    Header {
        /// `pd_lower`.
        lower: u16,
        /// `pd_upper`.
        upper: u16,
        /// `pd_special`.
        special: u16,
    },
    /// No such line pointer, or none that an item can be put at.
    #[error("item {offset} is out of range: the page has {max}")]
    Offset {
        /// The item asked for, counted from 1.
        offset: u16,
        /// The page's line pointers.
        max: u16,
    },
    /// The line pointer is not in the state that the operation needs, or points out of the page.
    #[error("line pointer {offset} is not usable")]
    LinePointer {
        /// The item, counted from 1.
        offset: u16,
    },
    /// The item does not fit.
    #[error("an item of {bytes} bytes does not fit: lower = {lower}, upper = {upper}")]
    Full {
        /// The item's length.
        bytes: usize,
        /// `pd_lower`.
        lower: u16,
        /// `pd_upper`.
        upper: u16,
    },
    /// The page is all zeros where an initialised one is needed.
    #[error("the page is new")]
    New,
    /// A tuple or a structure on the page is too short, too long or contradicts itself.
    #[error("{0}")]
    Content(&'static str),
}

/// The three positions of a page's header, checked: 24 ≤ lower ≤ upper ≤ special ≤ 8192, special a multiple of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// End of the line pointers.
    pub lower: usize,
    /// Start of the tuples.
    pub upper: usize,
    /// Start of the special space.
    pub special: usize,
}

/// Eight KiB that a relation or an SLRU holds at one block.
///
/// It is its bytes and nothing else, wherever they lie: one page is a `Box<Page>`; in a buffer of many, any 8192 bytes are a page
/// ([`Page::from_array_mut`]).
#[derive(Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Page([u8; PAGE_BYTES]);

/// A page that is given away as bytes.
struct Owned(Box<Page>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Page {
    /// A page of zeros: what stands where nothing was written.
    pub fn zeroed() -> Box<Page> {
        Box::new(Page([0; PAGE_BYTES]))
    }

    /// A copy of these bytes, where they are as many as a page has.
    pub fn from_slice(bytes: &[u8]) -> Option<Box<Page>> {
        Page::from_bytes(bytes).map(|page| Box::new(page.clone()))
    }

    /// These bytes as a page, where they are as many as a page has.
    pub fn from_bytes(bytes: &[u8]) -> Option<&Page> {
        bytes.try_into().ok().map(Page::from_array)
    }

    /// These bytes as a page.
    pub fn from_array(bytes: &[u8; PAGE_BYTES]) -> &Page {
        zerocopy::transmute_ref!(bytes)
    }

    /// These bytes as a page that is changed where it lies.
    pub fn from_array_mut(bytes: &mut [u8; PAGE_BYTES]) -> &mut Page {
        zerocopy::transmute_mut!(bytes)
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        &self.0
    }

    /// The page's bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_BYTES] {
        &mut self.0
    }

    /// The page's bytes without a copy.
    pub fn into_bytes(self: Box<Page>) -> Bytes {
        Bytes::from_owner(Owned(self))
    }

    /// Fills the whole page with zeros.
    pub fn zero(&mut self) {
        self.0.fill(0);
    }

    /// Whether the page was never initialised (Postgres: `PageIsNew`).
    pub fn is_new(&self) -> bool {
        self.u16_at(14) == 0
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// An empty page with this much special space (Postgres: bufpage.c, `PageInit`).
    /// `special_bytes` is one of our own constants: less than a page.
    pub fn init(&mut self, special_bytes: usize) {
        let special = (PAGE_BYTES - align8(special_bytes)) as u16;
        self.0.fill(0);
        self.put_u16(12, PAGE_HEADER_BYTES as u16);
        self.put_u16(14, special);
        self.put_u16(16, special);
        self.put_u16(18, SIZE_AND_VERSION);
    }

    /// End of the last WAL record that changed the page (`pd_lsn`).
    pub fn lsn(&self) -> Lsn {
        Lsn(u64::from(self.u32_at(0)) << 32 | u64::from(self.u32_at(4)))
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        self.put_u32(0, (lsn.0 >> 32) as u32);
        self.put_u32(4, lsn.0 as u32);
    }

    /// `pd_flags`: [`flags`].
    pub fn flags(&self) -> u16 {
        self.u16_at(10)
    }

    /// Sets or clears bits of `pd_flags`.
    pub fn set_flag(&mut self, bits: u16, on: bool) {
        let flags = self.flags();
        self.put_u16(10, if on { flags | bits } else { flags & !bits });
    }

    /// `pd_prune_xid`: the oldest transaction whose end may make a tuple here removable; 0 for none.
    pub fn prune_xid(&self) -> u32 {
        self.u32_at(20)
    }

    /// Sets `pd_prune_xid`.
    pub fn set_prune_xid(&mut self, xid: u32) {
        self.put_u32(20, xid);
    }

    /// The header's positions, checked.
    pub fn bounds(&self) -> Result<Bounds, PageError> {
        let (lower, upper, special) = (self.u16_at(12), self.u16_at(14), self.u16_at(16));
        let bounds = Bounds {
            lower: usize::from(lower),
            upper: usize::from(upper),
            special: usize::from(special),
        };
        let in_order = PAGE_HEADER_BYTES <= bounds.lower
            && bounds.lower <= bounds.upper
            && bounds.upper <= bounds.special
            && bounds.special <= PAGE_BYTES
            && bounds.special.is_multiple_of(8);
        match in_order {
            true => Ok(bounds),
            false if self.is_new() => Err(PageError::New),
            false => Err(PageError::Header { lower, upper, special }),
        }
    }

    /// Sets `pd_lower`; within a page, by the caller's own arithmetic.
    pub(crate) fn set_lower(&mut self, lower: usize) {
        self.put_u16(12, lower as u16);
    }

    /// Sets `pd_upper`; within a page, by the caller's own arithmetic.
    pub(crate) fn set_upper(&mut self, upper: usize) {
        self.put_u16(14, upper as u16);
    }

    /// The special space, where it is at least `bytes` long.
    pub fn special(&self, bytes: usize) -> Result<&[u8], PageError> {
        let special = self.bounds()?.special;
        if PAGE_BYTES - special < bytes {
            return Err(PageError::Content("the special space is too small"));
        }
        Ok(&self.0[special..])
    }

    /// The special space to be changed, where it is at least `bytes` long.
    pub fn special_mut(&mut self, bytes: usize) -> Result<&mut [u8], PageError> {
        let special = self.bounds()?.special;
        if PAGE_BYTES - special < bytes {
            return Err(PageError::Content("the special space is too small"));
        }
        Ok(&mut self.0[special..])
    }

    /// Two bytes at a position that is a constant of ours or already checked.
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// Four bytes, likewise.
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page")
            .field("lsn", &self.lsn())
            .field("flags", &self.flags())
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

/// Bits of `pd_flags`.
pub mod flags {
    /// There are unused line pointers (`PD_HAS_FREE_LINES`).
    pub const HAS_FREE_LINES: u16 = 1;
    /// An update found no room (`PD_PAGE_FULL`).
    pub const FULL: u16 = 2;
    /// Every tuple is visible to everyone (`PD_ALL_VISIBLE`).
    pub const ALL_VISIBLE: u16 = 4;
}

/// The next multiple of 8 (`MAXALIGN`).
pub(crate) const fn align8(bytes: usize) -> usize {
    (bytes + 7) & !7
}

#[cfg(test)]
mod tests;
