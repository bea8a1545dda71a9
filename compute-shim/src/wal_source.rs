//! The files behind `pg_wal`: laid out for a start, and read back for the safekeepers.
//!
//! Nothing else is kept of the WAL in memory. A safekeeper that lags is fed from here, and from
//! another safekeeper where Postgres has removed the segment, or never had it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use protocol::TimelineOrigin;
use wal_format::{Lsn, Segment, Version, segment_prefix};

use crate::ShimError;

/// The Postgres timeline id: ours never change.
pub(crate) const POSTGRES_TIMELINE: u32 = 1;
/// Where Postgres notes what it has archived.
const ARCHIVE_STATUS: &str = "archive_status";

/// The segments of one start.
pub(crate) struct WalFolder {
    path: PathBuf,
    segment_bytes: u32,
    /// Before it there are page headers, and nothing else.
    begin: Lsn,
}

impl WalFolder {
    /// Empties the folder and puts the WAL from `begin` on into it, with the page headers before it
    /// that Postgres needs.
    pub(crate) fn lay_out(
        path: &Path,
        origin: &TimelineOrigin,
        version: Version,
        begin: Lsn,
        bytes: &[u8],
    ) -> Result<WalFolder, ShimError> {
        let doing = |what: &str, path: &Path| ShimError::io(format!("{what} {}", path.display()));
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(doing("empty", path)(error));
            }
            _ => fs::create_dir_all(path.join(ARCHIVE_STATUS)).map_err(doing("create", path))?,
        }
        let segment_bytes = origin.segment_bytes;
        let folder = WalFolder { path: path.to_owned(), segment_bytes, begin };
        let prefix =
            segment_prefix(version, origin.system_id, POSTGRES_TIMELINE, segment_bytes, begin);
        for piece in &prefix {
            folder.put(piece.begin, &piece.bytes).map_err(doing("write WAL to", path))?;
        }
        folder.put(begin, bytes).map_err(doing("write WAL to", path))?;
        Ok(folder)
    }

    /// Puts WAL in that comes before what Postgres starts from, for readers that left off there: from
    /// `begin` on, with the page headers before it where it is the first piece.
    pub(crate) fn put_earlier(
        &self,
        origin: &TimelineOrigin,
        version: Version,
        begin: Lsn,
        bytes: &[u8],
        is_first: bool,
    ) -> Result<(), ShimError> {
        let doing = || ShimError::io(format!("write WAL to {}", self.path.display()));
        if is_first {
            let (system, size) = (origin.system_id, origin.segment_bytes);
            for piece in &segment_prefix(version, system, POSTGRES_TIMELINE, size, begin) {
                self.put(piece.begin, &piece.bytes).map_err(doing())?;
            }
        }
        self.put(begin, bytes).map_err(doing())
    }

    /// A reader, which keeps the segment that it reads open.
    pub(crate) fn reader(&self) -> SegmentReader<'_> {
        SegmentReader { folder: self, open: None }
    }

    /// The end of the segment that holds `at`.
    pub(crate) fn segment_end(&self, at: Lsn) -> Lsn {
        self.segment(at).end(self.segment_bytes)
    }

    fn segment(&self, at: Lsn) -> Segment {
        Segment::containing(POSTGRES_TIMELINE, at, self.segment_bytes)
    }

    fn put(&self, begin: Lsn, bytes: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (begin, bytes);
        while !rest.is_empty() {
            let room = self.segment_end(at).since(at) as usize;
            let (here, beyond) = rest.split_at(room.min(rest.len()));
            let path = self.path.join(self.segment(at).file_name(self.segment_bytes));
            let file = File::options().write(true).create(true).truncate(false).open(path)?;
            file.set_len(u64::from(self.segment_bytes))?;
            file.write_all_at(here, at.segment_offset(u64::from(self.segment_bytes)))?;
            at += here.len() as u64;
            rest = beyond;
        }
        Ok(())
    }
}

/// Reads WAL from the segments.
pub(crate) struct SegmentReader<'a> {
    folder: &'a WalFolder,
    open: Option<(Segment, File)>,
}

impl SegmentReader<'_> {
    /// At most `bytes_max` bytes from `at` on, not beyond `until` or the segment's end; none where
    /// that WAL is not here.
    pub(crate) fn read(
        &mut self,
        at: Lsn,
        until: Lsn,
        bytes_max: usize,
    ) -> io::Result<Option<Bytes>> {
        if at < self.folder.begin {
            return Ok(None);
        }
        let segment = self.folder.segment(at);
        let file = match self.open.take() {
            Some((open, file)) if open == segment => file,
            _ => {
                let name = segment.file_name(self.folder.segment_bytes);
                match File::open(self.folder.path.join(name)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    opened => opened?,
                }
            }
        };
        let length = until.min(self.folder.segment_end(at)).since(at) as usize;
        let mut bytes = vec![0; length.min(bytes_max)];
        file.read_exact_at(&mut bytes, at.segment_offset(u64::from(self.folder.segment_bytes)))?;
        self.open = Some((segment, file));
        Ok(Some(bytes.into()))
    }
}
