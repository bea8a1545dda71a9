//! Storage's records (Postgres: `src/include/catalog/storage_xlog.h`).

use super::{INFO_MASK, relation};
use crate::{Fork, Relation, RelationFork, fields::Fields};

/// What a Storage record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// `XLOG_SMGR_CREATE`.
    Create(RelationFork),
    /// `XLOG_SMGR_TRUNCATE`.
    Truncate(Truncate),
}

/// `xl_smgr_truncate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The relation.
    pub relation: Relation,
    /// Blocks of the main fork that stay.
    pub blocks: u32,
    /// Whether the main fork is cut (`SMGR_TRUNCATE_HEAP`).
    pub main: bool,
    /// Whether the visibility map is cut (`SMGR_TRUNCATE_VM`).
    pub visibility_map: bool,
    /// Whether the free space map is cut (`SMGR_TRUNCATE_FSM`).
    pub free_space_map: bool,
}

impl Storage {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &[u8]) -> Option<Storage> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x10 => {
                let relation = relation(&mut fields)?;
                let fork = Fork::from_number(u8::try_from(fields.u32()?).ok()?)?;
                Some(Storage::Create(relation.fork(fork)))
            }
            0x20 => {
                let blocks = fields.u32()?;
                let relation = relation(&mut fields)?;
                let flags = fields.u32()?;
                Some(Storage::Truncate(Truncate {
                    relation,
                    blocks,
                    main: flags & 1 != 0,
                    visibility_map: flags & 2 != 0,
                    free_space_map: flags & 4 != 0,
                }))
            }
            _ => None,
        }
    }
}
