//! The kinds of records, and what proves the redo of each.

use std::collections::HashMap;

use wal_format::{Record, record_kind_name, rmid};

/// What shows that a kind's redo is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its pages equal the images in the record.
    Images,
    /// What it changes equals what the stopped server has: said in words.
    State(&'static str),
    /// It changes nothing that is kept: the reason. Seen, and nothing differs at the end.
    Nothing(&'static str),
    /// It cannot be made: the reason.
    Never(&'static str),
}

/// A kind's place in [`Kinds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

/// Every kind that Postgres 15 has, as `pg_waldump --stats=record` prints them.
#[derive(Debug, Clone)]
pub struct Kinds {
    names: Vec<String>,
    by_info: HashMap<(u8, u8), Kind>,
}

impl Kinds {
    /// All of them, by resource manager.
    pub fn all() -> Kinds {
        let mut kinds = Kinds { names: Vec::new(), by_info: HashMap::new() };
        for rmid in 0..=rmid::BUILTIN_MAX {
            for info in (0..=0xF0).step_by(16) {
                let Some(name) = record_kind_name(rmid, info) else { continue };
                let place = kinds.names.iter().position(|known| *known == name);
                let place = place.unwrap_or_else(|| {
                    kinds.names.push(name);
                    kinds.names.len() - 1
                });
                kinds.by_info.insert((rmid, info), Kind(place as u8));
            }
        }
        kinds
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Their names, each at its kind's place.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The kind's name.
    pub fn name(&self, kind: Kind) -> &str {
        &self.names[usize::from(kind.0)]
    }

    /// The record's kind; none for an extension's.
    pub fn of(&self, record: &Record) -> Option<Kind> {
        self.by_info.get(&(record.rmid, record.kind())).copied()
    }
}

/// What proves the redo of the kind of this name.
pub fn proof(name: &str) -> Proof {
    const COUNTERS: &str = "the counters of pg_control, before each shutdown checkpoint sets them";
    const FILES: &str = "the pages in the server's files";
    const FORKS: &str = "the forks and pages that there are";
    const STANDBY: &str = "for a hot standby's locks and snapshots";
    const DECODING: &str = "for logical decoders, which read the WAL themselves";
    let (manager, kind) = name.split_once('/').unwrap_or((name, ""));
    match (manager, kind) {
        ("XLOG", "FPI" | "FPI_FOR_HINT") => Proof::State(FILES),
        ("XLOG", "CHECKPOINT_SHUTDOWN" | "CHECKPOINT_ONLINE" | "NEXTOID") => Proof::State(COUNTERS),
        ("XLOG", "PARAMETER_CHANGE") => Proof::State("the settings in pg_control"),
        ("XLOG", "FPW_CHANGE") => Proof::State("full_page_writes in the next shutdown checkpoint"),
        ("XLOG", "NOOP") => Proof::Never("Postgres 15 has no code that writes one"),
        ("XLOG", "SWITCH") => Proof::Nothing("the WAL goes on in the next segment"),
        ("XLOG", "BACKUP_END") => {
            Proof::Nothing("tells recovery from a base backup where that ended")
        }
        ("XLOG", "RESTORE_POINT") => Proof::Nothing("a name for a point in the WAL"),
        ("XLOG", "END_OF_RECOVERY") => Proof::Nothing(
            "tells of a change of the timeline id, which the checkpoint after it sets",
        ),
        ("XLOG", "OVERWRITE_CONTRECORD") => Proof::Nothing(
            "stands in place of an unfinished record: the reader checks its position",
        ),
        ("Transaction", "PREPARE" | "COMMIT_PREPARED" | "ABORT_PREPARED") => {
            Proof::State("pg_xact, pg_commit_ts and pg_twophase")
        }
        ("Transaction", "COMMIT" | "ABORT") => {
            Proof::State("pg_xact, pg_commit_ts, the forks that are gone")
        }
        ("Transaction", "ASSIGNMENT") => Proof::Nothing("for a standby's snapshots"),
        ("Transaction", "INVALIDATION") => Proof::Nothing(DECODING),
        ("Storage", _) => Proof::State(FORKS),
        ("CLOG" | "MultiXact" | "CommitTs", "TRUNCATE" | "TRUNCATE_ID") => {
            Proof::State("the SLRU segments that are gone")
        }
        ("CLOG" | "MultiXact" | "CommitTs", _) => Proof::State("the SLRU pages"),
        ("Database", _) => Proof::State("the databases' folders, forks and pages"),
        ("Tablespace", _) => Proof::State("the tablespaces there are"),
        ("RelMap", _) => Proof::State("pg_filenode.map"),
        ("Standby", _) => Proof::Nothing(STANDBY),
        ("Hash", "SPLIT_PAGE") | ("Gin", "SPLIT" | "VACUUM_PAGE") => Proof::State(
            "always images that take the pages' place; the pages in the server's files",
        ),
        ("Heap2", "REWRITE") => {
            Proof::Nothing("mappings for logical slots, which WAL does not keep")
        }
        ("Heap2", "NEW_CID") | ("Heap", "TRUNCATE") => Proof::Nothing(DECODING),
        ("Heap", "HOT_UPDATE+INIT") => Proof::Never(
            "the old tuple is on the same page, so the new one is never its only (heapam.c, log_heap_update)",
        ),
        ("Btree" | "Gist", "REUSE_PAGE" | "PAGE_REUSE") => {
            Proof::Nothing("for a standby's conflicts")
        }
        ("Gist", "ASSIGN_LSN") => {
            Proof::Nothing("uses up an LSN, for an index whose pages are not logged yet")
        }
        ("ReplicationOrigin", _) => Proof::State("pg_logical/replorigin_checkpoint"),
        ("LogicalMessage", _) => Proof::Nothing(DECODING),
        _ => Proof::Images,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_kinds_has_a_bit_for_each() {
        assert_eq!(Kinds::all().count(), 123);
        assert!(Kinds::all().count() <= u128::BITS as usize);
    }
}
