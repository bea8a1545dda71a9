//! The transaction ids in a Transaction record (xactdesc.c: `ParseCommitRecord`, `ParseAbortRecord`;
//! twophase.c: `TwoPhaseFileHeader`).

use crate::{Record, fields::Fields};

/// `XLOG_XACT_OPMASK` (xact.h), and the kinds below it.
const KIND_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
/// `XLOG_XACT_HAS_INFO`
const HAS_XINFO: u8 = 0x80;

/// `XACT_XINFO_HAS_DBINFO`, and so on.
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWO_PHASE: u32 = 1 << 4;
const HAS_DROPPED_STATISTICS: u32 = 1 << 8;

/// Bytes of an `xl_xact_prepare`.
const PREPARE_BYTES: usize = 72;

/// The ids that a Transaction record names.
pub(super) struct TransactionIds<'a> {
    /// The transaction that ends, is prepared, or to which subtransactions are assigned.
    pub(super) xid: u32,
    /// Whether it commits here.
    pub(super) is_commit: bool,
    /// Little-endian ids.
    subtransactions: &'a [u8],
}

impl<'a> TransactionIds<'a> {
    /// The record's ids; `None` where its data are too short.
    pub(super) fn read(record: &'a Record) -> Option<TransactionIds<'a>> {
        let mut fields = Fields::new(&record.main);
        let kind = record.kind() & KIND_MASK;
        match kind {
            COMMIT | ABORT | COMMIT_PREPARED | ABORT_PREPARED => {
                let is_commit = matches!(kind, COMMIT | COMMIT_PREPARED);
                let has_xinfo = record.info & HAS_XINFO != 0;
                read_end(&mut fields, record.xid, has_xinfo, is_commit)
            }
            PREPARE => read_prepare(&mut fields),
            ASSIGNMENT => {
                let xid = fields.u32()?;
                let subtransactions = read_counted(&mut fields, 4)?;
                Some(TransactionIds { xid, is_commit: false, subtransactions })
            }
            _ => Some(TransactionIds { xid: record.xid, is_commit: false, subtransactions: &[] }),
        }
    }

    /// The subtransactions, in the order of their ids.
    pub(super) fn subtransactions(&self) -> impl Iterator<Item = u32> {
        let ids = self.subtransactions.as_chunks::<4>().0.iter();
        ids.map(|id| u32::from_le_bytes(*id))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.xid).chain(self.subtransactions())
    }
}

fn read_end<'a>(
    fields: &mut Fields<'a>,
    xid: u32,
    has_xinfo: bool,
    is_commit: bool,
) -> Option<TransactionIds<'a>> {
    fields.skip(8)?;
    let xinfo = if has_xinfo { fields.u32()? } else { 0 };
    let mut ids = TransactionIds { xid, is_commit, subtransactions: &[] };
    if xinfo & HAS_DATABASE != 0 {
        fields.skip(8)?;
    }
    if xinfo & HAS_SUBTRANSACTIONS != 0 {
        ids.subtransactions = read_counted(fields, 4)?;
    }
    if xinfo & HAS_RELATIONS != 0 {
        read_counted(fields, 12)?;
    }
    if xinfo & HAS_DROPPED_STATISTICS != 0 {
        read_counted(fields, 12)?;
    }
    if xinfo & HAS_INVALIDATIONS != 0 && is_commit {
        read_counted(fields, 16)?;
    }
    if xinfo & HAS_TWO_PHASE != 0 {
        ids.xid = fields.u32()?;
    }
    Some(ids)
}

fn read_prepare<'a>(fields: &mut Fields<'a>) -> Option<TransactionIds<'a>> {
    let mut header = Fields::new(fields.take(PREPARE_BYTES)?);
    header.skip(8)?;
    let xid = header.u32()?;
    header.skip(16)?;
    let count = header.u32()?;
    header.skip(22)?;
    let gid_bytes = usize::from(header.u16()?);
    fields.skip(gid_bytes.next_multiple_of(8))?;
    let subtransactions = fields.take((count as usize).checked_mul(4)?)?;
    Some(TransactionIds { xid, is_commit: false, subtransactions })
}

/// An `int` count and as many items.
fn read_counted<'a>(fields: &mut Fields<'a>, item_bytes: usize) -> Option<&'a [u8]> {
    let count = fields.u32()? as usize;
    fields.take(count.checked_mul(item_bytes)?)
}
