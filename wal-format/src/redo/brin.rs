//! Redo of BRIN's records (Postgres: brin_xlog.c, `brin_redo`).

use super::{Fault, Outcome, index_tuple};
use crate::{
    BlockRef, PAGE_BYTES, PAGE_HEADER_BYTES, Page, PageError, Placement, Record,
    rmgr::brin::{self, Brin, Insert, Range},
};

/// Bytes of the special space (`BrinSpecialSpace`); the page's type is the last two.
const SPECIAL_BYTES: usize = 8;
/// Bytes of the meta page's data (`BrinMetaPageData`): magic, version, pages per range, last page of the range map.
const META_BYTES: usize = 16;
/// `BRIN_META_MAGIC`.
const META_MAGIC: u32 = 0xA810_9CFA;
/// Entries of a page of the range map (`REVMAP_PAGE_MAXITEMS`).
const MAP_ENTRIES: u32 =
    ((PAGE_BYTES - PAGE_HEADER_BYTES - SPECIAL_BYTES) / index_tuple::TID_BYTES) as u32;

/// `BrinPageType`.
mod page_type {
    pub const META: u16 = 0xF091;
    pub const RANGE_MAP: u16 = 0xF092;
    pub const REGULAR: u16 = 0xF093;
}

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = Brin::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    let anew = record.info & brin::INIT_PAGE != 0;
    match (parsed, block.id) {
        (Brin::CreateIndex { pages_per_range, version }, 0) => {
            make_meta(page, pages_per_range, version)
        }
        (Brin::Insert(insert) | Brin::Update(insert, _), 0) => {
            if anew {
                init(page, page_type::REGULAR)?;
            }
            Ok(page.add_item(insert.offset, block.data, Placement::Overwrite)?)
        }
        (Brin::Insert(insert) | Brin::Update(insert, _), 1) => {
            let Insert { range, offset } = insert;
            let tuple_block = record.block(0).ok_or(Fault::Malformed)?.key.block;
            set_entry(page, range, tuple_block, offset)
        }
        (Brin::Update(_, old), 2) => Ok(page.delete_item_keeping_pointer(old)?),
        (Brin::SamePageUpdate(offset), 0) => Ok(page.overwrite_item(offset, block.data)?),
        (Brin::ExtendRangeMap { block }, 0) => {
            let end = PAGE_HEADER_BYTES + META_BYTES;
            if page.bounds()?.special < end {
                return Err(PageError::Content("the meta page has no room for its data").into());
            }
            page.bytes_mut()[end - 4..end].copy_from_slice(&block.to_le_bytes());
            page.set_lower(end);
            Ok(())
        }
        (Brin::ExtendRangeMap { .. }, 1) => init(page, page_type::RANGE_MAP),
        (Brin::Desummarize { range, .. }, 0) => set_entry(page, range, u32::MAX, 0),
        (Brin::Desummarize { offset, .. }, 1) => Ok(page.delete_item_keeping_pointer(offset)?),
        _ => Err(Fault::Malformed),
    }
}

/// brin_pageops.c, `brin_metapage_init`.
fn make_meta(page: &mut Page, pages_per_range: u32, version: u16) -> Outcome {
    init(page, page_type::META)?;
    let end = PAGE_HEADER_BYTES + META_BYTES;
    let words = [META_MAGIC, u32::from(version), pages_per_range, 0];
    let places = page.bytes_mut()[PAGE_HEADER_BYTES..end].chunks_exact_mut(4);
    for (word, place) in words.iter().zip(places) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    page.set_lower(end);
    Ok(())
}

/// Where the tuple of a range is (brin_revmap.c, `brinSetHeapBlockItemptr`).
fn set_entry(page: &mut Page, range: Range, block: u32, offset: u16) -> Outcome {
    let number = range.heap_block.checked_div(range.pages_per_range).ok_or(Fault::Malformed)?;
    let at = PAGE_HEADER_BYTES + (number % MAP_ENTRIES) as usize * index_tuple::TID_BYTES;
    page.bounds()?;
    index_tuple::put_tid(&mut page.bytes_mut()[at..at + index_tuple::TID_BYTES], block, offset);
    Ok(())
}

fn init(page: &mut Page, page_type: u16) -> Outcome {
    page.init(SPECIAL_BYTES);
    page.special_mut(SPECIAL_BYTES)?[6..8].copy_from_slice(&page_type.to_le_bytes());
    Ok(())
}
