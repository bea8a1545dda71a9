//! What can be wrong with WAL and with `pg_control`.

use crate::Lsn;

/// WAL that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The WAL at this position is not what Postgres writes.
    #[error("damaged WAL at {at}: {damage}")]
    Damaged {
        /// Where the damage was found: a page's or a record's start.
        at: Lsn,
        /// What was found.
        damage: Damage,
    },
    /// A record's bytes, whose position the caller knows, are not what Postgres writes.
    #[error("damaged WAL record: {0}")]
    Record(Damage),
    /// The caller fed bytes that do not follow the ones fed before.
    #[error("WAL from {begin} does not follow the WAL read so far, which ends at {expected}")]
    OutOfOrder {
        /// Where the next bytes begin.
        expected: Lsn,
        /// Where the bytes begin that were fed.
        begin: Lsn,
    },
}

impl From<Damage> for WalError {
    fn from(damage: Damage) -> WalError {
        WalError::Record(damage)
    }
}

impl WalError {
    /// The same error with the position of the record that has it.
    pub fn at(self, lsn: Lsn) -> WalError {
        match self {
            WalError::Record(damage) => WalError::Damaged { at: lsn, damage },
            other => other,
        }
    }
}

/// What is wrong with a WAL page or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The page does not begin with the version's magic number.
    #[error("page magic {found:04X} instead of {expected:04X}")]
    PageMagic {
        /// The version's `XLOG_PAGE_MAGIC`.
        expected: u16,
        /// What stands there.
        found: u16,
    },
    /// The page says that it stands elsewhere.
    #[error("the page says that it is the page of {found}")]
    PageAddress {
        /// The page's own `xlp_pageaddr`.
        found: Lsn,
    },
    /// The page header's flags are unknown, or not those of a page here.
    #[error("page flags {found:04X}")]
    PageFlags {
        /// `xlp_info`.
        found: u16,
    },
    /// A segment's first page names another cluster.
    #[error("WAL of system {found} instead of {expected}")]
    SystemId {
        /// The cluster whose WAL is read.
        expected: u64,
        /// `xlp_sysid`.
        found: u64,
    },
    /// A segment's first page names another geometry.
    #[error("segments of {segment} bytes and pages of {page} bytes")]
    Geometry {
        /// `xlp_seg_size`.
        segment: u32,
        /// `xlp_xlog_blcksz`.
        page: u32,
    },
    /// The page does not go on with as many bytes as its record still has.
    #[error("{found} bytes of a continued record instead of {expected}")]
    Continuation {
        /// What is missing of the record.
        expected: u32,
        /// `xlp_rem_len`, or 0 where the page does not continue a record.
        found: u32,
    },
    /// The record's length is none that a record can have.
    #[error("record of {found} bytes")]
    RecordLength {
        /// `xl_tot_len`.
        found: u32,
    },
    /// The record does not point back to the record before it.
    #[error("previous record at {found} instead of {expected}")]
    PreviousRecord {
        /// The start of the record before.
        expected: Lsn,
        /// `xl_prev`.
        found: Lsn,
    },
    /// The record's checksum does not agree with its bytes.
    #[error("record checksum {found:08X} instead of {expected:08X}")]
    RecordChecksum {
        /// CRC-32C of the record's bytes.
        expected: u32,
        /// `xl_crc`.
        found: u32,
    },
    /// The record that takes an unfinished record's place is not an `XLOG_OVERWRITE_CONTRECORD` for it.
    #[error("the unfinished record before is not the one that is overwritten here")]
    Overwritten,
    /// The record's parts do not add up.
    #[error("{part} does not fit the record")]
    Malformed {
        /// The part, by its name in Postgres' sources.
        part: &'static str,
    },
    /// The record's own data are too short for its kind.
    #[error("the data of a {name} record do not fit their kind")]
    Payload {
        /// The record's name.
        name: String,
    },
    /// A full-page image that cannot be unpacked to a page.
    #[error("full-page image of block {block}: {reason}")]
    Image {
        /// The block reference's number in the record.
        block: u8,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A `pg_control` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Fewer bytes than its fields take.
    #[error("pg_control has {found} bytes and needs {expected}")]
    TooShort {
        /// Bytes of the fields and their checksum.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Of another Postgres major, or no `pg_control` at all.
    #[error(
        "pg_control has version {control_version} and catalog version {catalog_version}, which is no Postgres that is known here"
    )]
    Version {
        /// `pg_control_version`.
        control_version: u32,
        /// `catalog_version_no`.
        catalog_version: u32,
    },
    /// Its checksum does not agree with its bytes.
    #[error("pg_control has checksum {found:08X} instead of {expected:08X}")]
    Checksum {
        /// CRC-32C of the fields.
        expected: u32,
        /// What stands there.
        found: u32,
    },
    /// A field's value is none that Postgres knows.
    #[error("pg_control: {field} is {value}")]
    Field {
        /// The field, by its name in pg_control.h.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}
