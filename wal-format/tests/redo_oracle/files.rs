//! The pages and other versioned state of a data directory that was stopped cleanly.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use wal_format::{
    DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, PAGE_BYTES, Page, RELATION_SEGMENT_BLOCKS,
    Relation, RelationFork, SLRU_SEGMENT_PAGES, Slru, Target,
};

/// All that WAL can change.
#[derive(Default)]
pub struct State {
    pub pages: HashMap<Target, Page>,
    pub relation_maps: HashMap<(u32, u32), Vec<u8>>,
    pub two_phase: HashMap<u32, Vec<u8>>,
    /// Forks that exist, also empty ones.
    pub forks: HashSet<RelationFork>,
}

impl State {
    pub fn load(data: &Path) -> Result<State> {
        let mut state = State::default();
        state.load_database(&data.join("global"), GLOBAL_TABLESPACE, 0)?;
        for (name, path) in entries(&data.join("base"))? {
            if let Ok(database) = name.parse() {
                state.load_database(&path, DEFAULT_TABLESPACE, database)?;
            }
        }
        for (tablespace, path) in entries(&data.join("pg_tblspc"))? {
            let tablespace = tablespace.parse()?;
            for (_, versioned) in entries(&path)? {
                for (name, path) in entries(&versioned)? {
                    if let Ok(database) = name.parse() {
                        state.load_database(&path, tablespace, database)?;
                    }
                }
            }
        }
        for slru in Slru::ALL {
            for (name, path) in entries(&data.join(slru.folder()))? {
                let first = u32::from_str_radix(&name, 16)? * SLRU_SEGMENT_PAGES;
                state.load_pages(&path, |page| Target::Slru(slru, first + page))?;
            }
        }
        for (name, path) in entries(&data.join("pg_twophase"))? {
            state.two_phase.insert(u32::from_str_radix(&name, 16)?, fs::read(path)?);
        }
        Ok(state)
    }

    fn load_database(&mut self, folder: &Path, tablespace: u32, database: u32) -> Result<()> {
        for (name, path) in entries(folder)? {
            if name == "pg_filenode.map" {
                self.relation_maps.insert((tablespace, database), fs::read(path)?);
            } else if let Some((number, fork, segment)) = parse_name(&name) {
                let fork = Relation { tablespace, database, number }.fork(fork);
                self.forks.insert(fork);
                let first = segment * RELATION_SEGMENT_BLOCKS;
                self.load_pages(&path, |block| Target::Page(fork.block(first + block)))?;
            }
        }
        Ok(())
    }

    fn load_pages(&mut self, path: &Path, target: impl Fn(u32) -> Target) -> Result<()> {
        let bytes = fs::read(path)?;
        for (block, bytes) in (0..).zip(bytes.chunks_exact(PAGE_BYTES)) {
            self.pages.insert(target(block), Page::from_slice(bytes).context("a page's length")?);
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        all.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(all)
}

/// `16384`, `16384_vm`, `16384.1`; not `t3_16384`, which is temporary.
fn parse_name(name: &str) -> Option<(u32, Fork, u32)> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, segment.parse().ok()?),
        None => (name, 0),
    };
    let end = name.find('_').unwrap_or(name.len());
    let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == &name[end..])?;
    Some((name[..end].parse().ok()?, fork, segment))
}
