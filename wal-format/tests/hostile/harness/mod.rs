//! Hostile WAL, and what must not come of it: the functions that the fuzz targets run and that the ordinary tests run again over the
//! inputs that were kept. An input is any bytes at all.
//!
//! A panic is a finding, and so is arithmetic that overflows (both run with checks). That time and memory stay bounded is the fuzzer's
//! to watch, but for what is asserted here: a record has no more effects than its bytes pay for.

mod case;
mod cursor;
mod page_shape;
mod stream;

pub use case::{Block, Case, Image};
pub use page_shape::{Base, PageShape};
use wal_format::{
    ControlFile, ControlState, Effect, Lsn, Outline, Page, Record, Slru, Target, Version, effects,
    kept_record, named_pages, redo, rmid,
};

/// What is fuzzed, by the name of its target: the reader, and each resource manager by its number.
pub const TARGETS: [(&str, Option<u8>); 23] = [
    ("reader", None),
    ("xlog", Some(rmid::XLOG)),
    ("transaction", Some(rmid::TRANSACTION)),
    ("storage", Some(rmid::STORAGE)),
    ("clog", Some(rmid::CLOG)),
    ("database", Some(rmid::DATABASE)),
    ("tablespace", Some(rmid::TABLESPACE)),
    ("multixact", Some(rmid::MULTIXACT)),
    ("relmap", Some(rmid::RELMAP)),
    ("standby", Some(rmid::STANDBY)),
    ("heap2", Some(rmid::HEAP2)),
    ("heap", Some(rmid::HEAP)),
    ("btree", Some(rmid::BTREE)),
    ("hash", Some(rmid::HASH)),
    ("gin", Some(rmid::GIN)),
    ("gist", Some(rmid::GIST)),
    ("sequence", Some(rmid::SEQUENCE)),
    ("spgist", Some(rmid::SPGIST)),
    ("brin", Some(rmid::BRIN)),
    ("commit_ts", Some(rmid::COMMIT_TS)),
    ("replication_origin", Some(rmid::REPLICATION_ORIGIN)),
    ("generic", Some(rmid::GENERIC)),
    ("logical_message", Some(rmid::LOGICAL_MESSAGE)),
];

/// The LSN of the one record of a case.
const END: Lsn = Lsn(0x1_0000_2000);
/// Effects that a record may have beyond one for each of its bytes.
const EFFECTS_BESIDE_BYTES: usize = 8;

/// Runs one target over one input.
pub fn run(target: Option<u8>, input: &[u8]) {
    match target {
        Some(rmid) => record(rmid, &Case::decode(input)),
        None => stream::run(input),
    }
}

/// Decodes the case's record, follows it in the control state, lists its effects and redoes it on every page that it may touch.
fn record(rmid: u8, case: &Case) {
    let bytes = case.record(rmid);
    let kept = kept_record(&bytes).concat();
    let kept = Record::parse_kept(Version::V15, Target::Slru(Slru::Clog, 0), &kept);
    let record = match Record::parse(Version::V15, &bytes) {
        Ok(record) => record,
        // Only an image's header can be wrong: all lengths add up.
        Err(error) => {
            assert!(case.blocks.iter().any(|block| block.image.is_some()), "{error}");
            assert_eq!(kept.err(), Some(error));
            return;
        }
    };
    let all_but_prev = Record { prev: Lsn::INVALID, ..record.clone() };
    assert_eq!(format!("{:?}", kept.unwrap()), format!("{all_but_prev:?}"));
    let mut outline = Outline::default();
    let is_one = outline.take(Version::V15, &bytes);
    if let Some(time) = outline.committed.filter(|_| is_one) {
        let list = effects(Version::V15, &record).expect("it is a commit");
        let (target, xid) = (outline.status_page(), record.xid);
        assert!(matches!(target, Target::Slru(Slru::Clog, _)) && outline.pages.is_empty());
        assert_eq!(list[0], Effect::Touch { target, will_init: false });
        assert!(matches!(list[1], Effect::TouchCommitTimestamps { .. }));
        assert_eq!(list[2..], [Effect::Finished { time, xid, commit: true }]);
    } else if is_one {
        let named =
            named_pages(Version::V15, &record).expect("it only changes pages that it names");
        assert_eq!(outline.pages.len(), named.len());
        for (page, block) in outline.pages.iter().zip(named) {
            assert_eq!((page.key, page.will_init), (block.key, block.is_made_anew()));
            let kept = outline.kept_for(page, &bytes).concat();
            let kept = Record::parse_kept(Version::V15, Target::Page(page.key), &kept);
            assert_eq!(format!("{:?}", kept.unwrap()), format!("{all_but_prev:?}"));
        }
    }
    assert!(!record.name().is_empty());
    follow(&record);
    for image in record.blocks.iter().filter_map(|block| block.image.as_ref()) {
        told(image.restore(&mut Page::zeroed()));
    }

    let list = effects(Version::V15, &record);
    let mut targets: Vec<Target> =
        record.blocks.iter().map(|block| Target::Page(block.key)).collect();
    for effect in list.iter().flatten() {
        targets.extend(match effect {
            Effect::Touch { target, .. } | Effect::TouchExisting { target } => Some(*target),
            Effect::TouchCommitTimestamps { page } => Some(Target::Slru(Slru::CommitTs, *page)),
            _ => None,
        });
    }
    // And pages that the record may have nothing to do with.
    targets.extend(Slru::ALL.map(|area| Target::Slru(area, case.xid / 819)));
    targets.push(Target::Page(case.elsewhere_key()));
    if let Ok(list) = &list {
        assert!(list.len() <= bytes.len() + EFFECTS_BESIDE_BYTES, "{} effects", list.len());
    }
    told(list);
    for target in targets {
        told(redo(Version::V15, &record, END, target, &mut case.page(target)));
    }
}

/// An error can be told in words, as it will be in a log.
fn told<T>(result: Result<T, impl std::error::Error>) {
    if let Err(error) = result {
        assert!(!error.to_string().is_empty());
    }
}

/// The control state takes the record over, or stays as it was.
fn follow(record: &Record) {
    let file = include_bytes!("../../golden/postgres-15/pg_control");
    let Ok(file) = ControlFile::decode(file) else { panic!("the golden pg_control is sound") };
    let mut state = ControlState::from_control_file(&file);
    let before = state;
    match state.apply(record, END) {
        Ok(others) => {
            assert_eq!(others, ControlState { next_xid: before.next_xid, ..state } != before);
        }
        Err(error) => {
            assert_eq!(state, before);
            told(Err::<(), _>(error));
        }
    }
}
