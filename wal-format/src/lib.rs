//! Postgres' own formats, pure: WAL, pages, `pg_control`, and redo in Rust.
//!
//! This crate knows no file system, no clock, no random number and no runtime: bytes in, bytes out.

mod block_image;
mod checkpoint;
mod control_file;
mod control_state;
mod effects;
mod error;
mod fields;
mod lsn;
mod page;
mod pglz;
mod reader;
mod record;
mod record_name;
mod redo;
mod relation;
pub mod rmgr;
pub mod rmid;
mod segment;
mod version;
mod visibility_map;
mod wal_layout;
mod wal_page;

pub use block_image::{BlockImage, Compression};
pub use checkpoint::{
    CHECK_POINT_BYTES, CheckPoint, SegmentPiece, ShutdownCheckpoint, segment_prefix,
    synthesise_shutdown_checkpoint,
};
pub use control_file::{
    CONTROL_FILE_BYTES, ClusterState, ControlFile, Geometry, RecoveryBounds, WalSettings,
};
pub use control_state::{CONTROL_STATE_BYTES, ControlState, FIRST_NORMAL_XID};
pub use effects::{Effect, effects, list_effects, named_pages};
pub use error::{ControlFileError, Damage, WalError};
pub use lsn::{Lsn, LsnParseError, WAL_PAGE_BYTES};
pub use page::{
    Bounds, LinePointer, LinePointerState, PAGE_HEADER_BYTES, Page, PageError, Placement,
    flags as page_flags,
};
pub use reader::{LentRecord, RawRecord, Records, WalReader};
pub use record::{
    BLOCK_ID_MAX, BlockRef, BlockRefs, KEPT_HEAD_BYTES, KeptRecord, NamedPage, Outline,
    RECORD_BYTES_MAX, RECORD_HEADER_BYTES, Record, kept_record, record_checksum,
};
pub use record_name::record_kind_name;
pub use redo::{RedoError, redo, redo_kept, redo_named};
pub use relation::{
    DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, PAGE_BYTES, PageKey, RELATION_SEGMENT_BLOCKS,
    Relation, RelationFork, SLRU_SEGMENT_PAGES, Slru, Target,
};
pub use segment::{
    DEFAULT_SEGMENT_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Segment, is_segment_size,
};
pub use version::Version;
pub use wal_page::{
    FirstRecord, LONG_HEADER_BYTES, SHORT_HEADER_BYTES, SegmentIdentity, WalPageHeader,
    header_bytes,
};
