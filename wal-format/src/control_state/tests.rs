//! One record at a time: what it does to the counters.

use super::*;
use crate::{BlockRefs, control_file::tests::example};

const END: Lsn = Lsn(0x200_0000);

fn state() -> ControlState {
    let mut state = ControlState::from_control_file(&example());
    state.settings.track_commit_timestamp = false;
    state
}

fn record(rmid: u8, info: u8, xid: u32, main: &[u8]) -> Record<'_> {
    let blocks = BlockRefs::new();
    Record { xid, prev: Lsn(8), info, rmid, origin: None, top_xid: None, blocks, main }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Applies one record to a state; what became of it.
fn after(mut state: ControlState, rmid: u8, info: u8, xid: u32, main: &[u8]) -> ControlState {
    state.apply(&record(rmid, info, xid, main), END).unwrap();
    state
}

/// A commit's data with these subtransactions and, for a prepared one, its id.
fn commit(subtransactions: &[u32], prepared: Option<u32>) -> Vec<u8> {
    let xinfo = HAS_SUBTRANSACTIONS | if prepared.is_some() { HAS_TWO_PHASE } else { 0 };
    let mut main = vec![0; 8];
    main.extend(words(&[xinfo, subtransactions.len() as u32]));
    main.extend(words(subtransactions));
    main.extend(prepared.into_iter().flat_map(u32::to_le_bytes));
    main
}

/// `CLOG_TRUNCATE` and `COMMIT_TS_TRUNCATE`.
const SLRU_TRUNCATE: u8 = 0x10;
const MULTIXACT_CREATE: u8 = 0x20;
const MULTIXACT_TRUNCATE: u8 = 0x30;
const HAS_SUBTRANSACTIONS: u32 = 2;
const HAS_TWO_PHASE: u32 = 16;
const COMMIT_WITH_XINFO: u8 = 0x80;
const COMMIT_PREPARED_WITH_XINFO: u8 = 0xB0;

#[test]
fn a_stored_state_is_read_back() {
    let state = ControlState { newest_commit_ts_xid: 99, ..state() };
    assert_eq!(ControlState::decode(&state.encode()), Some(state));
    assert_eq!(ControlState::decode(&state.encode()[1..]), None);
    let mut other = state.encode();
    other[0] = 2;
    assert_eq!(ControlState::decode(&other), None, "another format");
}

#[test]
fn the_next_transaction_follows_every_id_in_the_wal() {
    let state = state();
    assert_eq!(after(state, rmid::HEAP, 0, 739, &[]), state, "an older id changes nothing");
    assert_eq!(after(state, rmid::HEAP, 0, 740, &[]).next_xid, 741);
    let subs = commit(&[800, 801], None);
    assert_eq!(after(state, rmid::TRANSACTION, COMMIT_WITH_XINFO, 740, &subs).next_xid, 802);
    let prepared = commit(&[], Some(900));
    let next = after(state, rmid::TRANSACTION, COMMIT_PREPARED_WITH_XINFO, 0, &prepared).next_xid;
    assert_eq!(next, 901);
    let member_of = words(&[1, 0, 1, 970, 0]);
    assert_eq!(after(state, rmid::MULTIXACT, MULTIXACT_CREATE, 740, &member_of).next_xid, 971);
}

#[test]
fn a_prepared_transaction_keeps_the_ids_of_its_subtransactions() {
    let mut main = vec![0; PREPARE_TEST_BYTES];
    main[8..12].copy_from_slice(&741_u32.to_le_bytes());
    main[28..32].copy_from_slice(&2_u32.to_le_bytes());
    main[54..56].copy_from_slice(&3_u16.to_le_bytes());
    main.extend_from_slice(b"ab\0\0\0\0\0\0");
    main.extend(words(&[742, 743]));
    assert_eq!(after(state(), rmid::TRANSACTION, 0x10, 741, &main).next_xid, 744);
}

const PREPARE_TEST_BYTES: usize = 72;

#[test]
fn the_epoch_grows_when_transaction_ids_begin_anew() {
    let old = ControlState { next_xid: 5 << 32 | 0xFFFF_FFFF, ..state() };
    assert_eq!(after(old, rmid::HEAP, 0, u32::MAX, &[]).next_xid, 6 << 32 | 3);
    let before = ControlState { next_xid: 5 << 32 | 0xFFFF_FFF0, ..state() };
    assert_eq!(after(before, rmid::HEAP, 0, 4, &[]).next_xid, 6 << 32 | 5);
}

#[test]
fn a_shutdown_checkpoint_is_exact_and_an_online_one_only_advances() {
    let checkpoint = CheckPoint {
        next_xid: 700,
        next_oid: 99,
        next_multi: 7,
        next_multi_offset: 20,
        oldest_xid: 720,
        oldest_xid_database: 4,
        oldest_multi: 3,
        oldest_multi_database: 6,
        ..example().checkpoint_copy
    };
    let exact = after(state(), rmid::XLOG, kind::CHECKPOINT_SHUTDOWN, 0, &checkpoint.encode());
    assert_eq!((exact.next_xid, exact.next_oid), (700, 99));
    assert_eq!((exact.next_multi, exact.next_multi_offset), (7, 20));
    assert_eq!((exact.oldest_xid, exact.oldest_xid_database), (720, 4));
    assert_eq!((exact.oldest_multi, exact.oldest_multi_database), (3, 6));

    let online = after(state(), rmid::XLOG, kind::CHECKPOINT_ONLINE, 0, &checkpoint.encode());
    assert_eq!(online.next_xid, 740, "an online checkpoint does not go back");
    assert_eq!(online.next_oid, 16384, "its OID counter may be behind NEXTOID");
    assert_eq!(online, ControlState { next_xid: 740, next_oid: 16384, ..exact });
}

#[test]
fn the_next_oid_is_what_the_wal_says() {
    assert_eq!(after(state(), rmid::XLOG, kind::NEXT_OID, 0, &words(&[24576])).next_oid, 24576);
}

#[test]
fn multixacts_advance_around_the_circle() {
    let create = |id, moff, n: u32| {
        let mut main = words(&[id, moff, n]);
        main.extend((0..n).flat_map(|_| words(&[700, 1])));
        main
    };
    let made = after(state(), rmid::MULTIXACT, MULTIXACT_CREATE, 0, &create(5, 10, 3));
    assert_eq!((made.next_multi, made.next_multi_offset), (6, 13));
    let again = after(made, rmid::MULTIXACT, MULTIXACT_CREATE, 0, &create(2, 4, 2));
    assert_eq!(again, made, "an older one changes nothing");
    let old = ControlState { next_multi: u32::MAX, next_multi_offset: u32::MAX - 1, ..state() };
    let wrapped = after(old, rmid::MULTIXACT, MULTIXACT_CREATE, 0, &create(u32::MAX, u32::MAX, 2));
    assert_eq!((wrapped.next_multi, wrapped.next_multi_offset), (0, 1));
}

#[test]
fn truncations_advance_what_is_oldest() {
    let clog = after(state(), rmid::CLOG, SLRU_TRUNCATE, 0, &words(&[1, 730, 9]));
    assert_eq!((clog.oldest_xid, clog.oldest_xid_database), (730, 9));
    let multi = words(&[9, 1, 44, 0, 5]);
    let multi = after(state(), rmid::MULTIXACT, MULTIXACT_TRUNCATE, 0, &multi);
    assert_eq!((multi.oldest_multi, multi.oldest_multi_database), (44, 9));
    let on = ControlState { oldest_commit_ts_xid: 100, newest_commit_ts_xid: 700, ..state() };
    let times = after(on, rmid::COMMIT_TS, SLRU_TRUNCATE, 0, &words(&[1, 130]));
    assert_eq!(times.oldest_commit_ts_xid, 130);
    let off = after(state(), rmid::COMMIT_TS, SLRU_TRUNCATE, 0, &words(&[1, 130]));
    assert_eq!(off.oldest_commit_ts_xid, 0, "where there is none, there is no oldest");
}

#[test]
fn commit_timestamps_follow_their_setting() {
    let parameters = |on: u8| {
        let mut main = words(&[200, 9, 11, 4, 65, 2]);
        main.extend_from_slice(&[1, on, 0, 0]);
        main
    };
    let on = after(state(), rmid::XLOG, kind::PARAMETER_CHANGE, 0, &parameters(1));
    assert_eq!((on.oldest_commit_ts_xid, on.newest_commit_ts_xid), (740, 740));
    assert_eq!(on.settings.max_connections, 200);
    assert_eq!(on.settings.wal_level, 2);
    let subs = commit(&[801, 802], None);
    let committed = after(on, rmid::TRANSACTION, COMMIT_WITH_XINFO, 800, &subs);
    assert_eq!(committed.newest_commit_ts_xid, 802);
    let aborted = after(on, rmid::TRANSACTION, COMMIT_WITH_XINFO | 0x20, 800, &subs);
    assert_eq!(aborted.newest_commit_ts_xid, 740);
    let off = after(committed, rmid::XLOG, kind::PARAMETER_CHANGE, 0, &parameters(0));
    assert_eq!((off.oldest_commit_ts_xid, off.newest_commit_ts_xid), (0, 0));
    let unseen = after(off, rmid::TRANSACTION, COMMIT_WITH_XINFO, 900, &commit(&[], None));
    assert_eq!(unseen.newest_commit_ts_xid, 0);
}

#[test]
fn full_page_writes_follow_the_wal() {
    assert!(!after(state(), rmid::XLOG, kind::FULL_PAGE_WRITES_CHANGE, 0, &[0]).full_page_writes);
}

#[test]
fn a_record_that_is_too_short_is_an_error_and_changes_nothing() {
    let before = state();
    for (rmid, info, bytes) in [
        (rmid::XLOG, kind::CHECKPOINT_SHUTDOWN, 87),
        (rmid::XLOG, kind::NEXT_OID, 3),
        (rmid::XLOG, kind::PARAMETER_CHANGE, 20),
        (rmid::XLOG, kind::FULL_PAGE_WRITES_CHANGE, 0),
        (rmid::TRANSACTION, 0x00, 7),
        (rmid::TRANSACTION, 0x10, 60),
        (rmid::CLOG, SLRU_TRUNCATE, 4),
        (rmid::MULTIXACT, MULTIXACT_CREATE, 8),
        (rmid::MULTIXACT, MULTIXACT_TRUNCATE, 8),
        (rmid::COMMIT_TS, SLRU_TRUNCATE, 4),
    ] {
        let mut state = before;
        let error = state.apply(&record(rmid, info, 5000, &vec![0; bytes]), END).unwrap_err();
        assert!(error.to_string().contains(&END.to_string()), "{error}");
        assert_eq!(state, before, "{error}");
    }
}

#[test]
fn the_control_file_says_a_clean_stop_with_this_state() {
    let base = ControlFile { state: ClusterState::Production, time: 5, ..example() };
    let state = ControlState { next_oid: 77, ..state() };
    let file = state.control_file(&base, Lsn(0x300_0028), 1_800_000_000);
    assert_eq!(file.state, ClusterState::Shutdown);
    assert_eq!(file.checkpoint, Lsn(0x300_0028));
    assert_eq!(file.checkpoint_copy, state.checkpoint(Lsn(0x300_0028), 1_800_000_000));
    assert_eq!(file.recovery, RecoveryBounds::default());
    assert_eq!((file.unlogged_lsn, file.time), (Lsn(1000), 1_800_000_000));
    assert_eq!((file.system_id, file.nonce), (base.system_id, base.nonce));
    assert_eq!(ControlState::from_control_file(&file), state);
}
