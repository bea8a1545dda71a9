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
    },
}

impl Clog {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<Clog> {
        let page = Fields::new(main).u32()?;
        match info & INFO_MASK {
            0x00 => Some(Clog::ZeroPage(page)),
            0x10 => Some(Clog::Truncate { cutoff: page }),
            _ => None,
        }
    }
}
