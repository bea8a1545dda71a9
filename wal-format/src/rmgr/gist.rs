//! Gist's records (Postgres: `src/include/access/gistxlog.h`).

use super::{INFO_MASK, Offsets};
use crate::fields::Fields;

/// What a Gist record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gist<'a> {
    /// `XLOG_GIST_PAGE_UPDATE`: items that go, then tuples that come, are block 0's data; block 1 is a split page that now has its downlink.
    PageUpdate(PageUpdate),
    /// `XLOG_GIST_DELETE`: these items of block 0 go.
    Delete(Offsets<'a>),
    /// `XLOG_GIST_PAGE_SPLIT`: blocks 1, 2, … are made anew from their data; block 0 is a split child that now has its downlinks.
    PageSplit(PageSplit),
    /// `XLOG_GIST_PAGE_DELETE`: block 0 is the page, 1 its parent.
    PageDelete(PageDelete),
    /// `XLOG_GIST_PAGE_REUSE`, `XLOG_GIST_ASSIGN_LSN`: no page changes.
    Nothing,
}

/// `gistxlogPageUpdate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageUpdate {
    /// How many items go.
    pub deleted: u16,
    /// How many tuples come.
    pub inserted: u16,
}

/// `gistxlogPageSplit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSplit {
    /// The right link of the page before the split.
    pub right: u32,
    /// Its node sequence number.
    pub sequence: u64,
    /// Whether it was a leaf.
    pub is_leaf: bool,
    /// The number of pages.
    pub pages: u16,
    /// Whether those that follow have no downlink yet.
    pub follow_right: bool,
}

/// `gistxlogPageDelete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageDelete {
    /// The last transaction that might still come to the page.
    pub delete_xid: u64,
    /// The parent's item that goes.
    pub downlink: u16,
}

impl<'a> Gist<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Gist<'a>> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x00 => {
                let (deleted, inserted) = (fields.u16()?, fields.u16()?);
                Some(Gist::PageUpdate(PageUpdate { deleted, inserted }))
            }
            0x10 => {
                fields.skip(4)?;
                let count = usize::from(fields.u16()?);
                Some(Gist::Delete(Offsets::take(&mut fields, count)?))
            }
            0x30 => {
                let right = fields.u32()?;
                fields.skip(4)?;
                let (sequence, is_leaf) = (fields.u64()?, fields.u8()? != 0);
                fields.skip(1)?;
                let (pages, follow_right) = (fields.u16()?, fields.u8()? != 0);
                let split = PageSplit { right, sequence, is_leaf, pages, follow_right };
                Some(Gist::PageSplit(split))
            }
            0x60 => {
                let (delete_xid, downlink) = (fields.u64()?, fields.u16()?);
                Some(Gist::PageDelete(PageDelete { delete_xid, downlink }))
            }
            0x20 | 0x70 => Some(Gist::Nothing),
            _ => None,
        }
    }
}
