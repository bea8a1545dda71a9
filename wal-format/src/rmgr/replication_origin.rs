//! ReplicationOrigin's records (Postgres: `src/include/replication/origin.h`).

use super::INFO_MASK;
use crate::{Lsn, fields::Fields};

/// What a ReplicationOrigin record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationOrigin {
    /// `XLOG_REPLORIGIN_SET`.
    Set {
        /// The origin.
        origin: u16,
        /// How far it was replicated.
        remote: Lsn,
        /// Whether it may go back.
        force: bool,
    },
    /// `XLOG_REPLORIGIN_DROP`.
    Drop {
        /// The origin.
        origin: u16,
    },
}

impl ReplicationOrigin {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<ReplicationOrigin> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x00 => {
                let remote = Lsn(fields.u64()?);
                let origin = fields.u16()?;
                Some(ReplicationOrigin::Set { origin, remote, force: fields.u8()? != 0 })
            }
            0x10 => Some(ReplicationOrigin::Drop { origin: fields.u16()? }),
            _ => None,
        }
    }
}
