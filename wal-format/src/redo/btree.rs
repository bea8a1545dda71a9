//! Redo of Btree's records (Postgres: nbtxlog.c, `btree_redo`).

mod leaf;
mod split;

use super::{
    Fault, Outcome,
    index_tuple::{self, IndexTuple},
};
use crate::{
    BlockRef, Page, PageError, Placement, Record,
    page::align8,
    rmgr::btree::{Btree, Insert, MarkHalfDead, Metadata, Unlink},
};

/// Bytes of the special space (`BTPageOpaqueData`): previous, next, level, flags, cycle id.
const SPECIAL_BYTES: usize = 16;
/// The number of a page's high key (`P_HIKEY`).
const HIGH_KEY: u16 = 1;

/// `btpo_flags`.
mod page_flag {
    pub const LEAF: u16 = 1 << 0;
    pub const ROOT: u16 = 1 << 1;
    pub const DELETED: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const HALF_DEAD: u16 = 1 << 4;
    pub const HAS_GARBAGE: u16 = 1 << 6;
    pub const INCOMPLETE_SPLIT: u16 = 1 << 7;
    pub const HAS_FULL_XID: u16 = 1 << 8;
}

/// A B-tree page's place among the others (`BTPageOpaqueData`).
#[derive(Clone, Copy)]
struct Opaque {
    previous: u32,
    next: u32,
    level: u32,
    flags: u16,
}

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Btree::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match (parsed, block.id) {
        (Btree::Insert(insert), 0) => insert_item(block, insert, page),
        (Btree::Split(split), 0) => split::left(record, block, split, page),
        (Btree::Split(split), 1) => split::right(record, block, split, page),
        (Btree::Split(_), 2) => {
            let right = record.block(1).ok_or(Fault::Malformed)?.key.block;
            update_opaque(page, |opaque| opaque.previous = right)
        }
        (Btree::Insert(_), 1) | (Btree::Split(_), 3) | (Btree::NewRoot(_), 1) => {
            update_opaque(page, |opaque| opaque.flags &= !page_flag::INCOMPLETE_SPLIT)
        }
        (Btree::Dedup(count), 0) => leaf::deduplicate(block, count, page),
        (Btree::Remove(remove), 0) => leaf::remove(block, remove, page),
        (Btree::MarkHalfDead(mark), 0) => {
            half_dead_leaf(page, mark.left, mark.right, mark.top_parent)
        }
        (Btree::MarkHalfDead(mark), 1) => remove_downlink(mark, page),
        (Btree::Unlink(unlink), 0) => delete_page(unlink, page),
        (Btree::Unlink(unlink), 1) => update_opaque(page, |opaque| opaque.next = unlink.right),
        (Btree::Unlink(unlink), 2) => update_opaque(page, |opaque| opaque.previous = unlink.left),
        (Btree::Unlink(unlink), 3) => {
            half_dead_leaf(page, unlink.leaf_left, unlink.leaf_right, unlink.leaf_top_parent)
        }
        (Btree::NewRoot(level), 0) => new_root(block, level, page),
        (Btree::Insert(_) | Btree::NewRoot(_), 2)
        | (Btree::Unlink(_), 4)
        | (Btree::MetaCleanup, 0) => restore_meta(block, page),
        _ => Err(Fault::Malformed),
    }
}

/// `btree_xlog_insert`.
fn insert_item(block: &BlockRef, insert: Insert, page: &mut Page) -> Outcome {
    if !insert.splits_posting {
        page.add_item(insert.offset, block.data, Placement::Shift)?;
        return Ok(());
    }
    let (at, item) = block.data.split_first_chunk::<2>().ok_or(Fault::Malformed)?;
    let before = insert.offset.checked_sub(1).ok_or(Fault::Malformed)?;
    let posting = IndexTuple::at(page.item(before)?)?;
    let new_item = IndexTuple::at(item)?;
    let (posting, new_item) = posting.swap_posting(new_item, u16::from_le_bytes(*at))?;
    page.item_mut(before)?[..posting.len()].copy_from_slice(&posting);
    page.add_item(insert.offset, &new_item, Placement::Shift)?;
    Ok(())
}

/// `btree_xlog_newroot`.
fn new_root(block: &BlockRef, level: u32, page: &mut Page) -> Outcome {
    let leaf = if level == 0 { page_flag::LEAF } else { 0 };
    init(page, Opaque { previous: 0, next: 0, level, flags: page_flag::ROOT | leaf })?;
    if level > 0 {
        restore_items(page, block.data)?;
    }
    Ok(())
}

/// `btree_xlog_mark_page_halfdead` on the parent: the downlink to the leaf takes over the child of the one after it, which goes.
fn remove_downlink(mark: MarkHalfDead, page: &mut Page) -> Outcome {
    let next = mark.parent_offset.checked_add(1).ok_or(Fault::Malformed)?;
    let child = IndexTuple::at(page.item(next)?)?.block();
    let downlink = page.item_mut(mark.parent_offset)?;
    let item = downlink.get(4..6).ok_or(PageError::Content("the downlink has no tuple id"))?;
    let item = u16::from_le_bytes([item[0], item[1]]);
    index_tuple::put_tid(downlink, child, item);
    page.delete_item(next)?;
    Ok(())
}

/// A leaf that is empty and about to go: all it holds is a high key that names the topmost page to delete with it.
fn half_dead_leaf(page: &mut Page, previous: u32, next: u32, top_parent: u32) -> Outcome {
    let flags = page_flag::HALF_DEAD | page_flag::LEAF;
    init(page, Opaque { previous, next, level: 0, flags })?;
    let mut high_key = [0; index_tuple::HEADER_BYTES];
    index_tuple::put_tid(&mut high_key, top_parent, 0);
    let info = index_tuple::HEADER_BYTES as u16 | index_tuple::ALT_TID;
    high_key[6..8].copy_from_slice(&info.to_le_bytes());
    page.add_item(HIGH_KEY, &high_key, Placement::Shift)?;
    Ok(())
}

/// `btree_xlog_unlink_page` on the page itself; nbtree.h, `BTPageSetDeleted`.
fn delete_page(unlink: Unlink, page: &mut Page) -> Outcome {
    let leaf = if unlink.level == 0 { page_flag::LEAF } else { 0 };
    let flags = page_flag::DELETED | page_flag::HAS_FULL_XID | leaf;
    let Unlink { left: previous, right: next, level, .. } = unlink;
    init(page, Opaque { previous, next, level, flags })?;
    let end = crate::PAGE_HEADER_BYTES + 8;
    page.bytes_mut()[crate::PAGE_HEADER_BYTES..end].copy_from_slice(&unlink.safe_xid.to_le_bytes());
    page.set_lower(end);
    Ok(())
}

/// `_bt_restore_meta`.
fn restore_meta(block: &BlockRef, page: &mut Page) -> Outcome {
    /// `BTREE_MAGIC`.
    const MAGIC: u32 = 0x0005_3162;
    /// Bytes of `BTMetaPageData`.
    const META_BYTES: usize = 48;

    let data = Metadata::parse(block.data).ok_or(Fault::Malformed)?;
    init(page, Opaque { previous: 0, next: 0, level: 0, flags: page_flag::META })?;
    let from = crate::PAGE_HEADER_BYTES;
    let meta = &mut page.bytes_mut()[from..from + META_BYTES];
    let words = [
        MAGIC,
        data.version,
        data.root,
        data.level,
        data.fast_root,
        data.fast_level,
        data.last_cleanup_deleted_pages,
    ];
    for (word, place) in words.iter().zip(meta.chunks_exact_mut(4)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    // How many heap tuples the last cleanup saw is no longer used.
    meta[32..40].copy_from_slice(&(-1.0f64).to_le_bytes());
    meta[40] = u8::from(data.all_equal_image);
    page.set_lower(from + META_BYTES);
    Ok(())
}

/// Adds the items of a page that was logged whole: the last one first (`_bt_restore_page`).
fn restore_items(page: &mut Page, mut data: &[u8]) -> Outcome {
    let mut items = Vec::new();
    while !data.is_empty() {
        items.push(IndexTuple::take(&mut data)?);
    }
    for (offset, item) in (1u16..).zip(items.into_iter().rev()) {
        add_aligned(page, offset, item.bytes())?;
    }
    Ok(())
}

/// Adds an index tuple as long as its padded size says, as a split does.
fn add_aligned(page: &mut Page, offset: u16, tuple: &[u8]) -> Result<(), PageError> {
    let item = page.reserve_item(offset, align8(tuple.len()), Placement::Shift)?;
    item[..tuple.len()].copy_from_slice(tuple);
    item[tuple.len()..].fill(0);
    Ok(())
}

/// An empty B-tree page in this place (`_bt_pageinit`).
fn init(page: &mut Page, opaque: Opaque) -> Outcome {
    page.init(SPECIAL_BYTES);
    opaque.write(page)?;
    Ok(())
}

fn update_opaque(page: &mut Page, change: impl FnOnce(&mut Opaque)) -> Outcome {
    let mut opaque = Opaque::of(page)?;
    change(&mut opaque);
    opaque.write_links(page)?;
    Ok(())
}

impl Opaque {
    fn of(page: &Page) -> Result<Opaque, PageError> {
        let bytes = page.special(SPECIAL_BYTES)?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
        Ok(Opaque { previous: word(0), next: word(4), level: word(8), flags })
    }

    /// The page's first item that is no high key (`P_FIRSTDATAKEY`): the rightmost page of a level has none.
    fn first_data_item(self) -> u16 {
        if self.next == 0 { HIGH_KEY } else { HIGH_KEY + 1 }
    }

    /// Writes all, and no vacuum's cycle.
    fn write(self, page: &mut Page) -> Result<(), PageError> {
        self.write_links(page)?;
        page.special_mut(SPECIAL_BYTES)?[14..16].fill(0);
        Ok(())
    }

    /// Writes all but the vacuum's cycle.
    fn write_links(self, page: &mut Page) -> Result<(), PageError> {
        let bytes = page.special_mut(SPECIAL_BYTES)?;
        bytes[..4].copy_from_slice(&self.previous.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.next.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.level.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        Ok(())
    }
}

/// An empty page with the special space of this one (bufpage.c, `PageGetTempPageCopySpecial`).
fn emptied(page: &Page) -> Result<Box<Page>, PageError> {
    let special = page.special(SPECIAL_BYTES)?;
    let mut empty = Page::zeroed();
    empty.init(special.len());
    empty.special_mut(special.len())?.copy_from_slice(special);
    Ok(empty)
}
