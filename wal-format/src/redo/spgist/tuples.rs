//! SP-GiST's tuples (Postgres: `src/include/access/spgist_private.h`).
//!
//! The low two bits of a tuple's first word are its state. A dead tuple has 16 bytes: state and size, two unused ones, a tuple id, a transaction.

use super::count;
use crate::{
    Page, PageError, Placement,
    fields::Fields,
    redo::{Fault, Outcome, index_tuple},
    rmgr::{Offsets, spgist::Downlink},
};

/// Bytes of a dead tuple (`SGDTSIZE`).
const DEAD_BYTES: usize = 16;
/// The part of a leaf's `t_info` that is its successor in the chain.
const NEXT_MASK: u16 = 0x3FFF;

/// Why a tuple is no longer a live one (`tupstate`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum DeadState {
    /// It went elsewhere.
    Redirect = 1,
    /// It is the dead head of a chain.
    Dead = 2,
    /// It only keeps the numbers of those after it.
    Placeholder = 3,
}

impl DeadState {
    /// A dead tuple (spgutils.c, `spgFormDeadTuple`).
    pub(super) fn tuple(self, block: u32, offset: u16, xid: u32) -> [u8; DEAD_BYTES] {
        let mut tuple = [0; DEAD_BYTES];
        let state = self as u32 | (DEAD_BYTES as u32) << 2;
        tuple[..4].copy_from_slice(&state.to_le_bytes());
        if self == DeadState::Redirect {
            index_tuple::put_tid(&mut tuple[6..12], block, offset);
            tuple[12..].copy_from_slice(&xid.to_le_bytes());
        } else {
            index_tuple::put_tid(&mut tuple[6..12], u32::MAX, 0);
        }
        tuple
    }
}

/// Adds a tuple behind the others, or in a placeholder's place (spgxlog.c, `addOrReplaceTuple`).
pub(super) fn add_or_replace(page: &mut Page, offset: u16, tuple: &[u8]) -> Outcome {
    if offset <= page.max_offset() {
        let state = page.item(offset)?.first().map_or(0, |byte| byte & 3);
        if state != DeadState::Placeholder as u8 {
            let reason = "the SP-GiST tuple to be replaced is no placeholder";
            return Err(PageError::Content(reason).into());
        }
        count(page, 0, 1u16.wrapping_neg())?;
        page.delete_item(offset)?;
    }
    Ok(page.add_item(offset, tuple, Placement::Shift)?)
}

/// Puts dead tuples in the place of these items: the first of them may be of another state (spgdoinsert.c, `spgPageIndexMultiDelete`).
pub(super) fn kill(
    page: &mut Page,
    items: Offsets<'_>,
    (first_state, rest_state): (DeadState, DeadState),
    (block, offset): (u32, u16),
    xid: u32,
) -> Outcome {
    let first = items.get(0);
    let mut sorted: Vec<u16> = items.iter().collect();
    sorted.sort_unstable();
    page.delete_items(sorted.iter().copied())?;
    for item in sorted {
        let state = if Some(item) == first { first_state } else { rest_state };
        page.add_item(item, &state.tuple(block, offset, xid), Placement::Shift)?;
        match state {
            DeadState::Redirect => count(page, 1, 0)?,
            DeadState::Placeholder => count(page, 0, 1)?,
            DeadState::Dead => {}
        }
    }
    Ok(())
}

/// A redirection becomes a placeholder.
pub(super) fn forget_redirection(page: &mut Page, offset: u16) -> Outcome {
    let tuple = page.item_mut(offset)?;
    if tuple.len() < DEAD_BYTES {
        return Err(PageError::Content("the redirection is too short").into());
    }
    tuple[0] |= DeadState::Placeholder as u8;
    index_tuple::put_tid(&mut tuple[6..12], u32::MAX, 0);
    Ok(())
}

/// Sets a leaf's successor in its chain (`SGLT_SET_NEXTOFFSET`).
pub(super) fn set_next(page: &mut Page, leaf: u16, next: u16) -> Outcome {
    let tuple = page.item_mut(leaf)?;
    let info = tuple.get_mut(4..6).ok_or(PageError::Content("the leaf tuple is too short"))?;
    let kept = u16::from_le_bytes([info[0], info[1]]) & !NEXT_MASK;
    info.copy_from_slice(&(kept | next & NEXT_MASK).to_le_bytes());
    Ok(())
}

/// Points a node of an inner tuple at a tuple (spgdoinsert.c, `spgUpdateNodeLink`). Nodes are index tuples, one after the other.
pub(super) fn set_downlink(page: &mut Page, link: Downlink, block: u32, offset: u16) -> Outcome {
    let missing = || Fault::Page(PageError::Content("the inner tuple has no such node"));
    let tuple = page.item_mut(link.offset)?;
    let mut fields = Fields::new(tuple);
    let head = fields.u32().ok_or_else(missing)?;
    let (nodes, prefix) = ((head >> 3 & 0x1FFF) as u16, (head >> 16) as usize);
    if link.node >= nodes {
        return Err(missing());
    }
    let mut at = 8 + prefix;
    for _ in 0..link.node {
        let node = tuple.get(at..).ok_or_else(missing)?;
        at += index_tuple::IndexTuple::at(node)?.bytes().len();
    }
    let tid = tuple.get_mut(at..at + index_tuple::TID_BYTES).ok_or_else(missing)?;
    index_tuple::put_tid(tid, block, offset);
    Ok(())
}
