//! The names of records, as `pg_waldump` prints them (rmgrlist.h; rmgrdesc/*.c: `*_identify`).

use crate::{rmgr::INFO_MASK, rmid};

/// `XLOG_HEAP_INIT_PAGE`, `XLOG_BRIN_INIT_PAGE`: the record makes its page anew.
const INIT_PAGE: u8 = 0x80;

/// `Heap/INSERT+INIT`, or `Heap/UNKNOWN (f0)` where Postgres has no name either.
pub(crate) fn name(rmid: u8, info: u8) -> String {
    let info = info & INFO_MASK;
    match (manager(rmid), kind(rmid, info)) {
        (Some(manager), Some(kind)) => format!("{manager}/{kind}"),
        (Some(manager), None) => format!("{manager}/UNKNOWN ({info:x})"),
        (None, _) if rmid >= rmid::CUSTOM_MIN => format!("custom{rmid:03}/UNKNOWN ({info:x})"),
        (None, _) => format!("rmgr{rmid:03}/UNKNOWN ({info:x})"),
    }
}

/// The name of a record's kind, where Postgres 15 has one: `Heap/INSERT+INIT`, as `pg_waldump --stats=record` prints it.
pub fn record_kind_name(rmid: u8, info: u8) -> Option<String> {
    let kind = kind(rmid, info & INFO_MASK)?;
    manager(rmid).map(|manager| format!("{manager}/{kind}"))
}

fn manager(rmid: u8) -> Option<&'static str> {
    const NAMES: [&str; rmid::BUILTIN_MAX as usize + 1] = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];
    NAMES.get(usize::from(rmid)).copied()
}

fn kind(rmid: u8, info: u8) -> Option<&'static str> {
    let names: &[&str] = match rmid {
        rmid::XLOG => &[
            "CHECKPOINT_SHUTDOWN",
            "CHECKPOINT_ONLINE",
            "NOOP",
            "NEXTOID",
            "SWITCH",
            "BACKUP_END",
            "PARAMETER_CHANGE",
            "RESTORE_POINT",
            "FPW_CHANGE",
            "END_OF_RECOVERY",
            "FPI_FOR_HINT",
            "FPI",
            "",
            "OVERWRITE_CONTRECORD",
        ],
        // The highest bit says that xinfo follows.
        rmid::TRANSACTION => return transaction(info & 0x70),
        rmid::STORAGE => &["", "CREATE", "TRUNCATE"],
        rmid::CLOG | rmid::COMMIT_TS => &["ZEROPAGE", "TRUNCATE"],
        rmid::DATABASE => &["CREATE_FILE_COPY", "CREATE_WAL_LOG", "DROP"],
        rmid::TABLESPACE => &["CREATE", "DROP"],
        rmid::MULTIXACT => &["ZERO_OFF_PAGE", "ZERO_MEM_PAGE", "CREATE_ID", "TRUNCATE_ID"],
        rmid::RELMAP => &["UPDATE"],
        rmid::STANDBY => &["LOCK", "RUNNING_XACTS", "INVALIDATIONS"],
        rmid::HEAP2 => return heap2(info),
        rmid::HEAP => return heap(info),
        rmid::BTREE => &[
            "INSERT_LEAF",
            "INSERT_UPPER",
            "INSERT_META",
            "SPLIT_L",
            "SPLIT_R",
            "INSERT_POST",
            "DEDUP",
            "DELETE",
            "UNLINK_PAGE",
            "UNLINK_PAGE_META",
            "NEWROOT",
            "MARK_PAGE_HALFDEAD",
            "VACUUM",
            "REUSE_PAGE",
            "META_CLEANUP",
        ],
        rmid::HASH => &[
            "INIT_META_PAGE",
            "INIT_BITMAP_PAGE",
            "INSERT",
            "ADD_OVFL_PAGE",
            "SPLIT_ALLOCATE_PAGE",
            "SPLIT_PAGE",
            "SPLIT_COMPLETE",
            "MOVE_PAGE_CONTENTS",
            "SQUEEZE_PAGE",
            "DELETE",
            "SPLIT_CLEANUP",
            "UPDATE_META_PAGE",
            "VACUUM_ONE_PAGE",
        ],
        rmid::GIN => &[
            "",
            "CREATE_PTREE",
            "INSERT",
            "SPLIT",
            "VACUUM_PAGE",
            "DELETE_PAGE",
            "UPDATE_META_PAGE",
            "INSERT_LISTPAGE",
            "DELETE_LISTPAGE",
            "VACUUM_DATA_LEAF_PAGE",
        ],
        rmid::GIST => &[
            "PAGE_UPDATE",
            "DELETE",
            "PAGE_REUSE",
            "PAGE_SPLIT",
            "",
            "",
            "PAGE_DELETE",
            "ASSIGN_LSN",
        ],
        rmid::SEQUENCE => &["LOG"],
        rmid::SPGIST => &[
            "",
            "ADD_LEAF",
            "MOVE_LEAFS",
            "ADD_NODE",
            "SPLIT_TUPLE",
            "PICKSPLIT",
            "VACUUM_LEAF",
            "VACUUM_ROOT",
            "VACUUM_REDIRECT",
        ],
        rmid::BRIN => return brin(info),
        rmid::REPLICATION_ORIGIN => &["SET", "DROP"],
        rmid::GENERIC => return Some("Generic"),
        rmid::LOGICAL_MESSAGE => &["MESSAGE"],
        _ => &[],
    };
    numbered(names, info)
}

/// The name at the kind's place; an empty one is a number that Postgres does not use.
fn numbered(names: &[&'static str], info: u8) -> Option<&'static str> {
    names.get(usize::from(info >> 4)).copied().filter(|name| !name.is_empty())
}

fn transaction(info: u8) -> Option<&'static str> {
    const NAMES: [&str; 7] = [
        "COMMIT",
        "PREPARE",
        "ABORT",
        "COMMIT_PREPARED",
        "ABORT_PREPARED",
        "ASSIGNMENT",
        "INVALIDATION",
    ];
    numbered(&NAMES, info)
}

fn heap2(info: u8) -> Option<&'static str> {
    const NAMES: [&str; 8] = [
        "REWRITE",
        "PRUNE",
        "VACUUM",
        "FREEZE_PAGE",
        "VISIBLE",
        "MULTI_INSERT",
        "LOCK_UPDATED",
        "NEW_CID",
    ];
    if info == 0x50 | INIT_PAGE { Some("MULTI_INSERT+INIT") } else { numbered(&NAMES, info) }
}

fn heap(info: u8) -> Option<&'static str> {
    const NAMES: [&str; 8] =
        ["INSERT", "DELETE", "UPDATE", "TRUNCATE", "HOT_UPDATE", "HEAP_CONFIRM", "LOCK", "INPLACE"];
    const INIT: [&str; 5] = ["INSERT+INIT", "", "UPDATE+INIT", "", "HOT_UPDATE+INIT"];
    if info & INIT_PAGE != 0 { numbered(&INIT, info & !INIT_PAGE) } else { numbered(&NAMES, info) }
}

fn brin(info: u8) -> Option<&'static str> {
    const NAMES: [&str; 6] =
        ["CREATE_INDEX", "INSERT", "UPDATE", "SAMEPAGE_UPDATE", "REVMAP_EXTEND", "DESUMMARIZE"];
    const INIT: [&str; 3] = ["", "INSERT+INIT", "UPDATE+INIT"];
    if info & INIT_PAGE != 0 { numbered(&INIT, info & !INIT_PAGE) } else { numbered(&NAMES, info) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn postgres_15_has_123_kinds_of_records() {
        let all = (0..=rmid::BUILTIN_MAX)
            .flat_map(|rmid| (0..16u8).filter_map(move |kind| record_kind_name(rmid, kind << 4)));
        assert_eq!(all.collect::<BTreeSet<_>>().len(), 123);
    }
}
