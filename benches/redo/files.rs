//! A data directory's files, page by page.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use rustc_hash::FxHashMap;
use wal_format::{
    DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_BYTES, Page, RELATION_SEGMENT_BLOCKS, RelationFork,
    SLRU_SEGMENT_PAGES, Target,
};

/// A data directory as it was before redo.
pub struct Files {
    folder: PathBuf,
    /// By their fork or SLRU and their number; `None` where there is none.
    open: FxHashMap<(Target, u32), Option<File>>,
    /// Where forks were cut: what their files have from there on is gone.
    cut: FxHashMap<RelationFork, u32>,
}

impl Files {
    pub fn new(folder: &Path) -> Files {
        Files { folder: folder.to_owned(), open: FxHashMap::default(), cut: FxHashMap::default() }
    }

    /// What the fork has from this block on is gone.
    pub fn cut(&mut self, fork: RelationFork, blocks: u32) {
        let cut = self.cut.entry(fork).or_insert(blocks);
        *cut = blocks.min(*cut);
    }

    /// Reads the page from its file; beyond the file's end it is zeros.
    pub fn load(&mut self, target: Target, page: &mut Page) -> Result<()> {
        if let Target::Page(key) = target
            && self.cut.get(&key.fork).is_some_and(|cut| *cut <= key.block)
        {
            page.zero();
            return Ok(());
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
        let count = match file {
            Some(file) => file.read_at(page.bytes_mut(), u64::from(at) * PAGE_BYTES as u64)?,
            None => 0,
        };
        ensure!(count == 0 || count == PAGE_BYTES, "{target}: a page of {count} bytes");
        if count == 0 {
            page.zero();
        }
        Ok(())
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
