//! Postgres' built-in resource managers, by number (rmgrlist.h).

/// `RM_XLOG_ID`.
pub const XLOG: u8 = 0;
/// `RM_XACT_ID`.
pub const TRANSACTION: u8 = 1;
/// `RM_SMGR_ID`.
pub const STORAGE: u8 = 2;
/// `RM_CLOG_ID`.
pub const CLOG: u8 = 3;
/// `RM_DBASE_ID`.
pub const DATABASE: u8 = 4;
/// `RM_TBLSPC_ID`.
pub const TABLESPACE: u8 = 5;
/// `RM_MULTIXACT_ID`.
pub const MULTIXACT: u8 = 6;
/// `RM_RELMAP_ID`.
pub const RELMAP: u8 = 7;
/// `RM_STANDBY_ID`.
pub const STANDBY: u8 = 8;
/// `RM_HEAP2_ID`.
pub const HEAP2: u8 = 9;
/// `RM_HEAP_ID`.
pub const HEAP: u8 = 10;
/// `RM_BTREE_ID`.
pub const BTREE: u8 = 11;
/// `RM_HASH_ID`.
pub const HASH: u8 = 12;
/// `RM_GIN_ID`.
pub const GIN: u8 = 13;
/// `RM_GIST_ID`.
pub const GIST: u8 = 14;
/// `RM_SEQ_ID`.
pub const SEQUENCE: u8 = 15;
/// `RM_SPGIST_ID`.
pub const SPGIST: u8 = 16;
/// `RM_BRIN_ID`.
pub const BRIN: u8 = 17;
/// `RM_COMMIT_TS_ID`.
pub const COMMIT_TS: u8 = 18;
/// `RM_REPLORIGIN_ID`.
pub const REPLICATION_ORIGIN: u8 = 19;
/// `RM_GENERIC_ID`.
pub const GENERIC: u8 = 20;
/// `RM_LOGICALMSG_ID`.
pub const LOGICAL_MESSAGE: u8 = 21;
/// The largest number of a built-in resource manager (`RM_MAX_BUILTIN_ID`).
pub const BUILTIN_MAX: u8 = LOGICAL_MESSAGE;
/// The smallest number of an extension's resource manager (`RM_MIN_CUSTOM_ID`).
pub const CUSTOM_MIN: u8 = 128;
