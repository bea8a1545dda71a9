//! Index tuples (Postgres: `src/include/access/itup.h`), and what B-trees make of them (`src/include/access/nbtree.h`).
//!
//! Six bytes of tuple id (block's high half, low half, item), then `t_info`: 13 bits of size, and three flags.
//! A posting list has its flag set; its "block" is where the list begins, its "item" how many tuple ids it has.

use crate::{PageError, page::align8};

/// Bytes of the fixed header (`IndexTupleData`).
pub(super) const HEADER_BYTES: usize = 8;
/// Bytes of a tuple id (`ItemPointerData`).
pub(super) const TID_BYTES: usize = 6;

/// `INDEX_SIZE_MASK` of `t_info`.
const SIZE_MASK: u16 = 0x1FFF;
/// `INDEX_ALT_TID_MASK` of `t_info`: the tuple id is none.
pub(super) const ALT_TID: u16 = 0x2000;
/// `BT_IS_POSTING` of the tuple id's item.
const IS_POSTING: u16 = 0x2000;
/// `BT_OFFSET_MASK`.
const COUNT_MASK: u16 = 0x0FFF;

/// An index tuple, at least as long as it says.
#[derive(Clone, Copy)]
pub(super) struct IndexTuple<'a>(&'a [u8]);

impl<'a> IndexTuple<'a> {
    /// The tuple at the front of these bytes, as long as it says that it is.
    pub(super) fn at(bytes: &'a [u8]) -> Result<IndexTuple<'a>, PageError> {
        let too_short = PageError::Content("the index tuple is shorter than it says");
        let info = bytes.get(6..8).ok_or(too_short)?;
        let size = usize::from(u16::from_le_bytes([info[0], info[1]]) & SIZE_MASK);
        if size < HEADER_BYTES {
            return Err(too_short);
        }
        bytes.get(..size).map(IndexTuple).ok_or(too_short)
    }

    /// Takes the tuple from the front, with its padding, where tuples stand one after the other.
    pub(super) fn take(bytes: &mut &'a [u8]) -> Result<IndexTuple<'a>, PageError> {
        let tuple = IndexTuple::at(bytes)?;
        *bytes = bytes
            .get(align8(tuple.0.len())..)
            .ok_or(PageError::Content("the index tuple ends before its padding"))?;
        Ok(tuple)
    }

    /// Its bytes, without padding.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn info(self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }

    /// The tuple id's block: of a downlink, the child.
    pub(super) fn block(self) -> u32 {
        let half = |at: usize| u32::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]));
        half(0) << 16 | half(2)
    }

    fn item(self) -> u16 {
        u16::from_le_bytes([self.0[4], self.0[5]])
    }

    fn is_posting(self) -> bool {
        self.info() & ALT_TID != 0 && self.item() & IS_POSTING != 0
    }

    /// The tuple ids: a posting list's, or the one of an ordinary tuple.
    pub(super) fn tids(self) -> Result<&'a [u8], PageError> {
        if !self.is_posting() {
            return Ok(&self.0[..TID_BYTES]);
        }
        let from = self.key_bytes();
        let count = usize::from(self.item() & COUNT_MASK);
        self.0
            .get(from..from + count * TID_BYTES)
            .filter(|_| from >= HEADER_BYTES)
            .ok_or(PageError::Content("the posting list goes beyond its tuple"))
    }

    /// How long the tuple is without a posting list.
    fn key_bytes(self) -> usize {
        if self.is_posting() { self.block() as usize } else { self.0.len() }
    }

    /// The tuple with these tuple ids in place of its own (nbtdedup.c, `_bt_form_posting`).
    pub(super) fn with_tids(self, tids: &[u8]) -> Result<Vec<u8>, PageError> {
        let key = self
            .0
            .get(..self.key_bytes())
            .filter(|key| key.len() >= HEADER_BYTES)
            .ok_or(PageError::Content("the posting list goes beyond its tuple"))?;
        let count = tids.len() / TID_BYTES;
        let size = match count {
            0 => return Err(PageError::Content("the index tuple has no tuple id left")),
            1 => key.len(),
            _ => align8(key.len() + tids.len()),
        };
        if size > usize::from(SIZE_MASK) || count > usize::from(COUNT_MASK) {
            return Err(PageError::Content("the posting list is too long"));
        }
        let mut tuple = vec![0; size];
        tuple[..key.len()].copy_from_slice(key);
        let flags = self.info() & !(SIZE_MASK | ALT_TID);
        if count == 1 {
            tuple[..TID_BYTES].copy_from_slice(tids);
            tuple[6..8].copy_from_slice(&(flags | size as u16).to_le_bytes());
        } else {
            put_tid(&mut tuple, key.len() as u32, count as u16 | IS_POSTING);
            tuple[6..8].copy_from_slice(&(flags | ALT_TID | size as u16).to_le_bytes());
            tuple[key.len()..key.len() + tids.len()].copy_from_slice(tids);
        }
        Ok(tuple)
    }

    /// The new item takes its place in this posting list, whose last tuple id it takes over (`_bt_swap_posting`):
    /// the new posting list and the new item's final form.
    pub(super) fn swap_posting(
        self,
        new_item: IndexTuple<'_>,
        at: u16,
    ) -> Result<(Vec<u8>, Vec<u8>), PageError> {
        let count = usize::from(self.item() & COUNT_MASK);
        let at = usize::from(at);
        if !self.is_posting() || at == 0 || at >= count {
            return Err(PageError::Content("the posting list cannot be split there"));
        }
        let tids = self.tids()?;
        let (last, place) = ((count - 1) * TID_BYTES, at * TID_BYTES);
        let mut posting = self.0.to_vec();
        let list = self.key_bytes();
        posting[list + place + TID_BYTES..list + last + TID_BYTES]
            .copy_from_slice(&tids[place..last]);
        posting[list + place..list + place + TID_BYTES].copy_from_slice(&new_item.0[..TID_BYTES]);
        let mut item = new_item.0.to_vec();
        item[..TID_BYTES].copy_from_slice(&tids[last..last + TID_BYTES]);
        Ok((posting, item))
    }
}

/// Writes a tuple id at the front of an index tuple.
pub(super) fn put_tid(tuple: &mut [u8], block: u32, item: u16) {
    tuple[..2].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
    tuple[2..4].copy_from_slice(&(block as u16).to_le_bytes());
    tuple[4..6].copy_from_slice(&item.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tid(n: u8) -> [u8; 6] {
        [0, 0, n, 0, n, 0]
    }

    fn posting(tids: &[u8]) -> Vec<u8> {
        let mut base = vec![7; 16];
        base[6..8].copy_from_slice(&16u16.to_le_bytes());
        let tids: Vec<u8> = tids.iter().flat_map(|n| tid(*n)).collect();
        IndexTuple::at(&base).expect("a tuple").with_tids(&tids).expect("it fits")
    }

    #[test]
    fn a_posting_list_gives_its_tuple_ids_back_and_loses_them() {
        let list = posting(&[1, 2, 3]);
        let tuple = IndexTuple::at(&list).expect("a tuple");
        assert_eq!(tuple.tids().expect("a list"), [tid(1), tid(2), tid(3)].concat());
        assert_eq!(list.len(), 40);
        let one = tuple.with_tids(&tid(2)).expect("it fits");
        assert_eq!(one.len(), 16);
        assert_eq!(one[..6], tid(2));
        assert_eq!(IndexTuple::at(&one).expect("a tuple").tids().expect("one"), tid(2));
    }

    #[test]
    fn a_new_item_takes_over_the_last_tuple_id_of_the_list_that_it_splits() {
        let list = posting(&[1, 3, 4]);
        let mut new = vec![7; 16];
        new[..6].copy_from_slice(&tid(2));
        new[6..8].copy_from_slice(&16u16.to_le_bytes());
        let tuple = IndexTuple::at(&list).expect("a tuple");
        let new = IndexTuple::at(&new).expect("a tuple");
        let (swapped, item) = tuple.swap_posting(new, 1).expect("a list");
        assert_eq!(swapped, posting(&[1, 2, 3]));
        assert_eq!(item[..6], tid(4));
        assert!(tuple.swap_posting(new, 0).is_err());
        assert!(tuple.swap_posting(new, 3).is_err());
    }
}
