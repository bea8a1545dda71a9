//! CommitTs' records (Postgres: commit_ts.c, `commit_ts_redo`).

use super::INFO_MASK;
use crate::fields::Fields;

/// What a CommitTs record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitTs {
    /// `COMMIT_TS_ZEROPAGE`: this page begins as zeros.
    ZeroPage(u32),
    /// `COMMIT_TS_TRUNCATE`: the segments before this page go.
    Truncate {
        /// The first page that stays.
        cutoff: u32,
        /// The oldest transaction that keeps its timestamp.
        oldest_xid: u32,
    },
}

impl CommitTs {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<CommitTs> {
        let mut fields = Fields::new(main);
        let page = fields.u32()?;
        match info & INFO_MASK {
            0x00 => Some(CommitTs::ZeroPage(page)),
            0x10 => Some(CommitTs::Truncate { cutoff: page, oldest_xid: fields.u32()? }),
            _ => None,
        }
    }
}
