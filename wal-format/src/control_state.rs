//! The cluster-wide counters that WAL carries, followed record by record.
//!
//! What Postgres' own recovery keeps in shared memory and writes to `pg_control` at its end.

mod stored;

pub use stored::CONTROL_STATE_BYTES;

use crate::{
    CheckPoint, ClusterState, ControlFile, Damage, Lsn, Outline, Record, RecoveryBounds, WalError,
    WalSettings,
    fields::Fields,
    rmgr::{
        clog::Clog,
        commit_ts::CommitTs,
        multixact::MultiXact,
        transaction::{Finished, Transaction},
        xlog::{changed_settings, kind},
    },
    rmid,
};

/// `FirstNormalUnloggedLSN` (xlogdefs.h).
const FIRST_UNLOGGED_LSN: Lsn = Lsn(1000);
/// Ids below are those of no transaction (`FirstNormalTransactionId`, transam.h).
pub const FIRST_NORMAL_XID: u32 = 3;

/// The counters and settings as of one record's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlState {
    /// The Postgres timeline id.
    pub timeline_id: u32,
    /// The next transaction id, with its epoch in the high half.
    pub next_xid: u64,
    /// The next OID.
    pub next_oid: u32,
    /// The next multixact id.
    pub next_multi: u32,
    /// The next multixact member.
    pub next_multi_offset: u32,
    /// The oldest transaction id in use.
    pub oldest_xid: u32,
    /// The database that has it.
    pub oldest_xid_database: u32,
    /// The oldest multixact id in use.
    pub oldest_multi: u32,
    /// The database that has it.
    pub oldest_multi_database: u32,
    /// The oldest transaction id with a commit timestamp, 0 where there is none.
    pub oldest_commit_ts_xid: u32,
    /// The newest transaction id with a commit timestamp, 0 where there is none.
    pub newest_commit_ts_xid: u32,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// The settings that `pg_control` copies.
    pub settings: WalSettings,
}

impl ControlState {
    /// The state of a cleanly stopped cluster.
    pub fn from_control_file(file: &ControlFile) -> ControlState {
        let checkpoint = &file.checkpoint_copy;
        ControlState {
            timeline_id: checkpoint.timeline_id,
            next_xid: checkpoint.next_xid,
            next_oid: checkpoint.next_oid,
            next_multi: checkpoint.next_multi,
            next_multi_offset: checkpoint.next_multi_offset,
            oldest_xid: checkpoint.oldest_xid,
            oldest_xid_database: checkpoint.oldest_xid_database,
            oldest_multi: checkpoint.oldest_multi,
            oldest_multi_database: checkpoint.oldest_multi_database,
            oldest_commit_ts_xid: checkpoint.oldest_commit_ts_xid,
            newest_commit_ts_xid: checkpoint.newest_commit_ts_xid,
            full_page_writes: checkpoint.full_page_writes,
            settings: file.settings,
        }
    }

    /// Takes over what the record changes; whether that is more than the next transaction's id, which each transaction changes. `end` is
    /// the record's end, for errors.
    pub fn apply(&mut self, record: &Record, end: Lsn) -> Result<bool, WalError> {
        let others = match record.rmid {
            rmid::XLOG | rmid::CLOG | rmid::MULTIXACT | rmid::COMMIT_TS => self.apply_rare(record),
            rmid::TRANSACTION => Transaction::parse(record.info, record.main).map(|transaction| {
                let before = self.newest_commit_ts_xid;
                self.pass_xid(record.xid);
                self.apply_transaction(record.xid, transaction);
                self.newest_commit_ts_xid != before
            }),
            _ => {
                self.pass_xid(record.xid);
                Some(false)
            }
        };
        others.ok_or_else(|| WalError::Damaged {
            at: end,
            damage: Damage::Payload { name: record.name() },
        })
    }

    /// As [`ControlState::apply`], for a record that only changes pages, or a commit while no timestamps are kept; whether the next
    /// transaction's id changed.
    pub fn apply_outline(&mut self, outline: &Outline) -> bool {
        let before = self.next_xid;
        self.pass_xid(outline.xid);
        self.next_xid != before
    }

    /// Whether more than the next transaction's id changed; `None`, and nothing changed, where the record makes no sense.
    fn apply_rare(&mut self, record: &Record) -> Option<bool> {
        let mut after = *self;
        // xlogrecovery.c, ApplyWalRecord: before the resource manager's own redo.
        after.pass_xid(record.xid);
        match record.rmid {
            rmid::XLOG => after.apply_xlog(record.kind(), record.main)?,
            rmid::CLOG => after.apply_clog(Clog::parse(record.info, record.main)?),
            rmid::MULTIXACT => {
                after.apply_multixact(MultiXact::parse(record.info, record.main)?);
            }
            rmid::COMMIT_TS => after.apply_commit_ts(CommitTs::parse(record.info, record.main)?),
            _ => {}
        }
        let before = std::mem::replace(self, after);
        Some(ControlState { next_xid: after.next_xid, ..before } != after)
    }

    /// The checkpoint that says this state, with its redo at `redo`. `time` is in seconds since 1970.
    pub fn checkpoint(&self, redo: Lsn, time: i64) -> CheckPoint {
        CheckPoint {
            redo,
            timeline_id: self.timeline_id,
            previous_timeline_id: self.timeline_id,
            full_page_writes: self.full_page_writes,
            next_xid: self.next_xid,
            next_oid: self.next_oid,
            next_multi: self.next_multi,
            next_multi_offset: self.next_multi_offset,
            oldest_xid: self.oldest_xid,
            oldest_xid_database: self.oldest_xid_database,
            oldest_multi: self.oldest_multi,
            oldest_multi_database: self.oldest_multi_database,
            time,
            oldest_commit_ts_xid: self.oldest_commit_ts_xid,
            newest_commit_ts_xid: self.newest_commit_ts_xid,
            oldest_active_xid: 0,
        }
    }

    /// The `pg_control` of a cluster that was stopped cleanly with this state, its last checkpoint's record at
    /// `checkpoint`. `base` is the one that initdb wrote; `time` is in seconds since 1970.
    pub fn control_file(&self, base: &ControlFile, checkpoint: Lsn, time: i64) -> ControlFile {
        ControlFile {
            state: ClusterState::Shutdown,
            time,
            checkpoint,
            checkpoint_copy: self.checkpoint(checkpoint, time),
            unlogged_lsn: FIRST_UNLOGGED_LSN,
            recovery: RecoveryBounds::default(),
            settings: self.settings,
            ..*base
        }
    }

    /// pg_control.h's XLOG records (xlog.c: `xlog_redo`).
    fn apply_xlog(&mut self, kind: u8, main: &[u8]) -> Option<()> {
        match kind {
            kind::CHECKPOINT_SHUTDOWN => self.apply_shutdown_checkpoint(&CheckPoint::decode(main)?),
            kind::CHECKPOINT_ONLINE => self.apply_online_checkpoint(&CheckPoint::decode(main)?),
            kind::NEXT_OID => self.next_oid = Fields::new(main).u32()?,
            kind::PARAMETER_CHANGE => self.apply_parameter_change(changed_settings(main)?),
            kind::FULL_PAGE_WRITES_CHANGE => self.full_page_writes = Fields::new(main).u8()? != 0,
            _ => {}
        }
        Some(())
    }

    /// No transaction ran: the counters are exact.
    fn apply_shutdown_checkpoint(&mut self, checkpoint: &CheckPoint) {
        self.timeline_id = checkpoint.timeline_id;
        self.full_page_writes = checkpoint.full_page_writes;
        self.next_xid = checkpoint.next_xid;
        self.next_oid = checkpoint.next_oid;
        self.next_multi = checkpoint.next_multi;
        self.next_multi_offset = checkpoint.next_multi_offset;
        self.oldest_xid = checkpoint.oldest_xid;
        self.oldest_xid_database = checkpoint.oldest_xid_database;
        self.pass_oldest_multi(checkpoint.oldest_multi, checkpoint.oldest_multi_database);
    }

    /// Its counters were taken while transactions ran, and records before it may already have passed them. Its OID counter
    /// may be behind a `NEXTOID` record, so it counts for nothing.
    fn apply_online_checkpoint(&mut self, checkpoint: &CheckPoint) {
        self.timeline_id = checkpoint.timeline_id;
        self.full_page_writes = checkpoint.full_page_writes;
        self.next_xid = self.next_xid.max(checkpoint.next_xid);
        self.pass_multi(checkpoint.next_multi, checkpoint.next_multi_offset);
        self.pass_oldest_multi(checkpoint.oldest_multi, checkpoint.oldest_multi_database);
        self.pass_oldest_xid(checkpoint.oldest_xid, checkpoint.oldest_xid_database);
    }

    /// commit_ts.c: `CommitTsParameterChange`.
    fn apply_parameter_change(&mut self, settings: WalSettings) {
        let next_xid = self.next_xid as u32;
        match (self.settings.track_commit_timestamp, settings.track_commit_timestamp) {
            (false, true) if self.oldest_commit_ts_xid == 0 => {
                self.oldest_commit_ts_xid = next_xid;
                self.newest_commit_ts_xid = next_xid;
            }
            (true, false) => {
                self.oldest_commit_ts_xid = 0;
                self.newest_commit_ts_xid = 0;
            }
            _ => {}
        }
        self.settings = settings;
    }

    /// xact.c: `xact_redo`; twophase.c: `PrescanPreparedTransactions`. Assigned subtransactions are not looked at: the
    /// newest of them wrote the record.
    fn apply_transaction(&mut self, xid: u32, transaction: Transaction) {
        match transaction {
            Transaction::Finished(finished) => self.apply_finished(xid, &finished),
            Transaction::Prepared(prepared) => {
                self.pass_xid(prepared.xid);
                prepared.subtransactions.iter().for_each(|xid| self.pass_xid(xid));
            }
            Transaction::Transient => {}
        }
    }

    fn apply_finished(&mut self, xid: u32, finished: &Finished) {
        let xid = finished.prepared_xid.unwrap_or(xid);
        self.pass_xid(xid);
        finished.subtransactions.iter().for_each(|xid| self.pass_xid(xid));
        if finished.committed && self.settings.track_commit_timestamp {
            // commit_ts.c, TransactionTreeSetCommitTsData: the last subtransaction is the newest.
            let newest = finished.subtransactions.iter().next_back().unwrap_or(xid);
            if xid_precedes(self.newest_commit_ts_xid, newest) {
                self.newest_commit_ts_xid = newest;
            }
        }
    }

    /// Postgres' redo keeps the id as the oldest in the commit log only; a clean start takes that from the checkpoint's
    /// oldest id, which therefore must not be older.
    fn apply_clog(&mut self, clog: Clog) {
        if let Clog::Truncate { oldest_xid, database, .. } = clog {
            self.pass_oldest_xid(oldest_xid, database);
        }
    }

    /// multixact.c: `multixact_redo`.
    fn apply_multixact(&mut self, multixact: MultiXact) {
        match multixact {
            MultiXact::Create(create) => {
                let next_offset = create.first_member.wrapping_add(create.len());
                self.pass_multi(create.id.wrapping_add(1), next_offset);
                create.members().for_each(|(xid, _)| self.pass_xid(xid));
            }
            MultiXact::Truncate(truncate) => {
                self.pass_oldest_multi(truncate.end_offsets, truncate.database);
            }
            MultiXact::ZeroOffsetsPage(_) | MultiXact::ZeroMembersPage(_) => {}
        }
    }

    /// commit_ts.c: `AdvanceOldestCommitTsXid`.
    fn apply_commit_ts(&mut self, commit_ts: CommitTs) {
        if let CommitTs::Truncate { oldest_xid, .. } = commit_ts
            && self.oldest_commit_ts_xid != 0
            && xid_precedes(self.oldest_commit_ts_xid, oldest_xid)
        {
            self.oldest_commit_ts_xid = oldest_xid;
        }
    }

    /// varsup.c: `AdvanceNextFullTransactionIdPastXid`.
    fn pass_xid(&mut self, xid: u32) {
        let next = self.next_xid as u32;
        if xid_precedes(xid, next) {
            return;
        }
        let mut epoch = self.next_xid >> 32;
        let after = xid.checked_add(1).unwrap_or(FIRST_NORMAL_XID);
        if after < next {
            epoch += 1;
        }
        self.next_xid = epoch << 32 | u64::from(after);
    }

    /// multixact.c: `MultiXactAdvanceNextMXact`.
    fn pass_multi(&mut self, next: u32, next_offset: u32) {
        if precedes(self.next_multi, next) {
            self.next_multi = next;
        }
        if precedes(self.next_multi_offset, next_offset) {
            self.next_multi_offset = next_offset;
        }
    }

    fn pass_oldest_xid(&mut self, oldest: u32, database: u32) {
        if xid_precedes(self.oldest_xid, oldest) {
            self.oldest_xid = oldest;
            self.oldest_xid_database = database;
        }
    }

    /// multixact.c: `MultiXactAdvanceOldest`.
    fn pass_oldest_multi(&mut self, oldest: u32, database: u32) {
        if precedes(self.oldest_multi, oldest) {
            self.oldest_multi = oldest;
            self.oldest_multi_database = database;
        }
    }
}

/// On the circle of 32-bit numbers (multixact.c: `MultiXactIdPrecedes`).
fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// On the circle of transaction ids, before which the special ones stand (transam.c: `TransactionIdPrecedes`).
fn xid_precedes(a: u32, b: u32) -> bool {
    if a < FIRST_NORMAL_XID || b < FIRST_NORMAL_XID { a < b } else { precedes(a, b) }
}

#[cfg(test)]
mod tests;
