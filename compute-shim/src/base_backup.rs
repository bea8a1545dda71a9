//! Receives a base backup: all that a compute needs to start, but no page.
//!
//! Relations come as a list of forks and sizes and become files whose pages are fetched when they
//! are read. What is small and read at once comes as files: the SLRUs, prepared transactions,
//! relation maps.

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::Write,
    path::{Component, Path},
};

use bytes::Bytes;
use protocol::page_service::{BackupHead, ForkSize, PageError, Response};
use wal_format::{Fork, Lsn, RELATION_SEGMENT_BLOCKS, RelationFork};

use crate::{
    ShimError,
    folder::own,
    fuse::{Owner, RelationFiles},
    overlay::Origin,
    page_client::PageClient,
    path::{self, FileName, TABLESPACE_VERSION_FOLDER},
};

/// What a base backup may bring beside the relations' folders: files in these, and this file.
const BACKUP_ENTRIES: [&str; 7] = [
    "PG_VERSION",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_replslot",
    "pg_twophase",
    "pg_xact",
];
/// The folders that are mounted.
const MOUNTED_FOLDERS: [&str; 3] = ["base", "global", "pg_tblspc"];

/// A base backup that was received and laid out.
pub struct BaseBackup {
    /// What it said of itself.
    pub head: BackupHead,
    /// Prepared transactions in it.
    pub prepared: u32,
}

/// Receives the base backup at `lsn`: relations and maps into `files`, the rest into the data
/// directory. `on_head` is called as soon as it is known what there is. What fails with
/// [`ShimError::Unavailable`] may be tried again with both empty.
pub async fn receive(
    client: &PageClient,
    lsn: Lsn,
    data: &Path,
    files: &RelationFiles,
    owner: Owner,
    on_head: impl FnOnce(&BackupHead),
) -> Result<BaseBackup, ShimError> {
    let mut stream = client.base_backup(lsn);
    let head = match stream.next().await?.0 {
        Response::BackupHead(head) if head.lsn == lsn => head,
        Response::Failed(error) => return Err(refused(error)),
        other => return Err(unexpected(&other)),
    };
    on_head(&head);
    lay_out_folders(files, &head)?;
    for file in relation_files(&head.forks) {
        let folder =
            path::database_folder(file.name.relation.tablespace, file.name.relation.database);
        let name = path::relation_file_name(file.name, file.segment);
        files.add_relation_file(&folder, &name, file.origin).map_err(|error| {
            ShimError::Corrupt(format!("the base backup's {folder}/{name}: {error}"))
        })?;
    }
    let mut prepared = HashSet::new();
    loop {
        match stream.next().await? {
            (Response::BackupFile { path }, part) => {
                if path.starts_with("pg_twophase/") {
                    prepared.insert(path.clone());
                }
                take_file(&path, &part, data, files, owner)?;
            }
            (Response::BackupEnd, _) => break,
            (Response::Failed(error), _) => return Err(refused(error)),
            (other, _) => return Err(unexpected(&other)),
        }
    }
    let prepared = prepared.len() as u32;
    Ok(BaseBackup { head, prepared })
}

fn lay_out_folders(files: &RelationFiles, head: &BackupHead) -> Result<(), ShimError> {
    let tablespaces = head
        .tablespaces
        .iter()
        .map(|(oid, _)| format!("pg_tblspc/{oid}/{TABLESPACE_VERSION_FOLDER}"));
    let databases =
        head.databases.iter().map(|(tablespace, oid)| path::database_folder(*tablespace, *oid));
    for folder in tablespaces.chain(databases) {
        files.add_folder(&folder).map_err(|error| {
            ShimError::Corrupt(format!("the base backup's folder {folder}: {error}"))
        })?;
    }
    Ok(())
}

/// A file of a relation, and what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct RelationFile {
    name: RelationFork,
    segment: u32,
    origin: Origin,
}

/// The files of all forks. An unlogged relation, which has an `_init` fork, starts as a copy of
/// that: its pages are not in the WAL, and a start without recovery does not reset it.
fn relation_files(forks: &[ForkSize]) -> Vec<RelationFile> {
    let unlogged: HashSet<_> = forks
        .iter()
        .filter(|size| size.fork.fork == Fork::Init)
        .map(|size| size.fork.relation)
        .collect();
    let mut files = Vec::with_capacity(forks.len() + unlogged.len());
    for ForkSize { fork, blocks } in forks {
        if fork.fork == Fork::Init {
            files.extend(segments(fork.relation.fork(Fork::Main), *fork, *blocks));
        } else if unlogged.contains(&fork.relation) {
            continue;
        }
        files.extend(segments(*fork, *fork, *blocks));
    }
    files
}

/// The files of one fork: at least one, even where it is empty.
fn segments(
    name: RelationFork,
    fork: RelationFork,
    blocks: u32,
) -> impl Iterator<Item = RelationFile> {
    (0..blocks.div_ceil(RELATION_SEGMENT_BLOCKS).max(1)).map(move |segment| {
        let first_block = segment * RELATION_SEGMENT_BLOCKS;
        let blocks = (blocks - first_block).min(RELATION_SEGMENT_BLOCKS);
        RelationFile { name, segment, origin: Origin { fork, first_block, blocks } }
    })
}

/// Takes a part of a file, which is trusted no more than anything else from the network.
fn take_file(
    path: &str,
    part: &Bytes,
    data: &Path,
    files: &RelationFiles,
    owner: Owner,
) -> Result<(), ShimError> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let folder = path.split('/').next().unwrap_or_default();
    if plain && MOUNTED_FOLDERS.contains(&folder) && path::parse(path) == FileName::Other {
        return files.append_local_file(path, part);
    }
    if !plain || !BACKUP_ENTRIES.contains(&folder) {
        return Err(ShimError::Corrupt(format!("the base backup has no business with {path:?}")));
    }
    let file = data.join(path);
    let failed = || ShimError::io(format!("writing {}", file.display()));
    if let Some(folder) = file.parent()
        && !folder.exists()
    {
        std::fs::create_dir_all(folder).map_err(failed())?;
        own(folder, owner)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&file)
        .and_then(|mut file| file.write_all(part))
        .map_err(failed())?;
    own(&file, owner)
}

fn refused(error: PageError) -> ShimError {
    match error {
        PageError::Fenced { .. } => ShimError::Fenced(error.to_string()),
        PageError::Unavailable(_)
        | PageError::NotYet { .. }
        | PageError::ShuttingDown
        | PageError::Moved { .. } => ShimError::Unavailable(error.to_string()),
        error => ShimError::Page(error),
    }
}

fn unexpected(response: &Response) -> ShimError {
    ShimError::Corrupt(format!("a base backup was expected, not {response:?}"))
}

#[cfg(test)]
mod tests {
    use wal_format::Relation;

    use super::*;

    const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16384 };

    fn size(fork: Fork, blocks: u32) -> ForkSize {
        ForkSize { fork: RELATION.fork(fork), blocks }
    }

    fn described(forks: &[ForkSize]) -> Vec<(String, Fork, u32, u32)> {
        let describe = |file: RelationFile| {
            let name = path::relation_file_name(file.name, file.segment);
            (name, file.origin.fork.fork, file.origin.first_block, file.origin.blocks)
        };
        relation_files(forks).into_iter().map(describe).collect()
    }

    #[test]
    fn a_relation_of_more_than_1_gib_has_several_files() {
        let full = RELATION_SEGMENT_BLOCKS;
        assert_eq!(
            described(&[size(Fork::Main, 2 * full + 7), size(Fork::FreeSpaceMap, 0)]),
            [
                ("16384".to_owned(), Fork::Main, 0, full),
                ("16384.1".to_owned(), Fork::Main, full, full),
                ("16384.2".to_owned(), Fork::Main, 2 * full, 7),
                ("16384_fsm".to_owned(), Fork::FreeSpaceMap, 0, 0),
            ]
        );
    }

    #[test]
    fn an_unlogged_relation_starts_as_a_copy_of_its_init_fork() {
        let forks = [size(Fork::Main, 9), size(Fork::VisibilityMap, 1), size(Fork::Init, 2)];
        assert_eq!(
            described(&forks),
            [("16384".to_owned(), Fork::Init, 0, 2), ("16384_init".to_owned(), Fork::Init, 0, 2),]
        );
    }
}
