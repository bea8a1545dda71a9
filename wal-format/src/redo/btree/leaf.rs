//! Redo of what happens to the items of a leaf page: duplicates are merged, dead ones go.

use super::{HIGH_KEY, Opaque, emptied, page_flag, update_opaque};
use crate::{
    BlockRef, Page, Placement,
    fields::Fields,
    redo::{
        Fault, Outcome,
        index_tuple::{IndexTuple, TID_BYTES},
    },
    rmgr::{Offsets, btree::Remove},
};

/// `btree_xlog_dedup`: each interval of items becomes one posting list.
pub(super) fn deduplicate(block: &BlockRef, count: u16, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let numbers = Offsets::take(&mut fields, usize::from(count) * 2).ok_or(Fault::Malformed)?;
    let mut numbers = numbers.iter();
    let mut next_interval = || Some((numbers.next()?, numbers.next()?));
    let mut interval = next_interval();

    let opaque = Opaque::of(page)?;
    let mut merged = emptied(page)?;
    if opaque.next != 0 {
        merged.add_item(HIGH_KEY, page.item(HIGH_KEY)?, Placement::Shift)?;
    }
    let max = page.max_offset();
    let mut offset = opaque.first_data_item();
    let mut tids = Vec::new();
    while offset <= max {
        let base = IndexTuple::at(page.item(offset)?)?;
        let place = merged.max_offset() + 1;
        match interval {
            Some((from, items)) if from == offset && items > 1 => {
                let end = offset.checked_add(items).ok_or(Fault::Malformed)?;
                tids.clear();
                for item in offset..end {
                    tids.extend_from_slice(IndexTuple::at(page.item(item)?)?.tids()?);
                }
                merged.add_item(place, &base.with_tids(&tids)?, Placement::Shift)?;
                offset = end;
                interval = next_interval();
            }
            _ => {
                merged.add_item(place, base.bytes(), Placement::Shift)?;
                offset += 1;
            }
        }
    }
    if interval.is_some() {
        return Err(Fault::Malformed);
    }
    page.clone_from(&merged);
    clear_garbage(page)
}

/// `btree_xlog_delete`, `btree_xlog_vacuum`: first some posting lists become shorter, then items go.
pub(super) fn remove(block: &BlockRef, remove: Remove, page: &mut Page) -> Outcome {
    let mut removed = remove.items(block.data).ok_or(Fault::Malformed)?;
    for offset in removed.updated.iter() {
        let count = removed.updates.u16().ok_or(Fault::Malformed)?;
        let gone =
            Offsets::take(&mut removed.updates, usize::from(count)).ok_or(Fault::Malformed)?;
        let old = IndexTuple::at(page.item(offset)?)?;
        let shorter = old.with_tids(&without(old.tids()?, gone)?)?;
        page.overwrite_item(offset, &shorter)?;
    }
    page.delete_items(removed.deleted.iter())?;
    clear_garbage(page)
}

/// The tuple ids but for those at these indexes, which come in rising order (`_bt_update_posting`).
fn without(tids: &[u8], gone: Offsets<'_>) -> Result<Vec<u8>, Fault> {
    let mut gone = gone.iter().map(usize::from).peekable();
    let mut left = Vec::with_capacity(tids.len());
    for (index, tid) in tids.chunks_exact(TID_BYTES).enumerate() {
        if gone.next_if_eq(&index).is_none() {
            left.extend_from_slice(tid);
        }
    }
    if gone.next().is_some() { Err(Fault::Malformed) } else { Ok(left) }
}

fn clear_garbage(page: &mut Page) -> Outcome {
    update_opaque(page, |opaque| opaque.flags &= !page_flag::HAS_GARBAGE)
}
