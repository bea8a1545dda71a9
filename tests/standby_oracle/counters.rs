//! Compares the counters and settings of `pg_control`.

use wal_format::{ControlFile, Lsn};

use crate::report::{Report, Subject};

/// The next transaction's id is served so far ahead at most, less one (docs/formats/keys.md).
pub const XIDS_AHEAD: u64 = 64;

/// Compares them. `truncated` is the oldest transaction, and its database, that the last truncation of `pg_xact` before the LSN names.
pub fn compare(
    lsn: Lsn,
    stock: &ControlFile,
    served: &ControlFile,
    truncated: Option<(u32, u32)>,
    report: &mut Report,
) {
    let of_stock = fields(stock);
    let checkpoint = &served.checkpoint_copy;
    let is_truncated = truncated == Some((checkpoint.oldest_xid, checkpoint.oldest_xid_database));
    let is_ahead = checkpoint
        .next_xid
        .checked_sub(stock.checkpoint_copy.next_xid)
        .is_some_and(|ahead| ahead < XIDS_AHEAD)
        && !served.settings.track_commit_timestamp;
    for ((name, stock), (_, served)) in of_stock.into_iter().zip(fields(served)) {
        if stock == served {
            report.count("identical: field of pg_control");
        } else if name == "nextXid" && is_ahead {
            report.count("nextXid is ahead, by less than it may be");
        } else if ["oldestXid", "oldestXidDB"].contains(&name) && is_truncated {
            // Redo of the truncation tells only the commit log (clog.c, `clog_redo`); the primary itself goes on with this value.
            report.count(
                "oldestXid and its database are known from CLOG/TRUNCATE, before a checkpoint",
            );
        } else {
            let detail = format!("{stock} in stock, {served} served");
            report.differ(lsn, Subject::Counter(name), detail);
        }
    }
}

fn fields(file: &ControlFile) -> [(&'static str, u64); 20] {
    let (checkpoint, settings) = (&file.checkpoint_copy, &file.settings);
    let signed = |value: i32| u64::from(value as u32);
    [
        ("system identifier", file.system_id),
        ("nextXid", checkpoint.next_xid),
        ("nextOid", checkpoint.next_oid.into()),
        ("nextMulti", checkpoint.next_multi.into()),
        ("nextMultiOffset", checkpoint.next_multi_offset.into()),
        ("oldestXid", checkpoint.oldest_xid.into()),
        ("oldestXidDB", checkpoint.oldest_xid_database.into()),
        ("oldestMulti", checkpoint.oldest_multi.into()),
        ("oldestMultiDB", checkpoint.oldest_multi_database.into()),
        ("oldestCommitTsXid", checkpoint.oldest_commit_ts_xid.into()),
        ("newestCommitTsXid", checkpoint.newest_commit_ts_xid.into()),
        ("data_checksum_version", file.data_checksum_version.into()),
        ("wal_level", signed(settings.wal_level)),
        ("wal_log_hints", settings.wal_log_hints.into()),
        ("max_connections", signed(settings.max_connections)),
        ("max_worker_processes", signed(settings.max_worker_processes)),
        ("max_wal_senders", signed(settings.max_wal_senders)),
        ("max_prepared_xacts", signed(settings.max_prepared_transactions)),
        ("max_locks_per_xact", signed(settings.max_locks_per_transaction)),
        ("track_commit_timestamp", settings.track_commit_timestamp.into()),
    ]
}
