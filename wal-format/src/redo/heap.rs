//! Redo of Heap's records (Postgres: heapam.c, `heap_redo`).

use super::{
    Fault, Outcome,
    tuple::{HEADER_BYTES, Tuple, TupleId},
};
use crate::{
    BlockRef, FIRST_NORMAL_XID, Page, PageError, PageKey, Placement, Record,
    fields::Fields,
    page_flags,
    rmgr::heap::{self, Delete, Heap, Insert, Lock, TupleHeader, Update},
    visibility_map::{self, Place},
};

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Heap::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    if record.info & heap::INIT_PAGE != 0 && block.id == 0 {
        page.init(0);
    }
    match (parsed, block.id) {
        (Heap::Insert(insert), 0) => insert_tuple(record, block, insert, page),
        (Heap::Delete(delete), 0) => delete_tuple(record, block, delete, page),
        (Heap::Update(update), id) => update_tuple(record, block, id, update, page),
        (Heap::Confirm(offset), 0) => {
            Tuple::of(page, offset)?.set_ctid(TupleId { block: block.key.block, offset });
            Ok(())
        }
        (Heap::Lock(lock), 0) => lock_tuple(block, lock, page),
        (Heap::Inplace(offset), 0) => replace_data(block, offset, page),
        _ => Err(Fault::Malformed),
    }
}

/// Whether a heap page is no longer all visible, or frozen.
pub(crate) fn clears_visibility(parsed: Heap) -> bool {
    let (old, new, _) = cleared_bits(parsed);
    old || new
}

/// Whether the page of the old tuple and that of the new one are no longer all visible, or frozen, and the visibility map's bits that go.
fn cleared_bits(parsed: Heap) -> (bool, bool, u8) {
    match parsed {
        Heap::Insert(insert) => (false, insert.all_visible_cleared, visibility_map::ALL_BITS),
        Heap::Delete(delete) => (false, delete.all_visible_cleared, visibility_map::ALL_BITS),
        Heap::Update(update) => (
            update.old_all_visible_cleared,
            update.new_all_visible_cleared,
            visibility_map::ALL_BITS,
        ),
        Heap::Lock(lock) => (false, lock.all_frozen_cleared, visibility_map::ALL_FROZEN),
        Heap::Truncate | Heap::Confirm(_) | Heap::Inplace(_) => (false, false, 0),
    }
}

/// The heap pages that are no longer all visible, or frozen, with the visibility map's bits that go.
pub(crate) fn cleared(record: &Record, parsed: Heap) -> impl Iterator<Item = (PageKey, u8)> {
    let (old_cleared, new_cleared, bits) = cleared_bits(parsed);
    let block = |cleared: bool, id| if cleared { record.block(id) } else { None };
    let old = block(old_cleared, 1).or(block(old_cleared, 0));
    let new = block(new_cleared, 0);
    [old, new].into_iter().flatten().map(move |block| (block.key, bits))
}

/// Clears their bits in a page of the visibility map.
pub(super) fn clear_visibility(record: &Record, key: PageKey, page: &mut Page) -> Outcome {
    let parsed = Heap::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    for (heap, bits) in cleared(record, parsed) {
        if visibility_map::page_of(heap) == key {
            Place::of(heap.block).clear(page, bits);
        }
    }
    Ok(())
}

/// `heap_xlog_insert`.
fn insert_tuple(record: &Record, block: &BlockRef, insert: Insert, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let header = TupleHeader::read(&mut fields).ok_or(Fault::Malformed)?;
    let place = TupleId { block: block.key.block, offset: insert.offset };
    add_tuple(page, place, header, record.xid, 0, fields.rest())?;
    if insert.all_visible_cleared {
        page.set_flag(page_flags::ALL_VISIBLE, false);
    }
    Ok(())
}

/// Adds a tuple whose bytes after the fixed header are these.
pub(super) fn add_tuple(
    page: &mut Page,
    place: TupleId,
    header: TupleHeader,
    xmin: u32,
    xmax: u32,
    rest: &[u8],
) -> Outcome {
    let start = page.reserve_place(place.offset, HEADER_BYTES + rest.len(), Placement::Heap)?;
    let (to, _) = page.bytes_mut()[start..].split_at_mut(HEADER_BYTES + rest.len());
    let (fixed, to) = to.split_first_chunk_mut().expect("it has room for the header");
    to.copy_from_slice(rest);
    Tuple::make(fixed, header, xmin, xmax, place);
    Ok(())
}

/// `heap_xlog_delete`.
fn delete_tuple(record: &Record, block: &BlockRef, delete: Delete, page: &mut Page) -> Outcome {
    let mut tuple = Tuple::of(page, delete.offset)?;
    tuple.set_xmax_bits(delete.xmax_bits);
    tuple.set_hot_updated(false);
    if delete.speculative {
        tuple.set_xmin(0);
    } else {
        tuple.set_xmax(delete.xmax);
    }
    tuple.set_first_command();
    tuple.set_ctid(match delete.moved_partition {
        true => TupleId::MOVED_PARTITION,
        false => TupleId { block: block.key.block, offset: delete.offset },
    });
    set_prunable(page, record.xid);
    if delete.all_visible_cleared {
        page.set_flag(page_flags::ALL_VISIBLE, false);
    }
    Ok(())
}

/// `heap_xlog_update`: block 0 has the new tuple, block 1 the old one where it is elsewhere.
fn update_tuple(
    record: &Record,
    block: &BlockRef,
    id: u8,
    update: Update,
    page: &mut Page,
) -> Outcome {
    let new_block = record.block(0).ok_or(Fault::Malformed)?.key.block;
    let new = TupleId { block: new_block, offset: update.new_offset };
    match id {
        0 if record.block(1).is_none() => {
            end_old_version(record, update, new, page)?;
            add_new_version(record, block, update, new, page)
        }
        0 => add_new_version(record, block, update, new, page),
        1 => end_old_version(record, update, new, page),
        _ => Err(Fault::Malformed),
    }
}

fn end_old_version(record: &Record, update: Update, new: TupleId, page: &mut Page) -> Outcome {
    let mut tuple = Tuple::of(page, update.old_offset)?;
    tuple.set_xmax_bits(update.old_xmax_bits);
    tuple.set_hot_updated(update.hot);
    tuple.set_xmax(update.old_xmax);
    tuple.set_first_command();
    tuple.set_ctid(new);
    set_prunable(page, record.xid);
    if update.old_all_visible_cleared {
        page.set_flag(page_flags::ALL_VISIBLE, false);
    }
    Ok(())
}

fn add_new_version(
    record: &Record,
    block: &BlockRef,
    update: Update,
    new: TupleId,
    page: &mut Page,
) -> Outcome {
    let mut fields = Fields::new(block.data);
    let mut borrowed = |is: bool| if is { fields.u16().map(usize::from) } else { Some(0) };
    let prefix_bytes = borrowed(update.prefix_from_old).ok_or(Fault::Malformed)?;
    let suffix_bytes = borrowed(update.suffix_from_old).ok_or(Fault::Malformed)?;
    let header = TupleHeader::read(&mut fields).ok_or(Fault::Malformed)?;

    if prefix_bytes == 0 && suffix_bytes == 0 {
        add_tuple(page, new, header, record.xid, update.new_xmax, fields.rest())?;
    } else {
        // The null bitmap and the padding stand before the prefix.
        let before = match prefix_bytes {
            0 => Some(0),
            _ => usize::from(header.data_offset).checked_sub(HEADER_BYTES),
        };
        let bitmap = before.and_then(|bytes| fields.take(bytes)).ok_or(Fault::Malformed)?;
        let borrowed = (update.old_offset, prefix_bytes, suffix_bytes);
        let at = add_borrowing(page, new, borrowed, bitmap, fields.rest())?;
        let fixed = page.bytes_mut()[at..].first_chunk_mut().expect("it has room for the header");
        Tuple::make(fixed, header, record.xid, update.new_xmax, new);
    }
    if update.new_all_visible_cleared {
        page.set_flag(page_flags::ALL_VISIBLE, false);
    }
    Ok(())
}

/// Adds a tuple that begins and ends as an old one does, so many bytes of its data, and gives its position; its header is still to be
/// made. `bitmap` stands before what is taken over of the beginning, `rest` after it.
fn add_borrowing(
    page: &mut Page,
    place: TupleId,
    (old_offset, prefix_bytes, suffix_bytes): (u16, usize, usize),
    bitmap: &[u8],
    rest: &[u8],
) -> Result<usize, Fault> {
    let old = Tuple::data_range(page, old_offset)?;
    let too_short = PageError::Content("the old tuple is shorter than what the new one takes over");
    if old.len() < prefix_bytes.max(suffix_bytes) {
        return Err(too_short.into());
    }
    let bytes = HEADER_BYTES + bitmap.len() + prefix_bytes + rest.len() + suffix_bytes;
    let start = page.reserve_place(place.offset, bytes, Placement::Heap)?;
    let page = page.bytes_mut();
    let mut at = start + HEADER_BYTES;
    page[at..at + bitmap.len()].copy_from_slice(bitmap);
    at += bitmap.len();
    page.copy_within(old.start..old.start + prefix_bytes, at);
    at += prefix_bytes;
    page[at..at + rest.len()].copy_from_slice(rest);
    at += rest.len();
    page.copy_within(old.end - suffix_bytes..old.end, at);
    Ok(start)
}

/// `heap_xlog_lock`.
fn lock_tuple(block: &BlockRef, lock: Lock, page: &mut Page) -> Outcome {
    let mut tuple = Tuple::of(page, lock.offset)?;
    tuple.set_xmax_bits(lock.xmax_bits);
    if tuple.is_only_locked() {
        tuple.set_hot_updated(false);
        tuple.set_ctid(TupleId { block: block.key.block, offset: lock.offset });
    }
    tuple.set_xmax(lock.xmax);
    tuple.set_first_command();
    Ok(())
}

/// `heap_xlog_inplace`.
fn replace_data(block: &BlockRef, offset: u16, page: &mut Page) -> Outcome {
    let mut tuple = Tuple::of(page, offset)?;
    let data = tuple.data_mut()?;
    if data.len() != block.data.len() {
        return Err(PageError::Content("the tuple's new contents have another length").into());
    }
    data.copy_from_slice(block.data);
    Ok(())
}

/// Notes that once this transaction has ended there may be something to prune (`PageSetPrunable`).
fn set_prunable(page: &mut Page, xid: u32) {
    let old = page.prune_xid();
    let both_normal = xid >= FIRST_NORMAL_XID && old >= FIRST_NORMAL_XID;
    let precedes = if both_normal { (xid.wrapping_sub(old) as i32) < 0 } else { xid < old };
    if old == 0 || precedes {
        page.set_prune_xid(xid);
    }
}
