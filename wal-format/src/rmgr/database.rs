//! Database's records (Postgres: `src/include/commands/dbcommands_xlog.h`).

use super::{INFO_MASK, Xids};
use crate::fields::Fields;

/// What a Database record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database<'a> {
    /// `XLOG_DBASE_CREATE_FILE_COPY`: all files of another database are copied as they are now.
    Copy {
        /// The new database.
        database: u32,
        /// Its tablespace.
        tablespace: u32,
        /// The database that is copied.
        from_database: u32,
        /// Its tablespace.
        from_tablespace: u32,
    },
    /// `XLOG_DBASE_CREATE_WAL_LOG`: an empty database, whose pages follow in the WAL.
    Create {
        /// The new database.
        database: u32,
        /// Its tablespace.
        tablespace: u32,
    },
    /// `XLOG_DBASE_DROP`.
    Drop {
        /// The database.
        database: u32,
        /// The tablespaces from which it goes.
        tablespaces: Xids<'a>,
    },
}

impl<'a> Database<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<Database<'a>> {
        let mut fields = Fields::new(main);
        let database = fields.u32()?;
        match info & INFO_MASK {
            0x00 => Some(Database::Copy {
                database,
                tablespace: fields.u32()?,
                from_database: fields.u32()?,
                from_tablespace: fields.u32()?,
            }),
            0x10 => Some(Database::Create { database, tablespace: fields.u32()? }),
            0x20 => {
                let count = usize::try_from(fields.i32()?).ok()?;
                Some(Database::Drop { database, tablespaces: Xids::take(&mut fields, count)? })
            }
            _ => None,
        }
    }
}
