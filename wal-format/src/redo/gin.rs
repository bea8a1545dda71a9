//! Redo of Gin's records (Postgres: ginxlog.c, `gin_redo`).

mod posting_list;

use super::{
    Fault, Outcome,
    index_tuple::{self, IndexTuple},
};
use crate::{
    BlockRef, PAGE_HEADER_BYTES, Page, PageError, Placement, Record,
    fields::Fields,
    rmgr::gin::{DeletePage, Gin, Insert, InsertListPage, META_BYTES, UpdateMeta},
};

/// Bytes of the special space (`GinPageOpaqueData`): right link, number of items, flags.
const SPECIAL_BYTES: usize = 8;
/// Where a page of a posting tree has its data: after the header and the right bound.
const DATA_START: usize = PAGE_HEADER_BYTES + 8;
/// Bytes of an inner page's item in a posting tree (`PostingItem`): a child and its bound.
const POSTING_ITEM_BYTES: usize = 10;
/// No block (`InvalidBlockNumber`).
const NO_BLOCK: u32 = u32::MAX;

/// `GinPageOpaqueData.flags`.
mod page_flag {
    pub const DATA: u16 = 1 << 0;
    pub const LEAF: u16 = 1 << 1;
    pub const DELETED: u16 = 1 << 2;
    pub const META: u16 = 1 << 3;
    pub const LIST: u16 = 1 << 4;
    pub const LIST_FULL_ROW: u16 = 1 << 5;
    pub const INCOMPLETE_SPLIT: u16 = 1 << 6;
    pub const COMPRESSED: u16 = 1 << 7;
}

/// A GIN page's place and kind.
#[derive(Clone, Copy)]
struct Opaque {
    right: u32,
    items: u16,
    flags: u16,
}

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Gin::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    match (parsed, block.id) {
        (Gin::CreatePostingTree(list), 0) => {
            init(page, page_flag::DATA | page_flag::LEAF | page_flag::COMPRESSED)?;
            put_data(page, list)
        }
        (Gin::Insert(insert), 0) => insert_items(block, insert, page),
        (Gin::Insert(_), 1) | (Gin::Split, 3) => {
            update(page, |opaque| opaque.flags &= !page_flag::INCOMPLETE_SPLIT)
        }
        (Gin::VacuumDataLeaf, 0) => posting_list::recompress(block.data, page),
        (Gin::DeletePage(delete), 0) => {
            page.set_prune_xid(delete.delete_xid);
            update(page, |opaque| opaque.flags |= page_flag::DELETED)
        }
        (Gin::DeletePage(delete), 1) => remove_posting_item(delete, page),
        (Gin::DeletePage(delete), 2) => update(page, |opaque| opaque.right = delete.right),
        (Gin::UpdateMeta(update), 0) => restore_meta(update.metadata, page),
        (Gin::UpdateMeta(meta), 1) => extend_pending_list(block, meta, page),
        (Gin::InsertListPage(insert), 0) => make_list_page(block, insert, page),
        (Gin::DeleteListPages(metadata), 0) => restore_meta(metadata, page),
        (Gin::DeleteListPages(_), _) => init(page, page_flag::DELETED),
        _ => Err(Fault::Malformed),
    }
}

/// `ginRedoInsert`.
fn insert_items(block: &BlockRef, insert: Insert, page: &mut Page) -> Outcome {
    match (insert.is_data, insert.right_child) {
        (true, None) => posting_list::recompress(block.data, page),
        (true, Some(right_child)) => insert_posting_item(block, right_child, page),
        (false, right_child) => insert_entry(block, right_child, page),
    }
}

/// `ginRedoInsertEntry`.
fn insert_entry(block: &BlockRef, right_child: Option<u32>, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let (Some(offset), Some(is_delete), Some(())) = (fields.u16(), fields.u8(), fields.skip(1))
    else {
        return Err(Fault::Malformed);
    };
    if let Some(right) = right_child {
        let downlink = page.item_mut(offset)?;
        if downlink.len() < index_tuple::HEADER_BYTES {
            return Err(PageError::Content("the downlink is too short").into());
        }
        index_tuple::put_tid(downlink, right, 0);
    }
    if is_delete != 0 {
        page.delete_item(offset)?;
    }
    let tuple = IndexTuple::at(fields.rest())?;
    page.add_item(offset, tuple.bytes(), Placement::Shift)?;
    Ok(())
}

/// `ginRedoInsertData` on an inner page: the item's child is split, the new item is its left half.
fn insert_posting_item(block: &BlockRef, right_child: u32, page: &mut Page) -> Outcome {
    let mut fields = Fields::new(block.data);
    let offset = usize::from(fields.u16().ok_or(Fault::Malformed)?);
    let new = fields.take(POSTING_ITEM_BYTES).ok_or(Fault::Malformed)?;
    let mut items = posting_items(page)?;
    if offset == 0 || offset * POSTING_ITEM_BYTES > items.len() {
        return Err(PageError::Content("the posting item is out of range").into());
    }
    let at = (offset - 1) * POSTING_ITEM_BYTES;
    items[at..at + 2].copy_from_slice(&((right_child >> 16) as u16).to_le_bytes());
    items[at + 2..at + 4].copy_from_slice(&(right_child as u16).to_le_bytes());
    items.splice(at..at, new.iter().copied());
    put_posting_items(page, &items)
}

/// `ginRedoDeletePage` on the parent.
fn remove_posting_item(delete: DeletePage, page: &mut Page) -> Outcome {
    let offset = usize::from(delete.parent_offset);
    let mut items = posting_items(page)?;
    if offset == 0 || offset * POSTING_ITEM_BYTES > items.len() {
        return Err(PageError::Content("the posting item is out of range").into());
    }
    items.drain((offset - 1) * POSTING_ITEM_BYTES..offset * POSTING_ITEM_BYTES);
    put_posting_items(page, &items)
}

/// The items of an inner page of a posting tree.
fn posting_items(page: &Page) -> Result<Vec<u8>, Fault> {
    let count = usize::from(Opaque::of(page)?.items);
    let special = page.bounds()?.special;
    let items = page.bytes()[..special]
        .get(DATA_START..DATA_START + count * POSTING_ITEM_BYTES)
        .ok_or(PageError::Content("the posting items go beyond the page"))?;
    Ok(items.to_vec())
}

fn put_posting_items(page: &mut Page, items: &[u8]) -> Outcome {
    put_data(page, items)?;
    update(page, |opaque| opaque.items = (items.len() / POSTING_ITEM_BYTES) as u16)
}

/// Writes the data of a posting tree's page (`GinDataPageSetDataSize`).
fn put_data(page: &mut Page, data: &[u8]) -> Outcome {
    let special = page.bounds()?.special;
    let end = DATA_START + data.len();
    if end > special {
        return Err(PageError::Content("the posting list does not fit the page").into());
    }
    page.bytes_mut()[DATA_START..end].copy_from_slice(data);
    page.set_lower(end);
    Ok(())
}

/// `ginRedoUpdateMetapage` on the pending list's tail.
fn extend_pending_list(block: &BlockRef, meta: UpdateMeta<'_>, page: &mut Page) -> Outcome {
    if meta.tuples > 0 {
        add_tuples(block, meta.tuples, page)?;
        update(page, |opaque| opaque.items = opaque.items.wrapping_add(1))
    } else if meta.previous_tail != NO_BLOCK {
        update(page, |opaque| opaque.right = meta.new_right)
    } else {
        Err(Fault::Malformed)
    }
}

/// `ginRedoInsertListPage`.
fn make_list_page(block: &BlockRef, insert: InsertListPage, page: &mut Page) -> Outcome {
    let is_last = insert.right == NO_BLOCK;
    let full_row = if is_last { page_flag::LIST_FULL_ROW } else { 0 };
    init(page, page_flag::LIST | full_row)?;
    update(page, |opaque| {
        opaque.right = insert.right;
        opaque.items = u16::from(is_last);
    })?;
    add_tuples(block, insert.tuples, page)
}

/// Adds the tuples of the block's data, which stand one after the other, behind those on the page.
fn add_tuples(block: &BlockRef, count: i32, page: &mut Page) -> Outcome {
    let mut data = block.data;
    for _ in 0..count {
        let tuple = IndexTuple::at(data)?.bytes();
        data = &data[tuple.len()..];
        page.add_item(page.max_offset() + 1, tuple, Placement::Shift)?;
    }
    if data.is_empty() { Ok(()) } else { Err(Fault::Malformed) }
}

/// The meta page with these data (ginutil.c, `GinInitMetabuffer`).
fn restore_meta(metadata: &[u8], page: &mut Page) -> Outcome {
    init(page, page_flag::META)?;
    let end = PAGE_HEADER_BYTES + META_BYTES;
    page.bytes_mut()[PAGE_HEADER_BYTES..end].copy_from_slice(metadata);
    page.set_lower(end);
    Ok(())
}

/// An empty page of this kind (ginutil.c, `GinInitPage`).
fn init(page: &mut Page, flags: u16) -> Outcome {
    page.init(SPECIAL_BYTES);
    Opaque { right: NO_BLOCK, items: 0, flags }.write(page)?;
    Ok(())
}

fn update(page: &mut Page, change: impl FnOnce(&mut Opaque)) -> Outcome {
    let mut opaque = Opaque::of(page)?;
    change(&mut opaque);
    opaque.write(page)?;
    Ok(())
}

impl Opaque {
    fn of(page: &Page) -> Result<Opaque, PageError> {
        let bytes = page.special(SPECIAL_BYTES)?;
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let right = u32::from(half(2)) << 16 | u32::from(half(0));
        Ok(Opaque { right, items: half(4), flags: half(6) })
    }

    fn write(self, page: &mut Page) -> Result<(), PageError> {
        let bytes = page.special_mut(SPECIAL_BYTES)?;
        bytes[..4].copy_from_slice(&self.right.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.items.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_le_bytes());
        Ok(())
    }
}
