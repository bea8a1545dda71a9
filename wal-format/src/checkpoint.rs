//! Checkpoint records, and the one that is made for a start without recovery.
#![doc = ""]
#![doc = include_str!("../../docs/formats/synthesised-checkpoint.md")]

use crate::{
    ControlState, FirstRecord, Lsn, Version,
    fields::Fields,
    rmgr::xlog::kind,
    rmid,
    wal_layout::{WalLayout, encode_record},
};

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

impl CheckPoint {
    /// Reads a checkpoint record's data; `None` where it is too short. What follows it is not looked at.
    pub fn decode(bytes: &[u8]) -> Option<CheckPoint> {
        let mut fields = Fields::new(bytes.get(..CHECK_POINT_BYTES)?);
        let redo = Lsn(fields.u64()?);
        let timeline_id = fields.u32()?;
        let previous_timeline_id = fields.u32()?;
        let full_page_writes = fields.u8()? != 0;
        fields.skip(7)?;
        let next_xid = fields.u64()?;
        let next_oid = fields.u32()?;
        let next_multi = fields.u32()?;
        let next_multi_offset = fields.u32()?;
        let oldest_xid = fields.u32()?;
        let oldest_xid_database = fields.u32()?;
        let oldest_multi = fields.u32()?;
        let oldest_multi_database = fields.u32()?;
        fields.skip(4)?;
        Some(CheckPoint {
            redo,
            timeline_id,
            previous_timeline_id,
            full_page_writes,
            next_xid,
            next_oid,
            next_multi,
            next_multi_offset,
            oldest_xid,
            oldest_xid_database,
            oldest_multi,
            oldest_multi_database,
            time: fields.i64()?,
            oldest_commit_ts_xid: fields.u32()?,
            newest_commit_ts_xid: fields.u32()?,
            oldest_active_xid: fields.u32()?,
        })
    }

    /// The record's data.
    pub fn encode(&self) -> [u8; CHECK_POINT_BYTES] {
        let mut bytes = [0; CHECK_POINT_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.redo.0.to_le_bytes());
        put(8, &self.timeline_id.to_le_bytes());
        put(12, &self.previous_timeline_id.to_le_bytes());
        put(16, &[u8::from(self.full_page_writes)]);
        put(24, &self.next_xid.to_le_bytes());
        put(32, &self.next_oid.to_le_bytes());
        put(36, &self.next_multi.to_le_bytes());
        put(40, &self.next_multi_offset.to_le_bytes());
        put(44, &self.oldest_xid.to_le_bytes());
        put(48, &self.oldest_xid_database.to_le_bytes());
        put(52, &self.oldest_multi.to_le_bytes());
        put(56, &self.oldest_multi_database.to_le_bytes());
        put(64, &self.time.to_le_bytes());
        put(72, &self.oldest_commit_ts_xid.to_le_bytes());
        put(76, &self.newest_commit_ts_xid.to_le_bytes());
        put(80, &self.oldest_active_xid.to_le_bytes());
        bytes
    }
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
    let stream = WalLayout { version, timeline_id: state.timeline_id, system_id, segment_bytes };
    let redo = stream.record_start(x);
    let main = state.checkpoint(redo, time).encode();
    let record = encode_record(0, prev, kind::CHECKPOINT_SHUTDOWN, rmid::XLOG, &main);
    let bytes = stream.lay_out(x, &record);
    ShutdownCheckpoint { redo, begin: x, end: x + bytes.len() as u64, bytes }
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
/// segment's first page, and the header of `lsn`'s page. Only headers before `lsn` are among them: a header at
/// `lsn` itself belongs to what is written there.
pub fn segment_prefix(
    version: Version,
    system_id: u64,
    timeline_id: u32,
    segment_bytes: u32,
    lsn: Lsn,
) -> Vec<SegmentPiece> {
    let layout = WalLayout { version, timeline_id, system_id, segment_bytes };
    let segment = lsn.segment_start(u64::from(segment_bytes));
    let mut pages = vec![segment, lsn.page_start()];
    pages.dedup();
    pages.retain(|page| *page < lsn);
    pages
        .into_iter()
        .map(|page| SegmentPiece { begin: page, bytes: layout.header(page, FirstRecord::Starts) })
        .collect()
}

#[cfg(test)]
mod tests;
