//! A file of the journal, and the pieces of WAL in it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wal_format::Lsn;

use super::entry;
use crate::Error;

/// One file of the journal.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    path: PathBuf,
    file: File,
}

impl Segment {
    /// Where the segment of this number lies.
    pub fn path_in(folder: &Path, number: u64) -> PathBuf {
        folder.join(format!("{number:010}.segment"))
    }

    /// Opens a segment that exists.
    pub fn open(folder: &Path, number: u64) -> Result<Segment, Error> {
        let path = Segment::path_in(folder, number);
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(disk("open", &path))?;
        Ok(Segment { number, path, file })
    }

    /// Makes a segment of a file that is already in its place.
    pub fn of_file(number: u64, path: PathBuf, file: File) -> Segment {
        Segment { number, path, file }
    }

    /// Its file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, offset: u64, bytes: usize) -> Result<Bytes, Error> {
        let mut buffer = BytesMut::zeroed(bytes);
        self.file.read_exact_at(&mut buffer, offset).map_err(disk("read", &self.path))?;
        Ok(buffer.freeze())
    }
}

/// WAL of one timeline in one entry of the journal. It keeps its segment's file open.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The position of its first byte.
    pub begin: Lsn,
    /// The position behind its last byte that still counts.
    pub end: Lsn,
    segment: Arc<Segment>,
    /// Where the entry begins in the segment.
    offset: u64,
    /// How many bytes of WAL the entry has; those behind `end` were cut off.
    wal_bytes: usize,
}

impl Extent {
    /// The WAL of the entry at this place.
    pub fn new(segment: Arc<Segment>, offset: u64, begin: Lsn, wal_bytes: usize) -> Extent {
        Extent { begin, end: begin + wal_bytes as u64, segment, offset, wal_bytes }
    }

    /// The number of the segment that holds it.
    pub fn segment(&self) -> u64 {
        self.segment.number
    }

    /// Reads the WAL up to `end`, from the file, and checks the whole entry's checksum.
    pub fn read(&self) -> Result<Bytes, Error> {
        let entry = self.segment.read(self.offset, entry::WAL_HEADER_BYTES + self.wal_bytes)?;
        match entry::check(&entry) {
            Ok((place, end)) if place.segment == self.segment.number && end == entry.len() => {
                let kept = self.end.since(self.begin) as usize;
                Ok(entry.slice(entry::WAL_HEADER_BYTES..entry::WAL_HEADER_BYTES + kept))
            }
            _ => Err(Error::Journal {
                segment: self.segment.number,
                offset: self.offset,
                reason: format!("no right entry for WAL from {}", self.begin),
            }),
        }
    }
}

/// Turns an I/O error into one that says what was tried, and where.
pub fn disk<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Disk { action, path: path.to_owned(), source }
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk("fsync", folder))
}
