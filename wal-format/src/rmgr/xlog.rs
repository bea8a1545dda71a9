//! XLOG's records (Postgres: `src/include/catalog/pg_control.h`). Those that change pages carry nothing but full-page images;
//! the others change what `ControlState` keeps.

use super::INFO_MASK;

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
            0xA0 | 0xB0 => Some(Kind::Images),
            // The checkpoints, NOOP, NEXTOID, SWITCH, BACKUP_END, PARAMETER_CHANGE, RESTORE_POINT, FPW_CHANGE,
            // END_OF_RECOVERY; OVERWRITE_CONTRECORD.
            0x00..=0x90 | 0xD0 => Some(Kind::State),
            _ => None,
        }
    }
}
