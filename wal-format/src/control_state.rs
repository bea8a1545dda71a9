//! The cluster-wide counters that WAL carries, followed record by record.
//!
//! What Postgres' own recovery keeps in shared memory and writes to `pg_control` at its end.

use crate::{ControlFile, Lsn, Record, WalError, WalSettings};

/// Bytes of an encoded [`ControlState`].
pub const CONTROL_STATE_BYTES: usize = 96;

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

    /// Takes over what the record changes; whether it changed anything. `end` is the record's end.
    pub fn apply(&mut self, record: &Record, end: Lsn) -> Result<bool, WalError> {
        let _ = (record, end);
        Ok(false)
    }

    /// The `pg_control` of a cluster that was stopped cleanly with this state, its last checkpoint at `checkpoint`.
    /// `base` is the one that initdb wrote; `time` is in seconds since 1970.
    pub fn control_file(&self, base: &ControlFile, checkpoint: Lsn, time: i64) -> ControlFile {
        let _ = (checkpoint, time);
        base.clone()
    }

    /// The state's bytes, for storage.
    pub fn encode(&self) -> [u8; CONTROL_STATE_BYTES] {
        [0; CONTROL_STATE_BYTES]
    }

    /// The state of stored bytes; `None` where they are not a state's.
    pub fn decode(bytes: &[u8]) -> Option<ControlState> {
        let _ = bytes;
        None
    }
}
