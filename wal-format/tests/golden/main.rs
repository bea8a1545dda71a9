//! Files that a stock Postgres 15.18 wrote once, kept to see that this crate goes on reading them, and a source of
//! real records to damage.
//!
//! `wal.zst` is the WAL from [`BEGIN`] to [`END`] of a cluster with 1 MiB segments, checksums, `wal_level=logical`,
//! `wal_log_hints=on` and `track_commit_timestamp=on`: full-page images of every compression, a prepared transaction, a
//! multixact, TRUNCATE, DROP, a segment switch, and the shutdown checkpoint. `pg_control` is the same cluster's.

mod hostile;

use std::collections::BTreeMap;

use wal_format::{
    ClusterState, ControlFile, ControlState, Lsn, Outline, RawRecord, Record, Slru, Target,
    Version, WalError, WalReader, kept_record,
};

const BEGIN: Lsn = Lsn(0x88_5F30);
const END: Lsn = Lsn(0x90_3EF8);
/// The start of the record that ends at [`BEGIN`].
const BEFORE: Lsn = Lsn(0x88_5EB8);
const SEGMENT_BYTES: u32 = 1 << 20;
const SYSTEM_ID: u64 = 7_711_282_690_986_010_755;

fn golden_wal() -> Vec<u8> {
    zstd::decode_all(&include_bytes!("postgres-15/wal.zst")[..]).unwrap()
}

fn golden_control() -> &'static [u8] {
    include_bytes!("postgres-15/pg_control")
}

fn reader() -> WalReader {
    WalReader::new(Version::V15, SEGMENT_BYTES, BEGIN, Some(BEFORE)).with_system_id(SYSTEM_ID)
}

/// All records of the WAL, and the error that ends them.
fn read(wal: &[u8]) -> (Vec<RawRecord>, Option<WalError>) {
    let mut reader = reader();
    reader.feed(BEGIN, wal).unwrap();
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error)),
        }
    }
}

#[test]
fn the_golden_wal_has_the_records_that_pg_waldump_counted() {
    let (records, error) = read(&golden_wal());
    assert_eq!(error, None);
    assert_eq!(records.last().unwrap().end, END);
    let (mut counts, mut outlined) = (BTreeMap::new(), 0);
    for raw in &records {
        let record = raw.decode(Version::V15).unwrap();
        *counts.entry(record.name()).or_insert(0) += 1;
        let kept = kept_record(&raw.bytes).concat();
        let of_any = Target::Slru(Slru::Clog, 0);
        let kept = Record::parse_kept(Version::V15, of_any, &kept).unwrap();
        let all_but_prev = Record { prev: Lsn::INVALID, ..record };
        assert_eq!(format!("{kept:?}"), format!("{all_but_prev:?}"));
        let mut outline = Outline::default();
        let is_one = outline.take(Version::V15, &raw.bytes);
        for page in outline.pages.iter().filter(|_| is_one) {
            outlined += 1;
            let kept = outline.kept_for(page, &raw.bytes).concat();
            let kept = Record::parse_kept(Version::V15, Target::Page(page.key), &kept).unwrap();
            assert_eq!(format!("{kept:?}"), format!("{all_but_prev:?}"));
        }
    }
    let expected = [
        ("Btree/INSERT_LEAF", 93),
        ("Heap/DELETE", 88),
        ("Heap/HOT_UPDATE", 1),
        ("Heap/INPLACE", 4),
        ("Heap/INSERT", 10),
        ("Heap/INSERT+INIT", 1),
        ("Heap/LOCK", 2),
        ("Heap/TRUNCATE", 1),
        ("Heap/UPDATE", 9),
        ("Heap2/MULTI_INSERT", 11),
        ("Heap2/NEW_CID", 114),
        ("Heap2/PRUNE", 4),
        ("MultiXact/CREATE_ID", 1),
        ("MultiXact/ZERO_MEM_PAGE", 1),
        ("Sequence/LOG", 1),
        ("Standby/LOCK", 19),
        ("Storage/CREATE", 11),
        ("Transaction/COMMIT", 10),
        ("Transaction/COMMIT_PREPARED", 1),
        ("Transaction/INVALIDATION", 31),
        ("Transaction/PREPARE", 1),
        ("XLOG/CHECKPOINT_SHUTDOWN", 1),
        ("XLOG/FPI", 26),
        ("XLOG/FPI_FOR_HINT", 17),
        ("XLOG/SWITCH", 1),
    ];
    let expected: BTreeMap<String, i32> =
        expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    assert_eq!(counts, expected);
    assert!(outlined > 200, "{outlined} pages of records that only change those that they name");
}

#[test]
fn the_golden_control_file_is_read_and_written_again_to_the_byte() {
    let file = ControlFile::decode(golden_control()).unwrap();
    assert_eq!(file.encode(), golden_control());
    assert_eq!((file.system_id, file.state), (SYSTEM_ID, ClusterState::Shutdown));
    assert_eq!(file.checkpoint, Lsn(0x90_3E80));
    assert_eq!((file.checkpoint_copy.next_xid, file.checkpoint_copy.next_oid), (737, 16406));
    assert_eq!(file.geometry.wal_segment_bytes, SEGMENT_BYTES);
    assert!(file.has_page_checksums());
}

#[test]
fn the_golden_wal_leads_to_the_golden_control_file() {
    let file = ControlFile::decode(golden_control()).unwrap();
    let mut state = ControlState::from_control_file(&file);
    // Not exact are only the counters that Postgres logs ahead of their use.
    state.next_oid = 0;
    state.next_xid = 3;
    state.next_multi = 1;
    state.next_multi_offset = 0;
    for raw in read(&golden_wal()).0 {
        state.apply(&raw.decode(Version::V15).unwrap(), raw.end).unwrap();
    }
    assert_eq!(state, ControlState::from_control_file(&file));
}

#[test]
fn a_stored_control_state_keeps_its_bytes() {
    let file = ControlFile::decode(golden_control()).unwrap();
    let stored: [u32; 20] =
        [1, 1, 737, 0, 16406, 2, 3, 716, 1, 1, 1, 724, 736, 2, 100, 8, 10, 2, 64, 0x0001_0101];
    let stored: Vec<u8> = stored.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(ControlState::from_control_file(&file).encode()[..], stored);
}
