//! Reads a cleanly stopped data directory as the first state of a template's timeline.
//!
//! Everything that a base backup serves, and every page of every permanent relation, becomes a
//! value at the LSN at which the directory's WAL ends. What is not taken, because no start needs
//! it: temporary and unlogged contents (an unlogged relation's `_init` fork is taken), statistics,
//! replication slots, and the configuration files, which belong to a compute and not to its data.

mod cluster;
mod error;
mod files;
pub(crate) mod publish;

use std::{fs, io::Read, path::Path};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use wal_format::{ControlState, PAGE_BYTES, Page, RelationFork, SLRU_SEGMENT_PAGES};

pub use cluster::Cluster;
pub use error::ImportError;

use self::{
    cluster::read,
    files::{ForkFiles, SlruFile, blocks_of},
};
use crate::{
    control::Control,
    error::Error,
    key::Key,
    replication_origin::{self, OriginProgress},
    tenants::{TemplateSource, Tenant, Tenants},
};

/// Values that are read ahead of what was stored: 8 MiB of pages.
const VALUES_AHEAD: usize = 1024;
/// Pages read from a file at once, at most: 1 MiB.
const READ_PAGES: usize = 128;

/// Imports the data directory as a template of this name, which is not seen before it is complete.
pub(crate) async fn import(
    tenants: &Tenants,
    name: &str,
    pgdata: &Path,
) -> Result<Tenant, ImportError> {
    let pgdata = pgdata.to_owned();
    let cluster = on_disk(move || Cluster::open(&pgdata)).await?;
    let source = TemplateSource { origin: cluster.origin(), checksums: cluster.has_checksums() };
    let mut writer = tenants.import_template(name, source).await?;
    let (values, mut to_store) = mpsc::channel(VALUES_AHEAD);
    let reading = tokio::spawn(on_disk(move || {
        cluster.for_each(&mut |key, value| {
            // Where no one takes the value, storing has failed, and says so itself.
            values.blocking_send((key, value)).map_err(|_| ImportError::Store(Error::ShuttingDown))
        })
    }));
    let mut stored = Ok(());
    while let Some((key, value)) = to_store.recv().await {
        stored = writer.put(key, value).await;
        if stored.is_err() {
            break;
        }
    }
    drop(to_store);
    let read = reading.await.unwrap_or(Err(ImportError::Store(Error::ShuttingDown)));
    stored?;
    read?;
    Ok(writer.finish().await?)
}

/// Reads files without holding up other tasks.
async fn on_disk<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ImportError> + Send + 'static,
) -> Result<T, ImportError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or(Err(ImportError::Store(Error::ShuttingDown)))
}

impl Cluster {
    /// Hands every value of the cluster to `put`, in the order of the keys.
    pub fn for_each(
        &self,
        put: &mut dyn FnMut(Key, Bytes) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let forks = self.forks()?;
        for files in &forks {
            self.put_pages(files, put)?;
        }
        for files in &forks {
            let blocks = Bytes::copy_from_slice(&files.blocks.to_le_bytes());
            put(Key::fork_size(files.fork), blocks)?;
        }
        for file in self.slru_files()? {
            put_slru(&file, put)?;
        }
        let databases = self.databases()?;
        for database in databases.iter().filter(|database| database.oid != 0) {
            put(Key::database(database.tablespace, database.oid), Bytes::new())?;
        }
        for database in &databases {
            let map = database.folder.join("pg_filenode.map");
            // A database has its map in its own tablespace alone.
            if map.exists() {
                put(Key::relation_map(database.tablespace, database.oid), read(&map)?)?;
            }
        }
        for tablespace in self.tablespaces()? {
            put(Key::tablespace(tablespace.oid), Bytes::from(tablespace.location))?;
        }
        for (origin, progress) in self.replication_origins()? {
            put(Key::replication_origin(origin), progress.encode())?;
        }
        let state = ControlState::from_control_file(&self.control);
        put(Key::CONTROL, Control::new(state).encode())?;
        put(Key::CONTROL_FILE, self.control_bytes.clone())
    }

    fn put_pages(
        &self,
        files: &ForkFiles,
        put: &mut dyn FnMut(Key, Bytes) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let mut block = 0;
        for path in &files.files {
            let first = block;
            for_each_page(path, &mut |page| {
                self.check_page(files.fork, block, &page).map_err(|reason| {
                    ImportError::DamagedPage { path: path.clone(), block: block - first, reason }
                })?;
                put(Key::page(files.fork.block(block)), page)?;
                block += 1;
                Ok(())
            })?;
        }
        if block != files.blocks {
            let path = files.files.last().cloned().unwrap_or_else(|| self.root.clone());
            let reason =
                format!("it changed while it was read: {block} blocks of {}", files.blocks);
            return Err(ImportError::DamagedFile { path, reason });
        }
        Ok(())
    }

    /// What Postgres checks when it reads a page (bufpage.c: `PageIsVerifiedExtended`), and that
    /// the page is not from a future that its WAL does not have.
    fn check_page(&self, fork: RelationFork, block: u32, bytes: &Bytes) -> Result<(), String> {
        let page = Page::from_bytes(bytes).ok_or("it is not a whole page")?;
        if page.is_new() {
            let rest = "its header is empty, the rest is not";
            return if page.is_zero() { Ok(()) } else { Err(rest.to_owned()) };
        }
        page.bounds().map_err(|error| error.to_string())?;
        if self.has_checksums() && !page.verify_checksum(block) {
            let (expected, found) = (page.checksum(block), page.stored_checksum());
            return Err(format!("checksum {found:04X} instead of {expected:04X}"));
        }
        let end = self.origin().point.lsn;
        if page.lsn() > end {
            return Err(format!("{fork} was changed at {}, but WAL ends at {end}", page.lsn()));
        }
        Ok(())
    }

    fn replication_origins(&self) -> Result<Vec<(u16, OriginProgress)>, ImportError> {
        let path = self.root.join(replication_origin::FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        replication_origin::decode_file(&read(&path)?)
            .map_err(|reason| ImportError::DamagedFile { path, reason })
    }
}

fn put_slru(
    file: &SlruFile,
    put: &mut dyn FnMut(Key, Bytes) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    blocks_of(&file.path, SLRU_SEGMENT_PAGES)?;
    let mut number = file.first_page;
    for_each_page(&file.path, &mut |page| {
        put(Key::slru(file.slru, number), page)?;
        number += 1;
        Ok(())
    })
}

/// Hands the pages of a file to `page`, in their order. A page keeps all in memory that was read with it,
/// which is not more than the file has: most relations have a page or none.
fn for_each_page(
    path: &Path,
    page: &mut dyn FnMut(Bytes) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let unreadable = |reason| ImportError::Unreadable { path: path.to_owned(), reason };
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let mut left_pages = file.metadata().map_err(unreadable)?.len().div_ceil(PAGE_BYTES as u64);
    loop {
        let pages = left_pages.clamp(1, READ_PAGES as u64);
        left_pages = left_pages.saturating_sub(pages);
        let mut buffer = BytesMut::zeroed(pages as usize * PAGE_BYTES);
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(unreadable)? {
                0 => break,
                bytes => filled += bytes,
            }
        }
        let at_end = filled < buffer.len();
        buffer.truncate(filled);
        let mut pages = buffer.freeze();
        while pages.len() >= PAGE_BYTES {
            page(pages.split_to(PAGE_BYTES))?;
        }
        if at_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages_of(bytes: &[u8]) -> Vec<Bytes> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), bytes).expect("it can be written");
        let mut pages = Vec::new();
        let read = for_each_page(file.path(), &mut |page| {
            pages.push(page);
            Ok(())
        });
        read.expect("it can be read");
        pages
    }

    #[test]
    fn a_file_is_read_page_by_page_and_what_is_no_whole_page_is_left() {
        let bytes: Vec<u8> = (0..300).flat_map(|page| [page as u8; PAGE_BYTES]).collect();
        for count in [0, 1, 127, 128, 129, 256, 300] {
            let whole = count * PAGE_BYTES;
            assert_eq!(pages_of(&bytes[..whole]).concat(), bytes[..whole]);
            let rest = (whole + 100).min(bytes.len());
            assert_eq!(pages_of(&bytes[..rest]).len(), count);
        }
    }

    #[test]
    fn a_page_alone_keeps_no_more_than_itself_in_memory() {
        let page = pages_of(&[7; PAGE_BYTES]).pop().expect("a page");
        let alone = page.try_into_mut().expect("nobody else has it");
        assert_eq!(alone.capacity(), PAGE_BYTES);
    }
}
