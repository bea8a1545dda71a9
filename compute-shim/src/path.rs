//! The names of files in a data directory, pure: which file holds which part of which relation.
//!
//! Source: `GetRelationPath` (src/common/relpath.c), `_mdfd_segpath` (src/backend/storage/smgr/md.c),
//! `looks_like_temp_rel_name` (src/backend/storage/file/fd.c).

use wal_format::{DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, Relation, RelationFork};

/// The folder of one major version in a tablespace (`TABLESPACE_VERSION_DIRECTORY`): the major and
/// its catalog version.
pub const TABLESPACE_VERSION_FOLDER: &str = "PG_15_202209061";

/// What a path in a data directory names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileName {
    /// One file, at most 1 GiB, of a relation's fork.
    Relation {
        /// The fork.
        fork: RelationFork,
        /// Which of the fork's files, from 0.
        segment: u32,
    },
    /// A temporary relation's file, or a file that a query spilled: of this compute only.
    Temporary,
    /// Any other file: `PG_VERSION`, `pg_filenode.map`, `pg_control`.
    Other,
}

/// What this path, relative to the data directory, names.
pub fn parse(path: &str) -> FileName {
    let parts: Vec<&str> = path.split('/').collect();
    let place = match parts[..] {
        ["global", name] => Some((GLOBAL_TABLESPACE, 0, name)),
        ["base", "pgsql_tmp", ..] | ["pg_tblspc", _, _, "pgsql_tmp", ..] => {
            return FileName::Temporary;
        }
        ["base", database, name] => number(database).map(|oid| (DEFAULT_TABLESPACE, oid, name)),
        ["pg_tblspc", tablespace, TABLESPACE_VERSION_FOLDER, database, name] => {
            number(tablespace).zip(number(database)).map(|(ts, db)| (ts, db, name))
        }
        _ => None,
    };
    let Some((tablespace, database, name)) = place else {
        return FileName::Other;
    };
    if let Some((backend, rest)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) {
        let temporary = number(backend).is_some() && relation_file(rest).is_some();
        return if temporary { FileName::Temporary } else { FileName::Other };
    }
    relation_file(name).map_or(FileName::Other, |(number, fork, segment)| FileName::Relation {
        fork: Relation { tablespace, database, number }.fork(fork),
        segment,
    })
}

/// The folder of a database, relative to the data directory.
pub fn database_folder(tablespace: u32, database: u32) -> String {
    match tablespace {
        GLOBAL_TABLESPACE => "global".to_owned(),
        DEFAULT_TABLESPACE => format!("base/{database}"),
        _ => format!("pg_tblspc/{tablespace}/{TABLESPACE_VERSION_FOLDER}/{database}"),
    }
}

/// The name of one file of a fork, in its database's folder.
pub fn relation_file_name(fork: RelationFork, segment: u32) -> String {
    let RelationFork { relation, fork } = fork;
    match segment {
        0 => format!("{}{}", relation.number, fork.suffix()),
        _ => format!("{}{}.{segment}", relation.number, fork.suffix()),
    }
}

/// The parts of `16384_vm.2`.
fn relation_file(name: &str) -> Option<(u32, Fork, u32)> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, number(segment)?),
        None => (name, 0),
    };
    let (relation, suffix) = stem.split_at(stem.find('_').unwrap_or(stem.len()));
    let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == suffix)?;
    Some((number(relation)?, fork, segment))
}

/// A number as Postgres writes one into a name: above zero, no leading zero.
fn number(text: &str) -> Option<u32> {
    let digits = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relation(tablespace: u32, database: u32, number: u32, fork: Fork) -> RelationFork {
        Relation { tablespace, database, number }.fork(fork)
    }

    #[test]
    fn a_relations_file_is_known_by_its_path() {
        let cases = [
            ("base/5/1259", relation(1663, 5, 1259, Fork::Main), 0),
            ("base/5/1259_vm", relation(1663, 5, 1259, Fork::VisibilityMap), 0),
            ("base/16384/16385.2", relation(1663, 16384, 16385, Fork::Main), 2),
            ("global/1262_fsm.1", relation(1664, 0, 1262, Fork::FreeSpaceMap), 1),
            (
                "pg_tblspc/16390/PG_15_202209061/5/16400_init",
                relation(16390, 5, 16400, Fork::Init),
                0,
            ),
        ];
        for (path, fork, segment) in cases {
            assert_eq!(parse(path), FileName::Relation { fork, segment }, "{path}");
        }
    }

    #[test]
    fn temporary_files_are_not_relations_of_the_timeline() {
        for path in [
            "base/5/t3_16384",
            "base/5/t12_16384_fsm.1",
            "base/pgsql_tmp/pgsql_tmp123.0",
            "pg_tblspc/16390/PG_15_202209061/pgsql_tmp/pgsql_tmp123.0",
        ] {
            assert_eq!(parse(path), FileName::Temporary, "{path}");
        }
    }

    #[test]
    fn other_files_are_not_taken_for_relations() {
        for path in [
            "",
            "base/5",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/pg_internal.init.77",
            "base/5/0",
            "base/5/01",
            "base/5/1259_xy",
            "base/5/1259.",
            "base/5/1259.0",
            "base/5/99999999999",
            "base/5/t_1",
            "base/5/tx_1",
            "base/x/1259",
            "global/pg_control",
            "pg_tblspc/16390/PG_14_202107181/5/16400",
            "pg_xact/0000",
        ] {
            assert_eq!(parse(path), FileName::Other, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_made_is_read_back(
            tablespace in prop_oneof![Just(1663u32), Just(1664u32), 16384u32..],
            database in 1u32..,
            number in 1u32..,
            fork in 0u8..4,
            segment in 0u32..32,
        ) {
            let database = if tablespace == GLOBAL_TABLESPACE { 0 } else { database };
            let fork = Fork::from_number(fork).expect("four forks");
            let fork = relation(tablespace, database, number, fork);
            let folder = database_folder(tablespace, database);
            let path = format!("{folder}/{}", relation_file_name(fork, segment));
            prop_assert_eq!(parse(&path), FileName::Relation { fork, segment });
        }
    }
}
