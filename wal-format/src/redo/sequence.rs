//! Redo of Sequence's records (Postgres: sequence.c, `seq_redo`): the page is made anew with the one tuple.

use super::{Fault, Outcome};
use crate::{Page, Placement, Record, rmgr::sequence::SequenceLog};

/// `SEQ_MAGIC`, in the special space.
const MAGIC: u32 = 0x1717;

pub(super) fn redo(record: &Record, page: &mut Page) -> Outcome {
    let log = SequenceLog::parse(record.info, record.main).ok_or(Fault::Malformed)?;
    page.init(4);
    page.special_mut(4)?[..4].copy_from_slice(&MAGIC.to_le_bytes());
    page.add_item(1, log.tuple, Placement::Shift)?;
    Ok(())
}
