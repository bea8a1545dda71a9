//! What differs between Postgres majors, as constants.

use serde::{Deserialize, Serialize};

/// A Postgres major version whose formats this crate knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Version {
    /// Postgres 15.
    V15,
}

impl Version {
    /// All versions known here.
    pub const ALL: [Version; 1] = [Version::V15];

    /// The version of this major number, where it is known.
    pub fn from_major(major: u32) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.major() == major)
    }

    /// The major number, as in the file `PG_VERSION`.
    pub fn major(self) -> u32 {
        match self {
            Version::V15 => 15,
        }
    }

    /// `XLOG_PAGE_MAGIC` (xlog_internal.h).
    pub fn wal_page_magic(self) -> u16 {
        match self {
            Version::V15 => 0xD110,
        }
    }

    /// `PG_CONTROL_VERSION` (pg_control.h).
    pub fn control_version(self) -> u32 {
        match self {
            Version::V15 => 1300,
        }
    }

    /// `CATALOG_VERSION_NO` (catversion.h).
    pub fn catalog_version(self) -> u32 {
        match self {
            Version::V15 => 202_209_061,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_known_by_its_major() {
        assert_eq!(Version::from_major(15), Some(Version::V15));
        assert_eq!(Version::V15.major(), 15);
        assert_eq!(Version::from_major(13), None);
    }
}
