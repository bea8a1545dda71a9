//! Transaction's records (Postgres: `src/include/access/xact.h`; read in xactdesc.c, `ParseCommitRecord`).

use super::{Xids, relation};
use crate::{Lsn, Relation, fields::Fields, rmid};

/// `XLOG_XACT_OPMASK`.
const KIND_MASK: u8 = 0x70;
/// `XLOG_XACT_HAS_INFO`.
const HAS_INFO: u8 = 0x80;

/// Bits of `xinfo` that say which parts follow.
mod parts {
    pub const DATABASE: u32 = 1 << 0;
    pub const SUBTRANSACTIONS: u32 = 1 << 1;
    pub const RELATIONS: u32 = 1 << 2;
    pub const INVALIDATIONS: u32 = 1 << 3;
    pub const TWO_PHASE: u32 = 1 << 4;
    pub const ORIGIN: u32 = 1 << 5;
    pub const GID: u32 = 1 << 7;
    pub const DROPPED_STATISTICS: u32 = 1 << 8;
}

const RELATION_BYTES: usize = 12;
const STATISTIC_BYTES: usize = 12;
const INVALIDATION_BYTES: usize = 16;

/// Whether a record's resource manager and info are those of a commit that says nothing but its time: its main data begins with that.
pub(crate) fn is_plain_commit(rmid: u8, info: u8) -> bool {
    rmid == rmid::TRANSACTION && info & (KIND_MASK | HAS_INFO) == 0x00
}

/// What a Transaction record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction<'a> {
    /// `XLOG_XACT_COMMIT`, `XLOG_XACT_ABORT`, `XLOG_XACT_COMMIT_PREPARED`, `XLOG_XACT_ABORT_PREPARED`.
    Finished(Finished<'a>),
    /// `XLOG_XACT_PREPARE`: the record's main data is the two-phase file without its checksum.
    Prepared(Prepared<'a>),
    /// `XLOG_XACT_ASSIGNMENT`, `XLOG_XACT_INVALIDATIONS`: nothing that outlives the transaction.
    Transient,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished<'a> {
    /// Whether it committed.
    pub committed: bool,
    /// When it ended, in microseconds since 2000.
    pub time: i64,
    /// The prepared transaction that ends here; `None`: the record's own.
    pub prepared_xid: Option<u32>,
    /// The subtransactions that end with it.
    pub subtransactions: Xids<'a>,
    /// The relations whose files go.
    pub relations: Relations<'a>,
    /// Where a replicated transaction stood at its origin: the position there and the time.
    pub origin: Option<(Lsn, i64)>,
}

/// What a `PREPARE` record says that concerns more than its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// The transaction.
    pub xid: u32,
    /// Its subtransactions.
    pub subtransactions: Xids<'a>,
    /// Where a replicated transaction stood at its origin; 0 for none.
    pub origin_lsn: Lsn,
}

/// Relations, one after the other (`RelFileNode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl<'a> Relations<'a> {
    /// Each in turn.
    pub fn iter(&self) -> impl Iterator<Item = Relation> + use<'a> {
        self.0.chunks_exact(RELATION_BYTES).filter_map(|bytes| relation(&mut Fields::new(bytes)))
    }
}

impl<'a> Transaction<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Transaction<'a>> {
        match info & KIND_MASK {
            0x00 | 0x20 | 0x30 | 0x40 => Finished::parse(info, main).map(Transaction::Finished),
            0x10 => Prepared::parse(main).map(Transaction::Prepared),
            0x50 | 0x60 => Some(Transaction::Transient),
            _ => None,
        }
    }
}

impl<'a> Finished<'a> {
    fn parse(info: u8, main: &'a [u8]) -> Option<Finished<'a>> {
        let kind = info & KIND_MASK;
        let committed = kind == 0x00 || kind == 0x30;
        let mut fields = Fields::new(main);
        let time = fields.i64()?;
        let has = if info & HAS_INFO != 0 { fields.u32()? } else { 0 };
        if has & parts::DATABASE != 0 {
            fields.skip(8)?;
        }
        let mut finished = Finished {
            committed,
            time,
            prepared_xid: None,
            subtransactions: Xids::NONE,
            relations: Relations(&[]),
            origin: None,
        };
        if has & parts::SUBTRANSACTIONS != 0 {
            let count = count(&mut fields)?;
            finished.subtransactions = Xids::take(&mut fields, count)?;
        }
        if has & parts::RELATIONS != 0 {
            finished.relations = Relations(counted(&mut fields, RELATION_BYTES)?);
        }
        if has & parts::DROPPED_STATISTICS != 0 {
            counted(&mut fields, STATISTIC_BYTES)?;
        }
        if has & parts::INVALIDATIONS != 0 && committed {
            counted(&mut fields, INVALIDATION_BYTES)?;
        }
        if has & parts::TWO_PHASE != 0 {
            finished.prepared_xid = Some(fields.u32()?);
            if has & parts::GID != 0 {
                let end = fields.rest().iter().position(|byte| *byte == 0)?;
                fields.skip(end + 1)?;
            }
        }
        if has & parts::ORIGIN != 0 {
            finished.origin = Some((Lsn(fields.u64()?), fields.i64()?));
        }
        let needs_xid = kind == 0x30 || kind == 0x40;
        (finished.prepared_xid.is_some() || !needs_xid).then_some(finished)
    }
}

impl<'a> Prepared<'a> {
    /// Reads `xl_xact_prepare`, 72 bytes: magic, length, xid at 8; the count of subtransactions at 28; the length of the
    /// name at 54; the origin's position at 56. The name and the subtransactions follow (twophase.c: `StartPrepare`).
    fn parse(main: &'a [u8]) -> Option<Prepared<'a>> {
        let mut fields = Fields::new(main);
        fields.skip(8)?;
        let xid = fields.u32()?;
        fields.skip(16)?;
        let count = count(&mut fields)?;
        fields.skip(22)?;
        let name_bytes = usize::from(fields.u16()?);
        let origin_lsn = Lsn(fields.u64()?);
        fields.skip(8 + name_bytes.next_multiple_of(8))?;
        Some(Prepared { xid, subtransactions: Xids::take(&mut fields, count)?, origin_lsn })
    }
}

/// A count that Postgres keeps as a signed number.
fn count(fields: &mut Fields<'_>) -> Option<usize> {
    usize::try_from(fields.i32()?).ok()
}

/// A count and as many items of this size.
fn counted<'a>(fields: &mut Fields<'a>, item: usize) -> Option<&'a [u8]> {
    let count = count(fields)?;
    fields.take(count.checked_mul(item)?)
}
