use super::*;

const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

fn record<'a>(rmid: u8, info: u8, main: &'a [u8], blocks: Vec<BlockRef<'a>>) -> Record<'a> {
    let blocks = blocks.into();
    Record { xid: 700, prev: Lsn(40), info, rmid, origin: None, top_xid: None, blocks, main }
}

fn block(id: u8, number: u32) -> BlockRef<'static> {
    let key = RELATION.fork(Fork::Main).block(number);
    BlockRef { id, key, will_init: false, image: None, data: &[] }
}

fn list(record: &Record) -> Vec<Effect> {
    effects(Version::V15, record).expect("a kind with redo")
}

fn page(fork: Fork, block: u32) -> Target {
    Target::Page(RELATION.fork(fork).block(block))
}

fn touch_of(target: Target) -> Effect {
    Effect::Touch { target, will_init: false }
}

/// Little-endian numbers, one after the other.
fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

#[test]
fn an_update_of_two_all_visible_pages_touches_their_map_page_once() {
    // old_xmax, old_offnum, infobits, flags (both cleared), new_xmax, new_offnum
    let main = [&[0; 4][..], &[1, 0, 0, 3], &[0; 4], &[2, 0]].concat();
    let update = record(rmid::HEAP, 0x20, &main, vec![block(0, 9), block(1, 4)]);
    let touched = [page(Fork::Main, 9), page(Fork::Main, 4), page(Fork::VisibilityMap, 0)];
    assert_eq!(list(&update), touched.map(touch_of));
}

#[test]
fn a_truncation_clears_the_last_map_page_that_stays_and_leaves_no_free_space_map() {
    let truncated = |blocks: u32| {
        let main = words(&[blocks, 1663, 5, 16384, 7]);
        list(&record(rmid::STORAGE, 0x20, &main, vec![]))
    };
    let cut = |fork, blocks| Effect::TruncateFork { fork: RELATION.fork(fork), blocks };
    let main = RELATION.fork(Fork::Main);
    assert_eq!(
        truncated(100),
        [
            Effect::CreateFork(main),
            cut(Fork::Main, 100),
            cut(Fork::FreeSpaceMap, 0),
            Effect::TouchExisting { target: page(Fork::VisibilityMap, 0) },
            cut(Fork::VisibilityMap, 1),
        ]
    );
    assert_eq!(truncated(0).last(), Some(&cut(Fork::VisibilityMap, 0)));
}

#[test]
fn a_commit_touches_the_pages_of_its_subtransactions_and_drops_relations() {
    let time = 5i64.to_le_bytes();
    // xinfo: subtransactions, relations
    let rest = words(&[2 | 4, 2, 701, 40_000, 1, 1663, 5, 16384]);
    let main = [&time[..], &rest].concat();
    let commit = record(rmid::TRANSACTION, 0x80, &main, vec![]);
    let clog = |page| touch_of(Target::Slru(Slru::Clog, page));
    let stamped = |page| Effect::TouchCommitTimestamps { page };
    assert_eq!(
        list(&commit),
        [
            clog(0),
            clog(1),
            stamped(0),
            stamped(48),
            Effect::DropRelation(RELATION),
            Effect::Finished { time: 5, xid: 700, commit: true },
        ]
    );
}

#[test]
fn the_last_multixact_of_a_page_touches_the_next_page_too() {
    // The multixact, its first member, two members.
    let create = words(&[2047, 1635, 2, 800, 0, 801, 1]);
    let touched = [
        (Slru::MultiXactOffsets, 0),
        (Slru::MultiXactOffsets, 1),
        (Slru::MultiXactMembers, 0),
        (Slru::MultiXactMembers, 1),
    ];
    let touched = touched.map(|(slru, page)| touch_of(Target::Slru(slru, page)));
    assert_eq!(list(&record(rmid::MULTIXACT, 0x20, &create, vec![])), touched);
}

#[test]
fn an_extensions_record_is_refused_by_name() {
    let of_extension = record(200, 0x10, &[], vec![block(0, 1)]);
    let refused = effects(Version::V15, &of_extension);
    assert!(matches!(refused, Err(RedoError::Unsupported { rmid: 200, info: 0x10, .. })));
}

#[test]
fn a_prepared_transaction_is_its_record_and_a_checksum() {
    let mut main = vec![0; 72];
    main[8..12].copy_from_slice(&900u32.to_le_bytes());
    let prepare = record(rmid::TRANSACTION, 0x10, &main, vec![]);
    let checksum = crc32c::crc32c(&main).to_le_bytes();
    let state = Some(Bytes::from([&main[..], &checksum].concat()));
    assert_eq!(list(&prepare), [Effect::TwoPhase { xid: 900, state }]);
}

#[test]
fn commit_timestamps_go_when_they_are_no_longer_tracked() {
    let settings = |tracked: u8| [&words(&[100, 8, 10, 0, 64, 1])[..], &[0, tracked]].concat();
    let change = |tracked| list(&record(rmid::XLOG, 0x60, &settings(tracked), vec![]));
    // 819 transactions a page.
    let gone = Effect::TruncateSlru { slru: Slru::CommitTs, from: 0, to: u32::MAX / 819 + 1 };
    assert_eq!(change(0), [gone]);
    assert_eq!(change(1), []);
}
