//! Tablespace's records (Postgres: `src/include/commands/tablespace.h`).

use super::INFO_MASK;
use crate::fields::Fields;

/// What a Tablespace record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tablespace<'a> {
    /// `XLOG_TBLSPC_CREATE`.
    Create {
        /// The tablespace.
        oid: u32,
        /// The folder that it was given, as bytes of the server's encoding.
        location: &'a [u8],
    },
    /// `XLOG_TBLSPC_DROP`.
    Drop {
        /// The tablespace.
        oid: u32,
    },
}

impl<'a> Tablespace<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Tablespace<'a>> {
        let mut fields = Fields::new(main);
        let oid = fields.u32()?;
        match info & INFO_MASK {
            0x00 => {
                let location = fields.rest().split(|byte| *byte == 0).next()?;
                Some(Tablespace::Create { oid, location })
            }
            0x10 => Some(Tablespace::Drop { oid }),
            _ => None,
        }
    }
}
