//! What a stock server left in its data directory at one LSN.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use redo_oracle::state::parse_name;
use wal_format::{
    ControlFile, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PAGE_BYTES, Relation, RelationFork, Slru,
};

/// A stopped data directory, its `pg_control`, and its tablespaces' locations.
pub struct StockState {
    pub root: PathBuf,
    pub control: ControlFile,
    pub tablespaces: Vec<(u32, String)>,
}

/// Tablespaces and OIDs of the databases' folders.
#[derive(Default)]
pub struct Databases {
    /// Made by `CREATE DATABASE`, in order.
    pub own: Vec<(u32, u32)>,
    /// Made for a relation in another tablespace than its database's (tablespace.c, `TablespaceCreateDbspace`): without `PG_VERSION`.
    pub on_demand: Vec<(u32, u32)>,
}

/// A fork's files, in the order of its blocks.
pub struct StockFork {
    files: Vec<PathBuf>,
    pub blocks: u32,
}

impl StockFork {
    /// All its pages.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.blocks as usize * PAGE_BYTES);
        for file in &self.files {
            bytes.extend(fs::read(file)?);
        }
        Ok(bytes)
    }
}

impl StockState {
    /// The state that a base directory is in before any replay.
    pub fn of_base(base: &Path) -> Result<StockState> {
        let control = read_control(base)?;
        Ok(StockState { root: base.to_owned(), control, tablespaces: Vec::new() })
    }

    /// Each database's folder: tablespace, database, path from the root; and the shared relations'.
    fn folders(&self) -> Result<Vec<(u32, u32, String)>> {
        let mut folders = vec![(GLOBAL_TABLESPACE, 0, "global".to_owned())];
        let mut parents = vec![(DEFAULT_TABLESPACE, "base".to_owned())];
        for (tablespace, _) in &self.tablespaces {
            let parent = format!("pg_tblspc/{tablespace}");
            let versioned = names(&self.root.join(&parent))?;
            parents.extend(
                versioned.into_iter().map(|name| (*tablespace, format!("{parent}/{name}"))),
            );
        }
        for (tablespace, parent) in parents {
            let databases = names(&self.root.join(&parent))?;
            let numbers = databases.iter().filter_map(|name| name.parse::<u32>().ok());
            folders.extend(numbers.map(|oid| (tablespace, oid, format!("{parent}/{oid}"))));
        }
        Ok(folders)
    }

    /// The databases' folders.
    pub fn databases(&self) -> Result<Databases> {
        let mut databases = Databases::default();
        for (tablespace, oid, folder) in self.folders()? {
            let has_version = self.root.join(folder).join("PG_VERSION").exists();
            match oid {
                0 => {}
                _ if has_version => databases.own.push((tablespace, oid)),
                _ => databases.on_demand.push((tablespace, oid)),
            }
        }
        databases.own.sort_unstable();
        Ok(databases)
    }

    /// All forks of all relations but temporary ones.
    pub fn forks(&self) -> Result<BTreeMap<RelationFork, StockFork>> {
        let mut segments: BTreeMap<(RelationFork, u32), PathBuf> = BTreeMap::new();
        for (tablespace, database, folder) in self.folders()? {
            for name in names(&self.root.join(&folder))? {
                if let Some((number, fork, segment)) = parse_name(&name) {
                    let fork = Relation { tablespace, database, number }.fork(fork);
                    segments.insert((fork, segment), self.root.join(&folder).join(name));
                }
            }
        }
        let mut forks = BTreeMap::new();
        for ((fork, _), path) in segments {
            let bytes = fs::metadata(&path)?.len();
            let all = forks.entry(fork).or_insert(StockFork { files: Vec::new(), blocks: 0 });
            all.blocks += (bytes / PAGE_BYTES as u64) as u32;
            all.files.push(path);
        }
        Ok(forks)
    }

    /// The files that a base backup brings, by their paths.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut paths =
            vec!["PG_VERSION".to_owned(), "pg_logical/replorigin_checkpoint".to_owned()];
        for (_, _, folder) in self.folders()? {
            paths.extend(["PG_VERSION", "pg_filenode.map"].map(|name| format!("{folder}/{name}")));
        }
        for folder in Slru::ALL.map(Slru::folder).into_iter().chain(["pg_twophase"]) {
            let inside = names(&self.root.join(folder))?;
            paths.extend(inside.into_iter().map(|name| format!("{folder}/{name}")));
        }
        let mut files = BTreeMap::new();
        for path in paths {
            let file = self.root.join(&path);
            if file.exists() {
                files.insert(path, fs::read(file)?);
            }
        }
        Ok(files)
    }
}

/// A data directory's `pg_control`.
pub fn read_control(data: &Path) -> Result<ControlFile> {
    Ok(ControlFile::decode(&fs::read(data.join("global/pg_control"))?)?)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
