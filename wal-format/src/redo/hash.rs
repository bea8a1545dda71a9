//! Redo of Hash's records (Postgres: hash_xlog.c, `hash_redo`).

mod meta;

use super::{Fault, Outcome, index_tuple::IndexTuple};
use crate::{
    BlockRef, PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageError, Placement, Record,
    fields::Fields,
    page::align8,
    rmgr::{
        Offsets,
        hash::{AddOverflow, Hash, Squeeze},
    },
};

/// Bytes of the special space (`HashPageOpaqueData`): previous, next, bucket, flags, page id.
const SPECIAL_BYTES: usize = 16;
/// `HASHO_PAGE_ID`.
const PAGE_ID: u16 = 0xFF80;
/// No block, no bucket (`InvalidBlockNumber`, `InvalidBucket`).
const NONE: u32 = u32::MAX;

/// `hasho_flag`.
mod page_flag {
    pub const UNUSED: u16 = 0;
    pub const OVERFLOW: u16 = 1 << 0;
    pub const BITMAP: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const NEEDS_SPLIT_CLEANUP: u16 = 1 << 6;
    pub const HAS_DEAD_TUPLES: u16 = 1 << 7;
}

/// A hash page's place and kind.
#[derive(Clone, Copy)]
struct Opaque {
    /// The page before it; of a bucket's first page, the largest bucket when it was last split.
    previous: u32,
    next: u32,
    bucket: u32,
    flags: u16,
}

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Hash::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match (parsed, block.id) {
        (Hash::InitMeta(init), 0) => meta::init(init, page),
        (Hash::InitBitmap(bytes), 0) => init_bitmap(bytes, page),
        (Hash::InitBitmap(_), 1) => meta::add_first_bitmap(page),
        (Hash::Insert(offset), 0) => Ok(page.add_item(offset, block.data, Placement::Shift)?),
        (Hash::Insert(_), 1) => meta::change_tuples(page, |tuples| tuples + 1.0),
        (Hash::AddOverflow(add), id) => add_overflow(record, block, add, id, page),
        (Hash::SplitAllocate(split), 0) => update(page, |opaque| {
            opaque.flags = split.old_flags;
            opaque.previous = split.new_bucket;
        }),
        (Hash::SplitAllocate(split), 1) => {
            let bucket = split.new_bucket;
            init(page, Opaque { previous: bucket, next: NONE, bucket, flags: split.new_flags })
        }
        (Hash::SplitAllocate(split), 2) => meta::add_bucket(block, split, page),
        (Hash::SplitComplete { old_flags, .. }, 0) => {
            update(page, |opaque| opaque.flags = old_flags)
        }
        (Hash::SplitComplete { new_flags, .. }, 1) => {
            update(page, |opaque| opaque.flags = new_flags)
        }
        (Hash::MoveContents(count), 1) => add_tuples(block, count, page),
        (Hash::MoveContents(_), 2) => delete_listed(block, page),
        (Hash::Squeeze(squeeze), id) => squeeze_page(block, squeeze, id, page),
        (Hash::Delete { clear_dead }, 1) => {
            delete_listed(block, page)?;
            let gone = if clear_dead { page_flag::HAS_DEAD_TUPLES } else { 0 };
            update(page, |opaque| opaque.flags &= !gone)
        }
        (Hash::SplitCleanup, 0) => {
            update(page, |opaque| opaque.flags &= !page_flag::NEEDS_SPLIT_CLEANUP)
        }
        (Hash::UpdateMeta(tuples), 0) => meta::change_tuples(page, |_| tuples),
        (Hash::VacuumOnePage(items), 0) => {
            page.delete_items(items.iter())?;
            update(page, |opaque| opaque.flags &= !page_flag::HAS_DEAD_TUPLES)
        }
        (Hash::VacuumOnePage(items), 1) => {
            let gone = items.len() as f64;
            meta::change_tuples(page, |tuples| tuples - gone)
        }
        _ => Err(Fault::Malformed),
    }
}

/// Whether the record names this block only so that a standby locks it: its page, and its LSN, stay.
pub(super) fn only_locks(record: &Record, block: &BlockRef) -> bool {
    let parsed = Hash::parse(record.info, record.main);
    let locks =
        matches!(parsed, Some(Hash::MoveContents(_) | Hash::Squeeze(_) | Hash::Delete { .. }));
    block.id == 0 && locks
}

/// The buckets of a split that come as images change nevertheless.
pub(super) fn after_restore(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    match (Hash::parse(record.info, record.main), block.id) {
        (Some(Hash::SplitAllocate(_)), 0) | (Some(Hash::SplitComplete { .. }), 0 | 1) => {
            redo(record, block, page)
        }
        (Some(_), _) => Ok(()),
        (None, _) => Err(Fault::Malformed),
    }
}

/// `hash_xlog_add_ovfl_page`.
fn add_overflow(
    record: &Record,
    block: &BlockRef,
    add: AddOverflow,
    id: u8,
    page: &mut Page,
) -> Outcome {
    let place = |id: u8| record.block(id).map(|block| block.key.block);
    match id {
        0 => {
            let (previous, bucket) = (place(1).ok_or(Fault::Malformed)?, word(block)?);
            init(page, Opaque { previous, next: NONE, bucket, flags: page_flag::OVERFLOW })
        }
        1 => {
            let new = place(0).ok_or(Fault::Malformed)?;
            update(page, |opaque| opaque.next = new)
        }
        2 => change_bit(block, page, true),
        3 => init_bitmap(add.bitmap_bytes, page),
        4 => meta::add_overflow_page(word(block)?, add.was_free, place(3), page),
        _ => Err(Fault::Malformed),
    }
}

/// `hash_xlog_squeeze_page`.
fn squeeze_page(block: &BlockRef, squeeze: Squeeze, id: u8, page: &mut Page) -> Outcome {
    match id {
        1 => {
            add_tuples(block, squeeze.tuples, page)?;
            match squeeze.to_previous {
                true => update(page, |opaque| opaque.next = squeeze.next),
                false => Ok(()),
            }
        }
        2 => {
            let unused = page_flag::UNUSED;
            init(page, Opaque { previous: NONE, next: NONE, bucket: NONE, flags: unused })
        }
        3 => update(page, |opaque| opaque.next = squeeze.next),
        4 => update(page, |opaque| opaque.previous = squeeze.previous),
        5 => change_bit(block, page, false),
        6 => meta::set_first_free(word(block)?, page),
        _ => Err(Fault::Malformed),
    }
}

/// Adds the tuples of the block's data under the numbers that stand before them.
fn add_tuples(block: &BlockRef, count: u16, page: &mut Page) -> Outcome {
    if count == 0 {
        return Ok(());
    }
    let mut fields = Fields::new(block.data);
    let offsets = Offsets::take(&mut fields, usize::from(count)).ok_or(Fault::Malformed)?;
    let mut tuples = fields.rest();
    for offset in offsets.iter() {
        let tuple = IndexTuple::take(&mut tuples)?.bytes();
        let item = page.reserve_item(offset, align8(tuple.len()), Placement::Shift)?;
        item[..tuple.len()].copy_from_slice(tuple);
        item[tuple.len()..].fill(0);
    }
    if tuples.is_empty() { Ok(()) } else { Err(Fault::Malformed) }
}

/// The items that the block's data lists go.
fn delete_listed(block: &BlockRef, page: &mut Page) -> Outcome {
    let items = Offsets::rest(&mut Fields::new(block.data)).ok_or(Fault::Malformed)?;
    Ok(page.delete_items(items.iter())?)
}

/// A page of the bitmap of overflow pages, all in use (`_hash_initbitmapbuffer`).
fn init_bitmap(bytes: u16, page: &mut Page) -> Outcome {
    let flags = page_flag::BITMAP;
    init(page, Opaque { previous: NONE, next: NONE, bucket: NONE, flags })?;
    let end = PAGE_HEADER_BYTES + usize::from(bytes);
    if end > PAGE_BYTES - SPECIAL_BYTES {
        return Err(Fault::Malformed);
    }
    page.bytes_mut()[PAGE_HEADER_BYTES..end].fill(0xFF);
    page.set_lower(end);
    Ok(())
}

/// Changes the bit of the bitmap that the block's data names.
fn change_bit(block: &BlockRef, page: &mut Page, on: bool) -> Outcome {
    let bit = word(block)?;
    let at = PAGE_HEADER_BYTES + (bit / 8) as usize;
    let special = page.bounds()?.special;
    let byte = page.bytes_mut()[..special].get_mut(at);
    let byte = byte.ok_or(PageError::Content("the bit is beyond the bitmap"))?;
    let mask = 1 << (bit % 8);
    *byte = if on { *byte | mask } else { *byte & !mask };
    Ok(())
}

/// The one number that a block's data is.
fn word(block: &BlockRef) -> Result<u32, Fault> {
    Fields::new(block.data).u32().ok_or(Fault::Malformed)
}

/// An empty page (`_hash_initbuf`).
fn init(page: &mut Page, opaque: Opaque) -> Outcome {
    page.init(SPECIAL_BYTES);
    page.special_mut(SPECIAL_BYTES)?[14..16].copy_from_slice(&PAGE_ID.to_le_bytes());
    Ok(opaque.write(page)?)
}

fn update(page: &mut Page, change: impl FnOnce(&mut Opaque)) -> Outcome {
    let bytes = page.special(SPECIAL_BYTES)?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let flags = u16::from_le_bytes([bytes[12], bytes[13]]);
    let mut opaque = Opaque { previous: word(0), next: word(4), bucket: word(8), flags };
    change(&mut opaque);
    Ok(opaque.write(page)?)
}

impl Opaque {
    fn write(self, page: &mut Page) -> Result<(), PageError> {
        let bytes = page.special_mut(SPECIAL_BYTES)?;
        bytes[..4].copy_from_slice(&self.previous.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.next.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bucket.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        Ok(())
    }
}
