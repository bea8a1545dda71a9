//! Our side: the same WAL, read, decoded and applied in order to pages in memory, by one thread.
//!
//! A page that is touched for the first time is read from its file, as Postgres does.

use std::{
    collections::hash_map::Entry,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use rustc_hash::FxHashMap;
use wal_format::{
    ControlFile, ControlState, DEFAULT_TABLESPACE, Effect, Fork, GLOBAL_TABLESPACE, Lsn,
    PAGE_BYTES, Page, RELATION_SEGMENT_BLOCKS, RawRecord, Record, RelationFork, SLRU_SEGMENT_PAGES,
    Target, Version, WalReader, list_effects, redo,
};

use crate::{
    Took,
    by_page::ByPage,
    wal::{Recorded, SEGMENT_BYTES},
};

/// How much of a segment is read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Replays the whole WAL once, and sees to it that the pages are those of the server.
pub fn run(recorded: &Recorded, order: Order) -> Result<Took> {
    let control = std::fs::read(recorded.before().join("global/pg_control"))?;
    let mut control = ControlState::from_control_file(&ControlFile::decode(&control)?);
    let mut pages = Pages::new(&recorded.before());
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    match order {
        Order::Wal => read(recorded, recorded.first(), |raw| {
            let record = raw.decode(Version::V15)?;
            control.apply(&record, raw.end)?;
            pages.apply(&record, raw.end)
        })?,
        Order::Page => {
            let mut by_page = ByPage::new(control, pages);
            read(recorded, recorded.first(), |raw| by_page.ingest(&raw.bytes, raw.end))?;
            by_page.make_pages()?;
            pages = by_page.into_pages();
        }
    }
    let took = Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds()? - cpu };
    pages.compare_with(&recorded.after())?;
    Ok(took)
}

/// In which order records are applied. Those of one page are in the order of the WAL either way.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// One record after the other, to all its pages.
    Wal,
    /// One page after the other, all its records: [`ByPage`].
    Page,
}

/// Reads the records from `start` to the last one.
pub fn read(
    recorded: &Recorded,
    start: Lsn,
    mut each: impl FnMut(RawRecord) -> Result<()>,
) -> Result<()> {
    let mut reader = WalReader::new(Version::V15, SEGMENT_BYTES, start, None);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let at = reader.fed_to();
        let path = recorded.segment(at);
        let mut segment = File::open(&path).with_context(|| path.display().to_string())?;
        std::io::Seek::seek(
            &mut segment,
            std::io::SeekFrom::Start(at.0 % u64::from(SEGMENT_BYTES)),
        )?;
        loop {
            let count = segment.read(&mut piece)?;
            if count == 0 {
                break;
            }
            reader.feed(reader.fed_to(), &piece[..count])?;
            while let Some(raw) = reader.next_record()? {
                let is_last = raw.start == recorded.last();
                each(raw)?;
                if is_last {
                    return Ok(());
                }
            }
        }
    }
}

/// All pages that were touched.
pub struct Pages {
    pages: FxHashMap<Target, Page>,
    files: Files,
    /// Of one record: their room serves the next.
    effects: Vec<Effect>,
}

/// A data directory's files.
struct Files {
    folder: PathBuf,
    /// By their fork or SLRU and their number; `None` where there is none.
    open: FxHashMap<(Target, u32), Option<File>>,
    /// Where forks were cut: what their files have from there on is gone.
    cut: FxHashMap<RelationFork, u32>,
}

impl Pages {
    pub fn new(folder: &Path) -> Pages {
        Pages { pages: FxHashMap::default(), files: Files::new(folder), effects: Vec::new() }
    }

    /// Applies a record to the pages that it touches.
    pub fn apply(&mut self, record: &Record, end: Lsn) -> Result<()> {
        let mut list = std::mem::take(&mut self.effects);
        list_effects(Version::V15, record, &mut list)?;
        for effect in &list {
            match *effect {
                Effect::Touch { target, will_init } => {
                    let page = self.page(target, will_init)?;
                    redo(Version::V15, record, end, target, page)?;
                }
                Effect::TouchExisting { target } => {
                    let page = self.page(target, false)?;
                    if !page.is_new() {
                        redo(Version::V15, record, end, target, page)?;
                    }
                }
                Effect::TruncateFork { fork, blocks } => self.cut(fork, blocks),
                Effect::DropRelation(relation) => {
                    Fork::ALL.into_iter().for_each(|fork| self.cut(relation.fork(fork), 0));
                }
                _ => {}
            }
        }
        list.clear();
        self.effects = list;
        Ok(())
    }

    /// The page as it is now.
    pub fn page(&mut self, target: Target, will_init: bool) -> Result<&mut Page> {
        Ok(match self.pages.entry(target) {
            Entry::Occupied(page) => page.into_mut(),
            Entry::Vacant(place) if will_init => place.insert(Page::zeroed()),
            Entry::Vacant(place) => place.insert(self.files.load(target)?),
        })
    }

    fn cut(&mut self, fork: RelationFork, blocks: u32) {
        let of = |target: &Target| matches!(target, Target::Page(key) if key.fork == fork && key.block >= blocks);
        self.pages.retain(|target, _| !of(target));
        let cut = self.files.cut.entry(fork).or_insert(blocks);
        *cut = blocks.min(*cut);
    }

    /// Every page is filled as the server left it. An LSN may be later: Heap2/VISIBLE moves it here and there only with checksums.
    /// Of other forks than the main one Postgres' own recovery makes something else, too.
    fn compare_with(&self, after: &Path) -> Result<()> {
        let mut files = Files::new(after);
        let mut compared = 0;
        for (target, page) in &self.pages {
            let Target::Page(key) = target else { continue };
            if key.fork.fork != Fork::Main {
                continue;
            }
            let theirs = files.load(*target)?;
            ensure!(
                page.lsn() >= theirs.lsn() && page.bounds() == theirs.bounds(),
                "{target} is {page:?} and on the server {theirs:?}"
            );
            compared += 1;
        }
        ensure!(compared > 0, "the WAL changed no page");
        Ok(())
    }
}

impl Files {
    fn new(folder: &Path) -> Files {
        Files { folder: folder.to_owned(), open: FxHashMap::default(), cut: FxHashMap::default() }
    }

    /// Reads the page from its file.
    fn load(&mut self, target: Target) -> Result<Page> {
        let mut page = Page::zeroed();
        if let Target::Page(key) = target
            && self.cut.get(&key.fork).is_some_and(|cut| *cut <= key.block)
        {
            return Ok(page);
        }
        let (file, number, at) = match target {
            Target::Page(key) => {
                let number = key.block / RELATION_SEGMENT_BLOCKS;
                (Target::Page(key.fork.block(0)), number, key.block % RELATION_SEGMENT_BLOCKS)
            }
            Target::Slru(slru, page) => {
                let number = page / SLRU_SEGMENT_PAGES;
                (Target::Slru(slru, 0), number, page % SLRU_SEGMENT_PAGES)
            }
        };
        let path = || file_path(&self.folder, file, number);
        let file = self.open.entry((file, number)).or_insert_with(|| File::open(path()).ok());
        if let Some(file) = file {
            // Beyond the file's end there are zeros.
            let count = file.read_at(page.bytes_mut(), u64::from(at) * PAGE_BYTES as u64)?;
            ensure!(count == 0 || count == PAGE_BYTES, "{target}: a page of {count} bytes");
        }
        Ok(page)
    }
}

fn file_path(folder: &Path, file: Target, number: u32) -> PathBuf {
    match file {
        Target::Page(key) => {
            let relation = key.fork.relation;
            let folder = match relation.tablespace {
                GLOBAL_TABLESPACE => folder.join("global"),
                DEFAULT_TABLESPACE => folder.join("base").join(relation.database.to_string()),
                other => folder.join("pg_tblspc").join(other.to_string()),
            };
            let name = format!("{}{}", relation.number, key.fork.fork.suffix());
            folder.join(if number > 0 { format!("{name}.{number}") } else { name })
        }
        Target::Slru(slru, _) => folder.join(slru.folder()).join(format!("{number:04X}")),
    }
}

/// What this thread has used.
fn cpu_seconds() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
