//! A control state's bytes.
#![doc = ""]
#![doc = include_str!("../../../docs/formats/control-state.md")]

use super::ControlState;
use crate::{WalSettings, fields::Fields};

/// Bytes of an encoded [`ControlState`].
pub const CONTROL_STATE_BYTES: usize = 80;
/// The version of the encoding.
const FORMAT: u32 = 1;

impl ControlState {
    /// The state's bytes, for storage; docs/formats/control-state.md.
    pub fn encode(&self) -> [u8; CONTROL_STATE_BYTES] {
        let settings = &self.settings;
        let mut bytes = [0; CONTROL_STATE_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &FORMAT.to_le_bytes());
        put(4, &self.timeline_id.to_le_bytes());
        put(8, &self.next_xid.to_le_bytes());
        put(16, &self.next_oid.to_le_bytes());
        put(20, &self.next_multi.to_le_bytes());
        put(24, &self.next_multi_offset.to_le_bytes());
        put(28, &self.oldest_xid.to_le_bytes());
        put(32, &self.oldest_xid_database.to_le_bytes());
        put(36, &self.oldest_multi.to_le_bytes());
        put(40, &self.oldest_multi_database.to_le_bytes());
        put(44, &self.oldest_commit_ts_xid.to_le_bytes());
        put(48, &self.newest_commit_ts_xid.to_le_bytes());
        put(52, &settings.wal_level.to_le_bytes());
        put(56, &settings.max_connections.to_le_bytes());
        put(60, &settings.max_worker_processes.to_le_bytes());
        put(64, &settings.max_wal_senders.to_le_bytes());
        put(68, &settings.max_prepared_transactions.to_le_bytes());
        put(72, &settings.max_locks_per_transaction.to_le_bytes());
        let flags =
            [self.full_page_writes, settings.wal_log_hints, settings.track_commit_timestamp, false];
        put(76, &flags.map(u8::from));
        bytes
    }

    /// The state of stored bytes; `None` where they are not a state's.
    pub fn decode(bytes: &[u8]) -> Option<ControlState> {
        let bytes: &[u8; CONTROL_STATE_BYTES] = bytes.try_into().ok()?;
        let mut fields = Fields::new(bytes);
        if fields.u32()? != FORMAT {
            return None;
        }
        let mut state = ControlState {
            timeline_id: fields.u32()?,
            next_xid: fields.u64()?,
            next_oid: fields.u32()?,
            next_multi: fields.u32()?,
            next_multi_offset: fields.u32()?,
            oldest_xid: fields.u32()?,
            oldest_xid_database: fields.u32()?,
            oldest_multi: fields.u32()?,
            oldest_multi_database: fields.u32()?,
            oldest_commit_ts_xid: fields.u32()?,
            newest_commit_ts_xid: fields.u32()?,
            full_page_writes: false,
            settings: WalSettings {
                wal_level: fields.i32()?,
                wal_log_hints: false,
                max_connections: fields.i32()?,
                max_worker_processes: fields.i32()?,
                max_wal_senders: fields.i32()?,
                max_prepared_transactions: fields.i32()?,
                max_locks_per_transaction: fields.i32()?,
                track_commit_timestamp: false,
            },
        };
        let mut flag = || match fields.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        state.full_page_writes = flag()?;
        state.settings.wal_log_hints = flag()?;
        state.settings.track_commit_timestamp = flag()?;
        (!flag()?).then_some(state)
    }
}
