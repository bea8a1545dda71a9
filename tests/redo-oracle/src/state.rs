//! All that WAL can change, in memory: as replay makes it, and as a data directory that was stopped cleanly has it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use wal_format::{
    DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, Lsn, PAGE_BYTES, Page, RELATION_SEGMENT_BLOCKS,
    Relation, RelationFork, SLRU_SEGMENT_PAGES, Slru, Target,
};

/// A database's place: its tablespace and its OID, 0 for what all databases share.
pub type Place = (u32, u32);

/// All that WAL can change but for the counters in `pg_control`.
#[derive(Clone, Default)]
pub struct State {
    /// The pages of each fork that exists; a fork may be empty.
    pub forks: HashMap<RelationFork, HashMap<u32, Box<Page>>>,
    /// The SLRUs' pages.
    pub slrus: HashMap<(Slru, u32), Box<Page>>,
    /// `pg_filenode.map` of each database.
    pub relation_maps: HashMap<Place, Vec<u8>>,
    /// The files of prepared transactions.
    pub two_phase: HashMap<u32, Vec<u8>>,
    /// The databases that have a folder.
    pub databases: HashSet<Place>,
    /// The tablespaces of users.
    pub tablespaces: HashSet<u32>,
    /// How far each replication origin is.
    pub origins: HashMap<u16, Lsn>,
}

impl State {
    /// The state of a data directory whose server was stopped cleanly.
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
            state.tablespaces.insert(tablespace);
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
                for (page, bytes) in pages(&path)? {
                    state.slrus.insert((slru, first + page), bytes);
                }
            }
        }
        for (name, path) in entries(&data.join("pg_twophase"))? {
            state.two_phase.insert(u32::from_str_radix(&name, 16)?, fs::read(path)?);
        }
        let origins = data.join("pg_logical/replorigin_checkpoint");
        if origins.exists() {
            state.origins = read_origins(&fs::read(origins)?)?;
        }
        Ok(state)
    }

    fn load_database(&mut self, folder: &Path, tablespace: u32, database: u32) -> Result<()> {
        self.databases.insert((tablespace, database));
        for (name, path) in entries(folder)? {
            if name == "pg_filenode.map" {
                self.relation_maps.insert((tablespace, database), fs::read(path)?);
            } else if let Some((number, fork, segment)) = parse_name(&name) {
                let loaded = self
                    .forks
                    .entry(Relation { tablespace, database, number }.fork(fork))
                    .or_default();
                // It is hardly logged, and not compared.
                if fork != Fork::FreeSpaceMap {
                    let first = segment * RELATION_SEGMENT_BLOCKS;
                    loaded.extend(pages(&path)?.map(|(block, page)| (first + block, page)));
                }
            }
        }
        Ok(())
    }

    /// The page, where it exists.
    pub fn page(&self, target: &Target) -> Option<&Page> {
        match target {
            Target::Page(key) => self.forks.get(&key.fork)?.get(&key.block).map(Box::as_ref),
            Target::Slru(slru, page) => self.slrus.get(&(*slru, *page)).map(Box::as_ref),
        }
    }

    /// The page, which exists from now on.
    pub fn page_mut(&mut self, target: &Target) -> &mut Page {
        match target {
            Target::Page(key) => {
                let fork = self.forks.entry(key.fork).or_default();
                fork.entry(key.block).or_insert_with(Page::zeroed)
            }
            Target::Slru(slru, page) => {
                self.slrus.entry((*slru, *page)).or_insert_with(Page::zeroed)
            }
        }
    }

    /// Every page.
    pub fn pages(&self) -> impl Iterator<Item = (Target, &Page)> {
        let of_fork = |(fork, pages): (&RelationFork, _)| {
            let fork = *fork;
            let pages: &HashMap<u32, Box<Page>> = pages;
            pages.iter().map(move |(block, page)| (Target::Page(fork.block(*block)), &**page))
        };
        let slrus = self.slrus.iter().map(|((slru, page), it)| (Target::Slru(*slru, *page), &**it));
        self.forks.iter().flat_map(of_fork).chain(slrus)
    }

    /// The relation's files go.
    pub fn drop_relation(&mut self, relation: Relation) {
        for fork in Fork::ALL {
            self.forks.remove(&relation.fork(fork));
        }
    }

    /// All that the database has in this tablespace goes.
    pub fn drop_database(&mut self, place: Place) {
        self.forks.retain(|fork, _| (fork.relation.tablespace, fork.relation.database) != place);
        self.relation_maps.remove(&place);
        self.databases.remove(&place);
    }

    /// A database takes over what another has.
    pub fn copy_database(&mut self, from: Place, to: Place) {
        self.drop_database(to);
        self.databases.insert(to);
        let moved = |mut fork: RelationFork| {
            let relation = &mut fork.relation;
            let is_here = (relation.tablespace, relation.database) == from;
            (relation.tablespace, relation.database) = to;
            is_here.then_some(fork)
        };
        let copies: Vec<(RelationFork, HashMap<u32, Box<Page>>)> = self
            .forks
            .iter()
            .filter_map(|(fork, pages)| Some((moved(*fork)?, pages.clone())))
            .collect();
        self.forks.extend(copies);
        if let Some(map) = self.relation_maps.get(&from).cloned() {
            self.relation_maps.insert(to, map);
        }
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

/// The pages of a file, by their number in it.
fn pages(path: &Path) -> Result<impl Iterator<Item = (u32, Box<Page>)> + use<>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    ensure!(bytes.len().is_multiple_of(PAGE_BYTES), "{} ends within a page", path.display());
    let count = (bytes.len() / PAGE_BYTES) as u32;
    Ok((0..count).filter_map(move |number| {
        let from = number as usize * PAGE_BYTES;
        Some((number, Page::from_slice(&bytes[from..from + PAGE_BYTES])?))
    }))
}

/// The relation's number, the fork and the segment that a file's name says: `16384`, `16384_vm`,
/// `16384.1`; not `t3_16384`, which is temporary.
pub fn parse_name(name: &str) -> Option<(u32, Fork, u32)> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) => (name, segment.parse().ok()?),
        None => (name, 0),
    };
    let end = name.find('_').unwrap_or(name.len());
    let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == &name[end..])?;
    Some((name[..end].parse().ok()?, fork, segment))
}

/// origin.c, `CheckPointReplicationOrigin`: a magic number, 16 bytes for each origin, a checksum.
fn read_origins(file: &[u8]) -> Result<HashMap<u16, Lsn>> {
    const MAGIC: u32 = 0x1257_DADE;
    let (magic, rest) = file.split_first_chunk::<4>().context("a magic number")?;
    ensure!(u32::from_le_bytes(*magic) == MAGIC, "replorigin_checkpoint has another magic number");
    let entries = rest.get(..rest.len().saturating_sub(4)).unwrap_or_default();
    Ok(entries
        .chunks_exact(16)
        .map(|entry| {
            let origin = u16::from_le_bytes([entry[0], entry[1]]);
            let remote = entry[8..].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            (origin, Lsn(remote))
        })
        .collect())
}
