//! Postgres' own formats, pure: WAL, pages, `pg_control`, and redo in Rust.
//!
//! This crate knows no file system, no clock, no random number and no runtime: bytes in, bytes out.

mod lsn;
mod page;
mod relation;

pub use lsn::{Lsn, LsnParseError, WAL_PAGE_BYTES};
pub use page::{
    Bounds, LinePointer, LinePointerState, PAGE_HEADER_BYTES, Page, PageError, Placement,
    flags as page_flags,
};
pub use relation::{
    DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, PAGE_BYTES, PageKey, RELATION_SEGMENT_BLOCKS,
    Relation, RelationFork, SLRU_SEGMENT_PAGES, Slru, Target,
};
