//! The names of files in a Postgres data directory.
//!
//! Source: `src/common/relpath.c` (`GetRelationPath`), `src/backend/access/transam/slru.c`
//! (`SlruFileName`), `src/backend/access/transam/twophase.c` (`TwoPhaseFilePath`).

use wal_format::{DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, Slru, Version};

/// The folder in a tablespace's location that holds this version's databases
/// (`TABLESPACE_VERSION_DIRECTORY`).
pub(crate) fn version_folder(version: Version) -> String {
    format!("PG_{}_{}", version.major(), version.catalog_version())
}

/// The folder of a database's files, `global` for the shared ones.
pub(crate) fn database_folder(version: Version, tablespace: u32, database: u32) -> String {
    match tablespace {
        GLOBAL_TABLESPACE => "global".to_owned(),
        DEFAULT_TABLESPACE => format!("base/{database}"),
        other => format!("pg_tblspc/{other}/{}/{database}", version_folder(version)),
    }
}

/// The file of a segment of an SLRU: `pg_xact/0000`.
pub(crate) fn slru_file(slru: Slru, segment: u32) -> String {
    format!("{}/{segment:04X}", slru.folder())
}

/// The number of the SLRU segment that a file of this name holds.
pub(crate) fn parse_slru_file(name: &str) -> Option<u32> {
    let digits = (4..=6).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    digits.then(|| u32::from_str_radix(name, 16).ok()).flatten()
}

/// The file of a prepared transaction, as 15 and 16 name it.
pub(crate) fn two_phase_file(xid: u32) -> String {
    format!("pg_twophase/{xid:08X}")
}

/// A relation's file name: `16384`, `16384_fsm`, `16384_vm.1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RelationFile {
    pub number: u32,
    pub fork: Fork,
    pub segment: u32,
}

impl RelationFile {
    /// The file that this name means; `None` for temporary relations and whatever else a
    /// database's folder holds.
    pub fn parse(name: &str) -> Option<RelationFile> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, parse_number(segment).filter(|&s| s > 0)?),
            None => (name, 0),
        };
        let (number, fork) = Fork::ALL
            .into_iter()
            .rev()
            .find_map(|fork| Some((stem.strip_suffix(fork.suffix())?, fork)))?;
        Some(RelationFile { number: parse_number(number)?, fork, segment })
    }
}

/// A decimal number without sign or leading zero.
pub(crate) fn parse_number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relations_file_is_told_from_its_name() {
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        assert_eq!(RelationFile::parse("1259"), file(1259, Fork::Main, 0));
        assert_eq!(RelationFile::parse("1259_fsm"), file(1259, Fork::FreeSpaceMap, 0));
        assert_eq!(RelationFile::parse("1259_vm.2"), file(1259, Fork::VisibilityMap, 2));
        assert_eq!(RelationFile::parse("1259_init"), file(1259, Fork::Init, 0));
        for other in ["PG_VERSION", "pg_filenode.map", "t3_1259", "1259_", "1259.", "1259.0", "01"]
        {
            assert_eq!(RelationFile::parse(other), None, "{other} was taken for a relation's file");
        }
    }

    #[test]
    fn an_slru_file_is_named_by_four_digits_or_more() {
        assert_eq!(slru_file(Slru::MultiXactMembers, 0x1A), "pg_multixact/members/001A");
        assert_eq!(parse_slru_file("001A"), Some(0x1A));
        assert_eq!(parse_slru_file("1404E"), Some(0x1404E));
        assert_eq!(parse_slru_file("1a"), None);
    }
}
