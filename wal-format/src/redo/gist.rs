//! Redo of Gist's records (Postgres: gistxlog.c, `gist_redo`).

use super::{Fault, Outcome, index_tuple::IndexTuple};
use crate::{
    BlockRef, Lsn, PAGE_HEADER_BYTES, Page, PageError, Placement, Record,
    fields::Fields,
    rmgr::{
        Offsets,
        gist::{Gist, PageDelete, PageSplit, PageUpdate},
    },
};

/// Bytes of the special space (`GISTPageOpaqueData`): node sequence number, right link, flags, page id.
const SPECIAL_BYTES: usize = 16;
/// `GIST_PAGE_ID`.
const PAGE_ID: u16 = 0xFF81;
/// `GIST_ROOT_BLKNO`.
const ROOT: u32 = 0;
/// No block (`InvalidBlockNumber`).
const NO_BLOCK: u32 = u32::MAX;

/// `GISTPageOpaqueData.flags`.
mod page_flag {
    pub const LEAF: u16 = 1 << 0;
    pub const DELETED: u16 = 1 << 1;
    pub const TUPLES_DELETED: u16 = 1 << 2;
    pub const FOLLOW_RIGHT: u16 = 1 << 3;
    pub const HAS_GARBAGE: u16 = 1 << 4;
}

pub(super) fn redo(record: &Record, block: &BlockRef, end: Lsn, page: &mut Page) -> Outcome {
    let parsed = Gist::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match (parsed, block.id) {
        (Gist::PageUpdate(update), 0) => update_page(block, update, page),
        (Gist::PageUpdate(_), 1) | (Gist::PageSplit(_), 0) => clear_follow_right(end, page),
        (Gist::Delete(items), 0) => {
            page.delete_items(items.iter())?;
            change_flags(page, page_flag::TUPLES_DELETED, page_flag::HAS_GARBAGE)
        }
        (Gist::PageSplit(split), _) => make_part(record, block, split, page),
        (Gist::PageDelete(delete), 0) => delete_page(delete, page),
        (Gist::PageDelete(delete), 1) => Ok(page.delete_item(delete.downlink)?),
        _ => Err(Fault::Malformed),
    }
}

/// A split page that comes as an image changes nevertheless: the image was taken before its mark went.
pub(super) fn after_restore(
    record: &Record,
    block: &BlockRef,
    end: Lsn,
    page: &mut Page,
) -> Outcome {
    match (Gist::parse(record.info, record.main), block.id) {
        (Some(Gist::PageUpdate(_)), 1) | (Some(Gist::PageSplit(_)), 0) => {
            clear_follow_right(end, page)
        }
        (Some(_), _) => Ok(()),
        (None, _) => Err(Fault::Malformed),
    }
}

/// `gistRedoClearFollowRight`: the page's right neighbour has its downlink.
fn clear_follow_right(end: Lsn, page: &mut Page) -> Outcome {
    set_sequence(page, end.0)?;
    change_flags(page, 0, page_flag::FOLLOW_RIGHT)
}

/// `gistRedoPageUpdateRecord`.
fn update_page(block: &BlockRef, update: PageUpdate, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let deleted =
        Offsets::take(&mut fields, usize::from(update.deleted)).ok_or(Fault::Malformed)?;
    let mut tuples = fields.rest();
    if let (1, 1, Some(offset)) = (update.deleted, update.inserted, deleted.get(0)) {
        let tuple = IndexTuple::at(tuples)?.bytes();
        page.overwrite_item(offset, tuple)?;
        tuples = &tuples[tuple.len()..];
    } else if !deleted.is_empty() {
        page.delete_items(deleted.iter())?;
        if flags(page)? & page_flag::LEAF != 0 {
            change_flags(page, page_flag::TUPLES_DELETED, 0)?;
        }
    }
    add_tuples(tuples, page)
}

/// Adds tuples that stand one after the other behind those on the page.
fn add_tuples(mut tuples: &[u8], page: &mut Page) -> Outcome {
    while !tuples.is_empty() {
        let tuple = IndexTuple::at(tuples)?.bytes();
        tuples = &tuples[tuple.len()..];
        page.add_item(page.max_offset() + 1, tuple, Placement::Shift)?;
    }
    Ok(())
}

/// `gistRedoPageSplitRecord`: one of the pages that the split made.
fn make_part(record: &Record, block: &BlockRef, split: PageSplit, page: &mut Page) -> Outcome {
    let block_of = |id: u8| record.block(id).map(|block| block.key.block);
    let is_root_split = block_of(1) == Some(ROOT);
    let is_root = block.key.block == ROOT;
    let is_last = u16::from(block.id) == split.pages;
    let mut fields = Fields::new(block.data);
    fields.skip(4).ok_or(Fault::Malformed)?;

    page.init(SPECIAL_BYTES);
    let leaf = if split.is_leaf && !is_root { page_flag::LEAF } else { 0 };
    let follows = split.follow_right && !is_last && !is_root_split;
    let right = match (is_root, is_last) {
        (true, _) => NO_BLOCK,
        (false, true) => split.right,
        (false, false) => block.id.checked_add(1).and_then(block_of).ok_or(Fault::Malformed)?,
    };
    let special = page.special_mut(SPECIAL_BYTES)?;
    special[8..12].copy_from_slice(&right.to_le_bytes());
    special[14..16].copy_from_slice(&PAGE_ID.to_le_bytes());
    change_flags(page, leaf | if follows { page_flag::FOLLOW_RIGHT } else { 0 }, 0)?;
    set_sequence(page, split.sequence)?;
    add_tuples(fields.rest(), page)
}

/// `gistRedoPageDelete` on the page itself (gist.h, `GistPageSetDeleted`).
fn delete_page(delete: PageDelete, page: &mut Page) -> Outcome {
    let end = PAGE_HEADER_BYTES + 8;
    if page.bounds()?.upper < end {
        return Err(PageError::Content("the page to delete is not empty").into());
    }
    page.bytes_mut()[PAGE_HEADER_BYTES..end].copy_from_slice(&delete.delete_xid.to_le_bytes());
    page.set_lower(end);
    change_flags(page, page_flag::DELETED, 0)
}

fn flags(page: &Page) -> Result<u16, PageError> {
    let special = page.special(SPECIAL_BYTES)?;
    Ok(u16::from_le_bytes([special[12], special[13]]))
}

fn change_flags(page: &mut Page, set: u16, clear: u16) -> Outcome {
    let flags = flags(page)? & !clear | set;
    page.special_mut(SPECIAL_BYTES)?[12..14].copy_from_slice(&flags.to_le_bytes());
    Ok(())
}

/// The node sequence number is kept as LSNs are: the high half first.
fn set_sequence(page: &mut Page, sequence: u64) -> Outcome {
    let special = page.special_mut(SPECIAL_BYTES)?;
    special[..4].copy_from_slice(&((sequence >> 32) as u32).to_le_bytes());
    special[4..8].copy_from_slice(&(sequence as u32).to_le_bytes());
    Ok(())
}
