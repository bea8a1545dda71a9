//! CLOG's records (Postgres: clog.c, `clog_redo`).

use super::INFO_MASK;
use crate::fields::Fields;

/// What a CLOG record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clog {
    /// `CLOG_ZEROPAGE`: this page begins as zeros.
    ZeroPage(u32),
    /// `CLOG_TRUNCATE`: the segments before this page go.
    Truncate {
        /// The first page that stays.
        cutoff: u32,
        /// The oldest transaction in use.
        oldest_xid: u32,
        /// The database that has it.
        database: u32,
    },
}

impl Clog {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<Clog> {
        let mut fields = Fields::new(main);
        let page = fields.u32()?;
        match info & INFO_MASK {
            0x00 => Some(Clog::ZeroPage(page)),
            0x10 => {
                let (oldest_xid, database) = (fields.u32()?, fields.u32()?);
                Some(Clog::Truncate { cutoff: page, oldest_xid, database })
            }
            _ => None,
        }
    }
}
