//! The names of what WAL changes: relations, their forks and pages, and SLRUs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a relation page (`BLCKSZ`).
pub const PAGE_BYTES: usize = 8192;
/// Blocks in one file of a relation: 1 GiB (`RELSEG_SIZE`).
pub const RELATION_SEGMENT_BLOCKS: u32 = 131_072;
/// The tablespace `pg_default`, whose files are in `base/`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The tablespace `pg_global`, whose files are in `global/`; its relations have database 0.
pub const GLOBAL_TABLESPACE: u32 = 1664;
/// Pages in one SLRU segment file (`SLRU_PAGES_PER_SEGMENT`).
pub const SLRU_SEGMENT_PAGES: u32 = 32;

/// A fork of a relation (Postgres: `ForkNumber`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Fork {
    /// The data.
    Main = 0,
    /// The free space map, `_fsm`.
    FreeSpaceMap = 1,
    /// The visibility map, `_vm`.
    VisibilityMap = 2,
    /// What an unlogged relation is reset to, `_init`.
    Init = 3,
}

impl Fork {
    /// All forks, in the order of their numbers.
    pub const ALL: [Fork; 4] = [Fork::Main, Fork::FreeSpaceMap, Fork::VisibilityMap, Fork::Init];

    /// The fork of this number, where there is one.
    pub fn from_number(number: u8) -> Option<Fork> {
        Fork::ALL.get(usize::from(number)).copied()
    }

    /// What follows the relation's number in the file's name: `""`, `"_fsm"`, `"_vm"`, `"_init"`.
    pub fn suffix(self) -> &'static str {
        match self {
            Fork::Main => "",
            Fork::FreeSpaceMap => "_fsm",
            Fork::VisibilityMap => "_vm",
            Fork::Init => "_init",
        }
    }
}

/// A relation's storage (Postgres: `RelFileNode`; from 16 on `RelFileLocator`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Relation {
    /// Tablespace's OID.
    pub tablespace: u32,
    /// Database's OID; 0 in `pg_global`.
    pub database: u32,
    /// The relation's file number.
    pub number: u32,
}

impl Relation {
    /// One fork of this relation.
    pub fn fork(self, fork: Fork) -> RelationFork {
        RelationFork { relation: self, fork }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

/// One fork of one relation: a run of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RelationFork {
    /// The relation.
    pub relation: Relation,
    /// The fork.
    pub fork: Fork,
}

impl RelationFork {
    /// One page of this fork.
    pub fn block(self, block: u32) -> PageKey {
        PageKey { fork: self, block }
    }
}

impl fmt::Display for RelationFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.relation, self.fork.suffix())
    }
}

/// One page of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PageKey {
    /// The fork that holds the page.
    pub fork: RelationFork,
    /// The page's number in the fork, from 0 (`BlockNumber`).
    pub block: u32,
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} block {}", self.fork, self.block)
    }
}

/// The simple LRU areas (Postgres: slru.c) that WAL keeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Slru {
    /// `pg_xact`: two bits a transaction.
    Clog = 0,
    /// `pg_multixact/offsets`.
    MultiXactOffsets = 1,
    /// `pg_multixact/members`.
    MultiXactMembers = 2,
    /// `pg_commit_ts`.
    CommitTs = 3,
}

impl Slru {
    /// All areas, in the order of their numbers.
    pub const ALL: [Slru; 4] =
        [Slru::Clog, Slru::MultiXactOffsets, Slru::MultiXactMembers, Slru::CommitTs];

    /// The area's folder in a data directory.
    pub fn folder(self) -> &'static str {
        match self {
            Slru::Clog => "pg_xact",
            Slru::MultiXactOffsets => "pg_multixact/offsets",
            Slru::MultiXactMembers => "pg_multixact/members",
            Slru::CommitTs => "pg_commit_ts",
        }
    }
}

/// Something of 8 KiB that redo changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// A relation's page.
    Page(PageKey),
    /// An SLRU's page, by its number.
    Slru(Slru, u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Page(page) => page.fmt(f),
            Target::Slru(slru, page) => write!(f, "{} page {page}", slru.folder()),
        }
    }
}
