//! What files a stopped data directory has: databases, tablespaces, relations, SLRU segments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use wal_format::{
    DEFAULT_TABLESPACE, Fork, GLOBAL_TABLESPACE, PAGE_BYTES, RELATION_SEGMENT_BLOCKS, Relation,
    RelationFork, SLRU_SEGMENT_PAGES, Slru,
};

use super::{
    cluster::{Cluster, list},
    error::ImportError,
};
use crate::data_directory::{RelationFile, parse_number, parse_slru_file, version_folder};

/// A user tablespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tablespace {
    pub oid: u32,
    /// Where its symbolic link points; empty for one that lies in `pg_tblspc` itself.
    pub location: String,
}

/// A database's folder in one tablespace; `pg_global`'s has database 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Database {
    pub tablespace: u32,
    pub oid: u32,
    pub folder: PathBuf,
}

/// A fork and the files that hold it, 1 GiB each but for the last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ForkFiles {
    pub fork: RelationFork,
    pub blocks: u32,
    pub files: Vec<PathBuf>,
}

/// A file of up to [`SLRU_SEGMENT_PAGES`] pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlruFile {
    pub slru: Slru,
    pub first_page: u32,
    pub path: PathBuf,
}

impl Cluster {
    /// User tablespaces, by OID.
    pub(super) fn tablespaces(&self) -> Result<Vec<Tablespace>, ImportError> {
        let folder = self.root.join("pg_tblspc");
        let mut tablespaces = Vec::new();
        for entry in list(&folder)? {
            let path = entry.path();
            let oid = number_of(&entry).ok_or_else(|| ImportError::DamagedFile {
                path: path.clone(),
                reason: "its name is not a tablespace's OID".to_owned(),
            })?;
            let location = match fs::read_link(&path) {
                Ok(location) => location.to_string_lossy().into_owned(),
                // `allow_in_place_tablespaces` makes a folder where others have a link.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => String::new(),
                Err(reason) => return Err(ImportError::Unreadable { path, reason }),
            };
            tablespaces.push(Tablespace { oid, location });
        }
        tablespaces.sort_by_key(|tablespace| tablespace.oid);
        Ok(tablespaces)
    }

    /// The folders that hold relations, by tablespace and database.
    pub(super) fn databases(&self) -> Result<Vec<Database>, ImportError> {
        let mut folders = vec![(DEFAULT_TABLESPACE, self.root.join("base"))];
        for tablespace in self.tablespaces()? {
            let location = self.root.join("pg_tblspc").join(tablespace.oid.to_string());
            folders.push((tablespace.oid, location.join(version_folder(self.version))));
        }
        let global = self.root.join("global");
        let mut databases =
            vec![Database { tablespace: GLOBAL_TABLESPACE, oid: 0, folder: global }];
        for (tablespace, folder) in folders {
            // `pgsql_tmp` has no number, and holds nothing that outlives a stop.
            for entry in list(&folder)? {
                if let Some(oid) = number_of(&entry) {
                    databases.push(Database { tablespace, oid, folder: entry.path() });
                }
            }
        }
        databases.sort_by_key(|database| (database.tablespace, database.oid));
        Ok(databases)
    }

    /// All forks that a start needs, in the order of their keys. An unlogged relation has only its
    /// `_init` fork: that is what it is reset to.
    pub(super) fn forks(&self) -> Result<Vec<ForkFiles>, ImportError> {
        let mut forks = Vec::new();
        for database in self.databases()? {
            forks.extend(forks_of(&database)?);
        }
        forks.sort_by_key(|files| files.fork);
        Ok(forks)
    }

    /// All SLRU segments, in the order of their keys.
    pub(super) fn slru_files(&self) -> Result<Vec<SlruFile>, ImportError> {
        let mut files = Vec::new();
        for slru in Slru::ALL {
            for entry in list(&self.root.join(slru.folder()))? {
                let name = entry.file_name();
                let segment = name.to_str().and_then(parse_slru_file);
                let path = entry.path();
                let first_page = segment.and_then(|s| s.checked_mul(SLRU_SEGMENT_PAGES));
                let first_page = first_page.ok_or_else(|| ImportError::DamagedFile {
                    path: path.clone(),
                    reason: "its name is not a segment's number".to_owned(),
                })?;
                files.push(SlruFile { slru, first_page, path });
            }
        }
        files.sort_by_key(|file| (file.slru, file.first_page));
        Ok(files)
    }
}

fn forks_of(database: &Database) -> Result<Vec<ForkFiles>, ImportError> {
    let mut segments: BTreeMap<RelationFork, BTreeMap<u32, (PathBuf, u32)>> = BTreeMap::new();
    let mut unlogged = BTreeSet::new();
    for entry in list(&database.folder)? {
        let name = entry.file_name();
        let Some(file) = name.to_str().and_then(RelationFile::parse) else { continue };
        let relation = Relation {
            tablespace: database.tablespace,
            database: database.oid,
            number: file.number,
        };
        if file.fork == Fork::Init {
            unlogged.insert(relation);
        }
        let blocks = blocks_of(&entry.path(), RELATION_SEGMENT_BLOCKS)?;
        let fork = segments.entry(relation.fork(file.fork)).or_default();
        fork.insert(file.segment, (entry.path(), blocks));
    }
    segments.retain(|fork, _| fork.fork == Fork::Init || !unlogged.contains(&fork.relation));
    segments.into_iter().map(|(fork, segments)| join_segments(fork, segments)).collect()
}

/// Segments are numbered from 0 without a gap, and all but the last are full. Postgres leaves
/// empty ones behind the last after a truncation.
fn join_segments(
    fork: RelationFork,
    segments: BTreeMap<u32, (PathBuf, u32)>,
) -> Result<ForkFiles, ImportError> {
    let mut joined = ForkFiles { fork, blocks: 0, files: Vec::new() };
    for (number, (path, blocks)) in segments {
        if blocks == 0 && number > 0 {
            continue;
        }
        let before = u64::from(number) * u64::from(RELATION_SEGMENT_BLOCKS);
        if u64::from(joined.blocks) != before {
            let reason = format!("{before} blocks should come before it, not {}", joined.blocks);
            return Err(ImportError::DamagedFile { path, reason });
        }
        joined.blocks =
            joined.blocks.checked_add(blocks).ok_or_else(|| ImportError::DamagedFile {
                path: path.clone(),
                reason: "the relation has more blocks than Postgres can number".to_owned(),
            })?;
        joined.files.push(path);
    }
    Ok(joined)
}

/// The length of a file in pages, which must be whole.
pub(super) fn blocks_of(path: &Path, blocks_max: u32) -> Result<u32, ImportError> {
    let bytes = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(reason) => return Err(ImportError::Unreadable { path: path.to_owned(), reason }),
    };
    let blocks = bytes / PAGE_BYTES as u64;
    if bytes % PAGE_BYTES as u64 != 0 || blocks > u64::from(blocks_max) {
        let reason = format!("{bytes} bytes are not up to {blocks_max} whole pages");
        return Err(ImportError::DamagedFile { path: path.to_owned(), reason });
    }
    Ok(blocks as u32)
}

fn number_of(entry: &fs::DirEntry) -> Option<u32> {
    entry.file_name().to_str().and_then(parse_number)
}
