//! Redo of Generic's records (Postgres: generic_xlog.c, `generic_redo`): runs of bytes replace what was there.

use super::{Fault, Outcome};
use crate::{BlockRef, Page, PageError, rmgr::generic::Delta};

pub(super) fn redo(block: &BlockRef, page: &mut Page) -> Outcome {
    let mut delta = Delta::new(block.data);
    while let Some(run) = delta.next_run() {
        let (position, bytes) = run.ok_or(Fault::Malformed)?;
        let place = page.bytes_mut().get_mut(position..position + bytes.len());
        place.ok_or(PageError::Content("the change goes beyond the page"))?.copy_from_slice(bytes);
    }
    // What is between line pointers and tuples is not logged, and zero on the page that was.
    let bounds = page.bounds()?;
    page.bytes_mut()[bounds.lower..bounds.upper].fill(0);
    Ok(())
}
