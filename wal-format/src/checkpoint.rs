//! Checkpoint records, and the one that is made for a start without recovery.

use crate::{ControlState, Lsn, Version};

/// Bytes of a checkpoint record's data (`sizeof(CheckPoint)`).
pub const CHECK_POINT_BYTES: usize = 88;

/// What a checkpoint record says (pg_control.h: `CheckPoint`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckPoint {
    /// Where recovery from this checkpoint begins.
    pub redo: Lsn,
    /// The Postgres timeline id.
    pub timeline_id: u32,
    /// The timeline id before a switch of timelines.
    pub previous_timeline_id: u32,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// The next transaction id, with its epoch in the high half.
    pub next_xid: u64,
    /// The next OID.
    pub next_oid: u32,
    /// The next multixact id.
    pub next_multi: u32,
    /// The next multixact member.
    pub next_multi_offset: u32,
    /// The oldest transaction id in use, and the database that has it.
    pub oldest_xid: u32,
    /// See `oldest_xid`.
    pub oldest_xid_database: u32,
    /// The oldest multixact id in use, and the database that has it.
    pub oldest_multi: u32,
    /// See `oldest_multi`.
    pub oldest_multi_database: u32,
    /// When the checkpoint was made, in seconds since 1970.
    pub time: i64,
    /// The oldest transaction id with a commit timestamp, 0 where there is none.
    pub oldest_commit_ts_xid: u32,
    /// The newest transaction id with a commit timestamp, 0 where there is none.
    pub newest_commit_ts_xid: u32,
    /// The oldest transaction that runs; 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

/// A shutdown checkpoint that no Postgres wrote, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShutdownCheckpoint {
    /// The record's start: its own redo pointer, and what `pg_control` points at.
    pub redo: Lsn,
    /// Where `bytes` begin: the end of the record before.
    pub begin: Lsn,
    /// Where `bytes` end: the record's MAXALIGNed end.
    pub end: Lsn,
    /// The WAL from `begin` to `end`, page headers included.
    pub bytes: Vec<u8>,
}

/// The shutdown checkpoint that Postgres would write at `x` after crash recovery. `prev` is the start of the
/// record that ends at `x`; `time` is in seconds since 1970.
pub fn synthesise_shutdown_checkpoint(
    version: Version,
    x: Lsn,
    prev: Lsn,
    state: &ControlState,
    system_id: u64,
    segment_bytes: u32,
    time: i64,
) -> ShutdownCheckpoint {
    let _ = (version, prev, state, system_id, segment_bytes, time);
    ShutdownCheckpoint { redo: x, begin: x, end: x, bytes: Vec::new() }
}

/// Bytes that stand somewhere in a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPiece {
    /// Where they begin, from the start of the WAL.
    pub begin: Lsn,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The page headers that a sparse segment needs so that Postgres reads a record at `lsn`: the long header of the
/// segment's first page and the header of `lsn`'s page. Headers at or after `lsn` itself are not among them.
pub fn segment_prefix(
    version: Version,
    system_id: u64,
    timeline_id: u32,
    segment_bytes: u32,
    lsn: Lsn,
) -> Vec<SegmentPiece> {
    let _ = (version, system_id, timeline_id, segment_bytes, lsn);
    Vec::new()
}
