//! Posting lists of leaf pages (Postgres: ginpostinglist.c; ginxlog.c, `ginRedoRecompress`).
//!
//! A list is a run of segments. A segment is its first tuple id, a length, and the differences between the following tuple ids as
//! numbers of 43 bits (block, then 11 bits of item), seven bits a byte, the lowest first.

use super::{DATA_START, Opaque, page_flag, put_data, update};
use crate::{
    Page, PageError,
    fields::Fields,
    redo::{Fault, Outcome},
    rmgr::gin::{SegmentAction, segment},
};

/// Bits of an item in a tuple id's number (`MaxHeapTuplesPerPageBits`).
const ITEM_BITS: u32 = 11;
/// Bytes of a tuple id.
const TID_BYTES: usize = 6;
/// The largest number of bytes that a difference takes (`MaxBytesPerInteger`).
const DIFFERENCE_BYTES_MAX: u32 = 7;
/// The largest segment (`BLCKSZ` in `ginRedoRecompress`).
const SEGMENT_BYTES_MAX: usize = crate::PAGE_BYTES;

const DAMAGED: PageError = PageError::Content("the posting list is damaged");

/// Changes segments of a leaf page as the actions say, in rising order of the segments.
pub(super) fn recompress(actions: &[u8], page: &mut Page) -> Outcome {
    let old = current_list(page)?;
    let mut old = Fields::new(&old);
    let mut new = Vec::with_capacity(old.rest().len() + actions.len());
    let mut fields = Fields::new(actions);
    let count = fields.u16().ok_or(Fault::Malformed)?;
    let mut number = 0;
    for _ in 0..count {
        let (at, action) = SegmentAction::read(&mut fields).ok_or(Fault::Malformed)?;
        while number < at {
            new.extend_from_slice(segment(&mut old).ok_or(DAMAGED)?);
            number += 1;
        }
        if let SegmentAction::Insert(inserted) = action {
            new.extend_from_slice(inserted);
            continue;
        }
        let replaced = segment(&mut old).ok_or(DAMAGED)?;
        number = number.checked_add(1).ok_or(Fault::Malformed)?;
        match action {
            SegmentAction::Replace(replacement) => new.extend_from_slice(replacement),
            SegmentAction::AddItems(added) => {
                let all = merge(decode(replaced)?, numbers(added));
                encode(&all, &mut new)?;
            }
            SegmentAction::Delete | SegmentAction::Insert(_) => {}
        }
    }
    new.extend_from_slice(old.rest());
    put_data(page, &new)?;
    update(page, |opaque| {
        if opaque.flags & page_flag::COMPRESSED == 0 {
            opaque.flags |= page_flag::COMPRESSED;
            opaque.items = 0;
        }
    })
}

/// The page's segments; of a page from before Postgres 9.4, what its bare tuple ids are as one.
fn current_list(page: &Page) -> Result<Vec<u8>, Fault> {
    let opaque = Opaque::of(page)?;
    if opaque.flags & page_flag::COMPRESSED != 0 {
        let end = page.bounds()?.lower;
        return Ok(page.bytes().get(DATA_START..end).ok_or(DAMAGED)?.to_vec());
    }
    let end = DATA_START + usize::from(opaque.items) * TID_BYTES;
    let bare = numbers(page.bytes().get(DATA_START..end).ok_or(DAMAGED)?);
    let mut list = Vec::new();
    if !bare.is_empty() {
        encode(&bare, &mut list)?;
    }
    Ok(list)
}

/// Tuple ids as numbers (`itemptr_to_uint64`).
fn numbers(tids: &[u8]) -> Vec<u64> {
    let half = |tid: &[u8], at: usize| u64::from(u16::from_le_bytes([tid[at], tid[at + 1]]));
    let number = |tid: &[u8]| (half(tid, 0) << 16 | half(tid, 2)) << ITEM_BITS | half(tid, 4);
    tids.chunks_exact(TID_BYTES).map(number).collect()
}

/// A segment's tuple ids (`ginPostingListDecode`).
fn decode(segment: &[u8]) -> Result<Vec<u64>, Fault> {
    let mut fields = Fields::new(segment);
    let first = fields.take(TID_BYTES).ok_or(DAMAGED)?;
    let bytes = fields.u16().ok_or(DAMAGED)?;
    let mut differences = Fields::new(fields.take(usize::from(bytes)).ok_or(DAMAGED)?);
    let mut all = numbers(first);
    let mut last = all.first().copied().unwrap_or(0);
    while !differences.rest().is_empty() {
        let mut difference = 0;
        for place in 0..DIFFERENCE_BYTES_MAX {
            let byte = differences.u8().ok_or(DAMAGED)?;
            difference |= u64::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        last += difference;
        all.push(last);
    }
    Ok(all)
}

/// Appends a segment of these tuple ids (`ginCompressPostingList`).
fn encode(all: &[u64], list: &mut Vec<u8>) -> Outcome {
    let first = *all.first().ok_or(DAMAGED)?;
    let start = list.len();
    let block = first >> ITEM_BITS;
    list.extend_from_slice(&((block >> 16) as u16).to_le_bytes());
    list.extend_from_slice(&(block as u16).to_le_bytes());
    list.extend_from_slice(&((first & ((1 << ITEM_BITS) - 1)) as u16).to_le_bytes());
    list.extend_from_slice(&[0; 2]);
    for pair in all.windows(2) {
        let mut difference = pair[1].checked_sub(pair[0]).ok_or(DAMAGED)?;
        while difference > 0x7F {
            list.push(difference as u8 | 0x80);
            difference >>= 7;
        }
        list.push(difference as u8);
    }
    let bytes = list.len() - start - 8;
    if bytes + 8 > SEGMENT_BYTES_MAX {
        return Err(DAMAGED.into());
    }
    list[start + 6..start + 8].copy_from_slice(&(bytes as u16).to_le_bytes());
    if bytes % 2 == 1 {
        list.push(0);
    }
    Ok(())
}

/// Both in rising order, each tuple id once (`ginMergeItemPointers`).
fn merge(mut all: Vec<u64>, added: Vec<u64>) -> Vec<u64> {
    all.extend(added);
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_gives_its_tuple_ids_back() {
        let all = [5, 6, 133, 1 << 11 | 7, 1 << 42];
        let mut list = Vec::new();
        encode(&all, &mut list).expect("it fits");
        assert!(list.len().is_multiple_of(2));
        assert_eq!(decode(&list).expect("sound"), all);
        assert_eq!(segment(&mut Fields::new(&list)), Some(&list[..]));
    }
}
