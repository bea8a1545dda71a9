//! The overlay against a model: a file that is simply a vector of bytes.

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;
use wal_format::{Fork, Relation};

use super::*;

const BLOCKS: u32 = 6;
/// The file is the second of its fork.
const FIRST_BLOCK: u32 = 131_072;

fn fork() -> RelationFork {
    Relation { tablespace: 1663, database: 5, number: 16384 }.fork(Fork::Main)
}

/// The byte of the origin at a position of the file: never zero.
fn origin_byte(position: usize) -> u8 {
    (position / 1024 % 251) as u8 + 1
}

#[derive(Clone, Debug)]
enum Step {
    Read {
        offset: u64,
        size: usize,
    },
    Write {
        offset: u64,
        size: usize,
        byte: u8,
    },
    Resize(u64),
    /// The file is removed and made again under its name.
    Recreate,
}

/// A file of the overlay and its model; each step is made to both.
struct Pair {
    file: Arc<OverlayFile>,
    model: Vec<u8>,
    backing: Arc<Backing>,
    next_id: u64,
}

/// Serves the origin's pages. While it is asked for the first time, other steps are made: what was
/// asked for arrives after them.
struct Origins {
    pair: Arc<Mutex<Pair>>,
    during: Mutex<Vec<Step>>,
}

#[async_trait]
impl PageSource for Origins {
    async fn pages(&self, asked: RelationFork, first: u32, count: u32) -> Result<Bytes, ShimError> {
        let during = std::mem::take(&mut *self.during.lock());
        for step in during {
            Box::pin(make(&self.pair, step, Vec::new())).await;
        }
        assert_eq!(asked, fork());
        let block = first.checked_sub(FIRST_BLOCK).expect("the file begins at its first block");
        assert!(block + count <= BLOCKS, "blocks {block}+{count} are not the origin's");
        let from = block as usize * PAGE_BYTES;
        Ok((from..from + count as usize * PAGE_BYTES).map(origin_byte).collect())
    }
}

/// Makes a step to the file and the model; `during` is made while pages are fetched for it.
async fn make(pair: &Arc<Mutex<Pair>>, step: Step, during: Vec<Step>) {
    let source = Origins { pair: pair.clone(), during: Mutex::new(during) };
    let file = pair.lock().file.clone();
    match step {
        Step::Read { offset, size } => {
            let bytes = file.read(&source, offset, size).await.expect("pages are served");
            let pair = pair.lock();
            // A file that was removed meanwhile is still read by those who had it open.
            if Arc::ptr_eq(&file, &pair.file) {
                let end = (offset as usize + size).min(pair.model.len());
                let expected = &pair.model[(offset as usize).min(end)..end];
                assert!(bytes == expected, "reading {offset}+{size} found other bytes");
            }
        }
        Step::Write { offset, size, byte } => {
            file.write(&source, offset, &vec![byte; size]).await.expect("pages are served");
            let mut pair = pair.lock();
            if Arc::ptr_eq(&file, &pair.file) {
                let range = offset as usize..offset as usize + size;
                if pair.model.len() < range.end && size > 0 {
                    pair.model.resize(range.end, 0);
                }
                if size > 0 {
                    pair.model[range].fill(byte);
                }
            }
        }
        Step::Resize(length) => {
            file.resize(&source, length).await.expect("pages are served");
            let mut pair = pair.lock();
            if Arc::ptr_eq(&file, &pair.file) {
                pair.model.resize(length as usize, 0);
            }
        }
        Step::Recreate => {
            let mut pair = pair.lock();
            let id = pair.next_id;
            pair.next_id += 1;
            pair.file = Arc::new(OverlayFile::new(id, None, pair.backing.clone()));
            pair.model.clear();
        }
    }
}

/// Positions near the edges of units and blocks, and any others.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0u64..16).prop_map(|unit| unit * UNIT_BYTES),
        1 => (0u64..8, 0u64..3).prop_map(|(block, byte)| (block * BLOCK_BYTES + byte).max(1) - 1),
        1 => 0u64..70_000,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(4096usize), Just(8192), Just(65536), 0usize..20_000];
    prop_oneof![
        5 => (position(), size.clone()).prop_map(|(offset, size)| Step::Read { offset, size }),
        4 => (position(), size, 1u8..)
            .prop_map(|(offset, size, byte)| Step::Write { offset, size, byte }),
        3 => position().prop_map(Step::Resize),
        1 => Just(Step::Recreate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_file_reads_as_it_was_written_whatever_races_with_a_fetch(
        steps in prop::collection::vec((step(), prop::collection::vec(step(), 0..3)), 1..24),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let backing = Arc::new(Backing::new(folder.path().to_owned()));
        let origin = Origin { fork: fork(), first_block: FIRST_BLOCK, blocks: BLOCKS };
        let pair = Arc::new(Mutex::new(Pair {
            file: Arc::new(OverlayFile::new(1, Some(origin), backing.clone())),
            model: (0..BLOCKS as usize * PAGE_BYTES).map(origin_byte).collect(),
            backing,
            next_id: 2,
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for (step, during) in steps {
                make(&pair, step, during).await;
                let length = pair.lock().model.len();
                assert_eq!(pair.lock().file.length(), length as u64);
                make(&pair, Step::Read { offset: 0, size: length + 1 }, Vec::new()).await;
            }
        });
    }
}

fn file(folder: &TempDir, blocks: u32) -> OverlayFile {
    let origin = Origin { fork: fork(), first_block: FIRST_BLOCK, blocks };
    OverlayFile::new(1, Some(origin), Arc::new(Backing::new(folder.path().to_owned())))
}

#[test]
fn one_request_fetches_all_that_a_read_misses() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, 100);
    let page = [7; PAGE_BYTES];
    for block in [0, 5, 99] {
        let done = file.try_write(block * BLOCK_BYTES, &page).expect("the disk has room");
        assert_eq!(done, Changing::Done);
    }
    let Ok(Reading::Needs(fetch)) = file.try_read(0, 100 * PAGE_BYTES) else {
        panic!("pages are missing");
    };
    assert_eq!((fetch.first, fetch.count), (FIRST_BLOCK + 1, 98));
    assert!(matches!(file.try_read(5 * BLOCK_BYTES, PAGE_BYTES), Ok(Reading::Ready(_))));
}

#[test]
fn whole_pages_are_written_and_cut_without_the_pageserver() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(&folder, 8);
    let unit = [9; UNIT_BYTES as usize];
    assert_eq!(file.try_write(UNIT_BYTES, &unit).expect("the disk has room"), Changing::Done);
    assert_eq!(file.try_resize(2 * BLOCK_BYTES).expect("the disk has room"), Changing::Done);
    assert_eq!(file.try_resize(8 * BLOCK_BYTES).expect("the disk has room"), Changing::Done);
    let Ok(Reading::Ready(bytes)) = file.try_read(2 * BLOCK_BYTES, 6 * PAGE_BYTES) else {
        panic!("what was cut off is not the pageserver's any more");
    };
    assert!(bytes.iter().all(|byte| *byte == 0), "cut-off bytes came back");
    let half = file.try_write(1, &[1]).expect("the disk has room");
    assert!(matches!(half, Changing::Needs(_)), "half a unit needs the other half");
}

#[test]
fn local_files_beyond_the_open_ones_are_read_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let backing = Arc::new(Backing::new(folder.path().to_owned()));
    let files: Vec<_> = (0..1200).map(|id| OverlayFile::new(id, None, backing.clone())).collect();
    for (id, file) in files.iter().enumerate() {
        let done = file.try_write(0, &id.to_le_bytes()).expect("the disk has room");
        assert_eq!(done, Changing::Done);
    }
    for (id, file) in files.iter().enumerate() {
        let read = file.try_read(0, 100).expect("the file is there");
        assert_eq!(read, Reading::Ready(Bytes::copy_from_slice(&id.to_le_bytes())));
    }
    drop(files);
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder is there").count(), 0);
}
