//! XLOG's records (Postgres: `src/include/catalog/pg_control.h`). Those that change pages carry nothing but full-page images;
//! the others change what `ControlState` keeps, and one ends the commit timestamps.

use super::INFO_MASK;
use crate::{WalSettings, fields::Fields};

/// The kinds of records that this crate looks into, by the bits of `xl_info`.
pub mod kind {
    /// `XLOG_CHECKPOINT_SHUTDOWN`: a [`crate::CheckPoint`].
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    /// `XLOG_CHECKPOINT_ONLINE`: a [`crate::CheckPoint`].
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    /// `XLOG_NEXTOID`: an OID.
    pub const NEXT_OID: u8 = 0x30;
    /// `XLOG_SWITCH`: the WAL goes on in the next segment.
    pub const SWITCH: u8 = 0x40;
    /// `XLOG_PARAMETER_CHANGE`: the [`crate::WalSettings`].
    pub const PARAMETER_CHANGE: u8 = 0x60;
    /// `XLOG_FPW_CHANGE`: whether full pages are written.
    pub const FULL_PAGE_WRITES_CHANGE: u8 = 0x80;
    /// `XLOG_FPI_FOR_HINT`.
    pub const IMAGES_FOR_HINTS: u8 = 0xA0;
    /// `XLOG_FPI`.
    pub const IMAGES: u8 = 0xB0;
    /// `XLOG_OVERWRITE_CONTRECORD`: it stands in place of an unfinished record.
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
}

/// What an XLOG record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `XLOG_FPI`, `XLOG_FPI_FOR_HINT`: full-page images.
    Images,
    /// A record that changes no page.
    State,
}

impl Kind {
    /// The kind of a record with this `xl_info`, where Postgres 15 knows it.
    pub fn parse(info: u8) -> Option<Kind> {
        match info & INFO_MASK {
            kind::IMAGES_FOR_HINTS | kind::IMAGES => Some(Kind::Images),
            // The checkpoints, NOOP, NEXTOID, SWITCH, BACKUP_END, PARAMETER_CHANGE, RESTORE_POINT, FPW_CHANGE,
            // END_OF_RECOVERY; OVERWRITE_CONTRECORD.
            0x00..=0x90 | kind::OVERWRITE_CONTRECORD => Some(Kind::State),
            _ => None,
        }
    }
}

/// The settings that `XLOG_PARAMETER_CHANGE` says (`xl_parameter_change`).
pub fn changed_settings(main: &[u8]) -> Option<WalSettings> {
    let mut fields = Fields::new(main);
    Some(WalSettings {
        max_connections: fields.i32()?,
        max_worker_processes: fields.i32()?,
        max_wal_senders: fields.i32()?,
        max_prepared_transactions: fields.i32()?,
        max_locks_per_transaction: fields.i32()?,
        wal_level: fields.i32()?,
        wal_log_hints: fields.u8()? != 0,
        track_commit_timestamp: fields.u8()? != 0,
    })
}
