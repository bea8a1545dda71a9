//! What a page is, told by what it holds, and the mask that fits it.

use wal_format::{Fork, Page, rmid};

/// A kind of page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// What it is called in counts and mismatches.
    pub name: &'static str,
    /// The resource manager whose mask fits it; none where nothing but the LSN may differ.
    mask: Option<u8>,
}

impl Kind {
    /// The kind of this fork's page.
    pub fn of(fork: Fork, page: &Page) -> Kind {
        let kind = |name, mask| Kind { name, mask: Some(mask) };
        let exact = |name| Kind { name, mask: None };
        if fork == Fork::VisibilityMap {
            return exact("visibility map");
        }
        if page.is_new() {
            return exact("new page");
        }
        let Ok(bounds) = page.bounds() else { return exact("page without bounds") };
        let special = &page.bytes()[bounds.special..];
        match special.len() {
            0 => kind("heap", rmid::HEAP),
            8 if special[..4] == [0x17, 0x17, 0, 0] => kind("sequence", rmid::SEQUENCE),
            8 => match u16::from_le_bytes([special[6], special[7]]) {
                0xFF82 => kind("spgist", rmid::SPGIST),
                0xF091..=0xF093 => kind("brin", rmid::BRIN),
                0xFF83 => kind("bloom", rmid::GENERIC),
                _ => kind("gin", rmid::GIN),
            },
            16 => match u16::from_le_bytes([special[14], special[15]]) {
                0xFF80 => kind("hash", rmid::HASH),
                0xFF81 => kind("gist", rmid::GIST),
                _ => kind("btree", rmid::BTREE),
            },
            _ => kind("other", rmid::GENERIC),
        }
    }

    /// Fills what Postgres itself does not compare with zeros.
    pub fn mask(self, block: u32, page: &mut Page) {
        match self.mask {
            Some(rmid) => crate::masks::mask(rmid, block, page),
            None => page.bytes_mut()[..10].fill(0),
        }
    }
}
