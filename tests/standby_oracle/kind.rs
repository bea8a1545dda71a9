//! What a page is, told by what it holds.

use wal_format::{Fork, Page};

/// A heap's page.
pub const HEAP: &str = "heap";

/// What the page of this fork is called in counts and mismatches.
pub fn kind_of(fork: Fork, page: &Page) -> &'static str {
    if fork == Fork::VisibilityMap {
        return "visibility map";
    }
    if page.is_new() {
        return "new page";
    }
    let Ok(bounds) = page.bounds() else { return "page without bounds" };
    let special = &page.bytes()[bounds.special..];
    match special.len() {
        0 => HEAP,
        8 if special[..4] == [0x17, 0x17, 0, 0] => "sequence",
        8 => match u16::from_le_bytes([special[6], special[7]]) {
            0xFF82 => "spgist",
            0xF091..=0xF093 => "brin",
            0xFF83 => "bloom",
            _ => "gin",
        },
        16 => match u16::from_le_bytes([special[14], special[15]]) {
            0xFF80 => "hash",
            0xFF81 => "gist",
            _ => "btree",
        },
        _ => "other",
    }
}
