//! What Postgres itself leaves out when it compares a redone page with its consistency image
//! (Postgres: bufmask.c and each resource manager's `rm_mask`).

use wal_format::{LinePointer, LinePointerState, PAGE_BYTES, Page, page_flags, rmid};

/// Fills the LSN and the checksum with zeros, and nothing else.
pub fn mask_lsn(page: &mut Page) {
    page.bytes_mut()[..10].fill(0);
}

/// Fills what may differ on a page of this resource manager with zeros.
pub fn mask(rmid: u8, block: u32, page: &mut Page) {
    if page.is_new() {
        return;
    }
    mask_lsn(page);
    match rmid {
        rmid::HEAP | rmid::HEAP2 => heap(block, page),
        rmid::BTREE => btree(page),
        rmid::HASH => hash(page),
        rmid::GIN => gin(page),
        rmid::GIST => gist(page),
        rmid::BRIN => brin(page),
        rmid::SPGIST => {
            hint_bits(page);
            unused_space(page);
        }
        _ => unused_space(page),
    }
}

fn hint_bits(page: &mut Page) {
    page.set_prune_xid(0);
    let hints = page_flags::FULL | page_flags::HAS_FREE_LINES | page_flags::ALL_VISIBLE;
    page.set_flag(hints, false);
}

fn unused_space(page: &mut Page) {
    if let Ok(bounds) = page.bounds() {
        page.bytes_mut()[bounds.lower..bounds.upper].fill(0);
    }
}

/// heapam.c, `heap_mask`; but that a page is all visible is logged, and must agree.
fn heap(block: u32, page: &mut Page) {
    let all_visible = page.flags() & page_flags::ALL_VISIBLE;
    hint_bits(page);
    page.set_flag(all_visible, true);
    unused_space(page);
    for offset in 1..=page.max_offset() {
        let Ok(range) = page.item_range(offset) else { continue };
        let normal = page.line_pointer(offset).is_ok_and(LinePointer::is_normal);
        let padding = range.end..(range.end.next_multiple_of(8)).min(PAGE_BYTES);
        let tuple = &mut page.bytes_mut()[range];
        if normal && tuple.len() >= 23 {
            let infomask = u16::from_le_bytes([tuple[20], tuple[21]]);
            let frozen = infomask & 0x0300 == 0x0300;
            let kept = if frozen { infomask & !0x0C00 } else { infomask & !0xFFF0 };
            tuple[20..22].copy_from_slice(&kept.to_le_bytes());
            tuple[8..12].fill(0);
            if tuple[16..18] == [0xFE, 0xFF] {
                tuple[12..14].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
                tuple[14..16].copy_from_slice(&(block as u16).to_le_bytes());
                tuple[16..18].copy_from_slice(&offset.to_le_bytes());
            }
        }
        page.bytes_mut()[padding].fill(0);
    }
}

/// nbtxlog.c, `btree_mask`.
fn btree(page: &mut Page) {
    hint_bits(page);
    unused_space(page);
    let Ok(special) = page.special_mut(16) else { return };
    let flags = u16::from_le_bytes([special[12], special[13]]);
    let kept = flags & !0x0060;
    special[12..14].copy_from_slice(&kept.to_le_bytes());
    special[14..16].fill(0);
    if flags & 1 != 0 {
        line_pointer_states(page);
    }
}

/// hash_xlog.c, `hash_mask`.
fn hash(page: &mut Page) {
    hint_bits(page);
    unused_space(page);
    let Ok(special) = page.special_mut(16) else { return };
    let kind = special[12] & 0x0F;
    special[12] &= !0x80;
    match kind {
        0 => content(page),
        1 | 2 => line_pointer_states(page),
        _ => {}
    }
}

/// ginxlog.c, `gin_mask`.
fn gin(page: &mut Page) {
    hint_bits(page);
    let deleted = page.special(8).is_ok_and(|special| special[6] & 4 != 0);
    if deleted { content(page) } else { unused_space(page) }
}

/// gistxlog.c, `gist_mask`; and TUPLES_DELETED, which Postgres' own redo of Gist/DELETE sets and its primary does not. Nothing reads it.
fn gist(page: &mut Page) {
    hint_bits(page);
    unused_space(page);
    let Ok(special) = page.special_mut(16) else { return };
    special[..8].fill(0);
    special[12] = (special[12] | 0x08) & !0x14;
    if special[12] & 1 != 0 {
        line_pointer_states(page);
    }
}

/// brin_xlog.c, `brin_mask`.
fn brin(page: &mut Page) {
    hint_bits(page);
    let Ok(special) = page.special_mut(8) else { return };
    special[4] &= !1;
    let is_range_map = special[6..8] == [0x92, 0xF0];
    if !is_range_map {
        unused_space(page);
    }
}

/// bufmask.c, `mask_page_content`.
fn content(page: &mut Page) {
    page.bytes_mut()[24..].fill(0);
    page.bytes_mut()[12..16].fill(0);
}

/// bufmask.c, `mask_lp_flags`.
fn line_pointer_states(page: &mut Page) {
    for offset in 1..=page.max_offset() {
        let Ok(pointer) = page.line_pointer(offset) else { continue };
        if pointer.is_used() {
            let masked =
                LinePointer::new(LinePointerState::Unused, pointer.offset(), pointer.length());
            page.set_line_pointer(offset, masked).expect("it is there");
        }
    }
}
