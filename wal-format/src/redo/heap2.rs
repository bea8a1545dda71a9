//! Redo of Heap2's records (Postgres: heapam.c, `heap2_redo`).

use super::{
    Fault, Outcome,
    heap::add_tuple,
    tuple::{Tuple, TupleId},
};
use crate::{
    BlockRef, LinePointer, LinePointerState, Lsn, Page, PageKey, Record,
    fields::Fields,
    page_flags,
    rmgr::{
        Offsets,
        heap::{self, Lock},
        heap2::{FreezePlan, Heap2, MultiInsert, MultiInsertTuple, Prune},
    },
    visibility_map::{self, Place},
};

/// `FrozenTransactionId`.
const FROZEN_XID: u32 = 2;

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Heap2::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match (parsed, block.id) {
        (Heap2::Prune(prune), 0) => prune_items(block, prune, page),
        (Heap2::Vacuum(count), 0) => vacuum_items(block, count, page),
        (Heap2::Freeze(count), 0) => freeze_tuples(block, count, page),
        (Heap2::Visible(_), 1) => {
            // The LSN moves too: Postgres does so only with checksums or wal_log_hints, which the record does not say.
            page.bounds()?;
            page.set_flag(page_flags::ALL_VISIBLE, true);
            Ok(())
        }
        (Heap2::MultiInsert(insert), 0) => insert_tuples(record, block, insert, page),
        (Heap2::LockUpdated(lock), 0) => lock_updated(lock, page),
        _ => Err(Fault::Malformed),
    }
}

/// `heap_xlog_visible` on the visibility map's page, whose LSN moves only where a bit does.
pub(super) fn set_visibility(record: &Record, end: Lsn, page: &mut Page) -> Outcome {
    let parsed = Heap2::parse(record.info, record.main);
    let (Some(Heap2::Visible(visible)), Some(heap)) = (parsed, record.block(1)) else {
        return Err(Fault::Malformed);
    };
    if Place::of(heap.key.block).set(page, visible.bits) {
        page.set_lsn(end);
    }
    Ok(())
}

/// Whether the heap page is no longer all visible, or frozen.
pub(crate) fn clears_visibility(parsed: Heap2<'_>) -> bool {
    cleared_bits(parsed).is_some()
}

/// The visibility map's bits that go.
fn cleared_bits(parsed: Heap2<'_>) -> Option<u8> {
    match parsed {
        Heap2::MultiInsert(insert) if insert.all_visible_cleared => Some(visibility_map::ALL_BITS),
        Heap2::LockUpdated(lock) if lock.all_frozen_cleared => Some(visibility_map::ALL_FROZEN),
        _ => None,
    }
}

/// The heap page that is no longer all visible, or frozen, with the visibility map's bits that go.
pub(crate) fn cleared(record: &Record, parsed: Heap2<'_>) -> Option<(PageKey, u8)> {
    let bits = cleared_bits(parsed)?;
    record.block(0).map(|block| (block.key, bits))
}

/// Clears its bits in a page of the visibility map.
pub(super) fn clear_visibility(record: &Record, key: PageKey, page: &mut Page) -> Outcome {
    let parsed = Heap2::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match cleared(record, parsed).filter(|(heap, _)| visibility_map::page_of(*heap) == key) {
        Some((heap, bits)) => {
            Place::of(heap.block).clear(page, bits);
            Ok(())
        }
        None => Err(Fault::NotTouched),
    }
}

/// `heap_xlog_prune`; pruneheap.c, `heap_page_prune_execute`.
fn prune_items(block: &BlockRef, prune: Prune, page: &mut Page) -> Outcome {
    let items = prune.items(block.data).ok_or(Fault::Malformed)?;
    let mut redirected = items.redirected.iter();
    while let (Some(from), Some(to)) = (redirected.next(), redirected.next()) {
        let pointer = LinePointer::new(LinePointerState::Redirect, usize::from(to), 0);
        page.set_line_pointer(from, pointer)?;
    }
    for offset in items.dead.iter() {
        page.set_line_pointer(offset, LinePointer::new(LinePointerState::Dead, 0, 0))?;
    }
    for offset in items.unused.iter() {
        page.set_line_pointer(offset, LinePointer::UNUSED)?;
    }
    page.repair_fragmentation()?;
    Ok(())
}

/// `heap_xlog_vacuum`.
fn vacuum_items(block: &BlockRef, count: u16, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let unused = Offsets::take(&mut fields, usize::from(count)).ok_or(Fault::Malformed)?;
    for offset in unused.iter() {
        page.set_line_pointer(offset, LinePointer::UNUSED)?;
    }
    page.truncate_line_pointers()?;
    Ok(())
}

/// `heap_xlog_freeze_page`; `heap_execute_freeze_tuple`.
fn freeze_tuples(block: &BlockRef, count: u16, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    for _ in 0..count {
        let plan = FreezePlan::read(&mut fields).ok_or(Fault::Malformed)?;
        let mut tuple = Tuple::of(page, plan.offset)?;
        tuple.set_xmax(plan.xmax);
        if plan.freeze_xvac {
            tuple.set_xvac(FROZEN_XID);
        }
        if plan.invalid_xvac {
            tuple.set_xvac(0);
        }
        tuple.set_infomasks(plan.infomask2, plan.infomask);
    }
    Ok(())
}

/// `heap_xlog_multi_insert`.
fn insert_tuples(
    record: &Record,
    block: &BlockRef,
    insert: MultiInsert<'_>,
    page: &mut Page,
) -> Outcome {
    if record.info & heap::INIT_PAGE != 0 {
        page.init(0);
    }
    let mut fields = Fields::new(block.data);
    for index in 0..insert.count {
        let offset = match insert.offsets {
            Some(offsets) => offsets.get(usize::from(index)),
            None => index.checked_add(1),
        };
        let place = TupleId { block: block.key.block, offset: offset.ok_or(Fault::Malformed)? };
        let total = block.data.len();
        let tuple = MultiInsertTuple::read(&mut fields, total).ok_or(Fault::Malformed)?;
        add_tuple(page, place, tuple.header, record.xid, 0, tuple.data)?;
    }
    if !fields.rest().is_empty() {
        return Err(Fault::Malformed);
    }
    if insert.all_visible_cleared {
        page.set_flag(page_flags::ALL_VISIBLE, false);
    }
    if insert.all_frozen_set {
        page.set_flag(page_flags::ALL_VISIBLE, true);
    }
    Ok(())
}

/// `heap_xlog_lock_updated`.
fn lock_updated(lock: Lock, page: &mut Page) -> Outcome {
    let mut tuple = Tuple::of(page, lock.offset)?;
    tuple.set_xmax_bits(lock.xmax_bits);
    tuple.set_xmax(lock.xmax);
    Ok(())
}
