//! `pg_control` (pg_control.h: `ControlFileData`).

use crate::{
    CHECK_POINT_BYTES, CheckPoint, ControlFileError, Lsn, PAGE_BYTES, RELATION_SEGMENT_BLOCKS,
    Version, WAL_PAGE_BYTES, fields::Fields, is_segment_size,
};

/// Bytes of the file (`PG_CONTROL_FILE_SIZE`).
pub const CONTROL_FILE_BYTES: usize = 8192;

/// Where the checksum of all fields before it stands.
const CHECKSUM_AT: usize = 288;
/// `FLOATFORMAT_VALUE`, 1234567.0: says that doubles have our byte order.
const FLOAT_FORMAT: u64 = 1_234_567.0_f64.to_bits();

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

impl ClusterState {
    fn from_number(number: u32) -> Option<ClusterState> {
        const ALL: [ClusterState; 7] = [
            ClusterState::Startup,
            ClusterState::Shutdown,
            ClusterState::ShutdownInRecovery,
            ClusterState::ShuttingDown,
            ClusterState::CrashRecovery,
            ClusterState::ArchiveRecovery,
            ClusterState::Production,
        ];
        ALL.get(number as usize).copied()
    }
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
        let too_short =
            ControlFileError::TooShort { expected: CHECKSUM_AT + 4, found: bytes.len() };
        let (fields, rest) = bytes.split_at_checked(CHECKSUM_AT).ok_or(too_short.clone())?;
        // The version stands before the checksum, whose place it decides.
        let version = version_of(fields)?;
        let found = Fields::new(rest).u32().ok_or(too_short.clone())?;
        let expected = crc32c::crc32c(fields);
        if found != expected {
            return Err(ControlFileError::Checksum { expected, found });
        }
        Layout::read(&mut Fields::new(fields)).ok_or(too_short)?.check(version)
    }

    /// The file's [`CONTROL_FILE_BYTES`] bytes, its checksum computed.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_FILE_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.system_id.to_le_bytes());
        put(8, &self.version.control_version().to_le_bytes());
        put(12, &self.version.catalog_version().to_le_bytes());
        put(16, &(self.state as u32).to_le_bytes());
        put(24, &self.time.to_le_bytes());
        put(32, &self.checkpoint.0.to_le_bytes());
        put(40, &self.checkpoint_copy.encode());
        put(128, &self.unlogged_lsn.0.to_le_bytes());
        put(136, &self.recovery.min_recovery_point.0.to_le_bytes());
        put(144, &self.recovery.min_recovery_timeline.to_le_bytes());
        put(152, &self.recovery.backup_start.0.to_le_bytes());
        put(160, &self.recovery.backup_end.0.to_le_bytes());
        put(168, &[u8::from(self.recovery.backup_end_required)]);
        put(172, &self.settings.wal_level.to_le_bytes());
        put(176, &[u8::from(self.settings.wal_log_hints)]);
        put(180, &self.settings.max_connections.to_le_bytes());
        put(184, &self.settings.max_worker_processes.to_le_bytes());
        put(188, &self.settings.max_wal_senders.to_le_bytes());
        put(192, &self.settings.max_prepared_transactions.to_le_bytes());
        put(196, &self.settings.max_locks_per_transaction.to_le_bytes());
        put(200, &[u8::from(self.settings.track_commit_timestamp)]);
        put(204, &self.geometry.max_align.to_le_bytes());
        put(208, &FLOAT_FORMAT.to_le_bytes());
        put(216, &self.geometry.page_bytes.to_le_bytes());
        put(220, &self.geometry.relation_segment_blocks.to_le_bytes());
        put(224, &self.geometry.wal_page_bytes.to_le_bytes());
        put(228, &self.geometry.wal_segment_bytes.to_le_bytes());
        put(232, &self.geometry.name_bytes.to_le_bytes());
        put(236, &self.geometry.index_keys_max.to_le_bytes());
        put(240, &self.geometry.toast_chunk_bytes.to_le_bytes());
        put(244, &self.geometry.large_object_bytes.to_le_bytes());
        put(248, &[u8::from(self.geometry.float8_by_value)]);
        put(252, &self.data_checksum_version.to_le_bytes());
        put(256, &self.nonce);
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Whether its pages have checksums.
    pub fn has_page_checksums(&self) -> bool {
        self.data_checksum_version != 0
    }
}

/// The version that the file names.
fn version_of(bytes: &[u8]) -> Result<Version, ControlFileError> {
    let number =
        |at: usize| bytes.get(at..).and_then(|bytes| Fields::new(bytes).u32()).unwrap_or(0);
    let (control_version, catalog_version) = (number(8), number(12));
    Version::ALL
        .into_iter()
        .find(|version| {
            version.control_version() == control_version
                && version.catalog_version() == catalog_version
        })
        .ok_or(ControlFileError::Version { control_version, catalog_version })
}

/// The fields as they stand in the file, before they are checked.
struct Layout {
    state: u32,
    float_format: u64,
    file: ControlFile,
}

impl Layout {
    /// Reads the fields in their order; `None` where there are too few bytes. The version and the state of `file` are not read here.
    fn read(fields: &mut Fields) -> Option<Layout> {
        let system_id = fields.u64()?;
        fields.skip(8)?;
        let state = fields.u32()?;
        fields.skip(4)?;
        let time = fields.i64()?;
        let checkpoint = Lsn(fields.u64()?);
        let checkpoint_copy = CheckPoint::decode(fields.take(CHECK_POINT_BYTES)?)?;
        let unlogged_lsn = Lsn(fields.u64()?);
        let recovery = read_recovery(fields)?;
        let settings = read_settings(fields)?;
        let max_align = fields.u32()?;
        let float_format = fields.u64()?;
        let geometry = read_geometry(fields, max_align)?;
        let data_checksum_version = fields.u32()?;
        let nonce = *fields.take(32)?.first_chunk()?;
        let file = ControlFile {
            version: Version::V15,
            system_id,
            state: ClusterState::Startup,
            time,
            checkpoint,
            checkpoint_copy,
            unlogged_lsn,
            recovery,
            settings,
            geometry,
            data_checksum_version,
            nonce,
        };
        Some(Layout { state, float_format, file })
    }

    /// The file, where all fields are ones that this crate can work with.
    fn check(self, version: Version) -> Result<ControlFile, ControlFileError> {
        let refuse = |field, value| Err(ControlFileError::Field { field, value });
        let geometry = &self.file.geometry;
        if self.float_format != FLOAT_FORMAT {
            return refuse("floatFormat", self.float_format);
        }
        if geometry.max_align != 8 {
            return refuse("maxAlign", geometry.max_align.into());
        }
        if geometry.page_bytes as usize != PAGE_BYTES {
            return refuse("blcksz", geometry.page_bytes.into());
        }
        if geometry.relation_segment_blocks != RELATION_SEGMENT_BLOCKS {
            return refuse("relseg_size", geometry.relation_segment_blocks.into());
        }
        if u64::from(geometry.wal_page_bytes) != WAL_PAGE_BYTES {
            return refuse("xlog_blcksz", geometry.wal_page_bytes.into());
        }
        if !is_segment_size(geometry.wal_segment_bytes) {
            return refuse("xlog_seg_size", geometry.wal_segment_bytes.into());
        }
        if self.file.data_checksum_version > 1 {
            return refuse("data_checksum_version", self.file.data_checksum_version.into());
        }
        match ClusterState::from_number(self.state) {
            Some(state) => Ok(ControlFile { version, state, ..self.file }),
            None => refuse("state", self.state.into()),
        }
    }
}

fn read_recovery(fields: &mut Fields) -> Option<RecoveryBounds> {
    let min_recovery_point = Lsn(fields.u64()?);
    let min_recovery_timeline = fields.u32()?;
    fields.skip(4)?;
    let backup_start = Lsn(fields.u64()?);
    let backup_end = Lsn(fields.u64()?);
    let backup_end_required = read_bool(fields)?;
    Some(RecoveryBounds {
        min_recovery_point,
        min_recovery_timeline,
        backup_start,
        backup_end,
        backup_end_required,
    })
}

fn read_settings(fields: &mut Fields) -> Option<WalSettings> {
    Some(WalSettings {
        wal_level: fields.i32()?,
        wal_log_hints: read_bool(fields)?,
        max_connections: fields.i32()?,
        max_worker_processes: fields.i32()?,
        max_wal_senders: fields.i32()?,
        max_prepared_transactions: fields.i32()?,
        max_locks_per_transaction: fields.i32()?,
        track_commit_timestamp: read_bool(fields)?,
    })
}

fn read_geometry(fields: &mut Fields, max_align: u32) -> Option<Geometry> {
    Some(Geometry {
        max_align,
        page_bytes: fields.u32()?,
        relation_segment_blocks: fields.u32()?,
        wal_page_bytes: fields.u32()?,
        wal_segment_bytes: fields.u32()?,
        name_bytes: fields.u32()?,
        index_keys_max: fields.u32()?,
        toast_chunk_bytes: fields.u32()?,
        large_object_bytes: fields.u32()?,
        float8_by_value: read_bool(fields)?,
    })
}

/// A bool and the three bytes of padding that follow each one in this file.
fn read_bool(fields: &mut Fields) -> Option<bool> {
    let set = fields.u8()? != 0;
    fields.skip(3)?;
    Some(set)
}

#[cfg(test)]
pub(crate) mod tests;
