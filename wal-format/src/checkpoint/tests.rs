//! The synthesised checkpoint at every place of a page and a segment, read back.

use super::*;
use crate::{
    ClusterState, ControlFile, DEFAULT_SEGMENT_BYTES, LONG_HEADER_BYTES, SHORT_HEADER_BYTES,
    WAL_PAGE_BYTES, WalPageHeader, WalReader, control_file::tests::example,
};

const SYSTEM_ID: u64 = 0x6789_ABCD_EF01_2345;
const SEGMENT: u64 = DEFAULT_SEGMENT_BYTES as u64;
const TIME: i64 = 1_750_000_000;
/// The record's own bytes, without alignment.
const RECORD_BYTES: u64 = 114;
const PREVIOUS: u64 = 96;

fn state() -> ControlState {
    ControlState::from_control_file(&example())
}

fn synthesise(x: Lsn) -> ShutdownCheckpoint {
    let prev = Lsn(x.0 - PREVIOUS);
    synthesise_shutdown_checkpoint(
        Version::V15,
        x,
        prev,
        &state(),
        SYSTEM_ID,
        DEFAULT_SEGMENT_BYTES,
        TIME,
    )
}

/// Synthesises at `x` and reads it back; the checkpoint's redo is expected `header_bytes` after `x`, and the stream
/// to have `page_headers` bytes of headers in all.
fn check(x: Lsn, first_header: usize, page_headers: usize) -> ShutdownCheckpoint {
    let made = synthesise(x);
    assert_eq!(made.begin, x);
    assert_eq!(made.redo, x + first_header as u64, "redo at {x}");
    let end = Lsn(x.0 + page_headers as u64 + RECORD_BYTES).max_align();
    assert_eq!(made.end, end, "end at {x}");
    assert_eq!(made.bytes.len() as u64, made.end.since(x));

    let mut reader =
        WalReader::new(Version::V15, DEFAULT_SEGMENT_BYTES, x, Some(Lsn(x.0 - PREVIOUS)))
            .with_system_id(SYSTEM_ID);
    reader.feed(x, &made.bytes).unwrap();
    let raw = reader.next_record().unwrap().unwrap();
    assert_eq!((raw.start, raw.end), (made.redo, made.end));
    let record = raw.decode(Version::V15).unwrap();
    assert_eq!(record.name(), "XLOG/CHECKPOINT_SHUTDOWN");
    assert_eq!(CheckPoint::decode(record.main), Some(state().checkpoint(made.redo, TIME)));
    assert_eq!(reader.next_record(), Ok(None));

    let mut follower = ControlState { next_oid: 1, next_xid: 3, ..state() };
    follower.apply(&record, raw.end).unwrap();
    assert_eq!(follower, state(), "the record restores the state that it was made from");
    made
}

#[test]
fn a_checkpoint_fits_anywhere_in_a_page() {
    check(Lsn(0x600_2000 + 40), 0, 0);
    check(Lsn(0x600_4000 - 120), 0, 0);
}

#[test]
fn a_checkpoint_crosses_a_page_wherever_it_must() {
    for left in [8, 16, 24, 32, 112] {
        let x = Lsn(0x600_4000 - left);
        let made = check(x, 0, SHORT_HEADER_BYTES);
        let header = WalPageHeader::decode(
            Version::V15,
            Lsn(0x600_4000),
            DEFAULT_SEGMENT_BYTES,
            &made.bytes[left as usize..],
        );
        let expected = FirstRecord::Continues((RECORD_BYTES - left) as u32);
        assert_eq!(header.unwrap().first, expected, "{left} bytes left");
    }
}

#[test]
fn a_checkpoint_at_a_page_start_stands_after_its_header() {
    check(Lsn(0x600_4000), SHORT_HEADER_BYTES, SHORT_HEADER_BYTES);
}

#[test]
fn a_checkpoint_at_a_segment_start_stands_after_the_long_header() {
    let made = check(Lsn(6 * SEGMENT), LONG_HEADER_BYTES, LONG_HEADER_BYTES);
    assert_eq!(made.redo, Lsn(6 * SEGMENT + 40));
}

#[test]
fn a_checkpoint_follows_a_switch_whose_record_is_far_before_it() {
    let x = Lsn(6 * SEGMENT);
    let switch = Lsn(5 * SEGMENT + 0x12_3450);
    let made = synthesise_shutdown_checkpoint(
        Version::V15,
        x,
        switch,
        &state(),
        SYSTEM_ID,
        DEFAULT_SEGMENT_BYTES,
        TIME,
    );
    let mut reader = WalReader::new(Version::V15, DEFAULT_SEGMENT_BYTES, x, Some(switch));
    reader.feed(x, &made.bytes).unwrap();
    let record = reader.next_record().unwrap().unwrap();
    assert_eq!(record.decode(Version::V15).unwrap().prev, switch);
}

#[test]
fn a_checkpoint_crosses_a_segment_wherever_it_must() {
    for left in [8, 16, 112] {
        check(Lsn(7 * SEGMENT - left), 0, LONG_HEADER_BYTES);
    }
    let made = check(Lsn(7 * SEGMENT - 120), 0, 0);
    assert_eq!(made.end, Lsn(7 * SEGMENT), "120 bytes are just enough");
}

#[test]
fn every_place_in_a_page_gives_a_readable_checkpoint() {
    for at in (LONG_HEADER_BYTES as u64..WAL_PAGE_BYTES).step_by(8) {
        let crosses = at + RECORD_BYTES > WAL_PAGE_BYTES;
        check(Lsn(6 * SEGMENT + at), 0, if crosses { SHORT_HEADER_BYTES } else { 0 });
    }
}

#[test]
fn a_sparse_segment_has_the_headers_before_the_record_and_no_others() {
    let prefix = |lsn| {
        segment_prefix(Version::V15, SYSTEM_ID, 1, DEFAULT_SEGMENT_BYTES, Lsn(lsn))
            .into_iter()
            .map(|piece| {
                WalPageHeader::decode(
                    Version::V15,
                    piece.begin,
                    DEFAULT_SEGMENT_BYTES,
                    &piece.bytes,
                )
                .unwrap();
                (piece.begin.0, piece.bytes.len())
            })
            .collect::<Vec<_>>()
    };
    let start = 6 * SEGMENT;
    assert_eq!(prefix(start), []);
    assert_eq!(prefix(start + 40), [(start, 40)]);
    assert_eq!(prefix(start + 8192), [(start, 40)]);
    assert_eq!(prefix(start + 8192 + 24), [(start, 40), (start + 8192, 24)]);
}

#[test]
fn pg_control_points_at_the_record_and_copies_it() {
    let made = synthesise(Lsn(0x600_4000));
    let file = state().control_file(&example(), made.redo, TIME);
    let file = ControlFile::decode(&file.encode()).unwrap();
    assert_eq!((file.state, file.checkpoint), (ClusterState::Shutdown, made.redo));
    assert_eq!(file.checkpoint_copy.encode(), made.bytes[24 + 26..24 + 26 + CHECK_POINT_BYTES]);
}
