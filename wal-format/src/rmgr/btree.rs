//! Btree's records (Postgres: `src/include/access/nbtxlog.h`).

use super::{INFO_MASK, Offsets};
use crate::fields::Fields;

/// What a Btree record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Btree {
    /// `XLOG_BTREE_INSERT_*`: block 0 gets the item in its data; 1: the child whose split is complete; 2: the meta page.
    Insert(Insert),
    /// `XLOG_BTREE_SPLIT_*`: block 0 is the left page, 1 the right one, 2 the one after it, 3 the child whose split is complete.
    Split(Split),
    /// `XLOG_BTREE_DEDUP`: so many intervals are in block 0's data.
    Dedup(u16),
    /// `XLOG_BTREE_DELETE`, `XLOG_BTREE_VACUUM`: what goes is in block 0's data.
    Remove(Remove),
    /// `XLOG_BTREE_UNLINK_PAGE*`: block 0 is the page, 1 and 2 its neighbours, 3 the half-dead leaf below it, 4 the meta page.
    Unlink(Unlink),
    /// `XLOG_BTREE_NEWROOT` at this level: block 0 is the root, 1 its left child, 2 the meta page.
    NewRoot(u32),
    /// `XLOG_BTREE_MARK_PAGE_HALFDEAD`: block 0 is the leaf, 1 its parent.
    MarkHalfDead(MarkHalfDead),
    /// `XLOG_BTREE_REUSE_PAGE`: for standbys' queries only.
    Reuse,
    /// `XLOG_BTREE_META_CLEANUP`: block 0 is the meta page.
    MetaCleanup,
}

/// `xl_btree_insert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// The new item's number.
    pub offset: u16,
    /// The item before it is a posting list that the new one splits: where stands before the item in block 0's data.
    pub splits_posting: bool,
}

/// `xl_btree_split`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The new item goes to the left page (`XLOG_BTREE_SPLIT_L`).
    pub new_item_on_left: bool,
    /// The pages' level.
    pub level: u32,
    /// The first item that goes to the right page.
    pub first_right: u16,
    /// The new item's number on the page before the split.
    pub new_item: u16,
    /// Where the new item splits the posting list before it; 0 for not at all.
    pub posting_offset: u16,
}

/// `xl_btree_delete`, `xl_btree_vacuum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remove {
    deleted: u16,
    updated: u16,
}

/// What goes from a leaf page, in block 0's data.
#[derive(Clone, Copy)]
pub struct Removed<'a> {
    /// Items that go.
    pub deleted: Offsets<'a>,
    /// Posting lists that become shorter.
    pub updated: Offsets<'a>,
    pub(crate) updates: Fields<'a>,
}

/// `xl_btree_unlink_page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlink {
    /// The page's left neighbour; 0 for none.
    pub left: u32,
    /// The page's right neighbour.
    pub right: u32,
    /// The page's level.
    pub level: u32,
    /// Once this transaction is over for everyone, the page can be used again.
    pub safe_xid: u64,
    /// The half-dead leaf's left neighbour.
    pub leaf_left: u32,
    /// The half-dead leaf's right neighbour.
    pub leaf_right: u32,
    /// The topmost page of what is to be deleted with the leaf.
    pub leaf_top_parent: u32,
}

/// `xl_btree_mark_page_halfdead`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkHalfDead {
    /// The item of the parent that goes.
    pub parent_offset: u16,
    /// The leaf's left neighbour; 0 for none.
    pub left: u32,
    /// The leaf's right neighbour.
    pub right: u32,
    /// The topmost page of what is to be deleted with the leaf.
    pub top_parent: u32,
}

/// `xl_btree_metadata`, a meta page's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// `btm_version`.
    pub version: u32,
    /// The root's block.
    pub root: u32,
    /// Its level.
    pub level: u32,
    /// The block at which searches begin.
    pub fast_root: u32,
    /// Its level.
    pub fast_level: u32,
    /// Deleted pages that the last cleanup left.
    pub last_cleanup_deleted_pages: u32,
    /// Whether equal keys are equal bytes, so that duplicates may be merged.
    pub all_equal_image: bool,
}

impl Btree {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<Btree> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            kind @ (0x00 | 0x10 | 0x20 | 0x50) => {
                Some(Btree::Insert(Insert { offset: fields.u16()?, splits_posting: kind == 0x50 }))
            }
            kind @ (0x30 | 0x40) => Some(Btree::Split(Split {
                new_item_on_left: kind == 0x30,
                level: fields.u32()?,
                first_right: fields.u16()?,
                new_item: fields.u16()?,
                posting_offset: fields.u16()?,
            })),
            0x60 => Some(Btree::Dedup(fields.u16()?)),
            kind @ (0x70 | 0xC0) => {
                if kind == 0x70 {
                    fields.skip(4)?;
                }
                Some(Btree::Remove(Remove { deleted: fields.u16()?, updated: fields.u16()? }))
            }
            0x80 | 0x90 => Unlink::read(&mut fields).map(Btree::Unlink),
            0xA0 => {
                fields.skip(4)?;
                Some(Btree::NewRoot(fields.u32()?))
            }
            0xB0 => {
                let parent_offset = fields.u16()?;
                fields.skip(6)?;
                let (left, right, top_parent) = (fields.u32()?, fields.u32()?, fields.u32()?);
                Some(Btree::MarkHalfDead(MarkHalfDead { parent_offset, left, right, top_parent }))
            }
            0xD0 => Some(Btree::Reuse),
            0xE0 => Some(Btree::MetaCleanup),
            _ => None,
        }
    }
}

impl Unlink {
    fn read(fields: &mut Fields<'_>) -> Option<Unlink> {
        let (left, right, level) = (fields.u32()?, fields.u32()?, fields.u32()?);
        fields.skip(4)?;
        Some(Unlink {
            left,
            right,
            level,
            safe_xid: fields.u64()?,
            leaf_left: fields.u32()?,
            leaf_right: fields.u32()?,
            leaf_top_parent: fields.u32()?,
        })
    }
}

impl Remove {
    /// Reads block 0's data.
    pub fn items<'a>(&self, data: &'a [u8]) -> Option<Removed<'a>> {
        let mut fields = Fields::new(data);
        let deleted = Offsets::take(&mut fields, usize::from(self.deleted))?;
        let updated = Offsets::take(&mut fields, usize::from(self.updated))?;
        Some(Removed { deleted, updated, updates: fields })
    }
}

impl Metadata {
    /// Reads the meta page's block data.
    pub fn parse(data: &[u8]) -> Option<Metadata> {
        let mut fields = Fields::new(data);
        Some(Metadata {
            version: fields.u32()?,
            root: fields.u32()?,
            level: fields.u32()?,
            fast_root: fields.u32()?,
            fast_level: fields.u32()?,
            last_cleanup_deleted_pages: fields.u32()?,
            all_equal_image: fields.u8()? != 0,
        })
    }
}
