//! Redo of SPGist's records (Postgres: spgxlog.c, `spg_redo`).

mod tuples;

use tuples::{DeadState, add_or_replace, kill, set_downlink, set_next};

use super::{Fault, Outcome};
use crate::{
    BlockRef, Page, PageError, Placement, Record,
    fields::Fields,
    rmgr::spgist::{
        AddLeaf, AddNode, MoveLeafs, PickSplit, SpGist, SplitTuple, VacuumLeaf, VacuumRedirect,
        leaf_tuple,
    },
};

/// Bytes of the special space (`SpGistPageOpaqueData`): flags, redirections, placeholders, page id.
const SPECIAL_BYTES: usize = 8;
/// `SPGIST_PAGE_ID`.
const PAGE_ID: u16 = 0xFF82;
/// `SPGIST_LEAF`.
const LEAF: u16 = 1 << 2;
/// `SPGIST_NULLS`.
const NULLS: u16 = 1 << 3;
/// No block (`InvalidBlockNumber`).
const NO_BLOCK: u32 = u32::MAX;

pub(super) fn redo(record: &Record, block: &BlockRef, page: &mut Page) -> Outcome {
    let parsed = SpGist::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    let place = |id: u8| record.block(id).map(|block| block.key.block).ok_or(Fault::Malformed);
    match (parsed, block.id) {
        (SpGist::AddLeaf(add), 0) => add_leaf(add, page),
        (SpGist::AddLeaf(add), 1) => set_downlink(page, add.parent, place(0)?, add.offset),
        (SpGist::MoveLeafs(moved), id) => move_leafs(moved, id, place(1)?, page),
        (SpGist::AddNode(add), 0) if record.block(1).is_none() => {
            replace_item(page, add.offset, add.tuple)
        }
        (SpGist::AddNode(add), id) => move_node(add, id, place(1)?, page),
        (SpGist::SplitTuple(split), id) => split_tuple(split, id, page),
        (SpGist::PickSplit(split), id) => pick_split(split, id, place(2)?, page),
        (SpGist::VacuumLeaf(vacuum), 0) => vacuum_leaf(vacuum, page),
        (SpGist::VacuumRoot(items), 0) => Ok(page.delete_items(items.iter())?),
        (SpGist::VacuumRedirect(vacuum), 0) => vacuum_redirect(vacuum, page),
        _ => Err(Fault::Malformed),
    }
}

/// `spgRedoAddLeaf` on the leaf page.
fn add_leaf(add: AddLeaf<'_>, page: &mut Page) -> Outcome {
    if add.new_page {
        init(page, leaf_flags(add.nulls))?;
    }
    if add.offset == add.head {
        return replace_item(page, add.offset, add.tuple);
    }
    add_or_replace(page, add.offset, add.tuple)?;
    if add.head != 0 { set_next(page, add.head, add.offset) } else { Ok(()) }
}

/// `spgRedoMoveLeafs`.
fn move_leafs(moved: MoveLeafs<'_>, id: u8, destination: u32, page: &mut Page) -> Outcome {
    let last = moved.inserted.iter().next_back().ok_or(Fault::Malformed)?;
    match id {
        0 => {
            let first =
                if moved.state.is_build { DeadState::Placeholder } else { DeadState::Redirect };
            let states = (first, DeadState::Placeholder);
            kill(page, moved.deleted, states, (destination, last), moved.state.xid)
        }
        1 => {
            if moved.new_page {
                init(page, leaf_flags(moved.nulls))?;
            }
            let mut tuples = Fields::new(moved.tuples);
            for offset in moved.inserted.iter() {
                let tuple = leaf_tuple(&mut tuples).ok_or(Fault::Malformed)?;
                add_or_replace(page, offset, tuple)?;
            }
            Ok(())
        }
        2 => set_downlink(page, moved.parent, destination, last),
        _ => Err(Fault::Malformed),
    }
}

/// `spgRedoAddNode` where the tuple moves to another page, block 1.
fn move_node(add: AddNode<'_>, id: u8, new_block: u32, page: &mut Page) -> Outcome {
    match id {
        0 => {
            let dead = if add.state.is_build {
                DeadState::Placeholder.tuple(NO_BLOCK, 0, 0)
            } else {
                DeadState::Redirect.tuple(new_block, add.new_offset, add.state.xid)
            };
            replace_item(page, add.offset, &dead)?;
            let (redirects, placeholders) = if add.state.is_build { (0, 1) } else { (1, 0) };
            count(page, redirects, placeholders)?;
        }
        1 => {
            if add.new_page {
                init(page, 0)?;
            }
            add_or_replace(page, add.new_offset, add.tuple)?;
        }
        2 => {}
        _ => return Err(Fault::Malformed),
    }
    if i16::from(add.parent_block) == i16::from(id) {
        set_downlink(page, add.parent, new_block, add.new_offset)?;
    }
    Ok(())
}

/// `spgRedoSplitTuple`.
fn split_tuple(split: SplitTuple<'_>, id: u8, page: &mut Page) -> Outcome {
    match id {
        0 => {
            replace_item(page, split.prefix_offset, split.prefix)?;
            if split.same_page {
                add_or_replace(page, split.postfix_offset, split.postfix)?;
            }
            Ok(())
        }
        1 if !split.same_page => {
            if split.new_page {
                init(page, 0)?;
            }
            add_or_replace(page, split.postfix_offset, split.postfix)
        }
        _ => Err(Fault::Malformed),
    }
}

/// `spgRedoPickSplit`.
fn pick_split(split: PickSplit<'_>, id: u8, inner_block: u32, page: &mut Page) -> Outcome {
    let insert = |page: &mut Page, to_destination: bool| {
        let mut leaves = Fields::new(split.leaves);
        for (offset, selected) in split.inserted.iter().zip(split.selected) {
            let leaf = leaf_tuple(&mut leaves).ok_or(Fault::Malformed)?;
            if (*selected != 0) == to_destination {
                add_or_replace(page, offset, leaf)?;
            }
        }
        Ok(())
    };
    match id {
        0 if split.init_source => {
            init(page, leaf_flags(split.nulls))?;
            insert(page, false)
        }
        0 => {
            let (first, to) = match split.state.is_build {
                true => (DeadState::Placeholder, (NO_BLOCK, 0)),
                false => (DeadState::Redirect, (inner_block, split.inner_offset)),
            };
            kill(page, split.deleted, (first, DeadState::Placeholder), to, split.state.xid)?;
            insert(page, false)
        }
        1 => {
            if split.init_destination {
                init(page, leaf_flags(split.nulls))?;
            }
            insert(page, true)
        }
        2 => {
            if split.init_inner {
                init(page, if split.nulls { NULLS } else { 0 })?;
            }
            add_or_replace(page, split.inner_offset, split.inner)?;
            match split.inner_is_parent {
                true => set_downlink(page, split.parent, inner_block, split.inner_offset),
                false => Ok(()),
            }
        }
        3 => set_downlink(page, split.parent, inner_block, split.inner_offset),
        _ => Err(Fault::Malformed),
    }
}

/// `spgRedoVacuumLeaf`.
fn vacuum_leaf(vacuum: VacuumLeaf<'_>, page: &mut Page) -> Outcome {
    let nowhere = (NO_BLOCK, 0);
    let xid = vacuum.state.xid;
    kill(page, vacuum.dead, (DeadState::Dead, DeadState::Dead), nowhere, xid)?;
    let placeholders = (DeadState::Placeholder, DeadState::Placeholder);
    kill(page, vacuum.placeholders, placeholders, nowhere, xid)?;
    // Items move by exchanging line pointers, so that what is replaced stands where they were, and goes.
    for (from, to) in vacuum.move_from.iter().zip(vacuum.move_to.iter()) {
        let (moved, replaced) = (page.line_pointer(from)?, page.line_pointer(to)?);
        page.set_line_pointer(from, replaced)?;
        page.set_line_pointer(to, moved)?;
    }
    kill(page, vacuum.move_from, placeholders, nowhere, xid)?;
    for (from, to) in vacuum.chain_from.iter().zip(vacuum.chain_to.iter()) {
        set_next(page, from, to)?;
    }
    Ok(())
}

/// `spgRedoVacuumRedirect`.
fn vacuum_redirect(vacuum: VacuumRedirect<'_>, page: &mut Page) -> Outcome {
    for offset in vacuum.redirects.iter() {
        tuples::forget_redirection(page, offset)?;
    }
    let changed = vacuum.redirects.len() as u16;
    count(page, changed.wrapping_neg(), changed)?;
    let first = vacuum.first_placeholder;
    if first != 0 {
        let last = page.max_offset();
        if first > last {
            return Err(PageError::Offset { offset: first, max: last }.into());
        }
        let gone = last - first + 1;
        count(page, 0, gone.wrapping_neg())?;
        let items: Vec<u16> = (first..=last).collect();
        page.delete_items(items.into_iter())?;
    }
    Ok(())
}

/// Puts a tuple in an item's place, behind the others physically.
fn replace_item(page: &mut Page, offset: u16, tuple: &[u8]) -> Outcome {
    page.delete_item(offset)?;
    Ok(page.add_item(offset, tuple, Placement::Shift)?)
}

fn leaf_flags(nulls: bool) -> u16 {
    if nulls { LEAF | NULLS } else { LEAF }
}

/// spgutils.c, `SpGistInitPage`.
fn init(page: &mut Page, flags: u16) -> Outcome {
    page.init(SPECIAL_BYTES);
    let special = page.special_mut(SPECIAL_BYTES)?;
    special[..2].copy_from_slice(&flags.to_le_bytes());
    special[6..8].copy_from_slice(&PAGE_ID.to_le_bytes());
    Ok(())
}

/// Adds to the page's numbers of redirections and placeholders.
fn count(page: &mut Page, redirections: u16, placeholders: u16) -> Result<(), PageError> {
    let special = page.special_mut(SPECIAL_BYTES)?;
    for (at, more) in [(2, redirections), (4, placeholders)] {
        let old = u16::from_le_bytes([special[at], special[at + 1]]);
        special[at..at + 2].copy_from_slice(&old.wrapping_add(more).to_le_bytes());
    }
    Ok(())
}
