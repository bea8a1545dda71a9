//! Gin's records (Postgres: `src/include/access/ginxlog.h`).

use super::INFO_MASK;
use crate::fields::Fields;

/// Bytes of a meta page's data (`GinMetaPageData`).
pub(crate) const META_BYTES: usize = 56;

/// What a Gin record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gin<'a> {
    /// `XLOG_GIN_CREATE_PTREE`: block 0 becomes a posting tree's first leaf with this posting list.
    CreatePostingTree(&'a [u8]),
    /// `XLOG_GIN_INSERT`: what goes in is block 0's data; block 1 is the child whose split is complete.
    Insert(Insert),
    /// `XLOG_GIN_SPLIT`: all pages come as images but block 3, the child whose split is complete.
    Split,
    /// `XLOG_GIN_VACUUM_PAGE`: block 0 comes as an image.
    VacuumPage,
    /// `XLOG_GIN_VACUUM_DATA_LEAF_PAGE`: how block 0's segments change is its data.
    VacuumDataLeaf,
    /// `XLOG_GIN_DELETE_PAGE`: block 0 is the page, 1 its parent, 2 its left neighbour.
    DeletePage(DeletePage),
    /// `XLOG_GIN_UPDATE_META_PAGE`: block 0 is the meta page, 1 the pending list's tail.
    UpdateMeta(UpdateMeta<'a>),
    /// `XLOG_GIN_INSERT_LISTPAGE`: block 0 becomes a page of the pending list, its tuples are its data.
    InsertListPage(InsertListPage),
    /// `XLOG_GIN_DELETE_LISTPAGE`: block 0 is the meta page with these data, the others go.
    DeleteListPages(&'a [u8]),
}

/// `ginxlogInsert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insert {
    /// Into a posting tree; else into the tree of entries.
    pub is_data: bool,
    /// Into an inner page: the right one of the child's two halves.
    pub right_child: Option<u32>,
}

/// `ginxlogDeletePage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletePage {
    /// The parent's item that goes.
    pub parent_offset: u16,
    /// The page's right neighbour, to which the left one now points.
    pub right: u32,
    /// The last transaction that might still come to the page.
    pub delete_xid: u32,
}

/// `ginxlogUpdateMeta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateMeta<'a> {
    /// The meta page's data.
    pub metadata: &'a [u8],
    /// The tail before, where a new one follows it; `u32::MAX` for none.
    pub previous_tail: u32,
    /// What follows the tail before.
    pub new_right: u32,
    /// Tuples that are added to the tail.
    pub tuples: i32,
}

/// `ginxlogInsertListPage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertListPage {
    /// The next page; `u32::MAX` for none.
    pub right: u32,
    /// The number of tuples.
    pub tuples: i32,
}

/// Something that is done to a segment of a posting list (`ginxlogSegmentAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentAction<'a> {
    /// It goes.
    Delete,
    /// This one comes before it.
    Insert(&'a [u8]),
    /// This one takes its place.
    Replace(&'a [u8]),
    /// It gets these tuple ids too.
    AddItems(&'a [u8]),
}

impl<'a> Gin<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Gin<'a>> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x10 => {
                let bytes = usize::try_from(fields.u32()?).ok()?;
                Some(Gin::CreatePostingTree(fields.take(bytes)?))
            }
            0x20 => {
                let flags = fields.u16()?;
                let is_leaf = flags & 2 != 0;
                let right_child = match is_leaf {
                    true => None,
                    false => {
                        fields.skip(4)?;
                        Some(block_id(&mut fields)?)
                    }
                };
                Some(Gin::Insert(Insert { is_data: flags & 1 != 0, right_child }))
            }
            0x30 => Some(Gin::Split),
            0x40 => Some(Gin::VacuumPage),
            0x90 => Some(Gin::VacuumDataLeaf),
            0x50 => {
                let parent_offset = fields.u16()?;
                fields.skip(2)?;
                let (right, delete_xid) = (fields.u32()?, fields.u32()?);
                Some(Gin::DeletePage(DeletePage { parent_offset, right, delete_xid }))
            }
            0x60 => {
                fields.skip(16)?;
                Some(Gin::UpdateMeta(UpdateMeta {
                    metadata: fields.take(META_BYTES)?,
                    previous_tail: fields.u32()?,
                    new_right: fields.u32()?,
                    tuples: fields.i32()?,
                }))
            }
            0x70 => {
                let (right, tuples) = (fields.u32()?, fields.i32()?);
                Some(Gin::InsertListPage(InsertListPage { right, tuples }))
            }
            0x80 => Some(Gin::DeleteListPages(fields.take(META_BYTES)?)),
            _ => None,
        }
    }
}

impl<'a> SegmentAction<'a> {
    /// Reads one action from the front: the segment's number and what is done to it.
    pub(crate) fn read(fields: &mut Fields<'a>) -> Option<(u8, SegmentAction<'a>)> {
        let number = fields.u8()?;
        let action = match fields.u8()? {
            1 => SegmentAction::Delete,
            2 => SegmentAction::Insert(segment(fields)?),
            3 => SegmentAction::Replace(segment(fields)?),
            4 => {
                let count = usize::from(fields.u16()?);
                SegmentAction::AddItems(fields.take(count * 6)?)
            }
            _ => return None,
        };
        Some((number, action))
    }
}

/// Takes a segment of a posting list from the front (`GinPostingList`): its first tuple id, its length, and as many bytes, made even.
pub(crate) fn segment<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let mut ahead = *fields;
    ahead.skip(6)?;
    let bytes = usize::from(ahead.u16()?);
    fields.take(8 + bytes.next_multiple_of(2))
}

/// A `BlockIdData`: the high half first.
pub(crate) fn block_id(fields: &mut Fields<'_>) -> Option<u32> {
    Some(u32::from(fields.u16()?) << 16 | u32::from(fields.u16()?))
}
