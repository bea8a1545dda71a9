//! Redo of a page's split (Postgres: nbtxlog.c, `btree_xlog_split`).

use super::{HIGH_KEY, Opaque, add_aligned, emptied, init, page_flag, restore_items};
use crate::{
    BlockRef, Page, Placement, Record,
    redo::{Fault, Outcome, index_tuple::IndexTuple},
    rmgr::btree::Split,
};

/// The right page: logged whole.
pub(super) fn right(record: &Record, block: &BlockRef, split: Split, page: &mut Page) -> Outcome {
    let left = record.block(0).ok_or(Fault::Malformed)?.key.block;
    let next = record.block(2).map_or(0, |block| block.key.block);
    let flags = if split.level == 0 { page_flag::LEAF } else { 0 };
    init(page, Opaque { previous: left, next, level: split.level, flags })?;
    restore_items(page, block.data)
}

/// The left page: its new high key, then the items that stay in their order, the new one among them.
/// Adding them to an empty page one by one gives them the places that the original split gave them.
pub(super) fn left(record: &Record, block: &BlockRef, split: Split, page: &mut Page) -> Outcome {
    let right = record.block(1).ok_or(Fault::Malformed)?.key.block;
    let mut data = block.data;
    let mut new_item = None;
    let mut posting = None;
    if split.new_item_on_left || split.posting_offset != 0 {
        let logged = IndexTuple::take(&mut data)?;
        if split.posting_offset != 0 {
            let before = split.new_item.checked_sub(1).ok_or(Fault::Malformed)?;
            let old = IndexTuple::at(page.item(before)?)?;
            let (swapped, item) = old.swap_posting(logged, split.posting_offset)?;
            posting = Some((before, swapped));
            new_item = Some(item);
        } else {
            new_item = Some(logged.bytes().to_vec());
        }
    }
    let new_item = new_item.filter(|_| split.new_item_on_left);
    let high_key = IndexTuple::take(&mut data)?;
    if !data.is_empty() {
        return Err(Fault::Malformed);
    }

    let mut opaque = Opaque::of(page)?;
    let mut left = emptied(page)?;
    add_aligned(&mut left, HIGH_KEY, high_key.bytes())?;
    let mut next = HIGH_KEY + 1;
    for offset in opaque.first_data_item()..split.first_right {
        match &posting {
            Some((replaced, tuple)) if *replaced == offset => {
                add_aligned(&mut left, next, tuple)?;
                next += 1;
                continue;
            }
            _ => {}
        }
        if let Some(item) = new_item.as_ref().filter(|_| offset == split.new_item) {
            add_aligned(&mut left, next, item)?;
            next += 1;
        }
        left.add_item(next, page.item(offset)?, Placement::Shift)?;
        next += 1;
    }
    let at_end = split.new_item == split.first_right.max(opaque.first_data_item());
    if let Some(item) = new_item.as_ref().filter(|_| at_end) {
        add_aligned(&mut left, next, item)?;
    }

    let leaf = if split.level == 0 { page_flag::LEAF } else { 0 };
    opaque.flags = page_flag::INCOMPLETE_SPLIT | leaf;
    opaque.next = right;
    opaque.write(&mut left)?;
    page.clone_from(&left);
    Ok(())
}
