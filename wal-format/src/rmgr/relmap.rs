//! RelMap's record (Postgres: `src/include/utils/relmapper.h`).

use super::INFO_MASK;
use crate::fields::Fields;

/// `xl_relmap_update`: the whole file `pg_filenode.map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelmapUpdate<'a> {
    /// The database; 0 for the shared map.
    pub database: u32,
    /// Its tablespace.
    pub tablespace: u32,
    /// The file's bytes.
    pub bytes: &'a [u8],
}

impl<'a> RelmapUpdate<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<RelmapUpdate<'a>> {
        if info & INFO_MASK != 0 {
            return None;
        }
        let mut fields = Fields::new(main);
        let (database, tablespace) = (fields.u32()?, fields.u32()?);
        let count = usize::try_from(fields.i32()?).ok()?;
        Some(RelmapUpdate { database, tablespace, bytes: fields.take(count)? })
    }
}
