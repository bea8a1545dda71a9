//! SPGist's records (Postgres: `src/include/access/spgxlog.h`). Their tuples stand unaligned in the main data.

use super::{INFO_MASK, Offsets};
use crate::fields::Fields;

/// What an SPGist record's main data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpGist<'a> {
    /// `XLOG_SPGIST_ADD_LEAF`: block 0 is the leaf page, 1 the parent.
    AddLeaf(AddLeaf<'a>),
    /// `XLOG_SPGIST_MOVE_LEAFS`: block 0 is the page they leave, 1 where they go, 2 the parent.
    MoveLeafs(MoveLeafs<'a>),
    /// `XLOG_SPGIST_ADD_NODE`: block 0 has the tuple as it was, 1 as it becomes where that is elsewhere, 2 the parent.
    AddNode(AddNode<'a>),
    /// `XLOG_SPGIST_SPLIT_TUPLE`: block 0 has the prefix, 1 the postfix where that is elsewhere.
    SplitTuple(SplitTuple<'a>),
    /// `XLOG_SPGIST_PICKSPLIT`: block 0 is the source, 1 the destination, 2 the inner page, 3 the parent.
    PickSplit(PickSplit<'a>),
    /// `XLOG_SPGIST_VACUUM_LEAF` of block 0.
    VacuumLeaf(VacuumLeaf<'a>),
    /// `XLOG_SPGIST_VACUUM_ROOT`: these items of block 0 go.
    VacuumRoot(Offsets<'a>),
    /// `XLOG_SPGIST_VACUUM_REDIRECT` of block 0.
    VacuumRedirect(VacuumRedirect<'a>),
}

/// The downlink that changes: a node of an inner tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downlink {
    /// The inner tuple's number on the parent page; 0 for none.
    pub offset: u16,
    /// The node's index in the tuple.
    pub node: u16,
}

/// `spgxlogState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildState {
    /// The transaction that writes redirections.
    pub xid: u32,
    /// While the index is built nobody needs them.
    pub is_build: bool,
}

/// `spgxlogAddLeaf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddLeaf<'a> {
    /// The leaf page is made anew.
    pub new_page: bool,
    /// It is one of the tree of nulls.
    pub nulls: bool,
    /// The leaf's number.
    pub offset: u16,
    /// The number of its chain's head; 0 for none.
    pub head: u16,
    /// The downlink to it.
    pub parent: Downlink,
    /// The tuple.
    pub tuple: &'a [u8],
}

/// `spgxlogMoveLeafs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveLeafs<'a> {
    /// The destination is made anew.
    pub new_page: bool,
    /// The pages are of the tree of nulls.
    pub nulls: bool,
    /// The downlink to them.
    pub parent: Downlink,
    /// Who writes redirections.
    pub state: BuildState,
    /// The numbers that they had.
    pub deleted: Offsets<'a>,
    /// The numbers that they get.
    pub inserted: Offsets<'a>,
    /// The tuples.
    pub tuples: &'a [u8],
}

/// `spgxlogAddNode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddNode<'a> {
    /// The tuple's number before.
    pub offset: u16,
    /// Its number after, where it moves to another page.
    pub new_offset: u16,
    /// The other page is made anew.
    pub new_page: bool,
    /// The block reference of the parent; −1 for none.
    pub parent_block: i8,
    /// The downlink to it.
    pub parent: Downlink,
    /// Who writes redirections.
    pub state: BuildState,
    /// The tuple as it becomes.
    pub tuple: &'a [u8],
}

/// `spgxlogSplitTuple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitTuple<'a> {
    /// The prefix tuple's number.
    pub prefix_offset: u16,
    /// The postfix tuple's number.
    pub postfix_offset: u16,
    /// The postfix tuple's page is made anew.
    pub new_page: bool,
    /// Both are on one page.
    pub same_page: bool,
    /// The prefix tuple.
    pub prefix: &'a [u8],
    /// The postfix tuple.
    pub postfix: &'a [u8],
}

/// `spgxlogPickSplit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickSplit<'a> {
    /// The source is made anew.
    pub init_source: bool,
    /// The destination is made anew.
    pub init_destination: bool,
    /// The inner page is made anew.
    pub init_inner: bool,
    /// The inner tuple's number.
    pub inner_offset: u16,
    /// The pages are of the tree of nulls.
    pub nulls: bool,
    /// The parent is on the inner page.
    pub inner_is_parent: bool,
    /// The downlink to the inner tuple.
    pub parent: Downlink,
    /// Who writes redirections.
    pub state: BuildState,
    /// The leaves that leave the source.
    pub deleted: Offsets<'a>,
    /// The numbers of the new leaves.
    pub inserted: Offsets<'a>,
    /// For each new leaf: 0 goes to the source, else to the destination.
    pub selected: &'a [u8],
    /// The inner tuple.
    pub inner: &'a [u8],
    /// The leaves.
    pub leaves: &'a [u8],
}

/// `spgxlogVacuumLeaf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumLeaf<'a> {
    /// Those that become dead.
    pub dead: Offsets<'a>,
    /// Those that become placeholders.
    pub placeholders: Offsets<'a>,
    /// Those that move, and leave placeholders.
    pub move_from: Offsets<'a>,
    /// Where they move.
    pub move_to: Offsets<'a>,
    /// Those whose successor changes.
    pub chain_from: Offsets<'a>,
    /// Their successors.
    pub chain_to: Offsets<'a>,
    /// Who writes redirections.
    pub state: BuildState,
}

/// `spgxlogVacuumRedirect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VacuumRedirect<'a> {
    /// The redirections that become placeholders.
    pub redirects: Offsets<'a>,
    /// From this item on placeholders go; 0 for none.
    pub first_placeholder: u16,
}

impl<'a> SpGist<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<SpGist<'a>> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x10 => AddLeaf::read(&mut fields).map(SpGist::AddLeaf),
            0x20 => MoveLeafs::read(&mut fields).map(SpGist::MoveLeafs),
            0x30 => AddNode::read(&mut fields).map(SpGist::AddNode),
            0x40 => SplitTuple::read(&mut fields).map(SpGist::SplitTuple),
            0x50 => PickSplit::read(&mut fields).map(SpGist::PickSplit),
            0x60 => VacuumLeaf::read(&mut fields).map(SpGist::VacuumLeaf),
            0x70 => {
                let count = usize::from(fields.u16()?);
                fields.skip(10)?;
                Some(SpGist::VacuumRoot(Offsets::take(&mut fields, count)?))
            }
            0x80 => {
                let (count, first_placeholder) = (usize::from(fields.u16()?), fields.u16()?);
                fields.skip(4)?;
                let redirects = Offsets::take(&mut fields, count)?;
                Some(SpGist::VacuumRedirect(VacuumRedirect { redirects, first_placeholder }))
            }
            _ => None,
        }
    }
}

impl<'a> AddLeaf<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<AddLeaf<'a>> {
        let (new_page, nulls) = (flag(fields)?, flag(fields)?);
        let (offset, head) = (fields.u16()?, fields.u16()?);
        let parent = Downlink::read(fields)?;
        let tuple = leaf_tuple(fields)?;
        Some(AddLeaf { new_page, nulls, offset, head, parent, tuple })
    }
}

impl<'a> MoveLeafs<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<MoveLeafs<'a>> {
        let moves = usize::from(fields.u16()?);
        let (new_page, replaces_dead, nulls) = (flag(fields)?, flag(fields)?, flag(fields)?);
        fields.skip(1)?;
        let parent = Downlink::read(fields)?;
        fields.skip(2)?;
        let state = BuildState::read(fields)?;
        let deleted = Offsets::take(fields, moves)?;
        let inserted = Offsets::take(fields, if replaces_dead { 1 } else { moves + 1 })?;
        let tuples = fields.rest();
        Some(MoveLeafs { new_page, nulls, parent, state, deleted, inserted, tuples })
    }
}

impl<'a> AddNode<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<AddNode<'a>> {
        let (offset, new_offset) = (fields.u16()?, fields.u16()?);
        let new_page = flag(fields)?;
        let parent_block = fields.u8()? as i8;
        let parent = Downlink::read(fields)?;
        fields.skip(2)?;
        let state = BuildState::read(fields)?;
        let tuple = inner_tuple(fields)?;
        Some(AddNode { offset, new_offset, new_page, parent_block, parent, state, tuple })
    }
}

impl<'a> SplitTuple<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<SplitTuple<'a>> {
        let (prefix_offset, postfix_offset) = (fields.u16()?, fields.u16()?);
        let (new_page, same_page) = (flag(fields)?, flag(fields)?);
        let (prefix, postfix) = (inner_tuple(fields)?, inner_tuple(fields)?);
        Some(SplitTuple { prefix_offset, postfix_offset, new_page, same_page, prefix, postfix })
    }
}

impl<'a> PickSplit<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<PickSplit<'a>> {
        fields.skip(2)?;
        let (deletes, inserts) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
        let (init_source, init_destination) = (flag(fields)?, flag(fields)?);
        let inner_offset = fields.u16()?;
        let (init_inner, nulls, inner_is_parent) = (flag(fields)?, flag(fields)?, flag(fields)?);
        fields.skip(1)?;
        let parent = Downlink::read(fields)?;
        fields.skip(2)?;
        let state = BuildState::read(fields)?;
        Some(PickSplit {
            init_source,
            init_destination,
            init_inner,
            inner_offset,
            nulls,
            inner_is_parent,
            parent,
            state,
            deleted: Offsets::take(fields, deletes)?,
            inserted: Offsets::take(fields, inserts)?,
            selected: fields.take(inserts)?,
            inner: inner_tuple(fields)?,
            leaves: fields.rest(),
        })
    }
}

impl<'a> VacuumLeaf<'a> {
    fn read(fields: &mut Fields<'a>) -> Option<VacuumLeaf<'a>> {
        let mut count = || fields.u16().map(usize::from);
        let (dead, placeholders, moves, chains) = (count()?, count()?, count()?, count()?);
        let state = BuildState::read(fields)?;
        Some(VacuumLeaf {
            dead: Offsets::take(fields, dead)?,
            placeholders: Offsets::take(fields, placeholders)?,
            move_from: Offsets::take(fields, moves)?,
            move_to: Offsets::take(fields, moves)?,
            chain_from: Offsets::take(fields, chains)?,
            chain_to: Offsets::take(fields, chains)?,
            state,
        })
    }
}

impl Downlink {
    fn read(fields: &mut Fields<'_>) -> Option<Downlink> {
        Some(Downlink { offset: fields.u16()?, node: fields.u16()? })
    }
}

impl BuildState {
    fn read(fields: &mut Fields<'_>) -> Option<BuildState> {
        let (xid, is_build) = (fields.u32()?, flag(fields)?);
        fields.skip(3)?;
        Some(BuildState { xid, is_build })
    }
}

fn flag(fields: &mut Fields<'_>) -> Option<bool> {
    fields.u8().map(|byte| byte != 0)
}

/// Takes a leaf tuple from the front: its size is the upper 30 bits of its first word.
pub(crate) fn leaf_tuple<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let mut ahead = *fields;
    let size = (ahead.u32()? >> 2) as usize;
    fields.take(size).filter(|tuple| tuple.len() >= 12)
}

/// Takes an inner tuple from the front: its size stands behind its first word.
fn inner_tuple<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let mut ahead = *fields;
    ahead.skip(4)?;
    let size = usize::from(ahead.u16()?);
    fields.take(size).filter(|tuple| tuple.len() >= 8)
}
