//! The counters and settings of `pg_control`: a shutdown checkpoint says what they are, before it sets them.

use wal_format::{
    CheckPoint, ControlFile, ControlState, Lsn, Record,
    rmgr::xlog::kind::{
        CHECKPOINT_ONLINE, CHECKPOINT_SHUTDOWN, FULL_PAGE_WRITES_CHANGE, NEXT_OID, PARAMETER_CHANGE,
    },
    rmid,
};

use crate::replay::{Item, Replay};

/// OIDs that Postgres logs ahead of their use (transam.h: `VAR_OID_PREFETCH`).
const OIDS_AHEAD_MAX: u32 = 8192;

/// What the record changes of them.
pub fn item(record: &Record) -> Option<Item> {
    match (record.rmid, record.kind()) {
        (rmid::XLOG, CHECKPOINT_ONLINE | CHECKPOINT_SHUTDOWN | NEXT_OID) => Some(Item::Counters),
        (rmid::XLOG, PARAMETER_CHANGE) => Some(Item::Settings),
        (rmid::XLOG, FULL_PAGE_WRITES_CHANGE) => Some(Item::FullPageWrites),
        _ => None,
    }
}

/// Where the record is a shutdown checkpoint: compares its counters with ours, which no checkpoint has told us.
pub fn compare(replay: &mut Replay, record: &Record, end: Lsn) {
    if (record.rmid, record.kind()) != (rmid::XLOG, CHECKPOINT_SHUTDOWN) {
        return;
    }
    let Some(theirs) = CheckPoint::decode(record.main) else { return };
    let wrong = differences(&replay.control, &theirs);
    if wrong.is_empty() {
        replay.credit(Item::Counters);
    }
    for words in wrong {
        replay.coverage.differs(|| format!("the checkpoint before {end}: {words}"));
    }
    if replay.control.full_page_writes == theirs.full_page_writes {
        replay.credit(Item::FullPageWrites);
    } else {
        replay
            .coverage
            .differs(|| format!("the checkpoint before {end}: full_page_writes differs"));
    }
}

/// At the end: the settings, and what the last checkpoint set.
pub fn compare_file(replay: &mut Replay, file: &ControlFile) {
    let ours = replay.control;
    if ours.settings == file.settings {
        replay.credit(Item::Settings);
    } else {
        let words = format!("pg_control: settings {:?} are not {:?}", ours.settings, file.settings);
        replay.coverage.differs(|| words);
    }
    let wrong = differences(&ours, &file.checkpoint_copy);
    if wrong.is_empty() {
        replay.credit(Item::Counters);
    }
    for words in wrong {
        replay.coverage.differs(|| format!("pg_control: {words}"));
    }
}

/// What of our counters a clean stop contradicts. OIDs are logged ahead of their use; the oldest ids move on without WAL
/// where nothing can be truncated.
fn differences(ours: &ControlState, theirs: &CheckPoint) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |name: &str, right: bool, ours: u64, theirs: u64| {
        if !right {
            wrong.push(format!("{name} is {theirs}, ours {ours}"));
        }
    };
    let not_ahead = |ours: u32, theirs: u32| theirs.wrapping_sub(ours) as i32 >= 0;
    let mut exact = |name, ours, theirs| check(name, ours == theirs, ours, theirs);
    exact("next_xid", ours.next_xid, theirs.next_xid);
    exact("next_multi", ours.next_multi.into(), theirs.next_multi.into());
    exact("next_multi_offset", ours.next_multi_offset.into(), theirs.next_multi_offset.into());
    // Where nothing is tracked they mean nothing: the checkpoint at the end of crash recovery may still have old ones.
    if ours.settings.track_commit_timestamp {
        let (oldest, newest) = (ours.oldest_commit_ts_xid, ours.newest_commit_ts_xid);
        exact("oldest_commit_ts_xid", oldest.into(), theirs.oldest_commit_ts_xid.into());
        exact("newest_commit_ts_xid", newest.into(), theirs.newest_commit_ts_xid.into());
    }
    let ahead = ours.next_oid.wrapping_sub(theirs.next_oid);
    check("next_oid", ahead <= OIDS_AHEAD_MAX, ours.next_oid.into(), theirs.next_oid.into());
    let oldest = [
        ("oldest_xid", ours.oldest_xid, theirs.oldest_xid),
        ("oldest_multi", ours.oldest_multi, theirs.oldest_multi),
    ];
    for (name, ours, theirs) in oldest {
        check(name, not_ahead(ours, theirs), ours.into(), theirs.into());
    }
    wrong
}
